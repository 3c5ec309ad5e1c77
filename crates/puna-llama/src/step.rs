//! What one forward step computes: which tokens of which sequences, at which positions, on top of what.

use std::fmt;
use std::sync::Arc;

use puna_tensor::op::{Activations, RopePairs};
use puna_tensor::{Device, Tensor};

use crate::error::{Error, Result};
use crate::model::Llama;
use crate::rotary::RotaryTable;

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
    /// `[pairs, 2]` u32: the seeds of the dropout in front of adapters, as [`Llama::dropout_seeds`] gives them. Without them nothing is
    /// dropped, as everywhere but in training.
    pub dropout: Option<Tensor>,
    /// What runs each layer, where it does not simply run: training computes layers again to save memory.
    pub around: Option<Around>,
}

/// A layer as a function: the residual stream and its normed copy to what they become.
pub type LayerFn = Box<dyn Fn(&[Tensor]) -> puna_tensor::Result<Vec<Tensor>> + Send + Sync>;

/// Runs a layer, in whatever way it likes, with the results that the layer gives.
#[derive(Clone)]
pub struct Around(Arc<AroundFn>);

type AroundFn = dyn Fn(LayerFn, &[&Tensor]) -> puna_tensor::Result<Vec<Tensor>> + Send + Sync;

impl Around {
    /// Calls `run` with each layer and its arguments.
    pub fn new(run: impl Fn(LayerFn, &[&Tensor]) -> puna_tensor::Result<Vec<Tensor>> + Send + Sync + 'static) -> Self {
        Self(Arc::new(run))
    }

    pub(crate) fn run(&self, layer: LayerFn, inputs: [&Tensor; 2]) -> puna_tensor::Result<[Tensor; 2]> {
        let results = (self.0)(layer, &inputs)?;
        let count = results.len();
        results.try_into().map_err(|_| {
            let message = format!("what runs the layers gave {count} results; a layer gives the stream and its norm");
            puna_tensor::Error::new(puna_tensor::Kind::Argument, "layer", message)
        })
    }
}

impl fmt::Debug for Around {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Around")
    }
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

impl Step {
    /// A step over whole sequences, packed one behind the other, with nothing behind them: what training uses. `starts`: where
    /// each sequence begins, ascending from 0, and behind them the end; each sequence's positions count from 0.
    ///
    /// `table` grows as positions ask for it: keep one.
    ///
    /// Errors: starts that do not ascend from 0; a sequence longer than the model's context.
    pub fn packed(llama: &Llama, table: &RotaryTable, starts: &[u32]) -> Result<Self> {
        if starts.first() != Some(&0) || !starts.is_sorted() {
            return Err(Error::argument("starts", format!("{starts:?} do not ascend from 0")));
        }
        let device = llama.model.norm.weight.device();
        let lengths = || starts.windows(2).map(|pair| pair[1] - pair[0]);
        let longest = lengths().max().unwrap_or(0) as usize;
        if let Some(limit) = llama.config.context_limit().filter(|limit| longest > *limit) {
            return Err(Error::context_full(longest, limit));
        }
        let (cos, sin) = table.rows(longest, device)?;
        let positions: Vec<u32> = lengths().flat_map(|length| 0..length).collect();
        Ok(Self {
            positions: indices(&positions, device)?,
            cos,
            sin,
            pairs: llama.config.rope_pairs,
            starts: indices(starts, device)?,
            past: Past::None,
            activations: llama.activations,
            dropout: None,
            around: None,
        })
    }
}

/// Numbers as a u32 tensor.
pub(crate) fn indices(values: &[u32], device: &Device) -> Result<Tensor> {
    Ok(Tensor::from_slice(values, values.len(), device)?)
}
