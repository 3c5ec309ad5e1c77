//! Which files make a checkpoint: Hugging Face's folder, Meta's, GGUF.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Map, Value};

use super::checkpoint::{Checkpoint, Format, GenerationConfig, TokenizerSource};
use super::gguf::Gguf;
use super::mmap::MappedFile;
use super::tensor::{Part, TensorInfo};
use super::{pth, safetensors};
use crate::config::{Config, FromWeights, read_json};
use crate::error::{Error, Kind, Result};
use crate::names::{Convention, translate};

/// A `generation_config.json` has a few hundred bytes.
const MOST_GENERATION_BYTES: usize = 1 << 20;
/// The index of a model of a thousand tensors has 100 KB, a tokenizer's config with ten thousand added tokens 2 MB.
const MOST_INDEX_BYTES: usize = 32 << 20;

pub(super) fn open(path: &Path) -> Result<Checkpoint> {
    if path.is_dir() {
        return open_folder(path);
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let extension = path.extension().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    if !path.exists() {
        return Err(Error::new(Kind::Io, path.display().to_string(), "there is no such file or folder"));
    }
    match extension.as_str() {
        "gguf" => open_gguf(path),
        // A shard is opened as the whole that it is part of.
        "safetensors" if !name.contains("-of-") => open_hugging_face(folder, Format::SafeTensors, vec![path.to_owned()]),
        "safetensors" | "bin" | "pth" | "json" | "model" => open_folder(folder),
        // A cache of the Hub names files by their digest: what they begin with tells.
        _ if MappedFile::open(path)?.as_ref().starts_with(&super::gguf::MAGIC) => open_gguf(path),
        _ => {
            let message = "no checkpoint by its name: a folder, a .gguf or a .safetensors file would be right";
            Err(Error::unsupported(path.display().to_string(), message))
        }
    }
}

fn open_folder(folder: &Path) -> Result<Checkpoint> {
    let is_there = |name: &str| folder.join(name).is_file();
    if is_there("config.json") {
        for (format, single) in [(Format::SafeTensors, "model.safetensors"), (Format::Pytorch, "pytorch_model.bin")] {
            let index = format!("{single}.index.json");
            if is_there(single) {
                return open_hugging_face(folder, format, vec![folder.join(single)]);
            }
            if is_there(&index) {
                let (files, weight_map) = read_index(folder, &index)?;
                let checkpoint = open_hugging_face(folder, format, files)?;
                check_index(&checkpoint, &index, &weight_map)?;
                return Ok(checkpoint);
            }
        }
    }
    let meta = consolidated(folder)?;
    if is_there("params.json") && !meta.is_empty() {
        return open_meta(folder, &meta);
    }
    let place = folder.display().to_string();
    // A split model is opened by its first file.
    let is_first = |name: &str| name.ends_with(".gguf") && (!name.contains("-of-") || name.contains("-00001-of-"));
    let gguf: Vec<PathBuf> = names_in(folder)?.into_iter().filter(|name| is_first(name)).map(|name| folder.join(name)).collect();
    match gguf.as_slice() {
        [one] => open_gguf(one),
        [] => {
            let message = "no checkpoint in it; config.json with model.safetensors, its index or pytorch_model.bin, or params.json with \
                           consolidated.00.pth, or a .gguf file would be right";
            Err(Error::new(Kind::NotFound, place, message))
        }
        several => {
            let names: Vec<_> =
                several.iter().take(5).map(|path| path.file_name().unwrap_or_default().to_string_lossy()).collect();
            let message =
                format!("{} .gguf files in it ({}); the path of one of them would be right", several.len(), names.join(", "));
            Err(Error::argument(place, message))
        }
    }
}

fn names_in(folder: &Path) -> Result<BTreeSet<String>> {
    let failed = |e| Error::io(folder, "list", e);
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        names.insert(entry.map_err(failed)?.file_name().to_string_lossy().into_owned());
    }
    Ok(names)
}

fn open_hugging_face(folder: &Path, format: Format, files: Vec<PathBuf>) -> Result<Checkpoint> {
    let config = {
        let path = folder.join("config.json");
        let file = MappedFile::open(&path)?;
        Config::from_hf_json(&file.name(), file.as_ref())?
    };
    let mut tensors = Vec::new();
    for path in files {
        let file = MappedFile::open(&path)?;
        tensors.extend(match format {
            Format::Pytorch => pth::parse(&file)?,
            _ => safetensors::parse(&file)?,
        });
    }
    let generation = generation_config(folder, &config)?;
    let tokenizer = tokenizer_file(&[folder]);
    let chat_template = chat_template(folder)?;
    let path = folder.to_owned();
    finish(Checkpoint {
        path,
        format,
        config,
        tensors,
        index: HashMap::new(),
        generation,
        chat_template,
        tokenizer,
        gguf: Vec::new(),
    })
}

