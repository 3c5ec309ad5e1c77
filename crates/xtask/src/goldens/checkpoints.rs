//! Checkpoints: logits and greedy continuations, in every dtype, for any number of threads and any chunk.

use std::fs;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use puna::llama::{Checkpoint, Engine, Error, Kind};
use puna::prelude::*;
use safetensors::SafeTensors;

use super::{Outcome, Report, floats, ids, relative};
use crate::Result;

/// What the error of half dtypes may be.
const HALF: f64 = 2e-2;
/// What the error of bf16 may be with an adapter on top: that of PyTorch and PEFT in bf16 on the same prompts.
const BF16_ADAPTED: f64 = 2.34e-2;
/// What the error of f32 may be.
const F32: f64 = 1e-5;
/// What 8-bit activations beside K-quants, and beside other blocks, may cost.
const INT8_K: f64 = 0.033;
const INT8: f64 = 0.024;

struct Golden {
    ids: Vec<u32>,
    logits: Vec<f32>,
    greedy: Option<Vec<u32>>,
}

pub(super) fn check(label: &str, folder: &Path, device_name: &str, device: &Device, report: &mut Report<'_>) {
    let (path, adapter) = match checkpoint_in(folder) {
        Some(found) => found,
        None => return report.tell(label, Ok(Outcome::Skipped("no checkpoint beside expected.safetensors".into()))),
    };
    let source = match Checkpoint::open(&path) {
        Ok(checkpoint) => Source { checkpoint, adapter },
        Err(error) if error.kind() == Kind::Unsupported => return report.tell(label, Ok(Outcome::Skipped(error.to_string()))),
        Err(error) => return report.tell(label, Err(error.into())),
    };
    let goldens = match read(&folder.join("expected.safetensors")) {
        Ok(goldens) => goldens,
        Err(error) => return report.tell(label, Err(error)),
    };
    for dtype in [DType::F32, DType::BF16, DType::F16] {
        let bound = match dtype {
            DType::F32 => F32,
            DType::BF16 if source.adapter.is_some() => BF16_ADAPTED,
            _ => HALF,
        };
        report.tell(format!("{label} {dtype}"), logits(&source, Some(dtype), &goldens, bound, device));
    }
    if source.adapter.is_some() {
        report.tell(format!("{label} merged"), merged(&source, &goldens, device));
    }
    let blocks: Vec<_> = source.checkpoint.tensors().filter_map(|tensor| tensor.dtype().ok()?.block()).collect();
    if !blocks.is_empty() {
        let bound = if blocks.iter().any(|block| block.values() == 256) { INT8_K } else { INT8 };
        report.tell(format!("{label} int8 activations"), logits(&source, None, &goldens, bound, device));
    }
    report.tell(format!("{label} greedy"), greedy(&source, &goldens, device));
    report.tell(format!("{label} threads and chunks"), invariance(&source, &goldens, device_name));
}

/// What goldens are of: a checkpoint, with an adapter on it where there is one.
struct Source {
    checkpoint: Checkpoint,
    adapter: Option<PathBuf>,
}

impl Source {
    fn engine(&self, dtype: Option<DType>, chunk: Option<usize>, device: &Device) -> Result<Engine> {
        let mut loader = Model::loader();
        if let Some(dtype) = dtype {
            loader = loader.dtype(dtype);
        }
        if let Some(chunk) = chunk {
            loader = loader.prefill_chunk(chunk);
        }
        if let Some(adapter) = &self.adapter {
            loader = loader.adapter(adapter);
        }
        Ok(loader.engine(&self.checkpoint, device)?)
    }
}

/// The checkpoint that belongs to the goldens of a folder: the folder itself, or a GGUF in it; or `base` in or beside it, and the
/// adapter for it.
pub(super) fn checkpoint_in(folder: &Path) -> Option<(PathBuf, Option<PathBuf>)> {
    if ["config.json", "params.json"].iter().any(|name| folder.join(name).exists()) {
        return Some((folder.into(), None));
    }
    for (adapter, base) in [(folder.join("adapter"), folder.join("base")), (folder.into(), folder.with_file_name("base"))] {
        if adapter.join("adapter_config.json").exists() && base.exists() {
            return Some((base, Some(adapter)));
        }
    }
    let mut files = fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path());
    files.find(|path| path.extension().is_some_and(|extension| extension == "gguf")).map(|path| (path, None))
}

fn read(path: &Path) -> Result<Vec<Golden>> {
    let bytes = fs::read(path)?;
    let file = SafeTensors::deserialize(&bytes)?;
    let mut goldens = Vec::new();
    while file.tensor(&format!("prompt.{}.ids", goldens.len())).is_ok() {
        let name = |what| format!("prompt.{}.{what}", goldens.len());
        let greedy = file.tensor(&name("greedy")).is_ok().then(|| ids(&file, &name("greedy"))).transpose()?;
        goldens.push(Golden { ids: ids(&file, &name("ids"))?, logits: floats(&file, &name("logits"))?, greedy });
    }
    if goldens.is_empty() { Err("expected.safetensors holds no prompt.0.ids".into()) } else { Ok(goldens) }
}

