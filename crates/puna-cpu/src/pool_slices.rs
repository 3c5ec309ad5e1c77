//! Parallel loops over disjoint parts of slices: the one place where tasks get at a shared result.

use std::marker::PhantomData;

use crate::pool::Pool;

/// A slice whose disjoint chunks are lent to tasks.
struct Chunks<'a, T> {
    start: *mut T,
    length: usize,
    chunk: usize,
    slice: PhantomData<&'a mut [T]>,
}

// SAFETY: a task touches its own chunk alone (see `get`), and `T: Send` may be changed from another thread.
unsafe impl<T: Send> Sync for Chunks<'_, T> {}

impl<'a, T> Chunks<'a, T> {
    fn new(slice: &'a mut [T], chunk: usize) -> Self {
        assert!(chunk > 0 || slice.is_empty(), "chunks have a length");
        Self { start: slice.as_mut_ptr(), length: slice.len(), chunk: chunk.max(1), slice: PhantomData }
    }

    fn count(&self) -> usize {
        self.length.div_ceil(self.chunk)
    }

    /// # Safety
    /// No two calls with one `i` may have results alive at a time.
    #[allow(clippy::mut_from_ref)]
    unsafe fn get(&self, i: usize) -> &mut [T] {
        let start = i * self.chunk;
        assert!(start < self.length, "chunk {i} lies beyond the slice");
        let length = self.chunk.min(self.length - start);
        // SAFETY: the range lies inside the slice that `new` borrowed mutably for 'a; chunks of different `i` do not overlap, and
        // the caller sees to it that no other result with this `i` is alive.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(start), length) }
    }
}

impl Pool {
    /// Calls `f(i, chunk)` for each chunk of `slice` (the last may be shorter), in parallel.
    pub(crate) fn chunks_mut<T: Send>(&self, slice: &mut [T], chunk: usize, f: impl Fn(usize, &mut [T]) + Sync) {
        let chunks = Chunks::new(slice, chunk);
        // SAFETY: the pool runs each task once, so each `i` is asked for once.
        self.run(chunks.count(), &|i| f(i, unsafe { chunks.get(i) }));
    }

    /// As [`chunks_mut`](Self::chunks_mut) over two slices that have equally many chunks, each of its own length.
    pub(crate) fn chunks_mut_2<A: Send, B: Send>(
        &self,
        (a, chunk_a): (&mut [A], usize),
        (b, chunk_b): (&mut [B], usize),
        f: impl Fn(usize, &mut [A], &mut [B]) + Sync,
    ) {
        let (a, b) = (Chunks::new(a, chunk_a), Chunks::new(b, chunk_b));
        assert_eq!(a.count(), b.count(), "both slices are cut into equally many chunks");
        self.run(a.count(), &|i| {
            // SAFETY: the pool runs each task once, so each `i` is asked for once.
            let a = unsafe { a.get(i) };
            // SAFETY: as above.
            let b = unsafe { b.get(i) };
            f(i, a, b)
        });
    }

    /// As [`chunks_mut_2`](Self::chunks_mut_2) over three slices.
    pub(crate) fn chunks_mut_3<A: Send, B: Send, C: Send>(
        &self,
        (a, chunk_a): (&mut [A], usize),
        (b, chunk_b): (&mut [B], usize),
        (c, chunk_c): (&mut [C], usize),
        f: impl Fn(usize, &mut [A], &mut [B], &mut [C]) + Sync,
    ) {
        let (a, b, c) = (Chunks::new(a, chunk_a), Chunks::new(b, chunk_b), Chunks::new(c, chunk_c));
        assert!(a.count() == b.count() && b.count() == c.count(), "all slices are cut into equally many chunks");
        self.run(a.count(), &|i| {
            // SAFETY: the pool runs each task once, so each `i` is asked for once.
            let a = unsafe { a.get(i) };
            // SAFETY: as above.
            let b = unsafe { b.get(i) };
            // SAFETY: as above.
            let c = unsafe { c.get(i) };
            f(i, a, b, c)
        });
    }
}
