//! A checkpoint: its config, its tensors, and the files beside them.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use puna_tensor::{Device, Tensor};

use super::gguf::Gguf;
use super::layouts;
use super::mmap::MappedFile;
use super::tensor::{StoredType, TensorInfo};
use crate::config::{Config, because};
use crate::error::{Error, Kind, Result};
use crate::names::is_ignored;

/// How many of a kind an error names.
const NAMED: usize = 3;

/// A model on disk: described, not loaded.
#[derive(Debug, Clone)]
pub struct Checkpoint {
    pub(super) path: PathBuf,
    pub(super) format: Format,
    pub(super) config: Config,
    pub(super) tensors: Vec<TensorInfo>,
    pub(super) index: HashMap<String, usize>,
    pub(super) generation: GenerationConfig,
    pub(super) chat_template: Option<String>,
    pub(super) tokenizer: TokenizerSource,
    pub(super) gguf: Vec<Gguf>,
}

/// Who wrote a checkpoint, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// Hugging Face's folder with safetensors.
    SafeTensors,
    /// Hugging Face's folder with PyTorch's files.
    Pytorch,
    /// Meta's folder.
    Meta,
    /// GGUF.
    Gguf,
}

/// What a checkpoint says of generation. Nothing that is absent has a default here.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct GenerationConfig {
    /// The token that begins a text.
    pub bos: Option<u32>,
    /// The tokens that end a text.
    pub eos: Vec<u32>,
    /// The token that pads.
    pub pad: Option<u32>,
    /// Whether to draw tokens rather than take the most probable.
    pub do_sample: Option<bool>,
    /// The temperature.
    pub temperature: Option<f64>,
    /// How many of the most probable tokens are drawn from.
    pub top_k: Option<usize>,
    /// The probability mass that is drawn from.
    pub top_p: Option<f64>,
    /// The least probability, as a part of the greatest, that is drawn from.
    pub min_p: Option<f64>,
    /// What logits of tokens that are there already are divided by.
    pub repetition_penalty: Option<f64>,
}

/// Where a checkpoint's tokenizer is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenizerSource {
    /// A `tokenizer.json` or `tokenizer.model`.
    File(PathBuf),
    /// In the GGUF file's metadata: [`Gguf::tokenizer`] of [`Checkpoint::gguf`] gives it.
    Gguf,
    /// Nowhere.
    Missing,
}

