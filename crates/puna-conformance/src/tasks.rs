//! Every op on tens of thousands of elements: what a device cuts into tasks, it puts together again.

use puna_tensor::op::*;
use puna_tensor::{DType, Device, Op, Tensor};

use crate::case::{Case, cases};
use crate::check::{Expected, check};
use crate::draw::{Draw, indices_tensor, tensor};
use crate::reference::{self, AdamWState, round_all, wrap};
use crate::{Array, integers};

pub(crate) const CASES: &[Case] = cases! {
    "(tasks)" => large_elementwise, large_reductions, large_sorts_and_scans, large_copies, large_casts, large_fills, large_gathers_and_scatters,
        large_norms, large_rope, large_cache_writes, large_softmax, large_mlp_parts, large_losses, large_optimizer_steps, large_random, large_linear;
};

/// The dtypes that take each of a kernel's ways: f64, f32, a half.
fn dtypes(device: &Device) -> impl Iterator<Item = DType> + use<> {
    device.floats().filter(|dtype| *dtype != DType::F16)
}
const ROWS: usize = 613;
const N: usize = 129;
const SHAPE: [usize; 2] = [ROWS, N];

/// Contiguous, and turned: kernels have a way for either.
fn both(device: &Device, seed: u64, shape: &[usize], dtype: DType) -> Vec<(Array, Tensor)> {
    let x = Draw::new(seed).floats(shape, dtype);
    let order: Vec<usize> = (0..shape.len()).rev().collect();
    let turned =
        tensor(device, &x.permute(&order), dtype).permute(puna_tensor::Axes::new(&order).expect("a rank")).expect("permute");
    vec![(x.clone(), tensor(device, &x, dtype)), (x, turned)]
}

fn large_elementwise(device: &Device) {
    for dtype in dtypes(device) {
        let other = Draw::new(241).floats(&SHAPE, dtype);
        let row = Draw::new(242).floats(&[N], dtype);
        for (x, t) in both(device, 240, &SHAPE, dtype) {
            let silu = Expected::new(dtype, x.map(|v| reference::unary(Unary::Silu, v)));
            check("large", &Op::Unary(Unary::Silu), &[&t], &[silu]);
            let affine = Expected::new(dtype, x.map(|v| v * 0.5 + 2.0)).sum(x.map(|v| v.abs() * 0.5 + 2.0), 2);
            check("large", &Op::Affine(Affine { mul: 0.5, add: 2.0 }), &[&t], &[affine]);
            for (y, how) in [(&other, "large"), (&row, "large by rows")] {
                let ty = tensor(device, y, dtype);
                let sum = Expected::new(dtype, reference::binary(Binary::Add, &x, y)).rounded_once();
                check(how, &Op::Binary(Binary::Add), &[&t, &ty], &[sum]);
                let less = reference::compare(Compare::Lt, &x, y);
                check(how, &Op::Compare(Compare::Lt), &[&t, &ty], &[Expected::exact(DType::U8, less.clone())]);
                let condition = t.lt(&ty).expect("lt");
                let chosen = Expected::new(dtype, reference::select(&less, &x, y)).rounded_once();
                check(how, &Op::Select, &[&condition, &t, &ty], &[chosen]);
            }
        }
    }
}

fn large_reductions(device: &Device) {
    for (dtype, (kind, axes)) in dtypes(device).flat_map(|d| {
        ReduceKind::ALL.into_iter().flat_map(|k| [vec![0], vec![1], vec![0, 1]].map(|a| (k, a))).map(move |k| (d, k))
    }) {
        for (x, t) in both(device, 243, &SHAPE, dtype) {
            let terms = axes.iter().map(|&axis| SHAPE[axis]).product();
            let expected = Expected::sums(dtype, &reference::reduce(kind, &x, &axes, false), terms);
            let op = Op::Reduce(Reduce { kind, axes: puna_tensor::Axes::new(&axes).expect("a rank"), keep: false });
            check(&format!("large, {kind:?} over {axes:?}"), &op, &[&t], &[expected]);
            if let [axis] = axes[..] {
                let expected = Expected::indices(reference::arg_reduce(true, &x, axis, false));
                check("large", &Op::ArgReduce(ArgReduce { largest: true, axis, keep: false }), &[&t], &[expected]);
            }
        }
    }
}

