//! Memory that a thread keeps for the next kernel.

use std::cell::RefCell;

use bytemuck::{Pod, Zeroable};

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
struct Line([u8; 64]);

/// Calls `f` with `length` elements of any content, aligned to 64 bytes. May be nested.
pub(super) fn scratch<T: Pod, R>(length: usize, f: impl FnOnce(&mut [T]) -> R) -> R {
    thread_local! {
        static FREE: RefCell<Vec<Vec<Line>>> = const { RefCell::new(Vec::new()) };
    }
    /// More than this is not kept.
    const KEPT: usize = (16 << 20) / size_of::<Line>();

    let mut memory = FREE.with_borrow_mut(Vec::pop).unwrap_or_default();
    let lines = (length * size_of::<T>()).div_ceil(size_of::<Line>());
    if memory.len() < lines {
        // Zeroed pages come from the system without being touched.
        memory = bytemuck::zeroed_vec(lines);
    }
    let result = f(&mut bytemuck::cast_slice_mut(&mut memory[..lines])[..length]);
    if memory.len() <= KEPT {
        FREE.with_borrow_mut(|free| free.push(memory));
    }
    result
}
