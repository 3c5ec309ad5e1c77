use super::{Args, Inferred, Op, Spec};
use crate::{DType, Result, Shape, Tensor};

/// The derivative of [`Op::CrossEntropy`]: `dlogits = dsum * (softmax(logits) - [label])`, zeros in rows that do not count.
///
/// Inputs `dsum []`, `logits [.., V]`, `labels [..]`, `lse [..]`; result as `logits`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CrossEntropyBackward;

/// [`Op::CrossEntropy`] of `linear(x, weight)`, without ever holding the logits: they are formed a chunk of rows at a time.
///
/// `x: [.., K]` float, `weight: [V, K]` floats or blocks (read exactly), `labels: [..]` u32; results the sum (f32, f64 for f64; `[]`) and the count (u32,
/// `[]`). Saves the log-sum-exp of each row. Logits are accumulated in f32 (f64 for f64) and not rounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LinearCrossEntropy;

/// The derivative of [`LinearCrossEntropy`]: inputs `dsum [], x, weight, labels, lse`; results `dx` as `x` and, where `weight` is of
/// floats and `weight_grad` is set, `dweight` as `weight`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LinearCrossEntropyBackward {
    /// Whether the weight's gradient is wanted.
    pub weight_grad: bool,
}

fn infer_labels(args: &Args, name: &str, x: &Tensor, labels: &Tensor) -> Result<Shape> {
    args.last_axis(name, x)?;
    args.dtype("labels", labels, DType::U32)?;
    let rows = x.shape().without(x.rank() - 1);
    args.shape("labels", labels, rows, &format!("{name} {}", x.shape()))?;
    Ok(rows)
}

/// The results of a loss: the sum and the count.
fn sum_and_count(dtype: DType) -> Inferred {
    let spec = |dtype| Spec { shape: Shape::SCALAR, dtype };
    Inferred::results([spec(dtype.accumulator()), spec(DType::U32)])
}

pub(super) fn infer_cross_entropy(args: &Args, tracked: bool) -> Result<Inferred> {
    let [logits, labels] = args.named(["logits", "labels"])?;
    let dtype = args.float("logits", logits)?;
    let rows = infer_labels(args, "logits", logits, labels)?;
    Ok(sum_and_count(dtype).saving(tracked, rows, dtype.accumulator()))
}

/// Which rows count, u8 `[..]`: those whose label is one of `vocab`.
fn counts(labels: &Tensor, vocab: usize) -> Result<Tensor> {
    labels.lt(&Tensor::full(vocab as f64, 1, DType::U32, labels.device())?)
}

/// The number of axes of `labels`, all of them.
fn all(x: &Tensor) -> crate::Axes {
    crate::Axes::all(x.rank())
}

pub(super) fn lower_cross_entropy(inputs: &[&Tensor], tracked: bool) -> Result<Vec<Tensor>> {
    let (logits, labels) = (inputs[0], inputs[1]);
    let (wide, last) = (logits.cast(logits.dtype().accumulator())?, logits.rank() - 1);
    let largest = wide.max_keep(last)?;
    let lse = wide.sub(&largest)?.exp()?.sum_keep(last)?.log()?.add(&largest)?.reshape(*labels.shape())?;
    let chosen = wide.take(&labels.unsqueeze(last)?)?.reshape(*labels.shape())?;
    let counted = counts(labels, logits.shape().last())?.reshape(*labels.shape())?;
    let losses = counted.select(&lse.sub(&chosen)?, &lse.zeros_like()?)?;
    let mut outputs = vec![losses.sum(all(&losses))?, counted.sum(all(&counted))?];
    if tracked {
        outputs.push(lse);
    }
    Ok(outputs)
}

impl CrossEntropyBackward {
    pub(super) fn infer(&self, args: &Args) -> Result<Inferred> {
        let [dsum, logits, labels, lse] = args.named(["dsum", "logits", "labels", "lse"])?;
        let dtype = args.float("logits", logits)?;
        let rows = infer_labels(args, "logits", logits, labels)?;
        infer_saved(args, dsum, lse, rows, dtype)?;
        Ok(Inferred::one(*logits.shape(), dtype))
    }

