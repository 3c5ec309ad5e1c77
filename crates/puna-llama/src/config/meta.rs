//! Meta's `params.json`.

use puna_tensor::DType;
use puna_tensor::op::RopePairs;

use super::fields::{Fields, parse_json};
use super::{Config, RopeScaling};
use crate::error::{Error, Result};

const MOST_BYTES: usize = 1 << 20;

/// What the weights say and `params.json` leaves out.
#[derive(Debug, Clone, Copy, Default)]
pub struct FromWeights {
    /// The rows of the head, or of the embedding.
    pub vocab_size: Option<usize>,
    /// Whether there is no head of its own.
    pub tie_word_embeddings: bool,
    /// What most weights are stored as.
    pub dtype: Option<DType>,
}

impl Config {
    /// Reads Meta's `params.json`; `place` is what errors call the file.
    ///
    /// Where it says nothing, Meta's code decides: `rope_theta` is 10000, a scaled rope has factor 8 (and frequency factors 1 and 4
    /// over 8192 tokens), `n_kv_heads` is `n_heads`. The context is not in the file: 131072 with a scaled rope, else what the models
    /// of that base were trained on (16384 from a base of 1e6 on, 8192 from 500000 on, else 4096), unless `max_seq_len` says.
    ///
    /// Errors: an unknown key (it may change the model), a missing or absurd size.
    pub fn from_meta_json(place: &str, bytes: &[u8], weights: FromWeights) -> Result<Self> {
        let object = parse_json(place, bytes, MOST_BYTES)?;
        let fields = Fields { place, object: &object };
        fields.refuse_others(
            "params.json",
            &[
                "dim",
                "n_layers",
                "n_heads",
                "n_kv_heads",
                "vocab_size",
                "multiple_of",
                "ffn_dim_multiplier",
                "norm_eps",
                "rope_theta",
                "use_scaled_rope",
                "rope_scaling_factor",
                "max_seq_len",
                "max_batch_size",
            ],
        )?;
        let dim = fields.required_count("dim")?;
        let heads = fields.required_count("n_heads")?;
        if heads == 0 || dim % heads != 0 {
            return Err(Error::config(place, format!("dim {dim} does not divide among {heads} n_heads")));
        }
        let rope_theta = fields.number("rope_theta")?.unwrap_or(10000.0);
        let is_scaled = fields.flag("use_scaled_rope")?.unwrap_or(false);
        let rope = match is_scaled {
            false => RopeScaling::Default,
            true => RopeScaling::Llama3 {
                factor: fields.number("rope_scaling_factor")?.unwrap_or(8.0),
                low_freq_factor: 1.0,
                high_freq_factor: 4.0,
                original_max_seq: 8192,
            },
        };
        let trained = match rope_theta {
            _ if is_scaled => 131_072,
            1e6.. => 16384,
            500_000.0.. => 8192,
            _ => 4096,
        };
        let written = fields.object.get("vocab_size").and_then(serde_json::Value::as_i64);
        let vocab_size = match written {
            None | Some(-1) => weights
                .vocab_size
                .ok_or_else(|| Error::config(place, "vocab_size is not given, and there are no weights to take it from"))?,
            Some(_) => fields.required_count("vocab_size")?,
        };
        let config = Config {
            hidden_size: dim,
            intermediate_size: intermediate_size(&fields, dim)?,
            layers: fields.required_count("n_layers")?,
            heads,
            kv_heads: fields.count("n_kv_heads")?.unwrap_or(heads),
            head_dim: dim / heads,
            vocab_size,
            max_seq: fields.count("max_seq_len")?.unwrap_or(trained),
            rms_norm_eps: fields.number("norm_eps")?.unwrap_or(1e-5),
            rope_theta,
            rope,
            rope_pairs: RopePairs::Interleaved,
            tie_word_embeddings: weights.tie_word_embeddings,
            attention_bias: false,
            mlp_bias: false,
            bos: None,
            eos: Vec::new(),
            pad: None,
            dtype: weights.dtype,
        };
        config.check(place)
    }
}

/// Two thirds of four times `dim`, times the multiplier, rounded down at each step and then up to a multiple.
fn intermediate_size(fields: &Fields<'_>, dim: usize) -> Result<usize> {
    let multiple_of = fields.count("multiple_of")?.unwrap_or(256);
    if dim > 1 << 20 || multiple_of == 0 || multiple_of > 1 << 20 {
        let message = format!("dim {dim} and multiple_of {multiple_of} lie between 1 and {}", 1 << 20);
        return Err(Error::config(fields.place, message));
    }
    let size = 8 * dim / 3;
    let size = match fields.number("ffn_dim_multiplier")? {
        Some(multiplier) if !(multiplier > 0.0 && multiplier < 1e3) => {
            let message = format!("ffn_dim_multiplier is {multiplier}; it lies between 0 and 1000");
            return Err(Error::config(fields.place, message));
        }
        Some(multiplier) => (multiplier * size as f64) as usize,
        None => size,
    };
    Ok(size.next_multiple_of(multiple_of))
}
