//! The one order in which a device's work is done: everyone enqueues, and whoever records a step has it alone.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use puna_tensor::{Arrival, Error, Kind, Replay, Result};

use crate::driver::{Address, Card, Driver, Kernel, Unit};
use crate::launch::{Arguments, Grid};

pub(crate) struct Queue {
    driver: Box<dyn Driver>,
    name: String,
    turn: RwLock<()>,
    /// The thread that records, as [`this_thread`] tells threads apart; 0 where none does.
    recorder: AtomicUsize,
}

/// A number that no other living thread has, and that is not 0.
fn this_thread() -> usize {
    thread_local!(static PLACE: u8 = const { 0 });
    PLACE.with(|place| std::ptr::from_ref(place) as usize)
}

impl Queue {
    pub(crate) fn new(driver: Box<dyn Driver>, name: &str) -> Arc<Self> {
        Arc::new(Self { driver, name: name.to_owned(), turn: RwLock::default(), recorder: AtomicUsize::new(0) })
    }

    /// The device's name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Whether the calling thread is recording a step.
    pub(crate) fn is_recording(&self) -> bool {
        self.recorder.load(Ordering::Relaxed) == this_thread()
    }

    /// Waits until nobody else records. Whoever records goes on. Taken before any other lock, and once: what the one who records
    /// waits for must not be held by who waits here.
    pub(crate) fn enter(&self) -> Option<RwLockReadGuard<'_, ()>> {
        if self.is_recording() { None } else { Some(self.turn.read().unwrap_or_else(PoisonError::into_inner)) }
    }

    /// As [`enter`](Self::enter), for what a recorded step may not do.
    fn enter_at_once(&self, what: &str) -> Result<RwLockReadGuard<'_, ()>> {
        self.enter().ok_or_else(|| {
            let message = format!("{what} while a step is recorded; a recorded step works on the device alone");
            Error::new(Kind::Backend, &*self.name, message)
        })
    }

    pub(crate) fn card(&self) -> &Card {
        self.driver.card()
    }

    /// After [`enter`](Self::enter).
    pub(crate) fn alloc(&self, bytes: usize) -> Result<Option<Address>> {
        self.driver.alloc(bytes)
    }

    /// After [`enter`](Self::enter).
    pub(crate) fn free(&self, address: Address) -> Result<()> {
        self.driver.free(address)
    }

    pub(crate) fn room(&self) -> Result<(usize, usize)> {
        self.driver.room()
    }

    pub(crate) fn upload(&self, to: Address, bytes: &[u8]) -> Result<()> {
        let _turn = self.enter_at_once("bytes come from the host")?;
        self.driver.upload(to, bytes)
    }

    pub(crate) fn download(&self, from: Address, into: &mut [u8]) -> Result<()> {
        let _turn = self.enter_at_once("bytes go to the host")?;
        self.driver.download(from, into)
    }

    pub(crate) fn fetch(&self, from: Address, bytes: usize) -> Result<Box<dyn Arrival>> {
        let _turn = self.enter_at_once("bytes go to the host")?;
        self.driver.fetch(from, bytes)
    }

    pub(crate) fn copy(&self, to: Address, from: Address, bytes: usize) -> Result<()> {
        let _turn = self.enter();
        self.driver.copy(to, from, bytes)
    }

    pub(crate) fn kernel(&self, unit: &Unit, entry: &'static str) -> Result<Kernel> {
        self.driver.kernel(unit, entry)
    }

    pub(crate) fn launch(&self, kernel: &Kernel, grid: &Grid, arguments: &Arguments) -> Result<()> {
        let _turn = self.enter();
        self.driver.launch(kernel, grid, arguments)
    }

    pub(crate) fn synchronize(&self) -> Result<()> {
        let _turn = self.enter_at_once("the host waits")?;
        self.driver.synchronize()
    }

    /// Enqueues what was recorded.
    pub(crate) fn replay(&self, graph: &dyn Replay) -> Result<()> {
        let _turn = self.enter_at_once("another is replayed")?;
        graph.replay()
    }

    /// Gives the calling thread the queue alone: to record a step, or to go through one without asking the driver for anything.
    ///
    /// Errors: it has it already.
    pub(crate) fn take_turn(&self) -> Result<Turn<'_>> {
        if self.is_recording() {
            return Err(Error::new(Kind::Backend, &*self.name, "another step is recorded while a step is recorded"));
        }
        let guard = self.turn.write().unwrap_or_else(PoisonError::into_inner);
        self.recorder.store(this_thread(), Ordering::Relaxed);
        Ok(Turn { queue: self, graph: false, _guard: guard })
    }
}

/// The calling thread's time alone with the queue.
pub(crate) struct Turn<'q> {
    queue: &'q Queue,
    /// Whether a graph was begun and not ended.
    graph: bool,
    _guard: RwLockWriteGuard<'q, ()>,
}

impl Turn<'_> {
    /// From here on, launches and copies are noted.
    pub(crate) fn begin_graph(&mut self) -> Result<()> {
        self.queue.driver.begin_graph()?;
        self.graph = true;
        Ok(())
    }

    /// What was noted.
    pub(crate) fn end_graph(mut self) -> Result<Box<dyn Replay>> {
        self.graph = false;
        self.queue.driver.end_graph()
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if self.graph {
            // Recording came to nothing: what was noted goes, and what the driver says of it with that.
            let _ = self.queue.driver.end_graph();
        }
        self.queue.recorder.store(0, Ordering::Relaxed);
    }
}
