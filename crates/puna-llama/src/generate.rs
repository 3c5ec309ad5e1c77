//! Drawing tokens: many sequences in shared steps, prompts in chunks, one at a time as the special case.

use std::future::poll_fn;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use puna_tensor::op::SamplingParameters;
use puna_tensor::{Device, Fetch, Tensor, no_grad};

use crate::cache::{Cache, CachedSequence};
use crate::error::{Error, Result};
use crate::inputs::{Inputs, Numbers, UNKNOWN, Values};
use crate::model::Llama;
use crate::options::{Finish, Options};
use crate::program::{Draws, Key, Program};
use crate::rotary::RotaryTable;
use crate::step::{Step, indices};

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
///
/// Where the device records steps (CUDA), those in which every sequence is decoding are recorded once for all that have their shape and
/// replayed, and [`step`](Self::step) starts the next one before it reads what the last one drew.
#[derive(Debug)]
pub struct Batch<'m> {
    llama: &'m Llama,
    device: Device,
    cache: Cache,
    rotary: RotaryTable,
    end: &'m [u32],
    chunk: usize,
    /// [`Llama::identity`].
    weights: u64,
    sequences: Vec<Sequence>,
    /// The step that is under way, and the one behind it.
    enqueued: Option<Enqueued>,
    ahead: Option<Enqueued>,
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
    ids: Fetch<u32>,
    log_probabilities: Fetch<f32>,
    /// The most probable tokens, for those who asked.
    top: Vec<Option<(Fetch<u32>, Fetch<f32>)>>,
    /// `[rows, vocab_size]`, where it was kept.
    logits: Option<Tensor>,
    /// Its number, if a program ran it.
    number: Option<u64>,
}

impl Enqueued {
    /// Whether all of it is there: all of it is asked, so that all comes at once.
    fn poll_arrived(&mut self, context: &mut Context<'_>) -> Poll<Result<()>> {
        let mut pending = self.ids.poll_arrived(context)?.is_pending();
        pending |= self.log_probabilities.poll_arrived(context)?.is_pending();
        for (ids, values) in self.top.iter_mut().flatten() {
            pending |= ids.poll_arrived(context)?.is_pending();
            pending |= values.poll_arrived(context)?.is_pending();
        }
        if pending { Poll::Pending } else { Poll::Ready(Ok(())) }
    }
}

impl<'m> Batch<'m> {
    /// A batch without sequences. `end`: the tokens that end one. `chunk`: how many tokens a step computes at most, decoding aside.
    pub fn new(llama: &'m Llama, cache: &Cache, rotary: &RotaryTable, end: &'m [u32], chunk: usize) -> Self {
        let device = llama.model.norm.weight.device().clone();
        let (cache, rotary) = (cache.clone(), rotary.clone());
        let (chunk, weights) = (chunk.max(1), llama.identity());
        Self { llama, device, cache, rotary, end, chunk, weights, sequences: Vec::new(), enqueued: None, ahead: None }
    }