/// Names the tensors by place; one that two files hold is an error.
fn finish(mut checkpoint: Checkpoint) -> Result<Checkpoint> {
    for (i, info) in checkpoint.tensors.iter().enumerate() {
        if let Some(before) = checkpoint.index.insert(info.name.clone(), i) {
            let message =
                format!("{} is in {} too; a checkpoint has each tensor once", info.name, checkpoint.tensors[before].file());
            return Err(Error::format(info.file(), message));
        }
    }
    Ok(checkpoint)
}

#[derive(Deserialize)]
struct Index {
    weight_map: HashMap<String, String>,
}

/// The files of a sharded model, in order, and which of them holds each tensor.
fn read_index(folder: &Path, name: &str) -> Result<(Vec<PathBuf>, HashMap<String, String>)> {
    let file = MappedFile::open(&folder.join(name))?;
    let bytes = file.as_ref();
    if bytes.len() > MOST_INDEX_BYTES {
        return Err(Error::format(name, format!("{} bytes; an index has at most {MOST_INDEX_BYTES}", bytes.len())));
    }
    let Index { weight_map } =
        serde_json::from_slice(bytes).map_err(|e| Error::format(name, format!("no index: {e}")).with_source(e))?;
    let files: BTreeSet<&String> = weight_map.values().collect();
    for file in &files {
        let is_plain = Path::new(file).components().count() == 1 && !file.contains(['/', '\\', ':']) && file.as_str() != "..";
        if !is_plain {
            return Err(Error::format(name, format!("{file:?} is no name of a file beside it")));
        }
    }
    Ok((files.into_iter().map(|file| folder.join(file)).collect(), weight_map))
}

fn check_index(checkpoint: &Checkpoint, index: &str, weight_map: &HashMap<String, String>) -> Result<()> {
    let astray = |(name, file): &(&String, &String)| checkpoint.tensor(name).is_none_or(|info| info.file() != **file);
    match weight_map.iter().filter(astray).min() {
        None => Ok(()),
        Some((name, file)) => {
            Err(Error::new(Kind::MissingTensor, index, format!("it says that {name} is in {file}, which has no such tensor")))
        }
    }
}

/// Ids and sampling options: `generation_config.json`, else what the config says of ids.
fn generation_config(folder: &Path, config: &Config) -> Result<GenerationConfig> {
    let path = folder.join("generation_config.json");
    let object = if path.is_file() { read_json(&path, MOST_GENERATION_BYTES)? } else { Map::new() };
    let mut generation = GenerationConfig::from_json("generation_config.json", &object)?;
    generation.bos = generation.bos.or(config.bos);
    generation.pad = generation.pad.or(config.pad);
    if generation.eos.is_empty() {
        generation.eos = config.eos.clone();
    }
    Ok(generation)
}

fn tokenizer_file(folders: &[&Path]) -> TokenizerSource {
    let candidates = folders.iter().flat_map(|folder| ["tokenizer.json", "tokenizer.model"].map(|name| folder.join(name)));
    candidates.into_iter().find(|path| path.is_file()).map_or(TokenizerSource::Missing, TokenizerSource::File)
}

/// The template from a file of its own, which newer checkpoints have, else from the tokenizer's config.
fn chat_template(folder: &Path) -> Result<Option<String>> {
    let jinja = folder.join("chat_template.jinja");
    if jinja.is_file() {
        let file = MappedFile::open(&jinja)?;
        let text = std::str::from_utf8(file.as_ref()).map_err(|e| Error::format(file.name(), "not UTF-8").with_source(e))?;
        return Ok(Some(text.to_owned()));
    }
    for name in ["chat_template.json", "tokenizer_config.json"] {
        let path = folder.join(name);
        if path.is_file() {
            let template = template_of(name, MappedFile::open(&path)?.as_ref())?;
            if template.is_some() {
                return Ok(template);
            }
        }
    }
    Ok(None)
}

