use super::{Args, Inferred, Op};
use crate::{DType, Kind, Result, Shape, Tensor};

/// `y[i.., ..] = table[index[i..], ..]`: rows by number. An index out of range gives zeros.
///
/// `table [rows, ..]`: floats or blocks, packed too (`[N, K]` then), decoded and rounded to `dtype`; of other dtypes unchanged.
/// `index` u32 of any shape. The embedding, and how pages of a cache are collected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct GatherRows {
    /// The dtype of the result: a float; for integer tables theirs.
    pub dtype: DType,
}

impl GatherRows {
    pub(super) fn infer(&self, args: &Args) -> Result<Inferred> {
        let [table, index] = args.named(["table", "index"])?;
        args.last_axis("table", table)?;
        args.dtype("index", index, DType::U32)?;
        let fits = if table.dtype().is_integer() { table.dtype() == self.dtype } else { self.dtype.is_float() };
        if !fits {
            return Err(args.fail(Kind::DType, format!("rows of {} do not become {}", table.dtype(), self.dtype)));
        }
        if table.dtype().block().is_some() && table.rank() < 2 {
            return Err(args.shape_error(format!("table {} of {} has no rows to take", table.shape(), table.dtype())));
        }
        let shape = index.shape().join(&table.shape()[1..]);
        let shape = shape
            .ok_or_else(|| args.shape_error(format!("rows of {} by {} have too many axes", table.shape(), index.shape())))?;
        Ok(Inferred::one(shape, self.dtype))
    }
}

/// `y[r, ..] = sum over i with index[i] = r, in order, of source[i, ..]`: the derivative of [`GatherRows`].
///
/// `source [n.., ..]` float, `index` u32 `[n..]`; `y [rows, ..]`, accumulated in f32 (f64 for f64), rounded once. An index out of range adds nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ScatterAddRows {
    /// How many rows the result has.
    pub rows: usize,
}

impl ScatterAddRows {
    pub(super) fn infer(&self, args: &Args) -> Result<Inferred> {
        let [source, index] = args.named(["source", "index"])?;
        args.float("source", source)?;
        args.dtype("index", index, DType::U32)?;
        let leading = source.shape().get(..index.rank());
        if leading != Some(&index.shape()[..]) {
            return Err(args.shape_error(format!(
                "source {} does not begin with the axes of index {}",
                source.shape(),
                index.shape()
            )));
        }
        let row = &source.shape()[index.rank()..];
        let shape = Shape::from(self.rows).join(row).ok_or_else(|| args.shape_error("the result has too many axes"))?;
        Ok(Inferred::one(shape, source.dtype()))
    }
}

pub(super) fn infer_scatter_rows(args: &Args) -> Result<Inferred> {
    let [destination, index, source] = args.named(["destination", "index", "source"])?;
    args.dtype("index", index, DType::U32)?;
    args.plain("destination", destination)?;
    if !(destination.dtype().is_float() && source.dtype().is_float()) {
        args.same_dtype(["destination", "source"], destination, source)?;
    }
    args.last_axis("destination", destination)?;
    let [n] = args.axes("index", index, "[n]")?;
    let rows = Shape::from(n).join(&destination.shape()[1..]).expect("as many axes as destination");
    args.shape("source", source, rows, &format!("{n} rows of destination {}", destination.shape()))?;
    Ok(Inferred::results([]))
}

/// `y[.., j] = x[.., index[.., j]]` along the last axis. An index out of range gives zero.
///
/// `x [.., n]` of any plain dtype, `index` u32 `[.., m]` with the same leading axes; `y [.., m]` of x's dtype.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Take;

impl Take {
    pub(super) fn infer(&self, args: &Args) -> Result<Inferred> {
        let [x, index] = args.named(["x", "index"])?;
        let dtype = args.plain("x", x)?;
        infer_last_axis_index(args, ["x", "index"], x, index)?;
        Ok(Inferred::one(*index.shape(), dtype))
    }
}

/// `y[.., i] = sum over j with index[.., j] = i, in order, of source[.., j]`: the derivative of [`Take`].
///
/// `source [.., m]` of a float dtype or u32, `index` u32 of the same shape; `y [.., length]`, accumulated in f32 (f64 for f64) and rounded once,
/// of u32 wrapping. An index out of range adds nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TakeBackward {
    /// The length of the result's last axis.
    pub length: usize,
}

impl TakeBackward {
    pub(super) fn infer(&self, args: &Args) -> Result<Inferred> {
        let [source, index] = args.named(["source", "index"])?;
        if source.dtype() != DType::U32 {
            args.float("source", source)?;
        }
        infer_last_axis_index(args, ["source", "index"], source, index)?;
        args.shape("index", index, *source.shape(), "source")?;
        Ok(Inferred::one(source.shape().with_last(self.length), source.dtype()))
    }
}

fn infer_last_axis_index(args: &Args, names: [&str; 2], x: &Tensor, index: &Tensor) -> Result<()> {
    args.dtype(names[1], index, DType::U32)?;
    args.last_axis(names[0], x)?;
    args.last_axis(names[1], index)?;
    if x.shape().with_last(0) != index.shape().with_last(0) {
        let message = format!("{} {} and {} {} differ in more than the last axis", names[0], x.shape(), names[1], index.shape());
        return Err(args.shape_error(message));
    }
    Ok(())
}

/// # Indexing
impl Tensor {
    /// Rows by number, in this tensor's dtype: see [`GatherRows`].
    pub fn gather_rows(&self, index: &Tensor) -> Result<Tensor> {
        self.embedding(index, self.dtype())
    }

    /// Rows by number, decoded and rounded to `dtype`: see [`GatherRows`].
    pub fn embedding(&self, index: &Tensor, dtype: DType) -> Result<Tensor> {
        Op::GatherRows(GatherRows { dtype }).apply(&[self, index])?.one()
    }

    /// In place: writes rows by number: see [`Op::ScatterRows`].
    pub fn scatter_rows(&self, index: &Tensor, source: &Tensor) -> Result<()> {
        Op::ScatterRows.apply(&[self, index, source]).map(drop)
    }

    /// Sums rows by number: see [`ScatterAddRows`].
    pub fn scatter_add_rows(&self, index: &Tensor, rows: usize) -> Result<Tensor> {
        Op::ScatterAddRows(ScatterAddRows { rows }).apply(&[self, index])?.one()
    }

    /// Entries of the last axis by number: see [`Take`].
    pub fn take(&self, index: &Tensor) -> Result<Tensor> {
        Op::Take(Take).apply(&[self, index])?.one()
    }

    /// Sums entries into places of a last axis of `length`: see [`TakeBackward`].
    pub fn take_backward(&self, index: &Tensor, length: usize) -> Result<Tensor> {
        Op::TakeBackward(TakeBackward { length }).apply(&[self, index])?.one()
    }
}
