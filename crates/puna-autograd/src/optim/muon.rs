use puna_tensor::{Result, Tensor, no_grad};

use super::state::{Slots, States, gradient};
use super::{AdamW, AdamWOptions, Optimizer};
use crate::Gradients;

/// The constants of [`Muon`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MuonOptions {
    /// The decay of the sum of gradients.
    pub momentum: f64,
    /// The weight decay of the matrices, a share of the weight per unit of the learning rate.
    pub decay: f64,
    /// What the learning rate is multiplied by for the parameters that AdamW moves.
    pub adamw_lr: f64,
    /// The constants of AdamW.
    pub adamw: AdamWOptions,
}

impl Default for MuonOptions {
    fn default() -> Self {
        Self { momentum: 0.95, decay: 0.1, adamw_lr: 1.0, adamw: AdamWOptions::default() }
    }
}

/// Momentum, orthogonalised by Newton and Schulz, for the matrices inside the layers; AdamW for all others: embedding, head, norms, biases.
///
/// With `g = scale * gradient`: `b = momentum b + g`, `u = g + momentum b` (Nesterov), `o` about `u (u^T u)^(-1/2)`,
/// `w = w - lr * decay * w - lr * 0.2 sqrt(max(rows, columns)) o`: with that factor an update is as large as AdamW's, whose learning rates serve.
///
/// Jordan 2024, "Muon: an optimizer for hidden layers in neural networks"; the factor: Liu and others 2025, arXiv 2502.16982.
#[derive(Debug, Default)]
pub struct Muon {
    options: MuonOptions,
    states: States<1>,
    adamw: AdamW,
    steps: u64,
}

const NAMES: [&str; 1] = ["momentum"];

/// The quintic whose repetition brings singular values to about 1, from anywhere in (0, 1], in five rounds.
const QUINTIC: [f64; 3] = [3.4445, -4.7750, 2.0315];
const ROUNDS: usize = 5;

impl Muon {
    /// One that has taken no step.
    pub fn new(options: MuonOptions) -> Self {
        Self { options, adamw: AdamW::new(options.adamw), ..Self::default() }
    }
}

/// Whether it is a matrix inside a layer.
fn is_hidden(name: &str, parameter: &Tensor) -> bool {
    parameter.rank() == 2 && !name.contains("embed_tokens") && !name.contains("lm_head")
}

/// About `u (u^T u)^(-1/2)`: the same singular vectors, with singular values near 1 (0.7 to 1.2). f32 (f64 for f64).
fn orthogonal(u: &Tensor) -> Result<Tensor> {
    let tall = u.dim(0) > u.dim(1);
    let mut x = if tall { u.transpose(0, 1)? } else { u.clone() };
    let norm = x.square()?.sum_all()?.sqrt()?.affine(1.0, 1e-7)?;
    x = x.div(&norm)?;
    let [a, b, c] = QUINTIC;
    for _ in 0..ROUNDS {
        let square = x.matmul(&x.transpose(0, 1)?)?;
        let polynomial = square.affine(b, 0.0)?.add(&square.matmul(&square)?.affine(c, 0.0)?)?;
        x = x.affine(a, 0.0)?.add(&polynomial.matmul(&x)?)?;
    }
    if tall { x.transpose(0, 1) } else { Ok(x) }
}

impl Optimizer for Muon {
    fn step(&mut self, parameters: &[(String, Tensor)], gradients: &Gradients, lr: f64, scale: f64) -> Result<()> {
        let (hidden, others): (Vec<_>, Vec<_>) = parameters.iter().cloned().partition(|(name, tensor)| is_hidden(name, tensor));
        let MuonOptions { momentum, decay, adamw_lr, .. } = self.options;
        no_grad(|| {
            for (name, weight) in &hidden {
                let Slots { slots: [sum], master } = self.states.of(name, weight)?;
                let g = gradient(gradients, name, weight)?.cast(sum.dtype())?.affine(scale, 0.0)?;
                sum.assign(&sum.affine(momentum, 0.0)?.add(&g)?)?;
                let update = orthogonal(&g.add(&sum.affine(momentum, 0.0)?)?)?;
                let size = 0.2 * (weight.dim(0).max(weight.dim(1)) as f64).sqrt();
                let moved = master.as_ref().unwrap_or(weight);
                moved.assign(&moved.affine(1.0 - lr * decay, 0.0)?.sub(&update.affine(lr * size, 0.0)?)?)?;
                if let Some(master) = master {
                    weight.assign(&master.cast(weight.dtype())?)?;
                }
            }
            Result::Ok(())
        })?;
        self.adamw.step(&others, gradients, lr * adamw_lr, scale)?;
        self.steps += 1;
        Ok(())
    }

    fn steps(&self) -> u64 {
        self.steps
    }

    fn state(&self) -> Vec<(String, Tensor)> {
        self.states.list(NAMES).into_iter().chain(self.adamw.state()).collect()
    }

    fn load_state(&mut self, parameters: &[(String, Tensor)], state: &dyn Fn(&str) -> Option<Tensor>, steps: u64) -> Result<()> {
        let (hidden, others): (Vec<_>, Vec<_>) = parameters.iter().partition(|(name, tensor)| is_hidden(name, tensor));
        let states = States::read(NAMES, &hidden, state)?;
        let others: Vec<(String, Tensor)> = others.into_iter().cloned().collect();
        self.adamw.load_state(&others, state, steps)?;
        (self.states, self.steps) = (states, steps);
        Ok(())
    }
}
