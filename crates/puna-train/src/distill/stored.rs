//! A teacher's distributions on disk: of each token that counts the likeliest next ones.

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use puna_llama::Llama;
use puna_llama::weights::mmap::MappedFile;
use puna_llama::weights::write::{TensorPlan, safetensors_file};
use puna_llama::weights::{TensorInfo, safetensors};
use puna_tensor::{DType, Device, Tensor, no_grad};

use crate::data::{Batch, IGNORED, Packed};
use crate::error::{Error, Result};
use crate::loss::TopK;
use crate::trainer::Frozen;

const TEMPERATURE: &str = "temperature";
const VOCAB_SIZE: &str = "vocab_size";
const DATA: &str = "data";
/// How many logits are read back from the device at a time: 32 MiB of f32.
const CHUNK: usize = 8 << 20;

/// What was kept of a teacher for packed data, so that it need not run again: a mapped file.
///
/// The file is safetensors: `temperature` f32 `[1]`, `vocab_size` u32 `[1]`, `data` u32 `[rows]` (FNV-1a of each row's tokens and labels,
/// so that other data is refused) and, for each row, `row.N.ids` u32 and `row.N.log_probs` f32, `[labels that count, k]`, the likeliest
/// first. A token with 64 of them takes 512 bytes.
///
/// A handle: clones share the file.
#[derive(Clone)]
pub struct StoredTeacher(Arc<File>);

struct File {
    path: PathBuf,
    temperature: f64,
    vocab_size: usize,
    data: Vec<u32>,
    tensors: HashMap<String, TensorInfo>,
}

/// Of a batch's tokens that count, in their order.
pub(super) struct Rows {
    ids: Vec<u32>,
    log_probs: Vec<f32>,
    k: usize,
}

impl StoredTeacher {
    /// Runs a teacher over all rows of packed data and keeps of each token that counts the `k` likeliest next ones at a temperature. The
    /// file appears whole or not at all; `progress` is told how many rows of how many are done.
    ///
    /// Errors: a temperature that is not above 0; a `k` that is not from 1 to the vocabulary; rows longer than the teacher's context;
    /// what the operating system says.
    pub fn write(
        path: impl AsRef<Path>,
        data: &Packed,
        teacher: Llama,
        temperature: f64,
        k: usize,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Self> {
        let (path, vocab_size) = (path.as_ref(), teacher.config.vocab_size);
        if !(temperature > 0.0 && temperature.is_finite()) {
            return Err(Error::argument("temperature", format!("{temperature}; a number above 0 would be right")));
        }
        if k == 0 || k > vocab_size {
            return Err(Error::argument("k", format!("{k} of a vocabulary of {vocab_size}; from 1 to all of it would be right")));
        }
        let teacher = Frozen::new(teacher);
        let plan = |name: &str, dtype, shape: Vec<usize>| TensorPlan { name: name.into(), dtype, shape };
        let mut digests = Vec::new();
        let mut plans = vec![plan(TEMPERATURE, DType::F32, vec![1]), plan(VOCAB_SIZE, DType::U32, vec![1])];
        plans.push(plan(DATA, DType::U32, vec![data.len() as usize]));
        for row in 0..data.len() {
            let batch = data.row(row)?;
            digests.push(digest(&batch));
            plans.push(plan(&ids_name(row), DType::U32, vec![batch.counted(), k]));
            plans.push(plan(&log_probs_name(row), DType::F32, vec![batch.counted(), k]));
        }
        let mut row = 0;
        let mut log_probs = Vec::new();
        let mut failed = None;
        let mut produce = |plan: &TensorPlan| -> Result<Vec<u8>> {
            Ok(match plan.name.as_str() {
                TEMPERATURE => (temperature as f32).to_le_bytes().to_vec(),
                VOCAB_SIZE => (vocab_size as u32).to_le_bytes().to_vec(),
                DATA => digests.iter().flat_map(|digest| digest.to_le_bytes()).collect(),
                name if name.ends_with("ids") => {
                    let (ids, values) = likeliest(&teacher, &data.row(row)?, temperature, k)?;
                    log_probs = values.iter().flat_map(|value| value.to_le_bytes()).collect();
                    ids.iter().flat_map(|id| id.to_le_bytes()).collect()
                }
                _ => {
                    row += 1;
                    progress(row, data.len());
                    std::mem::take(&mut log_probs)
                }
            })
        };
        let written = safetensors_file(path, &plans, &mut |plan| {
            produce(plan).map_err(|error| {
                let message = error.to_string();
                failed = Some(error);
                puna_tensor::Error::new(puna_tensor::Kind::Backend, &plan.name, message).into()
            })
        });
        match (written, failed) {
            (_, Some(error)) => Err(error),
            (written, None) => {
                written?;
                Self::open(path)
            }
        }
    }

    /// Maps a file. What its rows hold is checked when they are read.
    ///
    /// Errors: a file that is not what [`StoredTeacher`] says.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let tensors = safetensors::parse(&MappedFile::open(path)?)?;
        let tensors: HashMap<String, TensorInfo> = tensors.into_iter().map(|info| (info.name.clone(), info)).collect();
        let mut file = File { path: path.into(), temperature: 0.0, vocab_size: 0, data: Vec::new(), tensors };
        let temperature = f32::from_bits(file.one(TEMPERATURE, DType::F32)?);
        if !(temperature > 0.0 && temperature.is_finite()) {
            return Err(Error::format(
                file.place(),
                format!("the temperature is {temperature}; a number above 0 would be right"),
            ));
        }
        file.temperature = f64::from(temperature);
        file.vocab_size = file.one(VOCAB_SIZE, DType::U32)? as usize;
        let rows = file.tensor(DATA, DType::U32)?.elements();
        file.data = file.words(DATA, DType::U32, &[rows])?;
        Ok(Self(Arc::new(file)))
    }

