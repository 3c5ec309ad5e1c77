//! A tile: some rows of `x` times one panel or several, with all sums in registers.

use half::{bf16, f16};

#[cfg(target_arch = "aarch64")]
use std::arch::aarch64::{float32x4_t, float64x2_t};
#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::{__m256, __m256d, __m512, __m512d};

use super::vector::{Plain, Vector, Widen};
use crate::simd::Isa;
use crate::simd::float::{Accumulator, Float};

/// What a tile is given beside its weights.
pub(crate) struct Block<'a, T> {
    /// Steps of k.
    pub(super) steps: usize,
    pub(super) rows: usize,
    /// `[steps][rows]`.
    pub(super) x: &'a [T],
    /// How many panels.
    pub(super) panels: usize,
    /// From a panel to the next, in elements of the weights.
    pub(super) panel_stride: usize,
    /// `[panels][rows][PANEL]`, with `sums_stride` elements from a panel to the next: where the chains go on, and are left.
    pub(super) sums: &'a mut [T],
    pub(super) sums_stride: usize,
    /// Whether the chains begin here, at 0.
    pub(super) fresh: bool,
}

/// Weights that there are tiles for.
pub(crate) trait Kernels: Float {
    /// The most rows of a tile.
    fn most_rows(isa: Isa) -> usize;

    /// How many panels a tile of `rows` rows takes at a time, so that more chains are under way than an addition's latency spans. It
    /// takes one as well.
    fn panels_at_once(isa: Isa, rows: usize) -> usize;