/// One template, or the default of several with names.
fn template_of(place: &str, bytes: &[u8]) -> Result<Option<String>> {
    #[derive(Deserialize)]
    struct Holder {
        chat_template: Option<Template>,
    }
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Template {
        One(String),
        Several(Vec<Named>),
    }
    #[derive(Deserialize)]
    struct Named {
        name: String,
        template: String,
    }
    if bytes.len() > MOST_INDEX_BYTES {
        return Err(Error::format(place, format!("{} bytes; a file of this kind has at most {MOST_INDEX_BYTES}", bytes.len())));
    }
    let holder: Holder = serde_json::from_slice(bytes).map_err(|e| {
        Error::format(place, format!("its chat_template is neither a text nor a list of them with names: {e}")).with_source(e)
    })?;
    Ok(match holder.chat_template {
        None => None,
        Some(Template::One(text)) => Some(text),
        Some(Template::Several(named)) => named.into_iter().find(|named| named.name == "default").map(|named| named.template),
    })
}

/// `consolidated.00.pth` and those that follow.
fn consolidated(folder: &Path) -> Result<Vec<PathBuf>> {
    let is_part = |name: &String| {
        let number = name.strip_prefix("consolidated.").and_then(|rest| rest.strip_suffix(".pth"));
        number.is_some_and(|number| number.len() == 2 && number.bytes().all(|byte| byte.is_ascii_digit()))
    };
    let names: Vec<String> = names_in(folder)?.into_iter().filter(is_part).collect();
    for (i, name) in names.iter().enumerate() {
        let expected = format!("consolidated.{i:02}.pth");
        if *name != expected {
            return Err(Error::new(
                Kind::MissingTensor,
                folder.display().to_string(),
                format!("{expected} is missing, but {name} is there"),
            ));
        }
    }
    Ok(names.into_iter().map(|name| folder.join(name)).collect())
}

fn open_meta(folder: &Path, files: &[PathBuf]) -> Result<Checkpoint> {
    let mut ranks = Vec::with_capacity(files.len());
    for path in files {
        let mut tensors = pth::parse(&MappedFile::open(path)?)?;
        for info in &mut tensors {
            if let Some(name) = translate(&info.name, Convention::Meta, Convention::HuggingFace) {
                info.name = name;
            }
        }
        ranks.push(tensors);
    }
    let params = MappedFile::open(&folder.join("params.json"))?;
    let rows = |name: &str| {
        let info = ranks[0].iter().find(|info| info.name == name)?;
        Some((info.shape.first()?.checked_mul(ranks.len())?, info))
    };
    // The head is split by rows, the embedding by either axis.
    let head = rows("lm_head.weight");
    let embedding = ranks[0].iter().find(|info| info.name == "model.embed_tokens.weight");
    let weights = FromWeights {
        vocab_size: head.map(|(rows, _)| rows).or_else(|| embedding.and_then(|info| info.shape.first().copied())),
        tie_word_embeddings: head.is_none(),
        dtype: embedding.and_then(|info| info.dtype().ok()),
    };
    let config = Config::from_meta_json(&params.name(), params.as_ref(), weights)?;
    let tensors = join_ranks(&config, ranks)?;
    let checkpoint = Checkpoint {
        path: folder.to_owned(),
        format: Format::Meta,
        config,
        tensors,
        index: HashMap::new(),
        generation: GenerationConfig::default(),
        chat_template: None,
        // Llama 2's tokenizer lies beside the models' folders.
        tokenizer: tokenizer_file(&[folder, &folder.join("..")]),
        gguf: Vec::new(),
    };
    finish(checkpoint)
}

/// Tensors from the files of a model-parallel run: each holds a run of rows, or of columns, or a replica.
fn join_ranks(config: &Config, mut ranks: Vec<Vec<TensorInfo>>) -> Result<Vec<TensorInfo>> {
    if ranks.len() == 1 {
        return Ok(ranks.remove(0));
    }
    let expected: HashMap<String, Vec<usize>> = config.tensors().into_iter().collect();
    let mut others: Vec<HashMap<String, TensorInfo>> = Vec::with_capacity(ranks.len() - 1);
    for rank in ranks.drain(1..) {
        others.push(rank.into_iter().map(|info| (info.name.clone(), info)).collect());
    }
    let first = ranks.remove(0);
    let mut joined = Vec::with_capacity(first.len());
    for info in first {
        let mut parts = vec![info];
        for (i, other) in others.iter_mut().enumerate() {
            match other.remove(&parts[0].name) {
                Some(part) => parts.push(part),
                None => {
                    let message = format!("{} is missing in consolidated.{:02}.pth", parts[0].stored_name, i + 1);
                    return Err(Error::new(Kind::MissingTensor, parts[0].file(), message));
                }
            }
        }
        let full = expected.get(&parts[0].name).map(Vec::as_slice);
        joined.push(join(parts, full)?);
    }
    match others.iter().flat_map(HashMap::values).min_by_key(|info| &info.stored_name) {
        None => Ok(joined),
        Some(info) => {
            let message = format!("{} is missing in consolidated.00.pth, but it is in {}", info.stored_name, info.file());
            Err(Error::new(Kind::MissingTensor, info.file(), message))
        }
    }
}

