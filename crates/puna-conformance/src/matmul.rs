//! Products: dense, batched, with a layer's weight of any dtype, packed or not; and that rows don't depend on their neighbours.

use proptest::sample::select;
use puna_tensor::op::{Activations, Dropout, Linear, LinearInputGrad, Linears, LowRank, LowRankParts, Parts, Projection};
use puna_tensor::{BlockType, DType, Device, Op, Tensor};

use crate::blocks::{inner_length, weight, weight_dtypes};
use crate::case::{Case, cases};
use crate::check::{Expected, check, same_bits};
use crate::draw::{Draw, LENGTHS, each, indices_tensor, shape_of, shapes_and_seed, tensor};
use crate::reference::{Adapter, Layer, Sums};
use crate::{Array, reference};

pub(crate) const CASES: &[Case] = cases! {
    "matmul" => matmul_is_its_formula, matmul_broadcasts_its_batches, matmul_propagates_nan_and_infinity, matmul_of_many_tiles, matmul_rows_do_not_depend_on_neighbours,
        halves_in_whole_pieces, halves_in_whole_pieces_do_not_depend_on_neighbours;
    "int8_blocks" => int8_blocks_is_its_definition_to_the_bit;
    "linear" => linear_of_every_weight, linear_of_any_shape, linear_of_packed_weights_has_the_same_bits, linear_rows_do_not_depend_on_neighbours, linear_reads_strided_inputs,
        linear_reads_weights_cut_out_of_larger_ones, linear_of_the_largest_quants, linear_of_many_blocks, linear_with_factor_and_dropout,
        dropout_keeps_what_its_probability_says;
    "linears" => linears_are_linears;
    "linear_input_grad" => linear_input_grad_of_every_weight, linear_input_grad_of_packed_weights_has_the_same_bits;
};

fn matmul_is_its_formula(device: &Device) {
    each(96, ([(); 3].map(|()| select(&LENGTHS[..])), proptest::prelude::any::<u64>()), |([m, k, n], seed)| {
        for dtype in device.floats() {
            let mut draw = Draw::new(seed);
            let ((a, ta), (b, tb)) = (draw.input(device, &[m, k], dtype), draw.input(device, &[k, n], dtype));
            check(
                &format!("{m} {k} {n}"),
                &Op::MatMul,
                &[&ta, &tb],
                &[Expected::sums(dtype, &reference::matmul(&a, &b), k.max(1))],
            );
        }
    });
}

fn matmul_broadcasts_its_batches(device: &Device) {
    let batches: [[&[usize]; 2]; 6] =
        [[&[3], &[]], [&[], &[2, 2]], [&[3, 1], &[2]], [&[2, 1, 3, 1], &[1, 2, 1, 2]], [&[0], &[1]], [&[1], &[4]]];
    for ([left, right], dtype) in batches.into_iter().flat_map(|b| device.floats().map(move |dtype| (b, dtype))) {
        let mut draw = Draw::new(60);
        let (a, ta) = draw.input(device, &[left, &[5, 17]].concat(), dtype);
        let (b, tb) = draw.input(device, &[right, &[17, 3]].concat(), dtype);
        check(&format!("{left:?} {right:?}"), &Op::MatMul, &[&ta, &tb], &[Expected::sums(dtype, &reference::matmul(&a, &b), 17)]);
    }
}

fn matmul_propagates_nan_and_infinity(device: &Device) {
    for dtype in device.floats() {
        let mut draw = Draw::new(61);
        let (mut a, b) = (draw.floats(&[5, 33], dtype), draw.floats(&[33, 7], dtype));
        (a.values[0], a.values[33 + 32], a.values[2 * 33 + 5]) = (f64::NAN, f64::INFINITY, f64::NEG_INFINITY);
        let (ta, tb) = (draw.place(device, &a, dtype), draw.place(device, &b, dtype));
        check("not finite", &Op::MatMul, &[&ta, &tb], &[Expected::sums(dtype, &reference::matmul(&a, &b), 33)]);
    }
}

