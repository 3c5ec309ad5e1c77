//! Gradients of recorded tensor operations, and optimisers.
//!
//! `puna-tensor` records: an op on a [tracked](puna_tensor::Tensor::tracked) tensor leaves a node on its result. This crate walks the
//! nodes back, from the last to the first, and asks `rules/` (one file per op family) for the gradients of each op's inputs.
//!
//! ```no_run
//! use puna_autograd::backward;
//! # use puna_tensor::{Result, Tensor};
//! # fn step(x: &Tensor, labels: &Tensor, weight: &Tensor) -> Result<()> {
//! let weight = weight.tracked();
//! let (sum, _count) = x.linear_cross_entropy(&weight, labels)?;
//! let gradients = backward(&sum)?;
//! println!("{:?}", gradients.get(&weight));
//! # Ok(())
//! # }
//! ```
//!
//! A backward pass lets go of what each op saved as soon as it has passed it: the same graph is not walked twice. Derivatives are
//! themselves not recorded: there are no second ones.
#![forbid(unsafe_code)]

mod checkpoint;
mod gradients;
pub mod optim;
mod rules;
mod walk;

pub use checkpoint::checkpoint;
pub use gradients::Gradients;
pub use walk::{backward, grad};
