//! What a kernel asks of a vector unit, and the portable answer.

/// A vector unit: one 32-bit lane a row. `I` holds integers or four bytes a lane, `F` floats.
///
/// All methods are unsafe since they may be called only where the processor has the unit, and since pointers are read as far as each says.
pub(super) trait Lanes: Copy {
    /// Rows in a group.
    const ROWS: usize;
    /// Columns of a tile that share the unpacked weights.
    const COLUMNS: usize;
    type I: Copy;
    type F: Copy;

    /// Reads `4 ROWS` bytes.
    unsafe fn load(p: *const u8) -> Self::I;
    unsafe fn splat(v: i32) -> Self::I;
    unsafe fn and(a: Self::I, b: Self::I) -> Self::I;
    unsafe fn or(a: Self::I, b: Self::I) -> Self::I;
    unsafe fn shl<const N: i32>(a: Self::I) -> Self::I;
    unsafe fn shr<const N: i32>(a: Self::I) -> Self::I;
    /// Reads `ROWS` bytes and widens them.
    unsafe fn load_u8(p: *const u8) -> Self::I;
    /// Reads `2 ROWS` bytes as signed pairs and widens them: two i16 a lane.
    unsafe fn load_pairs(p: *const u8) -> Self::I;
    /// The two i16 of a lane less `v`.
    unsafe fn sub_pairs(a: Self::I, v: i16) -> Self::I;
    /// The sum of the products of the two i16 of a lane.
    unsafe fn dot_of_pairs(a: Self::I, b: Self::I) -> Self::I;

    /// `start + sum w x` over 32 values: `w` unsigned, below `2^BITS`, `BITS` at most 5. Reads 32 bytes of `x`.
    unsafe fn dot<const BITS: usize>(w: &[Self::I; 8], x: *const i8, start: i32) -> Self::I;
    /// Prepares signed bytes for [`dot_signed`](Self::dot_signed).
    unsafe fn signed(w: Self::I) -> Self::I;
    /// `sum w x` over 32 values, `w` signed bytes that went through [`signed`](Self::signed); `minus_128` is -128 times the sum of `x`.
    unsafe fn dot_signed(w: &[Self::I; 8], x: *const i8, minus_128: i32) -> Self::I;
    /// `sum over halves h: scale[h] * (sum (w - OFFSET) x)` over 2 x 16 values: `w` unsigned below 64, `OFFSET` one of 0, 4, 32.
    unsafe fn dot_scaled<const OFFSET: i32>(w: &[Self::I; 8], x: &super::ActivationBlock, scales: Self::I) -> Self::I;

    /// Reads `2 ROWS` bytes as f16.
    unsafe fn load_f16(p: *const u8) -> Self::F;
    unsafe fn splat_f32(v: f32) -> Self::F;
    unsafe fn to_f32(a: Self::I) -> Self::F;
    unsafe fn neg(a: Self::F) -> Self::F;
    unsafe fn mul(a: Self::F, b: Self::F) -> Self::F;
    /// `a * b + c`, rounded once.
    unsafe fn fma(a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// Writes `ROWS` floats.
    unsafe fn store(a: Self::F, p: *mut f32);
}

/// Eight lanes, in plain Rust.
#[derive(Clone, Copy)]
pub(super) struct Portable;

impl Portable {
    /// `sum w x` over the values of vectors `from..to` in one lane, the bytes read by `widen`.
    #[inline(always)]
    fn sum(w: &[[i32; 8]; 8], x: &[i8; 32], lane: usize, groups: std::ops::Range<usize>, widen: impl Fn(u8) -> i32) -> i32 {
        let mut sum = 0;
        for j in groups {
            for (i, byte) in w[j][lane].to_le_bytes().into_iter().enumerate() {
                sum += widen(byte) * i32::from(x[4 * j + i]);
            }
        }
        sum
    }
}

/// The 32 integers of a block.
///
/// # Safety
/// 32 bytes are readable at `x` for as long as the result lives.
unsafe fn block<'a>(x: *const i8) -> &'a [i8; 32] {
    // SAFETY: as the caller promises; i8 has no alignment.
    unsafe { &*x.cast() }
}

fn pair(a: i32) -> [i32; 2] {
    [i32::from(a as i16), a >> 16]
}

impl Lanes for Portable {
    const ROWS: usize = 8;
    const COLUMNS: usize = 4;
    type I = [i32; 8];
    type F = [f32; 8];

