//! Cross entropy, with and without the product before it, and their derivatives.

use puna_tensor::op::{CrossEntropyBackward, LinearCrossEntropy, LinearCrossEntropyBackward};
use puna_tensor::{DType, Device, Op, Tensor};

use crate::blocks::{inner_length, weight, weight_dtypes};
use crate::case::{Case, cases};
use crate::check::{Expected, check, same_bits};
use crate::draw::{Draw, each, shapes_and_seed, tensor};
use crate::reference::{Layer, Sums, round};
use crate::{Array, reference};

pub(crate) const CASES: &[Case] = cases! {
    "cross_entropy" => cross_entropy_is_its_formula, cross_entropy_of_extreme_logits;
    "cross_entropy_backward" => cross_entropy_backward_is_its_formula;
    "linear_cross_entropy" => linear_cross_entropy_of_every_weight, linear_cross_entropy_of_many_rows, linear_cross_entropy_of_packed_weights;
    "linear_cross_entropy_backward" => linear_cross_entropy_backward_of_every_weight, linear_cross_entropy_backward_of_tiles;
};

/// Labels of rows: some do not count.
fn labels(draw: &mut Draw, shape: &[usize], vocab: usize) -> Array<u32> {
    draw.indices(shape, vocab)
}

fn expected(result: &(Sums, u32, Array), dtype: DType, vocab: usize) -> [Expected; 3] {
    let (sum, count, lse) = result;
    let terms = vocab + lse.values.len();
    let size = lse.map(|v| v.abs() + 1.0);
    [
        Expected::sums(dtype.accumulator(), sum, terms),
        Expected::indices(Array::new(&[], vec![*count])),
        Expected::new(dtype.accumulator(), lse.clone()).sum(size, vocab),
    ]
}

fn cross_entropy_is_its_formula(device: &Device) {
    each(96, shapes_and_seed(1, 5, 800), |(mut shape, seed)| {
        // A vocabulary of nothing has no loss to speak of.
        let last = shape.len() - 1;
        shape[last] = shape[last].max(1);
        for dtype in device.floats() {
            let mut draw = Draw::new(seed);
            let (x, t) = draw.input(device, &shape, dtype);
            let labels = labels(&mut draw, &shape[..last], shape[last]);
            let tl = draw.place_indices(device, &labels);
            let result = reference::cross_entropy(&x, &labels.values);
            check(&format!("{shape:?}"), &Op::CrossEntropy, &[&t, &tl], &expected(&result, dtype, shape[last]));
        }
    });
}

fn cross_entropy_of_extreme_logits(device: &Device) {
    for dtype in device.floats() {
        let mut draw = Draw::new(160);
        let mut x = draw.floats(&[4, 33], dtype);
        (0..33).for_each(|i| {
            x.values[i] = round(dtype, x.values[i] * 4096.0);
            if i % 2 == 0 {
                x.values[33 + i] = f64::NEG_INFINITY;
            }
        });
        // NaN in a row that does not count is no one's loss.
        x.values[2 * 33] = f64::NAN;
        let labels = [3, 1, u32::MAX, 33];
        let result = reference::cross_entropy(&x, &labels);
        let tl = crate::draw::indices_tensor(device, &labels, &[4]);
        check("extreme logits", &Op::CrossEntropy, &[&tensor(device, &x, dtype), &tl], &expected(&result, dtype, 33));
    }
}

fn cross_entropy_backward_is_its_formula(device: &Device) {
    each(96, shapes_and_seed(1, 5, 800), |(shape, seed)| {
        for dtype in device.floats() {
            let mut draw = Draw::new(seed);
            let wide = dtype.accumulator();
            let (rows, vocab) = (&shape[..shape.len() - 1], shape[shape.len() - 1]);
            let (x, t) = draw.input(device, &shape, dtype);
            let labels = labels(&mut draw, rows, vocab);
            let lse = reference::round_all(wide, &reference::cross_entropy(&x, &labels.values).2);
            let dsum = draw.floats(&[], wide);
            let inputs = [tensor(device, &dsum, wide), t, draw.place_indices(device, &labels), draw.place(device, &lse, wide)];
            let sums = reference::cross_entropy_backward(dsum.values[0], &x, &labels.values, &lse);
            let op = Op::CrossEntropyBackward(CrossEntropyBackward);
            check(&format!("{shape:?}"), &op, &inputs.iter().collect::<Vec<_>>(), &[Expected::sums(dtype, &sums, 4)]);
        }
    });
}

