//! The loop: batches to gradients to steps, with checkpoints, evaluation, and a record of what happened.

mod checkpoint;
mod metrics;
mod options;
mod report;

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::Instant;

use puna_autograd::optim::{Optimizer, clip};
use puna_autograd::{Gradients, backward};
use puna_llama::{Around, Llama, RotaryTable, Step};
use puna_tensor::{Tensor, no_grad};

pub use checkpoint::{State, latest};
pub use metrics::Record;
pub use options::TrainOptions;
pub use report::{Event, Report};

use crate::data::{Batch, Batches, Packed};
use crate::error::{Error, Kind, Result};
use metrics::Metrics;

/// Trains a model: holds it, its parameters and its optimiser from the first step to the last.
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
    /// Where a checkpoint said that the data stood.
    resumed: Option<State>,
    /// Steps taken, with those before the checkpoint that was resumed from.
    step: u64,
}

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
        Ok(Self { llama, parameters, optimizer, options, table, resumed: None, step: 0 })
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
        self.resumed = Some(state);
        Ok(Some(path))
    }

    /// Takes steps until there are `options.steps` of them, or until `options.stop` says so; `observe` is told of each, of evaluations
    /// and of checkpoints.
    ///
    /// A run that was stopped or interrupted goes on with [`resume`](Self::resume): the same bits as if it had not been.
    ///
    /// Errors: data that does not fit; a loss or gradient that is not finite, with the step and the first such tensor (the last checkpoint
    /// stays); what the device or the disk says.
    pub fn train(&mut self, data: &Packed, held_out: Option<&Packed>, observe: &mut dyn FnMut(Event<'_>)) -> Result<Report> {
        let mut batches = data.batches(self.options.seed, self.options.rows)?;
        if let Some(state) = &self.resumed {
            batches = batches.resume(state.position)?;
        }
        let mut metrics = self.options.folder.as_deref().map(|folder| Metrics::open(folder, self.step)).transpose()?;
        let begin = Instant::now();
        let mut report = Report::default();
        while self.step < self.options.steps {
            let record = self.step(&mut batches, begin)?;
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
            if let Some(folder) = self.options.folder.clone().filter(|_| due(self.options.save_every) || last || stop) {
                let path = self.save(&folder, &batches)?;
                observe(Event::Saved(&path));
                report.checkpoint = Some(path);
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
    fn step(&mut self, batches: &mut Batches, begin: Instant) -> Result<Record> {
        let started = Instant::now();
        let number = self.step;
        let mut gradients = Gradients::new();
        let (mut sum, mut count, mut tokens) = (0.0, 0u64, 0u64);
        for micro in 0..self.options.accumulate as u64 {
            let batch = batches.next().expect("batches do not end")?;
            let (loss, counted) = self.loss(&batch, Some(number * self.options.accumulate as u64 + micro))?;
            let value = f64::from(loss.item::<f32>()?);
            if !value.is_finite() {
                return Err(self.not_finite(number + 1, &format!("the loss is {value}")));
            }
            let flowed = backward(&loss)?;
            // A single batch needs no second copy of its gradients.
            if self.options.accumulate == 1 {
                gradients = flowed;
            } else {
                gradients.accumulate(flowed)?;
            }
            sum += value;
            count += u64::from(counted);
            tokens += batch.tokens() as u64;
        }
        if number == 0 || self.resumed.is_some() {
            self.resumed = None;
            gradients.check(self.parameters.iter().map(|(name, tensor)| (name, tensor)))?;
        }
        let clipped = clip(&self.parameters, &gradients, 1.0 / count as f64, self.options.clip)
            .map_err(|error| self.not_finite(number + 1, &error.to_string()))?;
        let lr = self.options.lr * self.options.schedule.factor(number);
        self.optimizer.step(&self.parameters, &gradients, lr, clipped.factor)?;
        self.step += 1;
        let seconds = started.elapsed().as_secs_f64();
        Ok(Record {
            step: self.step,
            loss: sum / count as f64,
            lr,
            grad_norm: clipped.norm,
            tokens,
            tokens_per_second: tokens as f64 / seconds,
            seconds: begin.elapsed().as_secs_f64(),
        })
    }

    /// The sum of a batch's losses and how many labels count. `dropout`: the number of the draw, where something is dropped.
    fn loss(&self, batch: &Batch, dropout: Option<u64>) -> Result<(Tensor, u32)> {
        let device = self.llama.model.norm.weight.device().clone();
        let mut step = Step::packed(self.llama, &self.table, &batch.starts)?;
        if let Some(number) = dropout {
            step.dropout = self.llama.dropout_seeds(self.options.seed, number)?;
            if self.options.recompute {
                step.around = Some(Around::new(|layer, inputs| puna_autograd::checkpoint(layer, inputs)));
            }
        }
        let hidden = self.llama.forward(&batch.ids_on(&device)?, &step)?;
        let (sum, count) = self.llama.loss(&hidden, &batch.labels_on(&device)?)?;
        Ok((sum, count.item::<u32>()?))
    }

    /// The mean loss over data that is not learnt from, in nats a token.
    ///
    /// Errors: what the device says.
    pub fn evaluate(&self, data: &Packed) -> Result<f64> {
        no_grad(|| {
            let (mut sum, mut count) = (0.0, 0u64);
            for batch in data.in_order(self.options.rows)? {
                let (loss, counted) = self.loss(&batch?, None)?;
                sum += f64::from(loss.item::<f32>()?);
                count += u64::from(counted);
            }
            Ok(sum / count as f64)
        })
    }

    fn save(&mut self, folder: &Path, batches: &Batches) -> Result<PathBuf> {
        let state = State { step: self.step, position: batches.position(), seed: self.options.seed };
        let path = checkpoint::save(folder, &state, &self.parameters, &*self.optimizer, &mut |tensor| Ok(tensor.to_bytes()?))?;
        checkpoint::prune(folder, self.options.keep)?;
        Ok(path)
    }

    /// What went wrong, at which step, in which parameter first, and where to go on from.
    fn not_finite(&self, step: u64, what: &str) -> Error {
        let is_broken = |tensor: &Tensor| {
            let sum = no_grad(|| tensor.abs()?.sum_all()?.cast(puna_tensor::DType::F32)?.item::<f32>());
            sum.is_ok_and(|sum| !sum.is_finite())
        };
        let broken = self.parameters.iter().find(|(_, tensor)| is_broken(tensor));
        let where_ = match broken {
            Some((name, tensor)) => format!("; the first weight that is not finite is {name} {}", tensor.shape()),
            None => "; all weights are finite".into(),
        };
        let last = self.options.folder.as_deref().and_then(|folder| latest(folder).ok().flatten());
        let back = match last {
            Some(path) => format!("; {} is the last good checkpoint", path.display()),
            None => String::new(),
        };
        Error::new(Kind::NonFinite, format!("step {step}"), format!("{what}{where_}{back}; a lower learning rate may help"))
    }
}
