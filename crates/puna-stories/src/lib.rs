//! A small Llama that tells stories, trained from nothing by this library: a model that is there without a download.
//!
//! What it is, what it was trained on, with which commands, and how well it writes: the crate's README, which is its model card.
#![forbid(unsafe_code)]

/// The model as a GGUF file: weights in 8-bit blocks, tokenizer, config. `Checkpoint::from_gguf("puna-stories", MODEL.to_vec())` opens it.
pub const MODEL: &[u8] = include_bytes!("../model/puna-stories.gguf");
