//! Tensors, devices and operations: what an op means, apart from how a back end computes it.
#![forbid(unsafe_code)]

mod dtype;

pub use dtype::{DType, Element};
pub use puna_quant::BlockType;
