//! Training of Llama models: data, trainer, checkpoints, fine-tuning, distillation.
#![deny(unsafe_code)]

mod error;

pub use error::{Error, Kind, Result};
