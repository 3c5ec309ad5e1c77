//! The CUDA back end of puna: every op on an NVIDIA card, through kernels that are compiled for the card found.
//!
//! The kernels are those of `puna-kernels`. What runs them is a driver: the card's own, found when a program starts, or (feature
//! `emulator`) one that executes them on the processor, for tests on machines without a card.
//!
//! Compiling needs NVRTC beside the driver, once for each card and kernel. A program built with the feature `prebuilt` needs the driver alone:
//! `cargo xtask cubins DIR` compiles all kernels for all cards, without one, and `PUNA_CUBINS=DIR/puna.cubins cargo build --features prebuilt`
//! (of the crate `puna`: `cuda-prebuilt`) builds them in. What is not among them, or of other sources, is compiled as before.
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
#[cfg(feature = "cubins")]
pub use driver::cubins::{Cubin, Cubins, pack};
#[cfg(feature = "emulator")]
pub use driver::emulator::{Completion, Edit, Mode, Options as EmulatorOptions};
pub use driver::nvrtc::{Compiled, Nvrtc};
pub use memory::MemoryUse;
#[cfg(feature = "cubins")]
pub use units::release_units;
pub use units::{CheckedUnit, units};