fn matmul_of_many_tiles(device: &Device) {
    for (dtype, [m, k, n]) in device.floats().flat_map(|dtype| [[131, 67, 97], [1, 1031, 33], [33, 1031, 1]].map(|s| (dtype, s)))
    {
        let mut draw = Draw::new(62);
        let ((a, ta), (b, tb)) = (draw.input(device, &[m, k], dtype), draw.input(device, &[k, n], dtype));
        check(&format!("{m} {k} {n}"), &Op::MatMul, &[&ta, &tb], &[Expected::sums(dtype, &reference::matmul(&a, &b), k)]);
    }
}

/// The values of a product's operand, laid down turned: its columns are lines of memory.
fn turned(device: &Device, values: &Array, dtype: DType) -> Tensor {
    let rank = values.shape.len();
    let order: Vec<usize> = (0..rank - 2).chain([rank - 1, rank - 2]).collect();
    tensor(device, &values.permute(&order), dtype).transpose(rank - 2, rank - 1).expect("transpose")
}

/// Halves whose lines are whole pieces of 16 bytes, which matrix units take: every layout, edges of tiles, batches, what follows a sum.
fn halves_in_whole_pieces(device: &Device) {
    let sizes = [[1, 8, 8], [3, 72, 40], [16, 64, 64], [17, 136, 96], [65, 56, 200], [130, 136, 72], [8, 8, 0]];
    for (dtype, [m, n, k]) in [DType::F16, DType::BF16].into_iter().flat_map(|dtype| sizes.map(|size| (dtype, size))) {
        let mut draw = Draw::new(101);
        let (a, b) = (draw.floats(&[m, k], dtype), draw.floats(&[k, n], dtype));
        let expected = [Expected::sums(dtype, &reference::matmul(&a, &b), k.max(1))];
        for (ta, how_a) in [(tensor(device, &a, dtype), ""), (turned(device, &a, dtype), ", left turned")] {
            for (tb, how_b) in [(tensor(device, &b, dtype), ""), (turned(device, &b, dtype), ", right turned")] {
                check(&format!("{m} {k} {n}{how_a}{how_b}"), &Op::MatMul, &[&ta, &tb], &expected);
            }
        }
        for parts in PARTS {
            let drawn = Drawn::new(device, [n, k], dtype, parts, 102);
            let (x, t) = (a.clone(), tensor(device, &a, dtype));
            let op = Op::Linear(Linear { parts: drawn.parts(), activations: Activations::Exact });
            let inputs = [vec![&t], drawn.inputs()].concat();
            check(&format!("{m} {k} {n}, {parts:?}"), &op, &inputs, &[drawn.expected(&x, dtype, Activations::Exact)]);
        }
        // A wide input beside a half weight, as a language model's head has it.
        let drawn = Drawn::new(device, [n, k], dtype, (true, false), 106);
        let x = draw.floats(&[m, k], DType::F32);
        let op = Op::Linear(Linear { parts: drawn.parts(), activations: Activations::Exact });
        let t = tensor(device, &x, DType::F32);
        let inputs = [vec![&t], drawn.inputs()].concat();
        check(&format!("{m} {k} {n}, f32 by {dtype}"), &op, &inputs, &[drawn.expected(&x, DType::F32, Activations::Exact)]);
        let (w, tw) = weight(device, [n, k], dtype, 103);
        let dy = draw.floats(&[m, n], dtype);
        let sums = reference::linear_input_grad(&dy, &w);
        let op = Op::LinearInputGrad(LinearInputGrad);
        check(&format!("{m} {k} {n}"), &op, &[&tensor(device, &dy, dtype), &tw], &[Expected::sums(dtype, &sums, n)]);
    }
    for dtype in [DType::F16, DType::BF16] {
        let mut draw = Draw::new(104);
        let (a, b) = (draw.floats(&[2, 3, 5, 16], dtype), draw.floats(&[3, 16, 24], dtype));
        let expected = [Expected::sums(dtype, &reference::matmul(&a, &b), 16)];
        for tb in [tensor(device, &b, dtype), turned(device, &b, dtype)] {
            check("batches of whole pieces", &Op::MatMul, &[&tensor(device, &a, dtype), &tb], &expected);
        }
    }
}

