use super::{Args, Inferred, Op};
use crate::{Axes, DType, Error, Kind, Layout, Result, Shape, Tensor};

/// Another view of the same memory. No back end executes it; a reshape that the strides do not allow copies first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum View {
    /// Other axes over the same elements in row-major order.
    Reshape(Shape),
    /// The axes in another order.
    Permute(Axes),
    /// A range of an axis.
    Slice {
        /// The axis.
        axis: usize,
        /// The first entry.
        start: usize,
        /// How many entries.
        length: usize,
    },
    /// Axes of length 1, and missing leading ones, repeated.
    Broadcast(Shape),
}

impl View {
    pub(super) fn infer(&self, args: &Args) -> Result<Inferred> {
        let [x] = args.named(["x"])?;
        let shape = match self {
            Self::Reshape(shape) => {
                if shape.checked_elements() != Some(x.elements()) {
                    let message = format!("x {} has {} elements; {shape} has another number", x.shape(), x.elements());
                    return Err(args.shape_error(message));
                }
                if Layout::contiguous(*shape, x.dtype()).is_none() {
                    return Err(args.shape_error(format!(
                        "x {} {} is cut at the edges of blocks only, not to {shape}",
                        x.shape(),
                        x.dtype()
                    )));
                }
                *shape
            }
            _ => *self.layout(x).ok_or_else(|| args.shape_error(self.complaint(x)))?.shape(),
        };
        if shape.checked_elements().is_none() {
            return Err(args.fail(Kind::Memory, format!("{shape} has more elements than fit the address space")));
        }
        Ok(Inferred::one(shape, x.dtype()))
    }

    fn layout(&self, x: &Tensor) -> Option<Layout> {
        match self {
            Self::Reshape(shape) => x.layout().reshape(shape),
            Self::Permute(axes) => x.layout().permute(axes),
            Self::Slice { axis, start, length } => x.layout().slice(*axis, *start, *length),
            Self::Broadcast(shape) => x.layout().broadcast(shape),
        }
    }

    fn complaint(&self, x: &Tensor) -> String {
        let (shape, dtype) = (x.shape(), x.dtype());
        let blocks = match dtype.block() {
            Some(block) => format!(", and {block} is cut along the last axis at multiples of {} only", block.values()),
            None => String::new(),
        };
        match self {
            Self::Reshape(to) => format!("x {shape} to {to}"),
            Self::Permute(axes) => format!("axes {axes:?} of x {shape}: each of its axes must stand once{blocks}"),
            Self::Slice { axis, start, length } => {
                format!("{length} entries from {start} of axis {axis} of x {shape}: they must lie inside it{blocks}")
            }
            Self::Broadcast(to) => format!("x {shape} to {to}: from the last axis on, lengths must be equal or 1{blocks}"),
        }
    }

    pub(super) fn view(&self, x: &Tensor, shape: &Shape) -> Result<Tensor> {
        match self.layout(x) {
            Some(layout) => Ok(x.view(layout)),
            None => {
                let copy = crate::no_grad(|| Op::Contiguous.apply(&[x])?.one())?;
                let layout = copy.layout().reshape(shape).expect("a contiguous tensor takes any shape of as many elements");
                Ok(copy.view(layout))
            }
        }
    }
}

pub(super) fn infer_contiguous(args: &Args) -> Result<Inferred> {
    let [x] = args.named(["x"])?;
    Ok(Inferred::one(*x.shape(), x.dtype()))
}

/// The same values in another dtype: floats and integers to floats round once, to nearest, ties to even; floats to integers truncate toward
/// zero and saturate (NaN to 0); integer to integer wraps; blocks decode to floats, floats encode to blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Cast {
    /// The dtype of the result.
    pub dtype: DType,
}

impl Cast {
    pub(super) fn infer(&self, args: &Args) -> Result<Inferred> {
        let [x] = args.named(["x"])?;
        let possible = match (x.dtype(), self.dtype) {
            (DType::Block(a), DType::Block(b)) => a == b,
            (DType::Block(_), to) => to.is_float(),
            (from, DType::Block(_)) => from.is_float(),
            _ => true,
        };
        if !possible {
            let message =
                format!("x {} is {}; it does not become {} at once: cast to f32 first", x.shape(), x.dtype(), self.dtype);
            return Err(args.fail(Kind::DType, message));
        }
        if Layout::contiguous(*x.shape(), self.dtype).is_none() {
            let message = format!("x {} does not divide into {} blocks of {}", x.shape(), self.dtype, self.dtype.unit());
            return Err(args.shape_error(message));
        }
        Ok(Inferred::one(*x.shape(), self.dtype))
    }
}

/// Tensors one behind the other along an axis: any number of one dtype, equal in their other axes. Blocks join at their edges.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Concat {
    /// The axis.
    pub axis: usize,
}

impl Concat {
    pub(super) fn infer(&self, args: &Args) -> Result<Inferred> {
        let Some((first, rest)) = args.inputs().split_first() else {
            return Err(args.fail(Kind::Argument, "takes one tensor at least"));
        };
        if self.axis >= first.rank() {
            return Err(args.shape_error(format!("axis {} of {}: there is no such axis", self.axis, first.shape())));
        }
        let mut shape = *first.shape();
        for x in rest {
            args.same_dtype(["the first tensor", "another"], first, x)?;
            if x.rank() != first.rank() || x.shape().with(self.axis, 0) != first.shape().with(self.axis, 0) {
                let message = format!("{} and {} differ in more than axis {}", first.shape(), x.shape(), self.axis);
                return Err(args.shape_error(message));
            }
            shape = shape.with(self.axis, shape[self.axis].saturating_add(x.dim(self.axis)));
        }
        Ok(Inferred::one(shape, first.dtype()))
    }
}

