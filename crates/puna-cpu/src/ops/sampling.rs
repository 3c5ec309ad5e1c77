//! Drawing tokens: penalties, filters and noise in one pass over a row.

use puna_tensor::op::{Sample, SamplingParameters};
use puna_tensor::{Result, Tensor};

use super::matmul::wide::{Indices, Source, scratch};
use super::random::gumbel_block;
use super::softmax::log_sum;
use crate::backend::Cpu;
use crate::memory::write;
use crate::simd::Isa;
use crate::simd::vector;

pub(super) fn sample(cpu: &Cpu, op: &Sample, inputs: &[&Tensor], outputs: &[Tensor]) -> Result<()> {
    let [logits, parameters, history, generated_from, bias_ids, bias, seeds, positions] = inputs else {
        unreachable!("inference has counted them")
    };
    let (rows, vocab) = (logits.dim(0), logits.dim(1));
    if rows == 0 {
        return Ok(());
    }
    let sources = [logits, parameters, bias].map(|tensor| Source::new(tensor));
    let [logits, parameters, bias_values] = &sources;
    let indices = [history, generated_from, bias_ids, seeds, positions].map(|tensor| Indices::new(tensor));
    let [history_ids, generated_from, bias_ids, seeds, positions] = &indices;
    let (history_columns, bias_columns) = (history.dim(1), bias.dim(1));
    let draw = |row: usize, x: &mut [f32]| {
        logits.load(logits.layout().row_offset(row), x);
        let mut values = [0.0; SamplingParameters::COLUMNS];
        parameters.load(parameters.layout().row_offset(row), &mut values);
        let parameters = SamplingParameters::from_row(values);
        let seen: Vec<u32> = (0..history_columns).map(|i| history_ids.at_2(row, i) as u32).collect();
        let mut biases = vec![0.0; bias_columns];
        bias_values.load(bias_values.layout().row_offset(row), &mut biases);
        let biased = (0..bias_columns).map(|i| (bias_ids.at_2(row, i), biases[i]));
        let noise = Noise { key: [seeds.at_2(row, 0) as u32, seeds.at_2(row, 1) as u32], position: positions.at(row) as u32 };
        let largest = vector::max(Isa::detect(), x);
        let log_sum = log_sum(x, largest);
        penalise(x, &parameters, &seen, generated_from.at(row), biased);
        filter(x, &parameters);
        let id = if parameters.temperature == 0.0 { argmax(x.iter().copied()) } else { argmax(noisy(x, &noise)) };
        // The logit as it was before all that.
        let mut raw = [0.0];
        let stride = logits.layout().strides()[1];
        logits.load(logits.layout().row_offset(row) + id * stride, &mut raw);
        (id as u32, raw[0] - largest - log_sum)
    };
    let (mut ids, mut log_probabilities) = (write(&outputs[0])?, write(&outputs[1])?);
    let (ids, log_probabilities) = (&mut ids.typed::<u32>()[..rows], &mut log_probabilities.typed::<f32>()[..rows]);
    if op.filtered {
        let mut filtered = write(&outputs[2])?;
        let filtered = &mut filtered.typed::<f32>()[..rows * vocab];
        cpu.pool.chunks_mut_3((ids, 1), (log_probabilities, 1), (filtered, vocab), |row, id, log_probability, x| {
            (id[0], log_probability[0]) = draw(row, x);
        });
    } else {
        cpu.pool.chunks_mut_2((ids, 1), (log_probabilities, 1), |row, id, log_probability| {
            scratch(vocab, |x: &mut [f32]| (id[0], log_probability[0]) = draw(row, x));
        });
    }
    Ok(())
}

/// Where a row's noise comes from.
struct Noise {
    key: [u32; 2],
    position: u32,
}