fn halves_in_whole_pieces_do_not_depend_on_neighbours(device: &Device) {
    for dtype in [DType::F16, DType::BF16] {
        let mut draw = Draw::new(105);
        let x = tensor(device, &draw.floats(&[150, 264], dtype), dtype);
        let w = tensor(device, &draw.floats(&[72, 264], dtype), dtype);
        let all = x.linear(&w, Activations::Exact).expect("linear");
        for (start, rows) in NEIGHBOURS.into_iter().chain([(20, 17), (3, 100)]) {
            let some = x.slice(0, start, rows).and_then(|x| x.linear(&w, Activations::Exact)).expect("linear");
            same_bits(&format!("{dtype}: {rows} rows of 150"), &some, &all.slice(0, start, rows).expect("slice"));
        }
    }
}

/// How many rows are computed together, and where among 44 they begin.
pub(crate) const NEIGHBOURS: [(usize, usize); 5] = [(0, 1), (43, 1), (4, 2), (13, 7), (0, 44)];

fn matmul_rows_do_not_depend_on_neighbours(device: &Device) {
    for dtype in device.floats() {
        let mut draw = Draw::new(63);
        // More of them than a tile of any size has.
        let x = tensor(device, &draw.floats(&[131, 259], dtype), dtype);
        let w = tensor(device, &draw.floats(&[259, 67], dtype), dtype);
        let all = x.matmul(&w).expect("matmul");
        for (start, rows) in NEIGHBOURS {
            let some = x.slice(0, start, rows).and_then(|x| x.matmul(&w)).expect("matmul");
            same_bits(&format!("{dtype}: {rows} rows of 131"), &some, &all.slice(0, start, rows).expect("slice"));
        }
    }
}

fn int8_blocks_is_its_definition_to_the_bit(device: &Device) {
    let expected = |x: &Array| Expected::new(DType::F32, reference::int8_blocks(x)).rounded_once();
    each(96, shapes_and_seed(1, 6, 800), |(shape, seed)| {
        let (x, t) = Draw::new(seed).input(device, &shape, DType::F32);
        check(&format!("{shape:?}"), &Op::Int8Blocks, &[&t], &[expected(&x)]);
    });
    let mut draw = Draw::new(64);
    let mut x = draw.floats(&[7, 97], DType::F32);
    // A block of zeros, of subnormal numbers, of huge ones, with NaN, with infinity; ties.
    (0..32).for_each(|i| {
        x.values[i] = 0.0;
        x.values[32 + i] = f64::from(f32::from_bits(i as u32));
        x.values[97 + i] = f64::from(f32::MAX / (i + 1) as f32);
        x.values[97 + 32 + i] = if i == 5 { 127.0 } else { i as f64 + 0.5 };
    });
    (x.values[2 * 97], x.values[3 * 97 + 96]) = (f64::NAN, f64::INFINITY);
    check("extremes", &Op::Int8Blocks, &[&tensor(device, &x, DType::F32)], &[expected(&x)]);
}

/// A layer as tensors and as arrays.
#[derive(Clone)]
pub(crate) struct Drawn {
    pub(crate) layer: Layer,
    pub(crate) weight: Tensor,
    pub(crate) bias: Option<Tensor>,
    pub(crate) adapter: Option<(Tensor, Tensor)>,
    /// Of the adapter's dropout.
    pub(crate) seed: Option<Tensor>,
    pub(crate) factor: Option<Tensor>,
}

impl Drawn {
    pub(crate) fn new(device: &Device, [n, k]: [usize; 2], dtype: DType, parts: (bool, bool), seed: u64) -> Self {
        let (values, weight) = weight(device, [n, k], dtype, seed);
        let mut draw = Draw::new(seed + 1);
        // Half-trained layers keep their parts in other dtypes than the weight's.
        let other = draw.float(device);
        let bias = parts.0.then(|| draw.input(device, &[n], other));
        let adapter = parts.1.then(|| (draw.input(device, &[3, k], other), draw.input(device, &[n, 3], other)));
        let arrays =
            |(a, b): &((Array, Tensor), (Array, Tensor))| Adapter { a: a.0.clone(), b: b.0.clone(), scale: 0.75, dropout: None };
        let layer = Layer {
            weight: values,
            bias: bias.as_ref().map(|b| b.0.clone()),
            adapter: adapter.as_ref().map(arrays),
            factor: None,
        };
        let adapter = adapter.map(|(a, b)| (a.1, b.1));
        Self { layer, weight, bias: bias.map(|b| b.1), adapter, seed: None, factor: None }
    }

