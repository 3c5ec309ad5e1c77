//! Rotary frequencies and tables: numbers alone, no tensors.
//!
//! Frequencies are formed in f32, step by step as the reference forms them, because checkpoints were trained with those; angles
//! are formed in f64, because `position * frequency` in f32 is off by 4e-3 at position 131,071.

use std::f64::consts::TAU;
use std::ops::Range;

use crate::config::Config;

/// How rotary frequencies are stretched for contexts longer than those of the first training.
///
/// All start from `inv_freq[i] = rope_theta^(-2 i / head_dim)`.
#[derive(Debug, Clone, PartialEq)]
pub enum RopeScaling {
    /// Not at all. Su and others 2021, arXiv 2104.09864.
    Default,
    /// `inv_freq / factor`: positions are interpolated. Chen and others 2023, arXiv 2306.15595.
    Linear {
        /// How many times longer the context becomes.
        factor: f64,
    },
    /// For a prompt of `n > max_seq` tokens, `rope_theta` is multiplied by
    /// `(factor n / max_seq - (factor - 1))^(head_dim / (head_dim - 2))`; shorter ones are as in training.
    Dynamic {
        /// How steeply the base grows with the length.
        factor: f64,
    },
    /// Low frequencies interpolated, high ones kept, a ramp between. Peng and others 2023, arXiv 2309.00071.
    Yarn(Yarn),
    /// Wavelengths above `original_max_seq / low_freq_factor` interpolated, below `original_max_seq / high_freq_factor` kept, blended
    /// between. Llama 3.1.
    Llama3 {
        /// By how much low frequencies are divided.
        factor: f64,
        /// Where interpolation is full: in turns over the original context.
        low_freq_factor: f64,
        /// Where it ends.
        high_freq_factor: f64,
        /// The context of the first training.
        original_max_seq: usize,
    },
    /// Each frequency divided by a factor of its own: GGUF's `rope_freqs.weight`, `[head_dim / 2]`.
    Factors(Vec<f32>),
}

/// The settings of [`RopeScaling::Yarn`].
#[derive(Debug, Clone, PartialEq)]
pub struct Yarn {
    /// By how much low frequencies are divided.
    pub factor: f64,
    /// The context of the first training.
    pub original_max_seq: usize,
    /// What cosines and sines are multiplied by; derived from the factor where absent.
    pub attention_factor: Option<f64>,
    /// Frequencies with more turns than this over the original context are kept.
    pub beta_fast: f64,
    /// Frequencies with fewer turns than this are interpolated.
    pub beta_slow: f64,
    /// Of the derived attention factor: its numerator's slope over `0.1 ln(factor)`.
    pub mscale: Option<f64>,
    /// As `mscale`, of the denominator.
    pub mscale_all_dim: Option<f64>,
    /// Whether the ramp begins and ends on whole dimensions.
    pub truncate: bool,
}

/// The frequencies that a sequence turns with.
#[derive(Debug, Clone, PartialEq)]
pub struct Frequencies {
    /// Radians a position, for each of the `head_dim / 2` pairs.
    pub inv_freq: Vec<f32>,
    /// What cosines and sines are multiplied by: 1 but for YaRN.
    pub scaling: f64,
}

/// The frequencies of a sequence whose prompt has `prompt` tokens. Only dynamic scaling looks at the length, and only where it is
/// beyond `max_seq`; 0 gives the frequencies of the config itself.
pub fn frequencies(config: &Config, prompt: usize) -> Frequencies {
    let base = default_inv_freq(config.rope_theta, config.head_dim);
    let (inv_freq, scaling) = match &config.rope {
        RopeScaling::Default => (base, 1.0),
        RopeScaling::Linear { factor } => (base.iter().map(|f| f / *factor as f32).collect(), 1.0),
        RopeScaling::Dynamic { factor } => (dynamic(config, *factor, prompt), 1.0),
        RopeScaling::Yarn(yarn) => (yarn.inv_freq(config.rope_theta, config.head_dim), yarn.scaling()),
        RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_seq } => {
            let scale = |f: &f32| llama3(*f, *factor, *low_freq_factor, *high_freq_factor, *original_max_seq);
            (base.iter().map(scale).collect(), 1.0)
        }
        RopeScaling::Factors(factors) => (base.iter().zip(factors).map(|(f, factor)| f / factor).collect(), 1.0),
    };
    Frequencies { inv_freq, scaling }
}

impl Frequencies {
    /// Cosines and sines of a range of positions, each `[positions, head_dim / 2]` row-major, multiplied by the scaling.
    pub fn table(&self, positions: Range<usize>) -> (Vec<f32>, Vec<f32>) {
        let size = positions.len() * self.inv_freq.len();
        let (mut cos, mut sin) = (Vec::with_capacity(size), Vec::with_capacity(size));
        for position in positions {
            for &frequency in &self.inv_freq {
                let (s, c) = (position as f64 * f64::from(frequency)).sin_cos();
                cos.push((c * self.scaling) as f32);
                sin.push((s * self.scaling) as f32);
            }
        }
        (cos, sin)
    }
}

