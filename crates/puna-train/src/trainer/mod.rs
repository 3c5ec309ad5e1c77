//! The loop: batches to gradients to steps, with checkpoints, evaluation, and a record of what happened.

mod checkpoint;
mod diagnosis;
mod metrics;
mod objective;
mod options;
mod report;

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::Instant;

use puna_autograd::optim::{Optimizer, clip};
use puna_autograd::{Gradients, backward};
use puna_llama::{Around, Llama, RotaryTable};
use puna_tensor::{DType, Tensor, no_grad};

pub use checkpoint::{State, latest};
pub use metrics::Record;
pub(crate) use objective::{Frozen, gathered};
pub use objective::{Loss, Objective, Pass, Rewards};
pub use options::TrainOptions;
pub use report::{Event, Report};

use crate::data::{Position, Sampler};
use crate::error::{Error, Kind, Result};
use metrics::Metrics;

/// Trains a model: holds it, its parameters and its optimiser from the first step to the last.
///
/// What is learnt is an [`Objective`]: packed data, pairs of answers ([`Dpo`](crate::Dpo)), a teacher
/// ([`Distillation`](crate::Distillation)).
///
/// ```no_run
/// use puna_autograd::optim::{AdamW, AdamWOptions};
/// use puna_train::data::Packed;
/// use puna_train::{TrainOptions, Trainer};
///
/// # fn train(mut llama: puna_llama::Llama, data: Packed, held_out: Packed) -> puna_train::Result<()> {
/// let options = TrainOptions { steps: 1000, folder: Some("run".into()), ..TrainOptions::default() };
/// let adamw = Box::new(AdamW::new(AdamWOptions::default()));
/// let mut trainer = Trainer::new(&mut llama, adamw, options, |_, _| true)?;
/// trainer.resume()?; // where a run was interrupted, to the bit
/// let report = trainer.train(&data, Some(&held_out), &mut |_| {})?;
/// println!("{report}");
/// # Ok(()) }
/// ```
pub struct Trainer<'m> {
    llama: &'m mut Llama,
    parameters: Vec<(String, Tensor)>,
    optimizer: Box<dyn Optimizer>,
    options: TrainOptions,
    table: RotaryTable,
    /// Where the data stands; nowhere before the first step.
    position: Option<Position>,
    /// Steps taken, with those before the checkpoint that was resumed from.
    step: u64,
    /// Whether gradients are known to reach all parameters.
    reached: bool,
    export: Option<&'m Export<'m>>,
}

/// Writes more files into a checkpoint's folder: see [`Trainer::export`].
pub type Export<'m> = dyn Fn(&Llama, &Path) -> Result<()> + 'm;

impl<'m> Trainer<'m> {
    /// A trainer of the weights that `which` chooses by path and value: `|_, _| true` for all, `|path, _| path.contains("lora_")` for an
    /// adapter. Products with quantised weights are exact from here on.
    ///
    /// Errors: options out of range; a weight that cannot be trained, by path; none chosen.
    pub fn new(
        llama: &'m mut Llama,
        optimizer: Box<dyn Optimizer>,
        options: TrainOptions,
        which: impl Fn(&str, &Tensor) -> bool,
    ) -> Result<Self> {
        options.check()?;
        let parameters = llama.track(which)?;
        if parameters.is_empty() {
            return Err(Error::new(Kind::Argument, "trainer", "no weight was chosen; there is nothing to train"));
        }
        llama.activations = puna_tensor::op::Activations::Exact;
        let table = RotaryTable::base(&llama.config);
        Ok(Self { llama, parameters, optimizer, options, table, position: None, step: 0, reached: false, export: None })
    }

    /// With more files in each checkpoint's folder, which `export` writes there before the checkpoint appears: the model
    /// ([`Llama::save`]) or the adapter ([`Llama::save_adapter`]), to be used while training goes on.
    pub fn export(self, export: &'m Export<'m>) -> Self {
        Self { export: Some(export), ..self }
    }

    /// What is trained, each with its path.
    pub fn parameters(&self) -> &[(String, Tensor)] {
        &self.parameters
    }

    /// The model as it is.
    pub fn llama(&self) -> &Llama {
        self.llama
    }

