//! Host memory: 64-byte aligned lines from a free list, or a mapped file in place.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, TryLockError};

use bytemuck::{AnyBitPattern, NoUninit};
use puna_tensor::{Buffer, Error, HostBytes, Kind, Result, Tensor};

use crate::room::{LINE, Room};

/// The memory behind a CPU buffer. Sound by construction: a kernel reads and writes through a lock's guard, so nobody holds a
/// mutable slice beside another one; a mapped file is only ever read.
pub(crate) enum Memory {
    /// Memory of our own.
    Lines(RwLock<Lines>),
    /// Lent bytes, at least 8-byte aligned.
    Host(Arc<dyn HostBytes>),
}

/// Lines that go back to the free list they came from.
pub(crate) struct Lines {
    room: Room,
    free: Arc<FreeList>,
}

impl Drop for Lines {
    fn drop(&mut self) {
        self.free.give(std::mem::take(&mut self.room));
    }
}

/// Memory that was let go, by size class, to be used again without asking the system for pages (whose first touch costs more than the
/// kernels that write small results).
///
/// Memory in use and memory kept are together at most half again what was in use at once: a training step finds again what the last
/// one let go, though the sizes it asks for come in another order. Of each size no more is kept than was in use at once, so that loading,
/// which lets go of one tensor at a time, keeps one of each size.
#[derive(Default)]
pub(crate) struct FreeList(Mutex<Free>);

#[derive(Default)]
struct Free {
    /// By the number of lines.
    classes: BTreeMap<usize, Vec<Room>>,
    /// How many lines are kept, in use, and were in use at most.
    kept: usize,
    used: usize,
    peak: usize,
}

impl FreeList {
    /// As many lines as asked for, if memory of that size is kept; from here on they are in use. Otherwise room is made for them.
    fn take(&self, lines: usize) -> Option<Room> {
        let mut free = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let memory = free.classes.get_mut(&lines).and_then(Vec::pop);
        free.used += lines;
        if memory.is_some() {
            free.kept -= lines;
        } else {
            // Given back to the system outside of the lock.
            let evicted = free.evict();
            drop(free);
            drop(evicted);
        }
        memory
    }

    fn give(&self, memory: Room) {
        let mut free = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Before something is let go, most is in use.
        free.peak = free.peak.max(free.used);
        free.used -= memory.lines();
        free.kept += memory.lines();
        free.classes.entry(memory.lines()).or_default().push(memory);
    }

    /// Takes back what was asked for and could not be had.
    fn untake(&self, lines: usize) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).used -= lines;
    }
}

impl Free {
    /// What is kept beyond that, the largest first.
    fn evict(&mut self) -> Vec<Room> {
        let mut evicted = Vec::new();
        while self.used + self.kept > self.peak.max(self.used) * 3 / 2 {
            let Some(mut class) = self.classes.last_entry() else { break };
            match class.get_mut().pop() {
                Some(memory) => {
                    self.kept -= memory.lines();
                    evicted.push(memory);
                }
                None => {
                    class.remove();
                }
            }
        }
        evicted
    }
}

/// The next size class: an eighth of a power of two apart, so that at most an eighth is wasted and classes are shared.
fn class(lines: usize) -> usize {
    let step = (lines.next_power_of_two() / 16).max(1);
    lines.div_ceil(step) * step
}

impl Memory {
    /// Memory of `bytes` bytes with any content.
    pub(crate) fn alloc(bytes: usize, free: &Arc<FreeList>) -> Result<Buffer> {
        let lines = class(bytes.div_ceil(LINE));
        let room = match free.take(lines) {
            Some(room) => room,
            None => Room::new(lines).ok_or_else(|| {
                free.untake(lines);
                let gib = bytes as f64 / (1u64 << 30) as f64;
                Error::new(Kind::Memory, "cpu", format!("no room for {gib:.2} GiB ({bytes} bytes)"))
            })?,
        };
        let lines = Lines { room, free: free.clone() };
        Ok(Buffer::new(bytes, Self::Lines(RwLock::new(lines))))
    }

    /// Lent bytes as a buffer; `None` where they are not aligned for every dtype.
    pub(crate) fn lend(bytes: Arc<dyn HostBytes>) -> Option<Buffer> {
        let slice = bytes.bytes();
        let aligned = slice.as_ptr().addr() % 8 == 0;
        aligned.then(|| Buffer::new(slice.len(), Self::Host(bytes.clone())))
    }

    pub(crate) fn of(buffer: &Buffer) -> &Self {
        buffer.memory().expect("inference keeps tensors of other devices from this back end")
    }

    pub(crate) fn read(&self) -> Read<'_> {
        match self {
            Self::Lines(lines) => Read::Lines(lines.read().unwrap_or_else(PoisonError::into_inner)),
            Self::Host(bytes) => Read::Host(bytes.bytes()),
        }
    }

    /// Errors: lent bytes do not change.
    pub(crate) fn write(&self) -> Result<Write<'_>> {
        // Asked for again and again instead of waited for: behind a writer that waits, readers wait too, and an op that reads one
        // buffer as two of its arguments would wait for itself.
        loop {
            if let Some(memory) = self.try_write()? {
                return Ok(memory);
            }
            std::thread::yield_now();
        }
    }

    /// Nothing while somebody else holds it.
    fn try_write(&self) -> Result<Option<Write<'_>>> {
        match self {
            Self::Lines(lines) => match lines.try_write() {
                Ok(guard) => Ok(Some(Write(guard))),
                Err(TryLockError::Poisoned(poisoned)) => Ok(Some(Write(poisoned.into_inner()))),
                Err(TryLockError::WouldBlock) => Ok(None),
            },
            Self::Host(_) => Err(Error::new(
                Kind::InPlace,
                "cpu",
                "the tensor lies in a mapped file and may not be changed; contiguous copies do",
            )),
        }
    }
}

