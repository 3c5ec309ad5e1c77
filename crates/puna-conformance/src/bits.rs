//! The same bits on several devices: a CPU with other numbers of threads.

use puna_tensor::op::*;
use puna_tensor::{DType, Device, Op, Result, Tensor};

use crate::blocks::{inner_length, weight_dtypes};
use crate::draw::{Draw, indices_tensor, tensor};
use crate::matmul::{ACTIVATIONS, Drawn};
use crate::{Array, reference};

/// Runs a set of ops on all devices, large enough for threads to share them, and compares the results' bits. `dtypes`: those of activations
/// (floats) and of weights (floats and blocks).
///
/// # Panics
/// Where they differ.
pub fn equal_bits(devices: &[Device], dtypes: &[DType]) {
    let [first, others @ ..] = devices else { return };
    let expected = results(first, dtypes).expect("the ops run on the first device");
    for (number, device) in others.iter().enumerate() {
        let actual = results(device, dtypes).expect("the ops run on every device");
        assert_eq!(actual.len(), expected.len());
        let mut off = Vec::new();
        for ((what, a), (_, b)) in actual.iter().zip(&expected) {
            let (a, b) = (a.to_bytes().expect("readable"), b.to_bytes().expect("readable"));
            if a != b {
                off.push(format!("{what}: {} of {} bytes", a.iter().zip(&b).filter(|(a, b)| a != b).count(), a.len()));
            }
        }
        assert!(off.is_empty(), "device {} ({}) gives other bits than device 0:\n{}", number + 1, device.name(), off.join("\n"));
    }
}