    /// The same, its product multiplied row by row.
    pub(crate) fn with_factor(mut self, device: &Device, seed: u64) -> Self {
        let mut draw = Draw::new(seed);
        let dtype = draw.float(device);
        let (values, factor) = draw.input(device, &[self.weight.dim(0)], dtype);
        (self.layer.factor, self.factor) = (Some(values), Some(factor));
        self
    }

    /// The same, its adapter reading what is left of the input.
    pub(crate) fn with_dropout(mut self, device: &Device, p: f64, seed: [u32; 2]) -> Self {
        self.layer.adapter.as_mut().expect("an adapter").dropout = Some((p, seed));
        self.seed = Some(indices_tensor(device, &seed, &[2]));
        self
    }

    fn scale_and_dropout(&self) -> Option<(f64, Option<f64>)> {
        self.layer.adapter.as_ref().map(|adapter| (adapter.scale, adapter.dropout.map(|(p, _)| p)))
    }

    pub(crate) fn projection(&self) -> Projection<'_> {
        let adapter = self.adapter.as_ref().zip(self.scale_and_dropout()).map(|((a, b), (scale, p))| {
            let dropout = p.zip(self.seed.as_ref()).map(|(p, seed)| Dropout { p, seed });
            LowRank { a, b, scale, dropout }
        });
        Projection { weight: &self.weight, bias: self.bias.as_ref(), adapter, factor: self.factor.as_ref() }
    }

    pub(crate) fn parts(&self) -> Parts {
        let adapter = self.scale_and_dropout().map(|(scale, dropout)| LowRankParts { scale, dropout });
        Parts { bias: self.bias.is_some(), adapter, factor: self.factor.is_some() }
    }

    pub(crate) fn inputs(&self) -> Vec<&Tensor> {
        let adapter = self.adapter.iter().flat_map(|(a, b)| [a, b]);
        std::iter::once(&self.weight).chain(&self.bias).chain(adapter).chain(&self.seed).chain(&self.factor).collect()
    }

    /// The same with the weight in the device's own order.
    pub(crate) fn packed(&self) -> Self {
        Self { weight: self.weight.pack().expect("pack"), ..self.clone() }
    }

    pub(crate) fn reads_int8(&self, activations: Activations) -> bool {
        activations == Activations::Int8 && self.weight.dtype().block().is_some()
    }

    /// How many terms an element of the product sums.
    pub(crate) fn terms(&self) -> usize {
        let k = self.layer.weight.shape[1];
        k + 1 + if self.adapter.is_some() { k + 3 } else { 0 }
    }

    pub(crate) fn expected(&self, x: &Array, dtype: DType, activations: Activations) -> Expected {
        let read = if self.reads_int8(activations) { reference::int8_blocks(x) } else { x.clone() };
        Expected::sums(dtype, &reference::linear(x, &read, &self.layer), self.terms())
    }
}

pub(crate) const ACTIVATIONS: [Activations; 2] = [Activations::Exact, Activations::Int8];
const PARTS: [(bool, bool); 4] = [(false, false), (true, false), (false, true), (true, true)];

fn linear_of_every_weight(device: &Device) {
    for dtype in weight_dtypes(device) {
        for (i, parts) in PARTS.into_iter().enumerate() {
            let k = inner_length(dtype, 1 + i % 2);
            let drawn = Drawn::new(device, [19, k], dtype, parts, 65 + i as u64);
            for (x_dtype, activations) in device.floats().flat_map(|d| ACTIVATIONS.map(|a| (d, a))) {
                let (x, t) = Draw::new(66).input(device, &[3, k], x_dtype);
                let op = Op::Linear(Linear { parts: drawn.parts(), activations });
                let inputs = [vec![&t], drawn.inputs()].concat();
                let what = format!("{x_dtype} by {dtype}, {parts:?}, {activations:?}");
                check(&what, &op, &inputs, &[drawn.expected(&x, x_dtype, activations)]);
            }
        }
    }
}

