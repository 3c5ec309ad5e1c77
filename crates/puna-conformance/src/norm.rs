//! Root-mean-square norms and their derivative.

use puna_tensor::op::{AddRmsNorm, RmsNorm, RmsNormBackward};
use puna_tensor::{DType, Device, Op, Tensor};

use crate::case::{Case, cases};
use crate::check::{Expected, check, same_bits};
use crate::draw::{Draw, each, shapes_and_seed, tensor};
use crate::matmul::NEIGHBOURS;
use crate::reference::{binary, round_all};
use crate::{Array, reference};

pub(crate) const CASES: &[Case] = cases! {
    "rms_norm" => rms_norm_is_its_formula, rms_norm_takes_a_weight_of_any_float, rms_norm_of_extreme_rows, rms_norm_rows_do_not_depend_on_neighbours;
    "add_rms_norm" => add_rms_norm_is_the_sum_and_its_norm;
    "rms_norm_backward" => rms_norm_backward_is_its_formula;
};

/// The norm and the reciprocal norms.
fn expected(x: &Array, weight: Option<&Array>, eps: f64, dtype: DType) -> [Expected; 2] {
    let (y, r) = reference::rms_norm(x, weight, eps, dtype);
    let size = y.map(f64::abs);
    let n = x.last();
    // The mean square is a sum of positive terms: its relative error is that of the sum, and a root halves it.
    let y = Expected::new(dtype, y).sum(size, n).roundings(usize::from(weight.is_some()));
    let size = r.map(f64::abs);
    [y, Expected::new(dtype.accumulator(), r).sum(size, n)]
}

fn rms_norm_is_its_formula(device: &Device) {
    each(96, shapes_and_seed(1, 6, 800), |(shape, seed)| {
        for dtype in device.floats() {
            let mut draw = Draw::new(seed);
            let (x, t) = draw.input(device, &shape, dtype);
            let (w, tw) = draw.input(device, &shape[shape.len() - 1..], dtype);
            let eps = 1e-5;
            check(
                &format!("{shape:?}"),
                &Op::RmsNorm(RmsNorm { eps, weight: true }),
                &[&t, &tw],
                &expected(&x, Some(&w), eps, dtype),
            );
            check(
                &format!("{shape:?}, no weight"),
                &Op::RmsNorm(RmsNorm { eps, weight: false }),
                &[&t],
                &expected(&x, None, eps, dtype),
            );
        }
    });
}

fn rms_norm_takes_a_weight_of_any_float(device: &Device) {
    for (dtype, other) in device.floats().flat_map(|d| device.floats().map(move |o| (d, o))) {
        let mut draw = Draw::new(90);
        let ((x, t), (w, tw)) = (draw.input(device, &[5, 131], dtype), draw.input(device, &[131], other));
        // Where x is no f64, a weight that is is read in f32.
        let w = if dtype == DType::F64 { w } else { round_all(DType::F32, &w) };
        check(
            &format!("{dtype} by {other}"),
            &Op::RmsNorm(RmsNorm { eps: 1e-6, weight: true }),
            &[&t, &tw],
            &expected(&x, Some(&w), 1e-6, dtype),
        );
    }
}

fn rms_norm_of_extreme_rows(device: &Device) {
    for dtype in device.floats() {
        let mut draw = Draw::new(91);
        let mut x = draw.floats(&[6, 67], dtype);
        // A row of zeros, one of small and one of large numbers, one with NaN, one with infinity.
        for i in 0..67 {
            x.values[i] = 0.0;
            x.values[67 + i] = reference::round(dtype, x.values[67 + i] * 2f64.powi(-10));
            x.values[2 * 67 + i] = reference::round(dtype, x.values[2 * 67 + i] * 2f64.powi(12));
        }
        x.values[3 * 67 + 5] = f64::NAN;
        x.values[4 * 67 + 66] = f64::INFINITY;
        let w = draw.floats(&[67], dtype);
        let inputs = [tensor(device, &x, dtype), tensor(device, &w, dtype)];
        check(
            "extreme rows",
            &Op::RmsNorm(RmsNorm { eps: 1e-5, weight: true }),
            &[&inputs[0], &inputs[1]],
            &expected(&x, Some(&w), 1e-5, dtype),
        );
    }
}