impl Checkpoint {
    /// Describes a checkpoint: a folder of Hugging Face's or Meta's, a GGUF file (of a split model: any of its files), a
    /// safetensors file with `config.json` beside it. Headers are read; tensors are not.
    ///
    /// Errors: files that are not there, not what their format allows, or of a model that is not supported.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        layouts::open(path.as_ref())
    }

    /// Describes a GGUF file that is held in memory: one that a program carries. `name` is what errors call it.
    ///
    /// Errors: as [`open`](Self::open).
    pub fn from_gguf(name: &str, bytes: Vec<u8>) -> Result<Self> {
        let gguf = Gguf::parse(&MappedFile::from_vec(name, bytes))?;
        layouts::describe_gguf(Path::new(name), vec![gguf])
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Who wrote it, and how.
    pub fn format(&self) -> Format {
        self.format
    }

    /// The shape of the model.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Every tensor there is, those that no Llama has among them, in the files' order.
    pub fn tensors(&self) -> impl ExactSizeIterator<Item = &TensorInfo> {
        self.tensors.iter()
    }

    /// The tensor of this name, by Hugging Face's naming.
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        self.index.get(name).map(|at| &self.tensors[*at])
    }

    /// The tensor of this name and shape on a device: in place where the device can.
    ///
    /// Errors: there is none; it has another shape; a dtype that puna does not compute with; what the device says.
    pub fn load(&self, name: &str, shape: &[usize], device: &Device) -> Result<Tensor> {
        let info = self.tensor(name).ok_or_else(|| self.fail(Kind::MissingTensor, format!("{name} is missing")))?;
        if info.shape != shape {
            return Err(Error::new(Kind::Misshapen, info.file(), self.misshapen(info, shape)));
        }
        info.load(device)
    }

    /// What it says of generation: `generation_config.json`, else the config, else the GGUF metadata.
    pub fn generation(&self) -> &GenerationConfig {
        &self.generation
    }

    /// The tokens that end a text, as far as the checkpoint names them; Meta's folders leave that to the tokenizer.
    pub fn end_tokens(&self) -> Vec<u32> {
        self.generation.eos.clone()
    }

    /// The chat template's text.
    pub fn chat_template_source(&self) -> Option<&str> {
        self.chat_template.as_deref()
    }

    /// Where its tokenizer is.
    pub fn tokenizer_source(&self) -> &TokenizerSource {
        &self.tokenizer
    }

    /// The GGUF file with the metadata, if it is one; of a split model, the first.
    pub fn gguf(&self) -> Option<&Gguf> {
        self.gguf.first()
    }

    /// Checks that the tensors are exactly the model's, and readable.
    ///
    /// `rotary_emb.inv_freq` and its like are ignored, and with tied embeddings an `lm_head.weight` that equals the embedding.
    ///
    /// Errors: all that are missing, misshapen, not of the model or of a dtype that puna does not compute with: the first of each by
    /// name, and how many there are.
    pub fn check(&self) -> Result<()> {
        let expected = self.config.tensors();
        let mut faults = Faults::default();
        for (name, shape) in &expected {
            match self.tensor(name) {
                None => faults.missing.push(name),
                Some(info) if info.shape != *shape => faults.misshapen.push((info, shape)),
                Some(info) if matches!(info.dtype, StoredType::Other(_)) => faults.unreadable.push(info),
                Some(_) => {}
            }
        }
        let expected: std::collections::HashSet<&str> = expected.iter().map(|(name, _)| name.as_str()).collect();
        for info in &self.tensors {
            if expected.contains(info.name.as_str()) || is_ignored(&info.name) {
                continue;
            }
            match info.name.as_str() {
                "lm_head.weight" if self.config.tie_word_embeddings => {
                    if let Some(embedding) = self.tensor("model.embed_tokens.weight") {
                        self.check_tied(info, embedding)?;
                    }
                }
                name => faults.extra.push(name),
            }
        }
        self.report(&faults)
    }

    fn check_tied(&self, head: &TensorInfo, embedding: &TensorInfo) -> Result<()> {
        if head.shape == embedding.shape && head.dtype == embedding.dtype && head.bytes()? == embedding.bytes()? {
            return Ok(());
        }
        let message =
            "lm_head.weight is not model.embed_tokens.weight, but the config has tie_word_embeddings true; which is meant?";
        Err(self.fail(Kind::ExtraTensor, message))
    }

    fn report(&self, faults: &Faults<'_>) -> Result<()> {
        let Faults { missing, misshapen, extra, unreadable } = faults;
        let first = if !missing.is_empty() {
            Kind::MissingTensor
        } else if !misshapen.is_empty() {
            Kind::Misshapen
        } else if !extra.is_empty() {
            Kind::ExtraTensor
        } else if !unreadable.is_empty() {
            Kind::Unsupported
        } else {
            return Ok(());
        };
        // One fault is told with its file.
        match (missing.as_slice(), misshapen.as_slice(), extra.len() + unreadable.len()) {
            ([], [(info, shape)], 0) => return Err(Error::new(first, info.file(), self.misshapen(info, shape))),
            ([], [], 1) if !unreadable.is_empty() => return unreadable[0].dtype().map(drop),
            _ => {}
        }
        let mut message = String::new();
        let mut section = |what: &str, count: usize, named: Vec<String>| {
            if count == 0 {
                return;
            }
            let more = if count > named.len() { format!(" and {} more", count - named.len()) } else { String::new() };
            let separator = if message.is_empty() { "" } else { "; " };
            let tensors = if count == 1 { "tensor" } else { "tensors" };
            write!(message, "{separator}{count} {tensors} {what}: {}{more}", named.join(", ")).expect("writing to a text");
        };
        let texts = |names: &[&str]| names.iter().take(NAMED).map(|name| (*name).to_owned()).collect();
        section("missing", missing.len(), missing.iter().take(NAMED).map(|name| (*name).clone()).collect());
        let shapes = misshapen.iter().take(NAMED).map(|(info, shape)| self.misshapen(info, shape)).collect();
        section("misshapen", misshapen.len(), shapes);
        section("that a Llama of this config does not have", extra.len(), texts(extra));
        let types = unreadable.iter().take(NAMED).map(|info| format!("{} ({})", info.name, info.dtype)).collect();
        section("of a type that puna does not compute with", unreadable.len(), types);
        Err(self.fail(first, message))
    }

    fn misshapen(&self, info: &TensorInfo, shape: &[usize]) -> String {
        let reason = because(&self.config, &info.name);
        format!("{} is {:?}, but the config ({reason}) needs {shape:?}", info.name, info.shape)
    }

    fn fail(&self, kind: Kind, message: impl Into<String>) -> Error {
        Error::new(kind, self.path.display().to_string(), message)
    }
}

/// What is wrong with a checkpoint's tensors.
#[derive(Default)]
struct Faults<'a> {
    missing: Vec<&'a String>,
    misshapen: Vec<(&'a TensorInfo, &'a Vec<usize>)>,
    extra: Vec<&'a str>,
    unreadable: Vec<&'a TensorInfo>,
}
