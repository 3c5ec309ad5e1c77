//! The CPU back end of puna.
//!
//! Every op, every float dtype, any strides, on threads of its own. The same inputs give the same bits, whatever the number of
//! threads, the neighbours in a batch, or the processor's vector width: sums have one order, and the portable version of every
//! kernel is the oracle of the others.
//!
//! ```no_run
//! use puna_tensor::Tensor;
//!
//! let cpu = puna_cpu::device(puna_cpu::Options::default())?;
//! let x = Tensor::from_slice(&[1.0f32, 2.0, 3.0], 3, &cpu)?;
//! println!("{}", x.softmax()?);
//! # Ok::<(), puna_tensor::Error>(())
//! ```

mod backend;
mod memory;
mod ops;
mod pool;
mod pool_slices;
mod room;
mod simd;

pub use backend::{Options, device};