fn linear_of_any_shape(device: &Device) {
    each(96, (shapes_and_seed(1, 4, 500), select(&LENGTHS[..])), |((shape, seed), n)| {
        for dtype in device.floats() {
            let drawn = Drawn::new(device, [n, shape[shape.len() - 1]], dtype, (seed % 2 == 0, seed % 3 == 0), seed);
            let (x, t) = Draw::new(seed + 7).input(device, &shape, dtype);
            let op = Op::Linear(Linear { parts: drawn.parts(), activations: Activations::Exact });
            let inputs = [vec![&t], drawn.inputs()].concat();
            check(&format!("{shape:?} to {n}"), &op, &inputs, &[drawn.expected(&x, dtype, Activations::Exact)]);
        }
    });
}

fn linear_of_packed_weights_has_the_same_bits(device: &Device) {
    for dtype in weight_dtypes(device) {
        for (n, parts) in [(1, (false, false)), (7, (true, false)), (8, (false, false)), (33, (true, true)), (67, (false, true))]
        {
            let k = inner_length(dtype, 2);
            let drawn = Drawn::new(device, [n, k], dtype, parts, 67);
            let packed = drawn.packed();
            for (x_dtype, activations) in device.floats().flat_map(|d| ACTIVATIONS.map(|a| (d, a))) {
                for rows in [1, 5, 17] {
                    let x = tensor(device, &Draw::new(68).floats(&[rows, k], x_dtype), x_dtype);
                    let run = |drawn: &Drawn| x.linear(drawn.projection(), activations).expect("linear");
                    same_bits(
                        &format!("linear {rows} of {x_dtype} by packed {dtype}, {n}, {activations:?}"),
                        &run(&packed),
                        &run(&drawn),
                    );
                }
            }
        }
    }
}

fn linear_with_factor_and_dropout(device: &Device) {
    for dtype in weight_dtypes(device) {
        for (i, (bias, adapter, p)) in
            [(false, false, None), (true, false, None), (true, true, None), (false, true, Some(0.5)), (true, true, Some(0.1))]
                .into_iter()
                .enumerate()
        {
            let k = inner_length(dtype, 1 + i % 2);
            let mut drawn = Drawn::new(device, [19, k], dtype, (bias, adapter), 90 + i as u64);
            if let Some(p) = p {
                drawn = drawn.with_dropout(device, p, [7 + i as u32, u32::MAX]);
            }
            for drawn in [drawn.clone(), drawn.clone().with_factor(device, 95), drawn.with_factor(device, 96).packed()] {
                for (x_dtype, activations) in device.floats().flat_map(|d| ACTIVATIONS.map(|a| (d, a))) {
                    // Rows are counted over all axes but the last.
                    let (x, t) = Draw::new(97).input(device, &[2, 3, k], x_dtype);
                    let op = Op::Linear(Linear { parts: drawn.parts(), activations });
                    let inputs = [vec![&t], drawn.inputs()].concat();
                    let what = format!("{x_dtype} by {dtype}, {:?}, {activations:?}", drawn.parts());
                    check(&what, &op, &inputs, &[drawn.expected(&x, x_dtype, activations)]);
                }
            }
        }
    }
}

