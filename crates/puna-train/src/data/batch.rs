use puna_tensor::{Device, Tensor};

use super::example::{Example, IGNORED};
use crate::error::{Error, Kind, Result};

/// Documents in a row, each a sequence of its own for attention: what one step learns from.
///
/// [`Step::packed`](puna_llama::Step::packed) takes `starts`; the loss takes `labels`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Batch {
    /// `[tokens]`: the tokens.
    pub ids: Vec<u32>,
    /// `[tokens]`: what each token should predict, [`IGNORED`] where that does not count. No label crosses a document's end.
    pub labels: Vec<u32>,
    /// `[tokens]`: each token's place in its sequence, from 0.
    pub positions: Vec<u32>,
    /// `[sequences + 1]`: where each sequence begins, ascending from 0, and the end.
    pub starts: Vec<u32>,
}

impl Batch {
    /// Whole examples, each a sequence.
    ///
    /// Errors: no example; no label that counts.
    pub fn of(examples: &[Example]) -> Result<Self> {
        let mut batch = Self::empty();
        for example in examples {
            batch.push(&example.ids, &example.labels());
        }
        batch.checked("batch")
    }

    pub(super) fn empty() -> Self {
        Self { starts: vec![0], ..Self::default() }
    }

    /// Appends a sequence.
    pub(super) fn push(&mut self, ids: &[u32], labels: &[u32]) {
        debug_assert_eq!(ids.len(), labels.len());
        self.ids.extend(ids);
        self.labels.extend(labels);
        self.positions.extend(0..ids.len() as u32);
        self.starts.push(self.ids.len() as u32);
    }

    /// Appends the sequences of another batch.
    pub(super) fn append(&mut self, other: &Batch) {
        let base = self.ids.len() as u32;
        self.ids.extend(&other.ids);
        self.labels.extend(&other.labels);
        self.positions.extend(&other.positions);
        self.starts.extend(other.starts[1..].iter().map(|start| base + start));
    }

    /// Refuses a batch whose loss would be a division by zero.
    pub(super) fn checked(self, place: &str) -> Result<Self> {
        if self.counted() > 0 {
            return Ok(self);
        }
        let (n, m) = (self.tokens(), self.sequences());
        let message = format!("a batch of {n} tokens in {m} sequences without a label that counts: its loss would be 0 / 0");
        Err(Error::new(Kind::NothingToLearn, place, message))
    }

    /// How many tokens it has.
    pub fn tokens(&self) -> usize {
        self.ids.len()
    }

    /// How many sequences it has.
    pub fn sequences(&self) -> usize {
        self.starts.len() - 1
    }

    /// How many labels count: what the loss is divided by.
    pub fn counted(&self) -> usize {
        self.labels.iter().filter(|label| **label != IGNORED).count()
    }

    /// The tokens on a device, `[tokens]` u32.
    pub fn ids_on(&self, device: &Device) -> Result<Tensor> {
        Ok(Tensor::from_slice(&self.ids, self.ids.len(), device)?)
    }

    /// The labels on a device, `[tokens]` u32.
    pub fn labels_on(&self, device: &Device) -> Result<Tensor> {
        Ok(Tensor::from_slice(&self.labels, self.labels.len(), device)?)
    }
}
