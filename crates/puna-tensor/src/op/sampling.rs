use super::{Args, Distribution, Inferred, Op, Random, Spec};
use crate::{DType, Kind, Result, Tensor};

/// Draws the next token of each row.
///
/// With `x = logits` in f32, in this order, all of a row by its own parameters:
/// 1. *repetition* `r`: of each token in the history, once, `x = x * r` where `x < 0`, else `x / r` (1: off; Keskar and others 2019, arXiv 1909.05858);
/// 2. *frequency* `f` and *presence* `p`: `x = x - f * n - p * [n > 0]`, `n` how often the token stands in the history from `generated_from` on (0: off);
/// 3. *bias*: `x[id] = x[id] + bias`;
/// 4. *temperature* `t`: `x = x / t`; 0 is greedy: the rest is left out but for the filters, and the largest wins;
/// 5. *top-k*: what is smaller than the k-th largest goes (0: off; ties stay);
/// 6. *top-p*: sorted, largest first, what has a probability of `p` or more before it goes; the first stays (1: off; Holtzman and others 2019, arXiv 1904.09751);
/// 7. *min-p* `m`: what is less probable than `m` times the most probable goes (0: off; Nguyen and others 2024, arXiv 2407.01082);
/// 8. the largest of `x + g`, `g` the Gumbel noise of [`Random`] for `(seed, position, token id)`: a draw from `softmax(x)`; of equal ones the lowest id.
///
/// Inputs: `logits [rows, V]` float; `parameters [rows, 7]` f32 ([`SamplingParameters::row`]); `history [rows, H]` u32, padded with `u32::MAX`;
/// `generated_from [rows]` u32, a column of the history; `bias_ids [rows, B]` u32, padded likewise; `bias [rows, B]` f32; `seeds [rows, 2]`,
/// `positions [rows]` u32. Results: `ids [rows]` u32; `log_probabilities [rows]` f32, those of `log_softmax(logits)`, before any of the above;
/// where `filtered` is set also `x` as it is before step 8, `[rows, V]` f32, `-inf` where a token went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Sample {
    /// Whether the filtered logits are a result too.
    pub filtered: bool,
}

/// How one sequence's tokens are drawn: see [`Sample`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SamplingParameters {
    /// 0 is greedy.
    pub temperature: f32,
    /// How many tokens stay; 0: all.
    pub top_k: u32,
    /// What probability stays; 1: all.
    pub top_p: f32,
    /// What share of the largest probability stays; 0: all.
    pub min_p: f32,
    /// The divisor for tokens seen; 1: off.
    pub repetition: f32,
    /// The subtrahend for each time a token was generated; 0: off.
    pub frequency: f32,
    /// The subtrahend for tokens generated at all; 0: off.
    pub presence: f32,
}

impl Default for SamplingParameters {
    /// Plain draws from the model's distribution: temperature 1, all else off.
    fn default() -> Self {
        Self { temperature: 1.0, top_k: 0, top_p: 1.0, min_p: 0.0, repetition: 1.0, frequency: 0.0, presence: 0.0 }
    }
}

impl SamplingParameters {
    /// How many columns a row of parameters has.
    pub const COLUMNS: usize = 7;

    /// The row of the op's `parameters`.
    pub fn row(&self) -> [f32; Self::COLUMNS] {
        // Any vocabulary is smaller than 2^24, up to where f32 counts exactly; a larger k keeps all.
        let top_k = if self.top_k < 1 << 24 { self.top_k as f32 } else { 0.0 };
        [self.temperature, top_k, self.top_p, self.min_p, self.repetition, self.frequency, self.presence]
    }

    /// The parameters of a row.
    pub fn from_row(row: [f32; Self::COLUMNS]) -> Self {
        let [temperature, top_k, top_p, min_p, repetition, frequency, presence] = row;
        Self { temperature, top_k: top_k as u32, top_p, min_p, repetition, frequency, presence }
    }
}

/// What [`Sample`] takes beside the logits.
#[derive(Debug, Clone, Copy)]
pub struct SampleInputs<'a> {
    /// `[rows, 7]` f32.
    pub parameters: &'a Tensor,
    /// `[rows, H]` u32.
    pub history: &'a Tensor,
    /// `[rows]` u32.
    pub generated_from: &'a Tensor,
    /// `[rows, B]` u32.
    pub bias_ids: &'a Tensor,
    /// `[rows, B]` f32.
    pub bias: &'a Tensor,
    /// `[rows, 2]` u32.
    pub seeds: &'a Tensor,
    /// `[rows]` u32.
    pub positions: &'a Tensor,
}

impl Sample {
    pub(super) fn infer(&self, args: &Args) -> Result<Inferred> {
        let [logits, parameters, history, generated_from, bias_ids, bias, seeds, positions] =
            args.named(["logits", "parameters", "history", "generated_from", "bias_ids", "bias", "seeds", "positions"])?;
        args.float("logits", logits)?;
        let [rows, vocab] = args.axes("logits", logits, "[rows, V]")?;
        if vocab == 0 || vocab > 1 << 24 {
            return Err(args.fail(Kind::Shape, format!("logits {}: V must be 1 to 2^24", logits.shape())));
        }
        let for_rows = format!("logits {}", logits.shape());
        args.dtype("parameters", parameters, DType::F32)?;
        args.shape("parameters", parameters, [rows, SamplingParameters::COLUMNS], &for_rows)?;
        args.dtype("history", history, DType::U32)?;
        let [_, h] = args.axes("history", history, "[rows, H]")?;
        args.shape("history", history, [rows, h], &for_rows)?;
        args.dtype("generated_from", generated_from, DType::U32)?;
        args.shape("generated_from", generated_from, rows, &for_rows)?;
        args.dtype("bias_ids", bias_ids, DType::U32)?;
        args.dtype("bias", bias, DType::F32)?;
        let [_, b] = args.axes("bias", bias, "[rows, B]")?;
        args.shape("bias", bias, [rows, b], &for_rows)?;
        args.shape("bias_ids", bias_ids, [rows, b], "bias")?;
        args.dtype("seeds", seeds, DType::U32)?;
        args.shape("seeds", seeds, [rows, 2], &for_rows)?;
        args.dtype("positions", positions, DType::U32)?;
        args.shape("positions", positions, rows, &for_rows)?;
        let spec = |dtype| Spec { shape: rows.into(), dtype };
        let filtered = self.filtered.then_some(Spec { shape: [rows, vocab].into(), dtype: DType::F32 });
        Ok(Inferred::results([spec(DType::U32), spec(DType::F32)].into_iter().chain(filtered)))
    }

