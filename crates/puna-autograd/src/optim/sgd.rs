use puna_tensor::{Result, Tensor, no_grad, op};

use super::Optimizer;
use super::state::{States, scalar};
use crate::Gradients;

/// The constants of [`Sgd`].
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct SgdOptions {
    /// The decay of the sum of gradients; 0: none is kept.
    pub momentum: f64,
    /// The weight decay, added to gradients; on matrices only.
    pub decay: f64,
}

/// Stochastic gradient descent with momentum: see [`puna_tensor::op::Sgd`] for the formula. Sums are f32 (f64 for f64); parameters of half
/// types have f32 masters, which they are the rounding of.
#[derive(Debug, Default)]
pub struct Sgd {
    options: SgdOptions,
    states: States<1>,
    steps: u64,
}

const NAMES: [&str; 1] = ["momentum"];

impl Sgd {
    /// One that has taken no step.
    pub fn new(options: SgdOptions) -> Self {
        Self { options, ..Self::default() }
    }
}

impl Optimizer for Sgd {
    fn step(&mut self, parameters: &[(String, Tensor)], gradients: &Gradients, lr: f64, scale: f64) -> Result<()> {
        let Some((_, first)) = parameters.first() else { return Ok(()) };
        let (lr, scale) = (scalar(lr, first)?, scalar(scale, first)?);
        let step = op::Sgd { momentum: self.options.momentum, parameters: Vec::new() };
        no_grad(|| step.step(&self.states.inputs(parameters, gradients, self.options.decay)?, [&lr, &scale]))?;
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
