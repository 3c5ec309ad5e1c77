//! The packed order of block weights: a group of rows interleaved, so that one vector lane is one row.
//!
//! `R` rows make a group ([`Kernels::rows`](super::Kernels::rows)); the last is filled up with rows of zeros. A group is a sequence of
//! super-blocks, of 256 values for the K formats and of 32 for the others:
//!
//! ```text
//! head        d [R] f16, then m [R] f16 where the format has it
//! per 32 values, once or eight times:
//!   scales    Q4_K Q5_K: scales [R] u8, mins [R] u8.   Q3_K Q6_K: [R][2] u8, one for each 16 values.   Q2_K: the same, min << 4 | scale
//!   planes    the quants' bits, as below
//! ```
//!
//! A plane holds `bits` bits of each of 32 quants, in `bits` vectors of `4 R` bytes, `[R][4]`. Values `4j .. 4j + 4` lie in vector
//! `j % bits`, from bit `j / bits * bits` of each byte on: so 4-bit blocks of 32 keep their bytes. Quants of 5, 3 and 6 bits have two
//! planes: 4 + 1, 2 + 1, 4 + 2.

use half::f16;
use puna_quant::{BlockType, Fields};

/// Where the parts of a format lie.
#[derive(Clone, Copy)]
pub(super) struct Form {
    pub(super) block: BlockType,
    /// Runs of 32 values in a super-block.
    pub(super) runs: usize,
    /// Bytes of the head, a row.
    pub(super) head: usize,
    /// Bytes of scales, a row and run.
    pub(super) scales: usize,
    /// Bits of the two planes; 0 where there is none.
    pub(super) planes: [usize; 2],
}

impl Form {
    pub(super) const fn of(block: BlockType) -> Self {
        let (head, scales, planes) = match block {
            BlockType::Q8_0 => (2, 0, [8, 0]),
            BlockType::Q4_0 => (2, 0, [4, 0]),
            BlockType::Q4_1 => (4, 0, [4, 0]),
            BlockType::Q5_0 => (2, 0, [4, 1]),
            BlockType::Q5_1 => (4, 0, [4, 1]),
            BlockType::Q2K => (4, 2, [2, 0]),
            BlockType::Q3K => (2, 2, [2, 1]),
            BlockType::Q4K => (4, 2, [4, 0]),
            BlockType::Q5K => (4, 2, [4, 1]),
            BlockType::Q6K => (2, 2, [4, 2]),
            _ => panic!("every format has its packed order"),
        };
        Self { block, runs: block.values() / 32, head, scales, planes }
    }

    /// Bytes of one run of 32 values, a row.
    pub(super) const fn run(&self) -> usize {
        self.scales + 4 * (self.planes[0] + self.planes[1])
    }

    /// Bytes of a super-block, a row.
    pub(super) const fn super_block(&self) -> usize {
        self.head + self.runs * self.run()
    }

    /// Bytes of one row of `k` values.
    pub(super) const fn row(&self, k: usize) -> usize {
        k / self.block.values() * self.super_block()
    }
}

/// Packs one super-block of up to `rows` rows; rows that are missing count as zeros.
pub(super) fn pack_super_block(form: &Form, rows: usize, fields: &[Fields], out: &mut [u8]) {
    debug_assert_eq!(out.len(), rows * form.super_block());
    let (head, body) = out.split_at_mut(rows * form.head);
    head.fill(0);
    for (r, f) in fields.iter().enumerate() {
        head[2 * r..][..2].copy_from_slice(&f.d.to_le_bytes());
        if form.head == 4 {
            head[2 * (rows + r)..][..2].copy_from_slice(&f.m.to_le_bytes());
        }
    }
    for (run, out) in body.chunks_exact_mut(rows * form.run()).enumerate() {
        let (scales, mut planes) = out.split_at_mut(rows * form.scales);
        if form.scales > 0 {
            scales.fill(0);
            for (r, f) in fields.iter().enumerate() {
                pack_scales(form.block, rows, r, run, f, scales);
            }
        }
        let mut from = 0;
        for bits in form.planes.into_iter().filter(|&bits| bits > 0) {
            let (plane, rest) = planes.split_at_mut(rows * 4 * bits);
            plane.fill(0);
            for (r, f) in fields.iter().enumerate() {
                let quants = &f.quants[32 * run..][..32];
                match bits {
                    8 => pack_plane::<8>(rows, r, from, quants, plane),
                    4 => pack_plane::<4>(rows, r, from, quants, plane),
                    2 => pack_plane::<2>(rows, r, from, quants, plane),
                    _ => pack_plane::<1>(rows, r, from, quants, plane),
                }
            }
            from += bits;
            planes = rest;
        }
    }
}

