//! Derivatives of elementwise functions, formed in f32 (f64 for f64) and rounded once.

use std::f64::consts::{FRAC_1_SQRT_2, FRAC_2_SQRT_PI, PI};

use puna_tensor::op::{Affine, Binary, Unary};
use puna_tensor::{Result, Tensor};

use super::{Context, Flowed, sum_to};

fn constant(value: f64, like: &Tensor) -> Result<Tensor> {
    Tensor::full(value, 1, like.dtype(), like.device())
}

/// 1 where the comparison holds, else 0, in the dtype of `like`.
fn indicator(holds: &Tensor, like: &Tensor) -> Result<Tensor> {
    holds.select(&constant(1.0, like)?, &constant(0.0, like)?)
}

pub(super) fn unary(c: &Context, op: Unary) -> Flowed {
    let dy = c.dy()?;
    let (narrow, wide) = (dy.dtype(), dy.dtype().accumulator());
    let dy = dy.cast(wide)?;
    let x = || c.input(0)?.cast(wide);
    let y = || c.output(0)?.cast(wide);
    let dx = match op {
        Unary::Neg => dy.neg(),
        Unary::Abs => dy.mul(&x()?.sign()?),
        Unary::Sign => dy.zeros_like(),
        Unary::Exp => dy.mul(&y()?),
        Unary::Log => dy.div(&x()?),
        // 1 / (2 sqrt(x))
        Unary::Sqrt => dy.div(&y()?.affine(2.0, 0.0)?),
        // -y^3 / 2
        Unary::Rsqrt => {
            let y = y()?;
            dy.mul(&y.square()?.mul(&y)?.affine(-0.5, 0.0)?)
        }
        Unary::Reciprocal => dy.mul(&y()?.square()?.neg()?),
        Unary::Square => dy.mul(&x()?.affine(2.0, 0.0)?),
        Unary::Sin => dy.mul(&x()?.cos()?),
        Unary::Cos => dy.mul(&x()?.sin()?.neg()?),
        // 1 - y^2
        Unary::Tanh => dy.mul(&y()?.square()?.affine(-1.0, 1.0)?),
        // y (1 - y)
        Unary::Sigmoid => {
            let y = y()?;
            dy.mul(&y.mul(&y.affine(-1.0, 1.0)?)?)
        }
        // s (1 + x (1 - s)), s = sigmoid(x)
        Unary::Silu => {
            let x = x()?;
            let s = x.sigmoid()?;
            let slope = s.mul(&x.mul(&s.affine(-1.0, 1.0)?)?.affine(1.0, 1.0)?)?;
            dy.mul(&slope)
        }
        Unary::Relu => {
            let y = y()?;
            let positive = y.gt(&constant(0.0, &y)?)?;
            dy.mul(&indicator(&positive, &dy)?)
        }
        Unary::Softplus => dy.mul(&x()?.sigmoid()?),
        // phi(x) + x density(x)
        Unary::Gelu => {
            let x = x()?;
            let density = x.square()?.affine(-0.5, 0.0)?.exp()?.affine(FRAC_2_SQRT_PI * FRAC_1_SQRT_2 / 2.0, 0.0)?;
            dy.mul(&normal_cdf(&x)?.add(&x.mul(&density)?)?)
        }
        // (1 + t) / 2 + x / 2 (1 - t^2) u', t = tanh(u), u = sqrt(2 / pi) (x + 0.044715 x^3)
        Unary::GeluTanh => {
            let x = x()?;
            let root = (2.0 / PI).sqrt();
            let square = x.square()?;
            let t = x.mul(&square.affine(root * 0.044715, root)?)?.tanh()?;
            let inner = square.affine(3.0 * 0.044715 * root, root)?;
            let sech = t.square()?.affine(-1.0, 1.0)?;
            dy.mul(&t.affine(0.5, 0.5)?.add(&x.mul(&sech)?.mul(&inner)?.affine(0.5, 0.0)?)?)
        }
    };
    Ok(vec![Some(dx?.cast(narrow)?)])
}

