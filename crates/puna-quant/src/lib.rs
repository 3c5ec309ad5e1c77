//! Quantised block formats of GGUF: decode, encode, sizes. Plain slices, no tensor.
#![forbid(unsafe_code)]

mod block;

pub use block::BlockType;
