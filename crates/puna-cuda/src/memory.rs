//! Device memory, from a pool: what is let go is used again in the order of the stream, without asking the driver.
//!
//! What a recorded step allocates comes from an arena instead, which the recording keeps: its kernels write there at every replay.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use puna_tensor::{Buffer, Error, Kind, Result};

use crate::driver::Address;
use crate::queue::Queue;

/// Memory of a device, given back when it is dropped. All work is done in one order, so what was enqueued before has read it by then.
pub(crate) struct Memory {
    address: Address,
    bytes: usize,
    home: Home,
}

/// Where memory goes back to.
enum Home {
    Pool(Arc<Pool>),
    Arena(Arc<Arena>),
}

impl Memory {
    pub(crate) fn address(&self) -> Address {
        self.address
    }

    pub(crate) fn pool(&self) -> &Pool {
        match &self.home {
            Home::Pool(pool) => pool,
            Home::Arena(arena) => &arena.pool,
        }
    }

    /// Whether it lives as long as an arena does.
    pub(crate) fn is_of(&self, arena: &Arc<Arena>) -> bool {
        matches!(&self.home, Home::Arena(of) if Arc::ptr_eq(of, arena))
    }

    /// The memory behind a buffer.
    pub(crate) fn of(buffer: &Buffer) -> &Self {
        buffer.memory().expect("inference keeps tensors of other devices from this back end")
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        match &self.home {
            Home::Pool(pool) => pool.give(self.address, self.bytes),
            Home::Arena(arena) => arena.lock().free.entry(self.bytes).or_default().push(self.address),
        }
    }
}

/// Memory of one recording. Within it, what is let go is used again in the order of the step, so that a replay does what running the step would.
pub(crate) struct Arena {
    pool: Arc<Pool>,
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    /// All of it, with sizes.
    all: Vec<(Address, usize)>,
    /// What nothing uses at this moment, by size.
    free: BTreeMap<usize, Vec<Address>>,
}

