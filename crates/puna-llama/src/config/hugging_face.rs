//! `config.json`, in the hub's spelling (`rope_theta`, `rope_scaling`) and the newer one (`rope_parameters`).

use puna_tensor::op::RopePairs;
use serde_json::{Map, Value, json};

use super::fields::{Fields, parse_json};
use super::{Config, RopeScaling, Yarn};
use crate::error::{Error, Result};
use crate::rope;
use crate::weights::GenerationConfig;

/// A `config.json` has a kilobyte.
const MOST_BYTES: usize = 1 << 20;

impl Config {
    /// Reads Hugging Face's `config.json`; `place` is what errors call the file.
    ///
    /// Errors: an architecture other than `LlamaForCausalLM`, an unknown rope kind or key, a quantisation, a missing or absurd size.
    pub fn from_hf_json(place: &str, bytes: &[u8]) -> Result<Self> {
        let object = parse_json(place, bytes, MOST_BYTES)?;
        let fields = Fields { place, object: &object };
        check_architecture(&fields)?;
        check_variants(&fields)?;

        let heads = fields.required_count("num_attention_heads")?;
        let hidden_size = fields.required_count("hidden_size")?;
        let head_dim = match fields.count("head_dim")? {
            Some(head_dim) => head_dim,
            None if heads == 0 || hidden_size % heads != 0 => {
                let message = format!(
                    "hidden_size {hidden_size} does not divide among {heads} num_attention_heads, and there is no head_dim"
                );
                return Err(Error::config(place, message));
            }
            None => hidden_size / heads,
        };
        let max_seq = fields.count("max_position_embeddings")?.unwrap_or(2048);
        let (rope_theta, rope) = rope(&fields, max_seq)?;
        let dtype = match fields.text("dtype")? {
            Some(name) => Some(name),
            None => fields.text("torch_dtype")?,
        };
        let config = Config {
            hidden_size,
            intermediate_size: fields.required_count("intermediate_size")?,
            layers: fields.required_count("num_hidden_layers")?,
            heads,
            kv_heads: fields.count("num_key_value_heads")?.unwrap_or(heads),
            head_dim,
            vocab_size: fields.required_count("vocab_size")?,
            max_seq,
            rms_norm_eps: fields.number("rms_norm_eps")?.unwrap_or(1e-6),
            rope_theta,
            rope,
            rope_pairs: RopePairs::Halves,
            tie_word_embeddings: fields.flag("tie_word_embeddings")?.unwrap_or(false),
            attention_bias: fields.flag("attention_bias")?.unwrap_or(false),
            mlp_bias: fields.flag("mlp_bias")?.unwrap_or(false),
            bos: fields.id("bos_token_id")?,
            eos: fields.ids("eos_token_id")?,
            pad: fields.id("pad_token_id")?,
            // What the weights are, the files themselves say; a name we do not know ("auto") is no error.
            dtype: dtype.and_then(|name| name.trim_start_matches("torch.").parse().ok()),
        };
        config.check(place)
    }

    /// Writes `config.json` in the hub's spelling, which every version of transformers reads. Rows of q and k are understood to lie
    /// in halves, whatever [`rope_pairs`](Self::rope_pairs) says.
    ///
    /// Errors: rope factors of a GGUF file that no `llama3` setting gives.
    pub fn to_hf_json(&self) -> Result<Map<String, Value>> {
        let eos = match self.eos.as_slice() {
            [] => Value::Null,
            [id] => json!(id),
            ids => json!(ids),
        };
        let dtype = self.dtype.filter(|dtype| dtype.is_float()).map(|dtype| match dtype {
            puna_tensor::DType::F64 => "float64",
            puna_tensor::DType::F16 => "float16",
            puna_tensor::DType::BF16 => "bfloat16",
            _ => "float32",
        });
        let Value::Object(object) = json!({
            "architectures": ["LlamaForCausalLM"],
            "attention_bias": self.attention_bias,
            "attention_dropout": 0.0,
            "bos_token_id": self.bos,
            "eos_token_id": eos,
            "head_dim": self.head_dim,
            "hidden_act": "silu",
            "hidden_size": self.hidden_size,
            "initializer_range": 0.02,
            "intermediate_size": self.intermediate_size,
            "max_position_embeddings": self.max_seq,
            "mlp_bias": self.mlp_bias,
            "model_type": "llama",
            "num_attention_heads": self.heads,
            "num_hidden_layers": self.layers,
            "num_key_value_heads": self.kv_heads,
            "pad_token_id": self.pad,
            "pretraining_tp": 1,
            "rms_norm_eps": self.rms_norm_eps,
            "rope_scaling": self.rope_json()?,
            "rope_theta": self.rope_theta,
            "tie_word_embeddings": self.tie_word_embeddings,
            "torch_dtype": dtype,
            "use_cache": true,
            "vocab_size": self.vocab_size,
        }) else {
            unreachable!("the macro was given an object")
        };
        Ok(object)
    }

