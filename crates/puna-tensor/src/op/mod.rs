//! Every operation as data.
//!
//! [`Op`] is one list. From it follow shape and dtype inference ([`Op::infer`], the only place where arguments are checked),
//! dispatch ([`Backend::execute`](crate::Backend::execute), an exhaustive `match`), recording for autograd, and the conformance suite.
//!
//! Ops are of two kinds. *Primitives* are what every back end must have. *Fused* ops have a [`lower`](Op::lower): their
//! definition in primitives, which runs where a back end has no kernel, and which their kernels are tested against.
//!
//! Nothing that changes from token to token is an attribute: positions, lengths, page tables, slots, seeds are tensors, so that
//! one recording serves every step.

mod args;
mod attention;
mod copy;
mod custom;
mod elementwise;
mod index;
mod loss;
mod matmul;
mod mlp;
mod norm;
mod optimizer;
mod random;
mod reduce;
mod rope;
mod sampling;
mod softmax;

use std::borrow::Cow;

use crate::{DType, Device, Error, Execution, Kind, Node, Result, Shape, Tensor, is_recording, no_grad};
use args::Args;

pub use attention::{Attention, AttentionBackward, Mask, PagedAttention, PagedInputs};
pub use copy::{Arange, Cast, Concat, Fill, View};
pub use custom::CustomOp;
pub use elementwise::{Affine, Binary, Compare, Unary};
pub use index::{GatherRows, ScatterAddRows, Take, TakeBackward};
pub use loss::{CrossEntropyBackward, LinearCrossEntropy, LinearCrossEntropyBackward};
pub use matmul::{Activations, Dropout, Linear, LinearInputGrad, Linears, LowRank, LowRankParts, Parts, Projection};
pub use mlp::GatedMlp;
pub use norm::{AddRmsNorm, RmsNorm, RmsNormBackward};
pub use optimizer::{AdamW, Sgd, StepInputs, Stepped};
pub use random::{Distribution, Random};
pub use reduce::{ArgReduce, Reduce, ReduceKind, Sort};
pub use rope::{Rope, RopeAndCache, RopeAndCacheInputs, RopePairs};
pub use sampling::{Sample, SampleInputs, SamplingParameters};

macro_rules! ops {
    ($($(#[$doc:meta])* $variant:ident $(($attributes:ty))? => $name:literal, $family:ident, $kind:ident;)*) => {
        /// An operation: its attributes. What it computes, its shapes and dtypes stand with the attributes' type or the variant.
        #[derive(Debug, Clone)]
        pub enum Op {
            $($(#[$doc])* $variant $(($attributes))?,)*
            /// An operation from outside: see [`CustomOp`].
            Custom(std::sync::Arc<dyn CustomOp>),
        }

        impl Op {
            /// The op's name, one word everywhere: `rms_norm`.
            pub fn name(&self) -> &'static str {
                match self {
                    $(ops!(@pattern $variant $(($attributes))?) => $name,)*
                    Self::Custom(op) => op.name(),
                }
            }

            /// Whether every back end must have it.
            pub fn is_primitive(&self) -> bool {
                match self {
                    $(ops!(@pattern $variant $(($attributes))?) => matches!(OpKind::$kind, OpKind::Primitive),)*
                    Self::Custom(_) => false,
                }
            }

            /// The family: the name of the file that it lives in, in every crate.
            pub fn family(&self) -> &'static str {
                match self {
                    $(ops!(@pattern $variant $(($attributes))?) => stringify!($family),)*
                    Self::Custom(_) => "custom",
                }
            }

            /// The names of all ops and whether each is a primitive: what the conformance suite must cover.
            pub const ALL: &'static [(&'static str, bool)] = &[$(($name, matches!(OpKind::$kind, OpKind::Primitive)),)*];
        }
    };
    (@pattern $variant:ident ($attributes:ty)) => { Self::$variant(_) };
    (@pattern $variant:ident) => { Self::$variant };
}

enum OpKind {
    Primitive,
    Fused,
}