/// A mask is the seed's own, keeps the share that it should, and leaves the mean.
fn dropout_keeps_what_its_probability_says(device: &Device) {
    let (rows, k, p) = (64, 512, 0.3);
    let zero = Tensor::zeros([k, k], DType::F32, device).expect("zeros");
    let eye = tensor(device, &Array::from_fn(&[k, k], |i| f64::from(u8::from(i[0] == i[1]))), DType::F32);
    let x = Tensor::full(1.0, [rows, k], DType::F32, device).expect("ones");
    let run = |seed: [u32; 2], p: f64| {
        let seed = indices_tensor(device, &seed, &[2]);
        let adapter = Some(LowRank { a: &eye, b: &eye, scale: 1.0, dropout: Some(Dropout { p, seed: &seed }) });
        let projection = Projection { adapter, ..(&zero).into() };
        x.linear(projection, Activations::Exact).and_then(|y| y.to_vec::<f32>()).expect("linear")
    };
    let [y, again, other] = [[1, 2], [1, 2], [2, 1]].map(|seed| run(seed, p));
    assert_eq!(y, again, "the mask is a function of the seed");
    let differ = y.iter().zip(&other).filter(|(a, b)| a != b).count() as f64 / y.len() as f64;
    assert!((differ - 2.0 * p * (1.0 - p)).abs() < 0.02, "masks of two seeds are independent: {differ} differ");
    let dropped = y.iter().filter(|&&y| y == 0.0).count() as f64 / y.len() as f64;
    // Three standard deviations of a share among 32768.
    assert!((dropped - p).abs() < 3.0 * (p * (1.0 - p) / y.len() as f64).sqrt(), "{dropped} dropped of {p}");
    assert!(y.iter().all(|&y| y == 0.0 || (f64::from(y) - 1.0 / (1.0 - p)).abs() < 1e-6), "what stays is divided by 1 - p");
    assert!(run([3, 4], 0.0).iter().all(|&y| y == 1.0), "p = 0 drops nothing");
}

fn linear_rows_do_not_depend_on_neighbours(device: &Device) {
    for dtype in weight_dtypes(device) {
        let k = inner_length(dtype, 2);
        let drawn = Drawn::new(device, [67, k], dtype, (true, true), 69);
        let packed = drawn.packed();
        for (x_dtype, activations) in [DType::F32, DType::BF16].into_iter().flat_map(|d| ACTIVATIONS.map(|a| (d, a))) {
            let x = tensor(device, &Draw::new(70).floats(&[44, k], x_dtype), x_dtype);
            for drawn in [&drawn, &packed] {
                let all = x.linear(drawn.projection(), activations).expect("linear");
                for (start, rows) in NEIGHBOURS {
                    let some = x.slice(0, start, rows).and_then(|x| x.linear(drawn.projection(), activations)).expect("linear");
                    let what = format!(
                        "linear of {x_dtype} by {dtype}, {activations:?}, packed {}: {rows} rows of 44",
                        drawn.weight.is_packed()
                    );
                    same_bits(&what, &some, &all.slice(0, start, rows).expect("slice"));
                }
            }
        }
    }
}

fn linear_reads_strided_inputs(device: &Device) {
    for (dtype, activations) in weight_dtypes(device).flat_map(|d| ACTIVATIONS.map(|a| (d, a))) {
        let k = inner_length(dtype, 1);
        let drawn = Drawn::new(device, [9, k], dtype, (true, true), 71);
        for seed in 72..76 {
            let mut draw = Draw::new(seed);
            let x = draw.floats(&[2, 5, k], DType::F32);
            let strided = draw.place(device, &x, DType::F32);
            let plain = tensor(device, &x, DType::F32);
            let run = |x: &Tensor| x.linear(drawn.projection(), activations).expect("linear");
            same_bits(&format!("linear by {dtype} of strides {:?}", strided.layout().strides()), &run(&strided), &run(&plain));
        }
    }
}

/// A layer that holds a weight alone.
fn bare(weight: Array) -> Layer {
    Layer { weight, bias: None, adapter: None, factor: None }
}

