//! Work as it is recorded and submitted: many kernels to a batch, in one order, their parameters in one buffer.
//!
//! A batch is submitted when somebody reads, waits, or when its parameters fill their room.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use puna_tensor::{Kind, Result};

use crate::faults::Faults;
use crate::launch::Grid;
use crate::pipeline::{PARAMETER_BYTES, Pipeline};
use crate::read::{Reading, Staged};

/// The most bytes of parameters in a batch: some 2,000 kernels.
const BATCH_BYTES: usize = 512 << 10;

/// What a device was given to do since it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Work {
    /// Kernels that were recorded.
    pub kernels: u64,
    /// Batches of them, and of copies, that the driver was given.
    pub submits: u64,
    /// Copies to where the host reads them.
    pub reads: u64,
    /// Their bytes.
    pub bytes_read: u64,
}

pub(crate) struct Encoder {
    device: wgpu::Device,
    queue: wgpu::Queue,
    faults: Faults,
    /// What a batch's kernels read their parameters from: written before each batch, behind the one before.
    parameters: wgpu::Buffer,
    /// How far apart they lie.
    alignment: usize,
    batch: Mutex<Batch>,
    /// The number of the batch that is being recorded.
    number: AtomicU64,
}

#[derive(Default)]
struct Batch {
    encoder: Option<wgpu::CommandEncoder>,
    pass: Option<wgpu::ComputePass<'static>>,
    parameters: Vec<u8>,
    work: Work,
}

impl Encoder {
    pub(crate) fn new(device: &wgpu::Device, queue: &wgpu::Queue, faults: &Faults) -> Self {
        let parameters = device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("parameters"),
            size: BATCH_BYTES as u64 + PARAMETER_BYTES,
            usage: wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        Self {
            device: device.clone(),
            queue: queue.clone(),
            faults: faults.clone(),
            parameters,
            alignment: device.limits().min_uniform_buffer_offset_alignment as usize,
            batch: Mutex::default(),
            number: AtomicU64::new(0),
        }
    }

    fn batch(&self) -> std::sync::MutexGuard<'_, Batch> {
        self.batch.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    pub(crate) fn device(&self) -> &wgpu::Device {
        &self.device
    }

    /// What the device's errors say, and are made by.
    pub(crate) fn faults(&self) -> &Faults {
        &self.faults
    }

    /// What was recorded and submitted so far.
    pub(crate) fn work(&self) -> Work {
        self.batch().work
    }

    /// The number of the batch that is being recorded: what was let go in an earlier one, no work that is to be submitted reads.
    pub(crate) fn number(&self) -> u64 {
        self.number.load(Ordering::Acquire)
    }

