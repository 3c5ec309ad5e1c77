//! Lines of memory, for buffers and for what a thread keeps for the next kernel.

use std::cell::RefCell;
use std::ops::Range;

use bytemuck::{Pod, Zeroable};

/// The bytes of a line: what a cache line holds, and what the widest vector loads.
pub(crate) const LINE: usize = 64;

/// What the system aligns of itself. It gives zeroed memory of a larger alignment by writing the zeros, on this thread, where otherwise a
/// page is cleared when it is first touched, by the thread that has a use for it.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(16))]
struct Piece([u8; 16]);

const PIECES: usize = LINE / size_of::<Piece>();

/// Whole lines, from the edge of one on.
#[derive(Default)]
pub(crate) struct Room {
    pieces: Vec<Piece>,
    begin: usize,
    lines: usize,
}

impl Room {
    /// Zeros, untouched; `None` where the system has no room for so many lines.
    pub(crate) fn new(lines: usize) -> Option<Self> {
        let count = lines.checked_mul(PIECES)?.checked_add(PIECES - 1)?;
        let pieces: Vec<Piece> = bytemuck::allocation::try_zeroed_vec(count).ok()?;
        let begin = pieces.as_ptr().align_offset(LINE);
        Some(Self { pieces, begin, lines })
    }

    pub(crate) fn lines(&self) -> usize {
        self.lines
    }

    fn range(&self) -> Range<usize> {
        self.begin..self.begin + self.lines * PIECES
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        bytemuck::cast_slice(&self.pieces[self.range()])
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        let range = self.range();
        bytemuck::cast_slice_mut(&mut self.pieces[range])
    }
}

thread_local! {
    /// What no kernel of this thread uses at the moment.
    static FREE: RefCell<Vec<Room>> = const { RefCell::new(Vec::new()) };
}

/// Calls `f` with a thread's own memory for `length` elements, of any content, 64-byte aligned. May be nested.
pub(crate) fn scratch<T: Pod, R>(length: usize, f: impl FnOnce(&mut [T]) -> R) -> R {
    /// More than this is not kept.
    const KEPT: usize = (16 << 20) / LINE;

    let bytes = length * size_of::<T>();
    let lines = bytes.div_ceil(LINE);
    let mut room = FREE.with_borrow_mut(|free| take(free, lines));
    if room.lines() < lines {
        room = Room::new(lines).expect("a kernel's scratch is small beside what it computes");
    }
    let result = f(&mut bytemuck::cast_slice_mut(&mut room.bytes_mut()[..lines * LINE])[..length]);
    if room.lines() <= KEPT {
        FREE.with_borrow_mut(|free| free.push(room));
    }
    result
}

/// The smallest that is large enough; where none is, the largest, whose place a larger one will take.
fn take(free: &mut Vec<Room>, lines: usize) -> Room {
    let sizes = || free.iter().map(Room::lines).enumerate();
    let best = sizes().filter(|(_, size)| *size >= lines).min_by_key(|(_, size)| *size);
    let at = best.or(sizes().max_by_key(|(_, size)| *size)).map(|(at, _)| at);
    at.map(|at| free.swap_remove(at)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scratch_is_aligned_nests_and_is_found_again() {
        let address = |memory: &mut [f32]| memory.as_ptr().addr();
        let (outer, inner) = scratch(5000, |outer: &mut [f32]| (address(outer), scratch(10, address)));
        assert!(outer % LINE == 0 && inner % LINE == 0 && outer != inner);
        assert_eq!(scratch(7, address), inner, "the smallest that fits");
        assert_eq!(scratch(4000, address), outer);
        // In the other order they are found too.
        assert_eq!(scratch(10, |small: &mut [f32]| (address(small), scratch(5000, address))), (inner, outer));
        assert_eq!(scratch(0, |none: &mut [u8]| none.len()), 0);
    }

    #[test]
    fn what_the_system_has_no_room_for_is_none() {
        assert!(Room::new(usize::MAX / LINE).is_none() && Room::new(usize::MAX).is_none());
        let room = Room::new(3).unwrap();
        assert!(room.bytes().len() == 3 * LINE && room.bytes().iter().all(|byte| *byte == 0));
    }
}
