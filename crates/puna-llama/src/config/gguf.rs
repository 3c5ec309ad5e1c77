//! GGUF's metadata, `general.*` and `llama.*`.

use bytemuck::pod_collect_to_vec;
use puna_tensor::op::RopePairs;
use puna_tensor::{BlockType, DType};

use super::{Config, RopeScaling, Yarn};
use crate::error::{Error, Result};

use crate::weights::TensorInfo;
use crate::weights::gguf::{Gguf, Value};
use crate::weights::write::MetadataValue;

/// Keys under `llama.` that the config is read from, and those that do not change what is computed.
const KNOWN: [&str; 24] = [
    "vocab_size",
    "context_length",
    "embedding_length",
    "block_count",
    "feed_forward_length",
    "attention.head_count",
    "attention.head_count_kv",
    "attention.key_length",
    "attention.value_length",
    "attention.layer_norm_rms_epsilon",
    "attention.causal",
    "rope.dimension_count",
    "rope.freq_base",
    "rope.scale_linear",
    "rope.scaling.type",
    "rope.scaling.factor",
    "rope.scaling.attn_factor",
    "rope.scaling.original_context_length",
    "rope.scaling.finetuned",
    "rope.scaling.yarn_beta_fast",
    "rope.scaling.yarn_beta_slow",
    "expert_count",
    "expert_used_count",
    "tensor_data_layout",
];

impl Config {
    /// Reads the metadata of a GGUF model; `tensors` are those of all its files, by Hugging Face's names.
    ///
    /// Errors: an architecture other than `llama`, a key that may change the model and is not known, experts, a missing or absurd
    /// size, values that contradict each other or the tensors.
    pub fn from_gguf(gguf: &Gguf, tensors: &[TensorInfo]) -> Result<Self> {
        let place = gguf.file().name();
        let keys = Keys { gguf, place: &place };
        match gguf.string("general.architecture") {
            Some("llama") => {}
            Some(other) => {
                let other: String = other.chars().take(80).collect();
                let later = if other == "llama4" { " yet" } else { "" };
                return Err(Error::unsupported(&place, format!("the architecture {other:?} is not supported{later}; llama is")));
            }
            None => return Err(Error::config(&place, "general.architecture is missing; \"llama\" would be right")),
        }
        keys.refuse_unknown()?;

        let heads = keys.required_count("attention.head_count")?;
        let hidden_size = keys.required_count("embedding_length")?;
        let head_dim = match keys.count("attention.key_length")? {
            Some(head_dim) => head_dim,
            None if heads == 0 || hidden_size % heads != 0 => {
                let message =
                    format!("embedding_length {hidden_size} does not divide among {heads} heads, and there is no key_length");
                return Err(Error::config(&place, message));
            }
            None => hidden_size / heads,
        };
        keys.expect_count("attention.value_length", head_dim, "values as long as keys are supported")?;
        keys.expect_count("rope.dimension_count", head_dim, "rotary positions over whole heads are supported")?;
        keys.expect_count("expert_count", 0, "experts are not supported")?;
        if gguf.get("llama.attention.causal").is_some_and(|value| matches!(value, Value::Bool(false))) {
            return Err(Error::unsupported(&place, "llama.attention.causal is false; causal attention is supported"));
        }

        let find = |name: &str| tensors.iter().find(|tensor| tensor.name == name);
        let embedding_rows = find("model.embed_tokens.weight").and_then(|tensor| tensor.shape.first().copied());
        let vocab_size = match (keys.count("vocab_size")?, gguf.array("tokenizer.ggml.tokens"), embedding_rows) {
            (Some(size), ..) => size,
            // Where only the tensor says, it says it rightly: the rows are what can be looked up.
            (None, _, Some(rows)) => rows,
            (None, Some(tokens), None) => tokens.length,
            (None, None, None) => {
                return Err(Error::config(&place, "neither metadata nor tensors say how many tokens there are"));
            }
        };
        let max_seq = keys.required_count("context_length")?;
        let rope_theta = keys.number("rope.freq_base")?.unwrap_or(10000.0);
        let rope = match find("rope_freqs.weight") {
            Some(tensor) => keys.factors(tensor)?,
            None => keys.rope_scaling(max_seq)?,
        };
        if rope == RopeScaling::Default && rope_theta == 500_000.0 && max_seq > 8192 {
            tracing::warn!(
                file = place,
                "the context of {max_seq} tokens needs rope factors, and the file has none: text beyond 8192 tokens will be poor; \
                 a newer conversion of the model has rope_freqs.weight"
            );
        }
        let id = |key: &str| gguf.integer(key).and_then(|id| u32::try_from(id).ok());
        let config = Config {
            hidden_size,
            intermediate_size: keys.required_count("feed_forward_length")?,
            layers: keys.required_count("block_count")?,
            heads,
            kv_heads: keys.count("attention.head_count_kv")?.unwrap_or(heads),
            head_dim,
            vocab_size,
            max_seq,
            rms_norm_eps: keys.required_number("attention.layer_norm_rms_epsilon")?,
            rope_theta,
            rope,
            rope_pairs: RopePairs::Interleaved,
            tie_word_embeddings: find("lm_head.weight").is_none(),
            attention_bias: find("model.layers.0.self_attn.q_proj.bias").is_some(),
            mlp_bias: find("model.layers.0.mlp.gate_proj.bias").is_some(),
            bos: id("tokenizer.ggml.bos_token_id"),
            eos: end_tokens(gguf),
            pad: id("tokenizer.ggml.padding_token_id"),
            dtype: None,
        };
        config.check(&place)
    }