fn linear_reads_weights_cut_out_of_larger_ones(device: &Device) {
    for (dtype, activations) in weight_dtypes(device).flat_map(|d| ACTIVATIONS.map(|a| (d, a))) {
        let unit = dtype.unit();
        let (values, whole) = match dtype {
            DType::Block(_) => weight(device, [23, 4 * unit], dtype, 85),
            _ => {
                let values = Draw::new(85).floats(&[23, 40], dtype);
                let whole = tensor(device, &values, dtype);
                (values, whole)
            }
        };
        let (from, k) = if unit > 1 { (unit, 2 * unit) } else { (5, 33) };
        let cut = whole.slice(0, 3, 17).and_then(|w| w.slice(1, from, k)).expect("a cut at the edges");
        let layer = bare(Array::from_fn(&[17, k], |i| values.at(&[i[0] + 3, i[1] + from])));
        let (x, t) = Draw::new(86).input(device, &[3, k], DType::F32);
        let read = if unit > 1 && activations == Activations::Int8 { reference::int8_blocks(&x) } else { x.clone() };
        let expected = Expected::sums(DType::F32, &reference::linear(&x, &read, &layer), k + 1);
        let op = Op::Linear(Linear { parts: Parts::default(), activations });
        let what = format!("by a part of {dtype}, {activations:?}");
        check(&what, &op, &[&t, &cut], &[expected]);
        let packed = cut.pack().expect("pack");
        let run = |w: &Tensor| t.linear(w, activations).expect("linear");
        same_bits(&format!("linear {what}, packed"), &run(&packed), &run(&cut));
        let index = crate::draw::indices_tensor(device, &[16, 0, 17], &[3]);
        let rows = |w: &Tensor| w.embedding(&index, DType::F32).expect("rows");
        same_bits(&format!("rows of a part of {dtype}, packed"), &rows(&packed), &rows(&cut));
        let dy = t.slice(1, 0, 17).expect("slice");
        let grad = |w: &Tensor| dy.linear_input_grad(w).expect("gradient");
        same_bits(&format!("gradient {what}, packed"), &grad(&packed), &grad(&cut));
    }
}

/// Where all quants are at the ends of their range, sums of products are the largest there are: what narrow integers would lose.
fn linear_of_the_largest_quants(device: &Device) {
    for block in BlockType::ALL {
        let (dtype, k) = (DType::Block(block), 2 * block.values());
        for byte in [0x00u8, 0xff, 0x7f, 0x80, 0xf0] {
            let (mut bytes, _) = crate::blocks::random_blocks(block, &[9, k], 87);
            let scales = crate::blocks::scales(block);
            for one in bytes.chunks_exact_mut(block.bytes()) {
                let kept = one.to_vec();
                one.fill(byte);
                scales.iter().for_each(|&at| one[at..at + 2].copy_from_slice(&kept[at..at + 2]));
            }
            let values = crate::blocks::decoded(block, &bytes, &[9, k]);
            let w = Tensor::from_bytes(&bytes, dtype, [9, k], device).expect("blocks");
            for signs in 0..3 {
                let x = Array::from_fn(&[2, k], |i| if signs == 0 || (signs == 1 && i[1] % 2 == 0) { 3.0 } else { -3.0 });
                let t = tensor(device, &x, DType::F32);
                for w in [w.clone(), w.pack().expect("pack")] {
                    let layer = bare(values.clone());
                    let read = reference::int8_blocks(&x);
                    let expected = Expected::sums(DType::F32, &reference::linear(&x, &read, &layer), k + 1).equal_terms();
                    let op = Op::Linear(Linear { parts: Parts::default(), activations: Activations::Int8 });
                    check(&format!("by {block} of bytes {byte:#x}, packed {}", w.is_packed()), &op, &[&t, &w], &[expected]);
                }
            }
        }
    }
}

fn linear_of_many_blocks(device: &Device) {
    for (dtype, activations) in weight_dtypes(device).flat_map(|d| ACTIVATIONS.map(|a| (d, a))) {
        let k = if dtype.block().is_some() { 2048 } else { 2051 };
        let drawn = Drawn::new(device, [11, k], dtype, (false, false), 88).packed();
        let (x, t) = Draw::new(89).input(device, &[5, k], DType::F32);
        let op = Op::Linear(Linear { parts: drawn.parts(), activations });
        check(
            &format!("{k} by {dtype}, {activations:?}"),
            &op,
            &[&t, &drawn.weight],
            &[drawn.expected(&x, DType::F32, activations)],
        );
    }
}

