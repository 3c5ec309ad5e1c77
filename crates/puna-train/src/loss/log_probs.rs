use puna_llama::Llama;
use puna_tensor::Tensor;

use crate::data::{Batch, IGNORED};
use crate::error::{Error, Result};

/// The log-probability of each sequence's labels, `[sequences]`, in f32 (f64 for f64): the sum over the labels that count of
/// `ln p(label)`, 0 where none does.
///
/// `hidden [tokens, hidden_size]`: what [`Llama::forward`] gives for the batch. The logits are never held: each sequence is a cross entropy
/// of its own, over the rows from its first label that counts to its last, so prompts cost nothing here.
///
/// Errors: hidden states that are not as many as the batch's tokens; what the device says.
pub fn log_probs(llama: &Llama, hidden: &Tensor, batch: &Batch) -> Result<Tensor> {
    if hidden.rank() != 2 || hidden.dim(0) != batch.tokens() {
        let message =
            format!("hidden {} for a batch of {} tokens; [tokens, hidden_size] would fit", hidden.shape(), batch.tokens());
        return Err(Error::argument("log_probs", message));
    }
    let device = hidden.device();
    let sums = batch.starts.windows(2).map(|bounds| {
        let (start, end) = (bounds[0] as usize, bounds[1] as usize);
        let labels = &batch.labels[start..end];
        let counts = |label: &u32| *label != IGNORED;
        let Some(first) = labels.iter().position(counts) else {
            return Ok(Tensor::zeros(1, hidden.dtype().accumulator(), device)?);
        };
        let last = labels.iter().rposition(counts).expect("there is a first");
        let labels = &labels[first..=last];
        let rows = hidden.slice(0, start + first, labels.len())?;
        let (sum, _) = llama.loss(&rows, &Tensor::from_slice(labels, labels.len(), device)?)?;
        Ok(sum.neg()?.reshape(1)?)
    });
    let sums = sums.collect::<Result<Vec<Tensor>>>()?;
    Ok(Tensor::concat(&sums.iter().collect::<Vec<_>>(), 0)?)
}
