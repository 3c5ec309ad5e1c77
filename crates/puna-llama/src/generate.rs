//! Drawing tokens: many sequences in shared steps, prompts in chunks, one at a time as the special case.

use puna_tensor::op::{SampleInputs, SamplingParameters};
use puna_tensor::{Device, StepKey, Tensor, no_grad};

use crate::cache::{Cache, CachedSequence};
use crate::error::{Error, Result};
use crate::model::Llama;
use crate::rotary::RotaryTable;
use crate::step::{Past, Step, indices};

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

/// A token that a step drew.
#[derive(Debug, Clone, PartialEq)]
pub struct Drawn {
    /// Which sequence of the batch.
    pub sequence: usize,
    /// The token.
    pub id: u32,
    /// Its log-probability under the model, before penalties, temperature and filters.
    pub log_probability: f32,
    /// The most probable tokens, likewise, as many as the options ask for.
    pub top: Vec<(u32, f32)>,
    /// Why this was the last one, if it was.
    pub finish: Option<Finish>,
}

/// Sequences that are continued in shared steps.
///
/// A sequence's tokens do not depend on what shares its steps, nor on the chunks in which its prompt is read.
#[derive(Debug)]
pub struct Batch<'m> {
    llama: &'m Llama,
    device: Device,
    cache: Cache,
    rotary: RotaryTable,
    end: &'m [u32],
    chunk: usize,
    sequences: Vec<Sequence>,
    enqueued: Option<Enqueued>,
}

#[derive(Debug)]
struct Sequence {
    cached: CachedSequence,
    rotary: RotaryTable,
    /// Prompt and drawn tokens; those from `cached.len()` on are still to be computed.
    tokens: Vec<u32>,
    prompt: usize,
    options: Options,
    done: bool,
}

/// A step that is under way.
#[derive(Debug)]
struct Enqueued {
    /// The sequences whose next token it draws.
    drawing: Vec<usize>,
    ids: Tensor,
    log_probabilities: Tensor,
    /// `[rows, vocab_size]`.
    logits: Tensor,
}

impl<'m> Batch<'m> {
    /// A batch without sequences. `end`: the tokens that end one. `chunk`: how many tokens a step computes at most, decoding aside.
    pub fn new(llama: &'m Llama, cache: &Cache, rotary: &RotaryTable, end: &'m [u32], chunk: usize) -> Self {
        let device = llama.model.norm.weight.device().clone();
        let (cache, rotary) = (cache.clone(), rotary.clone());
        Self { llama, device, cache, rotary, end, chunk: chunk.max(1), sequences: Vec::new(), enqueued: None }
    }

    /// Adds a sequence; its number. What the cache already holds of it is not computed again.
    ///
    /// Errors: an empty prompt, a token that the model does not have, a prompt that leaves no room in the context, an option out of range.
    pub fn add(&mut self, prompt: &[u32], options: Options) -> Result<usize> {
        let rotary = self.rotary.for_prompt(&self.llama.config, prompt.len());
        let cached = self.cache.begin(prompt, self.llama.identity(), rotary.is_base());
        self.add_cached(cached, prompt, options)
    }

    /// As [`add`](Self::add), on top of what `cached` holds, which must be a beginning of the prompt, shorter by one token at least.
    pub fn add_cached(&mut self, cached: CachedSequence, prompt: &[u32], options: Options) -> Result<usize> {
        self.llama.check_tokens(prompt)?;
        options.check(self.llama.config.vocab_size)?;
        if prompt.is_empty() {
            return Err(Error::argument("prompt", "it has no tokens; a sequence begins with one at least"));
        }
        let fits = cached.len() < prompt.len() && prompt.starts_with(cached.tokens());
        if !fits {
            let message = format!("the {} cached tokens are no beginning of the {} of the prompt", cached.len(), prompt.len());
            return Err(Error::argument("prompt", message));
        }
        if !cached.is_empty() && cached.weights() != self.llama.identity() {
            let message = "what is cached was computed with other weights, or another adapter; a new sequence would be right";
            return Err(Error::argument("prompt", message));
        }
        if let Some(limit) = self.llama.config.context_limit().filter(|limit| prompt.len() > *limit) {
            return Err(Error::context_full(prompt.len(), limit));
        }
        let rotary = self.rotary.for_prompt(&self.llama.config, prompt.len());
        let done = options.max_tokens == Some(0);
        let (tokens, prompt) = (prompt.to_vec(), prompt.len());
        self.sequences.push(Sequence { cached, rotary, tokens, prompt, options, done });
        Ok(self.sequences.len() - 1)
    }