ops! {
    /// An elementwise function of one argument.
    Unary(Unary) => "unary", elementwise, Primitive;
    /// See [`Affine`].
    Affine(Affine) => "affine", elementwise, Primitive;
    /// An elementwise function of two arguments.
    Binary(Binary) => "binary", elementwise, Primitive;
    /// An elementwise comparison.
    Compare(Compare) => "compare", elementwise, Primitive;
    /// `y = if condition != 0 { a } else { b }`, elementwise: `condition` u8; `a`, `b` and `y` of one dtype; all broadcast.
    Select => "select", elementwise, Primitive;
    /// See [`Reduce`].
    Reduce(Reduce) => "reduce", reduce, Primitive;
    /// See [`ArgReduce`].
    ArgReduce(ArgReduce) => "arg_reduce", reduce, Primitive;
    /// `y[i] = x[0] + .. + x[i]` along the last axis, in order, accumulated in f32 (f64 for f64) and rounded at each element.
    CumSum => "cum_sum", reduce, Primitive;
    /// See [`Sort`].
    Sort(Sort) => "sort", reduce, Primitive;
    /// See [`View`].
    View(View) => "view", copy, Primitive;
    /// The same elements (or blocks) in row-major order in new memory.
    Contiguous => "contiguous", copy, Primitive;
    /// See [`Cast`].
    Cast(Cast) => "cast", copy, Primitive;
    /// See [`Concat`].
    Concat(Concat) => "concat", copy, Primitive;
    /// See [`Fill`].
    Fill(Fill) => "fill", copy, Primitive;
    /// See [`Arange`].
    Arange(Arange) => "arange", copy, Primitive;
    /// In place: `destination = source`, `source` broadcast to its shape; one dtype.
    Assign => "assign", copy, Primitive;
    /// A packed weight's original elements or blocks.
    Unpack => "unpack", copy, Primitive;
    /// See [`GatherRows`].
    GatherRows(GatherRows) => "gather_rows", index, Primitive;
    /// In place: `destination[index[i], ..] = source[i, ..]` for each `i` in order, so that the last of equal indices wins;
    /// `destination [rows, ..]`, `index` u32 `[n]`, `source [n, ..]` of any float dtype (of the same one for other dtypes), rounded to the destination's.
    /// An index out of range writes nothing.
    ScatterRows => "scatter_rows", index, Primitive;
    /// See [`ScatterAddRows`].
    ScatterAddRows(ScatterAddRows) => "scatter_add_rows", index, Primitive;
    /// See [`Take`].
    Take(Take) => "take", index, Primitive;
    /// See [`TakeBackward`].
    TakeBackward(TakeBackward) => "take_backward", index, Primitive;
    /// `y[.., m, n] = sum_k lhs[.., m, k] * rhs[.., k, n]`: `lhs [.., M, K]`, `rhs [.., K, N]` of one float dtype, leading axes broadcast,
    /// accumulated in f32 (f64 for f64) in one chain over K, rounded once.
    MatMul => "matmul", matmul, Primitive;
    /// `y = d * q` with `q = round(x / d)`, `d = max|x| / 127` over blocks of 32 along the last axis (the last may be shorter):
    /// what an activation becomes beside block weights under [`Activations::Int8`]. `x` f32, result f32; defined bit by bit by
    /// [`puna_quant::quantize_activations`].
    Int8Blocks => "int8_blocks", matmul, Primitive;
    /// See [`Linear`].
    Linear(Linear) => "linear", matmul, Fused;
    /// See [`Linears`].
    Linears(Linears) => "linears", matmul, Fused;
    /// See [`LinearInputGrad`].
    LinearInputGrad(LinearInputGrad) => "linear_input_grad", matmul, Fused;
    /// See [`RmsNorm`].
    RmsNorm(RmsNorm) => "rms_norm", norm, Fused;
    /// See [`AddRmsNorm`].
    AddRmsNorm(AddRmsNorm) => "add_rms_norm", norm, Fused;
    /// See [`RmsNormBackward`].
    RmsNormBackward(RmsNormBackward) => "rms_norm_backward", norm, Fused;
    /// See [`Rope`].
    Rope(Rope) => "rope", rope, Fused;
    /// See [`RopeAndCache`].
    RopeAndCache(RopeAndCache) => "rope_and_cache", rope, Fused;
    /// See [`Attention`].
    Attention(Attention) => "attention", attention, Fused;
    /// See [`PagedAttention`].
    PagedAttention(PagedAttention) => "paged_attention", attention, Fused;
    /// See [`AttentionBackward`].
    AttentionBackward(AttentionBackward) => "attention_backward", attention, Fused;
    /// `y = silu(gate) * up`, elementwise, with `silu(g) = g / (1 + exp(-g))`; one float dtype, one shape; computed in f32 and rounded once.
    /// Shazeer 2020, arXiv 2002.05202.
    SwiGlu => "swiglu", mlp, Fused;
    /// The derivative of [`Op::SwiGlu`]: `dy, gate, up` to `dgate = dy * up * s * (1 + gate * (1 - s))` and `dup = dy * gate * s`, `s = sigmoid(gate)`.
    SwiGluBackward => "swiglu_backward", mlp, Fused;
    /// See [`GatedMlp`].
    GatedMlp(GatedMlp) => "gated_mlp", mlp, Fused;
    /// `y[i] = exp(x[i] - max(x)) / sum_j exp(x[j] - max(x))` along the last axis; computed in f32 (f64 for f64). A row of nothing but `-inf` gives zeros.
    Softmax => "softmax", softmax, Fused;
    /// `y[i] = x[i] - max(x) - ln(sum_j exp(x[j] - max(x)))` along the last axis; computed in f32 (f64 for f64).
    LogSoftmax => "log_softmax", softmax, Fused;
    /// `-ln softmax(logits)[label]`, summed over the rows that count: `logits [.., V]` float, `labels` u32 `[..]` to the sum (f32, f64 for f64; `[]`)
    /// and the count (u32, `[]`). A label of `u32::MAX` does not count; one out of range counts nothing either. Saves the
    /// log-sum-exp of each row, f32.
    CrossEntropy => "cross_entropy", loss, Fused;
    /// See [`CrossEntropyBackward`].
    CrossEntropyBackward(CrossEntropyBackward) => "cross_entropy_backward", loss, Fused;
    /// See [`LinearCrossEntropy`].
    LinearCrossEntropy(LinearCrossEntropy) => "linear_cross_entropy", loss, Fused;
    /// See [`LinearCrossEntropyBackward`].
    LinearCrossEntropyBackward(LinearCrossEntropyBackward) => "linear_cross_entropy_backward", loss, Fused;
    /// See [`AdamW`].
    AdamW(AdamW) => "adamw", optimizer, Fused;
    /// See [`Sgd`].
    Sgd(Sgd) => "sgd", optimizer, Fused;
    /// See [`Random`].
    Random(Random) => "random", random, Primitive;
    /// See [`Sample`].
    Sample(Sample) => "sample", sampling, Fused;
}

