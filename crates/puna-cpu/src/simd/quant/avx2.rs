//! AVX2 with FMA and F16C: eight rows a vector.

use std::arch::x86_64::*;

use puna_quant::BlockType;

use super::kernel::{Format, Job, drive, with_format};
use super::{ActivationBlock, columns::Columns, lanes::Lanes};

/// # Safety
/// The processor has AVX2, FMA and F16C; otherwise as [`drive`].
pub(super) unsafe fn matmul(block: BlockType, job: &Job<'_>, out: &mut Columns<'_>) {
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn run<B: Format>(job: &Job<'_>, out: &mut Columns<'_>) {
        // SAFETY: the features are on; the rest is the caller's promise.
        unsafe { drive::<Avx2, B>(job, out) }
    }
    // SAFETY: as the caller promises.
    unsafe { with_format!(block, run(job, out)) }
}

/// As [`puna_quant::quantize_activations`], bit by bit.
///
/// # Safety
/// The processor has AVX2; `x` has 32 values for each block of `out`.
#[target_feature(enable = "avx2")]
pub(super) unsafe fn quantize(x: &[f32], out: &mut [ActivationBlock]) {
    for (x, out) in x.chunks_exact(32).zip(out) {
        // SAFETY: four vectors of 8 are the 32 values of `x`; `out.q` has room for 32 bytes.
        unsafe {
            let x: [__m256; 4] = std::array::from_fn(|i| _mm256_loadu_ps(x.as_ptr().add(8 * i)));
            // Magnitudes are ordered as their bits are, with infinities and NaNs above all numbers.
            let bits = x.map(|x| _mm256_and_si256(_mm256_castps_si256(x), _mm256_set1_epi32(i32::MAX)));
            let most = _mm256_max_epi32(_mm256_max_epi32(bits[0], bits[1]), _mm256_max_epi32(bits[2], bits[3]));
            let most = _mm_max_epi32(_mm256_castsi256_si128(most), _mm256_extracti128_si256::<1>(most));
            let most = _mm_max_epi32(most, _mm_shuffle_epi32::<0b01_00_11_10>(most));
            let most = _mm_max_epi32(most, _mm_shuffle_epi32::<0b10_11_00_01>(most));
            let largest = _mm_cvtsi128_si32(most) as u32;
            let d = f32::from_bits(largest) / 127.0;
            if largest >= f32::INFINITY.to_bits() {
                *out = ActivationBlock::ZERO;
                out.finish(f32::NAN, [0; 2]);
                continue;
            }
            if d < f32::MIN_POSITIVE {
                *out = ActivationBlock::ZERO;
                continue;
            }
            let inv = _mm256_set1_ps(1.0 / d);
            // Converts to the nearest, ties to even.
            let q = x.map(|x| _mm256_cvtps_epi32(_mm256_mul_ps(x, inv)));
            let halves = [sum(_mm256_add_epi32(q[0], q[1])), sum(_mm256_add_epi32(q[2], q[3]))];
            let bytes = _mm256_packs_epi16(_mm256_packs_epi32(q[0], q[1]), _mm256_packs_epi32(q[2], q[3]));
            // The packs work within 128 bits: fours of values come out in this order.
            let bytes = _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
            _mm256_storeu_si256(out.q.as_mut_ptr().cast(), bytes);
            out.finish(d, halves);
        }
    }
}

#[inline]
#[target_feature(enable = "avx2")]
fn sum(a: __m256i) -> i32 {
    let a = _mm_add_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256::<1>(a));
    let a = _mm_add_epi32(a, _mm_shuffle_epi32::<0b01_00_11_10>(a));
    _mm_cvtsi128_si32(_mm_add_epi32(a, _mm_shuffle_epi32::<0b10_11_00_01>(a)))
}

#[derive(Clone, Copy)]
struct Avx2;

