use puna_tensor::{Result, Tensor, no_grad, op};

use super::Optimizer;
use super::state::{States, scalar};
use crate::Gradients;

/// The constants of [`AdamW`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamWOptions {
    /// The decays of the mean and of the mean square of gradients.
    pub betas: [f64; 2],
    /// What is added to the root of the mean square.
    pub eps: f64,
    /// The weight decay, a share of the weight per unit of the learning rate; on matrices only.
    pub decay: f64,
}

impl Default for AdamWOptions {
    fn default() -> Self {
        Self { betas: [0.9, 0.95], eps: 1e-8, decay: 0.1 }
    }
}

/// Adam with decoupled weight decay: see [`puna_tensor::op::AdamW`] for the formula.
///
/// Moments are f32 (f64 for f64); parameters of half types have f32 masters, which they are the rounding of.
/// Kingma and Ba 2014, arXiv 1412.6980; Loshchilov and Hutter 2017, arXiv 1711.05101.
#[derive(Debug, Default)]
pub struct AdamW {
    options: AdamWOptions,
    states: States<2>,
    steps: u64,
}

const NAMES: [&str; 2] = ["exp_avg", "exp_avg_sq"];

impl AdamW {
    /// One that has taken no step.
    pub fn new(options: AdamWOptions) -> Self {
        Self { options, ..Self::default() }
    }
}

impl Optimizer for AdamW {
    fn step(&mut self, parameters: &[(String, Tensor)], gradients: &Gradients, lr: f64, scale: f64) -> Result<()> {
        let Some((_, first)) = parameters.first() else { return Ok(()) };
        let AdamWOptions { betas: [beta1, beta2], eps, decay } = self.options;
        let (lr, number, scale) = (scalar(lr, first)?, scalar((self.steps + 1) as f64, first)?, scalar(scale, first)?);
        let step = op::AdamW { beta1, beta2, eps, parameters: Vec::new() };
        no_grad(|| step.step(&self.states.inputs(parameters, gradients, decay)?, [&lr, &number, &scale]))?;
        self.steps += 1;
        Ok(())
    }

    fn steps(&self) -> u64 {
        self.steps
    }

    fn state(&self) -> Vec<(String, Tensor)> {
        self.states.list(NAMES)
    }

    fn load_state(&mut self, parameters: &[(String, Tensor)], state: &dyn Fn(&str) -> Option<Tensor>, steps: u64) -> Result<()> {
        self.states = States::read(NAMES, &parameters.iter().collect::<Vec<_>>(), state)?;
        self.steps = steps;
        Ok(())
    }
}