impl Arena {
    pub(crate) fn new(pool: &Arc<Pool>) -> Arc<Self> {
        Arc::new(Self { pool: pool.clone(), held: Mutex::default() })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Memory of `bytes` bytes, with any content: see [`Pool::alloc`].
    pub(crate) fn alloc(self: &Arc<Self>, bytes: usize) -> Result<Memory> {
        let class = self.pool.class(bytes);
        let mut held = self.lock();
        let address = match held.free.get_mut(&class).and_then(Vec::pop) {
            Some(address) => address,
            None => {
                let address = self.pool.take(class, bytes)?;
                held.all.push((address, class));
                address
            }
        };
        drop(held);
        Ok(Memory { address, bytes: class, home: Home::Arena(self.clone()) })
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        let held = std::mem::take(&mut *self.lock());
        held.all.into_iter().for_each(|(address, class)| self.pool.give(address, class));
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
    queue: Arc<Queue>,
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
    pub(crate) fn new(queue: Arc<Queue>, keeps: bool, limit: Option<usize>) -> Arc<Self> {
        Arc::new(Self { queue, keeps, limit: limit.unwrap_or(usize::MAX), state: Mutex::default() })
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
        let class = self.class(bytes);
        Ok(Memory { address: self.take(class, bytes)?, bytes: class, home: Home::Pool(self.clone()) })
    }

    /// How much memory serves for `bytes` bytes.
    fn class(&self, bytes: usize) -> usize {
        if self.keeps { class(bytes) } else { bytes }
    }

    /// Memory of this size; `bytes` is what was asked for.
    fn take(&self, class: usize, bytes: usize) -> Result<Address> {
        let _turn = self.queue.enter();
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
        Ok(address)
    }

    /// From the driver; where it has no room, after what is kept was given back.
    fn reserve(&self, state: &mut State, class: usize) -> Result<Option<Address>> {
        if state.used.reserved.saturating_add(class) > self.limit {
            self.release(state)?;
            if state.used.reserved.saturating_add(class) > self.limit {
                return Ok(None);
            }
        }
        let mut address = self.queue.alloc(class)?;
        if address.is_none() && self.release(state)? {
            address = self.queue.alloc(class)?;
        }
        if address.is_some() {
            state.used.reserved += class;
        }
        Ok(address)
    }

    /// Gives back what is kept; whether that was anything. A step that is recorded stands still for no driver: nothing then.
    fn release(&self, state: &mut State) -> Result<bool> {
        if self.queue.is_recording() {
            return Ok(false);
        }
        let free = std::mem::take(&mut state.free);
        let any = !free.is_empty();
        for (class, addresses) in free {
            for address in addresses {
                state.used.reserved -= class;
                self.queue.free(address)?;
            }
        }
        Ok(any)
    }

    fn no_room(&self, bytes: usize, state: &State) -> Error {
        let gib = |bytes: usize| bytes as f64 / (1u64 << 30) as f64;
        let free = match self.queue.room() {
            Ok((free, total)) => format!(", {:.2} of {:.2} GiB free on {}", gib(free), gib(total), self.queue.card().name),
            Err(_) => String::new(),
        };
        let limit = if self.limit == usize::MAX { String::new() } else { format!(", limit {:.2} GiB", gib(self.limit)) };
        let message = format!(
            "no room for {:.2} GiB ({bytes} bytes){free}; this device holds {:.2} GiB{limit}",
            gib(bytes),
            gib(state.used.allocated)
        );
        Error::new(Kind::Memory, self.queue.name(), message)
    }

    fn give(&self, address: Address, class: usize) {
        let mut state = self.state();
        state.used.allocated -= class;
        if self.keeps {
            state.free.entry(class).or_default().push(address);
        } else {
            state.used.reserved -= class;
            drop(state);
            let _turn = self.queue.enter();
            // Of what the driver says here nobody can be told; what it finds (the emulator: bytes written past the end) ends the program.
            if let Err(error) = self.queue.free(address) {
                assert!(std::thread::panicking(), "{error}");
            }
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let _turn = self.queue.enter();
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

    use puna_tensor::{Arrival, Replay};

    use super::*;
    use crate::driver::{Card, Driver, Kernel, Unit};
    use crate::launch::{Arguments, Grid};

    /// A card of so many bytes, which only counts.
    struct Small {
        card: Card,
        total: usize,
        used: Arc<AtomicUsize>,
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

        fn fetch(&self, _: Address, _: usize) -> Result<Box<dyn Arrival>> {
            unreachable!("nothing is read")
        }

        fn begin_graph(&self) -> Result<()> {
            Ok(())
        }

        fn end_graph(&self) -> Result<Box<dyn Replay>> {
            Ok(Box::new(Nothing))
        }
    }

    struct Nothing;

    impl Replay for Nothing {
        fn replay(&self) -> Result<()> {
            Ok(())
        }
    }

    /// A card of so many bytes, and how many of them are in use.
    fn small(total: usize) -> (Arc<Queue>, Arc<AtomicUsize>) {
        let card = Card { name: "a small card".into(), capability: 80, multiprocessors: 1 };
        let used = Arc::new(AtomicUsize::new(0));
        let driver = Small { card, total, used: used.clone(), sizes: Mutex::default() };
        (Queue::new(Box::new(driver), "cuda:0"), used)
    }

    #[test]
    fn memory_is_used_again_and_counted() {
        let (queue, used) = small(1 << 20);
        let pool = Pool::new(queue, true, None);
        let first = pool.alloc(1000).unwrap();
        let at = first.address();
        assert_eq!(pool.used(), MemoryUse { allocated: 1024, reserved: 1024, peak: 1024 });
        drop(first);
        assert_eq!(pool.used(), MemoryUse { allocated: 0, reserved: 1024, peak: 1024 });
        assert_eq!(pool.alloc(1020).unwrap().address(), at);
        drop(pool);
        assert_eq!(used.load(Ordering::Relaxed), 0, "all goes back with the device");
    }

    #[test]
    fn what_is_kept_makes_room_before_anything_fails() {
        let pool = Pool::new(small(10_000).0, true, None);
        drop(pool.alloc(8000).unwrap());
        let other = pool.alloc(5000).expect("the kept memory goes");
        assert_eq!(pool.used().reserved, other.bytes);
    }

    #[test]
    fn no_room_is_an_error_with_the_numbers_and_the_device_works_on() {
        let pool = Pool::new(small(10_000).0, true, None);
        let held = pool.alloc(4000).unwrap();
        let error = pool.alloc(1 << 40).err().expect("there is no such card");
        let text = error.to_string();
        assert_eq!(error.kind(), Kind::Memory);
        assert!(text.contains("1024.00 GiB") && text.contains("a small card") && text.contains("cuda:0"), "{text}");
        assert!(pool.alloc(4000).is_ok());
        drop(held);
        let limited = Pool::new(small(1 << 20).0, true, Some(2048));
        let first = limited.alloc(1500).unwrap();
        assert!(limited.alloc(1500).err().expect("beyond the limit").to_string().contains("limit"));
        drop(first);
        assert!(limited.alloc(2000).is_ok());
    }

    #[test]
    fn an_arena_uses_its_memory_again_and_gives_it_back_at_the_end() {
        let (queue, _) = small(10_000);
        let pool = Pool::new(queue.clone(), true, None);
        let kept = pool.alloc(1000).unwrap().address();
        let turn = queue.take_turn().unwrap();
        let arena = Arena::new(&pool);
        let first = arena.alloc(1000).unwrap();
        assert_eq!(first.address(), kept, "what the pool keeps comes first");
        drop(first);
        let again = arena.alloc(1010).unwrap();
        assert_eq!(again.address(), kept);
        assert_ne!(pool.alloc(1000).unwrap().address(), kept, "nobody else gets it");
        assert!(arena.alloc(9000).is_err(), "the pool's own is not given up for a recording");
        drop(turn);
        drop(again);
        assert_eq!(pool.used().allocated, 1024, "it is the arena's as long as that lives");
        drop(arena);
        assert_eq!(pool.used().allocated, 0);
        assert!(pool.alloc(9000).is_ok());
    }
}
