//! Checkpoints on disk: described, not loaded. Files are mapped; a tensor's bytes are read when they are asked for.

mod checkpoint;
pub mod gguf;
mod layouts;
pub mod mmap;
mod pickle;
pub mod pth;
pub mod safetensors;
mod tensor;
pub mod write;
mod zip;

pub use checkpoint::{Checkpoint, Format, GenerationConfig, TokenizerSource};
pub use gguf::GgufTokenizer;
pub use tensor::{Part, StoredType, TensorInfo, reorder_pairs};