    fn rope_json(&self) -> Result<Value> {
        Ok(match &self.rope {
            RopeScaling::Default => Value::Null,
            RopeScaling::Linear { factor } => json!({"rope_type": "linear", "factor": factor}),
            RopeScaling::Dynamic { factor } => json!({"rope_type": "dynamic", "factor": factor}),
            RopeScaling::Yarn(yarn) => {
                let mut object = json!({
                    "rope_type": "yarn",
                    "factor": yarn.factor,
                    "original_max_position_embeddings": yarn.original_max_seq,
                    "beta_fast": yarn.beta_fast,
                    "beta_slow": yarn.beta_slow,
                });
                let optional = [
                    ("attention_factor", yarn.attention_factor),
                    ("mscale", yarn.mscale),
                    ("mscale_all_dim", yarn.mscale_all_dim),
                ];
                for (name, value) in optional {
                    if let Some(value) = value {
                        object[name] = json!(value);
                    }
                }
                if !yarn.truncate {
                    object["truncate"] = json!(false);
                }
                object
            }
            RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_seq } => json!({
                "rope_type": "llama3",
                "factor": factor,
                "low_freq_factor": low_freq_factor,
                "high_freq_factor": high_freq_factor,
                "original_max_position_embeddings": original_max_seq,
            }),
            RopeScaling::Factors(factors) => match rope::llama3_setting(factors, self.rope_theta, self.head_dim) {
                Some(setting) => Config { rope: setting, ..self.clone() }.rope_json()?,
                None => {
                    let message =
                        "rope_freqs.weight is none that a llama3 rope_scaling gives, and config.json has no place for factors";
                    return Err(Error::unsupported("rope_scaling", message));
                }
            },
        })
    }
}

fn check_architecture(fields: &Fields<'_>) -> Result<()> {
    let refuse = |name: &str| {
        let name: String = name.chars().take(80).collect();
        let later = if ["llama4", "mllama"].iter().any(|later| name.to_ascii_lowercase().contains(later)) { " yet" } else { "" };
        let message = format!("the architecture {name:?} is not supported{later}; LlamaForCausalLM is");
        Err(Error::unsupported(fields.place, message))
    };
    let model_type = fields.text("model_type")?;
    let listed = match fields.get("architectures") {
        None => None,
        Some(Value::Array(names)) if names.is_empty() => None,
        Some(Value::Array(names)) => Some(names.iter().map(|name| name.as_str().unwrap_or_default()).collect::<Vec<_>>()),
        Some(_) => return Err(Error::config(fields.place, "architectures is no list; [\"LlamaForCausalLM\"] would be right")),
    };
    match (listed, model_type) {
        (Some(names), model_type) if names.contains(&"LlamaForCausalLM") => match model_type {
            None | Some("llama") => Ok(()),
            Some(other) => refuse(other),
        },
        (Some(names), _) => refuse(names[0]),
        (None, Some("llama")) => Ok(()),
        (None, Some(other)) => refuse(other),
        (None, None) => Err(Error::config(fields.place, "it names no architecture; a Llama's has model_type \"llama\"")),
    }
}

/// Refuses what would make it another model than the one that is computed.
fn check_variants(fields: &Fields<'_>) -> Result<()> {
    let refuse = |message: String| Err(Error::unsupported(fields.place, message));
    if let Some(activation) = fields.text("hidden_act")?.filter(|name| !matches!(*name, "silu" | "swish")) {
        return refuse(format!("hidden_act is {activation:?}; silu is supported"));
    }
    if let Some(quantization) = fields.object("quantization_config")? {
        let method = quantization.text("quant_method")?.unwrap_or("of an unnamed method");
        return refuse(format!("the weights are quantised ({method}); unquantised safetensors and GGUF's blocks are supported"));
    }
    if let Some(part) = fields.number("partial_rotary_factor")?.filter(|part| *part != 1.0) {
        return refuse(format!("partial_rotary_factor is {part}; 1, whole heads, is supported"));
    }
    if fields.flag("rope_interleaved")? == Some(true) {
        return refuse("rope_interleaved is true; rows of q and k in halves are supported here".into());
    }
    Ok(())
}

