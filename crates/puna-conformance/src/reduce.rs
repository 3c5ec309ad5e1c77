//! Reductions, scans, sorting.

use puna_tensor::op::{ArgReduce, Reduce, ReduceKind, Sort};
use puna_tensor::{Axes, DType, Device, Op};

use crate::case::{Case, cases};
use crate::check::{Expected, check, same_bits};
use crate::draw::{Draw, each, shapes_and_seed, tensor};
use crate::{Array, reference};

pub(crate) const CASES: &[Case] = cases! {
    "reduce" => reduce_is_its_formula, reduce_of_extreme_values, reduce_of_integers_is_exact, reduce_of_long_axes, reduce_does_not_depend_on_neighbours;
    "arg_reduce" => arg_reduce_finds_the_first, arg_reduce_of_integers;
    "cum_sum" => cum_sum_adds_in_order;
    "sort" => sort_is_stable_with_nan_largest, sort_of_integers, sort_of_long_rows;
};

const INTEGERS: [DType; 3] = [DType::I64, DType::U32, DType::U8];

/// Some of the axes of a shape, in any order.
fn some_axes(draw: &mut Draw, rank: usize) -> Vec<usize> {
    let count = draw.below(rank + 1);
    draw.order(rank)[..count].to_vec()
}

fn reduce_expected(kind: ReduceKind, x: &Array, axes: &[usize], keep: bool, dtype: DType) -> Expected {
    let sums = reference::reduce(kind, x, axes, keep);
    let terms = axes.iter().map(|&axis| x.shape[axis]).product::<usize>().max(1);
    let expected = Expected::sums(dtype, &sums, terms);
    if matches!(kind, ReduceKind::Max | ReduceKind::Min) { expected.rounded_once() } else { expected }
}

fn reduce_is_its_formula(device: &Device) {
    for kind in ReduceKind::ALL {
        each(96, shapes_and_seed(0, 6, 1500), |(shape, seed)| {
            for dtype in device.floats() {
                let mut draw = Draw::new(seed);
                let (x, t) = draw.input(device, &shape, dtype);
                let (axes, keep) = (some_axes(&mut draw, shape.len()), draw.below(2) == 0);
                let op = Op::Reduce(Reduce { kind, axes: Axes::new(&axes).expect("a rank"), keep });
                check(&format!("{kind:?} {shape:?} over {axes:?}"), &op, &[&t], &[reduce_expected(kind, &x, &axes, keep, dtype)]);
            }
        });
    }
}

fn reduce_of_extreme_values(device: &Device) {
    for (kind, dtype) in ReduceKind::ALL.into_iter().flat_map(|kind| device.floats().map(move |dtype| (kind, dtype))) {
        let mut draw = Draw::new(20);
        // Half of the rows without NaN, so that what is beside it is seen.
        let x = draw.extremes(&[40, 7], dtype);
        let mut i = 0;
        let x = x.map(|v| {
            i += 1;
            let quiet = (i / 7) % 2 == 0;
            // The largest numbers overflow where they are added up in another order than the reference's.
            let huge = v.is_finite() && v.abs() > 1e4;
            if quiet && v.is_nan() || huge { 1.0 } else { v }
        });
        for axis in [0, 1] {
            let op = Op::Reduce(Reduce { kind, axes: axis.into(), keep: false });
            let t = draw.place(device, &x, dtype);
            check(&format!("{kind:?} of extremes over {axis}"), &op, &[&t], &[reduce_expected(kind, &x, &[axis], false, dtype)]);
        }
    }
}

fn reduce_of_integers_is_exact(device: &Device) {
    for kind in [ReduceKind::Sum, ReduceKind::Max, ReduceKind::Min] {
        each(48, shapes_and_seed(0, 6, 800), |(shape, seed)| {
            for dtype in INTEGERS {
                let mut draw = Draw::new(seed);
                let x = draw.integers(&shape, dtype);
                let (axes, keep) = (some_axes(&mut draw, shape.len()), draw.below(2) == 0);
                let op = Op::Reduce(Reduce { kind, axes: Axes::new(&axes).expect("a rank"), keep });
                let to = if kind == ReduceKind::Sum && dtype == DType::U8 { DType::U32 } else { dtype };
                let expected = Expected::exact(to, reference::reduce_integers(kind, &x, &axes, keep, dtype));
                let t = draw.place_integers(device, &x, dtype);
                check(&format!("{kind:?} {dtype} {shape:?} over {axes:?}"), &op, &[&t], &[expected]);
            }
        });
    }
}

