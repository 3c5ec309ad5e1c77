//! The feed-forward block and its parts.

use puna_tensor::op::{Activations, GatedMlp};
use puna_tensor::{BlockType, DType, Device, Op, Tensor};

use crate::blocks::{inner_length, weight_dtypes};
use crate::case::{Case, cases};
use crate::check::{Expected, check, same_bits};
use crate::draw::{Draw, each, shapes_and_seed, tensor};
use crate::matmul::{ACTIVATIONS, Drawn, NEIGHBOURS};
use crate::{Array, reference};

pub(crate) const CASES: &[Case] = cases! {
    "swiglu" => swiglu_is_its_formula;
    "swiglu_backward" => swiglu_backward_is_its_formula;
    "gated_mlp" => gated_mlp_of_every_weight, gated_mlp_of_any_shape, gated_mlp_of_packed_weights_has_the_same_bits, gated_mlp_rows_do_not_depend_on_neighbours;
};

fn swiglu_is_its_formula(device: &Device) {
    each(96, shapes_and_seed(0, 6, 800), |(shape, seed)| {
        for dtype in device.floats() {
            let mut draw = Draw::new(seed);
            let ((gate, tg), (up, tu)) = (draw.input(device, &shape, dtype), draw.input(device, &shape, dtype));
            check(&format!("{shape:?}"), &Op::SwiGlu, &[&tg, &tu], &[Expected::new(dtype, reference::swiglu(&gate, &up))]);
        }
    });
    for dtype in device.floats() {
        // Gates so far out that the exponential overflows or vanishes; NaN.
        let gate = Array::new(&[9], vec![-1000.0, -100.0, -88.0, -20.0, 0.0, 20.0, 100.0, 1000.0, f64::NAN]);
        let gate = reference::round_all(dtype, &gate);
        let up = Draw::new(120).floats(&[9], dtype);
        let inputs = [tensor(device, &gate, dtype), tensor(device, &up, dtype)];
        check("far out", &Op::SwiGlu, &[&inputs[0], &inputs[1]], &[Expected::new(dtype, reference::swiglu(&gate, &up))]);
    }
}

fn swiglu_backward_is_its_formula(device: &Device) {
    each(96, shapes_and_seed(0, 6, 800), |(shape, seed)| {
        for dtype in device.floats() {
            let mut draw = Draw::new(seed);
            let [(dy, td), (gate, tg), (up, tu)] = [(); 3].map(|()| draw.input(device, &shape, dtype));
            let expected = reference::swiglu_backward(&dy, &gate, &up).map(|sums| Expected::sums(dtype, &sums, 2));
            check(&format!("{shape:?}"), &Op::SwiGluBackward, &[&td, &tg, &tu], &expected);
        }
    });
}

/// The three layers of a block.
fn layers(
    device: &Device,
    [hidden, intermediate]: [usize; 2],
    dtypes: [DType; 3],
    parts: [(bool, bool); 3],
    seed: u64,
) -> [Drawn; 3] {
    [
        Drawn::new(device, [intermediate, hidden], dtypes[0], parts[0], seed),
        Drawn::new(device, [intermediate, hidden], dtypes[1], parts[1], seed + 10),
        Drawn::new(device, [hidden, intermediate], dtypes[2], parts[2], seed + 20),
    ]
}

fn compare(what: &str, t: &Tensor, x: &Array, drawn: &[Drawn; 3], activations: Activations) {
    let dtype = t.dtype();
    let op = Op::GatedMlp(GatedMlp { parts: drawn.each_ref().map(Drawn::parts), activations });
    let int8 = drawn.each_ref().map(|d| d.reads_int8(activations));
    let result = reference::gated_mlp(x, &drawn.each_ref().map(|d| d.layer.clone()), dtype, int8);
    let inputs: Vec<&Tensor> = std::iter::once(t).chain(drawn.iter().flat_map(Drawn::inputs)).collect();
    // Three values on the way are rounded: gate(x), up(x), their product.
    let y = Expected::sums(dtype, &result.y, drawn[0].terms() + drawn[2].terms()).roundings(3).slack(result.slack);
    let expected =
        [y, Expected::sums(dtype, &result.gate, drawn[0].terms()), Expected::sums(dtype, &result.up, drawn[1].terms())];
    check(what, &op, &inputs, &expected);
}

const NONE: [(bool, bool); 3] = [(false, false); 3];
const SOME: [(bool, bool); 3] = [(true, false), (false, true), (true, true)];

