use super::{Args, Distribution, Inferred, Op, Random, Spec};
use crate::{DType, Kind, Result, Shape, Tensor};

/// How a product reads its activations beside quantised weights. Part of the op, not of the back end: no device chooses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Activations {
    /// As they are: the weights are decoded. What training uses.
    #[default]
    Exact,
    /// In blocks of 32 along K, each of 8-bit integers with an f32 scale ([`Op::Int8Blocks`]), for every block type and any
    /// number of rows. What inference uses. Beside float weights it is the same as `Exact`.
    Int8,
}

/// A weight as a layer holds it: with an optional bias, an optional low-rank pair, an optional factor.
#[derive(Debug, Clone, Copy)]
pub struct Projection<'a> {
    /// `[N, K]`: floats of any dtype or blocks, packed or not.
    pub weight: &'a Tensor,
    /// `[N]`, any float dtype.
    pub bias: Option<&'a Tensor>,
    /// Low-rank adaptation.
    pub adapter: Option<LowRank<'a>>,
    /// `[N]`, any float dtype: multiplies the product before the bias is added. Weight decomposition, Liu and others 2024,
    /// arXiv 2402.09353: a magnitude over the norm of an adapted weight's row.
    pub factor: Option<&'a Tensor>,
}

/// `scale * (drop(x) a^T) b^T`, added to a product: Hu and others 2021, arXiv 2106.09685.
#[derive(Debug, Clone, Copy)]
pub struct LowRank<'a> {
    /// `[R, K]`, any float dtype.
    pub a: &'a Tensor,
    /// `[N, R]`, any float dtype.
    pub b: &'a Tensor,
    /// What it is multiplied by.
    pub scale: f64,
    /// What `drop` does; absent, it leaves `x` as it is.
    pub dropout: Option<Dropout<'a>>,
}

/// Sets elements to zero at random and divides the others by the probability to stay: Srivastava and others 2014.
///
/// Element `k` of row `r` stays where `u >= p` (`p` rounded to f32), `u` being number `k` of [`Random`]'s uniform ones for this seed at
/// position `r`: the mask follows from the seed, so it is formed again where a derivative reads it, and not kept.
#[derive(Debug, Clone, Copy)]
pub struct Dropout<'a> {
    /// The probability to become zero, in `[0, 1)`.
    pub p: f64,
    /// `[2]` u32.
    pub seed: &'a Tensor,
}

impl<'a> From<&'a Tensor> for Projection<'a> {
    fn from(weight: &'a Tensor) -> Self {
        Self { weight, bias: None, adapter: None, factor: None }
    }
}

impl<'a> Projection<'a> {
    fn parts(&self) -> Parts {
        let low_rank = |adapter: LowRank<'_>| LowRankParts { scale: adapter.scale, dropout: adapter.dropout.map(|x| x.p) };
        Parts { bias: self.bias.is_some(), adapter: self.adapter.map(low_rank), factor: self.factor.is_some() }
    }

    fn inputs(&self) -> impl Iterator<Item = &'a Tensor> + use<'a> {
        let (a, b) = (self.adapter.map(|x| x.a), self.adapter.map(|x| x.b));
        let seed = self.adapter.and_then(|x| x.dropout).map(|x| x.seed);
        [Some(self.weight), self.bias, a, b, seed, self.factor].into_iter().flatten()
    }
}

/// What arguments a [`Projection`] contributes to an op, in order: the weight, the bias, the low-rank `a` and `b`, the seed of their
/// dropout, the factor.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Parts {
    /// Whether there is a bias.
    pub bias: bool,
    /// The attributes of the low-rank pair, if there is one.
    pub adapter: Option<LowRankParts>,
    /// Whether there is a factor.
    pub factor: bool,
}

/// The attributes of a [`LowRank`] pair.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LowRankParts {
    /// What it is multiplied by.
    pub scale: f64,
    /// The probability of its dropout, if there is one.
    pub dropout: Option<f64>,
}

