//! Rows and entries by number; numbers out of range read zeros and write nothing.

use puna_tensor::op::{GatherRows, ScatterAddRows, Take, TakeBackward};
use puna_tensor::{Axes, DType, Device, Op};

use crate::array::integers;
use crate::blocks::{inner_length, weight, weight_dtypes};
use crate::case::{Case, cases};
use crate::check::{Expected, check, same_bits};
use crate::draw::{Draw, each, shapes_and_seed, tensor};
use crate::reference::round_all;
use crate::{Array, reference};

pub(crate) const CASES: &[Case] = cases! {
    "gather_rows" => gather_rows_takes_any_table_and_index, gather_rows_decodes_and_rounds, gather_rows_of_integers, gather_rows_of_packed_weights;
    "scatter_rows" => scatter_rows_lets_the_last_win;
    "scatter_add_rows" => scatter_add_rows_sums_in_order;
    "take" => take_reads_along_the_last_axis;
    "take_backward" => take_backward_sums_into_places;
};

const INTEGERS: [DType; 3] = [DType::I64, DType::U32, DType::U8];

fn gather_rows_takes_any_table_and_index(device: &Device) {
    each(96, (shapes_and_seed(1, 4, 400), crate::draw::shapes(0, 2, 40)), |((table, seed), index)| {
        for dtype in device.floats() {
            let mut draw = Draw::new(seed);
            let (x, t) = draw.input(device, &table, dtype);
            let at = draw.indices(&index, table[0]);
            let expected = Expected::new(dtype, reference::gather_rows(&x, &at)).rounded_once();
            let op = Op::GatherRows(GatherRows { dtype });
            check(&format!("{table:?} by {index:?}"), &op, &[&t, &draw.place_indices(device, &at)], &[expected]);
        }
    });
}

fn gather_rows_decodes_and_rounds(device: &Device) {
    for (from, to) in weight_dtypes(device).flat_map(|from| device.floats().map(move |to| (from, to))) {
        let (x, t) = weight(device, [9, inner_length(from, 2)], from, 50);
        let mut draw = Draw::new(51);
        let at = draw.indices(&[3, 4], 9);
        let expected = Expected::new(to, reference::gather_rows(&x, &at)).rounded_once();
        check(
            &format!("{from} to {to}"),
            &Op::GatherRows(GatherRows { dtype: to }),
            &[&t, &draw.place_indices(device, &at)],
            &[expected],
        );
    }
}

fn gather_rows_of_integers(device: &Device) {
    for dtype in INTEGERS {
        let mut draw = Draw::new(52);
        let x = draw.integers(&[7, 3, 5], dtype);
        let at = draw.indices(&[17], 7);
        let expected = Expected::exact(dtype, reference::gather_rows(&x, &at));
        let inputs = [draw.place_integers(device, &x, dtype), draw.place_indices(device, &at)];
        check(&format!("{dtype}"), &Op::GatherRows(GatherRows { dtype }), &[&inputs[0], &inputs[1]], &[expected]);
    }
}

fn gather_rows_of_packed_weights(device: &Device) {
    for dtype in weight_dtypes(device) {
        let (_, t) = weight(device, [21, inner_length(dtype, 3)], dtype, 53);
        let packed = t.pack().expect("pack");
        let mut draw = Draw::new(54);
        let at = draw.indices(&[33], 21);
        let at = draw.place_indices(device, &at);
        for to in device.floats() {
            let rows = packed.embedding(&at, to).expect("rows of a packed weight");
            same_bits(&format!("rows of a packed {dtype} in {to}"), &rows, &t.embedding(&at, to).expect("rows"));
        }
    }
}