    /// Enqueues a kernel. `buffers`: what each binding shows; `words`: its parameters, the offsets first.
    pub(crate) fn launch(
        &self,
        pipeline: &Pipeline,
        buffers: &[wgpu::BufferBinding<'_>],
        words: &[u32],
        grid: Grid,
    ) -> Result<()> {
        let own = wgpu::BufferBinding { buffer: &self.parameters, offset: 0, size: wgpu::BufferSize::new(PARAMETER_BYTES) };
        let entries: Vec<_> = std::iter::once(&own)
            .chain(buffers)
            .enumerate()
            .map(|(i, binding)| wgpu::BindGroupEntry {
                binding: i as u32,
                resource: wgpu::BindingResource::Buffer(binding.clone()),
            })
            .collect();
        let group = self.device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: None,
            layout: &pipeline.layout,
            entries: &entries,
        });
        let bytes: &[u8] = bytemuck::cast_slice(words);
        let mut batch = self.batch();
        if batch.parameters.len() + bytes.len() > BATCH_BYTES {
            self.submit(&mut batch)?;
        }
        let at = batch.parameters.len();
        batch.parameters.extend_from_slice(bytes);
        let end = batch.parameters.len().next_multiple_of(self.alignment);
        batch.parameters.resize(end, 0);
        let pass = batch.pass(&self.device);
        pass.set_pipeline(&pipeline.pipeline);
        pass.set_bind_group(0, &group, &[at as u32]);
        let [x, y, z] = grid.0;
        pass.dispatch_workgroups(x, y, z);
        batch.work.kernels += 1;
        Ok(())
    }

    /// Enqueues a copy of bytes, a whole number of words at places of whole words; the number of its batch.
    pub(crate) fn copy(&self, from: (&wgpu::Buffer, u64), to: (&wgpu::Buffer, u64), bytes: u64) -> u64 {
        let mut batch = self.batch();
        batch.encoder(&self.device).copy_buffer_to_buffer(from.0, from.1, to.0, to.1, bytes);
        self.number()
    }

    /// Submits what is recorded.
    ///
    /// Errors: what the driver says of it, or of anything before.
    pub(crate) fn flush(&self) -> Result<()> {
        self.submit(&mut self.batch())
    }

    /// Writes bytes before all that is recorded: into memory that none of it uses. A part of a word is filled up with zeros.
    ///
    /// Errors: what the driver says of it, or of anything before.
    pub(crate) fn write(&self, buffer: &wgpu::Buffer, at: u64, bytes: &[u8]) -> Result<()> {
        // In pieces, so that the driver's own copies stay small.
        const PIECE: usize = 32 << 20;
        let whole = bytes.len() / 4 * 4;
        for (i, piece) in bytes[..whole].chunks(PIECE).enumerate() {
            self.queue.write_buffer(buffer, at + (i * PIECE) as u64, piece);
            if piece.len() == PIECE {
                self.queue.submit([]);
            }
        }
        if whole < bytes.len() {
            let mut word = [0; 4];
            word[..bytes.len() - whole].copy_from_slice(&bytes[whole..]);
            self.queue.write_buffer(buffer, at + whole as u64, &word);
        }
        self.faults.check()
    }

    /// Begins to read bytes, after all that was enqueued.
    pub(crate) fn read(&self, buffer: &wgpu::Buffer, range: Range<usize>) -> Result<Reading> {
        let staged = self.stage(buffer, range)?;
        self.flush()?;
        Ok(staged.read())
    }

    /// Enqueues a copy of bytes to where the host can read them.
    pub(crate) fn stage(&self, buffer: &wgpu::Buffer, range: Range<usize>) -> Result<Staged> {
        let begin = range.start / 4 * 4;
        let bytes = (range.end.next_multiple_of(4) - begin).max(4);
        let staging = self.faults.scope(&self.device, || {
            self.device.create_buffer(&wgpu::BufferDescriptor {
                label: Some("read back"),
                size: bytes as u64,
                usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
                mapped_at_creation: false,
            })
        });
        let staging = staging.map_err(|(kind, message)| self.faults.error(kind, message))?;
        {
            let work = &mut self.batch().work;
            work.reads += 1;
            work.bytes_read += bytes as u64;
        }
        let number = self.copy((buffer, begin as u64), (&staging, 0), bytes as u64);
        Ok(Staged { buffer: staging, range: range.start - begin..range.end - begin, number })
    }

    /// Submits what is recorded, if the batch of this number is not submitted yet.
    pub(crate) fn flush_number(&self, number: u64) -> Result<()> {
        let mut batch = self.batch();
        if self.number() == number { self.submit(&mut batch) } else { Ok(()) }
    }

    /// Waits for all that was submitted.
    ///
    /// Errors: what the driver says; in a browser, that nothing waits there.
    pub(crate) fn wait(&self) -> Result<()> {
        if cfg!(target_arch = "wasm32") {
            let message = "a browser's thread cannot wait; Tensor::fetch, and Fetch::arrived before its wait, do without";
            return Err(self.faults.error(Kind::Backend, message));
        }
        let waited = self.device.poll(wgpu::PollType::wait_indefinitely());
        self.faults.check()?;
        waited.map_err(|error| self.faults.error(Kind::Backend, error))?;
        Ok(())
    }

    /// Lets the driver tell what it has to tell, without waiting. In a browser it does so by itself.
    pub(crate) fn listen(&self) {
        if !cfg!(target_arch = "wasm32") {
            // A device that is lost says so by its callback.
            let _ = self.device.poll(wgpu::PollType::Poll);
        }
    }

    fn submit(&self, batch: &mut Batch) -> Result<()> {
        drop(batch.pass.take());
        let parameters = std::mem::take(&mut batch.parameters);
        if let Some(encoder) = batch.encoder.take() {
            if !parameters.is_empty() {
                self.queue.write_buffer(&self.parameters, 0, &parameters);
            }
            self.queue.submit([encoder.finish()]);
            batch.work.submits += 1;
        } else {
            // What the host has written is carried out.
            self.queue.submit([]);
        }
        self.number.fetch_add(1, Ordering::AcqRel);
        self.faults.check()
    }
}

impl Batch {
    /// Outside of a pass, where copies are recorded.
    fn encoder(&mut self, device: &wgpu::Device) -> &mut wgpu::CommandEncoder {
        drop(self.pass.take());
        self.encoder.get_or_insert_with(|| device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default()))
    }

    /// Inside of one, where kernels are.
    fn pass(&mut self, device: &wgpu::Device) -> &mut wgpu::ComputePass<'static> {
        if self.pass.is_none() {
            let pass = self.encoder(device).begin_compute_pass(&wgpu::ComputePassDescriptor::default()).forget_lifetime();
            self.pass = Some(pass);
        }
        self.pass.as_mut().expect("just made")
    }
}