fn reduce_of_long_axes(device: &Device) {
    for (kind, dtype) in ReduceKind::ALL.into_iter().flat_map(|kind| device.floats().map(move |dtype| (kind, dtype))) {
        let mut draw = Draw::new(21);
        for (shape, axes) in
            [(vec![3, 5003], vec![1]), (vec![5003, 3], vec![0]), (vec![70, 3, 70], vec![2, 0]), (vec![9001], vec![0])]
        {
            let (x, t) = draw.input(device, &shape, dtype);
            let op = Op::Reduce(Reduce { kind, axes: Axes::new(&axes).expect("a rank"), keep: false });
            check(&format!("{kind:?} {shape:?} over {axes:?}"), &op, &[&t], &[reduce_expected(kind, &x, &axes, false, dtype)]);
        }
    }
}

fn reduce_does_not_depend_on_neighbours(device: &Device) {
    for dtype in device.floats() {
        let x = tensor(device, &Draw::new(22).floats(&[44, 1001], dtype), dtype);
        let all = x.sum(1).expect("sum");
        for (start, length) in [(0, 1), (7, 2), (20, 7)] {
            let some = x.slice(0, start, length).and_then(|x| x.sum(1)).expect("sum");
            same_bits(&format!("sum of {length} rows of 44"), &some, &all.slice(0, start, length).expect("slice"));
        }
    }
}

fn arg_reduce_finds_the_first(device: &Device) {
    each(96, shapes_and_seed(1, 6, 1500), |(shape, seed)| {
        for dtype in device.floats() {
            let mut draw = Draw::new(seed);
            let axis = draw.below(shape.len());
            if shape[axis] == 0 {
                continue;
            }
            let x = if draw.below(2) == 0 { draw.extremes(&shape, dtype) } else { draw.floats(&shape, dtype).map(|v| v.round()) };
            let (largest, keep) = (draw.below(2) == 0, draw.below(2) == 0);
            let expected = Expected::indices(reference::arg_reduce(largest, &x, axis, keep));
            let t = draw.place(device, &x, dtype);
            check(
                &format!("{largest} {shape:?} along {axis}"),
                &Op::ArgReduce(ArgReduce { largest, axis, keep }),
                &[&t],
                &[expected],
            );
        }
    });
}

fn arg_reduce_of_integers(device: &Device) {
    for (dtype, largest) in INTEGERS.into_iter().flat_map(|dtype| [(dtype, true), (dtype, false)]) {
        let mut draw = Draw::new(23);
        for axis in [0, 1, 2] {
            let x = draw.integers(&[5, 33, 3], dtype);
            let t = draw.place_integers(device, &x, dtype);
            let expected = Expected::indices(reference::arg_reduce(largest, &x, axis, false));
            check(&format!("{dtype}"), &Op::ArgReduce(ArgReduce { largest, axis, keep: false }), &[&t], &[expected]);
        }
    }
}

fn cum_sum_adds_in_order(device: &Device) {
    each(64, shapes_and_seed(1, 6, 600), |(shape, seed)| {
        for dtype in device.floats() {
            let (x, t) = Draw::new(seed).input(device, &shape, dtype);
            let sums = reference::cum_sum(&x);
            check(&format!("{shape:?}"), &Op::CumSum, &[&t], &[Expected::sums(dtype, &sums, shape[shape.len() - 1])]);
        }
    });
}

fn sort_is_stable_with_nan_largest(device: &Device) {
    for descending in [false, true] {
        each(64, shapes_and_seed(1, 6, 800), |(shape, seed)| {
            for dtype in device.floats() {
                let mut draw = Draw::new(seed);
                let x =
                    if draw.below(2) == 0 { draw.extremes(&shape, dtype) } else { draw.floats(&shape, dtype).map(|v| v.round()) };
                let (values, places) = reference::sort(descending, &x);
                let expected = [Expected::new(dtype, values).rounded_once(), Expected::indices(places)];
                check(
                    &format!("{descending} {shape:?}"),
                    &Op::Sort(Sort { descending }),
                    &[&draw.place(device, &x, dtype)],
                    &expected,
                );
            }
        });
    }
}

fn sort_of_integers(device: &Device) {
    for (dtype, descending) in INTEGERS.into_iter().flat_map(|dtype| [(dtype, true), (dtype, false)]) {
        let mut draw = Draw::new(24);
        let x = draw.integers(&[5, 67], dtype);
        let (values, places) = reference::sort(descending, &x);
        let expected = [Expected::exact(dtype, values), Expected::indices(places)];
        let t = draw.place_integers(device, &x, dtype);
        check(&format!("{dtype}"), &Op::Sort(Sort { descending }), &[&t], &expected);
    }
}

fn sort_of_long_rows(device: &Device) {
    // Few values, so that equal ones lie far apart.
    let x = Draw::new(25).floats(&[2, 3001], DType::F32).map(|v| (v * 8.0).round());
    for descending in [false, true] {
        let (values, places) = reference::sort(descending, &x);
        let expected = [Expected::new(DType::F32, values).rounded_once(), Expected::indices(places)];
        check("long rows", &Op::Sort(Sort { descending }), &[&tensor(device, &x, DType::F32)], &expected);
    }
}