    /// The metadata of a GGUF file of this model, without the tokenizer's. Rows of q and k are understood to lie interleaved, and
    /// [`factors`](crate::rope::factors), where there are such, to be the tensor `rope_freqs.weight`.
    ///
    /// Errors: dynamic rope scaling, which the format does not know.
    pub fn to_gguf_metadata(&self, name: &str, file_type: DType) -> Result<Vec<(String, MetadataValue)>> {
        use MetadataValue::{F32, Str, U32};
        // Bounded where the config was read.
        let size = |value: usize| U32(value as u32);
        let mut metadata = vec![
            ("general.architecture", Str("llama".into())),
            ("general.name", Str(name.into())),
            ("general.file_type", U32(file_type_number(file_type))),
            ("llama.vocab_size", size(self.vocab_size)),
            ("llama.context_length", size(self.max_seq)),
            ("llama.embedding_length", size(self.hidden_size)),
            ("llama.block_count", size(self.layers)),
            ("llama.feed_forward_length", size(self.intermediate_size)),
            ("llama.attention.head_count", size(self.heads)),
            ("llama.attention.head_count_kv", size(self.kv_heads)),
            ("llama.attention.key_length", size(self.head_dim)),
            ("llama.attention.value_length", size(self.head_dim)),
            ("llama.attention.layer_norm_rms_epsilon", F32(self.rms_norm_eps as f32)),
            ("llama.rope.dimension_count", size(self.head_dim)),
            ("llama.rope.freq_base", F32(self.rope_theta as f32)),
        ];
        match &self.rope {
            RopeScaling::Default | RopeScaling::Llama3 { .. } | RopeScaling::Factors(_) => {}
            RopeScaling::Linear { factor } => {
                metadata.push(("llama.rope.scaling.type", Str("linear".into())));
                metadata.push(("llama.rope.scaling.factor", F32(*factor as f32)));
            }
            RopeScaling::Yarn(yarn) => {
                metadata.push(("llama.rope.scaling.type", Str("yarn".into())));
                metadata.push(("llama.rope.scaling.factor", F32(yarn.factor as f32)));
                metadata.push(("llama.rope.scaling.original_context_length", size(yarn.original_max_seq)));
                metadata.push(("llama.rope.scaling.yarn_beta_fast", F32(yarn.beta_fast as f32)));
                metadata.push(("llama.rope.scaling.yarn_beta_slow", F32(yarn.beta_slow as f32)));
                // The format's factor multiplies the derived one.
                let derived = Yarn { attention_factor: None, mscale: None, mscale_all_dim: None, ..yarn.clone() };
                let ratio = yarn.scaling() / derived.scaling();
                if (ratio - 1.0).abs() > 1e-6 {
                    metadata.push(("llama.rope.scaling.attn_factor", F32(ratio as f32)));
                }
                if !yarn.truncate {
                    return Err(Error::unsupported("rope_scaling", "yarn with truncate false has no form in GGUF"));
                }
            }
            RopeScaling::Dynamic { .. } => {
                return Err(Error::unsupported("rope_scaling", "dynamic scaling has no form in GGUF"));
            }
        }
        Ok(metadata.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
    }
}

/// The number that llama.cpp knows a file of mostly this type by.
fn file_type_number(dtype: DType) -> u32 {
    match dtype {
        DType::F16 => 1,
        DType::Block(BlockType::Q4_0) => 2,
        DType::Block(BlockType::Q4_1) => 3,
        DType::Block(BlockType::Q8_0) => 7,
        DType::Block(BlockType::Q5_0) => 8,
        DType::Block(BlockType::Q5_1) => 9,
        DType::Block(BlockType::Q2K) => 10,
        DType::Block(BlockType::Q3K) => 12,
        DType::Block(BlockType::Q4K) => 15,
        DType::Block(BlockType::Q5K) => 17,
        DType::Block(BlockType::Q6K) => 18,
        DType::BF16 => 32,
        _ => 0,
    }
}

/// The ids that end a text: of the text, of a turn, of a message. Files from before the last two keys were written hold the tokens
/// all the same, under the names that Llama 3 defines.
fn end_tokens(gguf: &Gguf) -> Vec<u32> {
    let id = |name: &str| gguf.integer(&format!("tokenizer.ggml.{name}_token_id")).and_then(|id| u32::try_from(id).ok());
    let mut ids: Vec<u32> = ["eos", "eot", "eom"].into_iter().filter_map(id).collect();
    if let Some(tokens) = gguf.array("tokenizer.ggml.tokens") {
        let is_end = |text: &[u8]| text == b"<|eot_id|>" || text == b"<|eom_id|>";
        ids.extend(tokens.strings().enumerate().filter(|(_, text)| is_end(text)).map(|(id, _)| id as u32));
    }
    let mut seen = Vec::new();
    ids.retain(|id| {
        let is_new = !seen.contains(id);
        seen.push(*id);
        is_new
    });
    ids
}

/// Typed access to the keys under `llama.`.
struct Keys<'a> {
    gguf: &'a Gguf,
    place: &'a str,
}