/// The shape and dtype of one output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spec {
    /// Its shape.
    pub shape: Shape,
    /// Its dtype.
    pub dtype: DType,
}

/// What an op gives: its results and, behind them, what its derivative reads (present only where an input is tracked).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inferred {
    /// Results first, then what is saved.
    pub outputs: Vec<Spec>,
    /// How many of the outputs are results.
    pub results: usize,
}

impl Inferred {
    /// One result and nothing saved.
    pub fn one(shape: Shape, dtype: DType) -> Self {
        Self::results([Spec { shape, dtype }])
    }

    /// Several results and nothing saved.
    pub fn results(results: impl IntoIterator<Item = Spec>) -> Self {
        let outputs: Vec<_> = results.into_iter().collect();
        Self { results: outputs.len(), outputs }
    }

    /// With one more output, which only the derivative reads, where `tracked`.
    pub fn saving(mut self, tracked: bool, shape: Shape, dtype: DType) -> Self {
        if tracked {
            self.outputs.push(Spec { shape, dtype });
        }
        self
    }
}

/// The results of an op.
#[derive(Debug)]
pub struct Outputs(Vec<Tensor>);

impl Outputs {
    /// All of them.
    pub fn all(self) -> Vec<Tensor> {
        self.0
    }

    /// The results of an op that has `N`.
    ///
    /// # Panics
    /// Where the op has another number of results, which its definition says.
    pub fn array<const N: usize>(self) -> [Tensor; N] {
        let n = self.0.len();
        self.0.try_into().unwrap_or_else(|_| panic!("an op of {n} results was asked for {N}"))
    }

    /// The result of an op that has one, as `Ok`: the end of most ops' methods.
    pub fn one(self) -> Result<Tensor> {
        let [result] = self.array();
        Ok(result)
    }
}