    /// Takes up the newest checkpoint of the options' folder, if there is one: parameters, optimiser, place in the data. Gives its
    /// path.
    ///
    /// Errors: a checkpoint of another model, other data or another seed; a file that is not whole. The model is then as it was.
    pub fn resume(&mut self) -> Result<Option<PathBuf>> {
        let Some(path) = self.options.folder.as_deref().map(latest).transpose()?.flatten() else { return Ok(None) };
        let state = checkpoint::load(&path, &self.parameters, &mut *self.optimizer)?;
        self.step = state.step;
        self.position = Some(state.position);
        Ok(Some(path))
    }

    /// Takes steps until there are `options.steps` of them, or until `options.stop` says so; `observe` is told of each, of evaluations
    /// and of checkpoints.
    ///
    /// A run that was stopped or interrupted goes on with [`resume`](Self::resume): the same bits as if it had not been.
    ///
    /// Errors: data that does not fit; a folder with checkpoints of steps behind this one; a loss, gradient or weight that is not finite,
    /// with the step and the first such tensor (the last checkpoint stays); what the device or the disk says.
    pub fn train(
        &mut self,
        data: &dyn Objective,
        held_out: Option<&dyn Objective>,
        observe: &mut dyn FnMut(Event<'_>),
    ) -> Result<Report> {
        data.check(self.llama, self.options.rows)?;
        if let Some(held_out) = held_out {
            held_out.check(self.llama, self.options.rows)?;
        }
        let mut sampler = Sampler::new(data.rows(), self.options.seed, self.options.rows)?;
        if let Some(position) = self.position {
            sampler = sampler.resume(position)?;
        }
        if let Some(folder) = &self.options.folder {
            checkpoint::begin(folder, self.step)?;
        }
        let mut metrics = self.options.folder.as_deref().map(|folder| Metrics::open(folder, self.step)).transpose()?;
        let begin = Instant::now();
        let mut report = Report::default();
        while self.step < self.options.steps {
            let record = self.step(data, &mut sampler, begin)?;
            if let Some(metrics) = &mut metrics {
                metrics.write(&record)?;
            }
            report.tokens += record.tokens;
            report.loss = record.loss;
            observe(Event::Step(&record));
            let due = |every: u64| every > 0 && self.step % every == 0;
            let last = self.step == self.options.steps;
            if let Some(held_out) = held_out.filter(|_| due(self.options.evaluate_every) || last) {
                let loss = self.evaluate(held_out)?;
                if let Some(metrics) = &mut metrics {
                    metrics.evaluation(self.step, loss)?;
                }
                report.held_out = Some(loss);
                observe(Event::Evaluated { step: self.step, loss });
            }
            let stop = self.options.stop.as_ref().is_some_and(|stop| stop.load(Ordering::Relaxed));
            if due(self.options.save_every) || last || stop {
                // What is not finite any more must not take the place of what is.
                if let Some(broken) = diagnosis::weight(&self.parameters) {
                    return Err(self.not_finite(self.step, format!("{broken} is not finite any more")));
                }
                if let Some(folder) = self.options.folder.clone() {
                    let path = self.save(&folder)?;
                    observe(Event::Saved(&path));
                    report.checkpoint = Some(path);
                }
            }
            if stop && !last {
                report.stopped = true;
                break;
            }
        }
        report.steps = self.step;
        report.seconds = begin.elapsed().as_secs_f64();
        Ok(report)
    }

    /// One step: gradients of some batches, their sum over the number of labels, the optimiser.
    fn step(&mut self, data: &dyn Objective, sampler: &mut Sampler, begin: Instant) -> Result<Record> {
        let started = Instant::now();
        let number = self.step;
        let mut gradients = Gradients::new();
        let mut all = Sums::default();
        for micro in 0..self.options.accumulate as u64 {
            let rows = sampler.next_batch();
            let loss = data.loss(&self.pass(Some(number * self.options.accumulate as u64 + micro))?, &rows)?;
            let value = all.add(&loss)?;
            if !value.is_finite() {
                let broken = diagnosis::weight(&self.parameters).or_else(|| self.broken_layer(data, &rows));
                let first = broken.unwrap_or_else(|| "the head, since all weights and layers are finite".into());
                return Err(self.not_finite(number + 1, format!("the loss is {value}; the first that is not finite is {first}")));
            }
            let flowed = backward(&loss.sum)?;
            // A single batch needs no second copy of its gradients.
            if self.options.accumulate == 1 {
                gradients = flowed;
            } else {
                gradients.accumulate(flowed)?;
            }
        }
        if !self.reached {
            gradients.check(self.parameters.iter().map(|(name, tensor)| (name, tensor)))?;
            self.reached = true;
        }
        let count = all.count as f64;
        let clipped = clip(&self.parameters, &gradients, 1.0 / count, self.options.clip)
            .map_err(|error| self.not_finite(number + 1, error.to_string()))?;
        let lr = self.options.lr * self.options.schedule.factor(number);
        self.optimizer.step(&self.parameters, &gradients, lr, clipped.factor)?;
        self.step += 1;
        self.position = Some(sampler.position());
        Ok(Record {
            step: self.step,
            loss: all.sum / count,
            lr,
            grad_norm: clipped.norm,
            tokens: all.tokens,
            tokens_per_second: all.tokens as f64 / started.elapsed().as_secs_f64(),
            seconds: begin.elapsed().as_secs_f64(),
            rewards: all.rewards.map(|sum| Rewards { accuracy: sum.accuracy / count, margin: sum.margin / count }),
        })
    }

    /// A forward pass. `dropout`: the number of the draw, where this is training and something may be dropped.
    fn pass(&self, dropout: Option<u64>) -> Result<Pass<'_>> {
        let mut pass = Pass::plain(self.llama, &self.table);
        if let Some(number) = dropout {
            pass.dropout = self.llama.dropout_seeds(self.options.seed, number)?;
            if self.options.recompute {
                pass.around = Some(Around::new(|layer, inputs| puna_autograd::checkpoint(layer, inputs)));
            }
        }
        Ok(pass)
    }

