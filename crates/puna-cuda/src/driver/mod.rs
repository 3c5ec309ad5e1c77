//! What runs kernels: a card's driver, or the emulator. One small trait; everything above it is the same for both.

mod cache;
#[cfg(feature = "cubins")]
pub(crate) mod cubins;
pub(crate) mod cuda;
#[cfg(feature = "prebuilt")]
mod embedded;
#[cfg(feature = "emulator")]
pub(crate) mod emulator;
pub(crate) mod nvrtc;

use puna_tensor::{Arrival, Replay, Result};

use crate::launch::{Arguments, Grid};

#[cfg(not(feature = "prebuilt"))]
mod embedded {
    /// Nothing was built in.
    pub(super) fn find(_: &puna_kernels::cuda::Source, _: &[String], _: u32) -> puna_tensor::Result<Option<Vec<u8>>> {
        Ok(None)
    }
}

/// A place in device memory.
pub(crate) type Address = u64;

/// What is known of a card.
#[derive(Debug, Clone)]
pub(crate) struct Card {
    /// Its name, for messages.
    pub(crate) name: String,
    /// The compute capability times ten: 75, 80, 90.
    pub(crate) capability: u32,
    /// How many multiprocessors it has.
    pub(crate) multiprocessors: usize,
}

/// A kernel source with what is defined before it: what is compiled and loaded as one. Unused definitions have empty names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Unit {
    pub(crate) source: &'static str,
    pub(crate) defines: [(&'static str, &'static str); 5],
}

impl Unit {
    /// The definitions in use.
    pub(crate) fn defines(&self) -> impl Iterator<Item = (&'static str, &'static str)> {
        self.defines.into_iter().filter(|(name, _)| !name.is_empty())
    }
}

/// An entry of a loaded unit: what the driver calls it, and the sizes of its parameters in bytes, where that is known.
#[derive(Debug)]
pub(crate) struct Kernel {
    pub(crate) handle: usize,
    pub(crate) entry: &'static str,
    pub(crate) parameters: Option<Vec<usize>>,
}

/// What a device offers. All work of a driver is done in the order in which it was asked for.
///
/// Errors name what failed as the driver says it; the kind is [`Memory`](puna_tensor::Kind::Memory) where there is no room, else
/// [`Backend`](puna_tensor::Kind::Backend).
pub(crate) trait Driver: Send + Sync + 'static {
    /// What is known of the card.
    fn card(&self) -> &Card;

    /// Memory of `bytes` bytes, aligned to 256; `None` where there is no room for it.
    fn alloc(&self, bytes: usize) -> Result<Option<Address>>;

    /// Gives memory back, after all that was asked for before.
    fn free(&self, address: Address) -> Result<()>;

    /// Free and total memory, in bytes.
    fn room(&self) -> Result<(usize, usize)>;

    /// Copies to the device. The bytes may be changed as soon as this returns.
    fn upload(&self, to: Address, bytes: &[u8]) -> Result<()>;

    /// Copies to the host, after all that was asked for before.
    fn download(&self, from: Address, into: &mut [u8]) -> Result<()>;

    /// Begins to copy to the host, after all that was asked for before; what is asked for later may change what lies there.
    fn fetch(&self, from: Address, bytes: usize) -> Result<Box<dyn Arrival>>;

    /// Copies within the device.
    fn copy(&self, to: Address, from: Address, bytes: usize) -> Result<()>;

    /// Compiles (or finds compiled) and loads a unit, and finds an entry in it.
    fn kernel(&self, unit: &Unit, entry: &'static str) -> Result<Kernel>;

    /// Enqueues a kernel. The arguments' sizes have been compared with the kernel's parameters, where those are known.
    fn launch(&self, kernel: &Kernel, grid: &Grid, arguments: &Arguments) -> Result<()>;

    /// Waits for all that was asked for.
    fn synchronize(&self) -> Result<()>;

    /// Until [`end_graph`](Self::end_graph), launches and copies within the device are noted and not done, and nothing else is asked for but
    /// memory.
    fn begin_graph(&self) -> Result<()>;

    /// Ends what [`begin_graph`](Self::begin_graph) began, whatever was refused meanwhile; what was noted, ready to run.
    fn end_graph(&self) -> Result<Box<dyn Replay>>;
}