    /// Whether every sequence has ended.
    pub fn is_done(&self) -> bool {
        self.sequences.iter().all(|sequence| sequence.done)
    }

    /// Ends a sequence: it takes part in no further step.
    pub fn stop(&mut self, sequence: usize) {
        self.sequences[sequence].done = true;
    }

    /// A sequence's tokens, the prompt included.
    pub fn tokens(&self, sequence: usize) -> &[u32] {
        &self.sequences[sequence].tokens
    }

    /// How many of a sequence's prompt tokens are still to be computed.
    pub fn pending(&self, sequence: usize) -> usize {
        let sequence = &self.sequences[sequence];
        sequence.prompt.saturating_sub(sequence.cached.len())
    }

    /// Takes a sequence's cache out of the batch, and ends it.
    pub fn take_cached(&mut self, sequence: usize) -> CachedSequence {
        let sequence = &mut self.sequences[sequence];
        sequence.done = true;
        std::mem::replace(&mut sequence.cached, self.cache.begin(&[], 0, false))
    }

    /// Computes one step: the next token of every sequence that has been read, and a chunk of the prompts that have not.
    /// The tokens drawn; none where only prompts were read.
    pub fn step(&mut self) -> Result<Vec<Drawn>> {
        self.enqueue()?;
        self.read()
    }

    /// Starts a step without waiting for its tokens.
    pub fn enqueue(&mut self) -> Result<()> {
        let Some(plan) = self.plan()? else { return Ok(()) };
        let key = StepKey { program: 0, tokens: plan.ids.len(), sequences: plan.members.len() };
        let device = self.device.clone();
        let mut step = Ok(None);
        // Of a model that is being trained, too, nothing is recorded here: a cache has no derivative.
        let run = no_grad(|| {
            device.step(key, || {
                step = self.run(&plan);
                Ok(())
            })
        });
        match run.map_err(Error::from).and(step) {
            Ok(enqueued) => self.enqueued = enqueued,
            Err(error) => {
                self.undo(&plan);
                return Err(error);
            }
        }
        for &(member, _) in &plan.members {
            self.sequences[member].cached.commit();
        }
        Ok(())
    }

    /// Takes back what a step that failed had made room for, so that it can be tried again.
    fn undo(&mut self, plan: &Plan) {
        let mut begin = 0;
        for &(member, end) in &plan.members {
            let cached = &mut self.sequences[member].cached;
            cached.truncate(cached.len() - (end - begin));
            begin = end;
        }
    }

    /// Which tokens of which sequences the next step computes.
    fn plan(&mut self) -> Result<Option<Plan>> {
        let mut plan = Plan::default();
        let mut budget = self.chunk;
        for member in 0..self.sequences.len() {
            let sequence = &mut self.sequences[member];
            if sequence.done {
                continue;
            }
            let pending = &sequence.tokens[sequence.cached.len()..];
            // A sequence that is decoding has one token pending and is never held back.
            let take = if pending.len() == 1 { 1 } else { pending.len().min(budget) };
            if take == 0 {
                continue;
            }
            budget = budget.saturating_sub(take);
            let start = sequence.cached.len();
            let tokens = pending[..take].to_vec();
            match sequence.cached.extend(&tokens) {
                Ok(slots) => plan.slots.extend(slots),
                Err(error) => {
                    self.undo(&plan);
                    return Err(error);
                }
            }
            plan.positions.extend(start as u32..(start + take) as u32);
            plan.ids.extend(tokens);
            plan.members.push((member, plan.ids.len()));
        }
        Ok((!plan.members.is_empty()).then_some(plan))
    }

    fn run(&self, plan: &Plan) -> Result<Option<Enqueued>> {
        let hidden = self.llama.forward(&indices(&plan.ids, &self.device)?, &self.describe(plan)?)?;
        let read = |(member, _): &&(usize, usize)| self.sequences[*member].cached.len() == self.sequences[*member].tokens.len();
        let (drawing, last): (Vec<usize>, Vec<u32>) =
            plan.members.iter().filter(read).map(|&(member, end)| (member, end as u32 - 1)).unzip();
        if drawing.is_empty() {
            return Ok(None);
        }
        let logits = self.llama.logits(&hidden.gather_rows(&indices(&last, &self.device)?)?)?;
        let (ids, log_probabilities) = self.sample(&logits, &drawing)?;
        Ok(Some(Enqueued { drawing, ids, log_probabilities, logits }))
    }

