use std::collections::HashMap;

use puna_tensor::{Error, Kind, Result, Tensor, TensorId};

/// Gradients by tensor.
///
/// Of a leaf that several ops read the gradient is their sum, formed in the order of the backward pass, the same every time.
#[derive(Debug, Default, Clone)]
pub struct Gradients(HashMap<TensorId, Tensor>);

impl Gradients {
    /// No gradients yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The gradient of a tensor, if one flowed to it.
    pub fn get(&self, tensor: &Tensor) -> Option<&Tensor> {
        self.0.get(&tensor.id())
    }

    /// Takes the gradient of a tensor out.
    pub fn remove(&mut self, tensor: &Tensor) -> Option<Tensor> {
        self.0.remove(&tensor.id())
    }

    /// Sets the gradient of a tensor: after clipping, averaging over machines.
    pub fn insert(&mut self, tensor: &Tensor, gradient: Tensor) {
        self.0.insert(tensor.id(), gradient);
    }

    /// How many tensors have one.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether none has.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Checks that each of these parameters has a gradient.
    ///
    /// Errors: some have none, all of them by name: the loss does not depend on them, or they were not tracked.
    pub fn check<'a, N: AsRef<str>>(&self, parameters: impl IntoIterator<Item = (N, &'a Tensor)>) -> Result<()> {
        let missing = parameters.into_iter().filter(|(_, tensor)| self.get(tensor).is_none());
        let missing: Vec<String> = missing.map(|(name, tensor)| describe(name.as_ref(), tensor)).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let message = format!("no gradient flowed to {}", missing.join(", "));
        Err(Error::new(Kind::Argument, "backward", message))
    }

    /// Adds the gradients of another pass, in f32 (f64 for f64) whatever the dtype of the parameters: so a sum over many
    /// micro-batches loses nothing. After it each gradient is of that dtype.
    pub fn accumulate(&mut self, other: Self) -> Result<()> {
        // Each sum is of one tensor: the order in which the map gives them changes nothing.
        for (id, gradient) in other.0 {
            let wide = gradient.cast(gradient.dtype().accumulator())?;
            let sum = match self.0.remove(&id) {
                Some(before) => before.cast(wide.dtype())?.add(&wide)?,
                None => wide,
            };
            self.0.insert(id, sum);
        }
        Ok(())
    }

    pub(crate) fn into_iter(self) -> impl Iterator<Item = (TensorId, Tensor)> {
        self.0.into_iter()
    }

    /// Adds to the gradient of one tensor.
    pub(crate) fn add(&mut self, id: TensorId, gradient: Tensor) -> Result<()> {
        let sum = match self.0.remove(&id) {
            Some(before) => before.add(&gradient)?,
            None => gradient,
        };
        self.0.insert(id, sum);
        Ok(())
    }
}

fn describe(name: &str, tensor: &Tensor) -> String {
    let why = if tensor.is_tracked() { "" } else { ", not tracked" };
    format!("{name} ({}{why})", tensor.shape())
}
