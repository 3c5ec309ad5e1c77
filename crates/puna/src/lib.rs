//! Run, fine-tune and serve Meta's Llama models: one crate to add.
//!
//! ```no_run
//! use puna::prelude::*;
//!
//! let model = Model::load("HuggingFaceTB/SmolLM2-135M-Instruct", &puna::device("auto")?)?;
//! for piece in model.chat(&[Message::user("What is the capital of France?")], &Options::default())? {
//!     print!("{}", piece?.text);
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The model is a folder, a file (GGUF, safetensors, `.pth`) or a name in the Hub's cache; its weights stay as they are stored,
//! f32 or Q4_K. The forward pass is one file: [`llama::model`].
//!
//! | feature | what it adds |
//! | --- | --- |
//! | `cpu` (default) | the CPU back end |
//! | `cuda` | the CUDA back end |
//! | `cuda-prebuilt` | its kernels built in: a machine with the driver alone runs them |
//! | `wgpu` | the back end of all other GPUs: Vulkan, Metal, Direct3D |
//! | `train` | gradients, optimisers, data sets, trainer |
//! | `plot` | a picture of a training's loss |
//! | `hub` | downloads from the Hugging Face Hub; its cache is read without it |
#![forbid(unsafe_code)]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod device;

#[cfg(feature = "train")]
pub use puna_autograd as autograd;
#[cfg(feature = "cpu")]
pub use puna_cpu as cpu;
#[cfg(feature = "cuda")]
pub use puna_cuda as cuda;
pub use puna_llama as llama;
pub use puna_tensor as tensor;
pub use puna_tokenizer as tokenizer;
#[cfg(feature = "train")]
pub use puna_train as train;
#[cfg(feature = "wgpu")]
pub use puna_wgpu as wgpu;

pub use device::{DeviceError, device, device_with_threads};

/// What most programs use.
pub mod prelude {
    pub use crate::device;
    pub use puna_llama::{Message, Model, Options, SamplingParameters};
    pub use puna_tensor::{DType, Device, Tensor};
}