    /// The step's tensors.
    fn describe(&self, plan: &Plan) -> Result<Step> {
        let device = &self.device;
        let members = plan.members.iter().map(|&(member, _)| &self.sequences[member]);
        let starts: Vec<u32> = std::iter::once(0).chain(plan.members.iter().map(|&(_, end)| end as u32)).collect();
        let lengths: Vec<u32> = members.clone().map(|sequence| sequence.cached.len() as u32).collect();
        let columns = members.clone().map(|sequence| sequence.cached.pages().len()).max().unwrap_or(0);
        let mut table = Vec::with_capacity(columns * plan.members.len());
        for sequence in members.clone() {
            table.extend_from_slice(sequence.cached.pages());
            table.resize(table.len().next_multiple_of(columns), u32::MAX);
        }
        let (cos, sin, positions) = self.rotary_rows(plan)?;
        let past = Past::Cache {
            pages: self.cache.layers(),
            page_table: Tensor::from_slice(&table, [plan.members.len(), columns], device)?,
            lengths: indices(&lengths, device)?,
            slots: indices(&plan.slots, device)?,
        };
        let (starts, positions) = (indices(&starts, device)?, indices(&positions, device)?);
        let (pairs, activations) = (self.llama.config.rope_pairs, self.llama.activations);
        Ok(Step { positions, cos, sin, pairs, starts, past, activations, dropout: None, around: None })
    }

    /// One table for all sequences, and each token's row in it. Sequences with frequencies of their own bring tables of their own,
    /// one behind the other.
    fn rotary_rows(&self, plan: &Plan) -> Result<(Tensor, Tensor, Vec<u32>)> {
        let mut tables: Vec<(&RotaryTable, usize)> = Vec::new();
        for &(member, _) in &plan.members {
            let Sequence { rotary, cached, .. } = &self.sequences[member];
            match tables.iter_mut().find(|(table, _)| table.is_same(rotary)) {
                Some((_, positions)) => *positions = cached.len().max(*positions),
                None => tables.push((rotary, cached.len())),
            }
        }
        let rows = tables.iter().map(|(table, positions)| table.rows(*positions, &self.device)).collect::<Result<Vec<_>>>()?;
        if let [(cos, sin)] = &rows[..] {
            return Ok((cos.clone(), sin.clone(), plan.positions.clone()));
        }
        let mut positions = plan.positions.clone();
        let mut begin = 0;
        for &(member, end) in &plan.members {
            let place = tables.iter().position(|(table, _)| table.is_same(&self.sequences[member].rotary));
            let before: usize =
                rows[..place.expect("every member's table is among them")].iter().map(|(cos, _)| cos.dim(0)).sum();
            positions[begin..end].iter_mut().for_each(|position| *position += before as u32);
            begin = end;
        }
        let (cos, sin): (Vec<_>, Vec<_>) = rows.iter().map(|(cos, sin)| (cos, sin)).unzip();
        Ok((Tensor::concat(&cos, 0)?, Tensor::concat(&sin, 0)?, positions))
    }

    fn sample(&self, logits: &Tensor, drawing: &[usize]) -> Result<(Tensor, Tensor)> {
        let device = &self.device;
        let members = || drawing.iter().map(|&member| &self.sequences[member]);
        let rows = drawing.len();
        let parameters: Vec<f32> = members().flat_map(|sequence| sequence.options.sampling.row()).collect();
        // The history is read by penalties alone; without them it need not be brought to the device.
        let penalised =
            |sampling: &SamplingParameters| sampling.repetition != 1.0 || sampling.frequency != 0.0 || sampling.presence != 0.0;
        let history = |sequence: &Sequence| {
            if penalised(&sequence.options.sampling) { sequence.tokens.clone() } else { Vec::new() }
        };
        let history: Vec<Vec<u32>> = members().map(history).collect();
        let (history, columns) = padded(&history, u32::MAX);
        let generated_from: Vec<u32> = members().map(|sequence| sequence.prompt as u32).collect();
        let ids: Vec<Vec<u32>> = members().map(|s| s.options.logit_bias.iter().map(|(id, _)| *id).collect()).collect();
        let biases: Vec<Vec<f32>> = members().map(|s| s.options.logit_bias.iter().map(|(_, bias)| *bias).collect()).collect();
        let ((bias_ids, bias_columns), (biases, _)) = (padded(&ids, u32::MAX), padded(&biases, 0.0));
        let seeds: Vec<u32> = members().flat_map(|s| [s.options.seed as u32, (s.options.seed >> 32) as u32]).collect();
        // The noise of a draw belongs to the position that the drawn token takes.
        let positions: Vec<u32> = members().map(|sequence| sequence.tokens.len() as u32).collect();
        Ok(logits.sample(SampleInputs {
            parameters: &Tensor::from_slice(&parameters, [rows, SamplingParameters::COLUMNS], device)?,
            history: &Tensor::from_slice(&history, [rows, columns], device)?,
            generated_from: &indices(&generated_from, device)?,
            bias_ids: &Tensor::from_slice(&bias_ids, [rows, bias_columns], device)?,
            bias: &Tensor::from_slice(&biases, [rows, bias_columns], device)?,
            seeds: &Tensor::from_slice(&seeds, [rows, 2], device)?,
            positions: &indices(&positions, device)?,
        })?)
    }

