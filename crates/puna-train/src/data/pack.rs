use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use super::batch::Batch;
use super::dataset::Dataset;
use super::example::IGNORED;
use super::permutation::divide;
use super::sampler::{Position, Sampler};
use crate::error::{Error, Kind, Result};

/// How documents become rows of a certain length. In both ways each document, or part of one, is a sequence of its own for
/// attention, with positions from 0: there is neither padding nor a mask.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Packing {
    /// All documents in a row, cut where a row is full and gone on with in the next: nothing is lost, and every token but the first of a
    /// document is a label once. For pretraining.
    ///
    /// Errors: tokens that do not count, since a conversation's parts would lose what they answer.
    Contiguous,
    /// Each document whole, in the first of the open rows that has room for it (first fit over the last [`WINDOW`] rows). For
    /// fine-tuning.
    ///
    /// Errors: a document longer than a row, unless [`Overlong`] says what becomes of it.
    Whole(Overlong),
}

/// What becomes of a document that is longer than a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Overlong {
    /// It is an error.
    #[default]
    Refuse,
    /// Only its beginning is used. One in whose beginning nothing counts is an error.
    Truncate,
    /// It is left out.
    Skip,
}

/// How many rows are open at once while documents are packed whole.
pub const WINDOW: usize = 64;

/// Documents in rows: what [`Dataset::pack`] gives.
///
/// A handle: clones share everything.
#[derive(Clone)]
pub struct Packed {
    data: Dataset,
    length: u64,
    rows: Rows,
    /// Which of the rows, ascending; all where it is `None`.
    chosen: Option<Arc<[u64]>>,
    overlong: u64,
}

#[derive(Clone)]
enum Rows {
    Contiguous {
        /// Where each document begins among the tokens of all, and the end; the file's own offsets where it is `None`.
        offsets: Option<Arc<[u64]>>,
        /// How many tokens there are in all.
        tokens: u64,
    },
    Whole {
        /// The documents of all rows.
        documents: Arc<[u64]>,
        /// Where among them each row begins, and the end.
        starts: Arc<[u64]>,
    },
}

impl Packed {
    pub(super) fn new(data: &Dataset, length: usize, packing: Packing) -> Result<Self> {
        if length < 2 || u32::try_from(length).is_err() {
            return Err(Error::argument("length", format!("rows of {length} tokens; from 2 to {} there are", u32::MAX)));
        }
        let length = length as u64;
        let (rows, overlong) = match packing {
            Packing::Contiguous => (contiguous(data)?, 0),
            Packing::Whole(overlong) => whole(data, length, overlong)?,
        };
        let packed = Self { data: data.clone(), length, rows, chosen: None, overlong };
        if packed.is_empty() {
            let message = format!("none of {} documents is left to be packed into rows of {length} tokens", data.len());
            return Err(Error::new(Kind::Empty, data.place(), message));
        }
        Ok(packed)
    }

    /// How many rows there are.
    pub fn len(&self) -> u64 {
        match (&self.chosen, &self.rows) {
            (Some(chosen), _) => chosen.len() as u64,
            (None, Rows::Contiguous { tokens, .. }) => {
                // A last row of one token would hold the end of a document and no label.
                tokens.saturating_sub(1).div_ceil(self.length)
            }
            (None, Rows::Whole { starts, .. }) => starts.len() as u64 - 1,
        }
    }

    /// Whether there are none: never, since packing refuses that.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many tokens a row has at most.
    pub fn length(&self) -> usize {
        self.length as usize
    }

    /// How many documents were longer than a row and truncated or left out, as [`Overlong`] said.
    pub fn overlong(&self) -> u64 {
        self.overlong
    }

    /// Which share of all rows' room tokens take: 1 is no waste.
    pub fn fill(&self) -> Result<f64> {
        let room = self.len() as f64 * self.length as f64;
        let tokens = match (&self.rows, &self.chosen) {
            (Rows::Contiguous { tokens, .. }, None) => *tokens as f64,
            _ => (0..self.len()).try_fold(0.0, |sum, row| Ok::<_, Error>(sum + self.tokens_in(row)? as f64))?,
        };
        Ok((tokens / room).min(1.0))
    }

    /// Holds out a fraction of the rows, chosen by a seed, one at least: what is left, and what is held out. With contiguous packing,
    /// the parts of a document may come into both; [`Dataset::split`] divides documents.
    ///
    /// Errors: a single row; a fraction that is not between 0 and 1.
    pub fn split(&self, fraction: f64, seed: u64) -> Result<(Self, Self)> {
        let (most, held) = divide(&self.data.place(), "rows", self.len(), fraction, seed)?;
        let some = |of: Vec<u64>| {
            let chosen = of.into_iter().map(|row| self.chosen.as_ref().map_or(row, |chosen| chosen[row as usize])).collect();
            Self { chosen: Some(chosen), ..self.clone() }
        };
        Ok((some(most), some(held)))
    }