/// One tensor from its parts: the shape that the config needs tells along which axis.
fn join(mut parts: Vec<TensorInfo>, full: Option<&[usize]>) -> Result<TensorInfo> {
    let part = &parts[0];
    if let Some(odd) = parts.iter().find(|other| other.shape != part.shape || other.dtype != part.dtype) {
        let message = format!(
            "{} is {:?} {}, but in {} {:?} {}; all parts are alike",
            odd.stored_name,
            odd.shape,
            odd.dtype,
            part.file(),
            part.shape,
            part.dtype
        );
        return Err(Error::new(Kind::Misshapen, odd.file(), message));
    }
    let is_replica = part.shape.len() < 2 || full == Some(part.shape.as_slice());
    if is_replica {
        let bytes = part.bytes()?;
        for other in &parts[1..] {
            if other.bytes()? != bytes {
                let message = format!("{} is not what it is in {}; replicas are equal", other.stored_name, part.file());
                return Err(Error::format(other.file(), message));
            }
        }
        drop(bytes);
        return Ok(parts.remove(0));
    }
    let grown = |axis: usize| {
        let mut shape = part.shape.clone();
        shape[axis] = shape[axis].checked_mul(parts.len())?;
        Some(shape)
    };
    let axis = (0..part.shape.len()).find(|axis| grown(*axis).as_deref() == full).unwrap_or(0);
    let Some(shape) = grown(axis) else {
        let message = format!("{} has parts of {:?}, which do not join within the address space", part.stored_name, part.shape);
        return Err(Error::new(Kind::Misshapen, part.file(), message));
    };
    let first = parts[0].clone();
    let all: Vec<Part> = parts.into_iter().flat_map(|info| info.parts).collect();
    Ok(TensorInfo { shape, parts: all, axis, ..first })
}

fn open_gguf(path: &Path) -> Result<Checkpoint> {
    describe_gguf(path, Gguf::open_all(path)?)
}

pub(super) fn describe_gguf(path: &Path, gguf: Vec<Gguf>) -> Result<Checkpoint> {
    let mut tensors = Vec::new();
    for info in gguf.iter().flat_map(Gguf::tensors) {
        let mut info = info.clone();
        if let Some(name) = translate(&info.stored_name, Convention::Gguf, Convention::HuggingFace) {
            info.name = name;
        }
        tensors.push(info);
    }
    let first = &gguf[0];
    let config = Config::from_gguf(first, &tensors)?;
    let generation =
        GenerationConfig { bos: config.bos, eos: config.eos.clone(), pad: config.pad, ..GenerationConfig::default() };
    // Files of token ids alone say so in place of a tokenizer.
    let tokenizer = match first.string("tokenizer.ggml.model") {
        Some("none" | "no_vocab") => TokenizerSource::Missing,
        _ if first.get("tokenizer.ggml.model").is_some() => TokenizerSource::Gguf,
        _ => TokenizerSource::Missing,
    };
    let chat_template = first.string("tokenizer.chat_template").map(str::to_owned);
    let (path, format) = (path.to_owned(), Format::Gguf);
    finish(Checkpoint { path, format, config, tensors, index: HashMap::new(), generation, chat_template, tokenizer, gguf })
}

impl GenerationConfig {
    /// Writes `generation_config.json`.
    pub fn to_json(&self) -> Map<String, Value> {
        let mut object = Map::new();
        let eos = match self.eos.as_slice() {
            [] => None,
            [id] => Some(Value::from(*id)),
            ids => Some(Value::from(ids.to_vec())),
        };
        let fields = [
            ("bos_token_id", self.bos.map(Value::from)),
            ("eos_token_id", eos),
            ("pad_token_id", self.pad.map(Value::from)),
            ("do_sample", self.do_sample.map(Value::from)),
            ("temperature", self.temperature.map(Value::from)),
            ("top_k", self.top_k.map(Value::from)),
            ("top_p", self.top_p.map(Value::from)),
            ("min_p", self.min_p.map(Value::from)),
            ("repetition_penalty", self.repetition_penalty.map(Value::from)),
        ];
        object.extend(fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))));
        object
    }
}
