//! Drawing tokens: penalties, filters and noise in one pass over a row.

use puna_tensor::op::{Sample, SamplingParameters};
use puna_tensor::{Result, Tensor};

use super::random;
use super::reduce::key;
use super::softmax::log_sum;
use super::wide::{Indices, Source, scratch};
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
        let noise = Noise { key: [seeds.at_2(row, 0) as u32, seeds.at_2(row, 1) as u32], position: positions.at(row) as u32 };
        let largest = vector::max(Isa::detect(), x);
        let log_sum = log_sum(x, largest);
        let seen = (0..history_columns).map(|i| history_ids.at_2(row, i));
        penalise(x, &parameters, seen, generated_from.at(row));
        scratch(bias_columns, |biases: &mut [f32]| {
            bias_values.load(bias_values.layout().row_offset(row), biases);
            for (i, bias) in biases.iter().enumerate() {
                if let Some(x) = x.get_mut(bias_ids.at_2(row, i)) {
                    *x += bias;
                }
            }
        });
        filter(x, &parameters);
        let id = if parameters.temperature == 0.0 { first_largest(x, vector::max(Isa::detect(), x)) } else { noise.draw(x) };
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

/// What the noise is below: `-ln(-ln(1 - 2^-24))` is 16.64.
const MOST_NOISE: f32 = 16.7;

impl Noise {
    /// The place of the largest of logits with noise, of equal ones the lowest. The two logarithms of a token's noise are taken only where
    /// it can win.
    fn draw(&self, x: &[f32]) -> usize {
        let isa = Isa::detect();
        let largest = vector::max(isa, x);
        let first = first_largest(x, largest);
        if !largest.is_finite() {
            return first;
        }
        // Noise of g or more takes u >= exp(-exp(-g)) >= 1 - exp(-g). A little more is let through, for what rounding takes: of the sum
        // with noise, and of the exponential.
        let below = |best: f32| best - best.abs() * (4.0 * f32::EPSILON);
        const SLACK: f32 = 1.001;
        let uniform = |i: usize| random::uniforms(self.key, self.position, i / 4)[i % 4];
        let (mut best, mut place) = (largest + random::gumbel(uniform(first)), first);
        let mut chances = [0.0; 64];
        for (chunk, x) in x.chunks(chances.len()).enumerate() {
            if vector::max(isa, x) + MOST_NOISE < below(best) {
                continue;
            }
            let start = chunk * chances.len();
            let chances = &mut chances[..x.len()];
            chances.copy_from_slice(x);
            vector::exp_sub_sum(isa, chances, below(best));
            for (block, (x, chances)) in x.chunks(4).zip(chances.chunks(4)).enumerate() {
                let u = random::uniforms(self.key, self.position, start / 4 + block);
                for (i, ((x, chance), u)) in x.iter().zip(chances).zip(u).enumerate() {
                    if 1.0 - u <= chance * SLACK {
                        let (score, at) = (x + random::gumbel(u), start + block * 4 + i);
                        if score > best || (score == best && at < place) {
                            (best, place) = (score, at);
                        }
                    }
                }
            }
        }
        place
    }
}

/// The place of the largest, which is known: the lowest of equal ones; a NaN, the first, before all others.
fn first_largest(x: &[f32], largest: f32) -> usize {
    x.iter().position(|x| *x == largest || x.is_nan()).unwrap_or(0)
}

/// Repetition, frequency and presence penalties.
fn penalise(
    x: &mut [f32],
    parameters: &SamplingParameters,
    history: impl ExactSizeIterator<Item = usize>,
    generated_from: usize,
) {
    let SamplingParameters { repetition, frequency, presence, .. } = *parameters;
    if (repetition, frequency, presence) == (1.0, 0.0, 0.0) {
        return;
    }
    scratch(history.len(), |tokens: &mut [u32]| {
        // Sorted, equal tokens stand together: each with how often it stands in the history and in its generated part.
        let vocab = x.len();
        let mut n = 0;
        for (i, id) in history.enumerate().filter(|(_, id)| *id < vocab) {
            tokens[n] = (id as u32) << 1 | u32::from(i >= generated_from);
            n += 1;
        }
        tokens[..n].sort_unstable();
        for same in tokens[..n].chunk_by(|a, b| a >> 1 == b >> 1) {
            let x = &mut x[same[0] as usize >> 1];
            let generated = same.iter().filter(|token| **token & 1 == 1).count() as f32;
            *x = if *x < 0.0 { *x * repetition } else { *x / repetition };
            *x = *x - generated * frequency - if generated > 0.0 { presence } else { 0.0 };
        }
    });
}

