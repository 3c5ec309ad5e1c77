//! What a model learns: rows to draw from, and the loss of some of them.

use puna_llama::{Around, Llama, RotaryTable, Step};
use puna_tensor::{Tensor, no_grad};

use crate::data::{Batch, Packed};
use crate::error::{Error, Kind, Result};

/// What a model learns, as the [`Trainer`](super::Trainer) sees it: a number of rows, and the loss of some of them.
///
/// Packed data is one: each token predicts the next ([`Llama::loss`]). Preferences ([`Dpo`](crate::Dpo)) and a teacher
/// ([`Distillation`](crate::Distillation)) are others.
pub trait Objective {
    /// How many rows there are, one at least: what the order of a seed permutes.
    fn rows(&self) -> u64;

    /// Refuses, before the first step, what could not be learnt by this model with so many rows a batch.
    fn check(&self, llama: &Llama, rows: usize) -> Result<()>;

    /// The loss of some rows.
    fn loss(&self, pass: &Pass<'_>, rows: &[u64]) -> Result<Loss>;
}

/// The loss of a batch: a sum, and what it is divided by.
#[derive(Debug, Clone)]
pub struct Loss {
    /// The sum, `[]`.
    pub sum: Tensor,
    /// How many labels, or pairs, it is the sum over.
    pub count: u64,
    /// How many tokens were read.
    pub tokens: u64,
    /// Of preferences, what they come to, summed over pairs.
    pub rewards: Option<Rewards>,
}

/// How well preferences are learnt: a mean over pairs, or their sum.
#[derive(Debug, Clone, Copy, PartialEq, Default, serde::Serialize, serde::Deserialize)]
pub struct Rewards {
    /// The share of pairs in which the chosen answer has the larger reward.
    pub accuracy: f64,
    /// By how much: the reward of an answer is `beta * (ln p(answer) - ln p_reference(answer))`.
    pub margin: f64,
}

/// One forward pass of the model that is trained, with what training does to its layers.
#[derive(Debug, Clone)]
pub struct Pass<'a> {
    /// The model.
    pub llama: &'a Llama,
    pub(super) table: &'a RotaryTable,
    pub(super) dropout: Option<Tensor>,
    pub(super) around: Option<Around>,
}

impl<'a> Pass<'a> {
    /// A pass in which nothing is dropped and no layer is run twice.
    pub fn plain(llama: &'a Llama, table: &'a RotaryTable) -> Self {
        Self { llama, table, dropout: None, around: None }
    }

    /// Hidden states of a batch, `[tokens, hidden_size]`.
    ///
    /// Errors: a sequence longer than the context.
    pub fn hidden(&self, batch: &Batch) -> Result<Tensor> {
        let mut step = Step::packed(self.llama, self.table, &batch.starts)?;
        step.dropout = self.dropout.clone();
        step.around = self.around.clone();
        Ok(self.llama.forward(&batch.ids_on(self.llama.model.norm.weight.device())?, &step)?)
    }
}

/// A model that does not learn: a teacher, a reference.
#[derive(Debug, Clone)]
pub(crate) struct Frozen {
    pub(crate) llama: Llama,
    table: RotaryTable,
}

impl Frozen {
    /// Its products with quantised weights are exact, as those of a model that is trained.
    pub(crate) fn new(mut llama: Llama) -> Self {
        llama.activations = puna_tensor::op::Activations::Exact;
        Self { table: RotaryTable::base(&llama.config), llama }
    }

    /// Hidden states of a batch, unrecorded.
    pub(crate) fn hidden(&self, batch: &Batch) -> Result<Tensor> {
        no_grad(|| Pass::plain(&self.llama, &self.table).hidden(batch))
    }
}

impl Objective for Packed {
    fn rows(&self) -> u64 {
        self.len()
    }

    fn check(&self, _: &Llama, rows: usize) -> Result<()> {
        self.in_order(rows).map(drop)
    }

    fn loss(&self, pass: &Pass<'_>, rows: &[u64]) -> Result<Loss> {
        let batch = gathered(self, rows)?;
        let hidden = pass.hidden(&batch)?;
        let (sum, _) = pass.llama.loss(&hidden, &batch.labels_on(hidden.device())?)?;
        Ok(Loss { sum, count: batch.counted() as u64, tokens: batch.tokens() as u64, rewards: None })
    }
}

/// Rows of packed data as one batch.
///
/// Errors: none of its labels counts.
pub(crate) fn gathered(data: &Packed, rows: &[u64]) -> Result<Batch> {
    let mut all = Batch { starts: vec![0], ..Batch::default() };
    for row in rows {
        let row = data.row(*row)?;
        let base = all.tokens() as u32;
        all.ids.extend(&row.ids);
        all.labels.extend(&row.labels);
        all.positions.extend(&row.positions);
        all.starts.extend(row.starts[1..].iter().map(|start| base + start));
    }
    if all.counted() == 0 {
        let message = format!("no label counts in rows {rows:?}: their loss would be 0 / 0");
        return Err(Error::new(Kind::NothingToLearn, "batch", message));
    }
    Ok(all)
}
