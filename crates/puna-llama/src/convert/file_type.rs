//! Which tensor of a GGUF file has which type.

use std::fmt;
use std::str::FromStr;

use puna_tensor::{BlockType, DType};

use crate::config::Config;
use crate::error::{Error, Kind, Result};
use crate::weights::gguf::GgmlType;

/// What a GGUF file's matrices are stored as. Norms, biases and rotary factors are always f32, as llama.cpp needs them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum FileType {
    /// Each as the checkpoint has it.
    #[default]
    AsStored,
    /// All the same, the embedding and the head too.
    Pure(DType),
    /// One of llama.cpp's mixes.
    Mix(Mix),
}

/// A mix: most matrices in one type, those that matter more in a larger one, as llama.cpp's quantiser chooses them.
///
/// In all of them the head (the embedding, where that is the head too) is Q6_K.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mix {
    /// Q2_K, the first layers' `down_proj` Q4_K.
    Q2KS,
    /// Q3_K.
    Q3KS,
    /// Q3_K; `v_proj`, `o_proj` and `down_proj` Q4_K, Q5_K in the first layers.
    Q3KM,
    /// Q3_K; `v_proj`, `o_proj` and `down_proj` Q5_K.
    Q3KL,
    /// Q4_K; `v_proj` and `down_proj` of the first layers Q5_K.
    Q4KS,
    /// Q4_K; `v_proj` and `down_proj` of half the layers Q6_K.
    Q4KM,
    /// Q5_K.
    Q5KS,
    /// Q5_K; `v_proj` and `down_proj` of half the layers Q6_K.
    Q5KM,
}

impl Mix {
    /// Every mix.
    pub const ALL: [Mix; 8] = [Mix::Q2KS, Mix::Q3KS, Mix::Q3KM, Mix::Q3KL, Mix::Q4KS, Mix::Q4KM, Mix::Q5KS, Mix::Q5KM];

    /// The name that llama.cpp gives it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Q2KS => "Q2_K_S",
            Self::Q3KS => "Q3_K_S",
            Self::Q3KM => "Q3_K_M",
            Self::Q3KL => "Q3_K_L",
            Self::Q4KS => "Q4_K_S",
            Self::Q4KM => "Q4_K_M",
            Self::Q5KS => "Q5_K_S",
            Self::Q5KM => "Q5_K_M",
        }
    }

    /// The number that `general.file_type` says it by.
    pub(super) const fn number(self) -> u32 {
        match self {
            Self::Q3KS => 11,
            Self::Q3KM => 12,
            Self::Q3KL => 13,
            Self::Q4KS => 14,
            Self::Q4KM => 15,
            Self::Q5KS => 16,
            Self::Q5KM => 17,
            Self::Q2KS => 21,
        }
    }

    /// What most of the matrices are.
    const fn base(self) -> BlockType {
        match self {
            Self::Q2KS => BlockType::Q2K,
            Self::Q3KS | Self::Q3KM | Self::Q3KL => BlockType::Q3K,
            Self::Q4KS | Self::Q4KM => BlockType::Q4K,
            Self::Q5KS | Self::Q5KM => BlockType::Q5K,
        }
    }

    fn block(self, config: &Config, name: &str) -> BlockType {
        let is_head = if config.tie_word_embeddings { "model.embed_tokens.weight" } else { "lm_head.weight" };
        if name == is_head {
            return BlockType::Q6K;
        }
        let numbered = name.strip_prefix("model.layers.").and_then(|rest| rest.split_once('.'));
        let Some((layer, path)) = numbered.and_then(|(layer, path)| Some((layer.parse::<usize>().ok()?, path))) else {
            return self.base();
        };
        match path {
            "self_attn.v_proj.weight" => self.v_proj(config, layer),
            "self_attn.o_proj.weight" => match self {
                Self::Q3KM => BlockType::Q4K,
                Self::Q3KL => BlockType::Q5K,
                _ => self.base(),
            },
            "mlp.down_proj.weight" => self.down_proj(config, layer),
            _ => self.base(),
        }
    }

    fn v_proj(self, config: &Config, layer: usize) -> BlockType {
        let group = config.heads / config.kv_heads;
        let block = match self {
            Self::Q2KS if group >= 4 => BlockType::Q4K,
            Self::Q3KM if layer < 2 => BlockType::Q5K,
            Self::Q3KM => BlockType::Q4K,
            Self::Q3KL => BlockType::Q5K,
            Self::Q4KS if layer < 4 => BlockType::Q5K,
            Self::Q4KM | Self::Q5KM if has_more_bits(config, layer) => BlockType::Q6K,
            _ => self.base(),
        };
        // In the 70B models eight heads share a value head, so that more bits for it cost little.
        let is_70b = config.layers == 80 && group > 1;
        if is_70b && matches!(block, BlockType::Q3K | BlockType::Q4K) { BlockType::Q5K } else { block }
    }

    fn down_proj(self, config: &Config, layer: usize) -> BlockType {
        match self {
            Self::Q2KS if layer < config.layers / 8 => BlockType::Q4K,
            Self::Q3KM if layer < config.layers / 16 => BlockType::Q5K,
            Self::Q3KM => BlockType::Q4K,
            Self::Q3KL => BlockType::Q5K,
            Self::Q4KS if layer < config.layers / 8 => BlockType::Q5K,
            Self::Q4KM | Self::Q5KM if has_more_bits(config, layer) => BlockType::Q6K,
            _ => self.base(),
        }
    }
}