/// Temperature, top-k, top-p, min-p: what goes becomes `-inf`.
fn filter(x: &mut [f32], parameters: &SamplingParameters) {
    let SamplingParameters { temperature, top_k, top_p, min_p, .. } = *parameters;
    if temperature != 0.0 && temperature != 1.0 {
        x.iter_mut().for_each(|x| *x /= temperature);
    }
    let k = if (top_k as usize) < x.len() { top_k as usize } else { 0 };
    if k == 0 && !(top_p < 1.0) {
        if min_p > 0.0 {
            scratch(x.len(), |p: &mut [f32]| {
                p.copy_from_slice(x);
                vector::softmax(Isa::detect(), p);
                let least = vector::max(Isa::detect(), p) * min_p;
                x.iter_mut().zip(p).filter(|(_, p)| **p < least).for_each(|(x, _)| *x = f32::NEG_INFINITY);
            });
        }
        return;
    }
    // Each filter leaves the first of the tokens, sorted by rank; and no more of them are sorted than are needed.
    let last = scratch(x.len(), |ranks: &mut [u64]| {
        let mut sorted = largest(x, k, ranks);
        if top_p < 1.0 {
            sorted = match sorted {
                0 => probable(x, top_p, ranks),
                n => with_probabilities(n, values(x, &ranks[..n]), |p| passing(p.iter().copied(), top_p).unwrap_or(n)),
            };
        } else if sorted == 0 {
            // Nothing is smaller than a NaN.
            return u64::MAX;
        }
        if min_p > 0.0 {
            sorted = with_probabilities(sorted, values(x, &ranks[..sorted]), |p| {
                let least = vector::max(Isa::detect(), p) * min_p;
                p.iter().position(|p| *p < least).unwrap_or(sorted)
            });
        }
        ranks[sorted - 1]
    });
    x.iter_mut().enumerate().filter(|(id, x)| rank(**x, *id) > last).for_each(|(_, x)| *x = f32::NEG_INFINITY);
}

/// A token by its rank: the most probable first, of equal ones the lowest id.
fn rank(x: f32, id: usize) -> u64 {
    u64::from(!key(x)) << 32 | id as u64
}

/// The logits of ranked tokens.
fn values<'a>(x: &'a [f32], ranks: &'a [u64]) -> impl Iterator<Item = f32> + 'a {
    ranks.iter().map(|rank| x[*rank as u32 as usize])
}

/// Calls `f` with the softmax of `n` logits.
fn with_probabilities<R>(n: usize, x: impl Iterator<Item = f32>, f: impl FnOnce(&mut [f32]) -> R) -> R {
    scratch(n, |p: &mut [f32]| {
        p.iter_mut().zip(x).for_each(|(p, x)| *p = x);
        vector::softmax(Isa::detect(), p);
        f(p)
    })
}

/// Tokens are told apart roughly by the leading bits of their rank: sign, exponent and three bits more.
const BIN_BITS: u32 = 12;

fn bin(x: f32) -> usize {
    (!key(x) >> (u32::BITS - BIN_BITS)) as usize
}

/// Ranks, sorted, of the tokens of bins up to `last`; how many those are.
fn sort_bins(x: &[f32], last: usize, ranks: &mut [u64]) -> usize {
    let mut n = 0;
    for (id, x) in x.iter().enumerate() {
        // Written always, counted if it belongs: no branch to mispredict.
        ranks[n] = rank(*x, id);
        n += usize::from(bin(*x) <= last);
    }
    ranks[..n].sort_unstable();
    n
}

/// Ranks, sorted, of the k largest and of those equal to the smallest of them; how many those are, 0 where that cannot be said: `k` is
/// 0, or the smallest a NaN.
fn largest(x: &[f32], k: usize, ranks: &mut [u64]) -> usize {
    if k == 0 {
        return 0;
    }
    let mut counts = [0u32; 1 << BIN_BITS];
    x.iter().for_each(|x| counts[bin(*x)] += 1);
    let mut count = 0;
    let last = counts.iter().position(|n| {
        count += *n as usize;
        count >= k
    });
    let n = sort_bins(x, last.expect("k is below the number of tokens"), ranks);
    let smallest = ranks[k - 1] >> 32;
    if smallest == u64::from(!key(f32::NAN)) {
        return 0;
    }
    ranks[..n].partition_point(|rank| rank >> 32 <= smallest)
}

/// Ranks, sorted, of at least those before which less than `top_p` has been passed; how many those are.
fn probable(x: &[f32], top_p: f32, ranks: &mut [u64]) -> usize {
    // More than is needed by a little, as sums in another order round otherwise.
    const MARGIN: f32 = 1e-3;
    with_probabilities(x.len(), x.iter().copied(), |p| {
        let mut masses = [0.0f32; 1 << BIN_BITS];
        x.iter().zip(&*p).for_each(|(x, p)| masses[bin(*x)] += p);
        let mut mass = 0.0;
        let last = masses.iter().position(|bin| {
            mass += bin;
            mass >= top_p + MARGIN
        });
        let mut pass = |last| {
            let n = sort_bins(x, last, ranks);
            (n, passing(ranks[..n].iter().map(|rank| p[*rank as u32 as usize]), top_p))
        };
        // Where those do not suffice, all of them do.
        last.and_then(|last| pass(last).1).unwrap_or_else(|| {
            let (all, stay) = pass(usize::MAX);
            stay.unwrap_or(all)
        })
    })
}

