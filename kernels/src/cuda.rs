//! CUDA sources. One file per op family; what a source leaves open (dtypes, tile sizes) is defined when it is compiled.

/// A file: its name, and its text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Source {
    /// As `#include` and compiler messages say it.
    pub name: &'static str,
    /// The text.
    pub text: &'static str,
}

macro_rules! sources {
    ($($folder:literal: $($file:literal)*;)*) => {
        &[$($(Source { name: $file, text: include_str!(concat!("../", $folder, "/", $file)) }),*),*]
    };
}

/// The kernels.
pub const KERNELS: &[Source] = sources! {
    "cuda": "elementwise.cu" "copy.cu" "cast.cu" "parts.cu" "decode.cu" "index.cu" "reduce.cu" "sort.cu" "random.cu" "matmul.cu" "norm.cu" "rope.cu"
        "attention.cu" "attention_sm80.cu" "attention_backward_sm80.cu" "matmul_sm80.cu" "linear_sm80.cu" "linear_int8_sm80.cu" "int8.cu" "mlp.cu" "softmax.cu" "loss.cu" "optimizer.cu" "sampling.cu";
};

/// What they include.
pub const HEADERS: &[Source] = sources! {
    "cuda": "common.cuh" "ptx.cuh" "number.cuh" "block_reduce.cuh" "blocks.cuh" "philox.cuh" "mma.cuh" "sequences.cuh" "rows.cuh" "head_tiles.cuh";
};

/// The emulator: a runtime, and what stands in for CUDA's language and for `ptx.cuh`.
#[cfg(feature = "emulator")]
pub const EMULATOR: &[Source] = sources! {
    "emulator": "runtime.cpp" "emu.h" "emu_internal.hpp" "cuda_host.hpp" "ptx.cuh";
};

/// The kernel of this name.
///
/// # Panics
/// Where there is none.
pub fn kernel(name: &str) -> Source {
    *KERNELS.iter().find(|source| source.name == name).unwrap_or_else(|| panic!("no kernel source is called {name}"))
}
