//! Elementwise functions: formulas, broadcasting, NaN and infinities, integers that wrap.

use puna_tensor::op::{Affine, Binary, Compare, Unary};
use puna_tensor::{DType, Device, Op};

use crate::case::{Case, cases};
use crate::check::{Expected, check};
use crate::draw::{Draw, each, shapes_and_seed, tensor};
use crate::{Array, reference};

pub(crate) const CASES: &[Case] = cases! {
    "unary" => unary_is_its_formula, unary_of_extreme_values, unary_of_i64_wraps;
    "affine" => affine_is_a_product_and_a_sum;
    "binary" => binary_is_its_formula_and_broadcasts, binary_of_extreme_values, binary_of_integers_wraps;
    "compare" => compare_knows_nan_and_signed_zero, compare_of_integers_is_exact;
    "select" => select_chooses_and_broadcasts;
};

const INTEGERS: [DType; 3] = [DType::I64, DType::U32, DType::U8];

/// Half types are computed in f32, which has more than twice their bits, so that one IEEE operation and a rounding are as good as one rounding.
fn unary_expected(op: Unary, x: &Array, dtype: DType) -> Expected {
    let expected = Expected::new(dtype, x.map(|v| reference::unary(op, v)));
    match op {
        Unary::Neg | Unary::Abs | Unary::Sign | Unary::Relu | Unary::Square => expected.rounded_once(),
        // 1 + erf and 1 + tanh cancel on the negative side: their errors are relative to x.
        Unary::Gelu | Unary::GeluTanh => expected.sum(x.map(f64::abs), 2),
        _ => expected,
    }
}

fn unary_is_its_formula(device: &Device) {
    for op in Unary::ALL {
        each(48, shapes_and_seed(0, 6, 600), |(shape, seed)| {
            for dtype in device.floats() {
                let (x, t) = Draw::new(seed).input(device, &shape, dtype);
                // Roots and logarithms take what is not negative.
                let positive = matches!(op, Unary::Sqrt | Unary::Log | Unary::Rsqrt);
                let (x, t) = if positive { (x.map(f64::abs), t.abs().expect("abs")) } else { (x, t) };
                check(&format!("{op:?}"), &Op::Unary(op), &[&t], &[unary_expected(op, &x, dtype)]);
            }
        });
    }
}

fn unary_of_extreme_values(device: &Device) {
    for (op, dtype) in Unary::ALL.into_iter().flat_map(|op| device.floats().map(move |dtype| (op, dtype))) {
        let x = Draw::new(7).extremes(&[193], dtype);
        // Where the formula is -inf times 0 it says nothing, and limits differ.
        let unsaid = matches!(op, Unary::Silu | Unary::Gelu | Unary::GeluTanh);
        let x = x.map(|v| if unsaid && v == f64::NEG_INFINITY { -30.0 } else { v });
        check(&format!("{op:?} of extremes"), &Op::Unary(op), &[&tensor(device, &x, dtype)], &[unary_expected(op, &x, dtype)]);
    }
}

fn unary_of_i64_wraps(device: &Device) {
    for op in [Unary::Neg, Unary::Abs, Unary::Sign] {
        let mut draw = Draw::new(8);
        let x = draw.integers(&[3, 33], DType::I64);
        let t = draw.place_integers(device, &x, DType::I64);
        let expected = x.map(|v| reference::unary_integers(op, v, DType::I64));
        check(&format!("{op:?}"), &Op::Unary(op), &[&t], &[Expected::exact(DType::I64, expected)]);
    }
}

fn affine_is_a_product_and_a_sum(device: &Device) {
    each(64, shapes_and_seed(0, 6, 600), |(shape, seed)| {
        for dtype in device.floats() {
            let mut draw = Draw::new(seed);
            let (x, t) = draw.input(device, &shape, dtype);
            let (mul, add) = (draw.normal() * 3.0, draw.normal());
            let value = x.map(|v| reference::affine(v, mul, add));
            let magnitude = x.map(|v| (v * mul).abs() + add.abs());
            check(
                &format!("{mul} {add}"),
                &Op::Affine(Affine { mul, add }),
                &[&t],
                &[Expected::new(dtype, value).sum(magnitude, 2)],
            );
        }
    });
    for dtype in device.floats() {
        let x = Draw::new(9).extremes(&[97], dtype);
        let (mul, add) = (0.75, -0.25);
        let expected =
            Expected::new(dtype, x.map(|v| reference::affine(v, mul, add))).sum(x.map(|v| (v * mul).abs() + add.abs()), 2);
        check("of extremes", &Op::Affine(Affine { mul, add }), &[&tensor(device, &x, dtype)], &[expected]);
    }
}

fn binary_expected(op: Binary, a: &Array, b: &Array, dtype: DType) -> Expected {
    let expected = Expected::new(dtype, reference::binary(op, a, b));
    if matches!(op, Binary::Div | Binary::Pow) { expected } else { expected.rounded_once() }
}

/// Two shapes that broadcast to one: some axes of each become 1, some leading ones go.
fn narrowed(draw: &mut Draw, shape: &[usize]) -> Vec<usize> {
    let skip = if draw.below(3) == 0 { draw.below(shape.len() + 1) } else { 0 };
    shape[skip..].iter().map(|&length| if draw.below(4) == 0 { 1 } else { length }).collect()
}

