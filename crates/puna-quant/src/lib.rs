//! Quantised block formats, those of GGUF and NF4: decode, encode, sizes. Plain slices, no tensor.
//!
//! ```
//! use puna_quant::{BlockType, decode, encode};
//!
//! let values: Vec<f32> = (0..256).map(|i| (i as f32).sin()).collect();
//! let mut bytes = vec![0; BlockType::Q6K.bytes()];
//! encode(BlockType::Q6K, &values, &mut bytes)?;
//! let mut decoded = vec![0.0; 256];
//! decode(BlockType::Q6K, &bytes, &mut decoded)?;
//! assert!(values.iter().zip(&decoded).all(|(a, b)| (a - b).abs() < 0.05));
//! # Ok::<(), puna_quant::Error>(())
//! ```
#![forbid(unsafe_code)]

mod activation;
mod block;
mod codec;
mod error;
mod fields;
mod k;
mod nf4;
mod simple;

pub use activation::{ACTIVATION_BLOCK, quantize_activations};
pub use block::BlockType;
pub use codec::{decode, decode_fields, encode};
pub use error::{Error, Result};
pub use fields::Fields;
