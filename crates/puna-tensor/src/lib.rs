//! Tensors, devices and operations: what an op means, apart from how a back end computes it.
//!
//! * [`Tensor`]: a view of a buffer on a [`Device`], with a run-time [`DType`] and [`Shape`]. Cheap to clone.
//! * [`Op`]: every operation as data: its attributes, how result shapes follow ([`Op::infer`]), and for fused ops their
//!   definition in primitives ([`Op::lower`]). All operations pass through one door, [`Op::apply`].
//! * [`Backend`]: what a device must be able to do. This crate knows no back end by name; `puna-cpu` is one.
//! * [`Node`]: what autograd finds on the result of an op with a tracked input.
//!
//! Ops are methods, and every one of them returns a `Result`:
//!
//! ```
//! use puna_tensor::{Device, Result, Tensor};
//!
//! fn softmax_of_scores(q: &Tensor, k: &Tensor) -> Result<Tensor> {
//!     q.matmul(&k.transpose(0, 1)?)?.affine(0.125, 0.0)?.softmax()
//! }
//! ```
#![forbid(unsafe_code)]

mod backend;
mod buffer;
mod device;
mod dtype;
mod error;
mod layout;
mod node;
pub mod op;
mod print;
mod shape;
mod tensor;

pub use backend::{Arrival, Backend, Execution, Recorder, Replay};
pub use buffer::{Buffer, HostBytes};
pub use device::{Device, Lowered, Recording};
pub use dtype::{DType, Element};
pub use error::{Error, Kind, Result};
pub use layout::{Layout, RowOffsets};
pub use node::{Input, Node, is_recording, no_grad, with_grad};
pub use op::Op;
pub use puna_quant::BlockType;
pub use shape::{Axes, MAX_RANK, Shape};
pub use tensor::{Fetch, Tensor, TensorId};
