//! A low-rank pair beside a weight, and what is formed of it for a step.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use puna_tensor::op::{Activations, Dropout, LowRank, Projection};
use puna_tensor::{DType, Result, Tensor, TensorId, is_recording, no_grad};

use crate::model::Linear;
use crate::module::Module;

/// A low-rank pair beside a weight `W [out, in]`: `scale * (drop(x) A^T) B^T` is added to its product.
///
/// Hu and others 2021, arXiv 2106.09685.
#[derive(Debug, Clone)]
pub struct Lora {
    /// `A [rank, in]`.
    pub lora_a: Tensor,
    /// `B [out, rank]`.
    pub lora_b: Tensor,
    /// What the pair is multiplied by: `alpha / rank`, or `alpha / sqrt(rank)`.
    pub scale: f64,
    /// The probability that an element of its input is dropped in steps that drop; in front of the head none is.
    pub dropout: f64,
    /// Its place among the model's pairs: its row of [`Step::dropout`](crate::Step::dropout).
    pub number: usize,
    /// Weight decomposition, where there is one.
    pub magnitude: Option<Magnitude>,
}

/// What the rows of an adapted weight are scaled to: the product is multiplied by `m / ||W + scale B A||`, row by row, before the bias
/// is added.
///
/// The norm is a constant to derivatives, as in the paper's section 4.3 and in PEFT. With dropout PEFT lets the weight's own product,
/// too, read what is left of the input; here only the pair does.
///
/// Liu and others 2024, arXiv 2402.09353.
#[derive(Debug, Clone)]
pub struct Magnitude {
    /// `m [out]`.
    pub weight: Tensor,
    squares: Memo,
    norm: Memo,
    factor: Memo,
}

/// What was formed of some tensors, as long as they are the same and have not changed: in inference it is formed once, in training
/// with each change of the parameters.
#[derive(Debug, Clone, Default)]
struct Memo(Arc<Mutex<Option<Formed>>>);

#[derive(Debug)]
struct Formed {
    of: Vec<(TensorId, u64)>,
    scale: f64,
    tensor: Tensor,
}

impl Memo {
    fn get(&self, of: &[&Tensor], scale: f64, form: impl FnOnce() -> Result<Tensor>) -> Result<Tensor> {
        let of: Vec<_> = of.iter().map(|tensor| (tensor.id(), tensor.buffer().version())).collect();
        let mut formed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(formed) = formed.as_ref().filter(|formed| formed.of == of && formed.scale == scale) {
            return Ok(formed.tensor.clone());
        }
        let tensor = no_grad(form)?;
        *formed = Some(Formed { of, scale, tensor: tensor.clone() });
        Ok(tensor)
    }
}

impl Magnitude {
    /// A magnitude of these values, `[out]`.
    pub fn new(weight: Tensor) -> Self {
        Self { weight, squares: Memo::default(), norm: Memo::default(), factor: Memo::default() }
    }

    /// The magnitude that leaves `W + scale B A` as it is: its rows' norms.
    pub(super) fn of(weight: &Tensor, lora: &Lora) -> Result<Self> {
        let magnitude = Self::new(lora.lora_b.clone());
        let norm = magnitude.norm(weight, lora)?;
        Ok(Self { weight: norm, ..magnitude })
    }

    /// `m / ||W + scale B A||`, `[out]`: what the product is multiplied by.
    fn factor(&self, weight: &Tensor, lora: &Lora) -> Result<Tensor> {
        let norm = self.norm(weight, lora)?;
        let form = || self.weight.cast(norm.dtype())?.div(&norm);
        if is_recording() && self.weight.is_tracked() {
            return form();
        }
        self.factor.get(&[weight, &lora.lora_a, &lora.lora_b, &self.weight], lora.scale, form)
    }

    /// `||W + s B A||` of each row, `[out]`, f32 (f64 for f64), from `||W||^2 + 2 s W.(B A) + s^2 ||B A||^2`: a weight in blocks is decoded
    /// once, for its own norm, and never stands in memory whole.
    fn norm(&self, weight: &Tensor, lora: &Lora) -> Result<Tensor> {
        let Lora { lora_a, lora_b, scale, .. } = lora;
        self.norm.get(&[weight, lora_a, lora_b], *scale, || {
            let wide = weight.dtype().accumulator();
            let squares = self.squares.get(&[weight], *scale, || {
                in_runs(&weight.unpack()?, |_, rows| rows.cast(wide)?.square()?.sum(1)) // [out]
            })?;
            let (a, b) = (lora_a.cast(wide)?, lora_b.cast(wide)?);
            let cross = a.linear(weight, Activations::Exact)?.transpose(0, 1)?.mul(&b)?.sum(1)?;
            let own = b.matmul(&a.matmul(&a.transpose(0, 1)?)?)?.mul(&b)?.sum(1)?;
            let sum = squares.add(&cross.affine(2.0 * scale, 0.0)?)?.add(&own.affine(scale * scale, 0.0)?)?;
            // A row of zeros may come out below by rounding.
            sum.relu()?.sqrt()
        })
    }
}

