//! Products of block weights with 8-bit activations: `y[m, n] = sum_k x[m, k] w[n, k]`.
//!
//! `x` comes in blocks of 32 along K as [`puna_quant::quantize_activations`] makes them: integers `q`, a scale `d_x`, the sums `s0`,
//! `s1` of both halves. `w` has any block format; its fields are named as in [`puna_quant::Fields`].
//!
//! # The arithmetic
//!
//! It is the same to the bit on every vector unit, for any number of rows and columns, however they are split, packed or not. Each
//! output is one chain in f32 over the runs of 32 values in the order of K, from `acc = 0`; `fma` rounds once, each other operation
//! too, and what is in i32 is exact:
//!
//! | format | isum (i32) | first step | second step |
//! | --- | --- | --- | --- |
//! | Q8_0 Q4_0 Q5_0 | `sum (w - offset) q` | `acc = fma(isum, d * d_x, acc)` | |
//! | Q4_1 Q5_1 | `sum w q` | the same | `acc = fma(m, d_x * (s0 + s1), acc)` |
//! | Q4_K Q5_K | `sum w q` | `acc = fma(isum, (d * scale) * d_x, acc)` | `acc = fma(-(m * min), d_x * (s0 + s1), acc)` |
//! | Q3_K Q6_K | `scale_0 sum_0 (w - offset) q + scale_1 sum_1 (w - offset) q` | `acc = fma(isum, d * d_x, acc)` | |
//! | Q2_K | `scale_0 sum_0 w q + scale_1 sum_1 w q` | `acc = fma(isum, d * d_x, acc)` | `acc = fma(min_0 s0 + min_1 s1, -m * d_x, acc)` |
//!
//! Offsets: none for Q8_0 (signed bytes), 8 for Q4_0, 16 for Q5_0, 4 for Q3_K, 32 for Q6_K; Q3_K's scales are `scales - 32`, Q6_K's are
//! signed. `sum_0` and `sum_1` run over both halves of a run. Every isum is below 2^24 in magnitude (Q6_K: 2 * 128 * 16 * 32 * 127 = 16,646,144),
//! so its conversion to f32 is exact; so are `d * scale` and `m * min`, of 11 and 6 bits. Against exact arithmetic on the same
//! integers, a chain of `n` steps is off by at most `(n + 2) 2^-24` of the sum of its terms' magnitudes.
//!
//! # Packing
//!
//! [`layout`] says where the bits go. Packed weights are as long as the blocks, plus 2.8% (Q4_K), 2.3% (Q5_K), 3.6% (Q3_K), nothing (the
//! others), plus the rows that fill up the last group.

mod activation;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod columns;
mod kernel;
mod lanes;
mod layout;
#[cfg(target_arch = "aarch64")]
mod neon;
#[cfg(test)]
mod tests;

use std::sync::OnceLock;

use puna_quant::{BlockType, Fields, decode_fields};

pub(crate) use activation::{ActivationBlock, quantize};
pub(crate) use columns::Columns;
use kernel::{Job, with_format};
use layout::{Form, pack_simple_block, pack_super_block, unpack_super_block};

/// Which kernels a process uses. They differ in speed and in the packed order, never in results.
///
/// A value says that the processor has the unit: it comes from [`Kernels::available`] alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Kernels(Unit);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unit {
    /// Plain Rust.
    Portable,
    /// AVX2, FMA, F16C.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// AVX-512 F, BW and VNNI, beside AVX2.
    #[cfg(target_arch = "x86_64")]
    Avx512Vnni,
    /// NEON.
    #[cfg(target_arch = "aarch64")]
    Neon,
}

impl Kernels {
    /// Those that run everywhere: the slowest by far.
    #[cfg(test)]
    pub(crate) const PORTABLE: Self = Self(Unit::Portable);

