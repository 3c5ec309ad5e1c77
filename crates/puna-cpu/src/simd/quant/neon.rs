//! NEON: eight rows in two vectors.

use std::arch::aarch64::*;

use puna_quant::BlockType;

use super::kernel::{Format, Job, drive, with_format};
use super::{ActivationBlock, columns::Columns, lanes::Lanes};

/// # Safety
/// The processor has NEON; otherwise as [`drive`].
pub(super) unsafe fn matmul(block: BlockType, job: &Job<'_>, out: &mut Columns<'_>) {
    #[target_feature(enable = "neon")]
    unsafe fn run<B: Format>(job: &Job<'_>, out: &mut Columns<'_>) {
        // SAFETY: the feature is on; the rest is the caller's promise.
        unsafe { drive::<Neon, B>(job, out) }
    }
    // SAFETY: as the caller promises.
    unsafe { with_format!(block, run(job, out)) }
}

#[derive(Clone, Copy)]
struct Neon;

type Pair = [int32x4_t; 2];

/// `start + sum w x` over vectors `from .. from + N`, `w` as signed bytes (unsigned ones below 128 are the same).
///
/// # Safety
/// The processor has NEON; `4 N` bytes are readable at `x + 4 from`.
#[inline(always)]
unsafe fn chain<const N: usize>(w: &[Pair; 8], x: *const i8, from: usize, start: i32) -> Pair {
    // SAFETY: as the caller promises.
    unsafe {
        let mut sum = [vdupq_n_s32(start); 2];
        for (j, w) in w.iter().enumerate().skip(from).take(N) {
            let four = vreinterpret_s8_s32(vdup_n_s32(x.add(4 * j).cast::<i32>().read_unaligned()));
            for (sum, &w) in sum.iter_mut().zip(w) {
                let w = vreinterpretq_s8_s32(w);
                // Two rows each, four products a row; each product fits 16 bits.
                let low = vpaddlq_s16(vmull_s8(vget_low_s8(w), four));
                let high = vpaddlq_s16(vmull_s8(vget_high_s8(w), four));
                *sum = vaddq_s32(*sum, vpaddq_s32(low, high));
            }
        }
        sum
    }
}

#[inline(always)]
unsafe fn both(a: Pair, b: Pair, f: impl Fn(int32x4_t, int32x4_t) -> int32x4_t) -> Pair {
    [f(a[0], b[0]), f(a[1], b[1])]
}

/// The first and the second i16 of each lane, widened.
#[inline(always)]
unsafe fn halves(a: Pair) -> [Pair; 2] {
    // SAFETY: the caller has NEON.
    unsafe { [a.map(|a| vshrq_n_s32::<16>(vshlq_n_s32::<16>(a))), a.map(|a| vshrq_n_s32::<16>(a))] }
}

/// The methods' promises are those of [`Lanes`]: NEON is there, and pointers reach as far as the trait says.
impl Lanes for Neon {
    const ROWS: usize = 8;
    const COLUMNS: usize = 4;
    type I = Pair;
    type F = [float32x4_t; 2];

