//! Views, copies, casts, joins, fills: no number changes but by its cast.

use puna_tensor::op::{Arange, Cast, Concat, Fill, View};
use puna_tensor::{Axes, BlockType, DType, Device, Op, Tensor};

use crate::array::{floats, integers};
use crate::blocks::{decoded, random_blocks};
use crate::case::{Case, cases};
use crate::check::{Expected, check, same_bits};
use crate::draw::{Draw, each, shape_of, shapes_and_seed, tensor};
use crate::reference::{round, wrap};
use crate::{Array, reference};

pub(crate) const CASES: &[Case] = cases! {
    "view" => views_show_the_same_elements, reshape_of_any_strides, views_of_blocks_are_cut_at_their_edges;
    "contiguous" => contiguous_keeps_every_bit;
    "cast" => cast_between_floats_rounds_once, cast_between_integers_wraps, cast_to_integers_truncates_and_saturates,
        cast_from_integers_rounds_once, cast_decodes_blocks, cast_encodes_blocks_as_the_codec_does;
    "concat" => concat_joins_along_any_axis, concat_of_blocks;
    "fill" => fill_rounds_its_value;
    "arange" => arange_counts;
    "assign" => assign_writes_views_and_broadcasts;
    "unpack" => unpack_gives_the_exact_bytes;
};

const INTEGERS: [DType; 3] = [DType::I64, DType::U32, DType::U8];

fn exactly(dtype: DType, x: Array) -> Expected {
    Expected::new(dtype, x).rounded_once()
}

fn views_show_the_same_elements(device: &Device) {
    each(128, shapes_and_seed(1, 6, 800), |(shape, seed)| {
        let mut draw = Draw::new(seed);
        let (x, t) = draw.input(device, &shape, DType::F32);
        let order = draw.order(shape.len());
        let permuted = t.permute(Axes::new(&order).expect("a rank")).expect("permute");
        exactly(DType::F32, x.permute(&order)).compare("permute", &permuted);
        let axis = draw.below(shape.len());
        let start = draw.below(shape[axis] + 1);
        let length = draw.below(shape[axis] - start + 1);
        let mut cut = shape.clone();
        cut[axis] = length;
        let expected = Array::from_fn(&cut, |index| {
            let mut from = index.to_vec();
            from[axis] += start;
            x.at(&from)
        });
        exactly(DType::F32, expected).compare("slice", &t.slice(axis, start, length).expect("slice"));
        if shape.len() < 6 {
            let wide = [&[3], &shape[..]].concat();
            exactly(DType::F32, x.broadcast(&wide)).compare("broadcast", &t.broadcast(shape_of(&wide)).expect("broadcast"));
        }
    });
}

fn reshape_of_any_strides(device: &Device) {
    each(128, shapes_and_seed(0, 6, 800), |(shape, seed)| {
        let mut draw = Draw::new(seed);
        let (x, t) = draw.input(device, &shape, DType::F16);
        // Another factoring of the number of elements: neighbours merged, ones put in.
        let mut to = Vec::new();
        for &length in &shape {
            match to.last_mut() {
                Some(last) if draw.below(2) == 0 => *last *= length,
                _ => to.push(length),
            }
            if to.len() < 5 && draw.below(4) == 0 {
                to.push(1);
            }
        }
        to.truncate(6);
        if to.iter().product::<usize>() == x.values.len() {
            check(
                &format!("{shape:?} to {to:?}"),
                &Op::View(View::Reshape(shape_of(&to))),
                &[&t],
                &[exactly(DType::F16, x.reshape(&to))],
            );
        }
    });
}

fn views_of_blocks_are_cut_at_their_edges(device: &Device) {
    for block in BlockType::ALL {
        let (n, dtype) = (block.values(), DType::Block(block));
        let (bytes, values) = random_blocks(block, &[5, 3 * n], 30);
        let w = Tensor::from_bytes(&bytes, dtype, [5, 3 * n], device).expect("blocks");
        let cut = w.slice(0, 1, 3).and_then(|w| w.slice(1, n, 2 * n)).expect("a cut at the edges");
        let expected = Array::from_fn(&[3, 2 * n], |i| values.at(&[i[0] + 1, i[1] + n]));
        exactly(DType::F32, expected.clone())
            .compare(&format!("{block} cut and decoded"), &cut.cast(DType::F32).expect("decode"));
        let again =
            Tensor::from_bytes(&cut.contiguous().expect("contiguous").to_bytes().expect("bytes"), dtype, [3, 2 * n], device);
        exactly(DType::F32, expected)
            .compare(&format!("{block} cut and copied"), &again.and_then(|w| w.cast(DType::F32)).expect("decode"));
        for wrong in [w.slice(1, 1, n), w.slice(1, 0, n - 1), w.transpose(0, 1)] {
            assert!(wrong.is_err(), "{block}: a view that cuts blocks apart");
        }
    }
}

