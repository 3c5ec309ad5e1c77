//! Distillation and preference losses, with their gradients.

use puna::prelude::*;
use puna::tensor::Shape;
use puna_autograd::grad;
use puna_train::loss;
use safetensors::SafeTensors;

use super::{Outcome, Report, doubles, floats, relative};
use crate::Result;

/// What the losses and their gradients may be off by.
const BOUND: f64 = 1e-6;
/// The temperature, and the beta, of the file.
const TEMPERATURE: f64 = 2.0;
const BETA: f64 = 0.1;

pub(super) fn check(label: &str, file: &SafeTensors<'_>, device: &Device, report: &mut Report<'_>) {
    for dtype in device.floats().filter(|dtype| matches!(dtype, DType::F64 | DType::F32)) {
        report.tell(format!("{label} distillation {dtype}"), distillation(file, dtype, device));
        report.tell(format!("{label} preferences {dtype}"), preferences(file, dtype, device));
    }
}

fn distillation(file: &SafeTensors<'_>, dtype: DType, device: &Device) -> Result<Outcome> {
    let student = tensor(file, "student", dtype, device)?.tracked();
    let sum = loss::distillation(&student, &tensor(file, "teacher", dtype, device)?, TEMPERATURE)?;
    compare(file, &sum, student.dim(0), &[(&student, "kl_grad")], "kl_t2")
}

fn preferences(file: &SafeTensors<'_>, dtype: DType, device: &Device) -> Result<Outcome> {
    let read = |name| tensor(file, name, dtype, device);
    let (chosen, rejected) = (read("policy_chosen")?.tracked(), read("policy_rejected")?.tracked());
    let (sum, margins) = loss::dpo([&chosen, &rejected], [&read("ref_chosen")?, &read("ref_rejected")?], BETA)?;
    let gradients = [(&chosen, "dpo_grad_chosen"), (&rejected, "dpo_grad_rejected")];
    compare(file, &sum, margins.elements(), &gradients, "dpo_b01")
}

fn tensor(file: &SafeTensors<'_>, name: &str, dtype: DType, device: &Device) -> Result<Tensor> {
    let shape = Shape::new(file.tensor(name)?.shape()).ok_or_else(|| format!("{name} has too many axes"))?;
    Ok(Tensor::from_slice(&doubles(file, name)?, shape, device)?.cast(dtype)?)
}

/// The golden holds means over `count`; ours are sums.
fn compare(file: &SafeTensors<'_>, sum: &Tensor, count: usize, gradients: &[(&Tensor, &str)], name: &str) -> Result<Outcome> {
    let mean = |x: &Tensor| -> Result<Vec<f32>> {
        let values = x.detach().cast(DType::F64)?.to_vec::<f64>()?;
        Ok(values.into_iter().map(|value| (value / count as f64) as f32).collect())
    };
    let mut worst = relative(&mean(sum)?, &floats(file, name)?);
    let inputs: Vec<&Tensor> = gradients.iter().map(|(input, _)| *input).collect();
    for (gradient, (_, name)) in grad(sum, &inputs)?.iter().zip(gradients) {
        worst = worst.max(relative(&mean(gradient)?, &floats(file, name)?));
    }
    Ok(Outcome::within(worst, BOUND, "loss and gradients"))
}