fn binary_is_its_formula_and_broadcasts(device: &Device) {
    for op in Binary::ALL {
        each(64, shapes_and_seed(0, 6, 600), |(shape, seed)| {
            for dtype in device.floats() {
                let mut draw = Draw::new(seed);
                let [left, right] = [(); 2].map(|()| narrowed(&mut draw, &shape));
                let (a, ta) = draw.input(device, &left, dtype);
                let (b, tb) = draw.input(device, &right, dtype);
                // A negative base has powers by whole numbers only.
                let (a, ta) = if op == Binary::Pow { (a.map(f64::abs), ta.abs().expect("abs")) } else { (a, ta) };
                check(&format!("{op:?} {left:?} {right:?}"), &Op::Binary(op), &[&ta, &tb], &[binary_expected(op, &a, &b, dtype)]);
            }
        });
    }
}

fn binary_of_extreme_values(device: &Device) {
    for (op, dtype) in Binary::ALL.into_iter().flat_map(|op| device.floats().map(move |dtype| (op, dtype))) {
        let mut draw = Draw::new(10);
        let (a, b) = (draw.extremes(&[17, 1, 33], dtype), draw.extremes(&[5, 1], dtype));
        let (ta, tb) = (draw.place(device, &a, dtype), draw.place(device, &b, dtype));
        check(&format!("{op:?} of extremes"), &Op::Binary(op), &[&ta, &tb], &[binary_expected(op, &a, &b, dtype)]);
    }
}

fn binary_of_integers_wraps(device: &Device) {
    for op in Binary::ALL.into_iter().filter(|op| *op != Binary::Pow) {
        each(32, shapes_and_seed(0, 6, 300), |(shape, seed)| {
            for dtype in INTEGERS {
                let mut draw = Draw::new(seed);
                let [left, right] = [(); 2].map(|()| narrowed(&mut draw, &shape));
                let (a, b) = (draw.integers(&left, dtype), draw.integers(&right, dtype));
                let (ta, tb) = (draw.place_integers(device, &a, dtype), draw.place_integers(device, &b, dtype));
                let expected = Expected::exact(dtype, reference::binary_integers(op, &a, &b, dtype));
                check(&format!("{op:?} {dtype} {left:?} {right:?}"), &Op::Binary(op), &[&ta, &tb], &[expected]);
            }
        });
    }
}

fn compare_knows_nan_and_signed_zero(device: &Device) {
    for op in Compare::ALL {
        each(32, shapes_and_seed(0, 6, 400), |(shape, seed)| {
            for dtype in device.floats() {
                let mut draw = Draw::new(seed);
                let [left, right] = [(); 2].map(|()| narrowed(&mut draw, &shape));
                let (a, b) = (draw.extremes(&left, dtype), draw.extremes(&right, dtype));
                let (ta, tb) = (draw.place(device, &a, dtype), draw.place(device, &b, dtype));
                let expected = Expected::exact(DType::U8, reference::compare(op, &a, &b));
                check(&format!("{op:?} {dtype} {left:?} {right:?}"), &Op::Compare(op), &[&ta, &tb], &[expected]);
            }
        });
    }
}

fn compare_of_integers_is_exact(device: &Device) {
    for (op, dtype) in Compare::ALL.into_iter().flat_map(|op| INTEGERS.map(|dtype| (op, dtype))) {
        let mut draw = Draw::new(11);
        let (a, b) = (draw.integers(&[9, 17], dtype), draw.integers(&[17], dtype));
        let (ta, tb) = (draw.place_integers(device, &a, dtype), draw.place_integers(device, &b, dtype));
        let expected = Expected::exact(DType::U8, reference::compare(op, &a, &b));
        check(&format!("{op:?} {dtype}"), &Op::Compare(op), &[&ta, &tb], &[expected]);
    }
}

fn select_chooses_and_broadcasts(device: &Device) {
    each(48, shapes_and_seed(0, 6, 400), |(shape, seed)| {
        let mut draw = Draw::new(seed);
        let [when, left, right] = [(); 3].map(|()| narrowed(&mut draw, &shape));
        let condition = draw.integers(&when, DType::U8);
        let tc = draw.place_integers(device, &condition, DType::U8);
        for dtype in device.floats() {
            let (a, b) = (draw.extremes(&left, dtype), draw.extremes(&right, dtype));
            let (ta, tb) = (draw.place(device, &a, dtype), draw.place(device, &b, dtype));
            let expected = Expected::new(dtype, reference::select(&condition, &a, &b)).rounded_once();
            check(&format!("{when:?} {left:?} {right:?}"), &Op::Select, &[&tc, &ta, &tb], &[expected]);
        }
        for dtype in INTEGERS {
            let (a, b) = (draw.integers(&left, dtype), draw.integers(&right, dtype));
            let (ta, tb) = (draw.place_integers(device, &a, dtype), draw.place_integers(device, &b, dtype));
            let expected = Expected::exact(dtype, reference::select(&condition, &a, &b));
            check(&format!("{dtype} {when:?} {left:?} {right:?}"), &Op::Select, &[&tc, &ta, &tb], &[expected]);
        }
    });
}
