use super::{Args, Inferred, Op, Spec};
use crate::{Axes, DType, Kind, Result, Shape, Tensor};

/// Reduces some axes to one value each.
///
/// `Sum`, `Mean`: accumulated in f32 (f64 for f64) in a fixed order, rounded once; u8 sums to u32, other integers wrap; `Mean` takes
/// floats only, and of nothing is NaN. `Max`, `Min`: NaN where one is; of nothing `-inf`, `+inf`, or the dtype's least, greatest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Reduce {
    /// What becomes of the values.
    pub kind: ReduceKind,
    /// The axes that are reduced.
    pub axes: Axes,
    /// Whether they stay, with length 1.
    pub keep: bool,
}

/// What a reduction forms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum ReduceKind {
    Sum,
    Mean,
    Max,
    Min,
}

impl ReduceKind {
    /// Every kind.
    pub const ALL: [ReduceKind; 4] = [ReduceKind::Sum, ReduceKind::Mean, ReduceKind::Max, ReduceKind::Min];
}

impl Reduce {
    pub(super) fn infer(&self, args: &Args) -> Result<Inferred> {
        let [x] = args.named(["x"])?;
        let dtype = args.plain("x", x)?;
        if self.kind == ReduceKind::Mean {
            args.float("x", x)?;
        }
        if !self.axes.are_distinct(x.rank()) {
            return Err(args.shape_error(format!("axes {:?} of x {}: each must exist and stand once", self.axes, x.shape())));
        }
        let mut shape = Shape::SCALAR;
        for (axis, &length) in x.shape().iter().enumerate() {
            let reduced = self.axes.contains(&axis);
            if !reduced || self.keep {
                shape = shape.join(&[if reduced { 1 } else { length }]).expect("no more axes than x has");
            }
        }
        let dtype = if self.kind == ReduceKind::Sum && dtype == DType::U8 { DType::U32 } else { dtype };
        Ok(Inferred::one(shape, dtype))
    }

    pub(super) fn keeps_input(&self) -> bool {
        matches!(self.kind, ReduceKind::Max | ReduceKind::Min)
    }

    pub(super) fn keeps_output(&self) -> bool {
        self.keeps_input()
    }
}

/// The index (u32) of the largest or smallest entry along an axis; of equal ones the lowest; a NaN, the first, before all others.
/// The axis goes, or stays with length 1. Floats and integers. Errors: an axis of length 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ArgReduce {
    /// Whether the largest is sought, or the smallest.
    pub largest: bool,
    /// The axis.
    pub axis: usize,
    /// Whether it stays, with length 1.
    pub keep: bool,
}

impl ArgReduce {
    pub(super) fn infer(&self, args: &Args) -> Result<Inferred> {
        let [x] = args.named(["x"])?;
        args.plain("x", x)?;
        match x.shape().get(self.axis) {
            None => return Err(args.shape_error(format!("axis {} of x {}: there is no such axis", self.axis, x.shape()))),
            Some(0) => {
                return Err(args.shape_error(format!("axis {} of x {} is empty and has no largest entry", self.axis, x.shape())));
            }
            Some(&n) if n > u32::MAX as usize => {
                return Err(args.shape_error(format!("axis {} of x {} is too long for u32", self.axis, x.shape())));
            }
            Some(_) => {}
        }
        let shape = if self.keep { x.shape().with(self.axis, 1) } else { x.shape().without(self.axis) };
        Ok(Inferred::one(shape, DType::U32))
    }
}

/// Sorts along the last axis, to the values and their former places (u32). Stable: equal values keep their order. NaN is larger than
/// every number, -0 equal to 0. Floats and integers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Sort {
    /// Whether the largest comes first.
    pub descending: bool,
}

impl Sort {
    pub(super) fn infer(&self, args: &Args) -> Result<Inferred> {
        let [x] = args.named(["x"])?;
        let dtype = args.plain("x", x)?;
        if args.last_axis("x", x)? > u32::MAX as usize {
            return Err(args.fail(Kind::Shape, format!("x {} is too long along its last axis for u32", x.shape())));
        }
        let shape = *x.shape();
        Ok(Inferred::results([Spec { shape, dtype }, Spec { shape, dtype: DType::U32 }]))
    }
}

pub(super) fn infer_cum_sum(args: &Args) -> Result<Inferred> {
    let [x] = args.named(["x"])?;
    args.float("x", x)?;
    args.last_axis("x", x)?;
    Ok(Inferred::one(*x.shape(), x.dtype()))
}

/// # Reductions and scans
impl Tensor {
    fn reduce(&self, kind: ReduceKind, axes: Axes, keep: bool) -> Result<Tensor> {
        Op::Reduce(Reduce { kind, axes, keep }).apply(&[self])?.one()
    }

    /// The sum over axes, which go: see [`Reduce`].
    pub fn sum(&self, axes: impl Into<Axes>) -> Result<Tensor> {
        self.reduce(ReduceKind::Sum, axes.into(), false)
    }

    /// The sum over axes, which stay with length 1.
    pub fn sum_keep(&self, axes: impl Into<Axes>) -> Result<Tensor> {
        self.reduce(ReduceKind::Sum, axes.into(), true)
    }

    /// The sum of all elements, a scalar.
    pub fn sum_all(&self) -> Result<Tensor> {
        self.reduce(ReduceKind::Sum, Axes::all(self.rank()), false)
    }

    /// The mean over axes, which go.
    pub fn mean(&self, axes: impl Into<Axes>) -> Result<Tensor> {
        self.reduce(ReduceKind::Mean, axes.into(), false)
    }

    /// The mean over axes, which stay with length 1.
    pub fn mean_keep(&self, axes: impl Into<Axes>) -> Result<Tensor> {
        self.reduce(ReduceKind::Mean, axes.into(), true)
    }

    /// The largest over axes, which go.
    pub fn max(&self, axes: impl Into<Axes>) -> Result<Tensor> {
        self.reduce(ReduceKind::Max, axes.into(), false)
    }

    /// The largest over axes, which stay with length 1.
    pub fn max_keep(&self, axes: impl Into<Axes>) -> Result<Tensor> {
        self.reduce(ReduceKind::Max, axes.into(), true)
    }

    /// The smallest over axes, which go.
    pub fn min(&self, axes: impl Into<Axes>) -> Result<Tensor> {
        self.reduce(ReduceKind::Min, axes.into(), false)
    }

    /// The place of the largest along an axis, which goes: see [`ArgReduce`].
    pub fn argmax(&self, axis: usize) -> Result<Tensor> {
        Op::ArgReduce(ArgReduce { largest: true, axis, keep: false }).apply(&[self])?.one()
    }

    /// The place of the smallest along an axis, which goes.
    pub fn argmin(&self, axis: usize) -> Result<Tensor> {
        Op::ArgReduce(ArgReduce { largest: false, axis, keep: false }).apply(&[self])?.one()
    }

    /// Running sums along the last axis: see [`Op::CumSum`].
    pub fn cum_sum(&self) -> Result<Tensor> {
        Op::CumSum.apply(&[self])?.one()
    }

    /// Values and places, largest first, along the last axis: see [`Sort`].
    pub fn sort_descending(&self) -> Result<(Tensor, Tensor)> {
        let [values, places] = Op::Sort(Sort { descending: true }).apply(&[self])?.array();
        Ok((values, places))
    }
}