fn large_sorts_and_scans(device: &Device) {
    for dtype in dtypes(device) {
        for (x, t) in both(device, 244, &SHAPE, dtype) {
            check("large", &Op::CumSum, &[&t], &[Expected::sums(dtype, &reference::cum_sum(&x), N)]);
            let (values, places) = reference::sort(true, &x);
            let expected = [Expected::new(dtype, values).rounded_once(), Expected::indices(places)];
            check("large", &Op::Sort(Sort { descending: true }), &[&t], &expected);
        }
    }
}

fn large_copies(device: &Device) {
    for dtype in dtypes(device) {
        for (x, t) in both(device, 245, &SHAPE, dtype) {
            check("large", &Op::Contiguous, &[&t], &[Expected::new(dtype, x.clone()).rounded_once()]);
            for axis in [0, 1] {
                let mut shape = SHAPE.to_vec();
                shape[axis] *= 2;
                let twice = Array::from_fn(&shape, |i| x.at(&[i[0] % ROWS, i[1] % N]));
                check("large", &Op::Concat(Concat { axis }), &[&t, &t], &[Expected::new(dtype, twice).rounded_once()]);
            }
            let into = Tensor::zeros(SHAPE, dtype, device).expect("zeros");
            into.assign(&t).expect("assign");
            Expected::new(dtype, x.clone()).rounded_once().compare("assign, large", &into);
            let into = Tensor::zeros([N, ROWS], dtype, device).and_then(|z| z.transpose(0, 1)).expect("zeros");
            into.assign(&t).expect("assign");
            Expected::new(dtype, x).rounded_once().compare("assign to a transpose, large", &into);
        }
    }
}

fn large_casts(device: &Device) {
    for (from, to) in device.floats().flat_map(|f| device.floats().map(move |t| (f, t))) {
        for (x, t) in both(device, 246, &SHAPE, from) {
            check(
                &format!("large, {from} to {to}"),
                &Op::Cast(Cast { dtype: to }),
                &[&t],
                &[Expected::new(to, x).rounded_once()],
            );
        }
    }
    let x = Draw::new(247).integers(&SHAPE, DType::I64);
    let t = Draw::new(248).place_integers(device, &x, DType::I64);
    check(
        "large, i64 to u32",
        &Op::Cast(Cast { dtype: DType::U32 }),
        &[&t],
        &[Expected::exact(DType::U32, x.map(|v| wrap(DType::U32, v)))],
    );
    for block in puna_tensor::BlockType::ALL {
        let shape = [130, 2 * block.values()];
        let (bytes, values) = crate::blocks::random_blocks(block, &shape, 249);
        let w = Tensor::from_bytes(&bytes, DType::Block(block), shape, device).expect("blocks");
        for dtype in dtypes(device) {
            check(
                &format!("large, {block}"),
                &Op::Cast(Cast { dtype }),
                &[&w],
                &[Expected::new(dtype, values.clone()).rounded_once()],
            );
        }
        let packed = w.pack().and_then(|w| w.to_bytes()).expect("unpack");
        assert_eq!(packed, bytes, "{block}, large, unpacked");
    }
}

fn large_fills(device: &Device) {
    for dtype in dtypes(device) {
        let t = Tensor::full(0.3, SHAPE, dtype, device).expect("full");
        Expected::new(dtype, Array::from_fn(&SHAPE, |_| 0.3)).rounded_once().compare("full, large", &t);
    }
    let t = Tensor::arange(ROWS * N, device).expect("arange");
    assert!(integers(&t).values.iter().enumerate().all(|(i, v)| *v == i as i128), "arange, large");
}

fn large_gathers_and_scatters(device: &Device) {
    for dtype in dtypes(device) {
        let mut draw = Draw::new(250);
        let at = draw.indices(&[ROWS], ROWS);
        let index = indices_tensor(device, &at.values, &[ROWS]);
        let places = draw.indices(&SHAPE, N);
        let tp = indices_tensor(device, &places.values, &SHAPE);
        for (x, t) in both(device, 251, &SHAPE, dtype) {
            let rows = Expected::new(dtype, reference::gather_rows(&x, &at)).rounded_once();
            check("large", &Op::GatherRows(GatherRows { dtype }), &[&t, &index], &[rows]);
            let sums = reference::scatter_add_rows(&x, &at, 50);
            check(
                "large",
                &Op::ScatterAddRows(ScatterAddRows { rows: 50 }),
                &[&t, &index],
                &[Expected::sums(dtype, &sums, ROWS)],
            );
            check("large", &Op::Take(Take), &[&t, &tp], &[Expected::new(dtype, reference::take(&x, &places)).rounded_once()]);
            let sums = reference::take_backward(&x, &places, N);
            check("large", &Op::TakeBackward(TakeBackward { length: N }), &[&t, &tp], &[Expected::sums(dtype, &sums, N)]);
            let before = draw.floats(&SHAPE, dtype);
            let into = tensor(device, &before, dtype);
            into.scatter_rows(&index, &t).expect("scatter_rows");
            let after = reference::scatter_rows(&before, &at.values, &x);
            Expected::new(dtype, after).rounded_once().compare("scatter_rows, large", &into);
        }
    }
}