/// Memory lent for reading.
pub(crate) enum Read<'a> {
    Lines(RwLockReadGuard<'a, Lines>),
    Host(&'a [u8]),
}

impl Read<'_> {
    /// All bytes, padding behind included.
    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Self::Lines(lines) => lines.room.bytes(),
            Self::Host(bytes) => bytes,
        }
    }

    /// The whole memory as elements; a view's first is at its layout's offset.
    pub(crate) fn typed<T: AnyBitPattern>(&self) -> &[T] {
        let bytes = self.bytes();
        bytemuck::cast_slice(&bytes[..bytes.len() / size_of::<T>() * size_of::<T>()])
    }
}

/// Memory lent for writing, to one alone.
pub(crate) struct Write<'a>(RwLockWriteGuard<'a, Lines>);

impl Write<'_> {
    /// All bytes.
    pub(crate) fn bytes(&mut self) -> &mut [u8] {
        self.0.room.bytes_mut()
    }

    /// The whole memory as elements.
    pub(crate) fn typed<T: AnyBitPattern + NoUninit>(&mut self) -> &mut [T] {
        bytemuck::cast_slice_mut(self.bytes())
    }
}

/// The memory behind a tensor, for reading.
pub(crate) fn read(tensor: &Tensor) -> Read<'_> {
    Memory::of(tensor.buffer()).read()
}

/// The memory behind a new result or an argument that an in-place op changes.
pub(crate) fn write(tensor: &Tensor) -> Result<Write<'_>> {
    Memory::of(tensor.buffer()).write()
}

/// As [`write`], of many: all at once or none, so that whoever reads two of them never waits for one that is held while the other is
/// waited for.
pub(crate) fn write_all<'a>(tensors: &[&'a Tensor]) -> Result<Vec<Write<'a>>> {
    loop {
        let all = tensors.iter().map(|tensor| Memory::of(tensor.buffer()).try_write().transpose());
        if let Some(all) = all.collect::<Option<Result<Vec<_>>>>() {
            return all;
        }
        std::thread::yield_now();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is in use, kept, and was in use at most, in lines.
    fn counts(free: &FreeList) -> [usize; 3] {
        let free = free.0.lock().unwrap();
        assert_eq!(free.kept, free.classes.iter().map(|(lines, all)| lines * all.len()).sum::<usize>());
        [free.used, free.kept, free.peak.max(free.used)]
    }

    #[test]
    fn what_is_kept_is_at_most_half_of_what_was_in_use() {
        let free = Arc::new(FreeList::default());
        let alloc = |lines: usize| Memory::alloc(lines * LINE, &free).unwrap();
        let (a, b) = (alloc(16), alloc(8));
        assert_eq!(counts(&free), [24, 0, 24]);
        drop(a);
        assert_eq!(counts(&free), [8, 16, 24]);
        // Of another size, and 38 would be more than 36: what was kept goes.
        let c = alloc(14);
        assert_eq!(counts(&free), [22, 0, 24]);
        drop((b, c));
        assert_eq!(counts(&free), [0, 22, 24]);
        // Of a size that is kept: it is used again.
        let d = alloc(8);
        assert_eq!(counts(&free), [8, 14, 24]);
        // A small one goes beside it.
        let e = alloc(2);
        assert_eq!(counts(&free), [10, 14, 24]);
        let f = alloc(1);
        assert_eq!(counts(&free), [11, 14, 24]);
        drop((d, e, f));
        let larger = alloc(32);
        assert_eq!(counts(&free), [32, 11, 32]);
        drop(larger);
        assert!(Memory::alloc(isize::MAX as usize / 2, &free).is_err());
        assert_eq!(counts(&free), [0, 43, 32], "what could not be had was never in use");
    }

    #[test]
    fn a_buffer_is_read_twice_while_somebody_waits_to_write_it() {
        let free = Arc::new(FreeList::default());
        let buffer = Memory::alloc(64, &free).unwrap();
        let memory = Memory::of(&buffer);
        std::thread::scope(|scope| {
            let first = memory.read();
            let writer = scope.spawn(|| memory.write().map(|mut memory| memory.bytes()[0] = 7));
            // Until the writer has surely asked.
            std::thread::sleep(std::time::Duration::from_millis(50));
            let second = memory.read();
            assert_eq!((first.bytes()[0], second.bytes()[0]), (0, 0));
            drop((first, second));
            writer.join().unwrap().unwrap();
        });
        assert_eq!(memory.read().bytes()[0], 7);
    }

    #[test]
    fn classes_waste_an_eighth_at_most() {
        for lines in (1..5000).chain([1 << 20, (1 << 20) + 1]) {
            assert!(class(lines) >= lines && (class(lines) - lines) * 8 <= lines, "{lines}");
        }
    }

    #[test]
    fn memory_is_used_again() {
        let free = Arc::new(FreeList::default());
        let address = |buffer: &Buffer| Memory::of(buffer).read().bytes().as_ptr().addr();
        let first = Memory::alloc(1000, &free).unwrap();
        let at = address(&first);
        drop(first);
        let second = Memory::alloc(1010, &free).unwrap();
        assert_eq!((address(&second), at % 64), (at, 0));
    }
}