    /// Adds a sequence; its number. What the cache already holds of it is not computed again.
    ///
    /// Errors: an empty prompt, a token that the model does not have, a prompt that leaves no room in the context, an option out of range.
    pub fn add(&mut self, prompt: &[u32], options: Options) -> Result<usize> {
        let rotary = self.rotary.for_prompt(&self.llama.config, prompt.len());
        let cached = self.cache.begin(prompt, self.weights, rotary.is_base());
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
        if !cached.is_empty() && cached.weights() != self.weights {
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
        self.begin()?;
        self.read()
    }

    /// As [`step`](Self::step), without blocking: the only way where no thread can wait (in a browser). Where it is given up half-way, the next
    /// call goes on.
    pub async fn step_async(&mut self) -> Result<Vec<Drawn>> {
        self.begin()?;
        let arrived = match &mut self.enqueued {
            Some(enqueued) => poll_fn(|context| enqueued.poll_arrived(context)).await,
            None => Ok(()),
        };
        self.read_after(arrived)
    }

    /// Starts a step, and the one behind it where that can be.
    fn begin(&mut self) -> Result<()> {
        self.start(false)?;
        if self.ahead.is_none() {
            self.ahead = self.look_ahead();
        }
        Ok(())
    }

    /// What was drawn, where it has arrived; the step behind is then the one that is under way.
    fn read_after(&mut self, arrived: Result<()>) -> Result<Vec<Drawn>> {
        let (enqueued, ahead) = (self.enqueued.take(), self.ahead.take());
        let drawn = arrived.and_then(|()| self.drawn(enqueued));
        if drawn.is_err() {
            // What the next step's token is nobody will know.
            self.sequences.iter_mut().for_each(Sequence::forget_unknown);
        } else {
            self.enqueued = ahead;
        }
        drawn
    }

    /// Starts a step without waiting for its tokens; nothing where one is under way.
    pub fn enqueue(&mut self) -> Result<()> {
        self.start(true)
    }

    fn start(&mut self, keep_logits: bool) -> Result<()> {
        if self.enqueued.is_some() {
            return Ok(());
        }
        let Some(plan) = self.plan(false)? else { return Ok(()) };
        // Of a model that is being trained, too, nothing is recorded here: a cache has no derivative.
        let run = no_grad(|| {
            if self.device.records() && self.decodes(&plan) {
                return self.replay(&plan, None, keep_logits);
            }
            self.device.clone().step(|| Ok(self.run(&plan)))?
        });
        match run {
            Ok(enqueued) => self.enqueued = enqueued,
            Err(error) => {
                self.undo(&plan);
                return Err(error);
            }
        }
        self.commit(&plan);
        Ok(())
    }

    /// Starts the step behind the one that is under way, if that leaves on the device all that it takes.
    fn look_ahead(&mut self) -> Option<Enqueued> {
        let Enqueued { drawing, number: Some(number), .. } = self.enqueued.as_ref()? else { return None };
        let number = *number;
        let limit = self.llama.config.context_limit();
        // Who has drawn a last token, or reads the history that this token belongs to, must know it first.
        let goes_on = |sequence: &Sequence| !sequence.options.reads_history() && sequence.ends_with_one_more(limit).is_none();
        let active = || self.sequences.iter().enumerate().filter(|(_, sequence)| !sequence.done);
        if !active().map(|(member, _)| member).eq(drawing.iter().copied()) || !active().all(|(_, sequence)| goes_on(sequence)) {
            return None;
        }
        // What goes wrong here goes wrong again when the token is known, and is told then.
        let plan = self.plan(true).ok()??;
        let started = no_grad(|| self.replay(&plan, Some(number), false));
        match started {
            Ok(Some(enqueued)) => {
                self.commit(&plan);
                Some(enqueued)
            }
            _ => {
                self.undo(&plan);
                None
            }
        }
    }

    /// After a step: full pages become known.
    fn commit(&mut self, plan: &Plan) {
        for &(member, _) in &plan.members {
            self.sequences[member].cached.commit();
        }
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

    /// Which tokens of which sequences the next step computes. `ahead`: of each the one that the step under way draws.
    fn plan(&mut self, ahead: bool) -> Result<Option<Plan>> {
        let mut plan = Plan::default();
        let mut budget = self.chunk;
        for member in 0..self.sequences.len() {
            let sequence = &mut self.sequences[member];
            if sequence.done {
                continue;
            }
            let pending = if ahead { &[UNKNOWN] } else { &sequence.tokens[sequence.cached.len()..] };
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

    /// Whether the step computes one token of each sequence, and all of them draw, with the model's own frequencies.
    fn decodes(&self, plan: &Plan) -> bool {
        plan.ids.len() == plan.members.len()
            && plan.members.iter().all(|&(member, _)| {
                let sequence = &self.sequences[member];
                sequence.is_read() && sequence.rotary.is_same(&self.rotary)
            })
    }

    /// Runs a step that decodes by the program for its shape, which is recorded when there is none. `behind`: the number of the step that
    /// draws the ids; nothing is run where the program has run another since.
    fn replay(&self, plan: &Plan, behind: Option<u64>, keep_logits: bool) -> Result<Option<Enqueued>> {
        let drawing: Vec<usize> = plan.members.iter().map(|(member, _)| *member).collect();
        let members = || drawing.iter().map(|&member| &self.sequences[member]);
        let reach = Key::reach(members().map(|sequence| sequence.cached.len()).max().unwrap_or(0));
        let history = if members().any(|sequence| sequence.options.reads_history()) { reach } else { 0 };
        let bias = members().map(|sequence| sequence.options.logit_bias.len()).max().unwrap_or(0);
        let bias = if bias > 0 { bias.next_power_of_two() } else { 0 };
        let key = Key { weights: self.weights, rows: Key::rows(drawing.len()), reach, history, bias };
        let numbers = self.numbers(plan, &drawing, plan.positions.clone(), &key);
        let (program, mark) = self.cache.take_program(&key);
        let mut program = match program {
            Some(program) => program,
            None if behind.is_some() => return Ok(None),
            None => {
                let inputs = Inputs::new(numbers.clone(), &self.device)?;
                let step = inputs.step(self.llama, self.rotary.rows(reach, &self.device)?, self.cache.layers());
                Program::new(inputs, step)
            }
        };
        let number = if behind.is_none_or(|number| number == program.last()) {
            static NUMBER: AtomicU64 = AtomicU64::new(1);
            let number = NUMBER.fetch_add(1, Ordering::Relaxed);
            let draws = program.run(self.llama, numbers, number, &self.device);
            Some(draws.and_then(|draws| self.enqueued(drawing, draws, Some(number), keep_logits)))
        } else {
            None
        };
        self.cache.put_program(key, program, mark);
        number.transpose()
    }

    fn run(&self, plan: &Plan) -> Result<Option<Enqueued>> {
        let read = |member: &usize| self.sequences[*member].is_read();
        let drawing: Vec<usize> = plan.members.iter().map(|(member, _)| *member).filter(read).collect();
        let (table, positions) = self.rotary_rows(plan)?;
        let inputs = Inputs::new(self.numbers(plan, &drawing, positions, &Key::default()), &self.device)?;
        let hidden = self.llama.forward(&inputs.ids, &inputs.step(self.llama, table, self.cache.layers()))?;
        if drawing.is_empty() {
            return Ok(None);
        }
        let draws = Draws::of(self.llama, &hidden.gather_rows(inputs.last())?, &inputs)?;
        self.enqueued(drawing, draws, None, true).map(Some)
    }

    /// What a step has drawn, on its way to the host.
    fn enqueued(&self, drawing: Vec<usize>, draws: Draws, number: Option<u64>, keep_logits: bool) -> Result<Enqueued> {
        let Draws { ids, log_probabilities, logits } = draws;
        let top = drawing.iter().enumerate().map(|(row, &member)| {
            let count = self.sequences[member].options.top_log_probabilities;
            if count > 0 { most_probable(&logits.slice(0, row, 1)?, count).map(Some) } else { Ok(None) }
        });
        let top = top.collect::<Result<_>>()?;
        // The next run of a program overwrites what this one gave.
        let logits = match number {
            None => Some(logits),
            Some(_) if keep_logits => Some(Tensor::concat(&[&logits.slice(0, 0, drawing.len())?], 0)?),
            Some(_) => None,
        };
        Ok(Enqueued { drawing, ids: ids.fetch()?, log_probabilities: log_probabilities.fetch()?, top, logits, number })
    }

    /// The step's numbers, with as much room as `key` asks for beyond what the sequences fill.
    fn numbers(&self, plan: &Plan, drawing: &[usize], positions: Vec<u32>, key: &Key) -> Numbers {
        let members = || plan.members.iter().map(|&(member, _)| &self.sequences[member]);
        let drawn = || drawing.iter().map(|&member| &self.sequences[member]);
        let empty = key.rows.saturating_sub(plan.members.len());
        let fill = |values: Vec<u32>, filler| values.into_iter().chain(std::iter::repeat_n(filler, empty));
        let (ends, end) = (plan.members.iter().map(|&(_, end)| end as u32), plan.ids.len() as u32);
        let columns = key.reach.div_ceil(self.cache.options().page_size);
        let last: Vec<u32> =
            plan.members.iter().filter(|(member, _)| drawing.contains(member)).map(|&(_, end)| end as u32 - 1).collect();
        let none: &[u32] = &[];
        let history = drawn().map(|s| if s.options.reads_history() { &s.tokens[..] } else { none });
        let bias_ids = drawn().map(|s| s.options.logit_bias.iter().map(|(id, _)| *id).collect::<Vec<_>>());
        let bias = drawn().map(|s| s.options.logit_bias.iter().map(|(_, bias)| *bias).collect::<Vec<_>>());
        let seeds = drawn().map(|s| [s.options.seed as u32, (s.options.seed >> 32) as u32]);
        let parameters = drawn().map(|s| s.options.sampling.row());
        let greedy = Options::default().sampling.row();
        Numbers {
            ids: fill(plan.ids.clone(), 0).collect(),
            starts: Values::vector(std::iter::once(0).chain(fill(ends.collect(), end))),
            last: Values::vector(fill(last, 0)),
            generated_from: Values::vector(fill(drawn().map(|s| s.prompt as u32).collect(), 0)),
            seeds: Values::matrix(seeds.chain(std::iter::repeat_n([0, 0], empty)), 2, 0),
            bias_ids: Values::matrix(bias_ids.chain(std::iter::repeat_n(Vec::new(), empty)), key.bias, u32::MAX),
            history: Values::matrix(history.chain(std::iter::repeat_n(none, empty)), key.history, u32::MAX),
            page_table: Values::matrix(
                members().map(|s| s.cached.pages()).chain(std::iter::repeat_n(none, empty)),
                columns,
                u32::MAX,
            ),
            positions: Values::vector(fill(positions, 0)),
            slots: Values::vector(fill(plan.slots.clone(), u32::MAX)),
            lengths: Values::vector(fill(members().map(|s| s.cached.len() as u32).collect(), 0)),
            // The noise of a draw belongs to the position that the drawn token takes.
            places: Values::vector(fill(drawn().map(|s| s.cached.len() as u32).collect(), 0)),
            parameters: Values::matrix(parameters.chain(std::iter::repeat_n(greedy, empty)), SamplingParameters::COLUMNS, 0.0),
            bias: Values::matrix(bias.chain(std::iter::repeat_n(Vec::new(), empty)), key.bias, 0.0),
        }
    }

    /// One table for all sequences, and each token's row in it. Sequences with frequencies of their own bring tables of their own,
    /// one behind the other.
    fn rotary_rows(&self, plan: &Plan) -> Result<((Tensor, Tensor), Vec<u32>)> {
        let mut tables: Vec<(&RotaryTable, usize)> = Vec::new();
        for &(member, _) in &plan.members {
            let Sequence { rotary, cached, .. } = &self.sequences[member];
            match tables.iter_mut().find(|(table, _)| table.is_same(rotary)) {
                Some((_, positions)) => *positions = cached.len().max(*positions),
                None => tables.push((rotary, cached.len())),
            }
        }
        let rows = tables.iter().map(|(table, positions)| table.rows(*positions, &self.device)).collect::<Result<Vec<_>>>()?;
        if let [table] = &rows[..] {
            return Ok((table.clone(), plan.positions.clone()));
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
        Ok(((Tensor::concat(&cos, 0)?, Tensor::concat(&sin, 0)?), positions))
    }

    /// The logits of the step that [`enqueue`](Self::enqueue) started, one row for each sequence whose next token it draws, in order of the
    /// sequences; `None` where it draws none.
    pub fn enqueued_logits(&self) -> Option<&Tensor> {
        self.enqueued.as_ref().and_then(|enqueued| enqueued.logits.as_ref())
    }

    /// The tokens of the step that was started, after waiting for it.
    pub fn read(&mut self) -> Result<Vec<Drawn>> {
        self.read_after(Ok(()))
    }

    fn drawn(&mut self, enqueued: Option<Enqueued>) -> Result<Vec<Drawn>> {
        let Some(Enqueued { drawing, ids, log_probabilities, top, .. }) = enqueued else { return Ok(Vec::new()) };
        let (ids, log_probabilities) = (ids.wait()?, log_probabilities.wait()?);
        let mut drawn = Vec::with_capacity(drawing.len());
        for (((sequence, id), log_probability), top) in drawing.into_iter().zip(ids).zip(log_probabilities).zip(top) {
            let top = match top {
                Some((ids, values)) => ids.wait()?.into_iter().zip(values.wait()?).collect(),
                None => Vec::new(),
            };
            // One that ended while the step was under way.
            if self.sequences[sequence].done {
                continue;
            }
            let finish = self.push(sequence, id);
            drawn.push(Drawn { sequence, id, log_probability, top, finish });
        }
        Ok(drawn)
    }

    /// Appends a drawn token; why it is the last, if it is.
    fn push(&mut self, sequence: usize, id: u32) -> Option<Finish> {
        let limit = self.llama.config.context_limit();
        let sequence = &mut self.sequences[sequence];
        let finish = if self.end.contains(&id) && !sequence.options.ignore_end {
            Some(Finish::EndToken(id))
        } else {
            sequence.ends_with_one_more(limit)
        };
        sequence.tokens.push(id);
        if sequence.is_read() {
            // The next step computes it already.
            sequence.cached.tell(id);
        }
        sequence.done = finish.is_some();
        finish
    }
}

impl Sequence {
    /// Whether all its tokens are computed, by the step under way at the latest: the next one is drawn then.
    fn is_read(&self) -> bool {
        self.cached.len() >= self.tokens.len()
    }

    /// Why it ends with the next token, whatever that is.
    fn ends_with_one_more(&self, limit: Option<usize>) -> Option<Finish> {
        let tokens = self.tokens.len() + 1;
        if self.options.max_tokens.is_some_and(|most| tokens - self.prompt >= most) {
            Some(Finish::MaxTokens)
        } else if limit.is_some_and(|limit| tokens > limit) {
            Some(Finish::ContextFull)
        } else {
            None
        }
    }

    /// Lets go of the room for a token that will not be known.
    fn forget_unknown(&mut self) {
        if self.cached.len() > self.tokens.len() {
            self.cached.truncate(self.tokens.len());
        }
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

/// The most probable tokens of a row of logits `[1, vocab]`, and their log-probabilities.
fn most_probable(logits: &Tensor, count: usize) -> Result<(Fetch<u32>, Fetch<f32>)> {
    let (values, ids) = logits.log_softmax()?.sort_descending()?;
    let count = count.min(values.dim(1));
    Ok((ids.slice(1, 0, count)?.fetch()?, values.slice(1, 0, count)?.fetch()?))
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