    pub(super) fn lower(&self, inputs: &[&Tensor]) -> Result<Vec<Tensor>> {
        let [dsum, logits, labels, lse] = inputs else { unreachable!("inference has counted them") };
        let (wide, last) = (logits.cast(lse.dtype())?, logits.rank() - 1);
        let p = wide.sub(&lse.unsqueeze(last)?)?.exp()?;
        let index = labels.unsqueeze(last)?;
        let one = Tensor::full(1.0, *index.shape(), p.dtype(), p.device())?;
        let chosen = one.take_backward(&index, logits.shape().last())?;
        let counted = counts(labels, logits.shape().last())?.reshape(*index.shape())?;
        let d = counted.select(&p.sub(&chosen)?.mul(dsum)?, &p.zeros_like()?)?;
        Ok(vec![d.cast(logits.dtype())?])
    }
}

fn infer_saved(args: &Args, dsum: &Tensor, lse: &Tensor, rows: Shape, dtype: DType) -> Result<()> {
    args.dtype("dsum", dsum, dtype.accumulator())?;
    args.shape("dsum", dsum, Shape::SCALAR, "a sum")?;
    args.dtype("lse", lse, dtype.accumulator())?;
    args.shape("lse", lse, rows, "the rows")
}

fn infer_linear(args: &Args, x: &Tensor, weight: &Tensor, labels: &Tensor) -> Result<(Shape, DType)> {
    let dtype = args.float("x", x)?;
    args.weight("weight", weight)?;
    let rows = infer_labels(args, "x", x, labels)?;
    let [vocab, _] = args.axes("weight", weight, "[V, K]")?;
    args.shape("weight", weight, [vocab, x.shape().last()], &format!("x {}", x.shape()))?;
    Ok((rows, dtype))
}

/// `linear(x, weight)` in the accumulating dtype.
fn wide_logits(x: &Tensor, weight: &Tensor) -> Result<Tensor> {
    x.cast(x.dtype().accumulator())?.linear(weight, super::Activations::Exact)
}

impl LinearCrossEntropy {
    pub(super) fn infer(&self, args: &Args, tracked: bool) -> Result<Inferred> {
        let [x, weight, labels] = args.named(["x", "weight", "labels"])?;
        let (rows, dtype) = infer_linear(args, x, weight, labels)?;
        Ok(sum_and_count(dtype).saving(tracked, rows, dtype.accumulator()))
    }

    pub(super) fn lower(&self, inputs: &[&Tensor], tracked: bool) -> Result<Vec<Tensor>> {
        lower_cross_entropy(&[&wide_logits(inputs[0], inputs[1])?, inputs[2]], tracked)
    }
}

impl LinearCrossEntropyBackward {
    pub(super) fn infer(&self, args: &Args) -> Result<Inferred> {
        let [dsum, x, weight, labels, lse] = args.named(["dsum", "x", "weight", "labels", "lse"])?;
        let (rows, dtype) = infer_linear(args, x, weight, labels)?;
        infer_saved(args, dsum, lse, rows, dtype)?;
        let mut specs = vec![Spec { shape: *x.shape(), dtype }];
        if self.weight_grad {
            args.float("weight", weight)?;
            specs.push(Spec { shape: *weight.shape(), dtype: weight.dtype() });
        }
        Ok(Inferred::results(specs))
    }

    pub(super) fn lower(&self, inputs: &[&Tensor]) -> Result<Vec<Tensor>> {
        let [dsum, x, weight, labels, lse] = inputs else { unreachable!("inference has counted them") };
        let logits = wide_logits(x, weight)?;
        let d = Op::CrossEntropyBackward(CrossEntropyBackward).apply(&[dsum, &logits, labels, lse])?.one()?;
        let dx = d.linear_input_grad(weight)?.cast(x.dtype())?;
        if !self.weight_grad {
            return Ok(vec![dx]);
        }
        let rows = |x: &Tensor| x.reshape([x.shape().rows(), x.shape().last()]);
        let dweight = rows(&d)?.transpose(0, 1)?.matmul(&rows(&x.cast(d.dtype())?)?)?;
        Ok(vec![dx, dweight.cast(weight.dtype())?])
    }
}

/// # Losses
impl Tensor {
    /// `(sum, count)` of the cross entropy of these logits: see [`Op::CrossEntropy`].
    pub fn cross_entropy(&self, labels: &Tensor) -> Result<(Tensor, Tensor)> {
        let [sum, count] = Op::CrossEntropy.apply(&[self, labels])?.array();
        Ok((sum, count))
    }

    /// `(sum, count)` of the cross entropy of `linear(self, weight)`: see [`LinearCrossEntropy`].
    pub fn linear_cross_entropy(&self, weight: &Tensor, labels: &Tensor) -> Result<(Tensor, Tensor)> {
        let [sum, count] = Op::LinearCrossEntropy(LinearCrossEntropy).apply(&[self, weight, labels])?.array();
        Ok((sum, count))
    }
}
