//! What a model is before it has learnt anything.

use puna_tensor::op::{Distribution, Random};
use puna_tensor::{DType, Device, Tensor};

use crate::config::Config;
use crate::error::Result;
use crate::load::Weights;

/// Weights to begin training with: norms are ones, biases zeros, matrices normal with a standard deviation of `deviation`, those
/// that write into the residual stream (`o_proj`, `down_proj`) of `deviation / sqrt(2 * layers)`, so that the stream does not grow
/// with depth (Radford and others 2019). f32, and a function of the seed: the same on every device.
///
/// ```no_run
/// # use puna_llama::{Config, InitialWeights, Llama, LoadOptions};
/// # fn make(config: Config, device: puna_tensor::Device) -> puna_llama::Result<Llama> {
/// let options = LoadOptions { dtype: None, activations: None, pack: false, progress: &mut |_| {} };
/// Llama::from_weights(&config, &InitialWeights::new(&config, 7), &device, options)
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct InitialWeights {
    /// Of what a seed makes, which.
    pub seed: u64,
    /// The standard deviation of most matrices: 0.02 by default.
    pub deviation: f64,
    layers: usize,
    /// The tensors' names, in the order of the model: a tensor's numbers depend on its place among them.
    names: Vec<String>,
}

impl InitialWeights {
    /// Those of a model of this config.
    pub fn new(config: &Config, seed: u64) -> Self {
        let names = config.tensors().into_iter().map(|(name, _)| name).collect();
        Self { seed, deviation: 0.02, layers: config.layers, names }
    }
}

impl Weights for InitialWeights {
    fn tensor(&self, name: &str, shape: &[usize], device: &Device) -> Result<Tensor> {
        let &[rows, columns] = shape else {
            let value = if name.ends_with("bias") { 0.0 } else { 1.0 };
            return Ok(Tensor::full(value, shape[0], DType::F32, device)?);
        };
        let place = self.names.iter().position(|other| other == name).unwrap_or(self.names.len()) as u64;
        // Every tensor has a seed of its own, far from its neighbours'.
        let seed = self.seed ^ (place + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let seeds = Tensor::from_slice(&[seed as u32, (seed >> 32) as u32], [1, 2], device)?.broadcast([rows, 2])?;
        let normal = Random { distribution: Distribution::Normal, columns };
        let writes_into_stream = name.contains("o_proj") || name.contains("down_proj");
        let scale = if writes_into_stream { 1.0 / (2.0 * self.layers as f64).sqrt() } else { 1.0 };
        Ok(normal.draw(&seeds, &Tensor::arange(rows, device)?)?.affine(self.deviation * scale, 0.0)?)
    }
}
