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

pub mod adapter;
mod cache;
pub mod chat;
pub mod config;
pub mod convert;
mod engine;
mod error;
mod generate;
pub mod hub;
mod initial;
mod inputs;
mod load;
pub mod model;
mod module;
pub mod names;
mod options;
mod program;
pub mod rope;
mod rotary;
mod step;
mod text;
pub mod weights;

pub use adapter::{Adapter, AdapterConfig};
pub use cache::{Cache, CacheOptions, CachedSequence};
pub use chat::{ChatInput, ChatTemplate, Message};
pub use config::{Config, RopeScaling};
pub use engine::{Engine, Loader};
pub use error::{Error, Kind, Result};
pub use generate::{Batch, Drawn};
pub use initial::InitialWeights;
pub use load::{LoadOptions, Progress, Weights};
pub use model::Llama;
pub use module::Module;
pub use options::{Finish, Options};
pub use puna_tensor::op::SamplingParameters;
pub use rotary::RotaryTable;
pub use step::{Around, LayerFn, Past, Step};
pub use text::{Completion, Conversation, Generation, Model, Piece, Timings};
pub use weights::Checkpoint;
