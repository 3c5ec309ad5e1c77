use puna_tensor::{Op, Result, Tensor, no_grad, op};

use super::Optimizer;
use super::state::{Slots, States, gradient, is_matrix, scalar};
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
        no_grad(|| {
            for (name, weight) in parameters {
                let Slots { slots: [sum], master } = self.states.of(name, weight)?;
                let decay = if is_matrix(weight) { self.options.decay } else { 0.0 };
                let step = Op::Sgd(op::Sgd { momentum: self.options.momentum, decay });
                let moved = master.as_ref().unwrap_or(weight);
                // The tracked leaf may be changed: nothing is recorded here.
                step.apply(&[moved, sum, gradient(gradients, name, weight)?, &lr, &scale])?;
                if let Some(master) = master {
                    weight.assign(&master.cast(weight.dtype())?)?;
                }
            }
            Ok(())
        })?;
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
