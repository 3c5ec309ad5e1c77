use super::{Args, Inferred, Op};
use crate::{DType, Kind, Result, Shape, Tensor};

/// A function of one argument, elementwise; floats, computed in f32 (f64 for f64) and rounded once; NaN for NaN. `Neg`, `Abs` and `Sign` take
/// i64 too, and wrap. Of `-inf`, where the formula of `Silu`, `Gelu` and `GeluTanh` is infinity times zero, a device gives NaN or 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // The names are the functions; what is not evident says its formula.
pub enum Unary {
    Neg,
    Abs,
    /// -1, 0 or 1; NaN for NaN.
    Sign,
    Exp,
    /// The natural logarithm.
    Log,
    Sqrt,
    /// `1 / sqrt(x)`.
    Rsqrt,
    /// `1 / x`.
    Reciprocal,
    Square,
    Sin,
    Cos,
    Tanh,
    /// `1 / (1 + exp(-x))`.
    Sigmoid,
    /// `x / (1 + exp(-x))`. Elfwing, Uchibe and Doya 2017, arXiv 1702.03118.
    Silu,
    /// `max(x, 0)`.
    Relu,
    /// `ln(1 + exp(x))`, without overflow.
    Softplus,
    /// `x / 2 * (1 + erf(x / sqrt(2)))`. Hendrycks and Gimpel 2016, arXiv 1606.08415.
    Gelu,
    /// `x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3)))`.
    GeluTanh,
}

impl Unary {
    /// Every function.
    pub const ALL: [Unary; 18] = [
        Unary::Neg,
        Unary::Abs,
        Unary::Sign,
        Unary::Exp,
        Unary::Log,
        Unary::Sqrt,
        Unary::Rsqrt,
        Unary::Reciprocal,
        Unary::Square,
        Unary::Sin,
        Unary::Cos,
        Unary::Tanh,
        Unary::Sigmoid,
        Unary::Silu,
        Unary::Relu,
        Unary::Softplus,
        Unary::Gelu,
        Unary::GeluTanh,
    ];

    pub(super) fn infer(&self, args: &Args) -> Result<Inferred> {
        let [x] = args.named(["x"])?;
        let signed = matches!(self, Self::Neg | Self::Abs | Self::Sign) && x.dtype() == DType::I64;
        if !signed {
            args.float("x", x)?;
        }
        Ok(Inferred::one(*x.shape(), x.dtype()))
    }

    /// Whether the derivative is a function of the argument.
    pub(super) fn keeps_input(&self) -> bool {
        !matches!(self, Self::Neg) && !self.keeps_output()
    }

    /// Whether the derivative is a function of the result.
    pub(super) fn keeps_output(&self) -> bool {
        matches!(self, Self::Exp | Self::Sqrt | Self::Rsqrt | Self::Reciprocal | Self::Tanh | Self::Sigmoid | Self::Relu)
    }
}

/// `y = x * mul + add`, elementwise; floats, computed in f32 (f64 for f64) as a product and a sum, rounded once to the dtype.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Affine {
    /// The factor.
    pub mul: f64,
    /// The summand.
    pub add: f64,
}

impl Affine {
    pub(super) fn infer(&self, args: &Args) -> Result<Inferred> {
        let [x] = args.named(["x"])?;
        args.float("x", x)?;
        Ok(Inferred::one(*x.shape(), x.dtype()))
    }
}

/// A function of two arguments of one dtype, elementwise, broadcast: floats computed in f32 (f64 for f64) and rounded once; integers wrap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Binary {
    Add,
    Sub,
    Mul,
    /// The quotient; of integers rounded toward zero, 0 where the divisor is 0.
    Div,
    /// The larger; NaN where one is.
    Maximum,
    /// The smaller; NaN where one is.
    Minimum,
    /// `lhs ^ rhs`; floats only.
    Pow,
}

impl Binary {
    /// Every function.
    pub const ALL: [Binary; 7] =
        [Binary::Add, Binary::Sub, Binary::Mul, Binary::Div, Binary::Maximum, Binary::Minimum, Binary::Pow];

    pub(super) fn infer(&self, args: &Args) -> Result<Inferred> {
        let (shape, dtype) = infer_pair(args)?;
        if *self == Self::Pow {
            args.float("lhs", args.inputs()[0])?;
        }
        Ok(Inferred::one(shape, dtype))
    }

    pub(super) fn keeps_input(&self) -> bool {
        !matches!(self, Self::Add | Self::Sub)
    }
}

/// A comparison of two arguments of one dtype, elementwise, broadcast, to u8: 1 where it holds, else 0. NaN is unequal to everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Compare {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
}

