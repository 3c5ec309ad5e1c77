//! Rotary positions, and writing into a cache's pages.

use puna_tensor::op::{Rope, RopeAndCache, RopeAndCacheInputs, RopePairs};
use puna_tensor::{DType, Device, Op, Tensor, no_grad};

use crate::Array;
use crate::case::{Case, cases};
use crate::check::{Expected, check, same_bits};
use crate::draw::{Draw, each, indices_tensor, tensor};
use crate::reference::{self, round_all};

pub(crate) const CASES: &[Case] = cases! {
    "rope" => rope_turns_pairs, rope_inverse_turns_back, halves_equals_interleaved_after_permutation, rope_of_far_positions;
    "rope_and_cache" => rope_and_cache_turns_and_writes, rope_and_cache_writes_pages_of_any_strides;
};

const PAIRS: [RopePairs; 2] = [RopePairs::Interleaved, RopePairs::Halves];

/// Tables of cosines and sines, in a dtype.
fn tables(rows: usize, half: usize, dtype: DType) -> (Array, Array) {
    let angle = |i: &[usize]| i[0] as f64 * 100f64.powf(-(i[1] as f64) / half.max(1) as f64);
    let table = |f: fn(f64) -> f64| round_all(dtype, &Array::from_fn(&[rows, half], |i| f(angle(i))));
    (table(f64::cos), table(f64::sin))
}

/// Two products: the sum of their absolute values is at most the sum of the pair's.
fn rope_expected(x: &Array, cos: &Array, sin: &Array, positions: &[u32], op: Rope, dtype: DType) -> Expected {
    let y = reference::rope(x, cos, sin, positions, op.pairs, op.inverse);
    let size = |v: &Array| v.map(f64::abs);
    let magnitude = reference::rope(&size(x), &size(cos), &size(sin).map(|v| -v), positions, op.pairs, false);
    let other = reference::rope(&size(x), &size(cos), &size(sin), positions, op.pairs, false);
    let magnitude = Array::new(&y.shape, magnitude.values.iter().zip(&other.values).map(|(a, b)| a.abs().max(b.abs())).collect());
    Expected::new(dtype, y).sum(magnitude, 2)
}

fn rope_turns_pairs(device: &Device) {
    use proptest::prelude::any;
    use proptest::sample::select;
    let shapes =
        (select(&[0usize, 1, 3, 17][..]), select(&[0usize, 1, 3, 5][..]), select(&[0usize, 2, 6, 16, 34, 64][..]), any::<u64>());
    each(96, shapes, |(tokens, heads, dim, seed)| {
        for dtype in device.floats() {
            let mut draw = Draw::new(seed);
            let widest = device.floats().next().expect("every device has a float");
            let table = if draw.below(2) == 0 { widest } else { DType::F32 };
            let (cos, sin) = tables(13, dim / 2, table);
            let (tcos, tsin) = (draw.place(device, &cos, table), draw.place(device, &sin, table));
            let positions = draw.indices(&[tokens], 13);
            let tp = draw.place_indices(device, &positions);
            let (x, t) = draw.input(device, &[tokens, heads, dim], dtype);
            // A table of f64 beside another x is read in f32.
            let read = |table: &Array| round_all(dtype.accumulator(), table);
            for op in PAIRS.into_iter().flat_map(|pairs| [false, true].map(|inverse| Rope { pairs, inverse })) {
                let expected = rope_expected(&x, &read(&cos), &read(&sin), &positions.values, op, dtype);
                check(&format!("{op:?} {tokens} {heads} {dim}"), &Op::Rope(op), &[&t, &tcos, &tsin, &tp], &[expected]);
            }
        }
    });
}

fn rope_inverse_turns_back(device: &Device) {
    let dtype = device.floats().next().expect("every device has a float");
    let (cos, sin) = tables(9, 8, dtype);
    let (tcos, tsin) = (tensor(device, &cos, dtype), tensor(device, &sin, dtype));
    let (x, t) = Draw::new(110).input(device, &[5, 3, 16], dtype);
    let positions = indices_tensor(device, &[8, 0, 3, 3, 1], &[5]);
    for pairs in PAIRS {
        let there = t.rope(&tcos, &tsin, &positions, pairs).expect("rope");
        let back = Op::Rope(Rope { pairs, inverse: true })
            .apply(&[&there, &tcos, &tsin, &positions])
            .and_then(|o| o.one())
            .expect("rope");
        Expected::new(dtype, x.clone()).sum(x.map(|v| v.abs() + 4.0), 4).compare("there and back", &back);
    }
}

fn halves_equals_interleaved_after_permutation(device: &Device) {
    let (cos, sin) = tables(9, 8, DType::F32);
    let (tcos, tsin) = (tensor(device, &cos, DType::F32), tensor(device, &sin, DType::F32));
    let positions = indices_tensor(device, &[8, 0, 3, 3, 1], &[5]);
    for dtype in device.floats() {
        let x = tensor(device, &Draw::new(111).floats(&[5, 3, 16], dtype), dtype);
        // [halves, pairs] to [pairs, halves], inside a head.
        let interleave = |x: &Tensor| x.reshape([5, 3, 2, 8])?.transpose(2, 3)?.reshape([5, 3, 16]);
        let halves = x.rope(&tcos, &tsin, &positions, RopePairs::Halves).and_then(|y| interleave(&y)).expect("rope");
        let interleaved = interleave(&x).and_then(|x| x.rope(&tcos, &tsin, &positions, RopePairs::Interleaved)).expect("rope");
        same_bits(&format!("both pairings, {dtype}"), &halves, &interleaved);
    }
}

