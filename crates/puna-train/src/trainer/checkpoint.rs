//! Checkpoints: a folder a step, that appears whole or not at all.
//!
//! `step-00000100/` holds `parameters.safetensors` (what is trained, by path, to the bit), `optimizer.safetensors`, and `trainer.json`. It is
//! written beside its place, synced, and renamed; older ones go after that. Whoever trains may have more put there: the model in
//! Hugging Face's layout, the adapter in PEFT's.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use puna_autograd::optim::Optimizer;
use puna_llama::weights::mmap::MappedFile;
use puna_llama::weights::write::{TensorPlan, json_file, safetensors_file};
use puna_llama::weights::{TensorInfo, safetensors};
use puna_tensor::{DType, Tensor, no_grad};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::data::Position;
use crate::error::{Error, Kind, Result};

const PARAMETERS: &str = "parameters.safetensors";
const OPTIMIZER: &str = "optimizer.safetensors";
const STATE: &str = "trainer.json";
const PREFIX: &str = "step-";
/// What is being written, or about to be removed, is named so.
const PARTIAL: &str = ".partial-";
/// A `trainer.json` has some hundred bytes.
const MOST_STATE_BYTES: u64 = 1 << 16;

/// What a checkpoint holds beside tensors.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Steps taken.
    pub step: u64,
    /// Where the data stood.
    pub position: Position,
    /// The seed of dropout.
    pub seed: u64,
    /// How it was trained, for who asks later; going on reads nothing of it.
    #[serde(default)]
    pub options: Value,
}

/// The newest whole checkpoint of a run's folder.
///
/// Errors: what the operating system says.
pub fn latest(folder: &Path) -> Result<Option<PathBuf>> {
    Ok(all(folder)?.pop().map(|(_, path)| path))
}

/// All of them, the oldest first.
fn all(folder: &Path) -> Result<Vec<(u64, PathBuf)>> {
    let mut found = Vec::new();
    for path in entries(folder)? {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let number = name.strip_prefix(PREFIX).and_then(|digits| digits.parse::<u64>().ok());
        found.extend(number.filter(|_| path.is_dir()).map(|number| (number, path)));
    }
    found.sort();
    Ok(found)
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    if !folder.exists() {
        return Ok(Vec::new());
    }
    let entries = fs::read_dir(folder).map_err(|e| Error::io(folder, "list", e))?;
    entries.map(|entry| Ok(entry.map_err(|e| Error::io(folder, "list", e))?.path())).collect()
}

/// Makes a run's folder ready for one that has taken `step` steps: what a run that was killed was writing goes.
///
/// Errors: checkpoints of later steps. They are another run's, and would be taken for the newest.
pub(super) fn begin(folder: &Path, step: u64) -> Result<()> {
    if let Some((last, path)) = all(folder)?.pop().filter(|(last, _)| *last > step) {
        let message = format!(
            "there is a checkpoint of step {last}, and this run is at step {step}; resume() goes on from there, another folder begins anew"
        );
        return Err(Error::new(Kind::Checkpoint, path.display().to_string(), message));
    }
    for path in entries(folder)? {
        if path.is_dir() && path.file_name().unwrap_or_default().to_string_lossy().starts_with(PARTIAL) {
            fs::remove_dir_all(&path).map_err(|e| Error::io(&path, "remove", e))?;
        }
    }
    Ok(())
}

/// Removes all but the newest `keep`.
pub(super) fn prune(folder: &Path, keep: usize) -> Result<()> {
    let found = all(folder)?;
    for (_, path) in &found[..found.len().saturating_sub(keep)] {
        fs::remove_dir_all(path).map_err(|e| Error::io(path, "remove", e))?;
    }
    Ok(())
}