fn contiguous_keeps_every_bit(device: &Device) {
    each(96, shapes_and_seed(0, 6, 800), |(shape, seed)| {
        let mut draw = Draw::new(seed);
        for dtype in device.floats() {
            let x = draw.extremes(&shape, dtype);
            let t = draw.place(device, &x, dtype);
            check(&format!("{shape:?}"), &Op::Contiguous, &[&t], &[exactly(dtype, x.clone())]);
            let bits: Vec<u64> = floats(&Op::Contiguous.apply(&[&t]).and_then(|o| o.one()).expect("contiguous"))
                .values
                .iter()
                .map(|v| v.to_bits() >> 63)
                .collect();
            let signs: Vec<u64> = x.values.iter().map(|v| v.to_bits() >> 63).collect();
            assert_eq!(bits, signs, "contiguous: signs of zero and NaN");
        }
        for dtype in INTEGERS {
            let x = draw.integers(&shape, dtype);
            let t = draw.place_integers(device, &x, dtype);
            check(&format!("{dtype} {shape:?}"), &Op::Contiguous, &[&t], &[Expected::exact(dtype, x)]);
        }
    });
}

fn cast_between_floats_rounds_once(device: &Device) {
    each(32, shapes_and_seed(0, 6, 400), |(shape, seed)| {
        for (from, to) in device.floats().flat_map(|from| device.floats().map(move |to| (from, to))) {
            let mut draw = Draw::new(seed);
            let x = draw.extremes(&shape, from);
            let t = draw.place(device, &x, from);
            check(&format!("{from} to {to}"), &Op::Cast(Cast { dtype: to }), &[&t], &[exactly(to, x)]);
        }
    });
    // Halfway between two results, and a little beside: a second rounding, or bits left out, goes the wrong way.
    for to in [DType::F32, DType::F16, DType::BF16] {
        let half = reference::unit(to);
        let near = [0.0, 2f64.powi(-40), -2f64.powi(-40), 2f64.powi(-50), -2f64.powi(-50)];
        let values: Vec<f64> = near.iter().flat_map(|d| [1.0 + half + d, 1.0 + 3.0 * half + d, -(1.0 + half + d)]).collect();
        let smallest = reference::smallest(to);
        let subnormal = [0.5, 1.5, 2.5].into_iter().flat_map(|n| [n, n + 1e-9, n - 1e-9]).map(|n| n * smallest);
        let values: Vec<f64> = values.into_iter().chain(subnormal).collect();
        let x = Array::new(&[values.len()], values);
        check(&format!("ties to {to}"), &Op::Cast(Cast { dtype: to }), &[&tensor(device, &x, DType::F64)], &[exactly(to, x)]);
    }
}

fn cast_between_integers_wraps(device: &Device) {
    for (from, to) in INTEGERS.into_iter().flat_map(|from| INTEGERS.map(|to| (from, to))) {
        let mut draw = Draw::new(31);
        let x = draw.integers(&[7, 33], from);
        let t = draw.place_integers(device, &x, from);
        check(&format!("{from} to {to}"), &Op::Cast(Cast { dtype: to }), &[&t], &[Expected::exact(to, x.map(|v| wrap(to, v)))]);
    }
}

fn cast_to_integers_truncates_and_saturates(device: &Device) {
    for (from, to) in device.floats().flat_map(|from| INTEGERS.map(|to| (from, to))) {
        let mut draw = Draw::new(32);
        let mut x = draw.extremes(&[7, 33], from);
        x.values.iter_mut().step_by(3).for_each(|v| *v = round(from, *v * 1e3));
        let (least, greatest) = match to {
            DType::I64 => (i128::from(i64::MIN), i128::from(i64::MAX)),
            DType::U32 => (0, i128::from(u32::MAX)),
            _ => (0, 255),
        };
        // NaN to 0, by Rust's own definition of the same cast.
        let expected = x.map(|v| (v.trunc() as i128).clamp(least, greatest));
        let t = draw.place(device, &x, from);
        check(&format!("{from} to {to}"), &Op::Cast(Cast { dtype: to }), &[&t], &[Expected::exact(to, expected)]);
    }
}

fn cast_from_integers_rounds_once(device: &Device) {
    for (from, to) in INTEGERS.into_iter().flat_map(|from| device.floats().map(move |to| (from, to))) {
        let mut draw = Draw::new(33);
        // Whole numbers that f64 holds exactly.
        let x = draw.integers(&[7, 33], from).map(|v| if v.abs() > 1 << 53 { v >> 11 << 11 } else { v });
        let t = draw.place_integers(device, &x, from);
        check(&format!("{from} to {to}"), &Op::Cast(Cast { dtype: to }), &[&t], &[exactly(to, x.map(|v| v as f64))]);
    }
}

