//! The Llama architecture: config, weights, model, cache, generation, chat.
//!
//! What a checkpoint holds is known without loading it:
//!
//! ```no_run
//! use puna_llama::weights::Checkpoint;
//!
//! let checkpoint = Checkpoint::open("SmolLM2-135M-Instruct-Q4_1.gguf")?;
//! println!("{} layers", checkpoint.config().layers);
//! for tensor in checkpoint.tensors() {
//!     println!("{} {} {:?}", tensor.name, tensor.dtype, tensor.shape);
//! }
//! # Ok::<(), puna_llama::Error>(())
//! ```
#![deny(unsafe_code)]

pub mod config;
mod error;
pub mod names;
pub mod rope;
pub mod weights;

pub use config::{Config, RopeScaling};
pub use error::{Error, Kind, Result};

pub mod chat;
pub mod hub;
