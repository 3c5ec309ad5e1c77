//! The float types, widened exactly to the type that sums are formed in, and rounded from it to nearest, ties to even.
//!
//! NaNs stay NaNs, made quiet, with the upper bits of their payload: all as the crate `half` does it, bit for bit.

use bytemuck::Pod;
use half::{bf16, f16};

use super::{Isa, dispatch};

/// A float as it lies in memory.
pub(crate) trait Float: Pod + Send + Sync + 'static {
    /// What sums over these are formed in: f32, and f64 for f64.
    type Wide: Accumulator;

    /// Exact.
    fn widen(self) -> Self::Wide;

    /// The nearest, ties to even.
    fn round(wide: Self::Wide) -> Self;

    /// [`widen`](Self::widen) for as many as both slices have.
    fn widen_all(isa: Isa, from: &[Self], into: &mut [Self::Wide]);

    /// [`round`](Self::round) for as many as both slices have.
    fn round_all(isa: Isa, from: &[Self::Wide], into: &mut [Self]);
}

/// What sums are formed in.
pub(crate) trait Accumulator: Float<Wide = Self> + std::ops::Add<Output = Self> + PartialEq + std::fmt::Debug {
    /// How many rows of a weight are interleaved in a panel: 128 bytes.
    const PANEL: usize = 128 / size_of::<Self>();
    const ZERO: Self;

    /// `self * b + c`, rounded once.
    fn fma(self, b: Self, c: Self) -> Self;
}

macro_rules! accumulator {
    ($($type:ident),*) => {$(
        impl Float for $type {
            type Wide = Self;

            #[inline(always)]
            fn widen(self) -> Self {
                self
            }

            #[inline(always)]
            fn round(wide: Self) -> Self {
                wide
            }

            fn widen_all(_: Isa, from: &[Self], into: &mut [Self]) {
                let n = from.len().min(into.len());
                into[..n].copy_from_slice(&from[..n]);
            }

            fn round_all(isa: Isa, from: &[Self], into: &mut [Self]) {
                Self::widen_all(isa, from, into);
            }
        }

        impl Accumulator for $type {
            const ZERO: Self = 0.0;

            #[inline(always)]
            fn fma(self, b: Self, c: Self) -> Self {
                self.mul_add(b, c)
            }
        }
    )*};
}
accumulator!(f32, f64);

impl Float for bf16 {
    type Wide = f32;

    #[inline(always)]
    fn widen(self) -> f32 {
        let bits = u32::from(self.to_bits());
        let quiet = u32::from(bits & 0x7fff > 0x7f80) << 6;
        f32::from_bits((bits | quiet) << 16)
    }

    #[inline(always)]
    fn round(wide: f32) -> Self {
        let bits = wide.to_bits();
        let rounded = (bits.wrapping_add(0x7fff + (bits >> 16 & 1))) >> 16;
        let nan = bits >> 16 | 0x40;
        Self::from_bits(if bits & 0x7fff_ffff > 0x7f80_0000 { nan } else { rounded } as u16)
    }

    fn widen_all(isa: Isa, from: &[Self], into: &mut [f32]) {
        dispatch!(isa, widen_each(from: &[bf16], into: &mut [f32]));
    }

    fn round_all(isa: Isa, from: &[f32], into: &mut [Self]) {
        dispatch!(isa, round_each(from: &[f32], into: &mut [bf16]));
    }
}

#[inline(always)]
fn widen_each<T: Float>(from: &[T], into: &mut [T::Wide]) {
    from.iter().zip(into).for_each(|(x, y)| *y = x.widen());
}

#[inline(always)]
fn round_each<T: Float>(from: &[T::Wide], into: &mut [T]) {
    from.iter().zip(into).for_each(|(x, y)| *y = T::round(*x));
}

impl Float for f16 {
    type Wide = f32;

    #[inline(always)]
    fn widen(self) -> f32 {
        let bits = u32::from(self.to_bits());
        let (sign, magnitude) = ((bits & 0x8000) << 16, bits & 0x7fff);
        // The exponent's bias is off by 112; the product sets it right, subnormal numbers too, and is exact.
        let finite = (f32::from_bits(magnitude << 13) * f32::from_bits((127 + 112) << 23)).to_bits();
        let quiet = u32::from(magnitude > 0x7c00) << 22;
        let special = magnitude << 13 | 0x7f80_0000 | quiet;
        f32::from_bits(sign | if magnitude < 0x7c00 { finite } else { special })
    }

    #[inline(always)]
    fn round(wide: f32) -> Self {
        let bits = wide.to_bits();
        let (sign, magnitude) = (bits >> 16 & 0x8000, bits & 0x7fff_ffff);
        // The bias is set right, and what overflows in the mantissa raises the exponent, up to infinity.
        let normal = magnitude.wrapping_sub(112 << 23).wrapping_add(0xfff + (magnitude >> 13 & 1)) >> 13;
        // Adding a half puts the last place of a subnormal result at the end of the mantissa: the addition rounds.
        let subnormal = (f32::from_bits(magnitude) + 0.5).to_bits().wrapping_sub(0.5f32.to_bits());
        let nan = 0x7e00 | magnitude >> 13 & 0x3ff;
        let rounded = if magnitude < 113 << 23 {
            subnormal
        } else if magnitude < 143 << 23 {
            normal
        } else if magnitude > 0x7f80_0000 {
            nan
        } else {
            0x7c00
        };
        Self::from_bits((sign | rounded) as u16)
    }

