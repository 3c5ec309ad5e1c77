//! Optimisers, clipping, and schedules of the learning rate.
//!
//! An optimiser changes parameters in place: tracked leaves, each under its name. Its state is found by that name, so that it
//! survives saving and loading to the bit.

mod adamw;
mod clip;
mod muon;
mod schedule;
mod sgd;
mod state;

use puna_tensor::{Result, Tensor};

pub use adamw::{AdamW, AdamWOptions};
pub use clip::{Clipped, clip};
pub use muon::{Muon, MuonOptions};
pub use schedule::Schedule;
pub use sgd::{Sgd, SgdOptions};

use crate::Gradients;

/// What moves parameters along their gradients.
pub trait Optimizer: Send {
    /// One step: changes each parameter in place. `lr` is the learning rate of this step; `scale` the factor on the gradients
    /// (clipping, averaging).
    ///
    /// Errors: a parameter without a gradient, by name; what the device says.
    fn step(&mut self, parameters: &[(String, Tensor)], gradients: &Gradients, lr: f64, scale: f64) -> Result<()>;

    /// How many steps have been taken.
    fn steps(&self) -> u64;

    /// What it remembers, each under the parameter's name and its own: `model.norm.weight.exp_avg`.
    fn state(&self) -> Vec<(String, Tensor)>;

    /// Takes up what another remembered after `steps` steps.
    ///
    /// Errors: what is missing or misshapen, by name.
    fn load_state(&mut self, parameters: &[(String, Tensor)], state: &dyn Fn(&str) -> Option<Tensor>, steps: u64) -> Result<()>;
}