    /// The temperature of the distributions.
    pub fn temperature(&self) -> f64 {
        self.0.temperature
    }

    /// How many tokens the teacher's vocabulary has.
    pub fn vocab_size(&self) -> usize {
        self.0.vocab_size
    }

    /// How many rows it was read on.
    pub fn len(&self) -> u64 {
        self.0.data.len() as u64
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.data.is_empty()
    }

    pub(super) fn place(&self) -> String {
        self.0.place()
    }

    pub(super) fn check(&self, data: &Packed) -> Result<()> {
        if self.len() != data.len() {
            let message = format!(
                "made for {} rows, the data has {}; the data that it was made for would be right",
                self.len(),
                data.len()
            );
            return Err(Error::data(self.place(), message));
        }
        Ok(())
    }

    /// What it has for some rows of the data.
    ///
    /// Errors: rows of other data than it was made for; tensors that are not what they should be.
    pub(super) fn rows(&self, data: &Packed, rows: &[u64]) -> Result<Rows> {
        let file = &*self.0;
        let mut all = Rows { ids: Vec::new(), log_probs: Vec::new(), k: 0 };
        for &row in rows {
            let batch = data.row(row)?;
            if file.data.get(row as usize) != Some(&digest(&batch)) {
                let message =
                    format!("row {row} is not the one that it was made for; the same data, packed alike, would be right");
                return Err(Error::data(file.place(), message));
            }
            let name = ids_name(row);
            let shape = file.tensor(&name, DType::U32)?.shape.clone();
            let k = shape.last().copied().unwrap_or(0);
            if shape.len() != 2 || shape[0] != batch.counted() || k == 0 || (all.k != 0 && all.k != k) {
                let message = format!("{name} is {shape:?}; {} labels count, each with as many tokens", batch.counted());
                return Err(Error::format(file.place(), message));
            }
            all.k = k;
            all.ids.extend(file.words(&name, DType::U32, &shape)?);
            all.log_probs.extend(file.words(&log_probs_name(row), DType::F32, &shape)?.into_iter().map(f32::from_bits));
        }
        Ok(all)
    }
}

