use puna_tensor::{Device, Tensor, no_grad};

use crate::error::{Error, Kind, Result};

/// How far a student is from its teacher, summed over rows: `T^2 * KL(teacher || student)` of the distributions at temperature `T`,
///
/// `T^2 * sum over v of p[v] (ln p[v] - ln q[v])`, `p = softmax(teacher / T)`, `q = softmax(student / T)`
///
/// Both are finite logits `[rows, vocab]` of float dtypes; the result is `[]`, in f32 (f64 where the student is f64). The factor keeps
/// gradients as large whatever the temperature: `T (q - p)`. No gradient flows to the teacher.
///
/// Errors: shapes that differ; a temperature that is not above 0.
///
/// Hinton, Vinyals and Dean 2015, arXiv 1503.02531.
pub fn distillation(student: &Tensor, teacher: &Tensor, temperature: f64) -> Result<Tensor> {
    check(student, temperature)?;
    if student.shape() != teacher.shape() {
        let message =
            format!("the student's logits are {}, the teacher's {}; they take one shape", student.shape(), teacher.shape());
        return Err(Error::argument("distillation", message));
    }
    let q = softened(student, temperature)?;
    let (p, ln_p) = no_grad(|| {
        let ln_p = softened(&teacher.detach().cast(q.dtype())?, temperature)?;
        Ok::<_, puna_tensor::Error>((ln_p.exp()?, ln_p))
    })?;
    Ok(ln_p.sub(&q)?.mul(&p)?.sum_all()?.affine(temperature * temperature, 0.0)?)
}

/// What is kept of a teacher's distributions at a temperature: for each row its `k` likeliest tokens.
#[derive(Debug, Clone)]
pub struct TopK {
    /// u32 `[rows, k]`: the tokens; in a row each is another.
    pub ids: Tensor,
    /// f32 `[rows, k]`: the logarithms of their probabilities, normalised over the whole vocabulary.
    pub log_probs: Tensor,
    /// f32 `[rows]`: what is left for all other tokens together, `1 - sum(exp(log_probs))`, 0 at least.
    pub rest: Tensor,
}

impl TopK {
    /// From values on the host, of `rows` times `k` tokens; what is left is formed in f64.
    ///
    /// Errors: lengths that are not `rows * k`; a token beyond the vocabulary or twice in a row; what is no log-probability; probabilities
    /// of more than 1 together.
    pub fn new(ids: &[u32], log_probs: &[f32], rows: usize, vocab: usize, device: &Device) -> Result<Self> {
        let fail = |message: String| Err(Error::new(Kind::Data, "top-k", message));
        let k = ids.len().checked_div(rows).unwrap_or(0);
        if rows * k != ids.len() || ids.len() != log_probs.len() || k == 0 {
            let message = format!(
                "{} tokens and {} log-probabilities for {rows} rows; as many for each would be right",
                ids.len(),
                log_probs.len()
            );
            return fail(message);
        }
        let mut rest = Vec::with_capacity(rows);
        for (row, (ids, log_probs)) in ids.chunks_exact(k).zip(log_probs.chunks_exact(k)).enumerate() {
            let mut sorted = ids.to_vec();
            sorted.sort_unstable();
            if let Some(pair) = sorted.windows(2).find(|pair| pair[0] == pair[1]) {
                return fail(format!("row {row} has the token {} twice", pair[0]));
            }
            if let Some(id) = sorted.last().filter(|id| **id as usize >= vocab) {
                return fail(format!("row {row} has the token {id}, beyond a vocabulary of {vocab}"));
            }
            if let Some(value) = log_probs.iter().find(|value| !(**value <= 0.0 && value.is_finite())) {
                return fail(format!("row {row} has {value}, which is no logarithm of a probability above 0"));
            }
            let sum: f64 = log_probs.iter().map(|value| f64::from(*value).exp()).sum();
            // Rounded once each to f32, they may be a little over.
            if sum > 1.0 + 1e-4 {
                return fail(format!("row {row} has probabilities of {sum} together; 1 at most would be right"));
            }
            rest.push(if k == vocab { 0.0 } else { (1.0 - sum).max(0.0) as f32 });
        }
        Ok(Self {
            ids: Tensor::from_slice(ids, [rows, k], device)?,
            log_probs: Tensor::from_slice(log_probs, [rows, k], device)?,
            rest: Tensor::from_slice(&rest, rows, device)?,
        })
    }
}