fn results(device: &Device, dtypes: &[DType]) -> Result<Vec<(String, Tensor)>> {
    let mut results = Vec::new();
    for &dtype in dtypes.iter().filter(|dtype| dtype.is_float()) {
        let mut draw = Draw::new(220);
        let mut add = |what: &str, tensors: Vec<Tensor>| {
            results.extend(tensors.into_iter().enumerate().map(|(i, t)| (format!("{what}, output {i}, {dtype}"), t)));
        };
        let wide = dtype.accumulator();
        let mut f = |shape: &[usize]| tensor(device, &draw.floats(shape, dtype), dtype);
        let (x, y, w) = (f(&[301, 259]), f(&[301, 259]), f(&[259]));
        add("exp", vec![x.exp()?]);
        add("silu of a transpose", vec![x.transpose(0, 1)?.silu()?]);
        add("add", vec![x.add(&w)?]);
        for axis in [0, 1] {
            add("sum", vec![x.sum(axis)?]);
            add("max", vec![x.max(axis)?]);
        }
        add("sum of all", vec![x.sum_all()?]);
        add("cum_sum", vec![x.cum_sum()?]);
        let (values, places) = x.sort_descending()?;
        add("sort", vec![values, places]);
        add("matmul", vec![x.matmul(&y.transpose(0, 1)?)?, x.transpose(0, 1)?.matmul(&y)?]);
        // Whole pieces of 16 bytes, for matrix units.
        let (few, many, whole) = (f(&[11, 264]), f(&[150, 264]), f(&[136, 264]));
        let linear = |x: &Tensor| x.linear(&whole, Activations::Exact);
        add("linear of whole pieces", vec![linear(&few)?, linear(&many)?, linear(&many)?.linear_input_grad(&whole)?]);
        add("softmax", vec![x.softmax()?, x.log_softmax()?]);
        let tracked = x.tracked().rms_norm(&w, 1e-5)?;
        let r = tracked.source().expect("tracked").0.output(1)?.clone();
        add("rms_norm", vec![tracked.detach(), r.clone()]);
        let (sum, y_norm) = x.add_rms_norm(&y, &w, 1e-5)?;
        add("add_rms_norm", vec![sum, y_norm]);
        add("rms_norm_backward", Op::RmsNormBackward(RmsNormBackward { weight: true }).apply(&[&y, &x, &r, &w])?.all());
        add("swiglu", vec![x.swiglu(&y)?]);
        add("swiglu_backward", Op::SwiGluBackward.apply(&[&y, &x, &y])?.all());
        let labels: Vec<u32> = (0..301).map(|i| if i % 7 == 0 { u32::MAX } else { i * 31 % 259 }).collect();
        let labels = indices_tensor(device, &labels, &[301]);
        let (sum, count) = x.cross_entropy(&labels)?;
        add("cross_entropy", vec![sum, count]);
        let lse = tensor(device, &Array::new(&[301], vec![6.0; 301]), wide);
        let dsum = tensor(device, &Array::new(&[], vec![0.5]), wide);
        add("cross_entropy_backward", Op::CrossEntropyBackward(CrossEntropyBackward).apply(&[&dsum, &x, &labels, &lse])?.all());
        let head = f(&[259, 259]);
        let (sum, count) = x.linear_cross_entropy(&head, &labels)?;
        add("linear_cross_entropy", vec![sum, count]);
        let op = Op::LinearCrossEntropyBackward(LinearCrossEntropyBackward { weight_grad: true });
        add("linear_cross_entropy_backward", op.apply(&[&dsum, &x, &head, &labels, &lse])?.all());
        let index = indices_tensor(device, &(0..301).map(|i| i * 17 % 23).collect::<Vec<_>>(), &[301]);
        add("scatter_add_rows", vec![x.scatter_add_rows(&index, 23)?]);
        add("gather_rows", vec![x.gather_rows(&index)?]);
        // Attention: a long sequence, short ones.
        let (q, k, v) = (f(&[200, 4, 32]), f(&[420, 2, 32]), f(&[420, 2, 32]));
        let qs = indices_tensor(device, &[0, 170, 171, 200], &[4]);
        let ks = indices_tensor(device, &[0, 170, 391, 420], &[4]);
        let op = Attention { scale: 0.2, mask: Mask::Causal };
        let tracked = q.tracked().attention(&k, &v, &qs, &ks, op)?;
        let lse = tracked.source().expect("tracked").0.output(1)?.clone();
        let y = tracked.detach();
        add("attention", vec![y.clone(), lse.clone()]);
        let backward = Op::AttentionBackward(AttentionBackward { scale: 0.2, mask: Mask::Causal });
        add("attention_backward", backward.apply(&[&q, &q, &k, &v, &y, &lse, &qs, &ks])?.all());
        let pages = [f(&[40, 16, 2, 32]), f(&[40, 16, 2, 32])];
        let table = indices_tensor(device, &(0..3 * 40).map(|i| i * 7 % 40).collect::<Vec<_>>(), &[3, 40]);
        let lengths = indices_tensor(device, &[170, 600, 29], &[3]);
        let over = PagedInputs { k_pages: &pages[0], v_pages: &pages[1], page_table: &table, q_starts: &qs, lengths: &lengths };
        add("paged_attention", vec![q.paged_attention(over, PagedAttention { scale: 0.2, mask: Mask::Causal })?]);
        // A step of AdamW on a copy.
        let (weight, gradient) = (f(&[5003]), f(&[5003]));
        let [m, v] = [Tensor::zeros(5003, wide, device)?, Tensor::zeros(5003, wide, device)?];
        let one = tensor(device, &Array::new(&[], vec![1.0]), DType::F32);
        let step = AdamW { beta1: 0.9, beta2: 0.999, eps: 1e-8, parameters: Vec::new() };
        let parameter = StepInputs { weight: &weight, states: [&m, &v], gradient: &gradient, master: None, decay: 0.1 };
        step.step(&[parameter], [&one, &one, &one])?;
        add("adamw", vec![weight, m, v]);
    }
    for (dtype, activations) in
        weight_dtypes(device).filter(|dtype| dtypes.contains(dtype)).flat_map(|d| ACTIVATIONS.map(|a| (d, a)))
    {
        let k = inner_length(dtype, 2);
        let layers = [[131, k], [131, k]].map(|shape| Drawn::new(device, shape, dtype, (true, true), 221).packed());
        for rows in [1, 2, 37] {
            let x = tensor(device, &Draw::new(222).floats(&[rows, k], DType::F32), DType::F32);
            results
                .push((format!("linear of {rows} by {dtype}, {activations:?}"), x.linear(layers[0].projection(), activations)?));
            let both = x.linears(layers.each_ref().map(Drawn::projection), activations)?;
            results.extend(both.map(|t| (format!("linears of {rows} by {dtype}, {activations:?}"), t)));
            let down = Drawn::new(device, [7, k], dtype, (false, false), 223).packed();
            let gate = Drawn::new(device, [k, k], dtype, (false, false), 224).packed();
            let up = Drawn::new(device, [k, k], dtype, (false, false), 225).packed();
            let mlp = x.gated_mlp([gate.projection(), up.projection(), down.projection()], activations)?;
            results.push((format!("gated_mlp of {rows} by {dtype}, {activations:?}"), mlp));
            let dy = x.slice(1, 0, 7)?;
            results.push((format!("linear_input_grad of {rows} by {dtype}"), dy.linear_input_grad(&down.weight)?));
        }
    }
    // Sampling.
    let (rows, vocab) = (9, 1031);
    let mut draw = Draw::new(226);
    let logits =
        tensor(device, &draw.floats(&[rows, vocab], DType::F32).map(|v| reference::round(DType::F32, v * 3.0)), DType::F32);
    let parameters = SamplingParameters {
        temperature: 0.8,
        top_k: 50,
        top_p: 0.9,
        min_p: 0.01,
        repetition: 1.1,
        frequency: 0.1,
        presence: 0.1,
    };
    let parameters: Vec<f32> = (0..rows).flat_map(|_| parameters.row()).collect();
    let mut u = |shape: [usize; 2], n: usize| {
        let values = draw.indices(&shape, n);
        draw.place_indices(device, &values)
    };
    let (history, ids, seeds, positions) =
        (u([rows, 20], vocab), u([rows, 3], vocab), u([rows, 2], 1 << 31), u([rows, 1], 1 << 31).reshape(rows)?);
    let with = SampleInputs {
        parameters: &Tensor::from_slice(&parameters, [rows, 7], device)?,
        history: &history,
        generated_from: &indices_tensor(device, &[10; 9], &[rows]),
        bias_ids: &ids,
        bias: &Tensor::full(0.5, [rows, 3], DType::F32, device)?,
        seeds: &seeds,
        positions: &positions,
    };
    let (ids, log_probabilities, filtered) = logits.sample_filtered(with)?;
    results.extend([ids, log_probabilities, filtered].map(|t| ("sample".to_owned(), t)));
    Ok(results)
}