    /// Batches of `rows` rows, in an order that `seed` shuffles anew each epoch, without end.
    ///
    /// Errors: no rows a batch; more tokens a batch than u32 counts.
    pub fn batches(&self, seed: u64, rows: usize) -> Result<Batches> {
        self.check_rows(rows)?;
        Ok(Batches { sampler: Sampler::new(self.len(), seed, rows)?, packed: self.clone() })
    }

    /// Every row once, in order, `rows` at a time, the last batch with what is left: for evaluation.
    ///
    /// Errors: as [`batches`](Self::batches).
    pub fn in_order(&self, rows: usize) -> Result<InOrder> {
        self.check_rows(rows)?;
        Ok(InOrder { packed: self.clone(), rows: rows as u64, next: 0 })
    }

    /// A row as a batch. Errors: no such row; ids beyond the vocabulary.
    pub fn row(&self, row: u64) -> Result<Batch> {
        let mut batch = Batch::empty();
        for (document, part) in self.parts(row)? {
            self.sequence(document, part, &mut batch)?;
        }
        Ok(batch)
    }

    fn check_rows(&self, rows: usize) -> Result<()> {
        let fits = (rows as u64).checked_mul(self.length).is_some_and(|tokens| tokens <= u64::from(u32::MAX));
        match rows {
            0 => Err(Error::argument("batch", "no rows a batch; one at least")),
            _ if fits => Ok(()),
            _ => Err(Error::argument("batch", format!("{rows} rows of {} tokens; {} tokens at most", self.length, u32::MAX))),
        }
    }

    fn tokens_in(&self, row: u64) -> Result<u64> {
        Ok(self.parts(row)?.into_iter().map(|(_, part)| part.end - part.start).sum())
    }

    /// A row's documents, and which of their tokens are in it.
    fn parts(&self, row: u64) -> Result<Vec<(u64, Range<u64>)>> {
        if row >= self.len() {
            return Err(Error::argument(self.data.place(), format!("row {row} of {}; the first is 0", self.len())));
        }
        let row = self.chosen.as_ref().map_or(row, |chosen| chosen[row as usize]);
        let mut parts = Vec::new();
        match &self.rows {
            Rows::Contiguous { offsets, tokens } => {
                let offset = |document: u64| match offsets {
                    Some(offsets) => offsets[document as usize],
                    None => self.data.file().offset(document),
                };
                let (mut at, end) = (row * self.length, ((row + 1) * self.length).min(*tokens));
                let mut document = partition_point(self.data.len(), |document| offset(document + 1) <= at);
                while at < end && document < self.data.len() {
                    let (begin, stop) = (offset(document), offset(document + 1));
                    let part = at.saturating_sub(begin)..end.min(stop).saturating_sub(begin);
                    at = at.max(end.min(stop));
                    if !part.is_empty() {
                        parts.push((document, part));
                    }
                    document += 1;
                }
            }
            Rows::Whole { documents, starts } => {
                for &document in &documents[starts[row as usize] as usize..starts[row as usize + 1] as usize] {
                    parts.push((document, 0..self.data.tokens_of(document)?.min(self.length)));
                }
            }
        }
        Ok(parts)
    }

    /// Appends a part of a document; what its last token should predict may lie behind it.
    fn sequence(&self, document: u64, part: Range<u64>, batch: &mut Batch) -> Result<()> {
        let file = self.data.file();
        let span = file.span(self.data.place_in_file(document))?;
        let (start, end) = (span.start + part.start, span.start + part.end);
        if start >= end || end > span.end {
            let message = format!("document {document} is another than when it was packed: the file was changed in use");
            return Err(Error::format(self.data.place(), message));
        }
        let seen = (end + 1).min(span.end);
        let mut ids = Vec::with_capacity((seen - start) as usize);
        file.ids(start..seen, &mut ids)?;
        let mut labels: Vec<u32> = ids.iter().skip(1).copied().collect();
        if file.is_masked() {
            for (label, token) in labels.iter_mut().zip(start + 1..) {
                if !file.counts(token) {
                    *label = IGNORED;
                }
            }
        }
        if end == seen {
            labels.push(IGNORED);
        } else {
            ids.pop();
        }
        batch.push(&ids, &labels);
        Ok(())
    }

    fn gather(&self, rows: impl IntoIterator<Item = u64>) -> Result<Batch> {
        let mut batch = Batch::empty();
        for row in rows {
            batch.append(&self.row(row)?);
        }
        batch.checked(&self.data.place())
    }
}

fn contiguous(data: &Dataset) -> Result<Rows> {
    if data.file().is_masked() {
        let message = "it has tokens that do not count (prompts), which contiguous packing would part from their answers; \
                       whole packing keeps them together";
        return Err(Error::argument(data.place(), message));
    }
    if data.is_whole_file() {
        return Ok(Rows::Contiguous { offsets: None, tokens: data.tokens()? });
    }
    let mut offsets = vec![0];
    let mut tokens = 0;
    for document in 0..data.len() {
        tokens += data.tokens_of(document)?;
        offsets.push(tokens);
    }
    Ok(Rows::Contiguous { offsets: Some(offsets.into()), tokens })
}