/// Writes a checkpoint and gives its path. `bytes` reads a tensor; `export` writes more into its folder.
pub(super) fn save(
    folder: &Path,
    state: &State,
    parameters: &[(String, Tensor)],
    optimizer: &dyn Optimizer,
    bytes: &mut dyn FnMut(&Tensor) -> Result<Vec<u8>>,
    export: &dyn Fn(&Path) -> Result<()>,
) -> Result<PathBuf> {
    fs::create_dir_all(folder).map_err(|e| Error::io(folder, "create", e))?;
    // Goes with whatever is in it where something fails.
    let beside = || tempfile::Builder::new().prefix(PARTIAL).tempdir_in(folder).map_err(|e| Error::io(folder, "write into", e));
    let partial = beside()?;
    write_tensors(&partial.path().join(PARAMETERS), parameters, bytes)?;
    write_tensors(&partial.path().join(OPTIMIZER), &optimizer.state(), bytes)?;
    json_file(&partial.path().join(STATE), &serde_json::to_value(state).expect("numbers under names"))?;
    export(partial.path())?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let open = fs::Permissions::from_mode(0o755);
        fs::set_permissions(partial.path(), open).map_err(|e| Error::io(partial.path(), "open", e))?;
    }
    sync(partial.path())?;
    let path = folder.join(format!("{PREFIX}{:08}", state.step));
    // One of the same step steps aside, and comes back where the new one cannot take its place.
    let aside = if path.exists() { Some(beside()?) } else { None };
    let former = aside.as_ref().map(|aside| aside.path().join("former"));
    if let Some(former) = &former {
        fs::rename(&path, former).map_err(|e| Error::io(&path, "replace", e))?;
    }
    if let Err(error) = fs::rename(partial.path(), &path) {
        if let Some(former) = &former {
            fs::rename(former, &path).map_err(|e| Error::io(&path, "bring back", e))?;
        }
        return Err(Error::io(&path, "write", error));
    }
    // It is in its place: there is nothing left to be removed.
    let _ = partial.keep();
    sync(folder)?;
    Ok(path)
}

/// A folder's entries are on the disk only when the folder is.
fn sync(folder: &Path) -> Result<()> {
    if cfg!(unix) {
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(|e| Error::io(folder, "write", e))?;
    }
    Ok(())
}

fn write_tensors(path: &Path, tensors: &[(String, Tensor)], bytes: &mut dyn FnMut(&Tensor) -> Result<Vec<u8>>) -> Result<()> {
    let plan = |(name, tensor): &(String, Tensor)| TensorPlan {
        name: name.clone(),
        dtype: tensor.dtype(),
        shape: tensor.shape().to_vec(),
    };
    let plans: Vec<TensorPlan> = tensors.iter().map(plan).collect();
    let mut next = tensors.iter();
    let mut failed = None;
    let written = safetensors_file(path, &plans, &mut |_| {
        let (name, tensor) = next.next().expect("one tensor for each plan");
        bytes(tensor).map_err(|error| {
            let message = error.to_string();
            failed = Some(error);
            puna_tensor::Error::new(puna_tensor::Kind::Backend, name, message).into()
        })
    });
    match (written, failed) {
        (_, Some(error)) => Err(error),
        (written, None) => Ok(written?),
    }
}

/// Takes up a checkpoint: everything is read and checked before anything is changed.
pub(super) fn load(path: &Path, parameters: &[(String, Tensor)], optimizer: &mut dyn Optimizer) -> Result<State> {
    let file = path.join(STATE);
    let size = fs::metadata(&file).map_err(|e| Error::io(&file, "open", e))?.len();
    if size > MOST_STATE_BYTES {
        return Err(Error::new(Kind::Format, file.display().to_string(), format!("{size} bytes; it has some hundred")));
    }
    let text = fs::read(&file).map_err(|e| Error::io(&file, "read", e))?;
    let state: State =
        serde_json::from_slice(&text).map_err(|e| Error::new(Kind::Format, file.display().to_string(), e.to_string()))?;

    let stored = read_tensors(&path.join(PARAMETERS))?;
    let place = path.display().to_string();
    let fail = |message: String| Error::new(Kind::Checkpoint, place.clone(), message);
    if let Some(info) = stored.iter().find(|info| parameters.iter().all(|(name, _)| *name != info.name)) {
        return Err(fail(format!("{} is in it and is not trained here", info.name)));
    }
    let mut values = Vec::with_capacity(parameters.len());
    for (name, parameter) in parameters {
        let info = stored.iter().find(|info| info.name == *name).ok_or_else(|| fail(format!("{name} is missing")))?;
        let value = info.load(parameter.device())?;
        if value.shape() != parameter.shape() || value.dtype() != parameter.dtype() {
            let (a, b) = (value.shape(), value.dtype());
            return Err(fail(format!("{name} is {a} {b}; here it is {} {}", parameter.shape(), parameter.dtype())));
        }
        values.push(value);
    }
    let moments = read_tensors(&path.join(OPTIMIZER))?;
    let device = parameters[0].1.device().clone();
    let find = |name: &str| moments.iter().find(|info| info.name == name).and_then(|info| info.load(&device).ok());
    optimizer.load_state(parameters, &find, state.step).map_err(|e| fail(e.to_string()))?;
    no_grad(|| parameters.iter().zip(&values).try_for_each(|((_, parameter), value)| parameter.assign(value)))?;
    Ok(state)
}

