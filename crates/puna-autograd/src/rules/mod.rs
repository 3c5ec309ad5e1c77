//! Gradient rules: one file per op family, under the same name as in the other crates.
//!
//! A rule takes a recorded op and the gradients of its results and gives those of its inputs (`None`: nothing flows there).

mod attention;
mod copy;
mod elementwise;
mod index;
mod loss;
mod matmul;
mod mlp;
mod norm;
mod reduce;
mod rope;
mod softmax;

use puna_tensor::op::Parts;
use puna_tensor::{Error, Kind, Node, Op, Result, Shape, Tensor, TensorId};

use crate::walk::through_lowering;

/// A gradient for each input.
pub(crate) type Flowed = Result<Vec<Option<Tensor>>>;

/// What a rule reads: the recorded op, the gradients of its outputs, and which inputs' gradients are wanted.
pub(crate) struct Context<'a> {
    node: &'a Node,
    dy: &'a [Option<Tensor>],
    need: &'a [bool],
}

impl<'a> Context<'a> {
    /// The value of an input that the op keeps.
    fn input(&self, i: usize) -> Result<Tensor> {
        self.node.input(i)
    }

    /// The value of an output that the op keeps.
    fn output(&self, i: usize) -> Result<Tensor> {
        self.node.output(i)
    }

    /// The shape of an input.
    fn shape(&self, i: usize) -> &'a Shape {
        self.node.inputs()[i].shape()
    }

    /// The gradient of the first result: of an op that has one it always flowed, or the op would not have been asked.
    fn dy(&self) -> Result<&'a Tensor> {
        self.dy[0].as_ref().ok_or_else(|| {
            Error::new(Kind::Argument, self.node.op().name(), "no gradient flowed to the first result, which the rule reads")
        })
    }

    /// Whether the gradient of an input is wanted.
    fn needs(&self, i: usize) -> bool {
        self.need[i]
    }

    /// The gradient of input `i`, formed if it is wanted.
    fn wanted(&self, i: usize, f: impl FnOnce() -> Result<Tensor>) -> Result<Option<Tensor>> {
        if self.need[i] { f().map(Some) } else { Ok(None) }
    }

    fn not_differentiable(&self, why: &str) -> Flowed {
        Err(Error::new(Kind::NotDifferentiable, self.node.op().name(), why))
    }
}

/// The gradients of a recorded op's inputs from those of its outputs. Runs unrecorded.
pub(crate) fn vjp(
    node: &Node,
    dy: &[Option<Tensor>],
    need: &[bool],
    captured: &mut dyn FnMut(TensorId, Tensor) -> Result<()>,
) -> Flowed {
    let c = Context { node, dy, need };
    match node.op() {
        Op::Unary(op) => elementwise::unary(&c, *op),
        Op::Affine(op) => elementwise::affine(&c, op),
        Op::Binary(op) => elementwise::binary(&c, *op),
        Op::Select => elementwise::select(&c),
        Op::Reduce(op) => reduce::reduce(&c, op),
        Op::CumSum => reduce::cum_sum(&c),
        Op::Sort(_) => reduce::sort(&c),
        Op::View(op) => copy::view(&c, op),
        Op::Contiguous | Op::Cast(_) => copy::same(&c),
        Op::Concat(op) => copy::concat(&c, op),
        Op::GatherRows(_) => index::gather_rows(&c),
        Op::ScatterAddRows(_) => index::scatter_add_rows(&c),
        Op::Take(_) => index::take(&c),
        Op::TakeBackward(_) => index::take_backward(&c),
        Op::MatMul => matmul::matmul(&c),
        // Rounding passes the gradient straight through.
        Op::Int8Blocks => copy::same(&c),
        Op::Linear(op) if op.parts.is_plain() => matmul::linear(&c, op),
        Op::Linears(op) if op.parts.iter().all(Parts::is_plain) => matmul::linears(&c, op),
        Op::RmsNorm(op) => norm::rms_norm(&c, op),
        Op::AddRmsNorm(_) => norm::add_rms_norm(&c),
        Op::Rope(op) => rope::rope(&c, op),
        Op::Attention(op) => attention::attention(&c, op),
        Op::SwiGlu => mlp::swiglu(&c),
        Op::GatedMlp(op) if op.parts.iter().all(Parts::is_plain) => mlp::gated_mlp(&c, op),
        Op::Linear(_) | Op::Linears(_) | Op::GatedMlp(_) => through_lowering(node, dy, need, captured),
        Op::Softmax => softmax::softmax(&c),
        Op::LogSoftmax => softmax::log_softmax(&c),
        Op::CrossEntropy => loss::cross_entropy(&c),
        Op::LinearCrossEntropy(_) => loss::linear_cross_entropy(&c),
        Op::Custom(op) => match op.vjp(node, dy, captured)? {
            Some(gradients) => Ok(gradients),
            None => through_lowering(node, dy, need, captured),
        },
        Op::Compare(_) | Op::ArgReduce(_) | Op::Fill(_) | Op::Arange(_) | Op::Random(_) | Op::Sample(_) => {
            c.not_differentiable("its result does not change with its arguments, or is no float")
        }
        Op::Assign | Op::ScatterRows | Op::RopeAndCache(_) | Op::AdamW(_) | Op::Sgd(_) => {
            c.not_differentiable("it works in place; a cache and an optimiser have no derivative")
        }
        Op::PagedAttention(_) => c.not_differentiable("a cache has no derivative; a step without one uses attention"),
        Op::Unpack => c.not_differentiable("a packed weight is not trained; load it without packing"),
        Op::LinearInputGrad(_)
        | Op::RmsNormBackward(_)
        | Op::AttentionBackward(_)
        | Op::SwiGluBackward
        | Op::CrossEntropyBackward(_)
        | Op::LinearCrossEntropyBackward(_) => c.not_differentiable("it is a derivative, and there are no second ones"),
    }
}

/// The sum over what broadcasting repeated: a gradient of `shape`.
fn sum_to(gradient: Tensor, shape: &Shape) -> Result<Tensor> {
    if gradient.shape() == shape {
        return Ok(gradient);
    }
    let leading = gradient.rank() - shape.rank();
    let repeated = |axis: usize| axis < leading || (shape[axis - leading] == 1 && gradient.dim(axis) != 1);
    let axes: Vec<usize> = (0..gradient.rank()).filter(|&axis| repeated(axis)).collect();
    if axes.is_empty() {
        return gradient.reshape(*shape);
    }
    let axes = puna_tensor::Axes::new(&axes).expect("fewer axes than a tensor has");
    gradient.sum(axes)?.reshape(*shape)
}

/// `[rows, last]` of any tensor: its leading axes as one.
fn rows(x: &Tensor) -> Result<Tensor> {
    x.reshape([x.shape().rows(), x.shape().last()])
}