/// [`distillation`] from what was kept of the teacher: all other tokens are one outcome, whose probability is what is left,
///
/// `T^2 * (sum over the k of p (ln p - ln q) + r (ln r - ln s))`, `r` and `s` the rest of the teacher's and of the student's distribution
///
/// So the student learns how much to leave for other tokens, and shares that among them as it likes. It is at most the divergence over the
/// whole vocabulary, and that divergence itself where `k` is the vocabulary. The gradient by a logit is `T (q - p)` for the `k` and
/// `T q (1 - r / s)` for the others.
///
/// `student [rows, vocab]`; `temperature` as the teacher was read with.
///
/// Errors: rows that differ; a temperature that is not above 0.
pub fn distillation_top_k(student: &Tensor, teacher: &TopK, temperature: f64) -> Result<Tensor> {
    check(student, temperature)?;
    let (rows, vocab, k) = (student.dim(0), student.dim(1), teacher.ids.dim(1));
    if teacher.ids.dim(0) != rows {
        let message = format!("the student has {rows} rows, the teacher {}; as many would be right", teacher.ids.dim(0));
        return Err(Error::argument("distillation", message));
    }
    let q = softened(student, temperature)?;
    let (ln_p, r) = (teacher.log_probs.cast(q.dtype())?, teacher.rest.cast(q.dtype())?.reshape([rows, 1])?);
    let kept = ln_p.sub(&q.take(&teacher.ids)?)?.mul(&ln_p.exp()?)?.sum_all()?;
    let sum = if k == vocab {
        kept
    } else {
        let s = log_rest(&q, &teacher.ids)?;
        let none = r.eq(&r.zeros_like()?)?;
        // r ln r is 0 where r is.
        let ln_r = none.select(&s.detach(), &r.log()?)?;
        kept.add(&ln_r.sub(&s)?.mul(&r)?.sum_all()?)?
    };
    Ok(sum.affine(temperature * temperature, 0.0)?)
}

/// `ln(sum of exp(x))` over all but the tokens `ids` of each row, `[rows, 1]`. Formed of the others themselves: one minus the sum of the
/// `ids` would lose all digits where little is left.
fn log_rest(x: &Tensor, ids: &Tensor) -> Result<Tensor> {
    let vocab = x.dim(1);
    let (others, largest) = no_grad(|| {
        let ones = Tensor::full(1.0, *ids.shape(), x.dtype(), x.device())?;
        let others = ones.take_backward(ids, vocab)?.eq(&Tensor::zeros(1, x.dtype(), x.device())?)?;
        let largest = others.select(&x.detach(), &nothing(x)?)?.max_keep(1)?;
        Ok::<_, puna_tensor::Error>((others, largest))
    })?;
    let e = others.select(&x.sub(&largest)?, &nothing(x)?)?.exp()?;
    Ok(e.sum_keep(1)?.log()?.add(&largest)?)
}

/// The logarithm of 0.
fn nothing(x: &Tensor) -> puna_tensor::Result<Tensor> {
    Tensor::full(f64::NEG_INFINITY, 1, x.dtype(), x.device())
}

/// Log-probabilities at a temperature, accumulated.
fn softened(logits: &Tensor, temperature: f64) -> puna_tensor::Result<Tensor> {
    logits.cast(logits.dtype().accumulator())?.affine(1.0 / temperature, 0.0)?.log_softmax()
}

fn check(student: &Tensor, temperature: f64) -> Result<()> {
    if !(temperature > 0.0 && temperature.is_finite()) {
        return Err(Error::argument("temperature", format!("{temperature}; a number above 0 would be right")));
    }
    if student.rank() != 2 {
        return Err(Error::argument(
            "distillation",
            format!("the student's logits are {}; [rows, vocab] would be right", student.shape()),
        ));
    }
    Ok(())
}