    /// Goes on with a block's chains. `weights` begins with the block's first step of its first panel.
    fn multiply(isa: Isa, block: Block<'_, Self::Wide>, weights: &[Self]);

    /// Widens whole panels, for [`multiply_wide`](Self::multiply_wide).
    fn widen_panels(isa: Isa, from: &[Self], into: &mut [Self::Wide]);

    /// [`multiply`](Self::multiply) with weights that are widened.
    fn multiply_wide(isa: Isa, block: Block<'_, Self::Wide>, weights: &[Self::Wide]);
}

/// A block that was checked.
struct Checked<W, T> {
    steps: usize,
    x: *const T,
    weights: *const W,
    panel_stride: usize,
    sums: *mut T,
    sums_stride: usize,
    fresh: bool,
}

impl<W, T: Accumulator> Checked<W, T> {
    fn new(block: Block<'_, T>, weights: &[W]) -> Self {
        let Block { steps, rows, x, panels, panel_stride, sums, sums_stride, fresh } = block;
        assert!(panels > 0 && x.len() >= steps * rows, "{} elements of x", x.len());
        assert!(weights.len() >= (panels - 1) * panel_stride + steps * T::PANEL, "{} weights", weights.len());
        assert!(sums.len() >= (panels - 1) * sums_stride + rows * T::PANEL, "{} sums", sums.len());
        Self { steps, x: x.as_ptr(), weights: weights.as_ptr(), panel_stride, sums: sums.as_mut_ptr(), sums_stride, fresh }
    }
}

/// `M` rows times `P` panels of `N` vectors each.
///
/// # Safety
/// The processor has `V`'s instructions; the block was checked for `M` rows and `P` panels; `N` vectors are a panel.
#[inline(always)]
#[allow(clippy::needless_range_loop)] // Only indices that are constants once loops are unrolled leave the sums in registers.
unsafe fn tile<V: Vector, W: Widen<V>, const M: usize, const P: usize, const N: usize>(block: &Checked<W, V::Lane>) {
    const { assert!(N * V::LANES == V::Lane::PANEL) };
    // SAFETY: `Checked::new` has seen to it that all of `[steps][M]`, `[P][steps][PANEL]` and `[P][M][PANEL]` may be touched; nothing
    // else is; the caller has seen to the instructions.
    unsafe {
        let mut sums = [[[V::splat(V::Lane::ZERO); N]; P]; M];
        let sum_at = |m: usize, p: usize, n: usize| block.sums.add(p * block.sums_stride + m * V::Lane::PANEL + n * V::LANES);
        if !block.fresh {
            for m in 0..M {
                for p in 0..P {
                    for n in 0..N {
                        sums[m][p][n] = V::load(sum_at(m, p, n));
                    }
                }
            }
        }
        let (mut x, mut weights) = (block.x, block.weights);
        for _ in 0..block.steps {
            let weight = |p: usize, n: usize| W::load(weights.add(p * block.panel_stride + n * V::LANES));
            // Whichever is fewer stays in registers for the step.
            if M < P * N {
                let x: [V; M] = std::array::from_fn(|m| V::splat(*x.add(m)));
                for p in 0..P {
                    for n in 0..N {
                        let weight = weight(p, n);
                        for m in 0..M {
                            sums[m][p][n] = x[m].fma(weight, sums[m][p][n]);
                        }
                    }
                }
            } else {
                let weights: [[V; N]; P] = std::array::from_fn(|p| std::array::from_fn(|n| weight(p, n)));
                for m in 0..M {
                    let x = V::splat(*x.add(m));
                    for p in 0..P {
                        for n in 0..N {
                            sums[m][p][n] = x.fma(weights[p][n], sums[m][p][n]);
                        }
                    }
                }
            }
            x = x.add(M);
            weights = weights.add(V::Lane::PANEL);
        }
        for m in 0..M {
            for p in 0..P {
                for n in 0..N {
                    sums[m][p][n].store(sum_at(m, p, n));
                }
            }
        }
    }
}

/// Widens `from`, whole panels of it, into `into`. NaNs are left as they are, signaling or not: sums make them quiet.
///
/// # Safety
/// The processor has `V`'s instructions; `length` elements may be read and written, and are a multiple of `V::LANES`.
#[inline(always)]
unsafe fn widen<V: Vector, W: Widen<V>>(from: *const W, into: *mut V::Lane, length: usize) {
    for i in (0..length).step_by(V::LANES) {
        // SAFETY: the caller's promise.
        unsafe { W::load(from.add(i)).store(into.add(i)) };
    }
}

/// # Safety
/// As for [`widen`].
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
unsafe fn widen_avx512<V: Vector, W: Widen<V>>(from: *const W, into: *mut V::Lane, length: usize) {
    // SAFETY: the caller's promise.
    unsafe { widen(from, into, length) }
}

/// # Safety
/// As for [`widen`].
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn widen_avx2<V: Vector, W: Widen<V>>(from: *const W, into: *mut V::Lane, length: usize) {
    // SAFETY: the caller's promise.
    unsafe { widen(from, into, length) }
}

/// # Safety
/// As for [`tile`].
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
unsafe fn avx512<V: Vector, W: Widen<V>, const M: usize, const P: usize>(block: &Checked<W, V::Lane>) {
    // SAFETY: the caller's promise.
    unsafe { tile::<V, W, M, P, 2>(block) }
}

/// # Safety
/// As for [`tile`].
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn avx2<V: Vector, W: Widen<V>, const M: usize, const P: usize>(block: &Checked<W, V::Lane>) {
    // SAFETY: the caller's promise.
    unsafe { tile::<V, W, M, P, 4>(block) }
}

/// # Safety
/// As for [`tile`].
#[cfg(target_arch = "aarch64")]
unsafe fn neon<V: Vector, W: Widen<V>, const M: usize, const P: usize>(block: &Checked<W, V::Lane>) {
    // SAFETY: the caller's promise.
    unsafe { tile::<V, W, M, P, 8>(block) }
}

/// # Safety
/// As for [`tile`].
unsafe fn portable<V: Vector, W: Widen<V>, const M: usize, const P: usize>(block: &Checked<W, V::Lane>) {
    // SAFETY: the caller's promise.
    unsafe { tile::<V, W, M, P, 4>(block) }
}

/// Calls the version of a function for the block's rows and panels.
macro_rules! by_shape {
    ($rows:expr, $panels:expr, $function:ident::<$vector:ty>($block:expr): $(($m:literal, $p:literal))*) => {
        match ($rows, $panels) {
            // SAFETY: the block was checked for these rows and panels, and an `Isa` says what the processor has.
            $(($m, $p) => unsafe { $function::<$vector, Self, $m, $p>($block) },)*
            (rows, panels) => unreachable!("a tile of {rows} rows and {panels} panels"),
        }
    };
}

macro_rules! kernels {
    ($($stored:ident: $avx2:ident $avx512:ident $neon:ident $plain:ident);*) => {$(
        impl Kernels for $stored {
            fn most_rows(isa: Isa) -> usize {
                match isa {
                    // 24 registers of sums, two of weights and one of x.
                    #[cfg(target_arch = "x86_64")]
                    Isa::Avx512 => 12,
                    // 12 registers of sums, three of x and one of weights; or 24 of 32.
                    _ => 3,
                }
            }

            fn panels_at_once(isa: Isa, rows: usize) -> usize {
                match (isa, rows) {
                    #[cfg(target_arch = "x86_64")]
                    (Isa::Avx512, 1) => 4,
                    #[cfg(target_arch = "x86_64")]
                    (Isa::Avx512, 2..=4) => 2,
                    #[cfg(target_arch = "x86_64")]
                    (Isa::Avx2, 1) => 2,
                    _ => 1,
                }
            }

            fn multiply(isa: Isa, block: Block<'_, Self::Wide>, weights: &[Self]) {
                let (rows, panels) = (block.rows, block.panels);
                let block = &Checked::new(block, weights);
                match isa {
                    #[cfg(target_arch = "x86_64")]
                    Isa::Avx512 => by_shape!(
                        rows, panels, avx512::<$avx512>(block):
                        (1, 4) (2, 2) (3, 2) (4, 2)
                        (1, 1) (2, 1) (3, 1) (4, 1) (5, 1) (6, 1) (7, 1) (8, 1) (9, 1) (10, 1) (11, 1) (12, 1)
                    ),
                    #[cfg(target_arch = "x86_64")]
                    Isa::Avx2 => by_shape!(rows, panels, avx2::<$avx2>(block): (1, 2) (1, 1) (2, 1) (3, 1)),
                    #[cfg(target_arch = "aarch64")]
                    Isa::Neon => by_shape!(rows, panels, neon::<$neon>(block): (1, 1) (2, 1) (3, 1)),
                    Isa::Portable => by_shape!(rows, panels, portable::<$plain>(block): (1, 1) (2, 1) (3, 1)),
                }
            }

            fn widen_panels(isa: Isa, from: &[Self], into: &mut [Self::Wide]) {
                let length = from.len();
                assert!(length <= into.len() && length % Self::Wide::PANEL == 0, "{length} elements are no panels");
                let (from, into) = (from.as_ptr(), into.as_mut_ptr());
                // SAFETY: the length was checked, panels are whole vectors, and an `Isa` says what the processor has.
                unsafe {
                    match isa {
                        #[cfg(target_arch = "x86_64")]
                        Isa::Avx512 => widen_avx512::<$avx512, Self>(from, into, length),
                        #[cfg(target_arch = "x86_64")]
                        Isa::Avx2 => widen_avx2::<$avx2, Self>(from, into, length),
                        #[cfg(target_arch = "aarch64")]
                        Isa::Neon => widen::<$neon, Self>(from, into, length),
                        Isa::Portable => widen::<$plain, Self>(from, into, length),
                    }
                }
            }

            fn multiply_wide(isa: Isa, block: Block<'_, Self::Wide>, weights: &[Self::Wide]) {
                Self::Wide::multiply(isa, block, weights);
            }
        }
    )*};
}

type Plain32 = Plain<f32, 8>;
type Plain64 = Plain<f64, 4>;

kernels!(
    f32: __m256 __m512 float32x4_t Plain32;
    bf16: __m256 __m512 float32x4_t Plain32;
    f16: __m256 __m512 float32x4_t Plain32;
    f64: __m256d __m512d float64x2_t Plain64
);