impl Parts {
    /// How many arguments there are.
    pub fn inputs(&self) -> usize {
        let adapter = self.adapter.map_or(0, |adapter| 2 + usize::from(adapter.dropout.is_some()));
        1 + usize::from(self.bias) + adapter + usize::from(self.factor)
    }

    /// Whether argument `i`, counted from the weight, is the bias.
    pub fn is_bias(&self, i: usize) -> bool {
        self.bias && i == 1
    }

    /// Whether elements are dropped.
    pub fn drops(&self) -> bool {
        self.adapter.is_some_and(|adapter| adapter.dropout.is_some())
    }

    /// Whether it is a sum of products and a bias, with neither dropout nor factor.
    pub fn is_plain(&self) -> bool {
        !self.drops() && !self.factor
    }

    /// The projection that `inputs`, from the weight on, make.
    pub fn projection<'a>(&self, inputs: &[&'a Tensor]) -> Projection<'a> {
        let mut inputs = inputs.iter().copied();
        let mut next = || inputs.next().expect("inference has counted the arguments");
        Projection {
            weight: next(),
            bias: self.bias.then(&mut next),
            adapter: self.adapter.map(|LowRankParts { scale, dropout }| LowRank {
                a: next(),
                b: next(),
                scale,
                dropout: dropout.map(|p| Dropout { p, seed: next() }),
            }),
            factor: self.factor.then(&mut next),
        }
    }
}

/// Splits the arguments behind the first into those of each projection.
pub(super) fn split<'s, 'a>(parts: &[Parts], inputs: &'s [&'a Tensor]) -> Option<Vec<&'s [&'a Tensor]>> {
    let mut rest = inputs.get(1..)?;
    let mut split = Vec::with_capacity(parts.len());
    for part in parts {
        let (these, others) = rest.split_at_checked(part.inputs())?;
        split.push(these);
        rest = others;
    }
    rest.is_empty().then_some(split)
}

/// Checks `x` against a projection; the rows of the result, `N`.
pub(super) fn infer_projection(args: &Args, x: &Tensor, parts: &Parts, inputs: &[&Tensor]) -> Result<usize> {
    let weight = inputs[0];
    args.float("x", x)?;
    args.weight("weight", weight)?;
    let k = args.last_axis("x", x)?;
    let [n, weight_k] = args.axes("weight", weight, "[N, K]")?;
    if weight_k != k {
        let fits = if n == k { "; weight.transpose(0, 1) would fit" } else { "" };
        return Err(args.shape_error(format!(
            "x {} and weight {} disagree on K, {k} and {weight_k}{fits}",
            x.shape(),
            weight.shape()
        )));
    }
    infer_parts(args, parts, inputs)?;
    Ok(n)
}

/// Checks what a projection holds beside its weight, which is known to be a matrix.
pub(super) fn infer_parts(args: &Args, parts: &Parts, inputs: &[&Tensor]) -> Result<()> {
    let Projection { weight, bias, adapter, factor } = parts.projection(inputs);
    let (n, k, why) = (weight.dim(0), weight.dim(1), format!("weight {}", weight.shape()));
    if let Some(bias) = bias {
        args.float("bias", bias)?;
        args.shape("bias", bias, n, &why)?;
    }
    if let Some(LowRank { a, b, dropout, .. }) = adapter {
        args.float("a", a)?;
        args.float("b", b)?;
        let [r, _] = args.axes("a", a, "[R, K]")?;
        args.shape("a", a, [r, k], &why)?;
        args.shape("b", b, [n, r], &format!("{why} and a {}", a.shape()))?;
        if let Some(Dropout { p, seed }) = dropout {
            args.dtype("seed", seed, DType::U32)?;
            args.shape("seed", seed, 2, "a dropout")?;
            if !(0.0..1.0).contains(&p) {
                return Err(args.fail(Kind::Argument, format!("dropout is {p}; a probability in [0, 1) would be right")));
            }
        }
    }
    if let Some(factor) = factor {
        args.float("factor", factor)?;
        args.shape("factor", factor, n, &why)?;
    }
    Ok(())
}

