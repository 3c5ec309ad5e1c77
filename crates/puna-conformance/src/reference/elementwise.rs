use puna_tensor::DType;
use puna_tensor::op::{Binary, Compare, Unary};

use super::wrap;
use crate::Array;

/// A function of one argument.
pub fn unary(op: Unary, x: f64) -> f64 {
    match op {
        Unary::Neg => -x,
        Unary::Abs => x.abs(),
        Unary::Sign if x.is_nan() => x,
        Unary::Sign => f64::from(i8::from(x > 0.0) - i8::from(x < 0.0)),
        Unary::Exp => x.exp(),
        Unary::Log => x.ln(),
        Unary::Sqrt => x.sqrt(),
        Unary::Rsqrt => 1.0 / x.sqrt(),
        Unary::Reciprocal => 1.0 / x,
        Unary::Square => x * x,
        Unary::Sin => x.sin(),
        Unary::Cos => x.cos(),
        Unary::Tanh => x.tanh(),
        Unary::Sigmoid => 1.0 / (1.0 + (-x).exp()),
        Unary::Silu => x / (1.0 + (-x).exp()),
        Unary::Relu if x.is_nan() => x,
        Unary::Relu => x.max(0.0),
        Unary::Softplus => x.max(0.0) + (-x.abs()).exp().ln_1p(),
        Unary::Gelu => x / 2.0 * (1.0 + erf(x * std::f64::consts::FRAC_1_SQRT_2)),
        Unary::GeluTanh => x / 2.0 * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3))).tanh()),
    }
}

/// The error function: its power series near zero, the continued fraction of its complement further out
/// (Abramowitz and Stegun 1964, 7.1.6 and 7.1.14).
pub fn erf(x: f64) -> f64 {
    if x.is_nan() {
        return x;
    }
    let a = x.abs();
    let value = if a < 2.5 {
        let (mut term, mut sum) = (a, a);
        for n in 1..200 {
            term *= 2.0 * a * a / f64::from(2 * n + 1);
            sum += term;
        }
        2.0 / std::f64::consts::PI.sqrt() * (-a * a).exp() * sum
    } else if a < 30.0 {
        let fraction = (1..200).rev().fold(a, |below, n| a + f64::from(n) / 2.0 / below);
        1.0 - (-a * a).exp() / (std::f64::consts::PI.sqrt() * fraction)
    } else {
        1.0
    };
    value.copysign(x)
}

/// `-x`, `|x|` or the sign of an integer.
pub fn unary_integers(op: Unary, x: i128, dtype: DType) -> i128 {
    wrap(
        dtype,
        match op {
            Unary::Neg => -x,
            Unary::Abs => x.abs(),
            Unary::Sign => x.signum(),
            other => panic!("{other:?} takes no integers"),
        },
    )
}

/// `x * mul + add`.
pub fn affine(x: f64, mul: f64, add: f64) -> f64 {
    x * mul + add
}

/// The shape that both broadcast to.
pub fn broadcast_shape(a: &[usize], b: &[usize]) -> Vec<usize> {
    let rank = a.len().max(b.len());
    let axis = |shape: &[usize], i: usize| (i + shape.len()).checked_sub(rank).map_or(1, |i| shape[i]);
    (0..rank).map(|i| if axis(a, i) == 1 { axis(b, i) } else { axis(a, i) }).collect()
}

fn zip<T: Copy, U: Copy>(a: &Array<T>, b: &Array<T>, f: impl Fn(T, T) -> U) -> Array<U> {
    let shape = broadcast_shape(&a.shape, &b.shape);
    Array::from_fn(&shape, |index| f(a.broadcast_at(index), b.broadcast_at(index)))
}

/// A function of two arguments, broadcast.
pub fn binary(op: Binary, a: &Array, b: &Array) -> Array {
    zip(a, b, |a, b| match op {
        Binary::Add => a + b,
        Binary::Sub => a - b,
        Binary::Mul => a * b,
        Binary::Div => a / b,
        Binary::Maximum | Binary::Minimum if a.is_nan() || b.is_nan() => f64::NAN,
        Binary::Maximum => a.max(b),
        Binary::Minimum => a.min(b),
        Binary::Pow => a.powf(b),
    })
}

/// The same for integers of a dtype, which wrap.
pub fn binary_integers(op: Binary, a: &Array<i128>, b: &Array<i128>, dtype: DType) -> Array<i128> {
    zip(a, b, |a, b| {
        let exact = match op {
            Binary::Add => a + b,
            Binary::Sub => a - b,
            Binary::Mul => a * b,
            Binary::Div if b == 0 => 0,
            Binary::Div => a / b,
            Binary::Maximum => a.max(b),
            Binary::Minimum => a.min(b),
            Binary::Pow => panic!("no integers to a power"),
        };
        wrap(dtype, exact)
    })
}

/// A comparison, broadcast: 1 where it holds.
pub fn compare<T: Copy + PartialOrd>(op: Compare, a: &Array<T>, b: &Array<T>) -> Array<i128> {
    zip(a, b, |a, b| {
        i128::from(match op {
            Compare::Eq => a == b,
            Compare::Ne => a != b,
            Compare::Lt => a < b,
            Compare::Le => a <= b,
            Compare::Gt => a > b,
            Compare::Ge => a >= b,
        })
    })
}

/// `a` where the condition is not 0, else `b`; all broadcast.
pub fn select<T: Copy>(condition: &Array<i128>, a: &Array<T>, b: &Array<T>) -> Array<T> {
    let shape = broadcast_shape(&condition.shape, &broadcast_shape(&a.shape, &b.shape));
    Array::from_fn(&shape, |index| if condition.broadcast_at(index) != 0 { a.broadcast_at(index) } else { b.broadcast_at(index) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn erf_equals_its_table() {
        // Abramowitz and Stegun 1964, table 7.1, and tables of the complement further out.
        for (x, y) in [
            (0.0, 0.0),
            (0.5, 0.5204998778130465),
            (1.0, 0.8427007929497149),
            (2.0, 0.9953222650189527),
            (3.0, 0.9999779095030014),
        ] {
            assert!((erf(x) - y).abs() < 1e-15, "{x}");
            assert!((erf(-x) + y).abs() < 1e-15, "-{x}");
        }
        assert!((erf(2.4999999) - erf(2.5000001)).abs() < 1e-9);
    }

    #[test]
    fn functions_have_their_known_values() {
        let check = |op, x, y: f64| assert!((unary(op, x) - y).abs() <= 1e-14 * y.abs(), "{op:?}({x}) is {}", unary(op, x));
        check(Unary::Silu, 1.0, 0.7310585786300049);
        check(Unary::Gelu, 1.0, 0.8413447460685429);
        check(Unary::GeluTanh, 1.0, 0.8411919906082768);
        check(Unary::Softplus, 0.0, std::f64::consts::LN_2);
        check(Unary::Softplus, 1000.0, 1000.0);
        check(Unary::Sigmoid, 0.0, 0.5);
        check(Unary::Rsqrt, 4.0, 0.5);
    }
}
