//! The GPU kernels of puna, as sources: `.cu` files that CUDA's run-time compiler takes, their headers, an emulator of CUDA's execution model
//! that runs them on a processor; and `.wgsl` files for every other GPU. No GPU dependency; who launches them are `puna-cuda` and `puna-wgpu`.
#![forbid(unsafe_code)]

pub mod cuda;
pub mod wgsl;