/// The logits, whose errors are relative to the sums of absolute values.
fn logits(x: &Array, w: &Array) -> Sums {
    reference::linear(x, x, &Layer { weight: w.clone(), bias: None, adapter: None, factor: None })
}

fn largest(x: &Array) -> f64 {
    x.values.iter().fold(0.0, |m, v| m.max(v.abs()))
}

fn linear_expected(x: &Array, w: &Array, labels: &[u32], dtype: DType) -> [Expected; 3] {
    let [vocab, k] = w.shape[..] else { panic!("two axes") };
    let logits = logits(x, w);
    let (sum, count, lse) = reference::cross_entropy(&logits.value, labels);
    let terms = vocab + k + labels.len();
    // A loss is off by what its logits are.
    let off = largest(&logits.magnitude);
    let sum_size = sum.magnitude.map(|v| v + 2.0 * off * f64::from(count));
    let lse_size = lse.map(|v| v.abs() + 1.0 + off);
    let wide = dtype.accumulator();
    [
        Expected::new(wide, sum.value).sum(sum_size, terms),
        Expected::indices(Array::new(&[], vec![count])),
        Expected::new(wide, lse).sum(lse_size, terms),
    ]
}

fn linear_cross_entropy_of_every_weight(device: &Device) {
    for (dtype, x_dtype) in weight_dtypes(device).flat_map(|d| device.floats().map(move |x| (d, x))) {
        for rows in [vec![], vec![7], vec![2, 3], vec![0]] {
            let k = inner_length(dtype, 1);
            let (w, tw) = weight(device, [37, k], dtype, 161);
            let mut draw = Draw::new(162);
            let (x, t) = draw.input(device, &[&rows[..], &[k]].concat(), x_dtype);
            let labels = labels(&mut draw, &rows, 37);
            let tl = draw.place_indices(device, &labels);
            let op = Op::LinearCrossEntropy(LinearCrossEntropy);
            check(
                &format!("{rows:?} {x_dtype} by {dtype}"),
                &op,
                &[&t, &tw, &tl],
                &linear_expected(&x, &w, &labels.values, x_dtype),
            );
        }
    }
}

fn linear_cross_entropy_of_many_rows(device: &Device) {
    for dtype in device.floats() {
        let mut draw = Draw::new(163);
        let ((x, t), (w, tw)) = (draw.input(device, &[300, 19], dtype), draw.input(device, &[131, 19], dtype));
        let labels = labels(&mut draw, &[300], 131);
        let tl = draw.place_indices(device, &labels);
        check(
            "300 rows",
            &Op::LinearCrossEntropy(LinearCrossEntropy),
            &[&t, &tw, &tl],
            &linear_expected(&x, &w, &labels.values, dtype),
        );
    }
}

