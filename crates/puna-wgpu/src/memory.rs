//! Device memory, from a pool: what is let go is used again in the order in which work is enqueued, without asking the driver.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use puna_tensor::{Buffer, Error, Kind, Result};

use crate::encoder::Encoder;
use crate::faults::Faults;

/// A buffer of a device, given back when it is dropped. Work runs in the order in which it is enqueued, so what was enqueued before has
/// read it by the time it is written again.
pub(crate) struct Memory {
    buffer: wgpu::Buffer,
    class: u64,
    pool: Arc<Pool>,
}

impl Memory {
    pub(crate) fn buffer(&self) -> &wgpu::Buffer {
        &self.buffer
    }

    pub(crate) fn pool(&self) -> &Pool {
        &self.pool
    }

    /// The memory behind a buffer.
    pub(crate) fn of(buffer: &Buffer) -> &Self {
        buffer.memory().expect("inference keeps tensors of other devices from this back end")
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        let batch = self.pool.encoder.number();
        let mut state = self.pool.state();
        state.used.allocated -= self.class as usize;
        state.free.entry(self.class).or_default().push((batch, self.buffer.clone()));
    }
}

/// How much memory a device holds, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MemoryUse {
    /// What tensors and work in progress hold.
    pub allocated: usize,
    /// What was taken from the driver: allocated, and kept to be used again.
    pub reserved: usize,
    /// The most that was allocated at once.
    pub peak: usize,
}

pub(crate) struct Pool {
    device: wgpu::Device,
    encoder: Arc<Encoder>,
    faults: Faults,
    /// The largest buffer that there may be.
    largest: u64,
    /// The most that may be reserved.
    limit: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// What is kept, by size, with the batch in which it was let go: work of that batch may still read it.
    free: BTreeMap<u64, Vec<(u64, wgpu::Buffer)>>,
    used: MemoryUse,
}

/// Who writes memory first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum First {
    /// Work that is enqueued: behind all that was before it.
    Enqueued,
    /// The host: before all that is recorded and not yet submitted.
    Host,
}

impl Pool {
    pub(crate) fn new(device: &wgpu::Device, encoder: &Arc<Encoder>, faults: &Faults, limit: Option<usize>) -> Arc<Self> {
        Arc::new(Self {
            device: device.clone(),
            encoder: encoder.clone(),
            faults: faults.clone(),
            largest: device.limits().max_buffer_size,
            limit: limit.unwrap_or(usize::MAX),
            state: Mutex::default(),
        })
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How much is held.
    pub(crate) fn used(&self) -> MemoryUse {
        self.state().used
    }

    /// What records the device's work.
    pub(crate) fn encoder(&self) -> &Encoder {
        &self.encoder
    }

    /// Memory of `bytes` bytes, with any content.
    ///
    /// Errors: [`Kind::Memory`], with what was asked for and the limit; the device works on.
    pub(crate) fn alloc(self: &Arc<Self>, bytes: usize, first: First) -> Result<Memory> {
        let class = class(bytes as u64);
        let Some(class) = class.filter(|class| *class <= self.largest || bytes as u64 <= self.largest) else {
            let message = format!("a buffer of {bytes} bytes is beyond the {} that there are at most in one", self.largest);
            return Err(self.faults.error(Kind::Memory, message));
        };
        let class = class.min(self.largest & !3);
        let batch = self.encoder.number();
        let mut state = self.state();
        let kept = state.free.get_mut(&class).and_then(|free| {
            let at = free.iter().rposition(|(since, _)| first == First::Enqueued || *since < batch)?;
            Some(free.swap_remove(at).1)
        });
        let buffer = match kept {
            Some(buffer) => buffer,
            None => self.reserve(&mut state, class).map_err(|error| match error {
                Some(error) => error,
                None => self.no_room(bytes, &state.used),
            })?,
        };
        state.used.allocated += class as usize;
        state.used.peak = state.used.peak.max(state.used.allocated);
        drop(state);
        Ok(Memory { buffer, class, pool: self.clone() })
    }

    /// From the driver; where it has no room, after what is kept was given back. `None` as an error: there is no room.
    fn reserve(&self, state: &mut State, class: u64) -> std::result::Result<wgpu::Buffer, Option<Error>> {
        if state.used.reserved.saturating_add(class as usize) > self.limit {
            release(state);
            if state.used.reserved.saturating_add(class as usize) > self.limit {
                return Err(None);
            }
        }
        let create = || {
            self.faults.scope(&self.device, || {
                self.device.create_buffer(&wgpu::BufferDescriptor {
                    label: None,
                    size: class,
                    usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST,
                    mapped_at_creation: false,
                })
            })
        };
        let buffer = match create() {
            Err((Kind::Memory, _)) if release(state) => create(),
            other => other,
        };
        match buffer {
            Ok(buffer) => {
                state.used.reserved += class as usize;
                Ok(buffer)
            }
            Err((Kind::Memory, _)) => Err(None),
            Err((kind, message)) => Err(Some(self.faults.error(kind, message))),
        }
    }

    fn no_room(&self, bytes: usize, used: &MemoryUse) -> Error {
        let gib = |bytes: usize| bytes as f64 / (1u64 << 30) as f64;
        let limit = if self.limit == usize::MAX { String::new() } else { format!(", limit {:.2} GiB", gib(self.limit)) };
        let message =
            format!("no room for {:.2} GiB ({bytes} bytes); this device holds {:.2} GiB{limit}", gib(bytes), gib(used.allocated));
        self.faults.error(Kind::Memory, message)
    }
}

/// Gives back what is kept; whether that was anything. The driver keeps what work in progress still reads.
fn release(state: &mut State) -> bool {
    let free = std::mem::take(&mut state.free);
    state.used.reserved -= free.iter().map(|(class, buffers)| *class as usize * buffers.len()).sum::<usize>();
    !free.is_empty()
}

/// The next size class: an eighth of a power of two apart, 256 bytes at least.
fn class(bytes: u64) -> Option<u64> {
    let step = (bytes.checked_next_power_of_two()? / 16).max(256);
    bytes.max(1).checked_next_multiple_of(step)
}

#[cfg(test)]
mod tests {
    use super::class;

    #[test]
    fn classes_are_no_more_than_an_eighth_larger() {
        for bytes in [0, 1, 255, 256, 257, 5000, 1 << 20, (1 << 20) + 1, 3_000_000_001] {
            let class = class(bytes).unwrap();
            assert!(
                class >= bytes && class % 256 == 0 && (class <= 4096 || class as f64 <= bytes as f64 * 1.125),
                "{bytes} {class}"
            );
        }
        assert_eq!(class(u64::MAX), None);
    }
}
