//! What the driver says that no call returns: kept, and given to the next call that can.

use std::fmt::Display;
use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use puna_tensor::{Error, Kind, Result};

/// The first thing that went wrong, and whether the device is lost; shared with the driver's callbacks.
#[derive(Clone)]
pub(crate) struct Faults(Arc<Shared>);

struct Shared {
    /// The device, as `wgpu:0`.
    name: String,
    /// What it is, and through what it is driven.
    adapter: String,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Until somebody has been told.
    fault: Option<(Kind, String)>,
    /// Why; for good.
    lost: Option<String>,
}

impl Faults {
    /// Those of the device `name` on an adapter.
    pub(crate) fn new(name: String, adapter: String) -> Self {
        Self(Arc::new(Shared { name, adapter, state: Mutex::default() }))
    }

    /// The device's name.
    pub(crate) fn name(&self) -> &str {
        &self.0.name
    }

    /// The adapter, as errors say it.
    pub(crate) fn adapter(&self) -> &str {
        &self.0.adapter
    }

    /// An error of this device.
    pub(crate) fn error(&self, kind: Kind, message: impl Display) -> Error {
        Error::new(kind, self.name(), format!("{}: {message}", self.adapter()))
    }

    /// Listens to a device.
    pub(crate) fn listen(&self, device: &wgpu::Device) {
        let here = self.clone();
        device.on_uncaptured_error(Arc::new(move |error| here.keep(&error)));
        let here = self.clone();
        device.set_device_lost_callback(move |_, message| {
            here.state().lost.get_or_insert_with(|| format!("the device is lost: {}", one_line(&message)));
        });
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(&self, error: &wgpu::Error) {
        self.state().fault.get_or_insert_with(|| words(error));
    }

    /// Errors: what went wrong since the last call; that the device is lost, from then on.
    pub(crate) fn check(&self) -> Result<()> {
        let mut state = self.state();
        if let Some(lost) = &state.lost {
            return Err(self.error(Kind::Backend, lost));
        }
        match state.fault.take() {
            Some((kind, message)) => Err(self.error(kind, message)),
            None => Ok(()),
        }
    }

    /// Runs `f`. Errors: what the driver says of it, as far as it says so at once (a browser does later, to [`check`](Self::check)).
    pub(crate) fn scope<T>(&self, device: &wgpu::Device, f: impl FnOnce() -> T) -> std::result::Result<T, (Kind, String)> {
        let filters = [wgpu::ErrorFilter::Internal, wgpu::ErrorFilter::OutOfMemory, wgpu::ErrorFilter::Validation];
        let scopes = filters.map(|filter| device.push_error_scope(filter));
        let result = f();
        let mut first = None;
        for scope in scopes.into_iter().rev() {
            if let Some(Some(error)) = at_once(scope.pop()) {
                first.get_or_insert(words(&error));
            }
        }
        first.map_or(Ok(result), Err)
    }
}

/// What a future gives without waiting.
pub(crate) fn at_once<T>(future: impl Future<Output = T>) -> Option<T> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    }
}

fn words(error: &wgpu::Error) -> (Kind, String) {
    match error {
        wgpu::Error::OutOfMemory { .. } => (Kind::Memory, "the driver has no memory left".into()),
        wgpu::Error::Validation { description, .. } | wgpu::Error::Internal { description, .. } => {
            (Kind::Backend, one_line(description))
        }
    }
}

/// Messages of drivers have many lines; an error has one.
pub(crate) fn one_line(message: &str) -> String {
    let line = message.split_whitespace().collect::<Vec<_>>().join(" ");
    line.trim_end_matches('.').to_owned()
}
