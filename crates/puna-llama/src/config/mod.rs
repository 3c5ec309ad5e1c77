//! What a checkpoint says of its model's shape: one struct, read from Hugging Face's `config.json`, Meta's `params.json` and GGUF.

mod fields;
mod gguf;
mod hugging_face;
mod meta;
mod tensors;

use puna_tensor::DType;
use puna_tensor::op::RopePairs;

pub(crate) use fields::{Fields, read_json};
pub use meta::FromWeights;
pub(crate) use tensors::because;

use crate::error::{Error, Result};
pub use crate::rope::{RopeScaling, Yarn};

/// The shape of a Llama.
///
/// | here | Hugging Face | Meta | GGUF (`llama.`) |
/// | --- | --- | --- | --- |
/// | `hidden_size` | `hidden_size` | `dim` | `embedding_length` |
/// | `intermediate_size` | `intermediate_size` | from `ffn_dim_multiplier`, `multiple_of` | `feed_forward_length` |
/// | `layers` | `num_hidden_layers` | `n_layers` | `block_count` |
/// | `heads`, `kv_heads` | `num_attention_heads`, `num_key_value_heads` | `n_heads`, `n_kv_heads` | `attention.head_count`, `attention.head_count_kv` |
/// | `head_dim` | `head_dim`, else hidden / heads | dim / heads | `attention.key_length`, else embedding / heads |
/// | `rope_theta` | `rope_theta` | `rope_theta` | `rope.freq_base` |
/// | `rms_norm_eps` | `rms_norm_eps` | `norm_eps` | `attention.layer_norm_rms_epsilon` |
/// | `max_seq` | `max_position_embeddings` | `max_seq_len` | `context_length` |
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The width of the residual stream.
    pub hidden_size: usize,
    /// The width of the feed-forward block.
    pub intermediate_size: usize,
    /// How many decoder layers there are.
    pub layers: usize,
    /// How many query heads a layer has.
    pub heads: usize,
    /// How many key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// The length of a head; even.
    pub head_dim: usize,
    /// How many tokens there are.
    pub vocab_size: usize,
    /// The longest context that the model was made for, in tokens.
    pub max_seq: usize,
    /// What is added to the mean square in the norms.
    pub rms_norm_eps: f64,
    /// The base of the rotary frequencies.
    pub rope_theta: f64,
    /// How the rotary frequencies are stretched.
    pub rope: RopeScaling,
    /// Which elements of a head turn together: it depends on who wrote the rows of q and k.
    pub rope_pairs: RopePairs,
    /// Whether the embedding is the head too.
    pub tie_word_embeddings: bool,
    /// Whether q, k, v and o have biases.
    pub attention_bias: bool,
    /// Whether gate, up and down have biases.
    pub mlp_bias: bool,
    /// The token that begins a text, where the config names one.
    pub bos: Option<u32>,
    /// The tokens that end a text, as far as the config names them.
    pub eos: Vec<u32>,
    /// The token that pads, where the config names one.
    pub pad: Option<u32>,
    /// The dtype that the config says the weights have.
    pub dtype: Option<DType>,
}

impl Config {
    /// How many tokens a sequence may have; `None` where the frequencies grow with it (dynamic scaling).
    ///
    /// Linear scaling stretches the context that the config names by its factor, as those configs mean it.
    pub fn context_limit(&self) -> Option<usize> {
        match &self.rope {
            RopeScaling::Dynamic { .. } => None,
            RopeScaling::Linear { factor } if *factor > 1.0 => Some((self.max_seq as f64 * factor) as usize),
            _ => Some(self.max_seq),
        }
    }