/// `rope_theta` and the scaling, from either spelling.
fn rope(fields: &Fields<'_>, max_seq: usize) -> Result<(f64, RopeScaling)> {
    let theta = fields.number("rope_theta")?;
    let old = match fields.object("rope_scaling")? {
        Some(scaling) => Some(scaling_of(&scaling, max_seq)?),
        None => None,
    };
    let Some(new) = fields.object("rope_parameters")? else {
        return Ok((theta.unwrap_or(10000.0), old.unwrap_or(RopeScaling::Default)));
    };
    let rope = scaling_of(&new, max_seq)?;
    if let Some(old) = old.filter(|old| *old != rope) {
        let message = format!("rope_scaling and rope_parameters contradict each other: {old:?} and {rope:?}");
        return Err(Error::config(fields.place, message));
    }
    match (theta, new.number("rope_theta")?) {
        (Some(a), Some(b)) if a != b => {
            Err(Error::config(fields.place, format!("rope_theta is {a}, but in rope_parameters it is {b}; which is meant?")))
        }
        (a, b) => Ok((b.or(a).unwrap_or(10000.0), rope)),
    }
}

fn scaling_of(fields: &Fields<'_>, max_seq: usize) -> Result<RopeScaling> {
    let kind = match (fields.text("rope_type")?, fields.text("type")?) {
        (Some(a), Some(b)) if a != b => {
            return Err(Error::config(
                fields.place,
                format!("the rope kind is {a:?} by rope_type and {b:?} by type; which is meant?"),
            ));
        }
        (a, b) => a.or(b).unwrap_or("default"),
    };
    let refuse_others = |known: &[&str]| {
        let every = ["rope_type", "type", "rope_theta", "partial_rotary_factor"];
        fields.refuse_others(&format!("rope kind {kind:?}"), &[&every, known].concat())
    };
    if let Some(part) = fields.number("partial_rotary_factor")?.filter(|part| *part != 1.0) {
        let message = format!("partial_rotary_factor is {part}; 1, whole heads, is supported");
        return Err(Error::unsupported(fields.place, message));
    }
    let original = fields.count("original_max_position_embeddings")?;
    match kind {
        "default" => {
            refuse_others(&[])?;
            Ok(RopeScaling::Default)
        }
        "linear" => {
            refuse_others(&["factor"])?;
            Ok(RopeScaling::Linear { factor: fields.required_number("factor")? })
        }
        "dynamic" => {
            // The reference takes the length from max_position_embeddings, whether or not the original one is given.
            refuse_others(&["factor", "original_max_position_embeddings"])?;
            Ok(RopeScaling::Dynamic { factor: fields.required_number("factor")? })
        }
        "yarn" => {
            refuse_others(&[
                "factor",
                "original_max_position_embeddings",
                "attention_factor",
                "beta_fast",
                "beta_slow",
                "mscale",
                "mscale_all_dim",
                "truncate",
                // Says how the model came about, not what to compute.
                "finetuned",
            ])?;
            let factor = match (fields.number("factor")?, original) {
                (Some(factor), _) => factor,
                (None, Some(original)) if original > 0 => max_seq as f64 / original as f64,
                (None, _) => return Err(fields.missing("factor")),
            };
            // Zero means absent, as in the reference.
            let positive = |name: &str, default: f64| Result::Ok(fields.number(name)?.filter(|v| *v != 0.0).unwrap_or(default));
            Ok(RopeScaling::Yarn(Yarn {
                factor,
                original_max_seq: original.unwrap_or(max_seq),
                attention_factor: fields.number("attention_factor")?,
                beta_fast: positive("beta_fast", 32.0)?,
                beta_slow: positive("beta_slow", 1.0)?,
                mscale: fields.number("mscale")?,
                mscale_all_dim: fields.number("mscale_all_dim")?,
                truncate: fields.flag("truncate")?.unwrap_or(true),
            }))
        }
        "llama3" => {
            refuse_others(&["factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"])?;
            Ok(RopeScaling::Llama3 {
                factor: fields.required_number("factor")?,
                low_freq_factor: fields.required_number("low_freq_factor")?,
                high_freq_factor: fields.required_number("high_freq_factor")?,
                original_max_seq: original.ok_or_else(|| fields.missing("original_max_position_embeddings"))?,
            })
        }
        other => {
            let other: String = other.chars().take(80).collect();
            let message = format!("the rope kind {other:?} is not supported; default, linear, dynamic, yarn and llama3 are");
            Err(Error::unsupported(fields.place, message))
        }
    }
}

impl GenerationConfig {
    /// Reads the fields of `generation_config.json` that are known; there are many, most of which concern others.
    ///
    /// Errors: one of another type.
    pub(crate) fn from_json(place: &str, object: &Map<String, Value>) -> Result<Self> {
        let fields = Fields { place, object };
        Ok(Self {
            bos: fields.id("bos_token_id")?,
            eos: fields.ids("eos_token_id")?,
            pad: fields.id("pad_token_id")?,
            do_sample: fields.flag("do_sample")?,
            temperature: fields.number("temperature")?,
            top_k: fields.count("top_k")?,
            top_p: fields.number("top_p")?,
            min_p: fields.number("min_p")?,
            repetition_penalty: fields.number("repetition_penalty")?,
        })
    }
}