fn linears_are_linears(device: &Device) {
    for (dtype, activations) in weight_dtypes(device).flat_map(|d| ACTIVATIONS.map(|a| (d, a))) {
        let k = inner_length(dtype, 1);
        let other = if dtype.block().is_some() { dtype } else { DType::BF16 };
        let drawn = [
            Drawn::new(device, [19, k], dtype, (true, false), 77),
            Drawn::new(device, [7, k], other, (false, true), 78),
            Drawn::new(device, [8, k], dtype, (false, false), 79).with_factor(device, 98),
        ];
        for x_dtype in device.floats() {
            let (x, t) = Draw::new(80).input(device, &[2, 3, k], x_dtype);
            let op = Op::Linears(Linears { parts: drawn.iter().map(Drawn::parts).collect(), activations });
            let inputs = std::iter::once(&t).chain(drawn.iter().flat_map(Drawn::inputs)).collect::<Vec<_>>();
            let expected: Vec<_> = drawn.iter().map(|d| d.expected(&x, x_dtype, activations)).collect();
            check(&format!("{x_dtype} by {dtype}, {activations:?}"), &op, &inputs, &expected);
            let packed = drawn.each_ref().map(Drawn::packed);
            let together = t.linears(packed.each_ref().map(Drawn::projection), activations).expect("linears");
            for (i, (y, drawn)) in together.iter().zip(&drawn).enumerate() {
                let alone = t.linear(drawn.projection(), activations).expect("linear");
                same_bits(&format!("linears of {x_dtype} by {dtype}, {activations:?}: {i} alone"), y, &alone);
            }
            let [first, second, third] = drawn.clone();
            let drops = [first, second.with_dropout(device, 0.2, [5, 6]), third];
            let op = Op::Linears(Linears { parts: drops.iter().map(Drawn::parts).collect(), activations });
            let inputs = std::iter::once(&t).chain(drops.iter().flat_map(Drawn::inputs)).collect::<Vec<_>>();
            let expected: Vec<_> = drops.iter().map(|d| d.expected(&x, x_dtype, activations)).collect();
            check(&format!("{x_dtype} by {dtype}, {activations:?}, dropping"), &op, &inputs, &expected);
        }
    }
}

fn linear_input_grad_of_every_weight(device: &Device) {
    for dtype in weight_dtypes(device) {
        let k = inner_length(dtype, 1);
        let (w, tw) = weight(device, [21, k], dtype, 81);
        for dy_dtype in device.floats() {
            for shape in [vec![21], vec![1, 21], vec![2, 3, 21], vec![0, 21], vec![17, 21]] {
                let (dy, t) = Draw::new(82).input(device, &shape, dy_dtype);
                let sums: Sums = reference::linear_input_grad(&dy, &w);
                let op = Op::LinearInputGrad(LinearInputGrad);
                check(&format!("{dy_dtype} {shape:?} by {dtype}"), &op, &[&t, &tw], &[Expected::sums(dy_dtype, &sums, 21)]);
            }
        }
    }
    // A weight of no rows: nothing to sum.
    let zero = Tensor::zeros(shape_of(&[0, 5]), DType::F32, device).expect("zeros");
    let dx = Tensor::zeros(shape_of(&[3, 0]), DType::F32, device).and_then(|dy| dy.linear_input_grad(&zero)).expect("gradient");
    assert_eq!(dx.to_vec::<f32>().expect("readable"), [0.0; 15]);
}

fn linear_input_grad_of_packed_weights_has_the_same_bits(device: &Device) {
    for dtype in weight_dtypes(device) {
        let (_, w) = weight(device, [21, inner_length(dtype, 2)], dtype, 83);
        let packed = w.pack().expect("pack");
        for dy_dtype in device.floats() {
            let dy = tensor(device, &Draw::new(84).floats(&[5, 21], dy_dtype), dy_dtype);
            let run = |w: &Tensor| dy.linear_input_grad(w).expect("gradient");
            same_bits(&format!("linear_input_grad of {dy_dtype} by packed {dtype}"), &run(&packed), &run(&w));
        }
    }
}
