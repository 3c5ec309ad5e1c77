use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Memory on a device. What it is, only the back end knows; views share it.
#[derive(Clone)]
pub struct Buffer(Arc<Owned<dyn Any + Send + Sync>>);

struct Owned<M: ?Sized> {
    bytes: usize,
    version: AtomicU64,
    memory: M,
}

impl Buffer {
    /// A buffer of `bytes` bytes over a back end's own kind of memory.
    pub fn new<M: Any + Send + Sync>(bytes: usize, memory: M) -> Self {
        Self(Arc::new(Owned { bytes, version: AtomicU64::new(0), memory }))
    }

    /// How many bytes it holds.
    pub fn bytes(&self) -> usize {
        self.0.bytes
    }

    /// The back end's memory, if it is of this kind.
    pub fn memory<M: Any>(&self) -> Option<&M> {
        self.0.memory.downcast_ref()
    }

    /// Whether both are the same memory.
    pub fn is_same(&self, other: &Buffer) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// A number that it shares with what is the same memory alone.
    pub(crate) fn address(&self) -> usize {
        Arc::as_ptr(&self.0).addr()
    }

    /// How many tensors and nodes hold it at this moment.
    pub fn uses(&self) -> usize {
        Arc::strong_count(&self.0)
    }

    /// How many in-place ops have changed it.
    pub fn version(&self) -> u64 {
        self.0.version.load(Ordering::Acquire)
    }

    pub(crate) fn changed(&self) {
        self.0.version.fetch_add(1, Ordering::AcqRel);
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buffer({} bytes)", self.bytes())
    }
}

/// Bytes that live on the host and do not change while they are lent: a mapped file, a vector.
pub trait HostBytes: Send + Sync + 'static {
    /// The bytes.
    fn bytes(&self) -> &[u8];
}

impl<T: AsRef<[u8]> + Send + Sync + 'static> HostBytes for T {
    fn bytes(&self) -> &[u8] {
        self.as_ref()
    }
}
