//! What one forward step computes: which tokens of which sequences, at which positions, on top of what.

use puna_tensor::op::{Activations, RopePairs};
use puna_tensor::{Device, Tensor};

use crate::error::Result;

/// One forward step: several tokens of several sequences, packed one behind the other. All of it lies on the device, so that a
/// recorded step can serve the next one.
#[derive(Debug, Clone)]
pub struct Step {
    /// `[tokens]` u32: each token's row of `cos` and `sin`.
    pub positions: Tensor,
    /// `[rows, head_dim / 2]`: cosines of the rotary angles, made on the host in f64.
    pub cos: Tensor,
    /// As `cos`.
    pub sin: Tensor,
    /// Which elements of a head turn together.
    pub pairs: RopePairs,
    /// `[sequences + 1]` u32: where each sequence's tokens begin.
    pub starts: Tensor,
    /// What the sequences have behind them.
    pub past: Past,
    /// How activations are read beside quantised weights.
    pub activations: Activations,
}

/// What the sequences of a step have behind them.
#[derive(Debug, Clone)]
pub enum Past {
    /// Nothing: keys and values go to attention as they are. What training uses.
    None,
    /// A cache, which the step writes its keys and values into.
    Cache {
        /// Keys and values of each layer, `[pages, page_size, kv_heads, head_dim]`.
        pages: Vec<(Tensor, Tensor)>,
        /// `[sequences, n]` u32: the pages of each sequence, in order.
        page_table: Tensor,
        /// `[sequences]` u32: how many keys each sequence has, this step's included.
        lengths: Tensor,
        /// `[tokens]` u32: where each token's key and value go, `page * page_size + place`.
        slots: Tensor,
    },
}

/// Numbers as a u32 tensor.
pub(crate) fn indices(values: &[u32], device: &Device) -> Result<Tensor> {
    Ok(Tensor::from_slice(values, values.len(), device)?)
}