fn gated_mlp_of_every_weight(device: &Device) {
    for (dtype, parts) in weight_dtypes(device).flat_map(|d| [NONE, SOME].map(|p| (d, p))) {
        let k = inner_length(dtype, 1);
        let drawn = layers(device, [k, k], [dtype; 3], parts, 121);
        for (x_dtype, activations) in device.floats().flat_map(|d| ACTIVATIONS.map(|a| (d, a))) {
            let (x, t) = Draw::new(122).input(device, &[2, k], x_dtype);
            compare(&format!("{x_dtype} by {dtype}, {parts:?}, {activations:?}"), &t, &x, &drawn, activations);
        }
    }
    for (dtype, drops) in weight_dtypes(device).flat_map(|d| [false, true].map(|drops| (d, drops))) {
        let k = inner_length(dtype, 1);
        let [mut gate, up, mut down] = layers(device, [k, k], [dtype; 3], [(false, true), (true, false), (true, true)], 129);
        if drops {
            (gate, down) = (gate.with_dropout(device, 0.1, [3, 1]), down.with_dropout(device, 0.5, [4, 1]));
        }
        let drawn = [gate, up.with_factor(device, 130), down.with_factor(device, 131)];
        for (x_dtype, activations) in device.floats().flat_map(|d| ACTIVATIONS.map(|a| (d, a))) {
            let (x, t) = Draw::new(132).input(device, &[2, k], x_dtype);
            compare(&format!("{x_dtype} by {dtype}, factors, dropping {drops}, {activations:?}"), &t, &x, &drawn, activations);
        }
    }
    // As real checkpoints mix them: a wider type for what shrinks.
    let [q4, q6] = [BlockType::Q4K, BlockType::Q6K].map(DType::Block);
    let drawn = layers(device, [256, 256], [q4, q4, q6], NONE, 123);
    for activations in ACTIVATIONS {
        let (x, t) = Draw::new(124).input(device, &[3, 256], DType::F32);
        compare(&format!("mixed, {activations:?}"), &t, &x, &drawn, activations);
    }
}

fn gated_mlp_of_any_shape(device: &Device) {
    each(
        16,
        (shapes_and_seed(1, 4, 300), proptest::sample::select(&crate::draw::LENGTHS[..])),
        |((shape, seed), intermediate)| {
            for dtype in device.floats() {
                let drawn = layers(
                    device,
                    [shape[shape.len() - 1], intermediate],
                    [dtype; 3],
                    if seed % 2 == 0 { NONE } else { SOME },
                    seed % 1000,
                );
                let (x, t) = Draw::new(seed).input(device, &shape, dtype);
                compare(&format!("{shape:?}, {intermediate}"), &t, &x, &drawn, Activations::Exact);
            }
        },
    );
}

fn gated_mlp_of_packed_weights_has_the_same_bits(device: &Device) {
    for (dtype, parts) in weight_dtypes(device).flat_map(|d| [NONE, SOME].map(|p| (d, p))) {
        let k = inner_length(dtype, 1);
        let drawn = layers(device, [k, k], [dtype; 3], parts, 125);
        let packed = drawn.each_ref().map(Drawn::packed);
        for (x_dtype, activations) in device.floats().flat_map(|d| ACTIVATIONS.map(|a| (d, a))) {
            let x = tensor(device, &Draw::new(126).floats(&[3, k], x_dtype), x_dtype);
            let run = |drawn: &[Drawn; 3]| x.gated_mlp(drawn.each_ref().map(Drawn::projection), activations).expect("gated_mlp");
            let what = format!("gated_mlp of {x_dtype} by packed {dtype}, {activations:?}");
            same_bits(&what, &run(&packed), &run(&drawn));
            let [gate, up, down] = drawn.each_ref().map(Drawn::projection);
            let parts =
                x.linear(gate, activations).and_then(|g| g.swiglu(&x.linear(up, activations)?)?.linear(down, activations));
            same_bits(&format!("{what}: its parts one by one"), &run(&drawn), &parts.expect("its parts"));
        }
    }
}

fn gated_mlp_rows_do_not_depend_on_neighbours(device: &Device) {
    for (dtype, activations) in weight_dtypes(device).flat_map(|d| ACTIVATIONS.map(|a| (d, a))) {
        let k = inner_length(dtype, 2);
        let drawn = layers(device, [k, k], [dtype; 3], NONE, 127).each_ref().map(Drawn::packed);
        let x = tensor(device, &Draw::new(128).floats(&[44, k], DType::F32), DType::F32);
        let run = |x: &Tensor| x.gated_mlp(drawn.each_ref().map(Drawn::projection), activations).expect("gated_mlp");
        let all = run(&x);
        for (start, rows) in NEIGHBOURS {
            let some = run(&x.slice(0, start, rows).expect("slice"));
            same_bits(
                &format!("gated_mlp by {dtype}, {activations:?}: {rows} rows of 44"),
                &some,
                &all.slice(0, start, rows).expect("slice"),
            );
        }
    }
}