/// Four bytes of activations in every lane.
///
/// # Safety
/// The processor has AVX2; 4 bytes are readable at `x + 4 j`.
#[inline(always)]
unsafe fn four(x: *const i8, j: usize) -> __m256i {
    // SAFETY: as the caller promises.
    unsafe { _mm256_set1_epi32(x.add(4 * j).cast::<i32>().read_unaligned()) }
}

/// The methods' promises are those of [`Lanes`]: AVX2, FMA and F16C are there, and pointers reach as far as the trait says.
impl Lanes for Avx2 {
    const ROWS: usize = 8;
    const COLUMNS: usize = 4;
    type I = __m256i;
    type F = __m256;

    #[inline(always)]
    unsafe fn load(p: *const u8) -> Self::I {
        // SAFETY: 32 bytes are readable, at any alignment.
        unsafe { _mm256_loadu_si256(p.cast()) }
    }
    #[inline(always)]
    unsafe fn splat(v: i32) -> Self::I {
        // SAFETY: the unit is there.
        unsafe { _mm256_set1_epi32(v) }
    }
    #[inline(always)]
    unsafe fn and(a: Self::I, b: Self::I) -> Self::I {
        // SAFETY: the unit is there.
        unsafe { _mm256_and_si256(a, b) }
    }
    #[inline(always)]
    unsafe fn or(a: Self::I, b: Self::I) -> Self::I {
        // SAFETY: the unit is there.
        unsafe { _mm256_or_si256(a, b) }
    }
    #[inline(always)]
    unsafe fn shl<const N: i32>(a: Self::I) -> Self::I {
        // SAFETY: the unit is there.
        unsafe { _mm256_slli_epi32::<N>(a) }
    }
    #[inline(always)]
    unsafe fn shr<const N: i32>(a: Self::I) -> Self::I {
        // SAFETY: the unit is there.
        unsafe { _mm256_srli_epi32::<N>(a) }
    }
    #[inline(always)]
    unsafe fn load_u8(p: *const u8) -> Self::I {
        // SAFETY: 8 bytes are readable.
        unsafe { _mm256_cvtepu8_epi32(_mm_loadl_epi64(p.cast())) }
    }
    #[inline(always)]
    unsafe fn load_pairs(p: *const u8) -> Self::I {
        // SAFETY: 16 bytes are readable.
        unsafe { _mm256_cvtepi8_epi16(_mm_loadu_si128(p.cast())) }
    }
    #[inline(always)]
    unsafe fn sub_pairs(a: Self::I, v: i16) -> Self::I {
        // SAFETY: the unit is there.
        unsafe { _mm256_sub_epi16(a, _mm256_set1_epi16(v)) }
    }
    #[inline(always)]
    unsafe fn dot_of_pairs(a: Self::I, b: Self::I) -> Self::I {
        // SAFETY: the unit is there.
        unsafe { _mm256_madd_epi16(a, b) }
    }
    #[inline(always)]
    unsafe fn dot<const BITS: usize>(w: &[Self::I; 8], x: *const i8, start: i32) -> Self::I {
        // SAFETY: the unit is there; 32 bytes are readable at `x`.
        unsafe {
            let one = _mm256_set1_epi16(1);
            let half = |h: usize| {
                let p = |i: usize| _mm256_maddubs_epi16(w[4 * h + i], four(x, 4 * h + i));
                _mm256_add_epi16(_mm256_add_epi16(p(0), p(1)), _mm256_add_epi16(p(2), p(3)))
            };
            let (a, b) = (half(0), half(1));
            // A 16-bit lane sums 16 products, at most 16 * 15 * 127 = 30480; of 5-bit quants only 8, at most 8 * 31 * 127 = 31496.
            let sum = if BITS <= 4 {
                _mm256_madd_epi16(_mm256_add_epi16(a, b), one)
            } else {
                _mm256_add_epi32(_mm256_madd_epi16(a, one), _mm256_madd_epi16(b, one))
            };
            _mm256_add_epi32(sum, _mm256_set1_epi32(start))
        }
    }
    #[inline(always)]
    unsafe fn signed(w: Self::I) -> Self::I {
        w
    }
    #[inline(always)]
    unsafe fn dot_signed(w: &[Self::I; 8], x: *const i8, _minus_128: i32) -> Self::I {
        // SAFETY: the unit is there; 32 bytes are readable at `x`.
        unsafe {
            let one = _mm256_set1_epi16(1);
            let mut sum = _mm256_setzero_si256();
            for (j, &w) in w.iter().enumerate() {
                // |w| (x sign w): two products are at most 2 * 128 * 127 = 32512.
                let p = _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(four(x, j), w));
                sum = _mm256_add_epi32(sum, _mm256_madd_epi16(p, one));
            }
            sum
        }
    }
    #[inline(always)]
    unsafe fn dot_scaled<const OFFSET: i32>(w: &[Self::I; 8], x: &ActivationBlock, scales: Self::I) -> Self::I {
        // SAFETY: the unit is there; `x.q` has 32 bytes.
        unsafe {
            let p = |j: usize| _mm256_maddubs_epi16(w[j], four(x.q.as_ptr(), j));
            // Both 16-bit parts of a lane times the scale of the half.
            let first = _mm256_or_si256(_mm256_and_si256(scales, _mm256_set1_epi32(0xffff)), _mm256_slli_epi32::<16>(scales));
            let second = _mm256_or_si256(_mm256_srli_epi32::<16>(scales), _mm256_andnot_si256(_mm256_set1_epi32(0xffff), scales));
            // A 16-bit lane sums 4 products, at most 4 * 63 * 127 = 32004.
            let a = _mm256_add_epi32(
                _mm256_madd_epi16(_mm256_add_epi16(p(0), p(1)), first),
                _mm256_madd_epi16(_mm256_add_epi16(p(2), p(3)), first),
            );
            let b = _mm256_add_epi32(
                _mm256_madd_epi16(_mm256_add_epi16(p(4), p(5)), second),
                _mm256_madd_epi16(_mm256_add_epi16(p(6), p(7)), second),
            );
            let sum = _mm256_add_epi32(a, b);
            let sums = _mm256_set1_epi32(i32::from(x.sums[0]) & 0xffff | i32::from(x.sums[1]) << 16);
            match OFFSET {
                0 => sum,
                4 => _mm256_sub_epi32(sum, _mm256_slli_epi32::<2>(_mm256_madd_epi16(scales, sums))),
                _ => _mm256_sub_epi32(sum, _mm256_slli_epi32::<5>(_mm256_madd_epi16(scales, sums))),
            }
        }
    }
    #[inline(always)]
    unsafe fn load_f16(p: *const u8) -> Self::F {
        // SAFETY: 16 bytes are readable.
        unsafe { _mm256_cvtph_ps(_mm_loadu_si128(p.cast())) }
    }
    #[inline(always)]
    unsafe fn splat_f32(v: f32) -> Self::F {
        // SAFETY: the unit is there.
        unsafe { _mm256_set1_ps(v) }
    }
    #[inline(always)]
    unsafe fn to_f32(a: Self::I) -> Self::F {
        // SAFETY: the unit is there.
        unsafe { _mm256_cvtepi32_ps(a) }
    }
    #[inline(always)]
    unsafe fn neg(a: Self::F) -> Self::F {
        // SAFETY: the unit is there.
        unsafe { _mm256_xor_ps(a, _mm256_set1_ps(-0.0)) }
    }
    #[inline(always)]
    unsafe fn mul(a: Self::F, b: Self::F) -> Self::F {
        // SAFETY: the unit is there.
        unsafe { _mm256_mul_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn fma(a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        // SAFETY: the unit is there.
        unsafe { _mm256_fmadd_ps(a, b, c) }
    }
    #[inline(always)]
    unsafe fn store(a: Self::F, p: *mut f32) {
        // SAFETY: 8 floats are writable.
        unsafe { _mm256_storeu_ps(p, a) }
    }
}
