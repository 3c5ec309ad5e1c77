//! How a sequence is continued, and why it ends.

use puna_tensor::op::SamplingParameters;

use crate::error::{Error, Result};

/// How a sequence is continued.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// How many tokens at most; by default until the model ends or the context is full.
    pub max_tokens: Option<usize>,
    /// How tokens are drawn. The default is greedy: temperature 0.
    pub sampling: SamplingParameters,
    /// What the draws follow from, beside the model and the tokens: the same seed gives the same text, whatever shares the batch.
    pub seed: u64,
    /// What is added to tokens' logits.
    pub logit_bias: Vec<(u32, f32)>,
    /// Text ends before one of these.
    pub stop: Vec<String>,
    /// Whether the model's end tokens are drawn like others.
    pub ignore_end: bool,
    /// How many of the most probable tokens are told with each token.
    pub top_log_probabilities: usize,
}

impl Default for Options {
    fn default() -> Self {
        let sampling = SamplingParameters { temperature: 0.0, ..SamplingParameters::default() };
        let (stop, logit_bias) = (Vec::new(), Vec::new());
        Self { max_tokens: None, sampling, seed: 0, logit_bias, stop, ignore_end: false, top_log_probabilities: 0 }
    }
}

impl Options {
    /// Whether the draws depend on which tokens there were before.
    pub(crate) fn reads_history(&self) -> bool {
        let SamplingParameters { repetition, frequency, presence, .. } = self.sampling;
        repetition != 1.0 || frequency != 0.0 || presence != 0.0
    }

    /// Errors: an option out of its range, by name.
    pub fn check(&self, vocab_size: usize) -> Result<()> {
        let SamplingParameters { temperature, top_k: _, top_p, min_p, repetition, frequency, presence } = self.sampling;
        let within = |name, value: f32, ok: bool, range| match ok {
            true => Ok(()),
            false => Err(Error::sampling(name, format!("{value} is out of range; {range}"))),
        };
        within("temperature", temperature, temperature.is_finite() && temperature >= 0.0, "it is 0 (greedy) or more")?;
        within("top_p", top_p, top_p > 0.0 && top_p <= 1.0, "it lies in (0, 1]")?;
        within("min_p", min_p, (0.0..=1.0).contains(&min_p), "it lies in [0, 1]")?;
        within("repetition", repetition, repetition.is_finite() && repetition > 0.0, "it is more than 0, and 1 is off")?;
        within("frequency", frequency, frequency.is_finite(), "it is a number, and 0 is off")?;
        within("presence", presence, presence.is_finite(), "it is a number, and 0 is off")?;
        for &(id, bias) in &self.logit_bias {
            if id as usize >= vocab_size || bias.is_nan() {
                return Err(Error::sampling(
                    "logit_bias",
                    format!("{bias} for token {id}; ids are below {vocab_size}, biases numbers"),
                ));
            }
        }
        Ok(())
    }
}

/// Why a sequence ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finish {
    /// The model drew this end token.
    EndToken(u32),
    /// The text came to this stop string.
    StopString(String),
    /// As many tokens as were asked for.
    MaxTokens,
    /// The model's context, or the cache, holds no more.
    ContextFull,
}