fn rms_norm_rows_do_not_depend_on_neighbours(device: &Device) {
    for dtype in device.floats() {
        let mut draw = Draw::new(92);
        let x = tensor(device, &draw.floats(&[44, 1031], dtype), dtype);
        let w = tensor(device, &draw.floats(&[1031], dtype), dtype);
        let norm = |x: &Tensor| x.rms_norm(&w, 1e-5).expect("rms_norm");
        let all = norm(&x);
        for (start, rows) in NEIGHBOURS {
            same_bits(
                &format!("{dtype}: {rows} rows of 44"),
                &norm(&x.slice(0, start, rows).expect("slice")),
                &all.slice(0, start, rows).expect("slice"),
            );
        }
        let stream = tensor(device, &draw.floats(&[44, 1031], dtype), dtype);
        let (sum, y) = stream.add_rms_norm(&x, &w, 1e-5).expect("add_rms_norm");
        same_bits("add_rms_norm's sum is add's", &sum, &stream.add(&x).expect("add"));
        same_bits("add_rms_norm's norm is rms_norm's", &y, &norm(&sum));
    }
}

fn add_rms_norm_is_the_sum_and_its_norm(device: &Device) {
    each(96, shapes_and_seed(1, 6, 800), |(shape, seed)| {
        for dtype in device.floats() {
            let mut draw = Draw::new(seed);
            let ((stream, ts), (x, tx)) = (draw.input(device, &shape, dtype), draw.input(device, &shape, dtype));
            let other = DType::FLOATS[draw.below(if dtype == DType::F64 { 4 } else { 3 }) + usize::from(dtype != DType::F64)];
            let (w, tw) = draw.input(device, &shape[shape.len() - 1..], other);
            let sum = round_all(dtype, &binary(puna_tensor::op::Binary::Add, &stream, &x));
            let [y, r] = expected(&sum, Some(&w), 1e-5, dtype);
            let outputs = [Expected::new(dtype, sum).rounded_once(), y, r];
            check(&format!("{shape:?} by {other}"), &Op::AddRmsNorm(AddRmsNorm { eps: 1e-5 }), &[&ts, &tx, &tw], &outputs);
        }
    });
}

fn rms_norm_backward_is_its_formula(device: &Device) {
    each(96, shapes_and_seed(1, 6, 1200), |(shape, seed)| {
        for dtype in device.floats() {
            let mut draw = Draw::new(seed);
            let (n, rows) = (shape[shape.len() - 1], &shape[..shape.len() - 1]);
            let ((dy, tdy), (x, tx)) = (draw.input(device, &shape, dtype), draw.input(device, &shape, dtype));
            let other = if dtype == DType::F64 { DType::F64 } else { DType::FLOATS[1 + draw.below(3)] };
            let (w, tw) = draw.input(device, &[n], other);
            let r = round_all(dtype.accumulator(), &reference::rms_norm(&x, None, 1e-5, dtype).1);
            let r = r.map(|v| if v.is_nan() { 1.0 } else { v });
            assert_eq!(r.shape, rows);
            let tr = draw.place(device, &r, dtype.accumulator());
            let (dx, dweight) = reference::rms_norm_backward(&dy, &x, &r, Some(&w));
            let dweight = Expected::sums(other, &dweight.expect("a weight"), x.rows().max(1)).accumulated_in(dtype.accumulator());
            let outputs = [Expected::sums(dtype, &dx, n + 4), dweight];
            check(
                &format!("{shape:?} by {other}"),
                &Op::RmsNormBackward(RmsNormBackward { weight: true }),
                &[&tdy, &tx, &tr, &tw],
                &outputs,
            );
            let (dx, _) = reference::rms_norm_backward(&dy, &x, &r, None);
            check(
                &format!("{shape:?}, no weight"),
                &Op::RmsNormBackward(RmsNormBackward { weight: false }),
                &[&tdy, &tx, &tr],
                &[Expected::sums(dtype, &dx, n + 4)],
            );
        }
    });
    // Enough rows for several threads to share the weight's gradient.
    let mut draw = Draw::new(93);
    let ((dy, tdy), (x, tx)) = (draw.input(device, &[1500, 19], DType::F32), draw.input(device, &[1500, 19], DType::F32));
    let (w, tw) = draw.input(device, &[19], DType::F32);
    let r = round_all(DType::F32, &reference::rms_norm(&x, None, 1e-5, DType::F32).1);
    let (dx, dweight) = reference::rms_norm_backward(&dy, &x, &r, Some(&w));
    let outputs = [Expected::sums(DType::F32, &dx, 23), Expected::sums(DType::F32, &dweight.expect("a weight"), 1500)];
    let tr = tensor(device, &r, DType::F32);
    check("1500 rows", &Op::RmsNormBackward(RmsNormBackward { weight: true }), &[&tdy, &tx, &tr, &tw], &outputs);
}
