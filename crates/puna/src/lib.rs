//! Run, fine-tune and serve Meta's Llama models: one crate to add.
#![forbid(unsafe_code)]