fn cast_decodes_blocks(device: &Device) {
    for block in BlockType::ALL {
        for shape in [vec![1, block.values()], vec![3, 2, 2 * block.values()], vec![0, block.values()], vec![block.values()]] {
            let (bytes, values) = random_blocks(block, &shape, 34);
            let w = Tensor::from_bytes(&bytes, DType::Block(block), shape_of(&shape), device).expect("blocks");
            for dtype in device.floats() {
                check(
                    &format!("{block} {shape:?} to {dtype}"),
                    &Op::Cast(Cast { dtype }),
                    &[&w],
                    &[exactly(dtype, values.clone())],
                );
            }
        }
    }
}

fn cast_encodes_blocks_as_the_codec_does(device: &Device) {
    for (block, from) in BlockType::ALL.into_iter().flat_map(|block| device.floats().map(move |from| (block, from))) {
        let mut draw = Draw::new(35);
        let shape = [2, block.values()];
        let x = draw.floats(&shape, from);
        let values: Vec<f32> = x.values.iter().map(|&v| v as f32).collect();
        let mut bytes = vec![0; values.len() / block.values() * block.bytes()];
        puna_quant::encode(block, &values, &mut bytes).expect("whole blocks");
        let encoded = draw.place(device, &x, from).cast(DType::Block(block)).expect("encode");
        assert_eq!(encoded.to_bytes().expect("bytes"), bytes, "{from} to {block}");
        // What a block cannot lose: the values come back within its coarsest step.
        let back = decoded(block, &bytes, &shape);
        let off = x.values.iter().zip(&back.values).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt();
        let size = x.values.iter().map(|a| a * a).sum::<f64>().sqrt();
        assert!(off < 0.35 * size, "{block} loses {}", off / size);
    }
}

fn concat_joins_along_any_axis(device: &Device) {
    each(96, shapes_and_seed(1, 6, 400), |(shape, seed)| {
        for dtype in device.floats() {
            let mut draw = Draw::new(seed);
            let axis = draw.below(shape.len());
            let parts: Vec<_> = (0..1 + draw.below(4))
                .map(|_| {
                    let mut own = shape.clone();
                    own[axis] = draw.below(5);
                    draw.input(device, &own, dtype)
                })
                .collect();
            let mut joined = shape.clone();
            joined[axis] = parts.iter().map(|(x, _)| x.shape[axis]).sum();
            let expected = Array::from_fn(&joined, |index| {
                let mut at = index.to_vec();
                let part = parts.iter().find(|(x, _)| {
                    let inside = at[axis] < x.shape[axis];
                    at[axis] -= if inside { 0 } else { x.shape[axis] };
                    inside
                });
                part.expect("lengths add up").0.at(&at)
            });
            let inputs: Vec<&Tensor> = parts.iter().map(|(_, t)| t).collect();
            check(&format!("{joined:?} along {axis}"), &Op::Concat(Concat { axis }), &inputs, &[exactly(dtype, expected)]);
        }
    });
    for dtype in INTEGERS {
        let mut draw = Draw::new(36);
        let (a, b) = (draw.integers(&[2, 3], dtype), draw.integers(&[4, 3], dtype));
        let (ta, tb) = (draw.place_integers(device, &a, dtype), draw.place_integers(device, &b, dtype));
        let joined = Array::new(&[6, 3], [a.values, b.values].concat());
        check(&format!("{dtype}"), &Op::Concat(Concat { axis: 0 }), &[&ta, &tb], &[Expected::exact(dtype, joined)]);
    }
}

fn concat_of_blocks(device: &Device) {
    for block in BlockType::ALL {
        let (n, dtype) = (block.values(), DType::Block(block));
        let (bytes, values) = random_blocks(block, &[2, 2 * n], 37);
        let w = Tensor::from_bytes(&bytes, dtype, [2, 2 * n], device).expect("blocks");
        for axis in [0, 1] {
            let joined = Tensor::concat(&[&w, &w], axis).and_then(|w| w.cast(DType::F32)).expect("concat");
            let shape = if axis == 0 { [4, 2 * n] } else { [2, 4 * n] };
            let expected = Array::from_fn(&shape, |i| values.at(&[i[0] % 2, i[1] % (2 * n)]));
            exactly(DType::F32, expected).compare(&format!("{block} joined along {axis}"), &joined);
        }
    }
}