impl Keys<'_> {
    fn get(&self, key: &str) -> Option<Value<'_>> {
        self.gguf.get(&format!("llama.{key}"))
    }

    fn wrong<T>(&self, key: &str, value: Value<'_>, wanted: &str) -> Result<T> {
        let shown = match value {
            Value::Integer(v) => v.to_string(),
            Value::Float(v) => v.to_string(),
            Value::Bool(v) => v.to_string(),
            Value::String(_) => "a text".into(),
            Value::Array(array) => format!("an array of {}", array.length),
        };
        Err(Error::config(self.place, format!("llama.{key} is {shown}; {wanted} would be right")))
    }

    fn missing(&self, key: &str) -> Error {
        Error::config(self.place, format!("llama.{key} is missing; a Llama's metadata has it"))
    }

    fn count(&self, key: &str) -> Result<Option<usize>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Integer(value)) if usize::try_from(value).is_ok() => Ok(usize::try_from(value).ok()),
            Some(value) => self.wrong(key, value, "one whole number for all layers"),
        }
    }

    fn required_count(&self, key: &str) -> Result<usize> {
        self.count(key)?.ok_or_else(|| self.missing(key))
    }

    fn number(&self, key: &str) -> Result<Option<f64>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Float(value)) if value.is_finite() => Ok(Some(as_written(value))),
            Some(Value::Integer(value)) => Ok(Some(value as f64)),
            Some(value) => self.wrong(key, value, "a number"),
        }
    }

    fn required_number(&self, key: &str) -> Result<f64> {
        self.number(key)?.ok_or_else(|| self.missing(key))
    }

    fn expect_count(&self, key: &str, right: usize, why: &str) -> Result<()> {
        match self.count(key)? {
            Some(count) if count != right => {
                let message = format!("llama.{key} is {count}; {why}, which is {right}");
                Err(Error::unsupported(self.place, message))
            }
            _ => Ok(()),
        }
    }

    /// Keys that nobody here knows may change the model: scales, windows, other rotary settings.
    fn refuse_unknown(&self) -> Result<()> {
        let unknown = self.gguf.metadata().find(|(key, _)| key.strip_prefix("llama.").is_some_and(|key| !KNOWN.contains(&key)));
        match unknown {
            None => Ok(()),
            Some((key, _)) => {
                let key: String = key.chars().take(80).collect();
                Err(Error::unsupported(self.place, format!("the key {key:?} may change the model, and is not known")))
            }
        }
    }

    fn factors(&self, tensor: &TensorInfo) -> Result<RopeScaling> {
        // The type is written even where the factors replace it.
        let is_plain = matches!(self.get("rope.scaling.type"), None | Some(Value::String("none" | "linear")));
        let is_unscaled = self.number("rope.scaling.factor")?.is_none_or(|factor| factor == 1.0);
        if !is_plain || !is_unscaled {
            let message = "there are both rope_freqs.weight and llama.rope.scaling settings; one of them would be right";
            return Err(Error::unsupported(self.place, message));
        }
        if tensor.dtype()? != DType::F32 || tensor.shape.len() != 1 {
            let message = format!("rope_freqs.weight is {:?} {}; a row of f32 would be right", tensor.shape, tensor.dtype);
            return Err(Error::config(self.place, message));
        }
        let values: Vec<[u8; 4]> = pod_collect_to_vec(&tensor.bytes()?);
        Ok(RopeScaling::Factors(values.into_iter().map(f32::from_le_bytes).collect()))
    }

    fn rope_scaling(&self, max_seq: usize) -> Result<RopeScaling> {
        // The key of the first files: a factor alone.
        let old = self.number("rope.scale_linear")?.filter(|factor| *factor != 1.0);
        let kind = match self.get("rope.scaling.type") {
            None if old.is_some() => "linear",
            None => "none",
            Some(Value::String(kind)) => kind,
            Some(value) => return self.wrong("rope.scaling.type", value, "a text"),
        };
        let factor = || match self.number("rope.scaling.factor")?.or(old) {
            Some(factor) => Ok(factor),
            None => Err(self.missing("rope.scaling.factor")),
        };
        match kind {
            "none" => Ok(RopeScaling::Default),
            "linear" => Ok(RopeScaling::Linear { factor: factor()? }),
            "yarn" => {
                let mut yarn = Yarn {
                    factor: factor()?,
                    original_max_seq: self.count("rope.scaling.original_context_length")?.unwrap_or(max_seq),
                    attention_factor: None,
                    beta_fast: self.number("rope.scaling.yarn_beta_fast")?.unwrap_or(32.0),
                    beta_slow: self.number("rope.scaling.yarn_beta_slow")?.unwrap_or(1.0),
                    mscale: None,
                    mscale_all_dim: None,
                    truncate: true,
                };
                // The format's factor multiplies the derived one.
                if let Some(ratio) = self.number("rope.scaling.attn_factor")? {
                    yarn.attention_factor = Some(ratio * yarn.scaling());
                }
                Ok(RopeScaling::Yarn(yarn))
            }
            other => {
                let other: String = other.chars().take(80).collect();
                let message = format!("llama.rope.scaling.type {other:?} is not supported; none, linear and yarn are");
                Err(Error::unsupported(self.place, message))
            }
        }
    }
}

/// The shortest decimal that the f32 in the file is the rounding of: 1e-5, not 9.99999974e-6.
fn as_written(value: f64) -> f64 {
    let narrow = value as f32;
    if f64::from(narrow) == value { narrow.to_string().parse().unwrap_or(value) } else { value }
}