/// The first and the last eighth of the layers, and every third between.
fn has_more_bits(config: &Config, layer: usize) -> bool {
    let (layers, eighth) = (config.layers, config.layers / 8);
    layer < eighth || layer >= 7 * layers / 8 || (layer - eighth) % 3 == 2
}

impl FileType {
    /// The dtype of a tensor of the model, by Hugging Face's name. Where rows are no whole number of the blocks wanted, the
    /// next better type with blocks of 32, as llama.cpp has it: Q2_K and Q3_K become Q4_0, Q4_K Q5_0, Q5_K Q5_1, Q6_K Q8_0; where
    /// rows are no multiple of 32 either, f16.
    ///
    /// Gives the dtype wanted, where it is another, beside the one that fits.
    pub fn dtype(self, config: &Config, name: &str, shape: &[usize], stored: DType) -> (DType, Option<DType>) {
        let &[.., _, row] = shape else { return (DType::F32, None) };
        let wanted = match self {
            // The format has it, but nothing computes with it.
            Self::AsStored if stored == DType::F64 => DType::F32,
            Self::AsStored => stored,
            Self::Pure(dtype) => dtype,
            Self::Mix(mix) => DType::Block(mix.block(config, name)),
        };
        let fits = fitting(wanted, row);
        (fits, (fits != wanted).then_some(wanted))
    }

    /// Every type that has a name.
    pub fn all() -> impl Iterator<Item = FileType> {
        let floats = [DType::F32, DType::F16, DType::BF16];
        let blocks = BlockType::ALL.map(DType::Block);
        let pure = floats.into_iter().chain(blocks).filter(|dtype| GgmlType::of(*dtype).is_some()).map(FileType::Pure);
        pure.chain(Mix::ALL.map(FileType::Mix))
    }
}

fn fitting(dtype: DType, row: usize) -> DType {
    let fits = |dtype: DType| row % dtype.unit() == 0;
    let smaller = match dtype {
        DType::Block(BlockType::Q2K | BlockType::Q3K) => DType::Block(BlockType::Q4_0),
        DType::Block(BlockType::Q4K) => DType::Block(BlockType::Q5_0),
        DType::Block(BlockType::Q5K) => DType::Block(BlockType::Q5_1),
        DType::Block(BlockType::Q6K) => DType::Block(BlockType::Q8_0),
        _ => DType::F16,
    };
    [dtype, smaller].into_iter().find(|dtype| fits(*dtype)).unwrap_or(DType::F16)
}

impl fmt::Display for FileType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AsStored => f.write_str("as stored"),
            Self::Pure(dtype) => f.write_str(dtype.name()),
            Self::Mix(mix) => f.write_str(mix.name()),
        }
    }
}

impl FromStr for FileType {
    type Err = Error;

