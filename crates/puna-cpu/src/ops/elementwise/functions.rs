//! The functions themselves, over rows.

use puna_tensor::op::{Binary, Unary};

use super::map;
use crate::ops::copy::lane::Lane;
use crate::ops::matmul::wide::Wide;

/// The float types that functions are computed in.
pub(crate) trait Real: Wide + Lane {
    fn unary(op: Unary, x: &[Self], y: &mut [Self]);

    fn binary(op: Binary, pair: [&[Self]; 2], y: &mut [Self]);
}

macro_rules! real {
    ($type:ident) => {
        impl Real for $type {
            fn unary(op: Unary, x: &[Self], y: &mut [Self]) {
                match op {
                    Unary::Neg => map([x], y, |[x]| -x),
                    Unary::Abs => map([x], y, |[x]| x.abs()),
                    Unary::Sign => map([x], y, |[x]| {
                        if x > 0.0 {
                            1.0
                        } else if x < 0.0 {
                            -1.0
                        } else {
                            x + 0.0
                        }
                    }),
                    Unary::Exp => map([x], y, |[x]| $type::exp(x)),
                    Unary::Log => map([x], y, |[x]| $type::ln(x)),
                    Unary::Sqrt => map([x], y, |[x]| $type::sqrt(x)),
                    Unary::Rsqrt => map([x], y, |[x]| 1.0 / $type::sqrt(x)),
                    Unary::Reciprocal => map([x], y, |[x]| 1.0 / x),
                    Unary::Square => map([x], y, |[x]| x * x),
                    Unary::Sin => map([x], y, |[x]| x.sin()),
                    Unary::Cos => map([x], y, |[x]| x.cos()),
                    Unary::Tanh => map([x], y, |[x]| x.tanh()),
                    Unary::Sigmoid => map([x], y, |[x]| 1.0 / (1.0 + $type::exp(-x))),
                    Unary::Silu => map([x], y, |[x]| x / (1.0 + $type::exp(-x))),
                    Unary::Relu => map([x], y, |[x]| if x < 0.0 { 0.0 } else { x }),
                    // The smaller of the two terms is the logarithm's: no overflow, and no sum with 1 that loses it.
                    Unary::Softplus => map([x], y, |[x]| (if x < 0.0 { 0.0 } else { x }) + $type::exp(-x.abs()).ln_1p()),
                    Unary::Gelu => map([x], y, |[x]| gelu(x.into()) as $type),
                    // 1 + tanh(u) = 2 / (1 + exp(-2 u)), where for large negative u nothing cancels.
                    Unary::GeluTanh => map([x], y, |[x]| {
                        let u = (2.0 / std::f64::consts::PI).sqrt() as $type * (x + 0.044715 * x * x * x);
                        x / (1.0 + $type::exp(-2.0 * u))
                    }),
                }
            }

            fn binary(op: Binary, pair: [&[Self]; 2], y: &mut [Self]) {
                match op {
                    Binary::Add => map(pair, y, |[a, b]| a + b),
                    Binary::Sub => map(pair, y, |[a, b]| a - b),
                    Binary::Mul => map(pair, y, |[a, b]| a * b),
                    Binary::Div => map(pair, y, |[a, b]| a / b),
                    Binary::Maximum => map(pair, y, |[a, b]| if a > b || a != a { a } else { b }),
                    Binary::Minimum => map(pair, y, |[a, b]| if a < b || a != a { a } else { b }),
                    Binary::Pow => map(pair, y, |[a, b]| a.powf(b)),
                }
            }
        }
    };
}
real!(f32);
real!(f64);

/// `x / 2 * (1 + erf(x / sqrt(2)))`, good to a few units in the last place of f64 where the result is a normal number: for negative x as
/// `x / 2 * erfc(-x / sqrt(2))`, of which nothing cancels.
fn gelu(x: f64) -> f64 {
    // exp(-x^2) = 0 long before here.
    const FAR: f64 = 40.0;
    if x <= -FAR {
        // Of an infinity NaN, as the formula has it.
        return x * 0.0;
    }
    if x >= FAR || x.is_nan() {
        return x;
    }
    let complement = erfc(x.abs());
    x / 2.0 * if x < 0.0 { complement } else { 2.0 - complement }
}

/// `erfc(x / sqrt(2))`, `x >= 0`: `exp(-z^2) / (1 + 2 z)`, `z = x / sqrt(2)`, times a Chebyshev series in `(z - 3.75) / (z + 3.75)`, the
/// form of Shepherd and Laframboise 1981 with coefficients computed to 40 digits; the series ends below 2^-55.
fn erfc(x: f64) -> f64 {
    #[rustfmt::skip]
    const SERIES: [f64; 26] = [
        1.1775789345674017541, -0.0045900545806464773309, -0.084249133366517915584, 0.059209939998191890498,
        -0.026658668435305752277, 0.0090749976707052650939, -0.0024131635404176081909, 0.00049077583652580863229,
        -0.000069169733025012063671, 4.1390279860730101675e-6, 7.7403830661984906686e-7, -2.1886401049234395661e-7,
        1.0764999465670910377e-8, 4.5219598112182868979e-9, -7.7544002088313511065e-10, -6.3180883408866844944e-11,
        2.8687950109306698981e-11, 1.945586854577734723e-13, -9.6546967484334389059e-13, 3.2525481481487398415e-14,
        3.3478119482868053878e-14, -1.8645628804193131015e-15, -1.2507950530688647085e-15, 7.418235256624043463e-17,
        5.0681489047961113168e-17, -2.2370566594359995974e-18,
    ];
    const MIDDLE: f64 = 3.75;
    let z = x * std::f64::consts::FRAC_1_SQRT_2;
    let t = (z - MIDDLE) / (z + MIDDLE);
    let (mut next, mut after) = (0.0, 0.0);
    for coefficient in SERIES[1..].iter().rev() {
        (next, after) = (2.0 * t * next - after + coefficient, next);
    }
    let series = t * next - after + SERIES[0];
    // z^2 rounded would cost its own size in units of the result; x^2 / 2 in two parts does not.
    let square = x * x;
    let rest = x.mul_add(x, -square);
    (-square / 2.0).exp() * (1.0 - rest / 2.0) * series / (1.0 + 2.0 * z)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gelu_of_far_negative_numbers_keeps_its_digits() {
        // x / 2 * erfc(-x / sqrt(2)), from 40 digits.
        for (x, y) in GELU {
            let relative = (gelu(x) - y).abs() / y.abs();
            assert!(relative < 4.0 * f64::EPSILON, "{x}: {} for {y}, off by {relative:e}", gelu(x));
        }
        assert_eq!(gelu(-50.0), 0.0);
        assert!(gelu(f64::NAN).is_nan());
    }

    #[rustfmt::skip]
    const GELU: [(f64, f64); 6] = [
        (-20.0, -5.50724823721246739e-88),
        (-8.5, -8.0576045988728206e-17),
        (-3.0, -0.00404969409489028358),
        (-0.125, -0.0562827218962358884),
        (1.5, 1.3997891980967129),
        (6.0, 5.99999999408047413),
    ];
}