impl Compare {
    /// Every comparison.
    pub const ALL: [Compare; 6] = [Compare::Eq, Compare::Ne, Compare::Lt, Compare::Le, Compare::Gt, Compare::Ge];

    pub(super) fn infer(&self, args: &Args) -> Result<Inferred> {
        let (shape, _) = infer_pair(args)?;
        Ok(Inferred::one(shape, DType::U8))
    }
}

fn infer_pair(args: &Args) -> Result<(Shape, DType)> {
    let [lhs, rhs] = args.named(["lhs", "rhs"])?;
    args.plain("lhs", lhs)?;
    let dtype = args.same_dtype(["lhs", "rhs"], lhs, rhs)?;
    Ok((broadcast(args, ["lhs", "rhs"], lhs.shape(), rhs.shape())?, dtype))
}

pub(super) fn infer_select(args: &Args) -> Result<Inferred> {
    let [condition, a, b] = args.named(["condition", "a", "b"])?;
    args.dtype("condition", condition, DType::U8)?;
    args.plain("a", a)?;
    let dtype = args.same_dtype(["a", "b"], a, b)?;
    let shape = broadcast(args, ["a", "b"], a.shape(), b.shape())?;
    let shape = broadcast(args, ["condition", "a and b"], condition.shape(), &shape)?;
    Ok(Inferred::one(shape, dtype))
}

fn broadcast(args: &Args, names: [&str; 2], a: &Shape, b: &Shape) -> Result<Shape> {
    let [x, y] = names;
    let shape = a.broadcast(b).ok_or_else(|| {
        args.shape_error(format!("{x} {a} and {y} {b} do not broadcast: from the last axis on, lengths must be equal or 1"))
    })?;
    if shape.checked_elements().is_none() {
        return Err(
            args.fail(Kind::Memory, format!("{x} {a} and {y} {b} broadcast to {shape}, more than fits the address space"))
        );
    }
    Ok(shape)
}

macro_rules! unary_methods {
    ($($name:ident $variant:ident $what:literal;)*) => {
        /// # Elementwise, one argument
        impl Tensor {
            $(#[doc = concat!($what, ": see [`Unary::", stringify!($variant), "`].")]
            pub fn $name(&self) -> Result<Tensor> {
                Op::Unary(Unary::$variant).apply(&[self])?.one()
            })*
        }
    };
}
unary_methods! {
    neg Neg "`-x`";
    abs Abs "`|x|`";
    sign Sign "The sign";
    exp Exp "`e^x`";
    log Log "The natural logarithm";
    sqrt Sqrt "The square root";
    rsqrt Rsqrt "`1 / sqrt(x)`";
    reciprocal Reciprocal "`1 / x`";
    square Square "`x * x`";
    sin Sin "The sine of radians";
    cos Cos "The cosine of radians";
    tanh Tanh "The hyperbolic tangent";
    sigmoid Sigmoid "The logistic function";
    silu Silu "The sigmoid linear unit";
    relu Relu "`max(x, 0)`";
    softplus Softplus "`ln(1 + e^x)`";
    gelu Gelu "The Gaussian error linear unit";
    gelu_tanh GeluTanh "The same by its approximation with tanh";
}

macro_rules! binary_methods {
    ($($name:ident $op:ident $variant:ident $what:literal;)*) => {
        /// # Elementwise, two arguments
        impl Tensor {
            $(#[doc = concat!($what, ": see [`", stringify!($op), "::", stringify!($variant), "`].")]
            pub fn $name(&self, rhs: &Tensor) -> Result<Tensor> {
                Op::$op($op::$variant).apply(&[self, rhs])?.one()
            })*
        }
    };
}
binary_methods! {
    add Binary Add "The sum";
    sub Binary Sub "The difference";
    mul Binary Mul "The product, elementwise";
    div Binary Div "The quotient";
    maximum Binary Maximum "The larger";
    minimum Binary Minimum "The smaller";
    pow Binary Pow "The power";
    eq Compare Eq "Whether equal";
    ne Compare Ne "Whether unequal";
    lt Compare Lt "Whether less";
    le Compare Le "Whether less or equal";
    gt Compare Gt "Whether greater";
    ge Compare Ge "Whether greater or equal";
}

impl Tensor {
    /// `self * mul + add`: see [`Affine`].
    pub fn affine(&self, mul: f64, add: f64) -> Result<Tensor> {
        Op::Affine(Affine { mul, add }).apply(&[self])?.one()
    }

    /// `a` where this (u8) is not 0, else `b`: see [`Op::Select`].
    pub fn select(&self, a: &Tensor, b: &Tensor) -> Result<Tensor> {
        Op::Select.apply(&[self, a, b])?.one()
    }
}
