//! The CUDA back end of puna: every op on an NVIDIA card, through kernels that are compiled for the card found.
//!
//! The kernels are those of `puna-kernels`. What runs them is a driver: the card's own, found when a program starts, or (feature
//! `emulator`) one that executes them on the processor, for tests on machines without a card.
#![warn(missing_docs)]

mod backend;
mod blocks;
mod driver;
mod launch;
mod memory;
mod ops;
mod queue;
mod units;
mod view;

pub use backend::{Options, device, memory_use};
#[cfg(feature = "emulator")]
pub use backend::{emulated, emulated_with};
#[cfg(feature = "emulator")]
pub use driver::emulator::{Completion, Edit, Mode, Options as EmulatorOptions};
pub use driver::nvrtc::{Compiled, Nvrtc};
pub use memory::MemoryUse;
pub use units::{CheckedUnit, units};
