//! Which tensor it was that first was not finite.

use std::sync::{Arc, Mutex, PoisonError};

use puna_llama::Around;
use puna_tensor::{Axes, DType, Tensor, no_grad};

/// The first parameter that is not finite, with its shape.
pub(super) fn weight(parameters: &[(String, Tensor)]) -> Option<String> {
    let broken = parameters.iter().find(|(_, tensor)| !is_finite(tensor));
    broken.map(|(name, tensor)| format!("the weight {name} {}", tensor.shape()))
}

/// Whether all elements are: one that is not makes the largest or the smallest infinite, or both NaN.
fn is_finite(tensor: &Tensor) -> bool {
    let value = |extreme: Tensor| match extreme.dtype() {
        DType::F64 => extreme.item::<f64>(),
        _ => extreme.cast(DType::F32)?.item::<f32>().map(f64::from),
    };
    let finite = no_grad(|| {
        let (x, axes) = (tensor.detach(), Axes::all(tensor.rank()));
        Ok::<_, puna_tensor::Error>(value(x.max(axes)?)?.is_finite() && value(x.min(axes)?)?.is_finite())
    });
    // Of no elements the extremes are infinite.
    tensor.elements() == 0 || finite.unwrap_or(false)
}

/// What runs layers one by one and looks at what they give.
#[derive(Debug, Clone, Default)]
pub(super) struct Layers(Arc<Mutex<Seen>>);

#[derive(Debug, Default)]
struct Seen {
    layers: usize,
    first: Option<String>,
}

impl Layers {
    pub(super) fn around(&self) -> Around {
        let seen = self.0.clone();
        Around::new(move |layer, inputs| {
            let inputs: Vec<Tensor> = inputs.iter().map(|input| (*input).clone()).collect();
            let results = layer(&inputs)?;
            let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
            if seen.first.is_none() {
                let broken = |tensors: &[Tensor]| tensors.iter().any(|tensor| !is_finite(tensor));
                if seen.layers == 0 && broken(&inputs) {
                    seen.first = Some("the embedding".into());
                } else if broken(&results) {
                    seen.first = Some(format!("what model.layers.{} gives", seen.layers));
                }
            }
            seen.layers += 1;
            Ok(results)
        })
    }

    /// The first that gave what is not finite.
    pub(super) fn first(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).first.clone()
    }
}