/// What GGUF writes as `rope_freqs.weight`: by how much each frequency is divided. `None` where the scaling is no such division.
pub fn factors(config: &Config) -> Option<Vec<f32>> {
    match &config.rope {
        RopeScaling::Factors(factors) => Some(factors.clone()),
        RopeScaling::Llama3 { .. } => {
            let base = default_inv_freq(config.rope_theta, config.head_dim);
            Some(base.iter().zip(frequencies(config, 0).inv_freq).map(|(base, scaled)| base / scaled).collect())
        }
        _ => None,
    }
}

/// The Llama 3 setting that gives these factors, where there is one with the released models' `low_freq_factor` 1 and
/// `high_freq_factor` 4: Hugging Face's config has no place for factors themselves.
pub fn llama3_setting(factors: &[f32], rope_theta: f64, head_dim: usize) -> Option<RopeScaling> {
    let base = default_inv_freq(rope_theta, head_dim);
    let largest = factors.iter().copied().fold(1.0, f32::max);
    // A context is a power of two. A setting fits if no factor is off by more than the rounding of either side.
    (4..=24).map(|bits| 1usize << bits).find_map(|original_max_seq| {
        let (factor, low_freq_factor, high_freq_factor) = (f64::from(largest), 1.0, 4.0);
        let fits = |(base, given): (&f32, &f32)| {
            let scaled = llama3(*base, factor, low_freq_factor, high_freq_factor, original_max_seq);
            (base / scaled - given).abs() <= 1e-4 * given.abs()
        };
        let all = factors.len() == base.len() && base.iter().zip(factors).all(fits);
        all.then_some(RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_seq })
    })
}

/// `theta^(-2 i / head_dim)`, rounded to f32 at each step.
fn default_inv_freq(theta: f64, head_dim: usize) -> Vec<f32> {
    wavelengths(theta, head_dim).map(|wavelength| 1.0 / wavelength).collect()
}

/// `theta^(2 i / head_dim)`: positions a radian. The power is formed in f64 and rounded once, as a correct f32 power is.
fn wavelengths(theta: f64, head_dim: usize) -> impl Iterator<Item = f32> {
    let theta = f64::from(theta as f32);
    (0..head_dim / 2).map(move |i| theta.powf(f64::from(2.0 * i as f32 / head_dim as f32)) as f32)
}

fn dynamic(config: &Config, factor: f64, prompt: usize) -> Vec<f32> {
    let dim = config.head_dim as f64;
    let ratio = prompt.max(config.max_seq) as f64 / config.max_seq as f64;
    let growth = (factor * ratio - (factor - 1.0)).powf(dim / (dim - 2.0));
    default_inv_freq(config.rope_theta * growth, config.head_dim)
}

fn llama3(frequency: f32, factor: f64, low: f64, high: f64, original: usize) -> f32 {
    let original = original as f64;
    let wavelength = TAU as f32 / frequency;
    if wavelength > (original / low) as f32 {
        return frequency / factor as f32;
    }
    if wavelength < (original / high) as f32 {
        return frequency;
    }
    let smooth = (original as f32 / wavelength - low as f32) / (high - low) as f32;
    (1.0 - smooth) * frequency / factor as f32 + smooth * frequency
}

impl Yarn {
    /// `0.1 ln(factor) + 1` unless the config says otherwise.
    pub(crate) fn scaling(&self) -> f64 {
        let scale = |slope: f64| if self.factor <= 1.0 { 1.0 } else { 0.1 * slope * self.factor.ln() + 1.0 };
        match (self.attention_factor, self.mscale, self.mscale_all_dim) {
            (Some(attention_factor), ..) => attention_factor,
            // Zero means absent, as in the reference.
            (None, Some(a), Some(b)) if a != 0.0 && b != 0.0 => scale(a) / scale(b),
            _ => scale(1.0),
        }
    }

    fn inv_freq(&self, theta: f64, head_dim: usize) -> Vec<f32> {
        let dim = head_dim as f64;
        // The dimension whose frequency makes this many turns over the original context.
        let dimension = |turns: f64| dim * (self.original_max_seq as f64 / (turns * TAU)).ln() / (2.0 * theta.ln());
        let (mut low, mut high) = (dimension(self.beta_fast), dimension(self.beta_slow));
        if self.truncate {
            (low, high) = (low.floor(), high.ceil());
        }
        let (low, mut high) = (low.max(0.0), high.min(dim - 1.0));
        if low == high {
            high += 0.001;
        }
        let (low, span) = (low as f32, (high - low) as f32);
        wavelengths(theta, head_dim)
            .enumerate()
            .map(|(i, wavelength)| {
                let interpolated = 1.0 / (self.factor as f32 * wavelength);
                let kept = 1.0 - ((i as f32 - low) / span).clamp(0.0, 1.0);
                interpolated * (1.0 - kept) + 1.0 / wavelength * kept
            })
            .collect()
    }
}
