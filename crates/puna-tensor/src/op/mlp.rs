use super::matmul::{gather, infer_parts, infer_projection, is_weight, parts_of, split};
use super::{Activations, Args, Inferred, Op, Parts, Projection, Spec};
use crate::{Kind, Result, Tensor};

/// A Llama's feed-forward block: `down(silu(gate(x)) * up(x))`, each of the three a [`Linear`](super::Linear).
///
/// `x: [.., hidden]`, then the parts of `gate` and `up` (`[intermediate, hidden]`) and `down` (`[hidden, intermediate]`); result
/// `[.., hidden]`. The products are rounded to the dtype of `x` between the three, as separate layers would.
/// Saves for the derivative: `gate(x)` and `up(x)`.
///
/// Shazeer 2020, arXiv 2002.05202.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GatedMlp {
    /// What `gate`, `up` and `down` hold.
    pub parts: [Parts; 3],
    /// How activations are read beside blocks.
    pub activations: Activations,
}

impl GatedMlp {
    pub(super) fn infer(&self, args: &Args, tracked: bool) -> Result<Inferred> {
        let inputs = args.inputs();
        let Some(split) = split(&self.parts, inputs) else {
            let wanted = 1 + self.parts.iter().map(Parts::inputs).sum::<usize>();
            return Err(
                args.fail(Kind::Argument, format!("takes {wanted} arguments for {:?}, {} given", self.parts, inputs.len()))
            );
        };
        let x = inputs[0];
        let intermediate = infer_projection(args, x, &self.parts[0], split[0])?;
        let up = infer_projection(args, x, &self.parts[1], split[1])?;
        let down = split[2][0];
        args.weight("down", down)?;
        let [hidden, down_k] = args.axes("down", down, "[hidden, intermediate]")?;
        if up != intermediate || down_k != intermediate {
            let message =
                format!("gate gives {intermediate}, up {up}, and down {} takes {down_k}: all must be one", down.shape());
            return Err(args.shape_error(message));
        }
        infer_parts(args, &self.parts[2], split[2])?;
        let inner = x.shape().with_last(intermediate);
        let result = Inferred::one(x.shape().with_last(hidden), x.dtype());
        Ok(result.saving(tracked, inner, x.dtype()).saving(tracked, inner, x.dtype()))
    }

    pub(super) fn lower(&self, inputs: &[&Tensor], tracked: bool) -> Result<Vec<Tensor>> {
        let [gate, up, down] = self.projections(inputs);
        let [gate, up] = inputs[0].linears([gate, up], self.activations)?;
        let y = gate.swiglu(&up)?.linear(down, self.activations)?;
        Ok(if tracked { vec![y, gate, up] } else { vec![y] })
    }

    /// The three projections among the op's arguments.
    pub fn projections<'a>(&self, inputs: &[&'a Tensor]) -> [Projection<'a>; 3] {
        let split = split(&self.parts, inputs).expect("inference has counted the arguments");
        [0, 1, 2].map(|i| self.parts[i].projection(split[i]))
    }

    pub(super) fn is_weight(&self, input: usize) -> bool {
        is_weight(&self.parts, input)
    }
}

pub(super) fn infer_swiglu(args: &Args) -> Result<Inferred> {
    let [gate, up] = args.named(["gate", "up"])?;
    args.float("gate", gate)?;
    let dtype = args.same_dtype(["gate", "up"], gate, up)?;
    args.shape("up", up, *gate.shape(), "gate")?;
    Ok(Inferred::one(*gate.shape(), dtype))
}

pub(super) fn lower_swiglu(inputs: &[&Tensor]) -> Result<Vec<Tensor>> {
    let (gate, up) = (inputs[0], inputs[1]);
    let wide = gate.dtype().accumulator();
    Ok(vec![gate.cast(wide)?.silu()?.mul(&up.cast(wide)?)?.cast(gate.dtype())?])
}

pub(super) fn infer_swiglu_backward(args: &Args) -> Result<Inferred> {
    let [dy, gate, up] = args.named(["dy", "gate", "up"])?;
    args.float("gate", gate)?;
    let dtype = args.same_dtype(["gate", "up"], gate, up)?;
    args.same_dtype(["dy", "gate"], dy, gate)?;
    args.shape("up", up, *gate.shape(), "gate")?;
    args.shape("dy", dy, *gate.shape(), "gate")?;
    let spec = Spec { shape: *gate.shape(), dtype };
    Ok(Inferred::results([spec, spec]))
}

pub(super) fn lower_swiglu_backward(inputs: &[&Tensor]) -> Result<Vec<Tensor>> {
    let dtype = inputs[0].dtype();
    let [dy, gate, up] = [0, 1, 2].map(|i| inputs[i].cast(dtype.accumulator()));
    let (dy, gate, up) = (dy?, gate?, up?);
    let s = gate.sigmoid()?;
    let slope = gate.mul(&s.affine(-1.0, 1.0)?)?.affine(1.0, 1.0)?.mul(&s)?;
    let dgate = dy.mul(&up)?.mul(&slope)?.cast(dtype)?;
    let dup = dy.mul(&gate)?.mul(&s)?.cast(dtype)?;
    Ok(vec![dgate, dup])
}

/// # Feed-forward blocks
impl Tensor {
    /// `silu(self) * up`: see [`Op::SwiGlu`].
    pub fn swiglu(&self, up: &Tensor) -> Result<Tensor> {
        Op::SwiGlu.apply(&[self, up])?.one()
    }

    /// The feed-forward block of `gate`, `up` and `down`: see [`GatedMlp`].
    pub fn gated_mlp(&self, projections: [Projection<'_>; 3], activations: Activations) -> Result<Tensor> {
        let inputs = gather(self, &projections);
        let parts = parts_of(&projections).try_into().expect("three projections have three parts");
        Op::GatedMlp(GatedMlp { parts, activations }).apply(&inputs)?.one()
    }
}