impl Op {
    /// Runs the op on the device of its arguments: checks them, allocates the results, executes (or lowers), records a node where
    /// an input is tracked. The one door through which every operation passes.
    ///
    /// Errors: what [`infer`](Self::infer) finds; arguments on different devices; no memory; what the back end says.
    pub fn apply(self, inputs: &[&Tensor]) -> Result<Outputs> {
        let Some(first) = inputs.first() else {
            return Err(Error::new(Kind::Argument, self.name(), "no arguments were given, so there is no device; use apply_on"));
        };
        self.apply_on(first.device(), inputs)
    }

    /// As [`apply`](Self::apply), on a device that is named: for ops without arguments.
    pub fn apply_on(self, device: &Device, inputs: &[&Tensor]) -> Result<Outputs> {
        self.check_placement(device, inputs)?;
        let recording = is_recording() && inputs.iter().any(|input| input.is_tracked());
        let Inferred { outputs: specs, results } = self.infer(inputs, recording)?;
        let tracked = recording && specs[..results].iter().any(|spec| spec.dtype.is_float());
        let mut outputs = match &self {
            Self::View(view) => vec![view.view(inputs[0], &specs[0].shape)?],
            _ => self.execute(device, inputs, &specs, recording)?,
        };
        if tracked {
            let node = Node::new(self, inputs, &outputs);
            outputs.truncate(results);
            for (i, output) in outputs.iter_mut().enumerate().filter(|(_, output)| output.dtype().is_float()) {
                *output = output.clone().recorded(&node, i);
            }
        }
        outputs.truncate(results);
        Ok(Outputs(outputs))
    }

    fn execute(&self, device: &Device, inputs: &[&Tensor], specs: &[Spec], recording: bool) -> Result<Vec<Tensor>> {
        self.check_changes(inputs, recording)?;
        let allocate = |spec: &Spec| Tensor::uninitialized(spec.shape, spec.dtype, device, self.name());
        let outputs = specs.iter().map(allocate).collect::<Result<Vec<_>>>()?;
        match device.backend().execute(self, inputs, &outputs)? {
            Execution::Done => {
                self.changes().iter().for_each(|&i| inputs[i].buffer().changed());
                Ok(outputs)
            }
            Execution::Unsupported if self.is_primitive() => {
                let message =
                    format!("{} has no kernel for it, and a primitive has no composition to run in its place", device.name());
                Err(Error::new(Kind::Unsupported, self.name(), message).with_arguments(inputs))
            }
            Execution::Unsupported => {
                // Free what was allocated for a kernel that is not there.
                drop(outputs);
                device.count_lowered(self.name(), inputs.first().map(|input| input.dtype()));
                no_grad(|| self.lower(inputs, recording))
            }
        }
    }

    fn check_placement(&self, device: &Device, inputs: &[&Tensor]) -> Result<()> {
        for (i, input) in inputs.iter().enumerate() {
            if input.device() != device {
                let message = format!(
                    "argument {i} is on {}, the others on {}; to_device brings it there",
                    input.device().name(),
                    device.name()
                );
                return Err(Error::new(Kind::Device, self.name(), message).with_arguments(inputs));
            }
            if input.is_packed() && !self.takes_packed(i) {
                let message =
                    format!("argument {i} is a packed weight {}; unpack() gives a tensor that every op takes", input.shape());
                return Err(Error::new(Kind::Argument, self.name(), message).with_arguments(inputs));
            }
        }
        Ok(())
    }

    /// In-place ops change leaves under `no_grad` or plain tensors, never what a recorded op gave; neither another argument nor
    /// another of their own elements shares their memory.
    fn check_changes(&self, inputs: &[&Tensor], recording: bool) -> Result<()> {
        let fail = |message: String| Err(Error::new(Kind::InPlace, self.name(), message).with_arguments(inputs));
        let changes = self.changes();
        for &changed in changes.iter() {
            if recording {
                return fail(format!("argument {changed} is changed in place, which is not recorded; run it under no_grad"));
            }
            let layout = inputs[changed].layout();
            let repeated = layout.strides().iter().zip(layout.shape().iter()).any(|(&stride, &length)| stride == 0 && length > 1);
            if repeated && !layout.shape().contains(&0) {
                return fail(format!("argument {changed} {} is broadcast: its elements share memory", layout.shape()));
            }
            if inputs[changed].source().is_some() {
                return fail(format!("argument {changed} is the result of a recorded op and may not be changed; detach() first"));
            }
        }
        if changes.is_empty() {
            return Ok(());
        }
        // Sorted, since an optimiser's step has thousands of arguments: those that share memory are neighbours.
        let mut order: Vec<usize> = (0..inputs.len()).collect();
        order.sort_by_key(|&i| inputs[i].buffer().address());
        for pair in order.windows(2).filter(|pair| inputs[pair[0]].buffer().is_same(inputs[pair[1]].buffer())) {
            let [a, b] = [pair[0], pair[1]];
            if let Some((changed, other)) = [(a, b), (b, a)].into_iter().find(|(changed, _)| changes.contains(changed)) {
                return fail(format!("argument {changed} is changed in place and shares its memory with argument {other}"));
            }
        }
        Ok(())
    }

