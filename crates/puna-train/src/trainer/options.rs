use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use puna_autograd::optim::Schedule;
use serde_json::{Value, json};

use crate::error::{Error, Kind, Result};

/// How a model is trained.
#[derive(Debug, Clone)]
pub struct TrainOptions {
    /// How many steps, those of an interrupted run included.
    pub steps: u64,
    /// How many rows of packed data a batch has.
    pub rows: usize,
    /// How many batches share a step: their gradients are summed in f32 and divided by the number of labels once, so that a batch of 8
    /// and two of 4 give the same step.
    pub accumulate: usize,
    /// The learning rate.
    pub lr: f64,
    /// The factor on it.
    pub schedule: Schedule,
    /// The largest norm of a gradient; infinity clips nothing.
    pub clip: f64,
    /// What the order of the data and dropout follow from.
    pub seed: u64,
    /// Whether layers are computed again in the backward pass: less memory, a third more time.
    pub recompute: bool,
    /// After how many steps held-out data is evaluated; 0: at the end only.
    pub evaluate_every: u64,
    /// Where checkpoints and `metrics.jsonl` go; without it, nowhere.
    pub folder: Option<PathBuf>,
    /// After how many steps a checkpoint is written; 0: at the end only.
    pub save_every: u64,
    /// How many checkpoints stay.
    pub keep: usize,
    /// Set from outside (by a handler of Ctrl-C), it ends the run after the step that is under way, with a checkpoint.
    pub stop: Option<Arc<AtomicBool>>,
}

impl Default for TrainOptions {
    fn default() -> Self {
        Self {
            steps: 1000,
            rows: 8,
            accumulate: 1,
            lr: 1e-3,
            schedule: Schedule::Constant { warmup: 0 },
            clip: 1.0,
            seed: 0,
            recompute: false,
            evaluate_every: 0,
            folder: None,
            save_every: 0,
            keep: 2,
            stop: None,
        }
    }
}

impl TrainOptions {
    /// Errors: a value out of its range, by name.
    pub fn check(&self) -> Result<()> {
        let fail = |option: &str, message: String| Err(Error::new(Kind::Argument, option, message));
        if !(self.lr > 0.0 && self.lr.is_finite()) {
            return fail("lr", format!("{} is no learning rate; a number above 0 would be right", self.lr));
        }
        if !(self.clip > 0.0) {
            return fail("clip", format!("{} is no norm; a number above 0, or infinity, would be right", self.clip));
        }
        for (option, value) in [("rows", self.rows), ("accumulate", self.accumulate), ("keep", self.keep)] {
            if value == 0 {
                return fail(option, "0; 1 at least would be right".into());
            }
        }
        Ok(())
    }

    /// What a checkpoint keeps of them, for whoever asks later how it came about.
    pub(super) fn to_json(&self) -> Value {
        let Self { steps, rows, accumulate, lr, schedule, clip, recompute, .. } = self;
        let schedule = format!("{schedule:?}");
        json!({"steps": steps, "rows": rows, "accumulate": accumulate, "lr": lr, "schedule": schedule, "clip": clip, "recompute": recompute})
    }
}
