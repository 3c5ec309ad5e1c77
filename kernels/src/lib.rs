//! The GPU kernels of puna, as sources: `.cu` files that CUDA's run-time compiler takes, their headers, and an emulator of CUDA's
//! execution model that runs them on a processor. No GPU dependency; whoever launches them is `puna-cuda`.
#![forbid(unsafe_code)]

pub mod cuda;
