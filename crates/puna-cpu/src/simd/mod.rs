//! Kernels over plain slices, for the vector units that the processor has.
//!
//! Every kernel gives the same bits on every [`Isa`], for any number of rows, place in a tile and number of threads. Each element of
//! a result is one chain of operations whose order depends on the length of its sum alone, and the portable version, written with
//! [`f32::mul_add`], is what the others are tested against. (Which NaN a NaN is, is not part of that: processors differ.)

pub(crate) mod float;
pub(crate) mod gemm;
pub(crate) mod quant;
pub(crate) mod vector;

use std::sync::OnceLock;

/// A set of instructions that kernels are compiled for.
///
/// A value other than `Portable` says that the processor has been asked: kernels rely on it. So it comes from [`Isa::detect`] or
/// [`Isa::available`], and is never written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Isa {
    /// What the target has without asking.
    Portable,
    /// x86-64 with AVX2, FMA and F16C.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// The same with AVX-512 F, BW, DQ and VL.
    #[cfg(target_arch = "x86_64")]
    Avx512,
    /// AArch64.
    #[cfg(target_arch = "aarch64")]
    Neon,
}

impl Isa {
    /// The widest set that this processor has.
    pub(crate) fn detect() -> Self {
        static WIDEST: OnceLock<Isa> = OnceLock::new();
        *WIDEST.get_or_init(|| Self::available().last().copied().unwrap_or(Self::Portable))
    }

    /// Every set that this processor has, the widest last.
    pub(crate) fn available() -> Vec<Self> {
        let mut all = vec![Self::Portable];
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c") {
            all.push(Self::Avx2);
            if is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl")
            {
                all.push(Self::Avx512);
            }
        }
        #[cfg(target_arch = "aarch64")]
        all.push(Self::Neon);
        all
    }
}

/// Compiles a function for every [`Isa`] and calls the version for the one given: `dispatch!(isa, body::<T>(a: &[f32], ..) -> f32)`.
///
/// The body is `#[inline(always)]` and free of vector types, so all versions compute the same; only the width of what the compiler
/// makes of it differs.
macro_rules! dispatch {
    ($isa:expr, $body:ident $(::<$($generic:ident: $bound:path),*>)? ($($argument:ident: $type:ty),* $(,)?) $(-> $result:ty)?) => {
        match $isa {
            #[cfg(target_arch = "x86_64")]
            $crate::simd::Isa::Avx512 => {
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
                #[allow(clippy::too_many_arguments)]
                fn compiled $(<$($generic: $bound),*>)? ($($argument: $type),*) $(-> $result)? {
                    $body $(::<$($generic),*>)? ($($argument),*)
                }
                // SAFETY: an `Isa` says that the processor has these instructions.
                unsafe { compiled $(::<$($generic),*>)? ($($argument),*) }
            }
            #[cfg(target_arch = "x86_64")]
            $crate::simd::Isa::Avx2 => {
                #[target_feature(enable = "avx2,fma,f16c")]
                #[allow(clippy::too_many_arguments)]
                fn compiled $(<$($generic: $bound),*>)? ($($argument: $type),*) $(-> $result)? {
                    $body $(::<$($generic),*>)? ($($argument),*)
                }
                // SAFETY: an `Isa` says that the processor has these instructions.
                unsafe { compiled $(::<$($generic),*>)? ($($argument),*) }
            }
            _ => $body $(::<$($generic),*>)? ($($argument),*),
        }
    };
}
pub(crate) use dispatch;
