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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::driver::{Card, Kernel, Unit};
    use crate::launch::{Arguments, Grid};

    /// A card of so many bytes, which only counts.
    struct Small {
        card: Card,
        total: usize,
        used: AtomicUsize,
        sizes: Mutex<BTreeMap<Address, usize>>,
    }

    impl Driver for Small {
        fn card(&self) -> &Card {
            &self.card
        }

        fn alloc(&self, bytes: usize) -> Result<Option<Address>> {
            if self.used.load(Ordering::Relaxed) + bytes > self.total {
                return Ok(None);
            }
            self.used.fetch_add(bytes, Ordering::Relaxed);
            let mut sizes = self.sizes.lock().unwrap();
            let address = sizes.keys().next_back().map_or(4096, |last| last + (1 << 30));
            sizes.insert(address, bytes);
            Ok(Some(address))
        }

        fn free(&self, address: Address) -> Result<()> {
            let bytes = self.sizes.lock().unwrap().remove(&address).expect("what is freed was given");
            self.used.fetch_sub(bytes, Ordering::Relaxed);
            Ok(())
        }

        fn room(&self) -> Result<(usize, usize)> {
            Ok((self.total - self.used.load(Ordering::Relaxed), self.total))
        }

        fn upload(&self, _: Address, _: &[u8]) -> Result<()> {
            Ok(())
        }

        fn download(&self, _: Address, _: &mut [u8]) -> Result<()> {
            Ok(())
        }

        fn copy(&self, _: Address, _: Address, _: usize) -> Result<()> {
            Ok(())
        }

        fn kernel(&self, _: &Unit, _: &'static str) -> Result<Kernel> {
            unreachable!("nothing is launched")
        }

        fn launch(&self, _: &Kernel, _: &Grid, _: &Arguments) -> Result<()> {
            unreachable!("nothing is launched")
        }

        fn synchronize(&self) -> Result<()> {
            Ok(())
        }
    }

    fn small(total: usize) -> Arc<Small> {
        let card = Card { name: "a small card".into(), capability: 80, multiprocessors: 1 };
        Arc::new(Small { card, total, used: AtomicUsize::new(0), sizes: Mutex::default() })
    }

    #[test]
    fn memory_is_used_again_and_counted() {
        let driver = small(1 << 20);
        let pool = Pool::new(driver.clone(), "cuda:0", true, None);
        let first = pool.alloc(1000).unwrap();
        let at = first.address();
        assert_eq!(pool.used(), MemoryUse { allocated: 1024, reserved: 1024, peak: 1024 });
        drop(first);
        assert_eq!(pool.used(), MemoryUse { allocated: 0, reserved: 1024, peak: 1024 });
        assert_eq!(pool.alloc(1020).unwrap().address(), at);
        drop(pool);
        assert_eq!(driver.used.load(Ordering::Relaxed), 0, "all goes back with the device");
    }

    #[test]
    fn what_is_kept_makes_room_before_anything_fails() {
        let pool = Pool::new(small(10_000), "cuda:0", true, None);
        drop(pool.alloc(8000).unwrap());
        let other = pool.alloc(5000).expect("the kept memory goes");
        assert_eq!(pool.used().reserved, other.bytes);
    }

    #[test]
    fn no_room_is_an_error_with_the_numbers_and_the_device_works_on() {
        let pool = Pool::new(small(10_000), "cuda:0", true, None);
        let held = pool.alloc(4000).unwrap();
        let error = pool.alloc(1 << 40).err().expect("there is no such card");
        let text = error.to_string();
        assert_eq!(error.kind(), Kind::Memory);
        assert!(text.contains("1024.00 GiB") && text.contains("a small card") && text.contains("cuda:0"), "{text}");
        assert!(pool.alloc(4000).is_ok());
        drop(held);
        let limited = Pool::new(small(1 << 20), "cuda:0", true, Some(2048));
        let first = limited.alloc(1500).unwrap();
        assert!(limited.alloc(1500).err().expect("beyond the limit").to_string().contains("limit"));
        drop(first);
        assert!(limited.alloc(2000).is_ok());
    }
}