fn linear_cross_entropy_of_packed_weights(device: &Device) {
    for (dtype, x_dtype) in weight_dtypes(device).flat_map(|d| device.floats().map(move |x| (d, x))) {
        let k = inner_length(dtype, 1);
        let (_, w) = weight(device, [37, k], dtype, 164);
        let packed = w.pack().expect("pack");
        let mut draw = Draw::new(165);
        let x = tensor(device, &draw.floats(&[5, k], x_dtype), x_dtype);
        let labels = draw.indices(&[5], 37);
        let tl = draw.place_indices(device, &labels);
        let wide = x_dtype.accumulator();
        let dsum = tensor(device, &Array::new(&[], vec![0.5]), wide);
        let run = |w: &Tensor| {
            let (sum, count) = x.linear_cross_entropy(w, &tl).expect("linear_cross_entropy");
            let lse = tensor(device, &Array::new(&[5], vec![4.0; 5]), wide);
            let op = Op::LinearCrossEntropyBackward(LinearCrossEntropyBackward { weight_grad: false });
            let dx = op.apply(&[&dsum, &x, w, &tl, &lse]).and_then(|o| o.one()).expect("linear_cross_entropy_backward");
            [sum, count, dx]
        };
        for (i, (a, b)) in run(&packed).iter().zip(&run(&w)).enumerate() {
            same_bits(&format!("linear_cross_entropy of {x_dtype} by packed {dtype}, {i}"), a, b);
        }
    }
}

fn linear_cross_entropy_backward_of_every_weight(device: &Device) {
    for (dtype, x_dtype) in weight_dtypes(device).flat_map(|d| device.floats().map(move |x| (d, x))) {
        for (rows, weight_grad) in
            [vec![], vec![7], vec![2, 3], vec![0]].into_iter().flat_map(|r| [false, true].map(|g| (r.clone(), g)))
        {
            if !weight_grad || dtype.block().is_none() {
                backward(device, (&rows, 37, inner_length(dtype, 1)), x_dtype, dtype, weight_grad);
            }
        }
    }
}

/// More than a tile of rows, hidden units and vocabulary, in lines that can be read 16 bytes at a time, and in others.
fn linear_cross_entropy_backward_of_tiles(device: &Device) {
    for (dtype, (vocab, k)) in device.floats().flat_map(|d| [(72, 80), (67, 72)].map(|size| (d, size))) {
        backward(device, (&[131], vocab, k), dtype, dtype, true);
    }
}

fn backward(device: &Device, (rows, vocab, k): (&[usize], usize, usize), x_dtype: DType, dtype: DType, weight_grad: bool) {
    let wide = x_dtype.accumulator();
    let (w, tw) = weight(device, [vocab, k], dtype, 166);
    let mut draw = Draw::new(167);
    let (x, t) = draw.input(device, &[rows, &[k]].concat(), x_dtype);
    let labels = labels(&mut draw, rows, vocab);
    let logits = logits(&x, &w);
    let lse = reference::round_all(wide, &reference::cross_entropy(&logits.value, &labels.values).2);
    let dsum = 0.375;
    let mut d = reference::cross_entropy_backward(dsum, &logits.value, &labels.values, &lse);
    // What the logits are off by is a relative error of the probabilities.
    let off = 1.0 + largest(&logits.magnitude);
    d.magnitude.values.iter_mut().for_each(|m| *m *= off);
    let dx = reference::linear_input_grad(&d.value, &w);
    let dx_size = reference::linear_input_grad(&d.magnitude, &w.map(f64::abs)).value;
    let mut expected = vec![Expected::new(x_dtype, dx.value).sum(dx_size, vocab + k)];
    if weight_grad {
        let count = labels.values.len();
        let flat = |a: &Array, n: usize| a.reshape(&[count, n]);
        let product = |d: &Array, x: &Array| reference::matmul(&flat(d, vocab).permute(&[1, 0]), &flat(x, k)).value;
        let size = product(&d.magnitude, &x.map(f64::abs));
        expected.push(Expected::new(dtype, product(&d.value, &x)).sum(size, vocab + k + count).accumulated_in(wide));
    }
    let inputs = [
        tensor(device, &Array::new(&[], vec![dsum]), wide),
        t,
        tw,
        draw.place_indices(device, &labels),
        draw.place(device, &lse, wide),
    ];
    let op = Op::LinearCrossEntropyBackward(LinearCrossEntropyBackward { weight_grad });
    check(&format!("{rows:?} {x_dtype} by {dtype}, weight {weight_grad}"), &op, &inputs.iter().collect::<Vec<_>>(), &expected);
}
