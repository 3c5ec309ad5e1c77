//! AVX-512 with VNNI: sixteen rows a vector, unsigned quants times signed activations summed into 32 bits by one instruction.

use std::arch::x86_64::*;

use puna_quant::BlockType;

use super::kernel::{Format, Job, drive, with_format};
use super::{ActivationBlock, columns::Columns, lanes::Lanes};

/// # Safety
/// The processor has AVX-512 F, BW and VNNI; otherwise as [`drive`].
pub(super) unsafe fn matmul(block: BlockType, job: &Job<'_>, out: &mut Columns<'_>) {
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    unsafe fn run<B: Format>(job: &Job<'_>, out: &mut Columns<'_>) {
        // SAFETY: the features are on; the rest is the caller's promise.
        unsafe { drive::<Avx512Vnni, B>(job, out) }
    }
    // SAFETY: as the caller promises.
    unsafe { with_format!(block, run(job, out)) }
}

#[derive(Clone, Copy)]
struct Avx512Vnni;

/// `start + sum w x` over vectors `from .. from + N`.
///
/// # Safety
/// The processor has the unit; `4 N` bytes are readable at `x + 4 from`.
#[inline(always)]
unsafe fn chain<const N: usize>(w: &[__m512i; 8], x: *const i8, from: usize, start: i32) -> __m512i {
    // SAFETY: as the caller promises.
    unsafe {
        let mut sum = _mm512_set1_epi32(start);
        for (j, &w) in w.iter().enumerate().skip(from).take(N) {
            let four = _mm512_set1_epi32(x.add(4 * j).cast::<i32>().read_unaligned());
            sum = _mm512_dpbusd_epi32(sum, w, four);
        }
        sum
    }
}

/// The methods' promises are those of [`Lanes`]: AVX-512 F, BW and VNNI are there, and pointers reach as far as the trait says.
impl Lanes for Avx512Vnni {
    const ROWS: usize = 16;
    const COLUMNS: usize = 8;
    type I = __m512i;
    type F = __m512;

    #[inline(always)]
    unsafe fn load(p: *const u8) -> Self::I {
        // SAFETY: 64 bytes are readable, at any alignment.
        unsafe { _mm512_loadu_si512(p.cast()) }
    }
    #[inline(always)]
    unsafe fn splat(v: i32) -> Self::I {
        // SAFETY: the unit is there.
        unsafe { _mm512_set1_epi32(v) }
    }
    #[inline(always)]
    unsafe fn and(a: Self::I, b: Self::I) -> Self::I {
        // SAFETY: the unit is there.
        unsafe { _mm512_and_si512(a, b) }
    }
    #[inline(always)]
    unsafe fn or(a: Self::I, b: Self::I) -> Self::I {
        // SAFETY: the unit is there.
        unsafe { _mm512_or_si512(a, b) }
    }
    #[inline(always)]
    unsafe fn shl<const N: i32>(a: Self::I) -> Self::I {
        // SAFETY: the unit is there.
        unsafe { _mm512_sll_epi32(a, _mm_cvtsi32_si128(N)) }
    }
    #[inline(always)]
    unsafe fn shr<const N: i32>(a: Self::I) -> Self::I {
        // SAFETY: the unit is there. (The immediate form wants its count as another type; this compiles to it.)
        unsafe { _mm512_srl_epi32(a, _mm_cvtsi32_si128(N)) }
    }
    #[inline(always)]
    unsafe fn load_u8(p: *const u8) -> Self::I {
        // SAFETY: 16 bytes are readable.
        unsafe { _mm512_cvtepu8_epi32(_mm_loadu_si128(p.cast())) }
    }
    #[inline(always)]
    unsafe fn load_pairs(p: *const u8) -> Self::I {
        // SAFETY: 32 bytes are readable.
        unsafe { _mm512_cvtepi8_epi16(_mm256_loadu_si256(p.cast())) }
    }
    #[inline(always)]
    unsafe fn sub_pairs(a: Self::I, v: i16) -> Self::I {
        // SAFETY: the unit is there.
        unsafe { _mm512_sub_epi16(a, _mm512_set1_epi16(v)) }
    }
    #[inline(always)]
    unsafe fn dot_of_pairs(a: Self::I, b: Self::I) -> Self::I {
        // SAFETY: the unit is there.
        unsafe { _mm512_madd_epi16(a, b) }
    }
    #[inline(always)]
    unsafe fn dot<const BITS: usize>(w: &[Self::I; 8], x: *const i8, start: i32) -> Self::I {
        // SAFETY: the unit is there; 32 bytes are readable at `x`.
        unsafe { chain::<8>(w, x, 0, start) }
    }
    #[inline(always)]
    unsafe fn signed(w: Self::I) -> Self::I {
        // SAFETY: the unit is there. Adds 128.
        unsafe { _mm512_xor_si512(w, _mm512_set1_epi8(-128)) }
    }
    #[inline(always)]
    unsafe fn dot_signed(w: &[Self::I; 8], x: *const i8, minus_128: i32) -> Self::I {
        // SAFETY: the unit is there; 32 bytes are readable at `x`.
        unsafe { chain::<8>(w, x, 0, minus_128) }
    }
    #[inline(always)]
    unsafe fn dot_scaled<const OFFSET: i32>(w: &[Self::I; 8], x: &ActivationBlock, scales: Self::I) -> Self::I {
        let start = match OFFSET {
            0 => [0; 2],
            // -4 times the sums: the shift is exact.
            4 => x.minus_32.map(|v| v >> 3),
            _ => x.minus_32,
        };
        // SAFETY: the unit is there; `x.q` has 32 bytes.
        unsafe {
            let first = _mm512_srai_epi32::<16>(_mm512_slli_epi32::<16>(scales));
            let second = _mm512_srai_epi32::<16>(scales);
            let a = _mm512_mullo_epi32(chain::<4>(w, x.q.as_ptr(), 0, start[0]), first);
            let b = _mm512_mullo_epi32(chain::<4>(w, x.q.as_ptr(), 4, start[1]), second);
            _mm512_add_epi32(a, b)
        }
    }
    #[inline(always)]
    unsafe fn load_f16(p: *const u8) -> Self::F {
        // SAFETY: 32 bytes are readable.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(p.cast())) }
    }
    #[inline(always)]
    unsafe fn splat_f32(v: f32) -> Self::F {
        // SAFETY: the unit is there.
        unsafe { _mm512_set1_ps(v) }
    }
    #[inline(always)]
    unsafe fn to_f32(a: Self::I) -> Self::F {
        // SAFETY: the unit is there.
        unsafe { _mm512_cvtepi32_ps(a) }
    }
    #[inline(always)]
    unsafe fn neg(a: Self::F) -> Self::F {
        // SAFETY: the unit is there.
        unsafe { _mm512_castsi512_ps(_mm512_xor_si512(_mm512_castps_si512(a), _mm512_set1_epi32(i32::MIN))) }
    }
    #[inline(always)]
    unsafe fn mul(a: Self::F, b: Self::F) -> Self::F {
        // SAFETY: the unit is there.
        unsafe { _mm512_mul_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn fma(a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        // SAFETY: the unit is there.
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }
    #[inline(always)]
    unsafe fn store(a: Self::F, p: *mut f32) {
        // SAFETY: 16 floats are writable.
        unsafe { _mm512_storeu_ps(p, a) }
    }
}