/// `y[.., n] = factor[n] * (sum_k x[.., k] * weight[n, k] + scale * sum_r b[n, r] * (sum_k a[r, k] * drop(x)[.., k])) + bias[n]`
///
/// `x: [.., K]` float, then what [`Parts`] names; `y: [.., N]` in the dtype of `x`. Weights of any float dtype are widened
/// exactly, blocks decoded; sums are accumulated in f32 (f64 for f64 `x`) in one chain over K, the same for any number of rows;
/// low-rank term, factor and bias come before the one rounding. Under [`Activations::Int8`] and beside block weights the first sum
/// reads `int8_blocks(x)`; the low-rank term always reads `x`. `drop`: see [`Dropout`]; rows are counted over all axes but the last.
///
/// Errors: a weight that is not `[N, K]`, other parts that do not fit it, dtypes that are no floats (or blocks, for the weight),
/// a dropout that is no probability.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Linear {
    /// What follows the weight.
    pub parts: Parts,
    /// How `x` is read beside blocks.
    pub activations: Activations,
}

impl Linear {
    pub(super) fn infer(&self, args: &Args) -> Result<Inferred> {
        let inputs = args.inputs();
        let Some(split) = split(&[self.parts], inputs) else {
            let wanted = self.parts.inputs() + 1;
            return Err(
                args.fail(Kind::Argument, format!("takes {wanted} arguments for {:?}, {} given", self.parts, inputs.len()))
            );
        };
        let n = infer_projection(args, inputs[0], &self.parts, split[0])?;
        Ok(Inferred::one(inputs[0].shape().with_last(n), inputs[0].dtype()))
    }

    pub(super) fn lower(&self, inputs: &[&Tensor]) -> Result<Vec<Tensor>> {
        let x = inputs[0];
        let wide = x.dtype().accumulator();
        let Projection { weight, bias, adapter, factor } = self.parts.projection(&inputs[1..]);
        let exact = x.cast(wide)?;
        let mut y = if !self.parts.is_plain() {
            // The sum over K is then an op of its own, which devices have kernels for, and whose derivative decodes no weight.
            exact.linear(weight, self.activations)?.reshape([x.shape().rows(), weight.dim(0)])?
        } else {
            let quantise = self.activations == Activations::Int8 && weight.dtype().block().is_some();
            let read = if quantise { x.cast(DType::F32)?.int8_blocks()?.cast(wide)? } else { exact.clone() };
            times(&rows(&read)?, weight)?
        };
        if let Some(LowRank { a, b, scale, dropout }) = adapter {
            let x = rows(&exact)?;
            let x = dropout.map_or(Ok(x.clone()), |dropout| dropout.drop(&x))?;
            y = y.add(&times(&times(&x, a)?, b)?.affine(scale, 0.0)?)?;
        }
        if let Some(factor) = factor {
            y = y.mul(&factor.cast(wide)?)?;
        }
        if let Some(bias) = bias {
            y = y.add(&bias.cast(wide)?)?;
        }
        Ok(vec![y.reshape(x.shape().with_last(weight.dim(0)))?.cast(x.dtype())?])
    }
}

/// `[.., K]` as `[rows, K]`: matmul takes rows, and of a vector there is one.
fn rows(x: &Tensor) -> Result<Tensor> {
    x.reshape([x.shape().rows(), x.shape().last()])
}

/// `x w^T`, in the dtype of `x`.
fn times(x: &Tensor, w: &Tensor) -> Result<Tensor> {
    x.matmul(&w.unpack()?.cast(x.dtype())?.transpose(0, 1)?)
}

