use puna_tensor::DType;
use puna_tensor::op::SamplingParameters;

use super::{gumbel, log_softmax, round, softmax, word};
use crate::Array;

/// What one row is drawn by.
#[derive(Debug, Clone)]
pub struct SampleRow {
    /// The logits, `[V]`.
    pub logits: Vec<f64>,
    /// The parameters.
    pub parameters: SamplingParameters,
    /// Tokens seen.
    pub history: Vec<u32>,
    /// From where on they were generated.
    pub generated_from: u32,
    /// What is added to which token.
    pub bias: Vec<(u32, f32)>,
    /// The seed.
    pub seed: [u32; 2],
    /// The position.
    pub position: u32,
}

/// What becomes of a row.
#[derive(Debug, Clone)]
pub struct Sampled {
    /// The token.
    pub id: u32,
    /// What it is the largest of, for each token.
    pub scores: Vec<f64>,
    /// `log_softmax` of the logits as they came.
    pub log_probabilities: Vec<f64>,
    /// The logits as they are before the noise, `-inf` where a token went.
    pub filtered: Vec<f64>,
}

/// Draws a token, step by step as the op's definition counts them. Each step rounds to f32, so that what is equal there is equal here.
pub fn sample(row: &SampleRow) -> Sampled {
    let f32 = |x: f64| round(DType::F32, x);
    let p = row.parameters;
    let raw: Vec<f64> = row.logits.iter().map(|&v| f32(v)).collect();
    let mut x = raw.clone();
    for (id, x) in x.iter_mut().enumerate() {
        let is = |token: &&u32| **token as usize == id;
        if row.history.iter().any(|&token| token as usize == id) {
            let r = f64::from(p.repetition);
            *x = if *x < 0.0 { f32(*x * r) } else { f32(*x / r) };
        }
        let generated = row.history.iter().skip(row.generated_from as usize).filter(is).count() as f64;
        *x = f32(*x - f32(generated * f64::from(p.frequency)));
        if generated > 0.0 {
            *x = f32(*x - f64::from(p.presence));
        }
        let bias = row.bias.iter().filter(|b| b.0 as usize == id).fold(0.0, |sum, b| f32(sum + f64::from(b.1)));
        *x = f32(*x + bias);
        if p.temperature != 0.0 {
            *x = f32(*x / f64::from(p.temperature));
        }
    }
    let descending = |x: &[f64]| {
        let mut order: Vec<usize> = (0..x.len()).collect();
        order.sort_by(|&a, &b| x[b].total_cmp(&x[a]));
        order
    };
    let softmax = |x: &[f64]| softmax(&Array::new(&[x.len()], x.to_vec())).values;
    if p.top_k > 0 {
        let order = descending(&x);
        let threshold = x[order[(p.top_k as usize).min(x.len()) - 1]];
        x.iter_mut().filter(|v| **v < threshold).for_each(|v| *v = f64::NEG_INFINITY);
    }
    if p.top_p < 1.0 {
        let (order, probability) = (descending(&x), softmax(&x));
        let mut before = 0.0;
        for (rank, &i) in order.iter().enumerate() {
            if rank > 0 && before >= f64::from(p.top_p) {
                x[i] = f64::NEG_INFINITY;
            }
            before += probability[i];
        }
    }
    let probability = softmax(&x);
    let most = probability.iter().copied().fold(0.0, f64::max);
    for (v, p_i) in x.iter_mut().zip(&probability) {
        if *p_i < most * f64::from(p.min_p) {
            *v = f64::NEG_INFINITY;
        }
    }
    let noise = |i: usize| if p.temperature == 0.0 { 0.0 } else { gumbel(word(row.seed, row.position, i)) };
    let scores: Vec<f64> = x.iter().enumerate().map(|(i, v)| v + noise(i)).collect();
    let id = (0..scores.len()).fold(0, |best, i| if scores[i] > scores[best] { i } else { best }) as u32;
    let log_probabilities = log_softmax(&Array::new(&[raw.len()], raw)).values;
    Sampled { id, scores, log_probabilities, filtered: x }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(logits: &[f64], parameters: SamplingParameters) -> SampleRow {
        SampleRow {
            logits: logits.to_vec(),
            parameters,
            history: vec![0, 1, 1],
            generated_from: 2,
            bias: vec![],
            seed: [1, 2],
            position: 3,
        }
    }

    #[test]
    fn the_steps_have_their_effects() {
        let logits = [1.0, -1.0, 0.5, 0.25];
        let kept = |p| sample(&row(&logits, p)).filtered;
        let plain = SamplingParameters::default();
        assert_eq!(kept(SamplingParameters { repetition: 2.0, ..plain }), [0.5, -2.0, 0.5, 0.25]);
        assert_eq!(kept(SamplingParameters { frequency: 0.5, presence: 0.25, ..plain }), [1.0, -1.75, 0.5, 0.25]);
        assert_eq!(kept(SamplingParameters { top_k: 2, ..plain })[1..], [f64::NEG_INFINITY, 0.5, f64::NEG_INFINITY]);
        assert_eq!(kept(SamplingParameters { top_p: 0.0, ..plain })[1..], [f64::NEG_INFINITY; 3]);
        assert_eq!(kept(SamplingParameters { min_p: 0.5, ..plain })[2..], [0.5, f64::NEG_INFINITY]);
        assert_eq!(sample(&row(&logits, SamplingParameters { temperature: 0.0, ..plain })).id, 0);
    }

    #[test]
    fn draws_have_the_softmax_as_their_frequency() {
        let logits = [0.0, 1.0, 2.0];
        let mut counts = [0.0; 3];
        for position in 0..20_000 {
            counts[sample(&SampleRow { position, ..row(&logits, SamplingParameters::default()) }).id as usize] += 1.0 / 20_000.0;
        }
        let p = super::super::softmax(&Array::new(&[3], logits.to_vec())).values;
        // Five standard deviations.
        assert!(counts.iter().zip(&p).all(|(c, p)| (c - p).abs() < 5.0 * (p * (1.0 - p) / 20_000.0).sqrt()), "{counts:?} {p:?}");
    }
}