/// Repetition, frequency and presence penalties, and biases.
fn penalise(
    x: &mut [f32],
    parameters: &SamplingParameters,
    history: &[u32],
    generated_from: usize,
    biased: impl Iterator<Item = (usize, f32)>,
) {
    let SamplingParameters { repetition, frequency, presence, .. } = *parameters;
    // Sorted, equal tokens stand together: each with how often it stands in the history and in its generated part.
    let mut tokens: Vec<(u32, bool)> = history.iter().enumerate().map(|(i, &id)| (id, i >= generated_from)).collect();
    tokens.sort_unstable();
    for same in tokens.chunk_by(|a, b| a.0 == b.0) {
        let Some(x) = x.get_mut(same[0].0 as usize) else { continue };
        let generated = same.iter().filter(|(_, generated)| *generated).count() as f32;
        *x = if *x < 0.0 { *x * repetition } else { *x / repetition };
        *x = *x - generated * frequency - if generated > 0.0 { presence } else { 0.0 };
    }
    for (id, bias) in biased {
        if let Some(x) = x.get_mut(id) {
            *x += bias;
        }
    }
}

/// Temperature, top-k, top-p, min-p: what goes becomes `-inf`.
fn filter(x: &mut [f32], parameters: &SamplingParameters) {
    let SamplingParameters { temperature, top_k, top_p, min_p, .. } = *parameters;
    if temperature != 0.0 && temperature != 1.0 {
        x.iter_mut().for_each(|x| *x /= temperature);
    }
    let k = top_k as usize;
    if k > 0 && k < x.len() {
        let mut sorted = x.to_vec();
        let (_, threshold, _) = sorted.select_nth_unstable_by(k - 1, |a, b| descending(*a, *b));
        let threshold = *threshold;
        x.iter_mut().filter(|x| **x < threshold).for_each(|x| *x = f32::NEG_INFINITY);
    }
    if top_p < 1.0 {
        keep_probable(x, top_p);
    }
    if min_p > 0.0 {
        let mut p = x.to_vec();
        vector::softmax(Isa::detect(), &mut p);
        let least = vector::max(Isa::detect(), &p) * min_p;
        x.iter_mut().zip(p).filter(|(_, p)| *p < least).for_each(|(x, _)| *x = f32::NEG_INFINITY);
    }
}

/// Largest first; NaN is larger than every number.
fn descending(a: f32, b: f32) -> std::cmp::Ordering {
    b.partial_cmp(&a).unwrap_or_else(|| b.is_nan().cmp(&a.is_nan()))
}

/// Of the tokens, most probable first, those before which less than `top_p` has been passed; the first always.
fn keep_probable(x: &mut [f32], top_p: f32) {
    let mut p = x.to_vec();
    vector::softmax(Isa::detect(), &mut p);
    let mut order: Vec<u32> = (0..x.len() as u32).collect();
    // Sorted as far as is needed: the most probable few most often hold all that stays.
    let (mut sorted, mut passed, mut stays) = (0, 0.0f32, 0);
    let by_logit = |x: &[f32], a: &u32, b: &u32| descending(x[*a as usize], x[*b as usize]).then(a.cmp(b));
    while sorted < order.len() && stays == sorted {
        let next = (sorted * 4).max(64).min(order.len());
        if next < order.len() {
            order[sorted..].select_nth_unstable_by(next - sorted - 1, |a, b| by_logit(x, a, b));
        }
        order[sorted..next].sort_unstable_by(|a, b| by_logit(x, a, b));
        sorted = next;
        while stays < sorted && (stays == 0 || passed < top_p) {
            passed += p[order[stays] as usize];
            stays += 1;
        }
    }
    for &id in &order[stays..] {
        x[id as usize] = f32::NEG_INFINITY;
    }
}

/// Logits with Gumbel noise.
fn noisy<'a>(x: &'a [f32], noise: &'a Noise) -> impl Iterator<Item = f32> + 'a {
    x.chunks(4).enumerate().flat_map(move |(block, x)| {
        // Most blocks are filtered away whole; drawing for them would change nothing.
        let gone = x.iter().all(|x| *x == f32::NEG_INFINITY);
        let noise = if gone { [0.0; 4] } else { gumbel_block(noise.key, noise.position, block) };
        x.iter().zip(noise).map(|(x, noise)| x + noise)
    })
}

/// The place of the largest, the lowest of equal ones; a NaN, the first, before all others.
fn argmax(values: impl Iterator<Item = f32>) -> usize {
    let (mut best, mut largest) = (0, f32::NEG_INFINITY);
    for (i, value) in values.enumerate() {
        if value.is_nan() {
            return i;
        }
        if value > largest {
            (best, largest) = (i, value);
        }
    }
    best
}
