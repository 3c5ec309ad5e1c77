//! A model in memory to a Hugging Face folder: what training ends with.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use puna_tensor::op::RopePairs;
use puna_tensor::{DType, Tensor};
use puna_tokenizer::Tokenizer;
use serde_json::Value;

use super::Written;
use super::hugging_face::{generation, read_tokenizer, remove_stale, tokenizer_config, write_tokenizer};
use crate::config::Config;
use crate::error::{Error, Kind, Result};
use crate::model::Llama;
use crate::module::Module;
use crate::weights::write::{self, TensorPlan, json_file};
use crate::weights::{Checkpoint, GenerationConfig, reorder_pairs};

/// How a model is written.
#[derive(Debug, Clone)]
pub struct SaveOptions<'a> {
    /// The dtype of every tensor: f32, f16 or bf16. By default each keeps its own, and blocks become bf16.
    pub dtype: Option<DType>,
    /// How many bytes of tensors a file holds at most, if it holds more than one.
    pub shard_bytes: u64,
    /// What goes with the weights.
    pub vocabulary: Vocabulary<'a>,
}

/// The tokenizer, chat template and settings of generation that a model is written with.
#[derive(Debug, Clone, Copy)]
pub enum Vocabulary<'a> {
    /// None: the folder takes tokens, not text.
    None,
    /// Those of the checkpoint that the model was loaded from.
    Of(&'a Checkpoint),
    /// A new tokenizer, and a chat template if there is one.
    New(&'a Tokenizer, Option<&'a str>),
}

impl Default for SaveOptions<'_> {
    fn default() -> Self {
        Self { dtype: None, shard_bytes: 5_000_000_000, vocabulary: Vocabulary::None }
    }
}

impl Llama {
    /// Writes the model as a folder that transformers loads: safetensors, config, generation config, tokenizer. The folder is made
    /// where there is none; a model that it holds is replaced. `config.json` comes last: a folder with it is whole.
    ///
    /// Errors: adapters that are neither merged nor taken off; a dtype that the format does not have; what the operating system says.
    pub fn save(&self, folder: &Path, options: &SaveOptions<'_>) -> Result<Written> {
        let weights = self.weights()?;
        let mut written = Written::default();
        let plans = self.plans(&weights, options.dtype, &mut written)?;
        // All that can refuse comes before the first file.
        let (read, made) = match options.vocabulary {
            Vocabulary::Of(checkpoint) => (read_tokenizer(checkpoint)?, None),
            Vocabulary::New(tokenizer, _) => (None, Some(tokenizer.to_tokenizer_json()?)),
            Vocabulary::None => (None, None),
        };
        let generation = match options.vocabulary {
            Vocabulary::Of(checkpoint) => generation(checkpoint, read.as_ref()),
            Vocabulary::New(tokenizer, _) => GenerationConfig {
                bos: tokenizer.bos(),
                eos: tokenizer.eos().into_iter().collect(),
                pad: tokenizer.pad(),
                ..GenerationConfig::default()
            },
            Vocabulary::None => GenerationConfig {
                bos: self.config.bos,
                eos: self.config.eos.clone(),
                pad: self.config.pad,
                ..GenerationConfig::default()
            },
        };
        let config = Config {
            bos: generation.bos,
            eos: generation.eos.clone(),
            pad: generation.pad,
            dtype: plans.first().map(|plan| plan.dtype),
            ..self.config.clone()
        };
        let config_json = config.to_hf_json()?;

        fs::create_dir_all(folder).map_err(|e| Error::io(folder, "create", e))?;
        let config_path = folder.join("config.json");
        if config_path.exists() {
            fs::remove_file(&config_path).map_err(|e| Error::io(&config_path, "remove", e))?;
        }
        let mut produce = |plan: &TensorPlan| self.bytes(plan, &weights[&plan.name]);
        written.files = write::safetensors(folder, &plans, options.shard_bytes, &mut produce)?;
        match (options.vocabulary, &made) {
            (Vocabulary::Of(checkpoint), _) => write_tokenizer(checkpoint, folder, read.as_ref(), &mut written)?,
            (Vocabulary::New(tokenizer, template), Some(json)) => {
                let tokenizer_config = tokenizer_config(tokenizer, config.context_limit(), template);
                for (name, value) in [("tokenizer.json", json), ("tokenizer_config.json", &tokenizer_config)] {
                    let path = folder.join(name);
                    json_file(&path, value)?;
                    written.files.push(path);
                }
            }
            _ => written.notes.push("there is no tokenizer: the folder takes tokens, not text".into()),
        }
        let generation_json = generation.to_json();
        if !generation_json.is_empty() {
            let path = folder.join("generation_config.json");
            json_file(&path, &Value::Object(generation_json))?;
            written.files.push(path);
        }
        remove_stale(folder, &written.files)?;
        json_file(&config_path, &Value::Object(config_json))?;
        written.files.push(config_path);
        Ok(written)
    }

    fn weights(&self) -> Result<HashMap<String, Tensor>> {
        let mut weights = HashMap::new();
        self.visit("", &mut |path, tensor| {
            weights.insert(path.to_owned(), tensor.clone());
        });
        if self.is_adapted() {
            let message = "the model has an adapter; merge it or take it off before the model is written";
            return Err(Error::new(Kind::Argument, "save", message));
        }
        Ok(weights)
    }

    fn plans(&self, weights: &HashMap<String, Tensor>, dtype: Option<DType>, written: &mut Written) -> Result<Vec<TensorPlan>> {
        if let Some(dtype) = dtype.filter(|dtype| !matches!(dtype, DType::F32 | DType::F16 | DType::BF16)) {
            let message = format!("{dtype} is none that transformers runs a Llama in; f32, f16 and bf16 are");
            return Err(Error::unsupported("dtype", message));
        }
        let mut plans = Vec::new();
        for (name, shape) in self.config.tensors() {
            let own = weights.get(&name).ok_or_else(|| Error::new(Kind::MissingTensor, "save", name.clone()))?.dtype();
            let own = if own.is_float() { own } else { DType::BF16 };
            let plan = TensorPlan { name, shape, dtype: dtype.unwrap_or(own) };
            written.count(&plan)?;
            plans.push(plan);
        }
        Ok(plans)
    }

    fn bytes(&self, plan: &TensorPlan, weight: &Tensor) -> Result<Vec<u8>> {
        let bytes = weight.detach().unpack()?.cast(plan.dtype)?.to_bytes()?;
        let heads = match plan.name.as_str() {
            name if name.contains(".self_attn.q_proj.") => self.config.heads,
            name if name.contains(".self_attn.k_proj.") => self.config.kv_heads,
            _ => return Ok(bytes),
        };
        Ok(match self.config.rope_pairs {
            RopePairs::Halves => bytes,
            from => reorder_pairs(&bytes, heads, self.config.head_dim, from, RopePairs::Halves),
        })
    }
}
