//! Training of Llama models: data, trainer, checkpoints, fine-tuning, distillation.
#![deny(unsafe_code)]

pub mod data;
mod error;

pub use data::{Batch, Dataset, Example, Packing};
pub use error::{Error, Kind, Result};