fn rope_of_far_positions(device: &Device) {
    // A row far down in a table: its offset is more than 16 bits.
    let rows = 40_000;
    let (cos, sin) = tables(rows, 4, DType::F32);
    let (tcos, tsin) = (tensor(device, &cos, DType::F32), tensor(device, &sin, DType::F32));
    let positions = [39_999, 32_768, 40_000, u32::MAX];
    let (x, t) = Draw::new(112).input(device, &[4, 2, 8], DType::F32);
    for pairs in PAIRS {
        let op = Rope { pairs, inverse: false };
        let expected = rope_expected(&x, &cos, &sin, &positions, op, DType::F32);
        check("far", &Op::Rope(op), &[&t, &tcos, &tsin, &indices_tensor(device, &positions, &[4])], &[expected]);
    }
}

/// Runs the op, or its lowering, and compares q and the pages.
fn write_and_compare(device: &Device, seed: u64, dtype: DType, pages: DType, strided: bool, lower: bool) {
    let mut draw = Draw::new(seed);
    let [tokens, heads, kv_heads, dim, page_size, count] = [7, 6, 3, 10, 4, 5];
    let (cos, sin) = tables(20, dim / 2, DType::F32);
    let (tcos, tsin) = (tensor(device, &cos, DType::F32), tensor(device, &sin, DType::F32));
    let positions = draw.indices(&[tokens], 20);
    let slots: Vec<u32> = [3, 19, 0, 20, 39, 7, 4].to_vec();
    let ((q, tq), (k, tk), (v, tv)) = (
        draw.input(device, &[tokens, heads, dim], dtype),
        draw.input(device, &[tokens, kv_heads, dim], dtype),
        draw.input(device, &[tokens, kv_heads, dim], dtype),
    );
    let before = [(); 2].map(|()| draw.floats(&[count, page_size, kv_heads, dim], pages));
    // Heads before places in memory, or as they are.
    let make = |x: &Array| {
        if strided {
            tensor(device, &x.permute(&[0, 2, 1, 3]), pages).transpose(1, 2).expect("transpose")
        } else {
            tensor(device, x, pages)
        }
    };
    let [k_pages, v_pages] = before.each_ref().map(make);
    let (tp, ts) = (draw.place_indices(device, &positions), indices_tensor(device, &slots, &[tokens]));
    for pairs in PAIRS {
        let with = RopeAndCacheInputs {
            k: &tk,
            v: &tv,
            cos: &tcos,
            sin: &tsin,
            positions: &tp,
            k_pages: &k_pages,
            v_pages: &v_pages,
            slots: &ts,
        };
        let versions = [k_pages.buffer().version(), v_pages.buffer().version()];
        let turned = if lower {
            let inputs = [&tq, &tk, &tv, &tcos, &tsin, &tp, &k_pages, &v_pages, &ts];
            no_grad(|| Op::RopeAndCache(RopeAndCache { pairs }).lower(&inputs, false)).expect("lowered").remove(0)
        } else {
            tq.rope_and_cache(with, pairs).expect("rope_and_cache")
        };
        assert!(
            k_pages.buffer().version() > versions[0] && v_pages.buffer().version() > versions[1],
            "rope_and_cache: versions move"
        );
        let what = format!("rope_and_cache {pairs:?} {dtype} into {pages}, strided {strided}, lowered {lower}");
        let op = Rope { pairs, inverse: false };
        rope_expected(&q, &cos, &sin, &positions.values, op, dtype).compare(&format!("{what}: q"), &turned);
        // The turned k is rounded to its own dtype, then to the pages'.
        let rows = reference::rope(&k, &cos, &sin, &positions.values, pairs, false);
        let rows = round_all(pages, &round_all(dtype, &rows));
        let written = reference::rope_and_cache(&before[0], &slots, &rows);
        let size = written.map(|v| v.abs().max(4.0));
        let coarser = if reference::unit(dtype) > reference::unit(pages) { dtype } else { pages };
        let off = size.map(|v| 4.0 * v * reference::unit(coarser));
        Expected::new(pages, written).sum(size, 2).slack(off).compare(&format!("{what}: k_pages"), &k_pages);
        // What rope gives, rounded, and nothing else: a cached key is the one that attention without a cache would see.
        let (kept, tokens) = (indices_tensor(device, &[3, 19, 0, 7, 4], &[5]), indices_tensor(device, &[0, 1, 2, 5, 6], &[5]));
        let in_pages = k_pages.reshape([count * page_size, kv_heads, dim]).and_then(|rows| rows.gather_rows(&kept));
        let turned = tk.rope(&tcos, &tsin, &tp, pairs).and_then(|k| k.gather_rows(&tokens)?.cast(pages));
        same_bits(&format!("{what}: keys as rope gives them"), &in_pages.expect("rows"), &turned.expect("rope"));
        let written = reference::rope_and_cache(&before[1], &slots, &round_all(pages, &v));
        Expected::new(pages, written).rounded_once().compare(&format!("{what}: v_pages"), &v_pages);
    }
}

fn rope_and_cache_turns_and_writes(device: &Device) {
    for (dtype, pages) in device.floats().flat_map(|d| device.floats().map(move |p| (d, p))) {
        for lower in [false, true] {
            write_and_compare(device, 113, dtype, pages, false, lower);
        }
    }
}

fn rope_and_cache_writes_pages_of_any_strides(device: &Device) {
    for dtype in device.floats() {
        for lower in [false, true] {
            write_and_compare(device, 114, dtype, dtype, true, lower);
        }
    }
}