fn read_tensors(path: &Path) -> Result<Vec<TensorInfo>> {
    let tensors = safetensors::parse(&MappedFile::open(path)?)?;
    if let Some(info) = tensors.iter().find(|info| !info.dtype().is_ok_and(DType::is_float)) {
        let message = format!("{} is of no floats", info.name);
        return Err(Error::new(Kind::Format, path.display().to_string(), message));
    }
    Ok(tensors)
}

#[cfg(test)]
mod tests {
    use super::*;
    use puna_autograd::optim::{AdamW, AdamWOptions};

    fn parameters() -> Vec<(String, Tensor)> {
        let device = puna_cpu::device(puna_cpu::Options { threads: std::num::NonZeroUsize::new(1) }).unwrap();
        let tensor = |v: &[f32]| Tensor::from_slice(v, v.len(), &device).unwrap().tracked();
        vec![("a".into(), tensor(&[1.0, 2.0])), ("b".into(), tensor(&[3.0, 4.0, 5.0]))]
    }

    fn state(step: u64) -> State {
        State { step, position: Position { seed: 1, rows: 9, epoch: 2, index: 3 }, seed: 4, options: Value::Null }
    }

    fn write(folder: &Path, step: u64, bytes: &mut dyn FnMut(&Tensor) -> Result<Vec<u8>>) -> Result<PathBuf> {
        save(folder, &state(step), &parameters(), &AdamW::new(AdamWOptions::default()), bytes, &|_| Ok(()))
    }

    fn whole(tensor: &Tensor) -> Result<Vec<u8>> {
        Ok(tensor.to_bytes()?)
    }

    #[test]
    fn a_checkpoint_that_could_not_be_written_leaves_the_old_one_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let first = write(folder.path(), 5, &mut whole).unwrap();
        let mut calls = 0;
        // The disk is full at the second tensor.
        let error = write(folder.path(), 6, &mut |tensor| {
            calls += 1;
            if calls == 2 { Err(Error::new(Kind::Io, "disk", "no space left on device")) } else { whole(tensor) }
        });
        assert!(error.unwrap_err().to_string().contains("no space left"));
        assert_eq!(latest(folder.path()).unwrap(), Some(first));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left behind");
        // Of the same step: the old one stays until the new one is whole.
        write(folder.path(), 5, &mut |_| Err(Error::new(Kind::Io, "disk", "no space left on device"))).unwrap_err();
        let mut optimizer = AdamW::new(AdamWOptions::default());
        let error = load(&latest(folder.path()).unwrap().unwrap(), &parameters(), &mut optimizer).unwrap_err();
        // No step had been taken, so the optimiser had nothing to write.
        assert!(error.to_string().contains("a.exp_avg is missing"), "{error}");
    }

    #[test]
    fn the_newest_stay() {
        let folder = tempfile::tempdir().unwrap();
        for step in [1, 2, 10, 9] {
            write(folder.path(), step, &mut whole).unwrap();
        }
        prune(folder.path(), 2).unwrap();
        assert_eq!(all(folder.path()).unwrap().iter().map(|(step, _)| *step).collect::<Vec<_>>(), [9, 10]);
        prune(folder.path(), 5).unwrap();
        assert_eq!(all(folder.path()).unwrap().len(), 2);
    }
}
