use crate::{DType, Error, Kind, Result, Shape, Tensor};

/// The arguments of an op under inference: checks that name the argument and say what would be right.
pub(crate) struct Args<'a> {
    op: &'static str,
    inputs: &'a [&'a Tensor],
}

impl<'a> Args<'a> {
    pub(crate) fn new(op: &'static str, inputs: &'a [&'a Tensor]) -> Self {
        Self { op, inputs }
    }

    pub(crate) fn inputs(&self) -> &'a [&'a Tensor] {
        self.inputs
    }

    pub(crate) fn fail(&self, kind: Kind, message: impl Into<String>) -> Error {
        Error::new(kind, self.op, message).with_arguments(self.inputs)
    }

    pub(crate) fn shape_error(&self, message: impl Into<String>) -> Error {
        self.fail(Kind::Shape, message)
    }

    /// The arguments, where there are as many as names.
    pub(crate) fn named<const N: usize>(&self, names: [&str; N]) -> Result<[&'a Tensor; N]> {
        <[&Tensor; N]>::try_from(self.inputs).map_err(|_| {
            self.fail(Kind::Argument, format!("takes {N} arguments ({}), {} given", names.join(", "), self.inputs.len()))
        })
    }

    /// The argument is of floats.
    pub(crate) fn float(&self, name: &str, tensor: &Tensor) -> Result<DType> {
        if tensor.dtype().is_float() {
            return Ok(tensor.dtype());
        }
        Err(self.fail(Kind::DType, format!("{name} {} is {}; it takes f64, f32, f16 or bf16", tensor.shape(), tensor.dtype())))
    }

    /// The argument is a weight: floats of any dtype, or blocks.
    pub(crate) fn weight(&self, name: &str, tensor: &Tensor) -> Result<()> {
        if tensor.dtype().is_float() || tensor.dtype().block().is_some() {
            return Ok(());
        }
        Err(self.fail(Kind::DType, format!("{name} {} is {}; it takes floats or blocks", tensor.shape(), tensor.dtype())))
    }

    /// The argument is no quantised block.
    pub(crate) fn plain(&self, name: &str, tensor: &Tensor) -> Result<DType> {
        match tensor.dtype() {
            DType::Block(block) => {
                Err(self
                    .fail(Kind::DType, format!("{name} {} is {block}, quantised; cast(DType::F32) decodes it", tensor.shape())))
            }
            dtype => Ok(dtype),
        }
    }

    /// The argument is of this dtype.
    pub(crate) fn dtype(&self, name: &str, tensor: &Tensor, dtype: DType) -> Result<()> {
        if tensor.dtype() == dtype {
            return Ok(());
        }
        Err(self.fail(Kind::DType, format!("{name} {} is {}; it takes {dtype}", tensor.shape(), tensor.dtype())))
    }

    /// Both arguments are of one dtype.
    pub(crate) fn same_dtype(&self, names: [&str; 2], a: &Tensor, b: &Tensor) -> Result<DType> {
        if a.dtype() == b.dtype() {
            return Ok(a.dtype());
        }
        let [x, y] = names;
        Err(self.fail(Kind::DType, format!("{x} is {} and {y} is {}; cast one to the other's dtype", a.dtype(), b.dtype())))
    }

    /// The argument has this shape; `why` says where it follows from.
    pub(crate) fn shape(&self, name: &str, tensor: &Tensor, shape: impl Into<Shape>, why: &str) -> Result<()> {
        let shape = shape.into();
        if *tensor.shape() == shape {
            return Ok(());
        }
        Err(self.shape_error(format!("{name} is {}; {why} needs {shape}", tensor.shape())))
    }

    /// The argument has this many axes, and they are its lengths; `axes` names them.
    pub(crate) fn axes<const N: usize>(&self, name: &str, tensor: &Tensor, axes: &str) -> Result<[usize; N]> {
        <[usize; N]>::try_from(&tensor.shape()[..])
            .map_err(|_| self.shape_error(format!("{name} is {}; it takes {axes}", tensor.shape())))
    }

    /// The argument has at least one axis; its last length.
    pub(crate) fn last_axis(&self, name: &str, tensor: &Tensor) -> Result<usize> {
        if tensor.rank() == 0 {
            return Err(self.shape_error(format!("{name} is a scalar; it takes one axis at least")));
        }
        Ok(tensor.shape().last())
    }
}
