use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use crate::{Backend, DType, Replay, Result};

/// A place where tensors live and ops run: a cheap handle around a [`Backend`].
#[derive(Clone)]
pub struct Device(Arc<Inner>);

struct Inner {
    lowered: Mutex<BTreeMap<(&'static str, &'static str), u64>>,
    backend: Box<dyn Backend>,
}

/// A step that a device has noted down: [`Device::record`].
pub struct Recording(Box<dyn Replay>);

impl Recording {
    /// Enqueues the step's ops, on what its tensors hold by then.
    pub fn replay(&self) -> Result<()> {
        self.0.replay()
    }
}

impl fmt::Debug for Recording {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Recording")
    }
}

/// How often a fused op ran as its composition on a device, because there is no kernel for it there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Lowered {
    /// The op's name.
    pub op: &'static str,
    /// The name of the dtype of its first argument.
    pub dtype: &'static str,
    /// How often.
    pub times: u64,
}

impl Device {
    /// A device on a back end. Handles are the same device only if they are clones of one another.
    pub fn new(backend: impl Backend) -> Self {
        Self(Arc::new(Inner { lowered: Mutex::default(), backend: Box::new(backend) }))
    }

    /// The name: `cpu`, `cuda:0`.
    pub fn name(&self) -> &str {
        self.0.backend.name()
    }

    /// The back end.
    pub fn backend(&self) -> &dyn Backend {
        &*self.0.backend
    }

    /// The float dtypes that it computes in, widest first: many GPUs have no f64.
    pub fn floats(&self) -> impl Iterator<Item = DType> + Clone + use<> {
        let device = self.clone();
        DType::FLOATS.into_iter().filter(move |dtype| device.backend().computes_in(*dtype))
    }

    /// Whether both are the same device.
    pub fn is_same(&self, other: &Device) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Runs the ops of one step: see [`Backend::step`].
    pub fn step<T>(&self, f: impl FnOnce() -> Result<T>) -> Result<T> {
        self.once(f, |f| self.backend().step(f)).map(|((), result)| result)
    }

    /// Compiles what the ops of `f` need before they are asked for, where the device compiles: see [`Backend::prepare`]. They change nothing, and
    /// their results hold nothing.
    pub fn prepare(&self, mut f: impl FnMut() -> Result<()>) -> Result<()> {
        self.backend().prepare(&mut f)
    }

    /// Whether [`record`](Self::record) notes steps down here.
    pub fn records(&self) -> bool {
        self.backend().recorder().is_some()
    }

    /// Notes down the ops of one step without computing them: see [`Recorder`](crate::Recorder). The results are those of each
    /// [`replay`](Recording::replay), which overwrites them. `None`, and `f` not run, where the device records nothing.
    ///
    /// What a replay changes in place is not seen by autograd.
    pub fn record<T>(&self, f: impl FnOnce() -> Result<T>) -> Result<Option<(Recording, T)>> {
        let Some(recorder) = self.backend().recorder() else { return Ok(None) };
        self.once(f, |f| recorder.record(f)).map(|(replay, result)| Some((Recording(replay), result)))
    }

    /// Has a back end run `f`, which gives a result.
    fn once<T, R>(
        &self,
        f: impl FnOnce() -> Result<T>,
        run: impl FnOnce(&mut dyn FnMut() -> Result<()>) -> Result<R>,
    ) -> Result<(R, T)> {
        let (mut f, mut result) = (Some(f), None);
        let ran = run(&mut || {
            let f = f.take().expect("a back end runs a step once");
            result = Some(f()?);
            Ok(())
        })?;
        Ok((ran, result.expect("a back end that returns Ok has run the step")))
    }

    /// Waits for all that was enqueued.
    pub fn synchronize(&self) -> Result<()> {
        self.backend().synchronize()
    }

    /// Which fused ops have run as their composition, and how often: never silent, always countable.
    pub fn lowered(&self) -> Vec<Lowered> {
        let counts = self.0.lowered.lock().unwrap_or_else(PoisonError::into_inner);
        counts.iter().map(|(&(op, dtype), &times)| Lowered { op, dtype, times }).collect()
    }

    pub(crate) fn count_lowered(&self, op: &'static str, dtype: Option<DType>) {
        let dtype = dtype.map_or("", DType::name);
        let mut counts = self.0.lowered.lock().unwrap_or_else(PoisonError::into_inner);
        let times = counts.entry((op, dtype)).or_default();
        *times += 1;
        if *times == 1 {
            tracing::debug!(device = self.name(), op, dtype, "no kernel: runs as its composition");
        }
    }
}

impl PartialEq for Device {
    fn eq(&self, other: &Self) -> bool {
        self.is_same(other)
    }
}

impl Eq for Device {}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Device({})", self.name())
    }
}