    #[inline(always)]
    unsafe fn load(p: *const u8) -> Self::I {
        // SAFETY: 32 bytes are readable.
        unsafe { [vreinterpretq_s32_u8(vld1q_u8(p)), vreinterpretq_s32_u8(vld1q_u8(p.add(16)))] }
    }
    #[inline(always)]
    unsafe fn splat(v: i32) -> Self::I {
        // SAFETY: the unit is there.
        unsafe { [vdupq_n_s32(v); 2] }
    }
    #[inline(always)]
    unsafe fn and(a: Self::I, b: Self::I) -> Self::I {
        // SAFETY: the unit is there.
        unsafe { both(a, b, |a, b| vandq_s32(a, b)) }
    }
    #[inline(always)]
    unsafe fn or(a: Self::I, b: Self::I) -> Self::I {
        // SAFETY: the unit is there.
        unsafe { both(a, b, |a, b| vorrq_s32(a, b)) }
    }
    #[inline(always)]
    unsafe fn shl<const N: i32>(a: Self::I) -> Self::I {
        // SAFETY: the unit is there.
        unsafe { a.map(|a| vshlq_n_s32::<N>(a)) }
    }
    #[inline(always)]
    unsafe fn shr<const N: i32>(a: Self::I) -> Self::I {
        // SAFETY: the unit is there.
        unsafe { a.map(|a| vreinterpretq_s32_u32(vshrq_n_u32::<N>(vreinterpretq_u32_s32(a)))) }
    }
    #[inline(always)]
    unsafe fn load_u8(p: *const u8) -> Self::I {
        // SAFETY: 8 bytes are readable.
        unsafe {
            let wide = vmovl_u8(vld1_u8(p));
            [vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(wide))), vreinterpretq_s32_u32(vmovl_u16(vget_high_u16(wide)))]
        }
    }
    #[inline(always)]
    unsafe fn load_pairs(p: *const u8) -> Self::I {
        // SAFETY: 16 bytes are readable.
        unsafe {
            let bytes = vreinterpretq_s8_u8(vld1q_u8(p));
            [vreinterpretq_s32_s16(vmovl_s8(vget_low_s8(bytes))), vreinterpretq_s32_s16(vmovl_s8(vget_high_s8(bytes)))]
        }
    }
    #[inline(always)]
    unsafe fn sub_pairs(a: Self::I, v: i16) -> Self::I {
        // SAFETY: the unit is there.
        unsafe { a.map(|a| vreinterpretq_s32_s16(vsubq_s16(vreinterpretq_s16_s32(a), vdupq_n_s16(v)))) }
    }
    #[inline(always)]
    unsafe fn dot_of_pairs(a: Self::I, b: Self::I) -> Self::I {
        // SAFETY: the unit is there.
        unsafe {
            let ([a0, a1], [b0, b1]) = (halves(a), halves(b));
            let first = both(a0, b0, |a, b| vmulq_s32(a, b));
            both(first, both(a1, b1, |a, b| vmulq_s32(a, b)), |a, b| vaddq_s32(a, b))
        }
    }
    #[inline(always)]
    unsafe fn dot<const BITS: usize>(w: &[Self::I; 8], x: *const i8, start: i32) -> Self::I {
        // SAFETY: the unit is there; 32 bytes are readable at `x`.
        unsafe { chain::<8>(w, x, 0, start) }
    }
    #[inline(always)]
    unsafe fn signed(w: Self::I) -> Self::I {
        w
    }
    #[inline(always)]
    unsafe fn dot_signed(w: &[Self::I; 8], x: *const i8, _minus_128: i32) -> Self::I {
        // SAFETY: the unit is there; 32 bytes are readable at `x`.
        unsafe { chain::<8>(w, x, 0, 0) }
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
            let [first, second] = halves(scales);
            let a = both(chain::<4>(w, x.q.as_ptr(), 0, start[0]), first, |a, b| vmulq_s32(a, b));
            both(a, both(chain::<4>(w, x.q.as_ptr(), 4, start[1]), second, |a, b| vmulq_s32(a, b)), |a, b| vaddq_s32(a, b))
        }
    }
    #[inline(always)]
    unsafe fn load_f16(p: *const u8) -> Self::F {
        // SAFETY: 16 bytes are readable.
        let halves = unsafe { p.cast::<[[u8; 2]; 8]>().read() };
        let floats = halves.map(|half| half::f16::from_le_bytes(half).to_f32());
        // SAFETY: the unit is there; `floats` has 8.
        unsafe { [vld1q_f32(floats.as_ptr()), vld1q_f32(floats.as_ptr().add(4))] }
    }
    #[inline(always)]
    unsafe fn splat_f32(v: f32) -> Self::F {
        // SAFETY: the unit is there.
        unsafe { [vdupq_n_f32(v); 2] }
    }
    #[inline(always)]
    unsafe fn to_f32(a: Self::I) -> Self::F {
        // SAFETY: the unit is there.
        unsafe { a.map(|a| vcvtq_f32_s32(a)) }
    }
    #[inline(always)]
    unsafe fn neg(a: Self::F) -> Self::F {
        // SAFETY: the unit is there.
        unsafe { a.map(|a| vnegq_f32(a)) }
    }
    #[inline(always)]
    unsafe fn mul(a: Self::F, b: Self::F) -> Self::F {
        // SAFETY: the unit is there.
        unsafe { [vmulq_f32(a[0], b[0]), vmulq_f32(a[1], b[1])] }
    }
    #[inline(always)]
    unsafe fn fma(a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        // SAFETY: the unit is there.
        unsafe { [vfmaq_f32(c[0], a[0], b[0]), vfmaq_f32(c[1], a[1], b[1])] }
    }
    #[inline(always)]
    unsafe fn store(a: Self::F, p: *mut f32) {
        // SAFETY: 8 floats are writable.
        unsafe {
            vst1q_f32(p, a[0]);
            vst1q_f32(p.add(4), a[1]);
        }
    }
}
