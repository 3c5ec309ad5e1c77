//! Training of Llama models: data, trainer, checkpoints, fine-tuning, distillation.
#![deny(unsafe_code)]

pub mod data;
mod error;
pub mod trainer;

pub use data::{Batch, Dataset, Example, Overlong, Packed, Packing, Preferences};
pub use error::{Error, Kind, Result};
pub use trainer::{Event, Record, Report, TrainOptions, Trainer};