fn large_norms(device: &Device) {
    for dtype in dtypes(device) {
        let w = Draw::new(253).floats(&[N], dtype);
        let tw = tensor(device, &w, dtype);
        let more = Draw::new(254).floats(&SHAPE, dtype);
        let tm = tensor(device, &more, dtype);
        let expected = |x: &Array| {
            let (y, r) = reference::rms_norm(x, Some(&w), 1e-5, dtype);
            let (y_size, r_size) = (y.map(f64::abs), r.map(f64::abs));
            [Expected::new(dtype, y).sum(y_size, N).roundings(1), Expected::new(dtype.accumulator(), r).sum(r_size, N)]
        };
        for (x, t) in both(device, 252, &SHAPE, dtype) {
            check("large", &Op::RmsNorm(RmsNorm { eps: 1e-5, weight: true }), &[&t, &tw], &expected(&x));
            let sum = round_all(dtype, &reference::binary(Binary::Add, &more, &x));
            let [y, r] = expected(&sum);
            let outputs = [Expected::new(dtype, sum).rounded_once(), y, r];
            check("large", &Op::AddRmsNorm(AddRmsNorm { eps: 1e-5 }), &[&tm, &t, &tw], &outputs);
            let r = round_all(dtype.accumulator(), &reference::rms_norm(&x, None, 1e-5, dtype).1);
            let (dx, dw) = reference::rms_norm_backward(&more, &x, &r, Some(&w));
            let outputs = [Expected::sums(dtype, &dx, N + 4), Expected::sums(dtype, &dw.expect("a weight"), ROWS)];
            let tr = tensor(device, &r, dtype.accumulator());
            check("large", &Op::RmsNormBackward(RmsNormBackward { weight: true }), &[&tm, &t, &tr, &tw], &outputs);
        }
    }
}

/// Cosines and sines of 40 positions.
fn tables(half: usize) -> [Array; 2] {
    let angle = |i: &[usize]| i[0] as f64 * 50f64.powf(-(i[1] as f64) / half as f64);
    [f64::cos, f64::sin].map(|f| round_all(DType::F32, &Array::from_fn(&[40, half], |i| f(angle(i)))))
}

fn large_rope(device: &Device) {
    let [tokens, heads, dim] = [301, 9, 32];
    let [cos, sin] = tables(dim / 2);
    let [tcos, tsin] = [&cos, &sin].map(|t| tensor(device, t, DType::F32));
    let positions = Draw::new(255).indices(&[tokens], 40);
    let tp = indices_tensor(device, &positions.values, &[tokens]);
    for (dtype, pairs) in dtypes(device).flat_map(|d| [RopePairs::Interleaved, RopePairs::Halves].map(|p| (d, p))) {
        for (x, t) in both(device, 256, &[tokens, heads, dim], dtype) {
            let y = reference::rope(&x, &cos, &sin, &positions.values, pairs, false);
            let size = y.map(|v| v.abs() + 4.0);
            check(
                "large",
                &Op::Rope(Rope { pairs, inverse: false }),
                &[&t, &tcos, &tsin, &tp],
                &[Expected::new(dtype, y).sum(size, 2)],
            );
        }
    }
}

