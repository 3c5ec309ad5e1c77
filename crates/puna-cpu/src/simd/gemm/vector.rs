//! Vectors of the accumulating types, as tiles use them.

use crate::simd::float::{Accumulator, Float};

/// Lanes of an accumulating type.
///
/// # Safety
/// `load` and `store` touch exactly [`LANES`](Self::LANES) elements from the pointer on, at any alignment.
pub(super) unsafe trait Vector: Copy {
    type Lane: Accumulator;
    const LANES: usize;

    /// # Safety
    /// The processor has the instructions that the type stands for; this holds for all functions here.
    unsafe fn splat(x: Self::Lane) -> Self;

    /// # Safety
    /// As for `splat`; `LANES` elements may be read.
    unsafe fn load(from: *const Self::Lane) -> Self;

    /// # Safety
    /// As for `splat`; `LANES` elements may be written.
    unsafe fn store(self, into: *mut Self::Lane);

    /// `self * b + c`, each lane rounded once.
    ///
    /// # Safety
    /// As for `splat`.
    unsafe fn fma(self, b: Self, c: Self) -> Self;
}

/// Elements that are widened as they are loaded.
pub(super) trait Widen<V: Vector>: Float<Wide = V::Lane> {
    /// # Safety
    /// The processor has `V`'s instructions; `V::LANES` elements may be read.
    unsafe fn load(from: *const Self) -> V;
}

/// What every target has: an array.
#[derive(Clone, Copy)]
pub(super) struct Plain<T, const LANES: usize>([T; LANES]);

// SAFETY: an array of `LANES` elements is read and written, unaligned.
unsafe impl<T: Accumulator, const LANES: usize> Vector for Plain<T, LANES> {
    type Lane = T;
    const LANES: usize = LANES;

    #[inline(always)]
    unsafe fn splat(x: T) -> Self {
        Self([x; LANES])
    }

    #[inline(always)]
    unsafe fn load(from: *const T) -> Self {
        // SAFETY: the caller lends this many elements.
        Self(unsafe { from.cast::<[T; LANES]>().read_unaligned() })
    }

    #[inline(always)]
    unsafe fn store(self, into: *mut T) {
        // SAFETY: the caller lends this many elements.
        unsafe { into.cast::<[T; LANES]>().write_unaligned(self.0) }
    }

    #[inline(always)]
    unsafe fn fma(self, b: Self, c: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i].fma(b.0[i], c.0[i])))
    }
}

impl<T: Float, const LANES: usize> Widen<Plain<T::Wide, LANES>> for T {
    #[inline(always)]
    unsafe fn load(from: *const T) -> Plain<T::Wide, LANES> {
        // SAFETY: the caller lends this many elements.
        let stored = unsafe { from.cast::<[T; LANES]>().read_unaligned() };
        Plain(stored.map(T::widen))
    }
}

/// A vector of intrinsics; and the accumulating type, which is loaded as it is.
macro_rules! vector {
    ($vector:ty: $lanes:literal $lane:ident, $splat:path, $load:path, $store:path, |$a:ident, $b:ident, $c:ident| $fma:expr) => {
        // SAFETY: the intrinsics read and write a whole vector, at any alignment.
        unsafe impl Vector for $vector {
            type Lane = $lane;
            const LANES: usize = $lanes;

            #[inline(always)]
            unsafe fn splat(x: $lane) -> Self {
                // SAFETY: the caller has seen to the instructions.
                unsafe { $splat(x) }
            }

            #[inline(always)]
            unsafe fn load(from: *const $lane) -> Self {
                // SAFETY: the caller has seen to the instructions and the memory.
                unsafe { $load(from) }
            }

            #[inline(always)]
            unsafe fn store(self, into: *mut $lane) {
                // SAFETY: the caller has seen to the instructions and the memory.
                unsafe { $store(into, self) }
            }

            #[inline(always)]
            unsafe fn fma(self, b: Self, c: Self) -> Self {
                let ($a, $b, $c) = (self, b, c);
                // SAFETY: the caller has seen to the instructions.
                unsafe { $fma }
            }
        }

        widen!($lane as $vector, |from| <$vector as Vector>::load(from));
    };
}

macro_rules! widen {
    ($stored:ident as $vector:ty, |$from:ident| $load:expr) => {
        impl Widen<$vector> for $stored {
            #[inline(always)]
            unsafe fn load($from: *const Self) -> $vector {
                // SAFETY: the caller has seen to the instructions and the memory.
                unsafe { $load }
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
mod x86_64 {
    use std::arch::x86_64::*;

    use half::{bf16, f16};

    use super::{Vector, Widen};

    vector!(__m256: 8 f32, _mm256_set1_ps, _mm256_loadu_ps, _mm256_storeu_ps, |a, b, c| _mm256_fmadd_ps(a, b, c));
    vector!(__m256d: 4 f64, _mm256_set1_pd, _mm256_loadu_pd, _mm256_storeu_pd, |a, b, c| _mm256_fmadd_pd(a, b, c));
    vector!(__m512: 16 f32, _mm512_set1_ps, _mm512_loadu_ps, _mm512_storeu_ps, |a, b, c| _mm512_fmadd_ps(a, b, c));
    vector!(__m512d: 8 f64, _mm512_set1_pd, _mm512_loadu_pd, _mm512_storeu_pd, |a, b, c| _mm512_fmadd_pd(a, b, c));

    widen!(bf16 as __m256, |from| {
        _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(_mm_loadu_si128(from.cast()))))
    });
    widen!(bf16 as __m512, |from| {
        _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(_mm256_loadu_si256(from.cast()))))
    });
    widen!(f16 as __m256, |from| _mm256_cvtph_ps(_mm_loadu_si128(from.cast())));
    widen!(f16 as __m512, |from| _mm512_cvtph_ps(_mm256_loadu_si256(from.cast())));
}

#[cfg(target_arch = "aarch64")]
mod aarch64 {
    use std::arch::aarch64::*;

    use half::{bf16, f16};

    use super::{Float, Vector, Widen};

    vector!(float32x4_t: 4 f32, vdupq_n_f32, vld1q_f32, vst1q_f32, |a, b, c| vfmaq_f32(c, a, b));
    vector!(float64x2_t: 2 f64, vdupq_n_f64, vld1q_f64, vst1q_f64, |a, b, c| vfmaq_f64(c, a, b));

    widen!(bf16 as float32x4_t, |from| vreinterpretq_f32_u32(vshll_n_u16::<16>(vld1_u16(from.cast()))));
    widen!(f16 as float32x4_t, |from| {
        let wide: [f32; 4] = from.cast::<[f16; 4]>().read_unaligned().map(<f16 as Float>::widen);
        vld1q_f32(wide.as_ptr())
    });
}