impl Rows {
    /// Of some of the tokens that count.
    pub(super) fn top_k(&self, range: Range<usize>, vocab: usize, device: &Device) -> Result<TopK> {
        let rows = range.len();
        let range = range.start * self.k..range.end * self.k;
        TopK::new(&self.ids[range.clone()], &self.log_probs[range], rows, vocab, device)
    }
}

impl File {
    fn place(&self) -> String {
        self.path.display().to_string()
    }

    fn tensor(&self, name: &str, dtype: DType) -> Result<&TensorInfo> {
        let info = self.tensors.get(name).ok_or_else(|| Error::format(self.place(), format!("{name} is missing")))?;
        let stored = info.dtype()?;
        if stored != dtype {
            return Err(Error::format(self.place(), format!("{name} is {stored}; {dtype} would be right")));
        }
        Ok(info)
    }

    /// The elements of four bytes of a tensor.
    fn words(&self, name: &str, dtype: DType, shape: &[usize]) -> Result<Vec<u32>> {
        let info = self.tensor(name, dtype)?;
        if info.shape != shape {
            return Err(Error::format(self.place(), format!("{name} is {:?}; {shape:?} would be right", info.shape)));
        }
        let bytes = info.bytes()?;
        Ok(bytes.chunks_exact(4).map(|word| u32::from_le_bytes(word.try_into().expect("four bytes"))).collect())
    }

    fn one(&self, name: &str, dtype: DType) -> Result<u32> {
        Ok(self.words(name, dtype, &[1])?[0])
    }
}

impl fmt::Debug for StoredTeacher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StoredTeacher({}, {} rows, temperature {})", self.place(), self.len(), self.temperature())
    }
}

fn ids_name(row: u64) -> String {
    format!("row.{row}.ids")
}

fn log_probs_name(row: u64) -> String {
    format!("row.{row}.log_probs")
}

/// FNV-1a of a row's tokens and labels.
fn digest(batch: &Batch) -> u32 {
    let words = batch.ids.iter().chain(&batch.labels).chain(&batch.starts);
    words.flat_map(|word| word.to_le_bytes()).fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

/// The `k` likeliest tokens behind each token that counts, and the logarithms of their probabilities; of equal ones the smaller number
/// comes first.
fn likeliest(teacher: &Frozen, batch: &Batch, temperature: f64, k: usize) -> Result<(Vec<u32>, Vec<f32>)> {
    let counted: Vec<u32> = (0..).zip(&batch.labels).filter(|(_, label)| **label != IGNORED).map(|(at, _)| at).collect();
    let (mut ids, mut log_probs) = (Vec::with_capacity(counted.len() * k), Vec::with_capacity(counted.len() * k));
    if counted.is_empty() {
        return Ok((ids, log_probs));
    }
    let hidden = teacher.hidden(batch)?;
    let vocab = teacher.llama.config.vocab_size;
    for chunk in counted.chunks((CHUNK / vocab.max(1)).max(1)) {
        let values = no_grad(|| {
            let rows = hidden.gather_rows(&Tensor::from_slice(chunk, chunk.len(), hidden.device())?)?;
            let logits = teacher.llama.logits(&rows)?;
            logits.affine(1.0 / temperature, 0.0)?.log_softmax()?.cast(DType::F32)?.to_vec::<f32>()
        })?;
        let mut order: Vec<u32> = Vec::with_capacity(vocab);
        for row in values.chunks_exact(vocab) {
            order.clear();
            order.extend(0..vocab as u32);
            let before = |a: &u32, b: &u32| row[*b as usize].total_cmp(&row[*a as usize]).then(a.cmp(b));
            if k < vocab {
                order.select_nth_unstable_by(k - 1, before);
            }
            order[..k].sort_unstable_by(before);
            ids.extend(&order[..k]);
            // The logarithm of a probability of 1 may round to above 0.
            log_probs.extend(order[..k].iter().map(|id| row[*id as usize].min(0.0)));
        }
    }
    Ok((ids, log_probs))
}
