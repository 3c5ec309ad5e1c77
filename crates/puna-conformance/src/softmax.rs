//! Softmax and its logarithm along the last axis.

use puna_tensor::{DType, Device, Op};

use crate::case::{Case, cases};
use crate::check::{Expected, check, same_bits};
use crate::draw::{Draw, each, shapes_and_seed, tensor};
use crate::{Array, reference};

pub(crate) const CASES: &[Case] = cases! {
    "softmax" => softmax_is_its_formula, softmax_of_extreme_rows, softmax_rows_do_not_depend_on_neighbours;
    "log_softmax" => log_softmax_is_its_formula, log_softmax_of_extreme_rows;
};

fn softmax_expected(x: &Array, dtype: DType) -> Expected {
    let y = reference::softmax(x);
    // An error of the difference from the largest is a relative error of the result.
    let n = x.last().max(1);
    let shift = |i: usize| {
        let row = x.row(i / n);
        let max = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let d = (row[i % n] - max).abs();
        if d.is_finite() { 1.0 + d } else { 1.0 }
    };
    let size = Array::new(&y.shape, y.values.iter().enumerate().map(|(i, v)| v.abs() * shift(i)).collect());
    Expected::new(dtype, y).sum(size, n)
}

fn log_softmax_expected(x: &Array, dtype: DType) -> Expected {
    let y = reference::log_softmax(x);
    let n = x.last().max(1);
    // The largest logarithm is a difference of near numbers: its error is relative to one, that of the sum.
    let size = y.map(|v| v.abs() + 1.0);
    Expected::new(dtype, y).sum(size, n)
}

fn softmax_is_its_formula(device: &Device) {
    each(96, shapes_and_seed(1, 6, 1200), |(shape, seed)| {
        for dtype in device.floats() {
            let (x, t) = Draw::new(seed).input(device, &shape, dtype);
            check(&format!("{shape:?}"), &Op::Softmax, &[&t], &[softmax_expected(&x, dtype)]);
        }
    });
    let (x, t) = Draw::new(100).input(device, &[3, 5003], DType::F32);
    check("long rows", &Op::Softmax, &[&t], &[softmax_expected(&x, DType::F32)]);
}

/// Rows of nothing but -inf, with some -inf, with NaN, with +inf, of large numbers, of equal ones.
fn extreme_rows(dtype: DType) -> Array {
    let mut x = Draw::new(101).floats(&[6, 35], dtype);
    for i in 0..35 {
        x.values[i] = f64::NEG_INFINITY;
        if i % 3 == 0 {
            x.values[35 + i] = f64::NEG_INFINITY;
        }
        x.values[4 * 35 + i] *= 256.0;
        x.values[5 * 35 + i] = -3.0;
    }
    x.values[2 * 35 + 34] = f64::NAN;
    x.values[3 * 35] = f64::INFINITY;
    x
}

fn softmax_of_extreme_rows(device: &Device) {
    for dtype in device.floats() {
        let x = extreme_rows(dtype);
        check("extreme rows", &Op::Softmax, &[&tensor(device, &x, dtype)], &[softmax_expected(&x, dtype)]);
    }
}

fn softmax_rows_do_not_depend_on_neighbours(device: &Device) {
    for dtype in device.floats() {
        let x = tensor(device, &Draw::new(102).floats(&[44, 517], dtype), dtype);
        let all = x.softmax().expect("softmax");
        for (start, rows) in crate::matmul::NEIGHBOURS {
            let some = x.slice(0, start, rows).and_then(|x| x.softmax()).expect("softmax");
            same_bits(&format!("softmax {dtype}: {rows} rows of 44"), &some, &all.slice(0, start, rows).expect("slice"));
        }
    }
}

fn log_softmax_is_its_formula(device: &Device) {
    each(96, shapes_and_seed(1, 6, 1200), |(shape, seed)| {
        for dtype in device.floats() {
            let (x, t) = Draw::new(seed).input(device, &shape, dtype);
            check(&format!("{shape:?}"), &Op::LogSoftmax, &[&t], &[log_softmax_expected(&x, dtype)]);
        }
    });
    let (x, t) = Draw::new(103).input(device, &[3, 5003], DType::F32);
    check("long rows", &Op::LogSoftmax, &[&t], &[log_softmax_expected(&x, DType::F32)]);
}

fn log_softmax_of_extreme_rows(device: &Device) {
    for dtype in device.floats() {
        let x = extreme_rows(dtype);
        check("extreme rows", &Op::LogSoftmax, &[&tensor(device, &x, dtype)], &[log_softmax_expected(&x, dtype)]);
    }
}