fn large_cache_writes(device: &Device) {
    let [tokens, heads, dim, page_size, count] = [301, 4, 32, 16, 30];
    let [cos, sin] = tables(dim / 2);
    let [tcos, tsin] = [&cos, &sin].map(|t| tensor(device, t, DType::F32));
    for dtype in dtypes(device) {
        let mut draw = Draw::new(257);
        let positions = draw.indices(&[tokens], 40);
        let slots: Vec<u32> = draw.order(page_size * count)[..tokens].iter().map(|&slot| slot as u32).collect();
        let x = draw.floats(&[tokens, heads, dim], dtype);
        let (tx, tv) = (tensor(device, &x, dtype), tensor(device, &x, dtype));
        let before = draw.floats(&[count, page_size, heads, dim], dtype);
        let [k_pages, v_pages] = [(); 2].map(|()| tensor(device, &before, dtype));
        let (tp, ts) = (indices_tensor(device, &positions.values, &[tokens]), indices_tensor(device, &slots, &[tokens]));
        let with = RopeAndCacheInputs {
            k: &tx,
            v: &tv,
            cos: &tcos,
            sin: &tsin,
            positions: &tp,
            k_pages: &k_pages,
            v_pages: &v_pages,
            slots: &ts,
        };
        let turned = tx.rope_and_cache(with, RopePairs::Halves).expect("rope_and_cache");
        let y = reference::rope(&x, &cos, &sin, &positions.values, RopePairs::Halves, false);
        let close = |value: Array| {
            let size = value.map(|v| v.abs() + 4.0);
            Expected::new(dtype, value).sum(size, 2)
        };
        close(y.clone()).compare("rope_and_cache, large: q", &turned);
        close(reference::rope_and_cache(&before, &slots, &y)).compare("rope_and_cache, large: keys", &k_pages);
        let written = reference::rope_and_cache(&before, &slots, &x);
        Expected::new(dtype, written).rounded_once().compare("rope_and_cache, large: values", &v_pages);
    }
}

fn large_softmax(device: &Device) {
    for dtype in dtypes(device) {
        for (x, t) in both(device, 258, &SHAPE, dtype) {
            let y = reference::softmax(&x);
            let size = y.map(|v| v.abs() * 8.0);
            check("large", &Op::Softmax, &[&t], &[Expected::new(dtype, y).sum(size, N)]);
            let y = reference::log_softmax(&x);
            let size = y.map(|v| v.abs() + 1.0);
            check("large", &Op::LogSoftmax, &[&t], &[Expected::new(dtype, y).sum(size, N)]);
        }
    }
}

fn large_mlp_parts(device: &Device) {
    for dtype in dtypes(device) {
        let (dy, up) = (Draw::new(260).floats(&SHAPE, dtype), Draw::new(261).floats(&SHAPE, dtype));
        let (td, tu) = (tensor(device, &dy, dtype), tensor(device, &up, dtype));
        for (gate, tg) in both(device, 259, &SHAPE, dtype) {
            check("large", &Op::SwiGlu, &[&tg, &tu], &[Expected::new(dtype, reference::swiglu(&gate, &up))]);
            let expected = reference::swiglu_backward(&dy, &gate, &up).map(|sums| Expected::sums(dtype, &sums, 2));
            check("large", &Op::SwiGluBackward, &[&td, &tg, &tu], &expected);
        }
    }
}

fn large_losses(device: &Device) {
    for dtype in dtypes(device) {
        let wide = dtype.accumulator();
        let labels = Draw::new(263).indices(&[ROWS], N);
        let tl = indices_tensor(device, &labels.values, &[ROWS]);
        for (x, t) in both(device, 262, &SHAPE, dtype) {
            let (sum, count, lse) = reference::cross_entropy(&x, &labels.values);
            let size = lse.map(|v| v.abs() + 1.0);
            let expected = [
                Expected::sums(wide, &sum, N + ROWS),
                Expected::indices(Array::new(&[], vec![count])),
                Expected::new(wide, lse.clone()).sum(size, N),
            ];
            check("large", &Op::CrossEntropy, &[&t, &tl], &expected);
            let lse = round_all(wide, &lse);
            let sums = reference::cross_entropy_backward(0.25, &x, &labels.values, &lse);
            let [dsum, lse] = [&Array::new(&[], vec![0.25]), &lse].map(|a| tensor(device, a, wide));
            let op = Op::CrossEntropyBackward(CrossEntropyBackward);
            check("large", &op, &[&dsum, &t, &tl, &lse], &[Expected::sums(dtype, &sums, 4)]);
        }
    }
}

