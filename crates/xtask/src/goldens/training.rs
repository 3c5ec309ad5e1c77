//! Training: losses, gradients, their norms, and parameters after steps of AdamW.

use std::path::Path;

use puna::prelude::*;
use safetensors::SafeTensors;

use super::checkpoints::checkpoint_in;
use super::{Outcome, Report, doubles, floats, relative};
use crate::Result;
use crate::train_step::{Data, Trained, train};

/// What gradients and parameters may be off by, and losses and norms.
const TENSORS: f64 = 2e-5;
const NUMBERS: f64 = 1e-6;

pub(super) fn check(label: &str, path: &Path, bytes: &[u8], names: &[String], device: &Device, report: &mut Report<'_>) {
    let (trained, file) = match run(path, bytes, device) {
        Ok(run) => run,
        Err(error) => return report.tell(label, Err(error)),
    };
    for (what, got) in [("losses", &trained.losses), ("grad_norms", &trained.grad_norms)] {
        report.tell(format!("{label} {what}"), numbers(&file, what, got));
    }
    for what in ["grad", "after1", "after5"] {
        let wanted: Vec<&String> = names.iter().filter(|name| name.starts_with(&format!("{what}."))).collect();
        if !wanted.is_empty() {
            report.tell(format!("{label} {what}"), tensors(&file, &wanted, &trained));
        }
    }
}

/// Trains the checkpoint beside the file, or the adapter on its base, for as many steps as the file has losses.
fn run<'a>(path: &Path, bytes: &'a [u8], device: &Device) -> Result<(Trained, SafeTensors<'a>)> {
    let file = SafeTensors::deserialize(bytes)?;
    let folder = path.parent().unwrap_or(Path::new("."));
    let (model, adapter) = checkpoint_in(folder).ok_or("no checkpoint beside it")?;
    let steps = doubles(&file, "losses")?.len();
    Ok((train(&model, adapter.as_deref(), &Data::read(bytes)?, steps, device)?, file))
}

fn numbers(file: &SafeTensors<'_>, name: &str, got: &[f64]) -> Result<Outcome> {
    let expected = doubles(file, name)?;
    let worst = got.iter().zip(&expected).map(|(a, b)| ((a - b) / b).abs()).fold(0.0, f64::max);
    let count = got.iter().filter(|v| v.is_finite()).count();
    let worst = if count == expected.len() { worst } else { f64::INFINITY };
    Ok(Outcome::within(worst, NUMBERS, name))
}

fn tensors(file: &SafeTensors<'_>, names: &[&String], trained: &Trained) -> Result<Outcome> {
    let mut worst = (0.0, "");
    for name in names {
        let Some((_, got)) = trained.tensors.get(*name) else {
            return Ok(Outcome::Off(format!("{name} is not among what was trained")));
        };
        let error = relative(got, &floats(file, name)?);
        if !(error <= worst.0) {
            worst = (error, name);
        }
    }
    Ok(Outcome::within(worst.0, TENSORS, &format!("{} tensors, {} the worst,", names.len(), worst.1)))
}