impl Dropout<'_> {
    /// `x [rows, K]` with elements dropped.
    fn drop(&self, x: &Tensor) -> Result<Tensor> {
        let (rows, columns) = (x.dim(0), x.dim(1));
        let seeds = self.seed.reshape([1, 2])?.broadcast([rows, 2])?;
        let u = Random { distribution: Distribution::Uniform, columns }.draw(&seeds, &Tensor::arange(rows, x.device())?)?;
        let stays = u.ge(&Tensor::full(self.p, 1, DType::F32, x.device())?)?;
        stays.select(&x.affine(1.0 / (1.0 - self.p), 0.0)?, &x.zeros_like()?)
    }
}

/// Several [`Linear`]s of one input (q, k, v; gate, up): kernels read and quantise it once, every weight keeps its name, adapter and gradient.
///
/// `x: [.., K]`, then the parts of each; one result `[.., N_i]` each.
#[derive(Debug, Clone, PartialEq)]
pub struct Linears {
    /// What each projection holds.
    pub parts: Vec<Parts>,
    /// How `x` is read beside blocks.
    pub activations: Activations,
}

impl Linears {
    pub(super) fn infer(&self, args: &Args) -> Result<Inferred> {
        let specs = infer_projections(args, &self.parts)?;
        Ok(Inferred::results(specs))
    }

    pub(super) fn lower(&self, inputs: &[&Tensor]) -> Result<Vec<Tensor>> {
        let split = split(&self.parts, inputs).expect("inference has counted the arguments");
        let one = |(parts, these): (&Parts, &[&Tensor])| inputs[0].linear(parts.projection(these), self.activations);
        self.parts.iter().zip(split).map(one).collect()
    }

    pub(super) fn is_weight(&self, input: usize) -> bool {
        is_weight(&self.parts, input)
    }
}

pub(super) fn is_weight(parts: &[Parts], input: usize) -> bool {
    parts.iter().scan(1, |at, part| Some(std::mem::replace(at, *at + part.inputs()))).any(|weight| weight == input)
}

/// One result spec for each projection of the first argument.
pub(super) fn infer_projections(args: &Args, parts: &[Parts]) -> Result<Vec<Spec>> {
    let inputs = args.inputs();
    let Some(split) = split(parts, inputs) else {
        let wanted = 1 + parts.iter().map(Parts::inputs).sum::<usize>();
        return Err(args.fail(Kind::Argument, format!("takes {wanted} arguments for {parts:?}, {} given", inputs.len())));
    };
    let x = inputs[0];
    let one = |(part, these): (&Parts, &[&Tensor])| {
        let n = infer_projection(args, x, part, these)?;
        Ok(Spec { shape: x.shape().with_last(n), dtype: x.dtype() })
    };
    parts.iter().zip(split).map(one).collect()
}

/// `dx[.., k] = sum_n dy[.., n] * weight[n, k]`: the derivative of [`Linear`] by its input, without a decoded copy of the weight.
///
/// `dy: [.., N]` float, `weight: [N, K]` floats or blocks, packed or not; `dx: [.., K]` in the dtype of `dy`, accumulated in f32 (f64 for f64).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LinearInputGrad;

impl LinearInputGrad {
    pub(super) fn infer(&self, args: &Args) -> Result<Inferred> {
        let [dy, weight] = args.named(["dy", "weight"])?;
        args.float("dy", dy)?;
        args.weight("weight", weight)?;
        let [n, k] = args.axes("weight", weight, "[N, K]")?;
        if args.last_axis("dy", dy)? != n {
            return Err(args.shape_error(format!("dy {} and weight {} disagree on N", dy.shape(), weight.shape())));
        }
        Ok(Inferred::one(dy.shape().with_last(k), dy.dtype()))
    }

    pub(super) fn lower(&self, inputs: &[&Tensor]) -> Result<Vec<Tensor>> {
        let (dy, weight) = (inputs[0], inputs[1]);
        let wide = dy.dtype().accumulator();
        let rows = dy.reshape([dy.shape().rows(), dy.shape().last()])?.cast(wide)?;
        let dx = rows.matmul(&weight.unpack()?.cast(wide)?)?;
        Ok(vec![dx.reshape(dy.shape().with_last(weight.dim(1)))?.cast(dy.dtype())?])
    }
}

