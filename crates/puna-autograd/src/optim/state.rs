use std::collections::HashMap;

use puna_tensor::op::StepInputs;
use puna_tensor::{DType, Error, Kind, Result, Tensor};

use crate::Gradients;

/// What an optimiser remembers of each parameter: some tensors of its shape, in the accumulating dtype.
#[derive(Debug, Default)]
pub(super) struct States<const N: usize>(HashMap<String, Slots<N>>);

/// One parameter's.
#[derive(Debug)]
pub(super) struct Slots<const N: usize> {
    /// Zeros at first.
    pub(super) slots: [Tensor; N],
    /// The parameter in f32, where it is of a half type: small steps would be lost in its rounding.
    pub(super) master: Option<Tensor>,
}

impl<const N: usize> States<N> {
    /// A parameter's, made where it has none yet.
    pub(super) fn of(&mut self, name: &str, parameter: &Tensor) -> Result<&Slots<N>> {
        if !self.0.contains_key(name) {
            let dtype = parameter.dtype().accumulator();
            let mut slots = Vec::with_capacity(N);
            for _ in 0..N {
                slots.push(Tensor::zeros(*parameter.shape(), dtype, parameter.device())?);
            }
            let slots = slots.try_into().expect("as many as were made");
            let master = if dtype == parameter.dtype() { None } else { Some(parameter.detach().cast(dtype)?) };
            self.0.insert(name.to_owned(), Slots { slots, master });
        }
        Ok(&self.0[name])
    }

    /// What a step takes of each parameter, `decay` of matrices alone. The tracked leaves may be changed where nothing is recorded.
    pub(super) fn inputs<'a>(
        &'a mut self,
        parameters: &'a [(String, Tensor)],
        gradients: &'a Gradients,
        decay: f64,
    ) -> Result<Vec<StepInputs<'a, N>>> {
        for (name, weight) in parameters {
            self.of(name, weight)?;
        }
        let inputs = parameters.iter().map(|(name, weight)| {
            let Slots { slots, master } = &self.0[name];
            let (states, gradient) = (slots.each_ref(), gradient(gradients, name, weight)?);
            let decay = if is_matrix(weight) { decay } else { 0.0 };
            Ok(StepInputs { weight, states, gradient, master: master.as_ref(), decay })
        });
        inputs.collect()
    }

    /// All of it, by name.
    pub(super) fn list(&self, names: [&str; N]) -> Vec<(String, Tensor)> {
        let mut all: Vec<(String, Tensor)> = Vec::new();
        for (parameter, Slots { slots, master }) in &self.0 {
            all.extend(names.iter().zip(slots).map(|(name, slot)| (format!("{parameter}.{name}"), slot.clone())));
            all.extend(master.iter().map(|master| (format!("{parameter}.master"), master.clone())));
        }
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all
    }

    /// Reads what [`list`](Self::list) gave.
    pub(super) fn read(
        names: [&str; N],
        parameters: &[&(String, Tensor)],
        state: &dyn Fn(&str) -> Option<Tensor>,
    ) -> Result<Self> {
        let mut all = HashMap::new();
        for (parameter, tensor) in parameters {
            let dtype = tensor.dtype().accumulator();
            let take = |name: &str| {
                let name = format!("{parameter}.{name}");
                let found = state(&name).ok_or_else(|| fail(format!("{name} is missing")))?;
                if found.shape() != tensor.shape() || found.dtype() != dtype || found.device() != tensor.device() {
                    let message = format!(
                        "{name} is {} {} on {}; the parameter needs {} {dtype} on {}",
                        found.shape(),
                        found.dtype(),
                        found.device().name(),
                        tensor.shape(),
                        tensor.device().name()
                    );
                    return Err(fail(message));
                }
                // The optimiser changes it in place.
                Tensor::from_bytes(&found.to_bytes()?, dtype, *found.shape(), found.device())
            };
            let slots = names.iter().map(|name| take(name)).collect::<Result<Vec<_>>>()?;
            let master = if dtype == tensor.dtype() { None } else { Some(take("master")?) };
            all.insert(parameter.clone(), Slots { slots: slots.try_into().expect("one for each name"), master });
        }
        Ok(Self(all))
    }
}

fn fail(message: String) -> Error {
    Error::new(Kind::Argument, "optimizer state", message)
}

/// The gradient of a parameter.
pub(super) fn gradient<'a>(gradients: &'a Gradients, name: &str, parameter: &Tensor) -> Result<&'a Tensor> {
    gradients
        .get(parameter)
        .ok_or_else(|| Error::new(Kind::Argument, "optimizer", format!("{name} {} has no gradient", parameter.shape())))
}

/// A scalar argument of the optimisers' ops.
pub(super) fn scalar(value: f64, like: &Tensor) -> Result<Tensor> {
    Tensor::full(value, puna_tensor::Shape::SCALAR, DType::F32, like.device())
}

/// Whether decay acts on it by default: on matrices, not on norms and biases.
fn is_matrix(parameter: &Tensor) -> bool {
    parameter.rank() >= 2
}