    fn takes_packed(&self, input: usize) -> bool {
        match self {
            Self::Unpack | Self::GatherRows(_) => input == 0,
            Self::Linear(_) | Self::LinearInputGrad(_) | Self::LinearCrossEntropy(_) => input == 1,
            Self::LinearCrossEntropyBackward(_) => input == 2,
            Self::Linears(op) => op.is_weight(input),
            Self::GatedMlp(op) => op.is_weight(input),
            _ => false,
        }
    }

    /// The arguments that an in-place op changes.
    pub fn changes(&self) -> Cow<'static, [usize]> {
        match self {
            Self::Assign | Self::ScatterRows => [0][..].into(),
            Self::RopeAndCache(_) => RopeAndCache::CHANGES.into(),
            Self::AdamW(op) => op.changes().into(),
            Self::Sgd(op) => op.changes().into(),
            _ => Cow::default(),
        }
    }

    /// The shapes and dtypes of the outputs, and the only place where arguments are checked. `tracked`: with what the derivative reads.
    pub fn infer(&self, inputs: &[&Tensor], tracked: bool) -> Result<Inferred> {
        let args = Args::new(self.name(), inputs);
        match self {
            Self::Unary(op) => op.infer(&args),
            Self::Affine(op) => op.infer(&args),
            Self::Binary(op) => op.infer(&args),
            Self::Compare(op) => op.infer(&args),
            Self::Select => elementwise::infer_select(&args),
            Self::Reduce(op) => op.infer(&args),
            Self::ArgReduce(op) => op.infer(&args),
            Self::CumSum => reduce::infer_cum_sum(&args),
            Self::Sort(op) => op.infer(&args),
            Self::View(op) => op.infer(&args),
            Self::Contiguous => copy::infer_contiguous(&args),
            Self::Cast(op) => op.infer(&args),
            Self::Concat(op) => op.infer(&args),
            Self::Fill(op) => op.infer(&args),
            Self::Arange(op) => op.infer(&args),
            Self::Assign => copy::infer_assign(&args),
            Self::Unpack => copy::infer_unpack(&args),
            Self::GatherRows(op) => op.infer(&args),
            Self::ScatterRows => index::infer_scatter_rows(&args),
            Self::ScatterAddRows(op) => op.infer(&args),
            Self::Take(op) => op.infer(&args),
            Self::TakeBackward(op) => op.infer(&args),
            Self::MatMul => matmul::infer_matmul(&args),
            Self::Int8Blocks => matmul::infer_int8_blocks(&args),
            Self::Linear(op) => op.infer(&args),
            Self::Linears(op) => op.infer(&args),
            Self::LinearInputGrad(op) => op.infer(&args),
            Self::RmsNorm(op) => op.infer(&args, tracked),
            Self::AddRmsNorm(op) => op.infer(&args, tracked),
            Self::RmsNormBackward(op) => op.infer(&args),
            Self::Rope(op) => op.infer(&args),
            Self::RopeAndCache(op) => op.infer(&args),
            Self::Attention(op) => op.infer(&args, tracked),
            Self::PagedAttention(op) => op.infer(&args),
            Self::AttentionBackward(op) => op.infer(&args),
            Self::SwiGlu => mlp::infer_swiglu(&args),
            Self::SwiGluBackward => mlp::infer_swiglu_backward(&args),
            Self::GatedMlp(op) => op.infer(&args, tracked),
            Self::Softmax | Self::LogSoftmax => softmax::infer(&args),
            Self::CrossEntropy => loss::infer_cross_entropy(&args, tracked),
            Self::CrossEntropyBackward(op) => op.infer(&args),
            Self::LinearCrossEntropy(op) => op.infer(&args, tracked),
            Self::LinearCrossEntropyBackward(op) => op.infer(&args),
            Self::AdamW(op) => op.infer(&args),
            Self::Sgd(op) => op.infer(&args),
            Self::Random(op) => op.infer(&args),
            Self::Sample(op) => op.infer(&args),
            Self::Custom(op) => op.infer(inputs, tracked),
        }
    }

    /// A fused op's definition in primitives (or in narrower fused ops): the outputs of [`infer`](Self::infer), computed one op at a time.
    ///
    /// Errors: a primitive has none.
    pub fn lower(&self, inputs: &[&Tensor], tracked: bool) -> Result<Vec<Tensor>> {
        match self {
            Self::Linear(op) => op.lower(inputs),
            Self::Linears(op) => op.lower(inputs),
            Self::LinearInputGrad(op) => op.lower(inputs),
            Self::RmsNorm(op) => op.lower(inputs, tracked),
            Self::AddRmsNorm(op) => op.lower(inputs, tracked),
            Self::RmsNormBackward(op) => op.lower(inputs),
            Self::Rope(op) => op.lower(inputs),
            Self::RopeAndCache(op) => op.lower(inputs),
            Self::Attention(op) => op.lower(inputs, tracked),
            Self::PagedAttention(op) => op.lower(inputs),
            Self::AttentionBackward(op) => op.lower(inputs),
            Self::SwiGlu => mlp::lower_swiglu(inputs),
            Self::SwiGluBackward => mlp::lower_swiglu_backward(inputs),
            Self::GatedMlp(op) => op.lower(inputs, tracked),
            Self::Softmax => softmax::lower_softmax(inputs),
            Self::LogSoftmax => softmax::lower_log_softmax(inputs),
            Self::CrossEntropy => loss::lower_cross_entropy(inputs, tracked),
            Self::CrossEntropyBackward(op) => op.lower(inputs),
            Self::LinearCrossEntropy(op) => op.lower(inputs, tracked),
            Self::LinearCrossEntropyBackward(op) => op.lower(inputs),
            Self::AdamW(op) => op.lower(inputs),
            Self::Sgd(op) => op.lower(inputs),
            Self::Sample(op) => op.lower(inputs),
            Self::Custom(op) => op.lower(inputs, tracked),
            _ => Err(Error::new(Kind::Argument, self.name(), "a primitive has no composition")),
        }
    }

    /// Whether the derivative reads the value of input `i`; what it does not read, a node does not keep alive.
    pub fn keeps_input(&self, i: usize, inputs: &[&Tensor]) -> bool {
        match self {
            Self::Unary(op) => op.keeps_input(),
            Self::Binary(op) => op.keeps_input(),
            Self::Affine(_) | Self::View(_) | Self::Contiguous | Self::Cast(_) | Self::Concat(_) | Self::CumSum => false,
            Self::Select => i == 0,
            Self::Reduce(op) => op.keeps_input(),
            Self::GatherRows(_) | Self::Take(_) | Self::ScatterAddRows(_) | Self::TakeBackward(_) => i == 1,
            // Its places, a result, are all that its derivative reads.
            Self::Sort(_) => false,
            Self::Softmax | Self::LogSoftmax | Self::Int8Blocks => false,
            Self::Rope(_) => i > 0,
            // What its derivative reads of the stream and x is their sum, a result.
            Self::AddRmsNorm(_) => i == 2,
            // A bias is added: its gradient and its neighbours' do not read it, unless the composition is run again to differentiate it.
            Self::Linear(op) => !(op.parts.is_plain() && op.parts.is_bias(i.wrapping_sub(1))),
            _ => i < inputs.len(),
        }
    }

    /// Whether the derivative reads output `i`, a result or one that exists only to be saved.
    pub fn keeps_output(&self, i: usize) -> bool {
        match self {
            Self::Unary(op) => op.keeps_output(),
            Self::Softmax | Self::LogSoftmax | Self::Attention(_) => true,
            Self::Sort(_) => i == 1,
            Self::Reduce(op) => op.keeps_output(),
            Self::AddRmsNorm(_) => i != 1,
            Self::RmsNorm(_) | Self::GatedMlp(_) => i > 0,
            Self::CrossEntropy | Self::LinearCrossEntropy(_) => i > 1,
            Self::Custom(op) => op.keeps_output(i),
            _ => false,
        }
    }
}