    /// All that this processor can run, the fastest last.
    pub(crate) fn available() -> Vec<Self> {
        #[allow(unused_mut)]
        let mut units = vec![Unit::Portable];
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c") {
            units.push(Unit::Avx2);
            if is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512vnni")
            {
                units.push(Unit::Avx512Vnni);
            }
        }
        #[cfg(target_arch = "aarch64")]
        if std::arch::is_aarch64_feature_detected!("neon") {
            units.push(Unit::Neon);
        }
        units.into_iter().map(Self).collect()
    }

    /// The fastest, found once per process.
    pub(crate) fn best() -> Self {
        static BEST: OnceLock<Kernels> = OnceLock::new();
        *BEST.get_or_init(|| *Self::available().last().expect("the portable kernels run everywhere"))
    }

    /// How many rows of a weight are interleaved.
    pub(crate) fn rows(self) -> usize {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Unit::Avx512Vnni => 16,
            _ => 8,
        }
    }

    /// How many bytes a packed group of rows of `k` values takes.
    pub(crate) fn group_bytes(self, block: BlockType, k: usize) -> usize {
        assert_eq!(k % block.values(), 0, "whole {block} blocks");
        self.rows() * Form::of(block).row(k)
    }

    /// How many bytes `n` packed rows of `k` values take.
    pub(crate) fn packed_len(self, block: BlockType, n: usize, k: usize) -> usize {
        n.div_ceil(self.rows()) * self.group_bytes(block, k)
    }
}

/// Packs rows of `k` values. Groups are independent: parts that begin at a multiple of [`Kernels::rows`] can be packed by themselves.
///
/// Panics unless `bytes` is a whole number of rows and `out` as long as [`Kernels::packed_len`] says.
pub(crate) fn pack(kernels: Kernels, block: BlockType, bytes: &[u8], k: usize, out: &mut [u8]) {
    let form = Form::of(block);
    let (rows, row_bytes) = (kernels.rows(), row_bytes(block, k));
    if row_bytes == 0 {
        return;
    }
    assert_eq!(bytes.len() % row_bytes, 0, "whole rows");
    assert_eq!(out.len(), kernels.packed_len(block, bytes.len() / row_bytes, k), "packed length");
    let mut fields = [Fields::ZERO; 16];
    let groups = bytes.chunks(rows * row_bytes).zip(out.chunks_exact_mut(kernels.group_bytes(block, k)));
    for (group, out) in groups {
        let present = group.len() / row_bytes;
        if block.values() == 32 {
            if present < rows {
                out.fill(0);
            }
            for (b, out) in out.chunks_exact_mut(rows * form.super_block()).enumerate() {
                for (r, row) in group.chunks_exact(row_bytes).enumerate() {
                    pack_simple_block(&form, rows, r, &row[b * block.bytes()..][..block.bytes()], out);
                }
            }
            continue;
        }
        for (b, out) in out.chunks_exact_mut(rows * form.super_block()).enumerate() {
            for (fields, row) in fields.iter_mut().zip(group.chunks_exact(row_bytes)) {
                *fields = Fields::read(block, &row[b * block.bytes()..][..block.bytes()]);
            }
            pack_super_block(&form, rows, &fields[..present], out);
        }
    }
}

/// Gives back the rows that [`pack`] took, byte for byte.
///
/// Panics unless `bytes` is a whole number of rows and `packed` as long as [`Kernels::packed_len`] says.
pub(crate) fn unpack(kernels: Kernels, block: BlockType, packed: &[u8], k: usize, bytes: &mut [u8]) {
    let row_bytes = row_bytes(block, k);
    if row_bytes == 0 {
        return;
    }
    assert_eq!(bytes.len() % row_bytes, 0, "whole rows");
    assert_eq!(packed.len(), kernels.packed_len(block, bytes.len() / row_bytes, k), "packed length");
    for (row, bytes) in bytes.chunks_exact_mut(row_bytes).enumerate() {
        for (fields, bytes) in packed_row(kernels, block, packed, k, row).zip(bytes.chunks_exact_mut(block.bytes())) {
            fields.write(block, bytes);
        }
    }
}