    pub(super) fn lower(&self, inputs: &[&Tensor]) -> Result<Vec<Tensor>> {
        let [logits, parameters, history, generated_from, bias_ids, bias, seeds, positions] = inputs else {
            unreachable!("inference has counted them")
        };
        let (rows, vocab, device) = (logits.dim(0), logits.dim(1), logits.device());
        let column = |i| parameters.slice(1, i, 1);
        let number = |value: f64| Tensor::full(value, [1, 1], DType::F32, device);
        let (zero, one) = (number(0.0)?, number(1.0)?);

        // 1, 2: how often each token stands in the history, and in its generated part.
        let raw = logits.cast(DType::F32)?;
        let ones = Tensor::full(1.0, *history.shape(), DType::F32, device)?;
        let seen = ones.take_backward(history, vocab)?.gt(&zero)?;
        let at = Tensor::arange(history.dim(1), device)?.unsqueeze(0)?;
        let generated = at.ge(&generated_from.unsqueeze(1)?)?.select(&one, &zero)?;
        let generated = generated.broadcast(*history.shape())?.take_backward(history, vocab)?;
        let repetition = column(4)?;
        let penalised = raw.lt(&zero)?.select(&raw.mul(&repetition)?, &raw.div(&repetition)?)?;
        let mut x = seen.select(&penalised, &raw)?;
        let present = generated.gt(&zero)?.select(&one, &zero)?;
        x = x.sub(&generated.mul(&column(5)?)?)?.sub(&present.mul(&column(6)?)?)?;
        // 3, 4
        x = x.add(&bias.take_backward(bias_ids, vocab)?)?;
        let temperature = column(0)?;
        let greedy = temperature.eq(&zero)?;
        x = x.div(&greedy.select(&one, &temperature)?)?;
        // 5: the k-th largest is the last that stays.
        let (sorted, order) = x.sort_descending()?;
        let k = column(1)?;
        let k = k.eq(&zero)?.select(&number(vocab as f64)?, &k.minimum(&number(vocab as f64)?)?)?;
        let threshold = sorted.take(&k.affine(1.0, -1.0)?.cast(DType::U32)?)?;
        let nothing = number(f64::NEG_INFINITY)?;
        x = x.lt(&threshold)?.select(&nothing, &x)?;
        let sorted = sorted.lt(&threshold)?.select(&nothing, &sorted)?;
        // 6: the probability before a token, and whether that leaves room for it; the first has nothing before it.
        let p = sorted.softmax()?;
        let before = p.cum_sum()?.sub(&p)?;
        let top_p = column(2)?;
        let first = Tensor::arange(vocab, device)?.lt(&Tensor::full(1.0, 1, DType::U32, device)?)?;
        let stays = first.maximum(&before.lt(&top_p)?)?.maximum(&top_p.ge(&one)?)?;
        let stays = stays.select(&one, &zero)?.take_backward(&order, vocab)?.gt(&zero)?;
        x = stays.select(&x, &nothing)?;
        // 7
        let p = x.softmax()?;
        x = p.lt(&p.max_keep(1)?.mul(&column(3)?)?)?.select(&nothing, &x)?;
        // 8
        let noise = Random { distribution: Distribution::Gumbel, columns: vocab }.draw(seeds, positions)?;
        let ids = greedy.select(&x, &x.add(&noise)?)?.argmax(1)?;
        let log_probabilities = raw.log_softmax()?.take(&ids.unsqueeze(1)?)?.reshape(rows)?;
        let mut outputs = vec![ids, log_probabilities];
        if self.filtered {
            outputs.push(x);
        }
        Ok(outputs)
    }
}

/// # Sampling
impl Tensor {
    /// `(ids, log probabilities)` of the next tokens, these being the logits: see [`Sample`].
    pub fn sample(&self, with: SampleInputs<'_>) -> Result<(Tensor, Tensor)> {
        let [ids, log_probabilities] = self.sample_op(with, false)?.array();
        Ok((ids, log_probabilities))
    }

    /// As [`sample`](Self::sample), with the filtered logits behind.
    pub fn sample_filtered(&self, with: SampleInputs<'_>) -> Result<(Tensor, Tensor, Tensor)> {
        let [ids, log_probabilities, filtered] = self.sample_op(with, true)?.array();
        Ok((ids, log_probabilities, filtered))
    }

    fn sample_op(&self, with: SampleInputs<'_>, filtered: bool) -> Result<super::Outputs> {
        let SampleInputs { parameters, history, generated_from, bias_ids, bias, seeds, positions } = with;
        Op::Sample(Sample { filtered }).apply(&[self, parameters, history, generated_from, bias_ids, bias, seeds, positions])
    }
}