    /// Reads a name in any case: `F16`, `q8_0`, `Q4_K`, `Q4_K_M`.
    fn from_str(name: &str) -> Result<Self> {
        Self::all().find(|known| known.to_string().eq_ignore_ascii_case(name)).ok_or_else(|| {
            let known: Vec<_> = Self::all().map(|known| known.to_string()).collect();
            Error::new(Kind::Argument, "file type", format!("none is called {name:?}; there are {}", known.join(", ")))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(layers: usize, heads: usize, kv_heads: usize, tied: bool) -> Config {
        let json = format!(
            r#"{{"model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": {layers},
            "num_attention_heads": {heads}, "num_key_value_heads": {kv_heads}, "vocab_size": 128256,
            "tie_word_embeddings": {tied}}}"#
        );
        Config::from_hf_json("config.json", json.as_bytes()).unwrap()
    }

    /// The layers whose tensor has this type, where all others have the mix's own.
    #[track_caller]
    fn check(mix: Mix, config: &Config, path: &str, raised: BlockType, layers: &[usize]) {
        for layer in 0..config.layers {
            let expected = if layers.contains(&layer) { raised } else { mix.base() };
            let name = format!("model.layers.{layer}.{path}.weight");
            let (dtype, wanted) = FileType::Mix(mix).dtype(config, &name, &[4096, 4096], DType::BF16);
            assert_eq!((dtype, wanted), (DType::Block(expected), None), "{name}");
        }
    }

    // The layers as llama.cpp counts them for models of these sizes.
    #[test]
    fn mixes_raise_the_layers_that_llama_cpp_raises() {
        let (eight_b, one_b) = (config(32, 32, 8, false), config(16, 32, 8, true));
        let half = [0, 1, 2, 3, 6, 9, 12, 15, 18, 21, 24, 27, 28, 29, 30, 31];
        for mix in [Mix::Q4KM, Mix::Q5KM] {
            check(mix, &eight_b, "self_attn.v_proj", BlockType::Q6K, &half);
            check(mix, &eight_b, "mlp.down_proj", BlockType::Q6K, &half);
            check(mix, &eight_b, "self_attn.q_proj", BlockType::Q6K, &[]);
            check(mix, &eight_b, "self_attn.o_proj", BlockType::Q6K, &[]);
            check(mix, &one_b, "mlp.down_proj", BlockType::Q6K, &[0, 1, 4, 7, 10, 13, 14, 15]);
        }
        check(Mix::Q4KS, &eight_b, "mlp.down_proj", BlockType::Q5K, &[0, 1, 2, 3]);
        check(Mix::Q4KS, &eight_b, "self_attn.v_proj", BlockType::Q5K, &[0, 1, 2, 3]);
        check(Mix::Q3KM, &eight_b, "self_attn.o_proj", BlockType::Q4K, &(0..32).collect::<Vec<_>>());
        check(Mix::Q5KS, &eight_b, "self_attn.v_proj", BlockType::Q6K, &[]);
    }

    #[test]
    fn values_of_the_70b_models_get_more_bits() {
        check(Mix::Q3KS, &config(80, 64, 8, false), "self_attn.v_proj", BlockType::Q5K, &(0..80).collect::<Vec<_>>());
        check(Mix::Q3KS, &config(80, 64, 64, false), "self_attn.v_proj", BlockType::Q5K, &[]);
    }

    #[test]
    fn the_head_is_q6_k_and_so_is_the_embedding_that_serves_as_one() {
        let dtype = |tied: bool, name: &str| {
            FileType::Mix(Mix::Q4KM).dtype(&config(32, 32, 8, tied), name, &[128256, 4096], DType::BF16).0
        };
        assert_eq!(dtype(false, "lm_head.weight"), DType::Block(BlockType::Q6K));
        assert_eq!(dtype(false, "model.embed_tokens.weight"), DType::Block(BlockType::Q4K));
        assert_eq!(dtype(true, "model.embed_tokens.weight"), DType::Block(BlockType::Q6K));
    }

    #[test]
    fn rows_that_blocks_do_not_divide_get_a_type_that_fits() {
        let config = config(2, 32, 8, false);
        let dtype = |block: BlockType, row: usize| {
            FileType::Pure(DType::Block(block)).dtype(&config, "model.layers.0.mlp.up_proj.weight", &[8, row], DType::F32)
        };
        use BlockType::{Q2K, Q3K, Q4_0, Q4K, Q5_0, Q5_1, Q5K, Q6K, Q8_0};
        for (wanted, fits) in [(Q2K, Q4_0), (Q3K, Q4_0), (Q4K, Q5_0), (Q5K, Q5_1), (Q6K, Q8_0)] {
            assert_eq!(dtype(wanted, 512), (DType::Block(wanted), None));
            assert_eq!(dtype(wanted, 96), (DType::Block(fits), Some(DType::Block(wanted))));
        }
        assert_eq!(dtype(Q8_0, 48), (DType::F16, Some(DType::Block(Q8_0))));
        assert_eq!(dtype(Q4K, 48), (DType::F16, Some(DType::Block(Q4K))));
    }

    #[test]
    fn vectors_are_f32_whatever_is_asked_for() {
        let dtype = |file_type: FileType| file_type.dtype(&config(2, 32, 8, false), "model.norm.weight", &[4096], DType::BF16);
        FileType::all().chain([FileType::AsStored]).for_each(|file_type| assert_eq!(dtype(file_type), (DType::F32, None)));
    }

    #[test]
    fn every_name_is_read_back() {
        for known in FileType::all() {
            assert_eq!(known.to_string().to_lowercase().parse::<FileType>().unwrap(), known);
        }
        assert!("Q9_K".parse::<FileType>().unwrap_err().to_string().contains("Q4_K_M"));
        assert!("as stored".parse::<FileType>().is_err());
    }
}