/// First fit over a window of open rows; gives how many documents were overlong, too.
fn whole(data: &Dataset, length: u64, overlong: Overlong) -> Result<(Rows, u64)> {
    let (mut documents, mut starts) = (Vec::new(), vec![0]);
    // The room that is left in each open row, and its documents.
    let mut open: std::collections::VecDeque<(u64, Vec<u64>)> = Default::default();
    let mut close = |row: Vec<u64>| {
        documents.extend(row);
        starts.push(documents.len() as u64);
    };
    let mut long = 0;
    for document in 0..data.len() {
        let mut tokens = data.tokens_of(document)?;
        if tokens > length {
            long += 1;
            match overlong {
                Overlong::Refuse => {
                    let message = format!(
                        "document {document} has {tokens} tokens, but a row holds {length}; longer rows, Overlong::Truncate or \
                         Overlong::Skip would do"
                    );
                    return Err(Error::new(Kind::TooLong, data.place(), message));
                }
                Overlong::Skip => continue,
                Overlong::Truncate => check_beginning(data, document, length)?,
            }
            tokens = length;
        }
        if tokens == 0 {
            continue;
        }
        match open.iter_mut().find(|(room, _)| *room >= tokens) {
            Some((room, row)) => {
                *room -= tokens;
                row.push(document);
            }
            None => {
                open.push_back((length - tokens, vec![document]));
                if open.len() > WINDOW {
                    close(open.pop_front().expect("more than one is open").1);
                }
            }
        }
    }
    open.into_iter().for_each(|(_, row)| close(row));
    Ok((Rows::Whole { documents: documents.into(), starts: starts.into() }, long))
}

/// Refuses a document in whose first `length` tokens no label counts.
fn check_beginning(data: &Dataset, document: u64, length: u64) -> Result<()> {
    let span = data.file().span(data.place_in_file(document))?;
    if (span.start + 1..span.end.min(span.start + length + 1)).any(|token| data.file().counts(token)) {
        return Ok(());
    }
    let message = format!(
        "document {document} has {} tokens, and none of the first {length} counts, to which it would be truncated; longer rows or \
         Overlong::Skip would do",
        span.end - span.start
    );
    Err(Error::new(Kind::NothingToLearn, data.place(), message))
}

/// The first of `0..len` of which `before` does not hold.
fn partition_point(len: u64, before: impl Fn(u64) -> bool) -> u64 {
    let (mut low, mut high) = (0, len);
    while low < high {
        let middle = low + (high - low) / 2;
        if before(middle) { low = middle + 1 } else { high = middle }
    }
    low
}

impl fmt::Debug for Packed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Packed({}, {} rows of {} tokens)", self.data.place(), self.len(), self.length)
    }
}

/// An endless iterator over shuffled batches; see [`Packed::batches`].
///
/// All batches have equally many rows, also where an epoch ends in one; every epoch gives every row once.
#[derive(Debug, Clone)]
pub struct Batches {
    packed: Packed,
    sampler: Sampler,
}

impl Batches {
    /// The part of worker `rank` of `world`. Together they go through the data as one worker with `world` times the batch would.
    ///
    /// Errors: a rank that is not below the world.
    pub fn shard(self, rank: usize, world: usize) -> Result<Self> {
        Ok(Self { sampler: self.sampler.shard(rank, world)?, ..self })
    }

    /// Goes on where another stood, exactly, also with another number of rows a batch or of workers.
    ///
    /// Errors: a position in other data or of another seed.
    pub fn resume(self, position: Position) -> Result<Self> {
        Ok(Self { sampler: self.sampler.resume(position)?, ..self })
    }

    /// Where it stands: what a checkpoint keeps and [`resume`](Self::resume) takes.
    pub fn position(&self) -> Position {
        self.sampler.position()
    }

    /// How many batches an epoch has, rounded up.
    pub fn batches_per_epoch(&self) -> u64 {
        self.sampler.batches_per_epoch()
    }
}

impl Iterator for Batches {
    type Item = Result<Batch>;

    fn next(&mut self) -> Option<Self::Item> {
        Some(self.packed.gather(self.sampler.next_batch()))
    }
}

/// An iterator over every row once; see [`Packed::in_order`].
#[derive(Debug, Clone)]
pub struct InOrder {
    packed: Packed,
    rows: u64,
    next: u64,
}

impl Iterator for InOrder {
    type Item = Result<Batch>;

    fn next(&mut self) -> Option<Self::Item> {
        let rows = self.next..(self.next + self.rows).min(self.packed.len());
        self.next = rows.end;
        (!rows.is_empty()).then(|| self.packed.gather(rows))
    }
}
