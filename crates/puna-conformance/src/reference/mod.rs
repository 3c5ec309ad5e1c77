//! The naive reference: every op as plain loops in f64, from its documented formula. It shares no code with any back end, nor
//! with the ops' lowerings.

mod attention;
mod elementwise;
mod index;
mod loss;
mod matmul;
mod mlp;
mod norm;
mod optimizer;
mod random;
mod reduce;
mod rope;
mod rounding;
mod sampling;
mod softmax;

pub use attention::{AttentionBackwardInputs, AttentionGrads, Pages, attention, attention_backward, paged_attention};
pub use elementwise::{affine, binary, binary_integers, broadcast_shape, compare, erf, select, unary, unary_integers};
pub use index::{gather_rows, scatter_add_rows, scatter_rows, take, take_backward};
pub use loss::{cross_entropy, cross_entropy_backward};
pub use matmul::{Adapter, Layer, int8_blocks, linear, linear_input_grad, matmul};
pub use mlp::{GatedMlpResult, gated_mlp, swiglu, swiglu_backward};
pub use norm::{rms_norm, rms_norm_backward};
pub use optimizer::{AdamWState, adamw, sgd};
pub use random::{gumbel, normal, philox, uniform, word};
pub use reduce::{arg_reduce, cum_sum, reduce, reduce_integers, reduced_shape, sort};
pub use rope::{rope, rope_and_cache};
pub use rounding::{format, round, round_all, smallest, unit, wrap};
pub use sampling::{SampleRow, Sampled, sample};
pub use softmax::{log_softmax, log_sum_exp, softmax};

use crate::Array;

/// Values that are sums, and for each the sum of its terms' absolute values: what rounding errors are relative to.
#[derive(Debug, Clone)]
pub struct Sums {
    /// The sums.
    pub value: Array,
    /// The sums of absolute values.
    pub magnitude: Array,
}

impl Sums {
    /// Sums formed one by one: `(sum, sum of absolute values)` at each index.
    pub fn from_fn(shape: &[usize], mut f: impl FnMut(&[usize]) -> (f64, f64)) -> Self {
        let pairs = Array::from_fn(shape, |index| f(index));
        Self { value: pairs.map(|p| p.0), magnitude: pairs.map(|p| p.1) }
    }
}

/// A sum and the sum of absolute values of terms.
pub(crate) fn add_up(terms: impl IntoIterator<Item = f64>) -> (f64, f64) {
    terms.into_iter().fold((0.0, 0.0), |(sum, size), term| (sum + term, size + term.abs()))
}
