//! Compiled kernels, by what they were compiled from.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use puna_tensor::Result;

use crate::faults::Faults;
use crate::source::{Access, Assembled, OFFSET_WORDS, Unit, assemble};

/// A kernel, ready to be started.
pub(crate) struct Pipeline {
    pub(crate) pipeline: wgpu::ComputePipeline,
    pub(crate) layout: wgpu::BindGroupLayout,
    /// What it does with each buffer.
    pub(crate) accesses: Vec<Access>,
    /// The words of its parameters, without the offsets before them.
    pub(crate) words: usize,
}

/// The bytes of parameters that a kernel sees.
pub(crate) const PARAMETER_BYTES: u64 = 512;

pub(crate) struct Pipelines {
    device: wgpu::Device,
    faults: Faults,
    known: RwLock<HashMap<(Unit, &'static str), Arc<Pipeline>>>,
}

impl Pipelines {
    pub(crate) fn new(device: &wgpu::Device, faults: &Faults) -> Self {
        Self { device: device.clone(), faults: faults.clone(), known: RwLock::default() }
    }

    /// The kernel of this unit and name, compiled when it is first asked for.
    ///
    /// Errors: the driver refuses it, with its words and the adapter's name.
    pub(crate) fn get(&self, unit: &Unit, entry: &'static str) -> Result<Arc<Pipeline>> {
        let key = (*unit, entry);
        if let Some(pipeline) = self.known.read().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return Ok(pipeline.clone());
        }
        // Two threads may both find it missing: what the second compiles is the same.
        let pipeline = Arc::new(self.compile(unit, entry)?);
        self.known.write().unwrap_or_else(PoisonError::into_inner).insert(key, pipeline.clone());
        Ok(pipeline)
    }

    fn compile(&self, unit: &Unit, entry: &'static str) -> Result<Pipeline> {
        self.build(assemble(unit, entry), unit.source, entry)
    }

    #[cfg(test)]
    pub(crate) fn build_text(&self, text: &str, source: &str, entry: &'static str) -> Result<Pipeline> {
        self.build(Assembled { text: text.to_owned(), bindings: Vec::new(), words: 0 }, source, entry)
    }

    fn build(&self, assembled: Assembled, source: &str, entry: &'static str) -> Result<Pipeline> {
        let Assembled { text, bindings, words } = assembled;
        assert!(((OFFSET_WORDS + words) * 4) as u64 <= PARAMETER_BYTES, "{entry} of {source}: parameters fit their room");
        let accesses = bindings.iter().map(|(access, _)| *access).collect();
        let label = Some(entry);
        let entries: Vec<_> = std::iter::once(wgpu::BufferBindingType::Uniform)
            .chain(bindings.iter().map(|(access, _)| wgpu::BufferBindingType::Storage { read_only: *access == Access::Read }))
            .enumerate()
            .map(|(place, ty)| wgpu::BindGroupLayoutEntry {
                binding: place as u32,
                visibility: wgpu::ShaderStages::COMPUTE,
                ty: wgpu::BindingType::Buffer { ty, has_dynamic_offset: place == 0, min_binding_size: None },
                count: None,
            })
            .collect();
        let compile = || {
            let source = wgpu::ShaderSource::Wgsl(Cow::Owned(text));
            let module = self.device.create_shader_module(wgpu::ShaderModuleDescriptor { label, source });
            let layout = self.device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label, entries: &entries });
            let pipeline_layout = self.device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
                label,
                bind_group_layouts: &[Some(&layout)],
                immediate_size: 0,
            });
            let pipeline = self.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                label,
                layout: Some(&pipeline_layout),
                module: &module,
                entry_point: label,
                // Kernels write shared memory before they read it.
                compilation_options: wgpu::PipelineCompilationOptions {
                    zero_initialize_workgroup_memory: false,
                    ..wgpu::PipelineCompilationOptions::default()
                },
                cache: None,
            });
            Pipeline { pipeline, layout, accesses, words }
        };
        let built = self.faults.scope(&self.device, compile);
        built.map_err(|(kind, message)| self.faults.error(kind, format!("refuses the kernel {entry} of {source}: {message}")))
    }
}