/// A new tensor of one value, converted as [`Cast`] converts an f64. No arguments.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Fill {
    /// The shape.
    pub shape: Shape,
    /// The dtype; blocks are refused.
    pub dtype: DType,
    /// The value.
    pub value: f64,
}

impl Fill {
    pub(super) fn infer(&self, args: &Args) -> Result<Inferred> {
        let [] = args.named([])?;
        if let Some(block) = self.dtype.block() {
            return Err(args.fail(Kind::DType, format!("{block} blocks are not filled; cast a float tensor to encode one")));
        }
        Ok(Inferred::one(self.shape, self.dtype))
    }
}

/// `0, 1, .., length - 1`, u32. No arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Arange {
    /// How many.
    pub length: usize,
}

impl Arange {
    pub(super) fn infer(&self, args: &Args) -> Result<Inferred> {
        let [] = args.named([])?;
        if u32::try_from(self.length).is_err() {
            return Err(args.fail(Kind::Argument, format!("{} numbers do not fit u32", self.length)));
        }
        Ok(Inferred::one(self.length.into(), DType::U32))
    }
}

pub(super) fn infer_assign(args: &Args) -> Result<Inferred> {
    let [destination, source] = args.named(["destination", "source"])?;
    args.plain("destination", destination)?;
    args.same_dtype(["destination", "source"], destination, source)?;
    if source.layout().broadcast(destination.shape()).is_none() {
        return Err(args.shape_error(format!(
            "source {} does not broadcast to destination {}",
            source.shape(),
            destination.shape()
        )));
    }
    Ok(Inferred::results([]))
}

pub(super) fn infer_unpack(args: &Args) -> Result<Inferred> {
    let [x] = args.named(["x"])?;
    if !x.is_packed() {
        return Err(args.fail(Kind::Argument, format!("x {} {} is not packed; it is its own original", x.shape(), x.dtype())));
    }
    Ok(Inferred::one(*x.shape(), x.dtype()))
}

/// # Views
impl Tensor {
    /// Other axes over the same elements: see [`View::Reshape`].
    pub fn reshape(&self, shape: impl Into<Shape>) -> Result<Tensor> {
        Op::View(View::Reshape(shape.into())).apply(&[self])?.one()
    }

    /// The axes in another order: see [`View::Permute`].
    pub fn permute(&self, axes: impl Into<Axes>) -> Result<Tensor> {
        Op::View(View::Permute(axes.into())).apply(&[self])?.one()
    }

    /// Two axes exchanged.
    pub fn transpose(&self, a: usize, b: usize) -> Result<Tensor> {
        let mut axes = Axes::all(self.rank()).to_vec();
        if a >= axes.len() || b >= axes.len() {
            let message = format!("axes {a} and {b} of {}: there are {}", self.shape(), self.rank());
            return Err(Error::new(Kind::Shape, "transpose", message).with_arguments(&[self]));
        }
        axes.swap(a, b);
        self.permute(Axes::new(&axes).expect("as many axes as before"))
    }

    /// `length` entries of an axis from `start` on: see [`View::Slice`].
    pub fn slice(&self, axis: usize, start: usize, length: usize) -> Result<Tensor> {
        Op::View(View::Slice { axis, start, length }).apply(&[self])?.one()
    }

    /// Repeated along axes of length 1 and missing leading ones, without a copy: see [`View::Broadcast`].
    pub fn broadcast(&self, shape: impl Into<Shape>) -> Result<Tensor> {
        Op::View(View::Broadcast(shape.into())).apply(&[self])?.one()
    }

    /// A new axis of length 1 before `axis`.
    pub fn unsqueeze(&self, axis: usize) -> Result<Tensor> {
        let mut axes = self.shape().to_vec();
        if axis > axes.len() || axes.len() == crate::MAX_RANK {
            let message =
                format!("a new axis {axis} in {}: it has {} axes, of {} possible", self.shape(), self.rank(), crate::MAX_RANK);
            return Err(Error::new(Kind::Shape, "unsqueeze", message).with_arguments(&[self]));
        }
        axes.insert(axis, 1);
        self.reshape(Shape::new(&axes).expect("the rank was checked"))
    }
}

/// # Copies and casts
impl Tensor {
    /// The same elements in row-major order; itself if they are (from the start of the buffer or not).
    pub fn contiguous(&self) -> Result<Tensor> {
        if self.layout().is_contiguous() {
            return Ok(self.clone());
        }
        Op::Contiguous.apply(&[self])?.one()
    }

    /// The same values in another dtype; itself if it has that: see [`Cast`].
    pub fn cast(&self, dtype: DType) -> Result<Tensor> {
        if self.dtype() == dtype {
            return Ok(self.clone());
        }
        Op::Cast(Cast { dtype }).apply(&[self])?.one()
    }

    /// Tensors one behind the other along an axis: see [`Concat`].
    pub fn concat(tensors: &[&Tensor], axis: usize) -> Result<Tensor> {
        Op::Concat(Concat { axis }).apply(tensors)?.one()
    }

    /// Zeros like this tensor.
    pub fn zeros_like(&self) -> Result<Tensor> {
        Tensor::zeros(*self.shape(), self.dtype(), self.device())
    }

    /// In place: takes `source`'s values: see [`Op::Assign`].
    pub fn assign(&self, source: &Tensor) -> Result<()> {
        Op::Assign.apply(&[self, source]).map(drop)
    }

    /// A packed weight's original; itself if it is not packed.
    pub fn unpack(&self) -> Result<Tensor> {
        if !self.is_packed() {
            return Ok(self.clone());
        }
        Op::Unpack.apply(&[self])?.one()
    }
}