fn large_optimizer_steps(device: &Device) {
    let adamw = AdamW { beta1: 0.9, beta2: 0.99, eps: 1e-8, parameters: Vec::new() };
    let sgd = Sgd { momentum: 0.9, parameters: Vec::new() };
    let one = tensor(device, &Array::new(&[], vec![1.0]), DType::F32);
    let step = tensor(device, &Array::new(&[], vec![3.0]), DType::F32);
    let lr = tensor(device, &Array::new(&[], vec![0.125]), DType::F32);
    for dtype in dtypes(device) {
        let wide = dtype.accumulator();
        let mut draw = Draw::new(264);
        let [w, g] = [(); 2].map(|()| draw.floats(&SHAPE, dtype));
        let (m, v) = (draw.floats(&SHAPE, wide), draw.floats(&SHAPE, wide).map(|v| v.abs() + 0.5));
        let [tw, tg, tw2] = [&w, &g, &w].map(|x| tensor(device, x, dtype));
        let [tm, tv, tb] = [&m, &v, &m].map(|x| tensor(device, x, wide));
        let inputs = StepInputs { weight: &tw, states: [&tm, &tv], gradient: &tg, master: None, decay: 0.1 };
        adamw.clone().step(&[inputs], [&lr, &step, &one]).expect("adamw");
        let inputs = StepInputs { weight: &tw2, states: [&tb], gradient: &tg, master: None, decay: 0.01 };
        sgd.clone().step(&[inputs], [&lr, &one]).expect("sgd");
        let near = |dtype: DType, value: Vec<f64>| {
            let value = Array::new(&SHAPE, value);
            let size = value.map(|v| v.abs() + 8.0);
            Expected::new(dtype, value).sum(size, 4).accumulated_in(wide)
        };
        let new = |i: usize| {
            reference::adamw(
                &adamw,
                0.1,
                AdamWState { w: w.values[i], m: m.values[i], v: v.values[i] },
                g.values[i],
                [0.125, 3.0, 1.0],
            )
        };
        near(dtype, (0..ROWS * N).map(|i| new(i).w).collect()).compare("adamw, large: weight", &tw);
        near(wide, (0..ROWS * N).map(|i| new(i).m).collect()).compare("adamw, large: m", &tm);
        near(wide, (0..ROWS * N).map(|i| new(i).v).collect()).compare("adamw, large: v", &tv);
        let new = |i: usize| reference::sgd(&sgd, 0.01, (w.values[i], m.values[i]), g.values[i], [0.125, 1.0]);
        near(dtype, (0..ROWS * N).map(|i| new(i).0).collect()).compare("sgd, large: weight", &tw2);
        near(wide, (0..ROWS * N).map(|i| new(i).1).collect()).compare("sgd, large: b", &tb);
    }
}

fn large_random(device: &Device) {
    let columns = 70_001;
    let [seeds, positions] = [indices_tensor(device, &[5, 6, 7, 8], &[2, 2]), indices_tensor(device, &[9, 10], &[2])];
    let word = |i: &[usize]| reference::word([[5, 6], [7, 8]][i[0]], [9, 10][i[0]], i[1]);
    let u = Array::from_fn(&[2, columns], |i| reference::uniform(word(i)));
    let op = |distribution| Op::Random(Random { distribution, columns });
    check("large", &op(Distribution::Uniform), &[&seeds, &positions], &[Expected::new(DType::F32, u).rounded_once()]);
    let normal = Array::from_fn(&[2, columns], |i| reference::normal([[5, 6], [7, 8]][i[0]], [9, 10][i[0]], i[1]));
    let size = normal.map(|v| v.abs() + 4.0);
    check("large", &op(Distribution::Normal), &[&seeds, &positions], &[Expected::new(DType::F32, normal).sum(size, 8)]);
}

fn large_linear(device: &Device) {
    use crate::blocks::{inner_length, weight_dtypes};
    for (dtype, activations) in weight_dtypes(device).flat_map(|d| crate::matmul::ACTIVATIONS.map(|a| (d, a))) {
        let k = inner_length(dtype, 1);
        // More weight rows than a panel, more rows than a tile: every remainder.
        let drawn = crate::matmul::Drawn::new(device, [531, k], dtype, (true, false), 265).packed();
        let (x, t) = Draw::new(266).input(device, &[71, k], DType::F32);
        let op = Op::Linear(Linear { parts: drawn.parts(), activations });
        let inputs = [vec![&t], drawn.inputs()].concat();
        check(&format!("large, by {dtype}, {activations:?}"), &op, &inputs, &[drawn.expected(&x, DType::F32, activations)]);
    }
}