/// The normal distribution function, from the op that contains it: `gelu(x) / x`, and 1/2 at 0.
fn normal_cdf(x: &Tensor) -> Result<Tensor> {
    let zero = x.eq(&constant(0.0, x)?)?;
    let quotient = x.gelu()?.div(&zero.select(&constant(1.0, x)?, x)?)?;
    zero.select(&constant(0.5, x)?, &quotient)
}

pub(super) fn affine(c: &Context, op: &Affine) -> Flowed {
    Ok(vec![Some(c.dy()?.affine(op.mul, 0.0)?)])
}

pub(super) fn binary(c: &Context, op: Binary) -> Flowed {
    let dy = c.dy()?;
    let (narrow, wide) = (dy.dtype(), dy.dtype().accumulator());
    if matches!(op, Binary::Add | Binary::Sub) {
        let left = c.wanted(0, || sum_to(dy.clone(), c.shape(0)))?;
        let right = c.wanted(1, || sum_to(if op == Binary::Sub { dy.neg()? } else { dy.clone() }, c.shape(1)))?;
        return Ok(vec![left, right]);
    }
    let (dy, a, b) = (dy.cast(wide)?, c.input(0)?.cast(wide)?, c.input(1)?.cast(wide)?);
    let left = || match op {
        Binary::Mul => dy.mul(&b),
        Binary::Div => dy.div(&b),
        Binary::Maximum => dy.mul(&share(&a.gt(&b)?, &a, &b)?),
        Binary::Minimum => dy.mul(&share(&a.lt(&b)?, &a, &b)?),
        // b a^(b - 1), and 0 for b = 0 whatever a is
        Binary::Pow => {
            let slope = b.mul(&a.pow(&b.affine(1.0, -1.0)?)?)?;
            let none = b.eq(&constant(0.0, &b)?)?;
            dy.mul(&none.select(&constant(0.0, &b)?, &slope)?)
        }
        Binary::Add | Binary::Sub => unreachable!("they read no argument"),
    };
    let right = || match op {
        Binary::Mul => dy.mul(&a),
        Binary::Div => dy.mul(&a)?.div(&b.square()?)?.neg(),
        Binary::Maximum => dy.mul(&share(&b.gt(&a)?, &a, &b)?),
        Binary::Minimum => dy.mul(&share(&b.lt(&a)?, &a, &b)?),
        // a^b ln a, and 0 for a = 0, where the limit is
        Binary::Pow => {
            let none = a.eq(&constant(0.0, &a)?)?;
            let logarithm = none.select(&constant(1.0, &a)?, &a)?.log()?;
            let slope = a.pow(&b)?.mul(&logarithm)?;
            dy.mul(&none.select(&constant(0.0, &a)?, &slope)?)
        }
        Binary::Add | Binary::Sub => unreachable!("they read no argument"),
    };
    let left = c.wanted(0, || sum_to(left()?, c.shape(0))?.cast(narrow))?;
    let right = c.wanted(1, || sum_to(right()?, c.shape(1))?.cast(narrow))?;
    Ok(vec![left, right])
}

/// 1 where an argument is chosen, 1/2 where both are equal, else 0.
fn share(chosen: &Tensor, a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let equal = a.eq(b)?.select(&constant(0.5, a)?, &constant(0.0, a)?)?;
    chosen.select(&constant(1.0, a)?, &equal)
}

pub(super) fn select(c: &Context) -> Flowed {
    let (dy, condition) = (c.dy()?, c.input(0)?);
    let zero = constant(0.0, dy)?;
    let a = c.wanted(1, || sum_to(condition.select(dy, &zero)?, c.shape(1)))?;
    let b = c.wanted(2, || sum_to(condition.select(&zero, dy)?, c.shape(2)))?;
    Ok(vec![None, a, b])
}