    /// The logits of the step that was started, one row for each sequence whose next token it draws, in order of the sequences;
    /// `None` where it draws none.
    pub fn enqueued_logits(&self) -> Option<&Tensor> {
        self.enqueued.as_ref().map(|enqueued| &enqueued.logits)
    }

    /// The tokens of the step that was started, after waiting for it.
    pub fn read(&mut self) -> Result<Vec<Drawn>> {
        let Some(Enqueued { drawing, ids, log_probabilities, logits }) = self.enqueued.take() else { return Ok(Vec::new()) };
        let (ids, log_probabilities) = (ids.to_vec::<u32>()?, log_probabilities.to_vec::<f32>()?);
        let mut drawn = Vec::with_capacity(drawing.len());
        for (row, &sequence) in drawing.iter().enumerate() {
            let (id, log_probability) = (ids[row], log_probabilities[row]);
            let count = self.sequences[sequence].options.top_log_probabilities;
            let top = if count > 0 { most_probable(&logits.slice(0, row, 1)?, count)? } else { Vec::new() };
            let finish = self.push(sequence, id);
            drawn.push(Drawn { sequence, id, log_probability, top, finish });
        }
        Ok(drawn)
    }

    /// Appends a drawn token; why it is the last, if it is.
    fn push(&mut self, sequence: usize, id: u32) -> Option<Finish> {
        let limit = self.llama.config.context_limit();
        let Sequence { tokens, prompt, options, done, .. } = &mut self.sequences[sequence];
        tokens.push(id);
        let finish = if self.end.contains(&id) && !options.ignore_end {
            Some(Finish::EndToken(id))
        } else if options.max_tokens.is_some_and(|most| tokens.len() - *prompt >= most) {
            Some(Finish::MaxTokens)
        } else if limit.is_some_and(|limit| tokens.len() > limit) {
            Some(Finish::ContextFull)
        } else {
            None
        };
        *done = finish.is_some();
        finish
    }
}

/// The tokens of one step, packed: `members` are sequences and where their tokens end.
#[derive(Debug, Default)]
struct Plan {
    ids: Vec<u32>,
    positions: Vec<u32>,
    slots: Vec<u32>,
    members: Vec<(usize, usize)>,
}

/// Rows filled up to the longest, and its length.
fn padded<T: Copy>(rows: &[Vec<T>], filler: T) -> (Vec<T>, usize) {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let filled = rows.iter().flat_map(|row| row.iter().copied().chain(std::iter::repeat(filler)).take(columns));
    (filled.collect(), columns)
}

/// The most probable tokens of a row of logits `[1, vocab]`, with their log-probabilities.
fn most_probable(logits: &Tensor, count: usize) -> Result<Vec<(u32, f32)>> {
    let (values, ids) = logits.log_softmax()?.sort_descending()?;
    let count = count.min(values.dim(1));
    let (values, ids) = (values.slice(1, 0, count)?.to_vec::<f32>()?, ids.slice(1, 0, count)?.to_vec::<u32>()?);
    Ok(ids.into_iter().zip(values).collect())
}

impl Llama {
    /// Errors: a token that the model does not have.
    pub(crate) fn check_tokens(&self, tokens: &[u32]) -> Result<()> {
        let vocab = self.config.vocab_size;
        match tokens.iter().position(|&id| id as usize >= vocab) {
            Some(at) => Err(Error::token_out_of_range(at, tokens[at], vocab)),
            None => Ok(()),
        }
    }

    /// Logits of every token of one sequence, `[tokens, vocab_size]` f32, without a cache.
    ///
    /// Errors: no tokens, one that the model does not have, more than its context.
    pub fn sequence_logits(&self, tokens: &[u32]) -> Result<Tensor> {
        let device = self.model.norm.weight.device().clone();
        self.check_tokens(tokens)?;
        if tokens.is_empty() {
            return Err(Error::argument("tokens", "there are none; a sequence has one at least"));
        }
        let table = RotaryTable::base(&self.config).for_prompt(&self.config, tokens.len());
        let step = Step::packed(self, &table, &[0, tokens.len() as u32])?;
        Ok(self.logits(&self.forward(&indices(tokens, &device)?, &step)?)?)
    }
}
