use super::batch::Batch;
use super::dataset::{Dataset, Tokenize};
use super::example::Example;
use super::sampler::{Position, Sampler};
use crate::error::{Error, Kind, Result};
use std::path::Path;

use puna_llama::ChatTemplate;
use puna_tokenizer::Tokenizer;

/// Two answers to one prompt, the first of which is preferred. In both the prompt does not count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// The prompt and the better answer.
    pub chosen: Example,
    /// The prompt and the worse answer.
    pub rejected: Example,
}

/// Pairs of answers, for direct preference optimisation.
#[derive(Debug, Clone)]
pub struct Preferences {
    /// A chosen document and a rejected one in turn.
    documents: Dataset,
}

impl Preferences {
    /// Reads lines of `{"prompt": .., "chosen": .., "rejected": ..}`: three texts, or three lists of messages, which `template`
    /// renders; without a prompt, the messages that both lists begin with are it.
    ///
    /// Errors: as [`Dataset::from_jsonl`].
    pub fn from_jsonl(path: impl AsRef<Path>, tokenizer: &Tokenizer, template: Option<&ChatTemplate>) -> Result<Self> {
        Tokenize::new(tokenizer).template(template).preferences(&[path])
    }

    pub(super) fn new(documents: Dataset) -> Self {
        Self { documents }
    }

    /// How many pairs there are.
    pub fn len(&self) -> u64 {
        self.documents.len() / 2
    }

    /// Whether there are none: never, since reading refuses an empty file.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many tokens the vocabulary has.
    pub fn vocab_size(&self) -> usize {
        self.documents.vocab_size()
    }

    /// How many tokens the longest answer with its prompt has.
    pub fn longest(&self) -> Result<u64> {
        self.documents.longest()
    }

    /// A pair. Errors: no such pair.
    pub fn pair(&self, index: u64) -> Result<Pair> {
        if index >= self.len() {
            return Err(Error::argument("preferences", format!("pair {index} of {}; the first is 0", self.len())));
        }
        Ok(Pair { chosen: self.documents.example(2 * index)?, rejected: self.documents.example(2 * index + 1)? })
    }

    /// Batches of `pairs` pairs, in an order that `seed` shuffles anew each epoch, without end. Of a batch's documents those with
    /// even numbers are chosen, each followed by the rejected one. `context`: the most tokens that a document may have.
    ///
    /// Errors: no pairs a batch; a document longer than the context.
    pub fn batches(&self, seed: u64, pairs: usize, context: usize) -> Result<PairBatches> {
        for document in 0..self.documents.len() {
            let tokens = self.documents.tokens_of(document)?;
            if tokens > context as u64 {
                let which = if document % 2 == 0 { "chosen" } else { "rejected" };
                let message = format!("pair {}: {which} has {tokens} tokens, but a sequence holds {context}", document / 2);
                return Err(Error::new(Kind::TooLong, self.documents.place(), message));
            }
        }
        Ok(PairBatches { sampler: Sampler::new(self.len(), seed, pairs)?, preferences: self.clone() })
    }
}

/// An endless iterator over batches of pairs; see [`Preferences::batches`].
#[derive(Debug, Clone)]
pub struct PairBatches {
    preferences: Preferences,
    sampler: Sampler,
}

impl PairBatches {
    /// The part of one of `world` workers, as [`Batches::shard`](super::Batches::shard).
    pub fn shard(self, rank: usize, world: usize) -> Result<Self> {
        Ok(Self { sampler: self.sampler.shard(rank, world)?, ..self })
    }

    /// From a saved position on, as [`Batches::resume`](super::Batches::resume).
    pub fn resume(self, position: Position) -> Result<Self> {
        Ok(Self { sampler: self.sampler.resume(position)?, ..self })
    }

    /// Where it stands: what [`resume`](Self::resume) takes.
    pub fn position(&self) -> Position {
        self.sampler.position()
    }

    /// How many batches an epoch has, rounded up.
    pub fn batches_per_epoch(&self) -> u64 {
        self.sampler.batches_per_epoch()
    }
}

impl Iterator for PairBatches {
    type Item = Result<Batch>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut examples = Vec::new();
        for index in self.sampler.next_batch() {
            match self.preferences.pair(index) {
                Ok(pair) => examples.extend([pair.chosen, pair.rejected]),
                Err(e) => return Some(Err(e)),
            }
        }
        Some(Batch::of(&examples))
    }
}