    fn widen_all(isa: Isa, from: &[Self], into: &mut [f32]) {
        match isa {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: both say that the processor has AVX and F16C.
            Isa::Avx2 | Isa::Avx512 => unsafe { f16c::widen(from, into) },
            _ => widen_each(from, into),
        }
    }

    fn round_all(isa: Isa, from: &[f32], into: &mut [Self]) {
        match isa {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: both say that the processor has AVX and F16C.
            Isa::Avx2 | Isa::Avx512 => unsafe { f16c::round(from, into) },
            _ => round_each(from, into),
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod f16c {
    use std::arch::x86_64::*;

    use half::f16;

    use super::{round_each, widen_each};

    #[target_feature(enable = "avx2,fma,f16c")]
    pub(super) fn widen(from: &[f16], into: &mut [f32]) {
        let n = from.len().min(into.len());
        let (from, from_tail) = from[..n].as_chunks::<8>();
        let (into, into_tail) = into[..n].as_chunks_mut::<8>();
        for (x, y) in from.iter().zip(into) {
            // SAFETY: 16 bytes are read from an array of 16, 32 written to one of 32; neither asks for alignment.
            unsafe { _mm256_storeu_ps(y.as_mut_ptr(), _mm256_cvtph_ps(_mm_loadu_si128(x.as_ptr().cast()))) };
        }
        widen_each(from_tail, into_tail);
    }

    #[target_feature(enable = "avx2,fma,f16c")]
    pub(super) fn round(from: &[f32], into: &mut [f16]) {
        let n = from.len().min(into.len());
        let (from, from_tail) = from[..n].as_chunks::<8>();
        let (into, into_tail) = into[..n].as_chunks_mut::<8>();
        for (x, y) in from.iter().zip(into) {
            // SAFETY: 32 bytes are read from an array of 32, 16 written to one of 16; neither asks for alignment.
            unsafe {
                _mm_storeu_si128(y.as_mut_ptr().cast(), _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(_mm256_loadu_ps(x.as_ptr())))
            };
        }
        round_each(from_tail, into_tail);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Floats with every pattern of sign, exponent and upper mantissa, and lower bits on, beside and between the ties.
    fn patterns() -> impl Iterator<Item = f32> {
        let lower = [0, 1, 0xfff, 0x1000, 0x1001, 0x1fff, 0x7fff, 0x8000, 0x8001, 0xffff];
        (0..=u32::from(u16::MAX)).flat_map(move |upper| lower.map(|lower| f32::from_bits(upper << 16 | lower)))
    }

    #[test]
    fn halves_are_widened_as_by_the_crate_half() {
        let bits: Vec<u16> = (0..=u16::MAX).collect();
        for isa in Isa::available() {
            let mut wide = vec![0.0; bits.len()];
            let from: &[f16] = bytemuck::cast_slice(&bits);
            f16::widen_all(isa, from, &mut wide);
            from.iter().zip(&wide).for_each(|(x, y)| assert_eq!(f16::to_f32(*x).to_bits(), y.to_bits(), "{x:?} {isa:?}"));
            let from: &[bf16] = bytemuck::cast_slice(&bits);
            bf16::widen_all(isa, from, &mut wide);
            from.iter().zip(&wide).for_each(|(x, y)| assert_eq!(bf16::to_f32(*x).to_bits(), y.to_bits(), "{x:?} {isa:?}"));
        }
    }

    #[test]
    fn halves_are_rounded_as_by_the_crate_half() {
        let wide: Vec<f32> = patterns().collect();
        for isa in Isa::available() {
            let mut narrow = vec![f16::ZERO; wide.len()];
            f16::round_all(isa, &wide, &mut narrow);
            wide.iter().zip(&narrow).for_each(|(x, y)| assert_eq!(f16::from_f32(*x).to_bits(), y.to_bits(), "{x:?} {isa:?}"));
            let mut narrow = vec![bf16::ZERO; wide.len()];
            bf16::round_all(isa, &wide, &mut narrow);
            wide.iter().zip(&narrow).for_each(|(x, y)| assert_eq!(bf16::from_f32(*x).to_bits(), y.to_bits(), "{x:?} {isa:?}"));
        }
    }

    #[test]
    fn one_by_one_is_as_all_at_once() {
        for x in patterns().step_by(7) {
            assert_eq!(<f16 as Float>::round(x).to_bits(), f16::from_f32(x).to_bits(), "{x:?}");
            assert_eq!(<bf16 as Float>::round(x).to_bits(), bf16::from_f32(x).to_bits(), "{x:?}");
        }
    }
}
