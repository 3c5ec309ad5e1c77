//! Activations as the kernels read them: one cache line for 32 values.

use puna_quant::quantize_activations;

use super::Kernels;

/// 32 activations as [`puna_quant::quantize_activations`] makes them, with the products of their sums that kernels start from.
#[derive(Debug, Clone, Copy, PartialEq)]
#[repr(C, align(64))]
pub(crate) struct ActivationBlock {
    /// The integers.
    pub(super) q: [i8; 32],
    /// The scale.
    pub(super) d: f32,
    /// `d * (sums[0] + sums[1])`, rounded once: what a minimum of 32 values is multiplied by.
    pub(super) ds: f32,
    /// The sums of both halves.
    pub(super) sums: [i16; 2],
    /// `-8`, `-16`, `-128` times the sum: undoes the offset of unsigned quants.
    pub(super) minus_8: i32,
    pub(super) minus_16: i32,
    pub(super) minus_128: i32,
    /// `-32` times the sum of each half.
    pub(super) minus_32: [i32; 2],
}

impl ActivationBlock {
    /// 32 zeros.
    pub(crate) const ZERO: Self =
        Self { q: [0; 32], d: 0.0, ds: 0.0, sums: [0; 2], minus_8: 0, minus_16: 0, minus_128: 0, minus_32: [0; 2] };

    #[inline(always)]
    pub(super) fn finish(&mut self, d: f32, halves: [i32; 2]) {
        let sum = halves[0] + halves[1];
        self.d = d;
        self.ds = d * sum as f32;
        self.sums = [halves[0] as i16, halves[1] as i16];
        (self.minus_8, self.minus_16, self.minus_128) = (-8 * sum, -16 * sum, -128 * sum);
        self.minus_32 = [-32 * halves[0], -32 * halves[1]];
    }
}

/// Quantises values, a multiple of 32 of them: rows that lie one after the other, each a multiple of 32 long, give one block after the other.
pub(crate) fn quantize(kernels: Kernels, x: &[f32], out: &mut [ActivationBlock]) {
    assert_eq!(x.len(), 32 * out.len(), "32 values a block");
    match kernels.0 {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a `Kernels` says that the processor has the unit; the lengths were compared above.
        super::Unit::Avx2 | super::Unit::Avx512Vnni => unsafe { super::avx2::quantize(x, out) },
        _ => {
            for (x, out) in x.chunks_exact(32).zip(out) {
                let (mut d, mut sums) = ([0.0], [[0; 2]]);
                quantize_activations(x, &mut out.q, &mut d, &mut sums).expect("one block");
                out.finish(d[0], sums[0].map(i32::from));
            }
        }
    }
}