/// How many stay of tokens with these probabilities, most probable first: those before which less than `top_p` has been passed; the
/// first always. `None`: all, and more would.
fn passing(p: impl Iterator<Item = f32>, top_p: f32) -> Option<usize> {
    let mut passed = 0.0f32;
    p.enumerate()
        .find(|(i, p)| {
            // Of NaN nothing can be said, so the first alone stays.
            let full = *i > 0 && !(passed < top_p);
            passed += p;
            full
        })
        .map(|(i, _)| i)
}

#[cfg(test)]
mod tests {
    use puna_tensor::op::{Distribution, Random};
    use puna_tensor::{DType, Device, Op};

    use super::*;

    fn cpu() -> Device {
        crate::device(crate::Options::default()).unwrap()
    }

    /// Normal numbers times three, about as spread as logits are.
    fn logits(rows: usize, vocab: usize, cpu: &Device) -> Tensor {
        let seeds: Vec<u32> = (0..2 * rows as u32).collect();
        let seeds = Tensor::from_slice(&seeds, [rows, 2], cpu).unwrap();
        let normal = Random { distribution: Distribution::Normal, columns: vocab };
        normal.draw(&seeds, &Tensor::zeros(rows, DType::U32, cpu).unwrap()).unwrap().affine(3.0, 0.0).unwrap()
    }

    /// Large enough for many bins, tokens that are passed over, and more than one chunk of noise.
    #[test]
    fn a_large_vocabulary_is_drawn_from_as_by_the_lowering() {
        const ROWS: usize = 24;
        const VOCAB: usize = 20_011;
        let (cpu, plain) = (cpu(), SamplingParameters::default());
        let logits = logits(ROWS, VOCAB, &cpu);
        let numbers = |n: usize, f: &dyn Fn(usize) -> u32| (0..n).map(f).collect::<Vec<u32>>();
        let tensor = |values: &[u32], shape: [usize; 2]| Tensor::from_slice(values, shape, &cpu).unwrap();
        for parameters in [
            plain,
            SamplingParameters { temperature: 0.0, ..plain },
            SamplingParameters { top_k: 50, ..plain },
            SamplingParameters { top_p: 0.9, ..plain },
            SamplingParameters { min_p: 0.05, ..plain },
            SamplingParameters { temperature: 1.5, top_p: 0.9999, min_p: 0.001, ..plain },
            SamplingParameters {
                temperature: 0.7,
                top_k: 400,
                top_p: 0.8,
                min_p: 0.02,
                repetition: 1.2,
                frequency: 0.3,
                presence: 0.2,
            },
        ] {
            let rows: Vec<f32> = (0..ROWS).flat_map(|_| parameters.row()).collect();
            let inputs = [
                logits.clone(),
                Tensor::from_slice(&rows, [ROWS, 7], &cpu).unwrap(),
                tensor(&numbers(ROWS * 300, &|i| (i * i * 7) as u32 % 21_000), [ROWS, 300]),
                Tensor::from_slice(&numbers(ROWS, &|i| i as u32 * 13), ROWS, &cpu).unwrap(),
                tensor(&numbers(ROWS * 5, &|i| i as u32 * 1000), [ROWS, 5]),
                Tensor::full(0.5, [ROWS, 5], DType::F32, &cpu).unwrap(),
                tensor(&numbers(ROWS * 2, &|i| i as u32), [ROWS, 2]),
                Tensor::arange(ROWS, &cpu).unwrap(),
            ];
            let inputs: Vec<&Tensor> = inputs.iter().collect();
            let op = Op::Sample(Sample { filtered: true });
            let [ids, log_probabilities, filtered] = op.clone().apply(&inputs).unwrap().array();
            let lowered = op.lower(&inputs, false).unwrap();
            assert_eq!(ids.to_vec::<u32>().unwrap(), lowered[0].to_vec::<u32>().unwrap(), "{parameters:?}");
            assert_eq!(log_probabilities.to_vec::<f32>().unwrap(), lowered[1].to_vec::<f32>().unwrap(), "{parameters:?}");
            assert!(filtered.to_vec::<f32>().unwrap() == lowered[2].to_vec::<f32>().unwrap(), "{parameters:?}");
        }
    }

    #[test]
    fn noise_never_reaches_its_bound() {
        assert!(random::gumbel(1.0 - f32::EPSILON / 2.0) < MOST_NOISE);
    }
}