fn scatter_rows_lets_the_last_win(device: &Device) {
    each(96, shapes_and_seed(1, 4, 400), |(shape, seed)| {
        for (to, from) in device.floats().flat_map(|to| device.floats().map(move |from| (to, from))) {
            let mut draw = Draw::new(seed);
            let before = draw.floats(&shape, to);
            // The destination may be a view: its last axis turned inside.
            let order: Vec<usize> = (0..shape.len()).rev().collect();
            let t = tensor(device, &before.permute(&order), to).permute(Axes::new(&order).expect("a rank")).expect("permute");
            let n = draw.below(9);
            let at = draw.indices(&[n], shape[0]);
            let (source, ts) = draw.input(device, &[&[n], &shape[1..]].concat(), from);
            let index = draw.place_indices(device, &at);
            let version = t.buffer().version();
            t.scatter_rows(&index, &ts).expect("scatter_rows");
            assert!(t.buffer().version() > version, "scatter_rows: the version moves");
            let after = reference::scatter_rows(&before, &at.values, &round_all(to, &source));
            Expected::new(to, after).rounded_once().compare(&format!("scatter_rows {from} into {to} {shape:?}"), &t);
        }
    });
    for dtype in INTEGERS {
        let mut draw = Draw::new(55);
        let (before, source) = (draw.integers(&[7, 3], dtype), draw.integers(&[9, 3], dtype));
        let at = draw.indices(&[9], 7);
        let t = draw.place_integers(device, &before, dtype);
        t.scatter_rows(&draw.place_indices(device, &at), &draw.place_integers(device, &source, dtype)).expect("scatter_rows");
        assert_eq!(integers(&t), reference::scatter_rows(&before, &at.values, &source), "scatter_rows {dtype}");
    }
}

fn scatter_add_rows_sums_in_order(device: &Device) {
    each(64, (shapes_and_seed(0, 2, 100), crate::draw::shapes(0, 3, 20)), |((index, seed), row)| {
        for dtype in device.floats() {
            let mut draw = Draw::new(seed);
            let rows = draw.below(6);
            let at = draw.indices(&index, rows);
            let (x, t) = draw.input(device, &[&index[..], &row[..]].concat(), dtype);
            let sums = reference::scatter_add_rows(&x, &at, rows);
            let expected = Expected::sums(dtype, &sums, at.values.len().max(1));
            let op = Op::ScatterAddRows(ScatterAddRows { rows });
            check(&format!("{index:?} {row:?} into {rows}"), &op, &[&t, &draw.place_indices(device, &at)], &[expected]);
        }
    });
}

fn take_reads_along_the_last_axis(device: &Device) {
    each(64, shapes_and_seed(1, 6, 400), |(shape, seed)| {
        let mut draw = Draw::new(seed);
        let n = shape[shape.len() - 1];
        let at_shape = [&shape[..shape.len() - 1], &[draw.below(9)]].concat();
        let at = draw.indices(&at_shape, n);
        let index = draw.place_indices(device, &at);
        for dtype in device.floats() {
            let (x, t) = draw.input(device, &shape, dtype);
            let expected = Expected::new(dtype, reference::take(&x, &at)).rounded_once();
            check(&format!("{shape:?} at {at_shape:?}"), &Op::Take(Take), &[&t, &index], &[expected]);
        }
        for dtype in INTEGERS {
            let x = draw.integers(&shape, dtype);
            let t = draw.place_integers(device, &x, dtype);
            check(
                &format!("{dtype} {shape:?}"),
                &Op::Take(Take),
                &[&t, &index],
                &[Expected::exact(dtype, reference::take(&x, &at))],
            );
        }
    });
}

fn take_backward_sums_into_places(device: &Device) {
    each(64, shapes_and_seed(1, 6, 300), |(shape, seed)| {
        let mut draw = Draw::new(seed);
        let length = draw.below(8);
        let at = draw.indices(&shape, length);
        let index = draw.place_indices(device, &at);
        let op = Op::TakeBackward(TakeBackward { length });
        for dtype in device.floats() {
            let (x, t) = draw.input(device, &shape, dtype);
            let sums = reference::take_backward(&x, &at, length);
            check(
                &format!("{shape:?} into {length}"),
                &op,
                &[&t, &index],
                &[Expected::sums(dtype, &sums, shape[shape.len() - 1].max(1))],
            );
        }
        let x = draw.integers(&shape, DType::U32);
        let t = draw.place_integers(device, &x, DType::U32);
        // Sums of u32 stay below 2^53, so that f64 holds them; they wrap.
        let sums: Array<i128> =
            reference::take_backward(&x.map(|v| v as f64), &at, length).value.map(|v| reference::wrap(DType::U32, v as i128));
        check(&format!("u32 {shape:?} into {length}"), &op, &[&t, &index], &[Expected::exact(DType::U32, sums)]);
    });
}
