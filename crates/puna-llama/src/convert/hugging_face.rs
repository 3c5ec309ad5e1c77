//! To a Hugging Face folder.

use std::fs;
use std::path::{Path, PathBuf};

use puna_tensor::DType;
use puna_tensor::op::RopePairs;
use puna_tokenizer::Tokenizer;
use serde_json::{Map, Value, json};

use super::elements::Converter;
use super::{Existing, Producer, Source, Step, Written, is_source, model_tensors, vocabulary};
use crate::config::Config;
use crate::error::{Error, Kind, Result};
use crate::load::Progress;
use crate::weights::write::{self, TensorPlan, json_file};
use crate::weights::{Checkpoint, Format, GenerationConfig, TokenizerSource};

/// How a checkpoint is written as a Hugging Face folder.
pub struct HuggingFaceOptions<'a> {
    /// The dtype of every tensor: f32, f16 or bf16. By default each keeps its own, and blocks become bf16.
    pub dtype: Option<DType>,
    /// How many bytes of tensors a file holds at most, if it holds more than one.
    pub shard_bytes: u64,
    /// What happens to a folder that holds something.
    pub existing: Existing,
    /// Told of each tensor that has been converted.
    pub progress: &'a mut dyn FnMut(Progress<'_>),
}

/// What belongs to a tokenizer and is copied as it is, beside `tokenizer.json`.
const TOKENIZER_FILES: [&str; 7] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "tokenizer.model",
    "chat_template.json",
    "chat_template.jinja",
];
/// What else says which checkpoint a folder holds.
const MODEL_FILES: [&str; 6] = [
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
];

/// Writes a checkpoint as a folder that transformers loads: safetensors, config, generation config, tokenizer, chat template.
/// `config.json` comes last: a folder with it is whole.
///
/// Errors: a checkpoint whose tensors are not the model's; a rope scaling, tokenizer or value that the format has no place for; a
/// folder that holds something, unless it may be replaced; what the operating system says.
pub fn to_hugging_face(checkpoint: &Checkpoint, folder: &Path, options: HuggingFaceOptions<'_>) -> Result<Written> {
    let HuggingFaceOptions { dtype, shard_bytes, existing, progress } = options;
    if let Some(dtype) = dtype.filter(|dtype| !matches!(dtype, DType::F32 | DType::F16 | DType::BF16)) {
        return Err(Error::unsupported(
            "dtype",
            format!("{dtype} is none that transformers runs a Llama in; f32, f16 and bf16 are"),
        ));
    }
    check_target(checkpoint, folder, existing)?;
    let mut written = Written::default();
    let steps = steps(checkpoint, dtype, &mut written)?;
    // All that can refuse comes before the first file.
    let read = read_tokenizer(checkpoint)?;
    let generation = generation(checkpoint, read.as_ref());
    let config_json = config_json(checkpoint, &steps, &generation)?;

    let io = |doing: &'static str, path: &Path| {
        let path = path.to_owned();
        move |e| Error::io(&path, doing, e)
    };
    fs::create_dir_all(folder).map_err(io("create", folder))?;
    let config_path = folder.join("config.json");
    if config_path.exists() {
        fs::remove_file(&config_path).map_err(io("remove", &config_path))?;
    }
    let (converter, total, config) = (Converter::new()?, steps.len(), checkpoint.config());
    let mut producer = Producer { config, pairs: RopePairs::Halves, converter, progress, done: 0, total };
    let mut next = steps.iter();
    let plans: Vec<TensorPlan> = steps.iter().map(|step| step.plan.clone()).collect();
    let mut produce = |_: &TensorPlan| producer.produce(next.next().expect("one step for each plan"));
    written.files = write::safetensors(folder, &plans, shard_bytes, &mut produce)?;

    write_tokenizer(checkpoint, folder, read.as_ref(), &mut written)?;
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

fn check_target(checkpoint: &Checkpoint, folder: &Path, existing: Existing) -> Result<()> {
    let refuse = |message: &str| Err(Error::new(Kind::Argument, folder.display().to_string(), message));
    if !folder.exists() {
        return Ok(());
    }
    if !folder.is_dir() {
        return refuse("it is a file; the path of a folder would be right");
    }
    if is_source(checkpoint, folder) {
        return refuse("the checkpoint that is read cannot be replaced; another folder would be right");
    }
    let mut entries = fs::read_dir(folder).map_err(|e| Error::io(folder, "list", e))?;
    if existing == Existing::Refuse && entries.next().is_some() {
        return refuse("the folder is there already, and not empty");
    }
    Ok(())
}

fn steps<'a>(checkpoint: &'a Checkpoint, dtype: Option<DType>, written: &mut Written) -> Result<Vec<Step<'a>>> {
    let mut steps = Vec::new();
    for info in model_tensors(checkpoint)? {
        let stored = info.dtype()?;
        let stored = if stored.block().is_some() { DType::BF16 } else { stored };
        let plan = TensorPlan { name: info.name.clone(), dtype: dtype.unwrap_or(stored), shape: info.shape.clone() };
        written.count(&plan)?;
        steps.push(Step { source: Source::Stored(info), plan });
    }
    Ok(steps)
}

