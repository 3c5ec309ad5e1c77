//! Reading back: what is copied to where the host sees it, and when that has happened.

use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// A copy that is enqueued, and perhaps not yet submitted.
pub(crate) struct Staged {
    pub(crate) buffer: wgpu::Buffer,
    /// Where the bytes that were asked for lie in it.
    pub(crate) range: Range<usize>,
    /// The number of its batch.
    pub(crate) number: u64,
}

impl Staged {
    /// Begins to read it; it must be submitted by now.
    pub(crate) fn read(&self) -> Reading {
        Reading::of(self.buffer.clone(), self.range.clone())
    }
}

/// A copy on its way to the host.
pub(crate) struct Reading {
    buffer: wgpu::Buffer,
    /// Where the bytes that were asked for lie in it.
    range: Range<usize>,
    arrival: Arrival,
}

/// What the driver says of a buffer that was to be mapped.
type Told = std::result::Result<(), String>;

/// Whether a buffer can be read, told by the driver.
#[derive(Clone, Default)]
struct Arrival(Arc<(Mutex<State>, Condvar)>);

#[derive(Default)]
struct State {
    told: Option<Told>,
    /// Who waits for it without blocking.
    waker: Option<Waker>,
}

/// How long one thread may take to tell what it has learnt from the driver.
const PATIENCE: Duration = Duration::from_secs(30);

impl Arrival {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, result: Told) {
        let mut state = self.state();
        state.told = Some(result);
        self.0.1.notify_all();
        if let Some(waker) = state.waker.take() {
            waker.wake();
        }
    }

    /// What is told once the driver has been waited for: at once, or by another thread, which waited too and was told of both.
    fn told(&self) -> Option<Told> {
        // Where no thread waits, there is no clock either.
        if let Some(told) = &self.state().told {
            return Some(told.clone());
        }
        let waiting = self.0.1.wait_timeout_while(self.state(), PATIENCE, |state| state.told.is_none());
        waiting.unwrap_or_else(PoisonError::into_inner).0.told.clone()
    }

    fn poll(&self, context: &mut Context<'_>) -> Poll<Told> {
        let mut state = self.state();
        match state.told.clone() {
            Some(result) => Poll::Ready(result),
            None => {
                state.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl Reading {
    fn of(buffer: wgpu::Buffer, range: Range<usize>) -> Self {
        let arrival = Arrival::default();
        let told = arrival.clone();
        buffer.map_async(wgpu::MapMode::Read, .., move |result| told.tell(result.map_err(|error| error.to_string())));
        Self { buffer, range, arrival }
    }

    /// What was told of its arrival, when the driver has been waited for.
    pub(crate) fn told(&self) -> Option<Told> {
        self.arrival.told()
    }

    /// Whether it has been told of.
    pub(crate) fn has_arrived(&self) -> bool {
        self.arrival.state().told.is_some()
    }

    /// What is told of it, as a future says it.
    pub(crate) fn poll_arrived(&mut self, context: &mut Context<'_>) -> Poll<Told> {
        self.arrival.poll(context)
    }

    /// The bytes, of what has arrived.
    pub(crate) fn take(self, into: &mut [u8]) {
        if !self.range.is_empty() {
            let view = self.buffer.get_mapped_range(..).expect("what has arrived is mapped");
            into.copy_from_slice(&view[self.range.clone()]);
        }
        self.buffer.unmap();
    }
}
