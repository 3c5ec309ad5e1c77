//! Checkpoints from one form to another: a Hugging Face folder, or a GGUF file; and a model in memory to a folder ([`Llama::save`](crate::Llama::save)).
//!
//! Tensors are read, converted and written one after another: memory holds the largest of them, not the model. Rows of q and k are
//! reordered where the target pairs rotary dimensions otherwise. Files appear whole or not at all.
//!
//! ```no_run
//! use puna_llama::Checkpoint;
//! use puna_llama::convert::{self, Existing, FileType, GgufOptions};
//!
//! let checkpoint = Checkpoint::open("Llama-3.2-1B-Instruct")?;
//! let file_type: FileType = "Q4_K_M".parse()?;
//! let options = GgufOptions { file_type, name: None, existing: Existing::Refuse, progress: &mut |_| {} };
//! let written = convert::to_gguf(&checkpoint, "Llama-3.2-1B-Instruct-Q4_K_M.gguf".as_ref(), options)?;
//! println!("{} tensors, {} bytes", written.tensors, written.bytes);
//! # Ok::<(), puna_llama::Error>(())
//! ```

mod elements;
mod file_type;
mod gguf;
mod hugging_face;
mod save;
mod vocabulary;

use std::path::{Path, PathBuf};

use puna_tensor::DType;
use puna_tensor::op::RopePairs;

pub use file_type::{FileType, Mix};
pub use gguf::{GgufOptions, to_gguf};
pub use hugging_face::{HuggingFaceOptions, to_hugging_face};
pub use save::{SaveOptions, Vocabulary};

use crate::config::Config;
use crate::error::{Error, Kind, Result};
use crate::load::Progress;
use crate::weights::write::TensorPlan;
use crate::weights::{Checkpoint, TensorInfo, reorder_pairs};
use elements::Converter;

/// What happens where there is something already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Existing {
    /// It stays, and the call is an error.
    #[default]
    Refuse,
    /// It is replaced, once what replaces it is whole. The checkpoint that is being read never is.
    Replace,
}

/// What a conversion has written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Written {
    /// The files, in the order of writing.
    pub files: Vec<PathBuf>,
    /// How many tensors.
    pub tensors: usize,
    /// How many bytes the tensors take.
    pub bytes: u64,
    /// Of each dtype: how many tensors, and their bytes; in order of first appearance.
    pub dtypes: Vec<(DType, usize, u64)>,
    /// What was not as asked for, or is not in the target: a sentence each.
    pub notes: Vec<String>,
}

impl Written {
    fn count(&mut self, plan: &TensorPlan) -> Result<()> {
        let bytes = plan.bytes()? as u64;
        self.tensors += 1;
        self.bytes += bytes;
        match self.dtypes.iter_mut().find(|(dtype, ..)| *dtype == plan.dtype) {
            Some((_, count, sum)) => {
                *count += 1;
                *sum += bytes;
            }
            None => self.dtypes.push((plan.dtype, 1, bytes)),
        }
        Ok(())
    }

    /// The dtype of most of the bytes.
    fn main_dtype(&self) -> DType {
        self.dtypes.iter().max_by_key(|(.., bytes)| *bytes).map_or(DType::F32, |(dtype, ..)| *dtype)
    }
}

/// A tensor on its way: where it comes from, and as what it is written.
struct Step<'a> {
    source: Source<'a>,
    plan: TensorPlan,
}

enum Source<'a> {
    Stored(&'a TensorInfo),
    Made(Vec<u8>),
}

/// Everything of the model, in the order of the forward pass, checked to be there.
fn model_tensors(checkpoint: &Checkpoint) -> Result<Vec<&TensorInfo>> {
    checkpoint.check()?;
    let found = checkpoint.config().tensors().into_iter().map(|(name, _)| {
        checkpoint.tensor(&name).ok_or_else(|| Error::new(Kind::MissingTensor, checkpoint.path().display().to_string(), name))
    });
    found.collect()
}

/// Gives each step's bytes, in order, with rows of q and k in the target's order.
struct Producer<'a, 'p> {
    config: &'a Config,
    pairs: RopePairs,
    converter: Converter,
    progress: &'p mut dyn FnMut(Progress<'_>),
    done: usize,
    total: usize,
}

impl Producer<'_, '_> {
    fn produce(&mut self, step: &Step<'_>) -> Result<Vec<u8>> {
        let bytes = match &step.source {
            Source::Made(bytes) => bytes.clone(),
            Source::Stored(info) => {
                let stored = info.bytes()?;
                let stored = match turned_heads(self.config, &info.name) {
                    Some(heads) if self.config.rope_pairs != self.pairs && info.elements() > 0 => {
                        reorder_pairs(&stored, heads, self.config.head_dim, self.config.rope_pairs, self.pairs).into()
                    }
                    _ => stored,
                };
                self.converter.convert(&info.name, stored, info.dtype()?, step.plan.dtype)?
            }
        };
        self.done += 1;
        (self.progress)(Progress { name: &step.plan.name, done: self.done, total: self.total });
        Ok(bytes)
    }
}

/// How many heads a tensor's rows are turned in by rotary positions; `None` where they are not.
pub(crate) fn turned_heads(config: &Config, name: &str) -> Option<usize> {
    if name.contains(".self_attn.q_proj.") {
        Some(config.heads)
    } else if name.contains(".self_attn.k_proj.") {
        Some(config.kv_heads)
    } else {
        None
    }
}

/// Whether any of the checkpoint's own files is this one.
fn is_source(checkpoint: &Checkpoint, path: &Path) -> bool {
    let Ok(path) = path.canonicalize() else { return false };
    let files = checkpoint.tensors().flat_map(|info| &info.parts).map(|part| part.bytes.file().path());
    let mut files: Vec<&Path> = files.collect();
    files.dedup();
    files.into_iter().any(|file| file.canonicalize().is_ok_and(|file| file == path || file.parent() == Some(path.as_path())))
}