pub(super) fn infer_matmul(args: &Args) -> Result<Inferred> {
    let [lhs, rhs] = args.named(["lhs", "rhs"])?;
    args.float("lhs", lhs)?;
    let dtype = args.same_dtype(["lhs", "rhs"], lhs, rhs)?;
    let (Some((batch_l, [m, k])), Some((batch_r, [rhs_k, n]))) = (lhs.shape().split_last_chunk(), rhs.shape().split_last_chunk())
    else {
        let message =
            format!("lhs {} and rhs {} need two axes each; unsqueeze(0) makes a row of a vector", lhs.shape(), rhs.shape());
        return Err(args.shape_error(message));
    };
    if k != rhs_k {
        let fits =
            if n == k { format!("; rhs.transpose({}, {}) would fit", rhs.rank() - 2, rhs.rank() - 1) } else { String::new() };
        let message = format!("lhs {} and rhs {} disagree on the inner axis, {k} and {rhs_k}{fits}", lhs.shape(), rhs.shape());
        return Err(args.shape_error(message));
    }
    let batch = |axes| Shape::new(axes).expect("fewer axes than a tensor has");
    let joined = batch(batch_l).broadcast(&batch(batch_r));
    let Some(shape) = joined.and_then(|batch| batch.join(&[*m, *n])) else {
        return Err(args.shape_error(format!(
            "the leading axes of lhs {} and rhs {} do not broadcast",
            lhs.shape(),
            rhs.shape()
        )));
    };
    if shape.checked_elements().is_none() {
        return Err(args.fail(Kind::Memory, format!("a result of {shape} does not fit the address space")));
    }
    Ok(Inferred::one(shape, dtype))
}

pub(super) fn infer_int8_blocks(args: &Args) -> Result<Inferred> {
    let [x] = args.named(["x"])?;
    args.dtype("x", x, DType::F32)?;
    args.last_axis("x", x)?;
    Ok(Inferred::one(*x.shape(), DType::F32))
}

/// # Products
impl Tensor {
    /// The matrix product over the last two axes: see [`Op::MatMul`].
    pub fn matmul(&self, rhs: &Tensor) -> Result<Tensor> {
        Op::MatMul.apply(&[self, rhs])?.one()
    }

    /// The product with a layer's weight: see [`Linear`].
    pub fn linear<'a>(&self, projection: impl Into<Projection<'a>>, activations: Activations) -> Result<Tensor> {
        let projection = projection.into();
        let inputs: Vec<&Tensor> = std::iter::once(self).chain(projection.inputs()).collect();
        Op::Linear(Linear { parts: projection.parts(), activations }).apply(&inputs)?.one()
    }

    /// The products with several weights: see [`Linears`].
    pub fn linears<const N: usize>(&self, projections: [Projection<'_>; N], activations: Activations) -> Result<[Tensor; N]> {
        let inputs = gather(self, &projections);
        let parts = parts_of(&projections);
        Ok(Op::Linears(Linears { parts, activations }).apply(&inputs)?.array())
    }

    /// What [`Activations::Int8`] makes of this: see [`Op::Int8Blocks`].
    pub fn int8_blocks(&self) -> Result<Tensor> {
        Op::Int8Blocks.apply(&[self])?.one()
    }

    /// The gradient of a linear's input from that of its result: see [`LinearInputGrad`].
    pub fn linear_input_grad(&self, weight: &Tensor) -> Result<Tensor> {
        Op::LinearInputGrad(LinearInputGrad).apply(&[self, weight])?.one()
    }
}

/// An op's arguments: `x`, then those of each projection.
pub(super) fn gather<'a>(x: &'a Tensor, projections: &[Projection<'a>]) -> Vec<&'a Tensor> {
    std::iter::once(x).chain(projections.iter().flat_map(Projection::inputs)).collect()
}

/// What each projection holds.
pub(super) fn parts_of(projections: &[Projection<'_>]) -> Vec<Parts> {
    projections.iter().map(Projection::parts).collect()
}
