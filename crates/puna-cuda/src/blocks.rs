//! Where quantised blocks lie: as files have them, or in planes.

use bytemuck::{Pod, Zeroable};
use puna_tensor::BlockType;

use crate::launch::Pointer;

/// The parts of a block: quants, their upper bits, the scales of sub-blocks, what is of the whole block.
const PARTS: usize = 4;

/// Where each part begins in a block, and how many bytes it has.
const fn parts(block: BlockType) -> [(usize, usize); PARTS] {
    const NO: (usize, usize) = (0, 0);
    match block {
        BlockType::Q8_0 => [(2, 32), NO, NO, (0, 2)],
        BlockType::Q4_0 => [(2, 16), NO, NO, (0, 2)],
        BlockType::Q4_1 => [(4, 16), NO, NO, (0, 4)],
        BlockType::Q5_0 => [(6, 16), (2, 4), NO, (0, 2)],
        BlockType::Q5_1 => [(8, 16), (4, 4), NO, (0, 4)],
        BlockType::Q2K => [(16, 64), NO, (0, 16), (80, 4)],
        BlockType::Q3K => [(32, 64), (0, 32), (96, 12), (108, 2)],
        BlockType::Q4K => [(16, 128), NO, (4, 12), (0, 4)],
        BlockType::Q5K => [(48, 128), (16, 32), (4, 12), (0, 4)],
        BlockType::Q6K => [(0, 128), (128, 64), (192, 16), (208, 2)],
        BlockType::Nf4 => [(4, 32), NO, NO, (0, 4)],
        // `BlockType` may grow; a new format is taken up here.
        _ => panic!("a format whose parts are not known"),
    }
}

/// A plane of a packed matrix: where its part stands in a block of a file, how many bytes that has, where the plane begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Plane {
    pub(crate) at: usize,
    pub(crate) length: usize,
    pub(crate) begin: usize,
}

/// The planes of `count` blocks, one behind the other, each aligned to 256 bytes; and how many bytes they take.
pub(crate) fn planes(block: BlockType, count: usize) -> ([Plane; PARTS], usize) {
    let mut end = 0;
    let planes = parts(block).map(|(at, length)| {
        let begin = end;
        end += (length * count).next_multiple_of(256);
        Plane { at, length, begin }
    });
    (planes, end)
}

/// `Blocks` of `blocks.cuh`.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct Blocks {
    parts: [Pointer; PARTS],
    steps: [i64; PARTS],
    row: i64,
}

impl Blocks {
    /// Blocks as files have them, from `first` on; `row`: from a row to the next, in blocks.
    pub(crate) fn plain(block: BlockType, first: Pointer, row: usize) -> Self {
        let parts = parts(block).map(|(at, _)| Pointer(first.0 + at as u64));
        Self { parts, steps: [block.bytes() as i64; PARTS], row: row as i64 }
    }

    /// Blocks in planes.
    pub(crate) fn packed(block: BlockType, first: Pointer, count: usize, row: usize) -> Self {
        let (planes, _) = planes(block, count);
        Self {
            parts: planes.map(|plane| Pointer(first.0 + plane.begin as u64)),
            steps: planes.map(|plane| plane.length as i64),
            row: row as i64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_cover_a_block_once() {
        for block in BlockType::ALL {
            let mut covered = vec![0; block.bytes()];
            parts(block).iter().for_each(|&(at, length)| covered[at..at + length].iter_mut().for_each(|n| *n += 1));
            assert!(covered.iter().all(|&n| n == 1), "{block}");
            let (planes, bytes) = planes(block, 1000);
            assert!(bytes < block.bytes() * 1000 + 4 * 256 && planes.iter().all(|plane| plane.begin % 256 == 0), "{block}");
        }
    }
}
