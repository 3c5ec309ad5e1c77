use puna_tensor::{DType, Error, Kind, Result, Tensor, no_grad};

use super::state::gradient;
use crate::Gradients;

/// The norm of a gradient, and what to multiply it by.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Clipped {
    /// The norm over all parameters, of `scale * gradient`, before clipping.
    pub norm: f64,
    /// `scale * min(1, max_norm / (norm + 1e-6))`: the factor that [`Optimizer::step`](super::Optimizer::step) takes.
    pub factor: f64,
}

/// How many squares are summed in f32 before f64 takes over: few enough for seven digits, enough that f64 costs nothing.
const RUN: usize = 64;

/// In f64, or the widest float that the device computes in: `[]`.
fn sum_of_squares(x: &Tensor) -> Result<Tensor> {
    let wide = x.device().floats().next().unwrap_or(DType::F32);
    let n = x.elements();
    if n % RUN != 0 || !x.layout().is_contiguous() {
        return x.cast(wide)?.square()?.sum_all();
    }
    x.reshape([n / RUN, RUN])?.square()?.sum(1)?.cast(wide)?.sum_all()
}

/// Clipping by the global norm: the square root of the sum of squares over all parameters.
///
/// `scale`: the factor that gradients have anyway, such as 1 over the number of labels. `max_norm`: infinity clips nothing. Squares
/// are summed in f64 (on devices that have none in f32, by halves), but for runs of 64 in f32. Pascanu and others 2013, arXiv 1211.5063.
///
/// Errors: a parameter without a gradient; a gradient that is not finite, the first by name.
pub fn clip(parameters: &[(String, Tensor)], gradients: &Gradients, scale: f64, max_norm: f64) -> Result<Clipped> {
    let sums = no_grad(|| {
        let sums = parameters.iter().map(|(name, parameter)| {
            let gradient = gradient(gradients, name, parameter)?;
            sum_of_squares(&gradient.cast(gradient.dtype().accumulator())?)?.reshape(1)
        });
        let sums = sums.collect::<Result<Vec<Tensor>>>()?;
        match sums.is_empty() {
            true => Ok(Vec::new()),
            // One transfer for all.
            false => Tensor::concat(&sums.iter().collect::<Vec<_>>(), 0)?.cast(DType::F64)?.to_vec::<f64>(),
        }
    })?;
    if let Some(at) = sums.iter().position(|sum| !sum.is_finite()) {
        let (name, parameter) = &parameters[at];
        let message = format!("the gradient of {name} {} is not finite", parameter.shape());
        return Err(Error::new(Kind::Argument, "clip", message));
    }
    let norm = sums.iter().sum::<f64>().sqrt() * scale.abs();
    Ok(Clipped { norm, factor: scale * (max_norm / (norm + 1e-6)).min(1.0) })
}