fn fill_rounds_its_value(device: &Device) {
    let values = [0.0, -1.5, 1.0 / 3.0, 1e30, f64::INFINITY, f64::NEG_INFINITY, f64::NAN, 300.7];
    for (shape, value) in
        [vec![], vec![7], vec![0, 3], vec![2, 3, 1, 5, 1, 2]].into_iter().flat_map(|s| values.map(|v| (s.clone(), v)))
    {
        for dtype in device.floats() {
            let t = Tensor::full(value, shape_of(&shape), dtype, device).expect("full");
            exactly(dtype, Array::from_fn(&shape, |_| value)).compare(&format!("full {value}"), &t);
        }
        for (dtype, greatest) in [(DType::I64, i128::from(i64::MAX)), (DType::U32, i128::from(u32::MAX)), (DType::U8, 255)] {
            // As a cast from f64 rounds: toward zero, saturated.
            let least = if dtype == DType::I64 { i128::from(i64::MIN) } else { 0 };
            let t = Tensor::full(value, shape_of(&shape), dtype, device).expect("full");
            let whole = (value.trunc() as i128).clamp(least, greatest);
            Expected::exact(dtype, Array::from_fn(&shape, |_| whole)).compare(&format!("full {value} {dtype}"), &t);
        }
    }
    // The largest label, which stands for none.
    let t = Tensor::full(f64::from(u32::MAX), 2, DType::U32, device).and_then(|t| t.to_vec::<u32>()).expect("full");
    assert_eq!(t, [u32::MAX; 2]);
    assert!(Op::Fill(Fill { shape: 32.into(), dtype: DType::Block(BlockType::Q4_0), value: 0.0 }).apply_on(device, &[]).is_err());
}

fn arange_counts(device: &Device) {
    for n in [0, 1, 7, 1000] {
        let t = Op::Arange(Arange { length: n }).apply_on(device, &[]).and_then(|o| o.one()).expect("arange");
        Expected::indices(Array::new(&[n], (0..n as u32).collect())).compare(&format!("arange {n}"), &t);
    }
}

fn assign_writes_views_and_broadcasts(device: &Device) {
    each(96, shapes_and_seed(1, 5, 400), |(shape, seed)| {
        for dtype in device.floats() {
            let mut draw = Draw::new(seed);
            // A view in the middle of a larger tensor, its axes turned: what is around it stays.
            let larger: Vec<usize> = shape.iter().map(|length| length + 2).collect();
            let before = draw.floats(&larger, dtype);
            let whole = tensor(device, &before, dtype);
            let mut view = whole.clone();
            for (axis, &length) in shape.iter().enumerate() {
                view = view.slice(axis, 1, length).expect("inside");
            }
            let order = draw.order(shape.len());
            let view = view.permute(Axes::new(&order).expect("a rank")).expect("permute");
            let turned: Vec<usize> = order.iter().map(|&axis| shape[axis]).collect();
            let narrow: Vec<usize> = turned.iter().map(|&length| if draw.below(4) == 0 { 1 } else { length }).collect();
            let (source, ts) = draw.input(device, &narrow, dtype);
            let version = whole.buffer().version();
            view.assign(&ts).expect("assign");
            assert!(whole.buffer().version() > version, "assign: the version moves");
            let mut after = before.clone();
            for index in crate::indices(&turned) {
                let mut at = vec![0; shape.len()];
                order.iter().zip(&index).for_each(|(&axis, &i)| at[axis] = i + 1);
                let place = after.place(&at);
                after.values[place] = source.broadcast_at(&index);
            }
            exactly(dtype, after).compare(&format!("assign {narrow:?} to {turned:?}"), &whole);
        }
    });
    for dtype in INTEGERS {
        let mut draw = Draw::new(38);
        let (a, b) = (draw.integers(&[3, 4], dtype), draw.integers(&[4], dtype));
        let ta = draw.place_integers(device, &a, dtype);
        ta.assign(&draw.place_integers(device, &b, dtype)).expect("assign");
        assert_eq!(integers(&ta), b.broadcast(&[3, 4]), "assign {dtype}");
    }
}

fn unpack_gives_the_exact_bytes(device: &Device) {
    for block in BlockType::ALL {
        for rows in [1, 3, 7, 8, 17, 33] {
            let shape = [rows, 3 * block.values()];
            let (bytes, _) = random_blocks(block, &shape, 39);
            let w = Tensor::from_bytes(&bytes, DType::Block(block), shape, device).expect("blocks");
            let packed = w.pack().expect("pack");
            assert_eq!(packed.unpack().and_then(|w| w.to_bytes()).expect("unpack"), bytes, "{block} [{rows}, ..]");
            assert_eq!(packed.to_bytes().expect("bytes"), bytes, "{block} [{rows}, ..], read packed");
        }
    }
    for (dtype, shape) in
        device.floats().flat_map(|dtype| [[1, 1], [7, 33], [17, 1], [0, 5], [5, 0], [67, 35]].map(|s| (dtype, s)))
    {
        let mut draw = Draw::new(40);
        let x = draw.extremes(&shape, dtype);
        let w = draw.place(device, &x, dtype);
        same_bits(&format!("{dtype} {shape:?} unpacked"), &w.pack().and_then(|w| w.unpack()).expect("unpack"), &w);
    }
}