/// Packs one block of 32 values of row `r` straight from its bytes: what [`pack_super_block`] does by way of the fields.
pub(super) fn pack_simple_block(form: &Form, rows: usize, r: usize, bytes: &[u8], out: &mut [u8]) {
    let (head, body) = out.split_at_mut(rows * form.head);
    for (half, head) in bytes[..form.head].chunks_exact(2).zip(head.chunks_exact_mut(2 * rows)) {
        head[2 * r..][..2].copy_from_slice(half);
    }
    let (mut quants, planes) = (&bytes[form.head..], body);
    let (low, high) = planes.split_at_mut(rows * 4 * form.planes[0]);
    if form.planes[1] == 1 {
        // GGUF has the fifth bit of value `4j + i` as bit `4j + i` of a word, we as bit `8i + j`.
        let word = u32::from_le_bytes([quants[0], quants[1], quants[2], quants[3]]);
        let ours = (0..32).fold(0, |ours: u32, at| ours | (word >> at & 1) << (at % 4 * 8 + at / 4));
        high[4 * r..][..4].copy_from_slice(&ours.to_le_bytes());
        quants = &quants[4..];
    }
    for (quants, vector) in quants.chunks_exact(4).zip(low.chunks_exact_mut(4 * rows)) {
        vector[4 * r..][..4].copy_from_slice(quants);
    }
}

/// The fields of row `r` of one super-block.
pub(super) fn unpack_super_block(form: &Form, rows: usize, r: usize, packed: &[u8]) -> Fields {
    debug_assert_eq!(packed.len(), rows * form.super_block());
    let (head, body) = packed.split_at(rows * form.head);
    let half = |at: usize| f16::from_le_bytes([head[at], head[at + 1]]);
    let mut f = Fields { d: half(2 * r), ..Fields::ZERO };
    if form.head == 4 {
        f.m = half(2 * (rows + r));
    }
    for (run, packed) in body.chunks_exact(rows * form.run()).enumerate() {
        let (scales, mut planes) = packed.split_at(rows * form.scales);
        unpack_scales(form.block, rows, r, run, scales, &mut f);
        let mut to = 0;
        for bits in form.planes.into_iter().filter(|&bits| bits > 0) {
            let (plane, rest) = planes.split_at(rows * 4 * bits);
            let quants = &mut f.quants[32 * run..][..32];
            match bits {
                8 => unpack_plane::<8>(rows, r, to, plane, quants),
                4 => unpack_plane::<4>(rows, r, to, plane, quants),
                2 => unpack_plane::<2>(rows, r, to, plane, quants),
                _ => unpack_plane::<1>(rows, r, to, plane, quants),
            }
            to += bits;
            planes = rest;
        }
    }
    f
}

fn pack_scales(block: BlockType, rows: usize, r: usize, run: usize, f: &Fields, out: &mut [u8]) {
    match block {
        BlockType::Q4K | BlockType::Q5K => (out[r], out[rows + r]) = (f.scales[run], f.mins[run]),
        _ => {
            for h in 0..2 {
                out[2 * r + h] = f.scales[2 * run + h] | f.mins[2 * run + h] << 4;
            }
        }
    }
}

fn unpack_scales(block: BlockType, rows: usize, r: usize, run: usize, scales: &[u8], f: &mut Fields) {
    match block {
        BlockType::Q4K | BlockType::Q5K => (f.scales[run], f.mins[run]) = (scales[r], scales[rows + r]),
        BlockType::Q2K => {
            for h in 0..2 {
                let byte = scales[2 * r + h];
                (f.scales[2 * run + h], f.mins[2 * run + h]) = (byte & 15, byte >> 4);
            }
        }
        BlockType::Q3K | BlockType::Q6K => f.scales[2 * run..][..2].copy_from_slice(&scales[2 * r..][..2]),
        _ => {}
    }
}

fn pack_plane<const BITS: usize>(rows: usize, r: usize, from: usize, quants: &[u8], plane: &mut [u8]) {
    let mask = (0xffu16 >> (8 - BITS)) as u8;
    for (level, quants) in quants.chunks_exact(4 * BITS).enumerate() {
        for (quants, vector) in quants.chunks_exact(4).zip(plane.chunks_exact_mut(4 * rows)) {
            for (byte, quant) in vector[4 * r..][..4].iter_mut().zip(quants) {
                *byte |= (quant >> from & mask) << (level * BITS);
            }
        }
    }
}

fn unpack_plane<const BITS: usize>(rows: usize, r: usize, to: usize, plane: &[u8], quants: &mut [u8]) {
    let mask = (0xffu16 >> (8 - BITS)) as u8;
    for (level, quants) in quants.chunks_exact_mut(4 * BITS).enumerate() {
        for (quants, vector) in quants.chunks_exact_mut(4).zip(plane.chunks_exact(4 * rows)) {
            for (byte, quant) in vector[4 * r..][..4].iter().zip(quants) {
                *quant |= (byte >> (level * BITS) & mask) << to;
            }
        }
    }
}
