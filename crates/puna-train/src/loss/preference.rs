use puna_tensor::{DType, Result, Tensor};

/// The loss of direct preference optimisation, its sum over pairs and, for each pair, by how much the policy prefers the chosen answer
/// more than the reference does:
///
/// `-ln sigmoid(margin)`, `margin = beta * ((chosen - rejected) - (reference_chosen - reference_rejected))`
///
/// All four are log-probabilities of answers, `[pairs]`, of one float dtype; the sum is `[]`, the margins `[pairs]`, in f32 (f64 for f64).
/// No gradient is wanted of the reference. The derivative of the loss by `chosen` is `-beta * sigmoid(-margin)`: pairs that are told apart
/// already teach little.
///
/// Errors: shapes or dtypes that differ.
///
/// Rafailov and others 2023, arXiv 2305.18290.
pub fn dpo(policy: [&Tensor; 2], reference: [&Tensor; 2], beta: f64) -> Result<(Tensor, Tensor)> {
    let wide = policy[0].dtype().accumulator();
    let ratio = |[chosen, rejected]: [&Tensor; 2]| chosen.cast(wide)?.sub(&rejected.cast(wide)?);
    let margins = ratio(policy)?.sub(&ratio(reference)?)?.affine(beta, 0.0)?;
    // -ln sigmoid(m) is the cross entropy of the logits [m, 0] and label 0, whose sum does not overflow.
    let pairs = margins.elements();
    let column = margins.reshape([pairs, 1])?;
    let logits = Tensor::concat(&[&column, &column.zeros_like()?], 1)?;
    let (sum, _) = logits.cross_entropy(&Tensor::zeros(pairs, DType::U32, margins.device())?)?;
    Ok((sum, margins))
}