    /// Checks what no loader should have to: every size within bounds, nothing that contradicts itself.
    ///
    /// Errors: the first field that cannot be, by name; `place` is the file.
    pub(crate) fn check(self, place: &str) -> Result<Self> {
        // Bounds are ten times and more beyond the largest Llama; they keep products of a few within 64 bits.
        let sizes = [
            ("hidden_size", self.hidden_size, 1 << 20),
            ("intermediate_size", self.intermediate_size, 1 << 24),
            ("layers", self.layers, 1 << 12),
            ("heads", self.heads, 1 << 14),
            ("kv_heads", self.kv_heads, 1 << 14),
            ("head_dim", self.head_dim, 1 << 14),
            ("vocab_size", self.vocab_size, 1 << 24),
            ("max_seq", self.max_seq, 1 << 31),
        ];
        for (name, value, most) in sizes {
            if value == 0 || value > most {
                return Err(Error::config(place, format!("{name} is {value}; it lies between 1 and {most}")));
            }
        }
        let fail = |message: String| Err(Error::config(place, message));
        if self.heads % self.kv_heads != 0 {
            return fail(format!("{} heads do not divide among {} kv_heads", self.heads, self.kv_heads));
        }
        if self.head_dim % 2 != 0 {
            return fail(format!("head_dim is {}; rotary positions turn pairs, so it is even", self.head_dim));
        }
        if !(0.0..1.0).contains(&self.rms_norm_eps) {
            return fail(format!("rms_norm_eps is {}; it lies between 0 and 1", self.rms_norm_eps));
        }
        if !(self.rope_theta > 1.0 && self.rope_theta < 1e30) {
            return fail(format!("rope_theta is {}; it lies between 1 and 1e30", self.rope_theta));
        }
        self.check_rope().map_err(|message| Error::config(place, message))?;
        Ok(self)
    }

    fn check_rope(&self) -> std::result::Result<(), String> {
        let factor_is = |factor: f64| {
            let is_sane = factor > 0.0 && factor < 1e6;
            if is_sane { Ok(()) } else { Err(format!("the rope factor is {factor}; it lies between 0 and 1e6")) }
        };
        match &self.rope {
            RopeScaling::Default => {}
            RopeScaling::Linear { factor } | RopeScaling::Dynamic { factor } => factor_is(*factor)?,
            RopeScaling::Yarn(Yarn { factor, original_max_seq, beta_fast, beta_slow, .. }) => {
                factor_is(*factor)?;
                if *original_max_seq == 0 || *original_max_seq > 1 << 31 {
                    return Err(format!(
                        "original_max_position_embeddings is {original_max_seq}; it lies between 1 and {}",
                        1u32 << 31
                    ));
                }
                if !(beta_fast >= beta_slow && *beta_slow > 0.0) {
                    return Err(format!(
                        "beta_fast {beta_fast} and beta_slow {beta_slow}: the first is the larger, both are positive"
                    ));
                }
            }
            RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_seq } => {
                factor_is(*factor)?;
                if *original_max_seq == 0 || *original_max_seq > 1 << 31 {
                    return Err(format!(
                        "original_max_position_embeddings is {original_max_seq}; it lies between 1 and {}",
                        1u32 << 31
                    ));
                }
                if !(high_freq_factor > low_freq_factor && *low_freq_factor > 0.0) {
                    return Err(format!(
                        "low_freq_factor {low_freq_factor} and high_freq_factor {high_freq_factor}: the second is the larger, both are positive"
                    ));
                }
            }
            RopeScaling::Factors(factors) => {
                let half = self.head_dim / 2;
                if factors.len() != half {
                    return Err(format!("{} rope factors, but head_dim {} has {half} frequencies", factors.len(), self.head_dim));
                }
                if let Some(wrong) = factors.iter().find(|factor| !(**factor > 0.0 && **factor < 1e6)) {
                    return Err(format!("a rope factor is {wrong}; each lies between 0 and 1e6"));
                }
            }
        }
        let made = crate::rope::frequencies(self, 0);
        let is_finite = made.inv_freq.iter().all(|f| f.is_finite()) && made.scaling.is_finite();
        if is_finite { Ok(()) } else { Err("the rope settings give frequencies that are not finite".into()) }
    }
}
