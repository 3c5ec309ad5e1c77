//! A model on a device, ready to draw tokens: weights, cache, rotary table.

use std::path::PathBuf;

use puna_tensor::{DType, Device, Tensor, no_grad};

use crate::adapter::Adapter;
use crate::cache::{Cache, CacheOptions};
use crate::config::Config;
use crate::error::Result;
use crate::generate::Batch;
use crate::inputs::{Inputs, Numbers};
use crate::load::{LoadOptions, Progress, Weights};
use crate::model::Llama;
use crate::program::Draws;
use crate::rotary::RotaryTable;
use crate::weights::Checkpoint;

/// A network and what it takes to run it: tokens in, tokens out.
#[derive(Debug)]
pub struct Engine {
    /// The network.
    pub llama: Llama,
    end: Vec<u32>,
    cache: Cache,
    rotary: RotaryTable,
    chunk: usize,
}

impl Engine {
    /// The tokens that end a text.
    pub fn end_tokens(&self) -> &[u32] {
        &self.end
    }

    /// Replaces the tokens that end a text.
    pub fn set_end_tokens(&mut self, end: Vec<u32>) {
        self.end = end;
    }

    /// The cache that all its batches share.
    pub fn cache(&self) -> &Cache {
        &self.cache
    }

    /// The rotary table of the config's own frequencies.
    pub fn rotary(&self) -> &RotaryTable {
        &self.rotary
    }

    /// A batch without sequences, on the engine's cache.
    pub fn batch(&self) -> Batch<'_> {
        Batch::new(&self.llama, &self.cache, &self.rotary, &self.end, self.chunk)
    }
}

/// How a model is loaded: builds an [`Engine`], or a [`Model`](crate::Model) with tokenizer and template.
#[derive(Default)]
pub struct Loader<'a> {
    dtype: Option<DType>,
    activations: Option<DType>,
    pub(crate) tokenizer: Option<PathBuf>,
    adapter: Option<PathBuf>,
    cache_tokens: Option<usize>,
    cache_dtype: Option<DType>,
    chunk: Option<usize>,
    progress: Option<&'a mut dyn FnMut(Progress<'_>)>,
}

impl<'a> Loader<'a> {
    /// A float: every weight becomes this, and it is computed in. Blocks: the matrices of the layers do. By default weights stay as stored and
    /// activations are f32.
    pub fn dtype(mut self, dtype: DType) -> Self {
        self.dtype = Some(dtype);
        self
    }

    /// The dtype between ops.
    pub fn activations(mut self, dtype: DType) -> Self {
        self.activations = Some(dtype);
        self
    }

    /// A tokenizer file in place of the checkpoint's own.
    pub fn tokenizer(mut self, path: impl Into<PathBuf>) -> Self {
        self.tokenizer = Some(path.into());
        self
    }

    /// The folder of an adapter, which goes on top of the network: see [`Llama::load_adapter`].
    pub fn adapter(mut self, folder: impl Into<PathBuf>) -> Self {
        self.adapter = Some(folder.into());
        self
    }

    /// How many tokens the cache holds at most; by default the model's context, four times over. Memory is taken as it fills.
    pub fn cache_tokens(mut self, tokens: usize) -> Self {
        self.cache_tokens = Some(tokens);
        self
    }

    /// The dtype of cached keys and values; by default that of the activations.
    pub fn cache_dtype(mut self, dtype: DType) -> Self {
        self.cache_dtype = Some(dtype);
        self
    }

    /// How many tokens of prompts a step reads at most; results do not depend on it.
    pub fn prefill_chunk(mut self, tokens: usize) -> Self {
        self.chunk = Some(tokens);
        self
    }

    /// Told of each weight that has been loaded.
    pub fn progress(mut self, progress: &'a mut dyn FnMut(Progress<'_>)) -> Self {
        self.progress = Some(progress);
        self
    }

    /// Loads a checkpoint's network.
    ///
    /// Errors: what is missing or wrong in the checkpoint, or the adapter, by name.
    pub fn engine(self, checkpoint: &Checkpoint, device: &Device) -> Result<Engine> {
        // The adapter's headers are read before the weights: what does not fit is told at once.
        let adapter = self.adapter.as_ref().map(Adapter::open).transpose()?;
        self.build(device, adapter.as_ref(), checkpoint.end_tokens(), |device, options| Llama::load(checkpoint, device, options))
    }

    /// A network of weights from elsewhere: drawn at random, or made. What the loader says of tokenizers and adapters is for checkpoints.
    ///
    /// Errors: a tensor that the config asks for and `weights` lacks, by name; no memory.
    pub fn engine_of(self, config: &Config, weights: &dyn Weights, device: &Device) -> Result<Engine> {
        self.build(device, None, Vec::new(), |device, options| Llama::from_weights(config, weights, device, options))
    }

    fn build(
        self,
        device: &Device,
        adapter: Option<&Adapter>,
        end: Vec<u32>,
        load: impl FnOnce(&Device, LoadOptions<'_>) -> Result<Llama>,
    ) -> Result<Engine> {
        let mut silent = |_: Progress<'_>| {};
        let progress = self.progress.unwrap_or(&mut silent);
        let options = LoadOptions { dtype: self.dtype, activations: self.activations, pack: true, progress };
        let mut llama = load(device, options)?;
        if let Some(adapter) = adapter {
            llama.load_adapter(adapter)?;
        }
        let context = llama.config.context_limit().map(|limit| limit.saturating_mul(4));
        let tokens = self.cache_tokens.or(context).unwrap_or(1 << 20);
        let options = CacheOptions { tokens, page_size: 64, dtype: self.cache_dtype.unwrap_or(llama.dtype) };
        let cache = Cache::new(&llama.config, options, device)?;
        let rotary = RotaryTable::base(&llama.config);
        let engine = Engine { llama, end, cache, rotary, chunk: self.chunk.unwrap_or(256).max(1) };
        engine.prepare(device)?;
        Ok(engine)
    }
}

impl Engine {
    /// Has the device compile what steps need: all at once now, and not one by one in the first of them.
    fn prepare(&self, device: &Device) -> Result<()> {
        // Kernels differ by how many rows they are for: of a step that decodes, of a short prompt, of a chunk of a long one.
        let lengths = [1, 48, 512].map(|tokens: usize| tokens.min(self.chunk));
        let mut gone_through = Ok(());
        device.prepare(|| {
            gone_through = no_grad(|| lengths.iter().try_for_each(|tokens| self.go_through(*tokens, device)));
            Ok(())
        })?;
        gone_through
    }

    /// A step of so many tokens, on pages that are nobody's.
    fn go_through(&self, tokens: usize, device: &Device) -> Result<()> {
        let (llama, CacheOptions { page_size, dtype, .. }) = (&self.llama, self.cache.options());
        let inputs = Inputs::new(Numbers::of_one(tokens, page_size), device)?;
        let shape = [tokens.div_ceil(page_size), page_size, llama.config.kv_heads, llama.config.head_dim];
        let pages = (Tensor::zeros(shape, dtype, device)?, Tensor::zeros(shape, dtype, device)?);
        let half = llama.config.head_dim / 2;
        let table = Tensor::zeros([tokens, half], DType::F32, device)?;
        let step = inputs.step(llama, (table.clone(), table), vec![pages; llama.config.layers]);
        let hidden = llama.forward(&inputs.ids, &step)?.gather_rows(inputs.last())?;
        Draws::of(llama, &hidden, &inputs)?;
        Ok(())
    }
}
