//! The functions themselves, over rows.

use puna_tensor::op::{Binary, Unary};

use super::map;
use crate::ops::copy::lane::Lane;
use crate::ops::wide::Wide;
use crate::simd::Isa;
use crate::simd::vector::{self, Function};

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
                    Unary::Exp => function(Function::Exp, x, y),
                    Unary::Log => function(Function::Ln, x, y),
                    Unary::Sqrt => function(Function::Sqrt, x, y),
                    Unary::Rsqrt => function(Function::Rsqrt, x, y),
                    Unary::Reciprocal => function(Function::Reciprocal, x, y),
                    Unary::Square => map([x], y, |[x]| x * x),
                    Unary::Sin => map([x], y, |[x]| x.sin()),
                    Unary::Cos => map([x], y, |[x]| x.cos()),
                    Unary::Tanh => function(Function::Tanh, x, y),
                    Unary::Sigmoid => function(Function::Sigmoid, x, y),
                    Unary::Silu => function(Function::Silu, x, y),
                    Unary::Relu => map([x], y, |[x]| if x < 0.0 { 0.0 } else { x }),
                    Unary::Softplus => function(Function::Softplus, x, y),
                    Unary::Gelu => function(Function::Gelu, x, y),
                    Unary::GeluTanh => function(Function::GeluTanh, x, y),
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

/// What the vector units do to rows.
fn function<W: Wide>(function: Function, x: &[W], y: &mut [W]) {
    y.copy_from_slice(x);
    vector::map(Isa::detect(), function, y);
}