fn logits(source: &Source, dtype: Option<DType>, goldens: &[Golden], bound: f64, device: &Device) -> Result<Outcome> {
    let engine = source.engine(dtype, None, device)?;
    Ok(Outcome::within(worst(&engine, goldens)?, bound, "logits"))
}

/// The adapter worked into f32 weights, and taken out again: the same bits as before.
fn merged(source: &Source, goldens: &[Golden], device: &Device) -> Result<Outcome> {
    let mut engine = source.engine(Some(DType::F32), None, device)?;
    let first = |engine: &Engine| Ok::<_, Error>(engine.llama.sequence_logits(&goldens[0].ids)?.to_vec::<f32>()?);
    let applied = first(&engine)?;
    let former = engine.llama.merge_adapter(None)?;
    let off = worst(&engine, goldens)?;
    engine.llama.unmerge_adapter(former)?;
    if !same_bits(&first(&engine)?, &applied) {
        return Ok(Outcome::Off("unmerged, it gives other bits than before it was merged".into()));
    }
    Ok(Outcome::within(off, F32, "logits"))
}

/// The largest error of the goldens' logits.
fn worst(engine: &Engine, goldens: &[Golden]) -> Result<f64> {
    let mut worst = 0.0f64;
    for golden in goldens {
        let logits = engine.llama.sequence_logits(&golden.ids)?.to_vec::<f32>()?;
        let error = relative(&logits, &golden.logits);
        worst = if error.is_nan() { error } else { worst.max(error) };
    }
    Ok(worst)
}

fn greedy(source: &Source, goldens: &[Golden], device: &Device) -> Result<Outcome> {
    let engine = source.engine(Some(DType::F32), None, device)?;
    let mut batch = engine.batch();
    let mut expected = Vec::new();
    // All prompts in shared steps: neighbours change nothing.
    for golden in goldens {
        let Some(greedy) = &golden.greedy else { continue };
        let options = Options { max_tokens: Some(greedy.len()), ignore_end: true, ..Options::default() };
        expected.push((batch.add(&golden.ids, options)?, golden.ids.len(), greedy));
    }
    if expected.is_empty() {
        return Ok(Outcome::Skipped("no greedy continuation is given".into()));
    }
    while !batch.is_done() {
        batch.step()?;
    }
    let wrong = expected.iter().filter(|(sequence, prompt, greedy)| batch.tokens(*sequence)[*prompt..] != greedy[..]).count();
    Ok(Outcome::exact(wrong, expected.len(), "greedy continuations"))
}

/// Logits without a cache on 1 to 4 threads, and those of the last token through a cache in chunks of 1, 7, 64 and all, are the same bits.
fn invariance(source: &Source, goldens: &[Golden], device_name: &str) -> Result<Outcome> {
    let longest = goldens.iter().max_by_key(|golden| golden.ids.len()).ok_or("there are no prompts")?;
    let mut whole: Option<Vec<f32>> = None;
    let mut total = 0;
    // Of the CPU alone the number of threads is known.
    for threads in 1..=if device_name == "cpu" { 4 } else { 1 } {
        let device = super::device_of(device_name, NonZeroUsize::new(threads))?;
        for dtype in [Some(DType::F32), None] {
            let engine = source.engine(dtype, None, &device)?;
            let logits = engine.llama.sequence_logits(&longest.ids)?.to_vec::<f32>()?;
            if dtype.is_some() {
                match &whole {
                    Some(first) if !same_bits(first, &logits) => {
                        return Ok(Outcome::Off(format!("{threads} threads give other bits than one")));
                    }
                    Some(_) => {}
                    None => whole = Some(logits.clone()),
                }
            }
            let vocab = logits.len() / longest.ids.len();
            let last = &logits[logits.len() - vocab..];
            for chunk in [1, 7, 64, usize::MAX] {
                let engine = source.engine(dtype, Some(chunk), &device)?;
                let top = cached_logits(&engine, &longest.ids, vocab)?;
                if !same_bits(&top, last) {
                    let message =
                        format!("{threads} threads, chunks of {chunk}, {dtype:?}: other bits through the cache than without");
                    return Ok(Outcome::Off(message));
                }
                total += 1;
            }
        }
    }
    Ok(Outcome::Right(format!("the same bits in {total} settings")))
}

/// The logits of the last token, computed through the cache.
fn cached_logits(engine: &Engine, tokens: &[u32], vocab: usize) -> Result<Vec<f32>> {
    let mut batch = engine.batch();
    let sequence = batch.add(tokens, Options { max_tokens: Some(1), ..Options::default() })?;
    while batch.pending(sequence) > 0 {
        batch.enqueue()?;
        if let Some(logits) = batch.enqueued_logits() {
            let logits = logits.to_vec::<f32>()?;
            assert_eq!(logits.len(), vocab, "one row for one sequence");
            return Ok(logits);
        }
        batch.read()?;
    }
    Err("the prompt was read and nothing drawn".into())
}

fn same_bits(a: &[f32], b: &[f32]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits())
}
