//! Host memory: 64-byte aligned lines from a free list, or a mapped file in place.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytemuck::{AnyBitPattern, NoUninit, Pod, Zeroable};
use puna_tensor::{Buffer, Error, HostBytes, Kind, Result, Tensor};

/// What a cache line holds, and what the widest vector loads.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
pub(crate) struct Line([u8; 64]);

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
    lines: Vec<Line>,
    free: Arc<FreeList>,
}

impl Drop for Lines {
    fn drop(&mut self) {
        self.free.give(std::mem::take(&mut self.lines));
    }
}

/// Memory that was let go, by size class, to be used again without asking the system for pages (whose first touch costs more than the
/// kernels that write small results).
#[derive(Default)]
pub(crate) struct FreeList(Mutex<Free>);

#[derive(Default)]
struct Free {
    classes: HashMap<usize, Vec<Vec<Line>>>,
    bytes: usize,
}

impl FreeList {
    /// More than this is given back to the system.
    const LIMIT: usize = 256 << 20;

    fn take(&self, lines: usize) -> Option<Vec<Line>> {
        let mut free = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let memory = free.classes.get_mut(&lines)?.pop()?;
        free.bytes -= memory.len() * size_of::<Line>();
        Some(memory)
    }

    fn give(&self, memory: Vec<Line>) {
        let bytes = memory.len() * size_of::<Line>();
        let mut free = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if bytes > 0 && free.bytes + bytes <= Self::LIMIT {
            free.bytes += bytes;
            free.classes.entry(memory.len()).or_default().push(memory);
        }
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
        let lines = class(bytes.div_ceil(size_of::<Line>()));
        let memory = match free.take(lines) {
            Some(memory) => memory,
            None => bytemuck::allocation::try_zeroed_vec(lines).map_err(|()| {
                let gib = bytes as f64 / (1u64 << 30) as f64;
                Error::new(Kind::Memory, "cpu", format!("no room for {gib:.2} GiB ({bytes} bytes)"))
            })?,
        };
        let lines = Lines { lines: memory, free: free.clone() };
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
        match self {
            Self::Lines(lines) => Ok(Write(lines.write().unwrap_or_else(PoisonError::into_inner))),
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
            Self::Lines(lines) => bytemuck::cast_slice(&lines.lines),
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
        bytemuck::cast_slice_mut(&mut self.0.lines)
    }

    /// The whole memory as elements.
    pub(crate) fn typed<T: AnyBitPattern + NoUninit>(&mut self) -> &mut [T] {
        bytemuck::cast_slice_mut(&mut self.0.lines)
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

#[cfg(test)]
mod tests {
    use super::*;

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