    unsafe fn load(p: *const u8) -> Self::I {
        // SAFETY: the caller lets `4 ROWS` bytes be read.
        let bytes: [u8; 32] = unsafe { p.cast::<[u8; 32]>().read() };
        std::array::from_fn(|r| i32::from_le_bytes(std::array::from_fn(|i| bytes[4 * r + i])))
    }
    unsafe fn splat(v: i32) -> Self::I {
        [v; 8]
    }
    unsafe fn and(a: Self::I, b: Self::I) -> Self::I {
        std::array::from_fn(|r| a[r] & b[r])
    }
    unsafe fn or(a: Self::I, b: Self::I) -> Self::I {
        std::array::from_fn(|r| a[r] | b[r])
    }
    unsafe fn shl<const N: i32>(a: Self::I) -> Self::I {
        a.map(|a| a << N)
    }
    unsafe fn shr<const N: i32>(a: Self::I) -> Self::I {
        a.map(|a| (a as u32 >> N) as i32)
    }
    unsafe fn load_u8(p: *const u8) -> Self::I {
        // SAFETY: the caller lets `ROWS` bytes be read.
        unsafe { p.cast::<[u8; 8]>().read() }.map(i32::from)
    }
    unsafe fn load_pairs(p: *const u8) -> Self::I {
        // SAFETY: the caller lets `2 ROWS` bytes be read.
        let pairs = unsafe { p.cast::<[[i8; 2]; 8]>().read() };
        pairs.map(|[a, b]| i32::from(a) & 0xffff | i32::from(b) << 16)
    }
    unsafe fn sub_pairs(a: Self::I, v: i16) -> Self::I {
        a.map(|a| {
            let [low, high] = pair(a);
            (low - i32::from(v)) & 0xffff | (high - i32::from(v)) << 16
        })
    }
    unsafe fn dot_of_pairs(a: Self::I, b: Self::I) -> Self::I {
        std::array::from_fn(|r| {
            let (a, b) = (pair(a[r]), pair(b[r]));
            a[0] * b[0] + a[1] * b[1]
        })
    }
    unsafe fn dot<const BITS: usize>(w: &[Self::I; 8], x: *const i8, start: i32) -> Self::I {
        // SAFETY: the caller lets 32 bytes be read.
        let x = unsafe { block(x) };
        std::array::from_fn(|r| start + Self::sum(w, x, r, 0..8, i32::from))
    }
    unsafe fn signed(w: Self::I) -> Self::I {
        w
    }
    unsafe fn dot_signed(w: &[Self::I; 8], x: *const i8, _minus_128: i32) -> Self::I {
        // SAFETY: the caller lets 32 bytes be read.
        let x = unsafe { block(x) };
        std::array::from_fn(|r| Self::sum(w, x, r, 0..8, |byte| i32::from(byte as i8)))
    }
    unsafe fn dot_scaled<const OFFSET: i32>(w: &[Self::I; 8], x: &super::ActivationBlock, scales: Self::I) -> Self::I {
        std::array::from_fn(|r| {
            let half = |h: usize| Self::sum(w, &x.q, r, 4 * h..4 * h + 4, |byte| i32::from(byte) - OFFSET);
            let scales = pair(scales[r]);
            scales[0] * half(0) + scales[1] * half(1)
        })
    }
    unsafe fn load_f16(p: *const u8) -> Self::F {
        // SAFETY: the caller lets `2 ROWS` bytes be read.
        let halves = unsafe { p.cast::<[[u8; 2]; 8]>().read() };
        halves.map(|half| half::f16::from_le_bytes(half).to_f32())
    }
    unsafe fn splat_f32(v: f32) -> Self::F {
        [v; 8]
    }
    unsafe fn to_f32(a: Self::I) -> Self::F {
        a.map(|a| a as f32)
    }
    unsafe fn neg(a: Self::F) -> Self::F {
        a.map(|a| -a)
    }
    unsafe fn mul(a: Self::F, b: Self::F) -> Self::F {
        std::array::from_fn(|r| a[r] * b[r])
    }
    unsafe fn fma(a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        std::array::from_fn(|r| a[r].mul_add(b[r], c[r]))
    }
    unsafe fn store(a: Self::F, p: *mut f32) {
        // SAFETY: the caller lets `ROWS` floats be written.
        unsafe { p.cast::<[f32; 8]>().write_unaligned(a) }
    }
}
