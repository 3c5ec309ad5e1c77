//! Data to train on: text, instructions, conversations and preferences, as tokens in packed rows.
//!
//! ```no_run
//! use puna_llama::Model;
//! use puna_train::data::{Dataset, Overlong, Packing};
//!
//! # fn train(device: &puna_tensor::Device) -> Result<(), Box<dyn std::error::Error>> {
//! let model = Model::load("SmolLM2-135M-Instruct", device)?;
//! let data = Dataset::from_jsonl("chats.jsonl", &model.tokenizer, model.chat_template.as_ref())?;
//! let (train, held_out) = data.split(0.05, 1)?;
//! let train = train.pack(1024, Packing::Whole(Overlong::Refuse))?;
//! for batch in train.batches(1, 4)?.take(100) {
//!     let batch = batch?;
//!     println!("{} tokens in {} sequences, {} count", batch.tokens(), batch.sequences(), batch.counted());
//! }
//! # Ok(()) }
//! ```
//!
//! A corpus is tokenized once and mapped ([`Tokenize::store`], [`Dataset::open`]); what is shuffled are rows, by a [`Permutation`]
//! that takes no memory, so that a [`Position`] of four numbers is all that a checkpoint needs to go on exactly.

mod batch;
mod chat;
mod dataset;
mod encode;
mod example;
mod generation;
mod lines;
mod pack;
mod permutation;
mod preference;
mod record;
mod sampler;
mod text;
mod token_file;
mod token_writer;

pub use batch::Batch;
pub use dataset::{Dataset, Progress, Tokenize};
pub use example::{Example, IGNORED};
pub use pack::{Batches, InOrder, Overlong, Packed, Packing, WINDOW};
pub use permutation::Permutation;
pub use preference::{Pair, PairBatches, Preferences};
pub use sampler::{Position, Sampler};
pub use token_file::TokenFile;
pub use token_writer::write_tokens;
