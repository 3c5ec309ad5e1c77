//! Device memory, from a pool: what is let go is used again in the order of the stream, without asking the driver.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use puna_tensor::{Buffer, Error, Kind, Result};

use crate::driver::{Address, Driver};

/// Memory of a device, given back when it is dropped. All work is done in one order, so what was enqueued before has read it by then.
pub(crate) struct Memory {
    address: Address,
    bytes: usize,
    pool: Arc<Pool>,
}

impl Memory {
    pub(crate) fn address(&self) -> Address {
        self.address
    }

    pub(crate) fn pool(&self) -> &Pool {
        &self.pool
    }

    /// The memory behind a buffer.
    pub(crate) fn of(buffer: &Buffer) -> &Self {
        buffer.memory().expect("inference keeps tensors of other devices from this back end")
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.pool.give(self.address, self.bytes);
    }
}

/// How much memory a device holds, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MemoryUse {
    /// What tensors and work in progress hold.
    pub allocated: usize,
    /// What was taken from the driver: allocated, and kept to be used again.
    pub reserved: usize,
    /// The most that was allocated at once.
    pub peak: usize,
}

pub(crate) struct Pool {
    driver: Arc<dyn Driver>,
    name: String,
    /// Whether memory that is let go is kept: the emulator rather has each tensor end at a page that cannot be touched.
    keeps: bool,
    /// The most that may be reserved.
    limit: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// What is kept, by size.
    free: BTreeMap<usize, Vec<Address>>,
    used: MemoryUse,
}

impl Pool {
    pub(crate) fn new(driver: Arc<dyn Driver>, name: &str, keeps: bool, limit: Option<usize>) -> Arc<Self> {
        Arc::new(Self { driver, name: name.to_owned(), keeps, limit: limit.unwrap_or(usize::MAX), state: Mutex::default() })
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How much is held.
    pub(crate) fn used(&self) -> MemoryUse {
        self.state().used
    }

    /// Memory of `bytes` bytes, with any content.
    ///
    /// Errors: [`Kind::Memory`], with what was asked for and what is free; the device works on.
    pub(crate) fn alloc(self: &Arc<Self>, bytes: usize) -> Result<Memory> {
        let class = if self.keeps { class(bytes) } else { bytes };
        let mut state = self.state();
        let kept = state.free.get_mut(&class).and_then(Vec::pop);
        let address = match kept {
            Some(address) => address,
            None => match self.reserve(&mut state, class)? {
                Some(address) => address,
                None => return Err(self.no_room(bytes, &state)),
            },
        };
        state.used.allocated += class;
        state.used.peak = state.used.peak.max(state.used.allocated);
        drop(state);
        Ok(Memory { address, bytes: class, pool: self.clone() })
    }

    /// From the driver; where it has no room, after what is kept was given back.
    fn reserve(&self, state: &mut State, class: usize) -> Result<Option<Address>> {
        if state.used.reserved.saturating_add(class) > self.limit {
            self.release(state)?;
            if state.used.reserved.saturating_add(class) > self.limit {
                return Ok(None);
            }
        }
        let mut address = self.driver.alloc(class)?;
        if address.is_none() && self.release(state)? {
            address = self.driver.alloc(class)?;
        }
        if address.is_some() {
            state.used.reserved += class;
        }
        Ok(address)
    }

    /// Gives back what is kept; whether that was anything.
    fn release(&self, state: &mut State) -> Result<bool> {
        let free = std::mem::take(&mut state.free);
        let any = !free.is_empty();
        for (class, addresses) in free {
            for address in addresses {
                state.used.reserved -= class;
                self.driver.free(address)?;
            }
        }
        Ok(any)
    }

    fn no_room(&self, bytes: usize, state: &State) -> Error {
        let gib = |bytes: usize| bytes as f64 / (1u64 << 30) as f64;
        let free = match self.driver.room() {
            Ok((free, total)) => format!(", {:.2} of {:.2} GiB free on {}", gib(free), gib(total), self.driver.card().name),
            Err(_) => String::new(),
        };
        let limit = if self.limit == usize::MAX { String::new() } else { format!(", limit {:.2} GiB", gib(self.limit)) };
        let message = format!(
            "no room for {:.2} GiB ({bytes} bytes){free}; this device holds {:.2} GiB{limit}",
            gib(bytes),
            gib(state.used.allocated)
        );
        Error::new(Kind::Memory, &*self.name, message)
    }

    fn give(&self, address: Address, class: usize) {
        let mut state = self.state();
        state.used.allocated -= class;
        if self.keeps {
            state.free.entry(class).or_default().push(address);
        } else {
            state.used.reserved -= class;
            drop(state);
            // Of what the driver says here nobody can be told; what it finds (the emulator: bytes written past the end) ends the program.
            if let Err(error) = self.driver.free(address) {
                assert!(std::thread::panicking(), "{error}");
            }
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let mut state = std::mem::take(&mut *self.state());
        // The driver goes with its context, and all memory with that.
        let _ = self.release(&mut state);
    }
}

/// The next size class: an eighth of a power of two apart, 512 bytes at least.
fn class(bytes: usize) -> usize {
    let step = (bytes.next_power_of_two() / 16).max(512);
    bytes.max(1).div_ceil(step) * step
}