/// The tokenizer, where it has to be written anew: `tokenizer.json` is copied.
pub(super) fn read_tokenizer(checkpoint: &Checkpoint) -> Result<Option<(Tokenizer, Value)>> {
    match vocabulary::source(checkpoint) {
        TokenizerSource::Missing => Ok(None),
        TokenizerSource::File(path) if path.file_name().is_some_and(|name| name == "tokenizer.json") => Ok(None),
        TokenizerSource::File(_) | TokenizerSource::Gguf => {
            let tokenizer = checkpoint.read_tokenizer()?;
            let json = tokenizer.to_tokenizer_json()?;
            Ok(Some((tokenizer, json)))
        }
    }
}

/// What the checkpoint says of generation; of ids, where it says nothing, what its tokenizer says.
pub(super) fn generation(checkpoint: &Checkpoint, read: Option<&(Tokenizer, Value)>) -> GenerationConfig {
    let mut generation = checkpoint.generation().clone();
    if let Some((tokenizer, _)) = read {
        generation.bos = generation.bos.or(tokenizer.bos());
        generation.pad = generation.pad.or(tokenizer.pad());
        if generation.eos.is_empty() {
            generation.eos = vocabulary::end_tokens(tokenizer);
        }
    }
    generation
}

fn config_json(checkpoint: &Checkpoint, steps: &[Step<'_>], generation: &GenerationConfig) -> Result<Map<String, Value>> {
    let config = Config {
        bos: generation.bos,
        eos: generation.eos.clone(),
        pad: generation.pad,
        // Of the embedding, which comes first.
        dtype: steps.first().map(|step| step.plan.dtype),
        ..checkpoint.config().clone()
    };
    config.to_hf_json()
}

pub(super) fn write_tokenizer(
    checkpoint: &Checkpoint,
    folder: &Path,
    read: Option<&(Tokenizer, Value)>,
    written: &mut Written,
) -> Result<()> {
    if checkpoint.chat_template_source().is_none() {
        let meta = "the checkpoint has no chat template; Meta's format, which it is used with, is in no file";
        let other = "the checkpoint has no chat template, so neither has the folder";
        written.notes.push(if checkpoint.format() == Format::Meta { meta } else { other }.into());
    }
    match (read, vocabulary::source(checkpoint)) {
        (Some((tokenizer, json)), _) => {
            let path = folder.join("tokenizer.json");
            json_file(&path, json)?;
            written.files.push(path);
            let path = folder.join("tokenizer_config.json");
            json_file(
                &path,
                &tokenizer_config(tokenizer, checkpoint.config().context_limit(), checkpoint.chat_template_source()),
            )?;
            written.files.push(path);
        }
        (None, TokenizerSource::File(source)) => {
            for name in TOKENIZER_FILES {
                let from = source.with_file_name(name);
                if from.is_file() {
                    let path = folder.join(name);
                    copy(&from, &path)?;
                    written.files.push(path);
                }
            }
        }
        (None, _) => written.notes.push("there is no tokenizer: the folder takes tokens, not text".into()),
    }
    Ok(())
}

pub(super) fn tokenizer_config(tokenizer: &Tokenizer, context: Option<usize>, chat_template: Option<&str>) -> Value {
    let mut object = Map::new();
    object.insert("tokenizer_class".into(), json!("PreTrainedTokenizerFast"));
    let tokens = [
        ("bos_token", tokenizer.bos()),
        ("eos_token", tokenizer.eos()),
        ("unk_token", tokenizer.unk()),
        ("pad_token", tokenizer.pad()),
    ];
    for (name, id) in tokens {
        if let Some(text) = id.and_then(|id| tokenizer.token(id)) {
            object.insert(name.into(), text.into());
        }
    }
    // Otherwise transformers takes spaces before punctuation out of what is decoded.
    object.insert("clean_up_tokenization_spaces".into(), json!(false));
    object.insert("model_max_length".into(), json!(context));
    if let Some(template) = chat_template {
        object.insert("chat_template".into(), template.into());
    }
    Value::Object(object)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    write::atomically(to, |writer| {
        let mut file = fs::File::open(from).map_err(|e| Error::io(from, "open", e))?;
        std::io::copy(&mut file, writer).map_err(|e| Error::io(to, "write", e))?;
        Ok(())
    })
}

/// Removes what a checkpoint that was there before would leave: shards, a chat template, a tokenizer that is not this one's.
pub(super) fn remove_stale(folder: &Path, written: &[PathBuf]) -> Result<()> {
    let is_shard = |name: &str| {
        let stem = name.strip_prefix("model-").and_then(|rest| rest.strip_suffix(".safetensors"));
        let numbers = stem.and_then(|stem| stem.split_once("-of-"));
        let is_number = |text: &str| text.len() == 5 && text.bytes().all(|byte| byte.is_ascii_digit());
        numbers.is_some_and(|(part, count)| is_number(part) && is_number(count))
    };
    for entry in fs::read_dir(folder).map_err(|e| Error::io(folder, "list", e))? {
        let path = entry.map_err(|e| Error::io(folder, "list", e))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let is_of_a_model = TOKENIZER_FILES.contains(&&*name) || MODEL_FILES.contains(&&*name) || is_shard(&name);
        if is_of_a_model && !written.contains(&path) && path.is_file() {
            fs::remove_file(&path).map_err(|e| Error::io(&path, "remove", e))?;
        }
    }
    Ok(())
}
