//! Training of Llama models: data, trainer, checkpoints, fine-tuning, distillation.
//!
//! | feature | what it adds |
//! | --- | --- |
//! | `plot` | `plot`: a picture of the loss |
#![deny(unsafe_code)]
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod data;
mod distill;
mod dpo;
mod error;
pub mod loss;
#[cfg(feature = "plot")]
pub mod plot;
pub mod trainer;

pub use data::{Batch, Dataset, Example, Overlong, Packed, Packing, Preferences};
pub use distill::{Distillation, StoredTeacher};
pub use dpo::Dpo;
pub use error::{Error, Kind, Result};
pub use trainer::{Event, Objective, Record, Report, Rewards, TrainOptions, Trainer};