    /// The mean loss over data that is not learnt from, in nats a label (of preferences, a pair).
    ///
    /// Errors: what the device says.
    pub fn evaluate(&self, data: &dyn Objective) -> Result<f64> {
        let pass = self.pass(None)?;
        let mut all = Sums::default();
        no_grad(|| {
            let rows: Vec<u64> = (0..data.rows()).collect();
            rows.chunks(self.options.rows).try_for_each(|rows| all.add(&data.loss(&pass, rows)?).map(drop))
        })?;
        Ok(all.sum / all.count as f64)
    }

    fn save(&mut self, folder: &Path) -> Result<PathBuf> {
        let position = self.position.expect("a step has been taken, or a checkpoint resumed");
        let state = State { step: self.step, position, seed: self.options.seed, options: self.options.to_json() };
        let export = |folder: &Path| self.export.map_or(Ok(()), |export| export(self.llama, folder));
        let (optimizer, mut bytes) = (&*self.optimizer, |tensor: &Tensor| Ok(tensor.to_bytes()?));
        let path = checkpoint::save(folder, &state, &self.parameters, optimizer, &mut bytes, &export)?;
        checkpoint::prune(folder, self.options.keep)?;
        Ok(path)
    }

    /// The first layer that gives what is not finite, over these rows.
    fn broken_layer(&self, data: &dyn Objective, rows: &[u64]) -> Option<String> {
        let found = diagnosis::Layers::default();
        let pass = Pass { around: Some(found.around()), ..self.pass(None).ok()? };
        no_grad(|| data.loss(&pass, rows)).ok()?;
        found.first()
    }

    /// What went wrong, at which step, and where to go on from.
    fn not_finite(&self, step: u64, what: String) -> Error {
        let last = self.options.folder.as_deref().and_then(|folder| latest(folder).ok().flatten());
        let back = match last {
            Some(path) => format!("; {} is the last good checkpoint", path.display()),
            None => String::new(),
        };
        Error::new(Kind::NonFinite, format!("step {step}"), format!("{what}{back}; a lower learning rate may help"))
    }
}

/// Losses of several batches, summed.
#[derive(Debug, Default)]
struct Sums {
    sum: f64,
    count: u64,
    tokens: u64,
    rewards: Option<Rewards>,
}

impl Sums {
    /// Adds a batch's and gives its sum.
    fn add(&mut self, loss: &Loss) -> Result<f64> {
        let value = no_grad(|| loss.sum.detach().cast(DType::F64)?.item::<f64>())?;
        self.sum += value;
        self.count += loss.count;
        self.tokens += loss.tokens;
        if let Some(more) = loss.rewards {
            let sum = self.rewards.get_or_insert_default();
            sum.accuracy += more.accuracy;
            sum.margin += more.margin;
        }
        Ok(value)
    }
}
