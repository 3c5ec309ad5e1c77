//! The wgpu back end of puna: every op on any GPU that Vulkan, Metal, DX12 or a browser's WebGPU drives, through WGSL kernels of its own.
//!
//! The kernels are those of `puna-kernels`. A device holds tensors of every dtype and computes in f32, f16, bf16, blocks and integers; in
//! doubles it computes nothing, since most of these GPUs cannot.
//!
//! ```no_run
//! let device = puna_wgpu::device(&"wgpu".parse()?, puna_wgpu::Options::default())?;
//! # Ok::<(), puna_tensor::Error>(())
//! ```
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod adapter;
mod backend;
mod encoder;
mod faults;
mod launch;
mod memory;
mod ops;
mod pipeline;
mod read;
mod source;
mod view;

pub use adapter::{AdapterInfo, Choice, adapters};
pub use backend::{Limits, Options, adapter, device, memory_use, request, work};
pub use encoder::Work;
pub use memory::MemoryUse;