/// How many elements of a weight are decoded at a time.
const DECODED: usize = 1 << 20;

/// What `f` makes of a few rows of a weight at a time, all of it: which they are, and the rows.
fn in_runs(weight: &Tensor, f: impl Fn(Range<usize>, &Tensor) -> Result<Tensor>) -> Result<Tensor> {
    let (n, k) = (weight.dim(0), weight.dim(1));
    let run = (DECODED / k.max(1)).max(1);
    let parts = (0..n.max(1)).step_by(run).map(|start| {
        let rows = start..(start + run).min(n);
        f(rows.clone(), &weight.slice(0, start, rows.len())?)
    });
    let parts = parts.collect::<Result<Vec<_>>>()?;
    Ok(if let [part] = &parts[..] { part.clone() } else { Tensor::concat(&parts.iter().collect::<Vec<_>>(), 0)? })
}

impl Module for Lora {
    /// Paths are PEFT's keys, beside those of the weight.
    fn visit(&self, path: &str, f: &mut dyn FnMut(&str, &Tensor)) {
        f(&format!("{path}.lora_A.weight"), &self.lora_a);
        f(&format!("{path}.lora_B.weight"), &self.lora_b);
        if let Some(magnitude) = &self.magnitude {
            f(&format!("{path}.lora_magnitude_vector.weight"), &magnitude.weight);
        }
    }

    fn visit_mut(&mut self, path: &str, f: &mut dyn FnMut(&str, &mut Tensor)) {
        f(&format!("{path}.lora_A.weight"), &mut self.lora_a);
        f(&format!("{path}.lora_B.weight"), &mut self.lora_b);
        if let Some(magnitude) = &mut self.magnitude {
            f(&format!("{path}.lora_magnitude_vector.weight"), &mut magnitude.weight);
        }
    }
}

/// A linear layer, and what is formed of its adapter for a step.
#[derive(Debug)]
pub struct Reading<'a> {
    linear: &'a Linear,
    seed: Option<Tensor>,
    factor: Option<Tensor>,
}

impl Linear {
    /// The layer as a step reads it. `dropout`: the step's seeds, `[pairs, 2]`; without them nothing is dropped.
    ///
    /// Errors: too few seeds; what the device says.
    pub fn read(&self, dropout: Option<&Tensor>) -> Result<Reading<'_>> {
        let mut reading = Reading { linear: self, seed: None, factor: None };
        if let Some(lora) = &self.lora {
            if let Some(seeds) = dropout.filter(|_| lora.dropout > 0.0) {
                reading.seed = Some(seeds.slice(0, lora.number, 1)?.reshape(2)?);
            }
            let factor = lora.magnitude.as_ref().map(|magnitude| magnitude.factor(&self.weight, lora));
            reading.factor = factor.transpose()?;
        }
        Ok(reading)
    }

    /// The layer with its adapter worked into the weight, which becomes `dtype`: by default its own, and bf16 for blocks. It is formed
    /// in f32 (f64 for f64) and rounded once.
    ///
    /// Errors: a dtype that is no float; what the device says.
    pub fn merged(&self, dtype: Option<DType>) -> Result<Linear> {
        let Some(lora) = &self.lora else { return Ok(self.clone()) };
        let own = if self.weight.dtype().is_float() { self.weight.dtype() } else { DType::BF16 };
        let dtype = dtype.unwrap_or(own);
        let weight = no_grad(|| {
            let wide = self.weight.dtype().accumulator();
            let factor = lora.magnitude.as_ref().map(|magnitude| magnitude.factor(&self.weight, lora)).transpose()?;
            let (a, b) = (lora.lora_a.cast(wide)?, lora.lora_b.cast(wide)?);
            let merged = in_runs(&self.weight.unpack()?, |rows, weight| {
                let b = b.slice(0, rows.start, rows.len())?;
                let mut weight = weight.cast(wide)?.add(&b.matmul(&a)?.affine(lora.scale, 0.0)?)?;
                if let Some(factor) = &factor {
                    weight = weight.mul(&factor.slice(0, rows.start, rows.len())?.unsqueeze(1)?)?;
                }
                weight.cast(dtype)
            })?;
            if self.weight.is_packed() { merged.pack() } else { Ok(merged) }
        })?;
        Ok(Linear { weight, bias: self.bias.clone(), lora: None })
    }
}

impl Reading<'_> {
    /// What the product with it takes.
    pub fn projection(&self) -> Projection<'_> {
        let adapter = self.linear.lora.as_ref().map(|lora| {
            let dropout = self.seed.as_ref().map(|seed| Dropout { p: lora.dropout, seed });
            LowRank { a: &lora.lora_a, b: &lora.lora_b, scale: lora.scale, dropout }
        });
        Projection { weight: &self.linear.weight, bias: self.linear.bias.as_ref(), adapter, factor: self.factor.as_ref() }
    }
}