/// The values of one row, as [`puna_quant::decode`] has them.
///
/// Panics if `out` is no whole number of blocks or the row lies beyond `packed`.
pub(crate) fn decode_packed_row(kernels: Kernels, block: BlockType, packed: &[u8], row: usize, out: &mut [f32]) {
    let k = out.len();
    for (fields, out) in packed_row(kernels, block, packed, k, row).zip(out.chunks_exact_mut(block.values())) {
        decode_fields(block, &fields, out);
    }
}

/// `out[m, n] = sum_k x[m, k] w[n, k]`, `packed` being the groups of the rows that `out` has columns for: to split a product by
/// rows of the weight, cut `packed` at multiples of [`Kernels::group_bytes`] and `out` at multiples of [`Kernels::rows`].
///
/// `x: [m, k / 32]`. Panics if lengths disagree.
pub(crate) fn matmul(kernels: Kernels, block: BlockType, packed: &[u8], k: usize, x: &[ActivationBlock], out: &mut Columns<'_>) {
    let (m, n) = (out.rows(), out.columns());
    assert_eq!(packed.len(), kernels.packed_len(block, n, k), "packed {block} rows of k {k} for n {n}");
    assert_eq!(x.len(), m * (k / 32), "activations [m {m}, k {k} / 32]");
    if k == 0 {
        (0..m).for_each(|i| out.row(i).fill(0.0));
        return;
    }
    let job = Job { packed, blocks: k / 32, x };
    match kernels.0 {
        Unit::Portable => portable(block, &job, out),
        // SAFETY: a `Kernels` says that the processor has the unit; the lengths were checked above.
        #[cfg(target_arch = "x86_64")]
        Unit::Avx2 => unsafe { avx2::matmul(block, &job, out) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Unit::Avx512Vnni => unsafe { avx512::matmul(block, &job, out) },
        // SAFETY: as above.
        #[cfg(target_arch = "aarch64")]
        Unit::Neon => unsafe { neon::matmul(block, &job, out) },
    }
}

/// As [`matmul`] on rows that are not packed: packs one group after the other into `scratch`.
///
/// Panics if lengths disagree.
pub(crate) fn matmul_unpacked(
    kernels: Kernels,
    block: BlockType,
    bytes: &[u8],
    k: usize,
    x: &[ActivationBlock],
    out: Columns<'_>,
    scratch: &mut Vec<u8>,
) {
    let row_bytes = row_bytes(block, k);
    assert_eq!(bytes.len(), out.columns() * row_bytes, "{block} rows of k {k} for n {}", out.columns());
    scratch.clear();
    scratch.resize(kernels.group_bytes(block, k), 0);
    let rows = kernels.rows();
    let mut rest = out;
    let mut bytes = bytes;
    while rest.columns() > 0 {
        let width = rows.min(rest.columns());
        let (mut part, more) = rest.split_at(width);
        let (group, more_bytes) = bytes.split_at(width * row_bytes);
        pack(kernels, block, group, k, scratch);
        matmul(kernels, block, scratch, k, x, &mut part);
        (rest, bytes) = (more, more_bytes);
    }
}

fn portable(block: BlockType, job: &Job<'_>, out: &mut Columns<'_>) {
    fn run<B: kernel::Format>(job: &Job<'_>, out: &mut Columns<'_>) {
        // SAFETY: plain Rust runs everywhere; `matmul` checked the lengths.
        unsafe { kernel::drive::<lanes::Portable, B>(job, out) }
    }
    with_format!(block, run(job, out))
}

fn row_bytes(block: BlockType, k: usize) -> usize {
    assert_eq!(k % block.values(), 0, "whole {block} blocks");
    k / block.values() * block.bytes()
}

/// The fields of a row's blocks.
fn packed_row(kernels: Kernels, block: BlockType, packed: &[u8], k: usize, row: usize) -> impl Iterator<Item = Fields> {
    let (form, rows) = (Form::of(block), kernels.rows());
    let group_bytes = kernels.group_bytes(block, k);
    let group = &packed[row / rows * group_bytes..][..group_bytes];
    group.chunks_exact(rows * form.super_block()).map(move |packed| unpack_super_block(&form, rows, row % rows, packed))
}
