use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use puna_llama::ChatTemplate;
use puna_tokenizer::Tokenizer;
use serde_json::{Map, Value};

use super::encode::Encoder;
use super::example::Example;
use super::lines::{Lines, MAX_LINE};
use super::pack::{Packed, Packing};
use super::permutation::{Permutation, divide};
use super::preference::Preferences;
use super::record::Record;
use super::text;
use super::token_file::TokenFile;
use super::token_writer::{TokenWriter, fill_file, fill_memory, write_tokens};
use crate::error::{Error, Result};

/// Tokenized documents: of text, of instructions, of conversations; in memory or in a mapped [`TokenFile`].
///
/// A handle: clones share the tokens.
#[derive(Clone)]
pub struct Dataset {
    tokens: TokenFile,
    /// Which of the file's documents, ascending; all where it is `None`.
    documents: Option<Arc<[u64]>>,
}

impl Dataset {
    /// Reads text files as [`Tokenize::text`] does.
    pub fn from_text(paths: &[impl AsRef<Path>], tokenizer: &Tokenizer) -> Result<Self> {
        Tokenize::new(tokenizer).text(paths)
    }

    /// Reads JSON lines as [`Tokenize::jsonl`] does. A template is needed where there are messages.
    pub fn from_jsonl(path: impl AsRef<Path>, tokenizer: &Tokenizer, template: Option<&ChatTemplate>) -> Result<Self> {
        Tokenize::new(tokenizer).template(template).jsonl(&[path])
    }

    /// Maps a token file.
    ///
    /// Errors: as [`TokenFile::open`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Ok(TokenFile::open(path)?.into())
    }

    /// Documents that are tokens already.
    ///
    /// Errors: none at all; ids beyond the vocabulary.
    pub fn from_examples(vocab_size: usize, examples: &[Example]) -> Result<Self> {
        let fill = |to: &mut TokenWriter<'_>| examples.iter().try_for_each(|example| to.push(example));
        Ok(fill_memory(Path::new("examples"), vocab_size, fill)?.into())
    }

    /// Writes the documents into a token file, which appears whole or not at all, and gives the data set that maps it.
    ///
    /// Errors: what the operating system says.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<Self> {
        let examples = (0..self.len()).map(|document| self.example(document));
        Ok(write_tokens(path.as_ref(), self.vocab_size(), examples)?.into())
    }

    /// How many documents there are.
    pub fn len(&self) -> u64 {
        self.documents.as_ref().map_or(self.tokens.documents(), |documents| documents.len() as u64)
    }

    /// Whether there are none: never, since whatever makes a data set refuses that.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many tokens all documents have together.
    pub fn tokens(&self) -> Result<u64> {
        match &self.documents {
            None => Ok(self.tokens.tokens()),
            Some(_) => (0..self.len()).map(|document| self.tokens_of(document)).sum(),
        }
    }

    /// How many tokens the vocabulary has: a model needs as many.
    pub fn vocab_size(&self) -> usize {
        self.tokens.vocab_size()
    }

    /// A document. Errors: no such document; ids beyond the vocabulary.
    pub fn example(&self, document: u64) -> Result<Example> {
        self.tokens.example(self.place_in_file(document))
    }

    /// How many tokens a document has.
    pub fn tokens_of(&self, document: u64) -> Result<u64> {
        self.tokens.span(self.place_in_file(document)).map(|span| span.end - span.start)
    }

    /// How many tokens the longest document has.
    pub fn longest(&self) -> Result<u64> {
        (0..self.len()).try_fold(0, |longest, document| Ok(longest.max(self.tokens_of(document)?)))
    }

    /// Holds out a fraction of the documents, chosen by a seed, one at least: what is left, and what is held out.
    ///
    /// Errors: a single document ([`Packed::split`] divides that); a fraction that is not between 0 and 1.
    pub fn split(&self, fraction: f64, seed: u64) -> Result<(Self, Self)> {
        let (most, held) = divide(&self.place(), "documents", self.len(), fraction, seed)?;
        let some = |of: Vec<u64>| Self {
            tokens: self.tokens.clone(),
            documents: Some(of.into_iter().map(|document| self.place_in_file(document)).collect()),
        };
        Ok((some(most), some(held)))
    }

    /// The documents so many times over, each time in another order of the seed: what is packed then stands beside other documents each
    /// time, of other files too.
    ///
    /// Errors: no time at all.
    pub fn shuffled(&self, seed: u64, times: u64) -> Result<Self> {
        if times == 0 {
            return Err(Error::argument("shuffled", "the documents 0 times over would be none; once would be right"));
        }
        let order = (0..times).flat_map(|time| {
            let order = Permutation::new(self.len(), seed, time);
            (0..self.len()).map(move |document| order.apply(document))
        });
        let documents = order.map(|document| self.place_in_file(document)).collect();
        Ok(Self { tokens: self.tokens.clone(), documents: Some(documents) })
    }

    /// Puts the documents into rows of at most `length` tokens.
    ///
    /// Errors: see [`Packing`].
    pub fn pack(&self, length: usize, packing: Packing) -> Result<Packed> {
        Packed::new(self, length, packing)
    }

    pub(super) fn file(&self) -> &TokenFile {
        &self.tokens
    }

    /// Whether all documents of the file are in it, in its order.
    pub(super) fn is_whole_file(&self) -> bool {
        self.documents.is_none()
    }

    pub(super) fn place_in_file(&self, document: u64) -> u64 {
        match &self.documents {
            None => document,
            Some(documents) => documents.get(document as usize).copied().unwrap_or(u64::MAX),
        }
    }

    pub(super) fn place(&self) -> String {
        self.tokens.place()
    }
}

impl From<TokenFile> for Dataset {
    fn from(tokens: TokenFile) -> Self {
        Self { tokens, documents: None }
    }
}

impl fmt::Debug for Dataset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Dataset({}, {} documents)", self.place(), self.len())
    }
}

/// How far reading has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Bytes that are read.
    pub bytes: u64,
    /// Bytes that there are, as far as the files say.
    pub of: u64,
    /// Documents that are complete.
    pub documents: u64,
    /// Tokens that are written.
    pub tokens: u64,
}

/// Reads files into data sets. Files are read a line or a stretch at a time; what is kept is tokens, two bytes each (four for
/// vocabularies beyond 65,536), and a bit whether each counts.
///
/// ```no_run
/// # use puna_tokenizer::Tokenizer;
/// use puna_train::data::Tokenize;
///
/// # fn read(tokenizer: &Tokenizer) -> puna_train::Result<()> {
/// let mut report = |progress: puna_train::data::Progress| eprint!("\r{} of {} bytes", progress.bytes, progress.of);
/// let corpus = Tokenize::new(tokenizer).progress(&mut report).store("corpus.tokens").text(&["one.txt", "two.txt"])?;
/// # Ok(()) }
/// ```
pub struct Tokenize<'a> {
    tokenizer: &'a Tokenizer,
    template: Option<&'a ChatTemplate>,
    variables: Map<String, Value>,
    end: Option<u32>,
    store: Option<PathBuf>,
    progress: Option<&'a mut dyn FnMut(Progress)>,
}

impl<'a> Tokenize<'a> {
    /// With a tokenizer and its end token behind texts, in memory, without a chat template.
    pub fn new(tokenizer: &'a Tokenizer) -> Self {
        Self { tokenizer, template: None, variables: Map::new(), end: tokenizer.eos(), store: None, progress: None }
    }

    /// With a chat template for messages. One that reads the clock should have a fixed one
    /// ([`ChatTemplate::with_clock`]), or a `date_string`, so that two readings give the same tokens.
    pub fn template(self, template: Option<&'a ChatTemplate>) -> Self {
        Self { template, ..self }
    }

    /// With one more variable for the template, such as `date_string`.
    pub fn variable(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.variables.insert(name.to_owned(), value.into());
        self
    }

    /// With another token behind texts and completions than the tokenizer's end token, or none.
    pub fn end(self, token: Option<u32>) -> Self {
        Self { end: token, ..self }
    }

    /// Into a token file instead of memory.
    pub fn store(self, path: impl Into<PathBuf>) -> Self {
        Self { store: Some(path.into()), ..self }
    }

    /// With reports, about one for each megabyte and one at each file's end.
    pub fn progress(self, report: &'a mut dyn FnMut(Progress)) -> Self {
        Self { progress: Some(report), ..self }
    }

    /// Reads plain text: documents with a line `<|endoftext|>` between them, which has its line ends to itself; a file without one
    /// is a document. Documents without text are left out. Each gets the tokenizer's beginning token, where texts have one, and its
    /// end token. Text that looks like a special token stays text.
    ///
    /// Documents are encoded about a megabyte at a time, cut between words.
    ///
    /// Errors: what the operating system says; bytes that are no UTF-8 and a document without anything to predict, by file and
    /// line; no document.
    pub fn text(self, paths: &[impl AsRef<Path>]) -> Result<Dataset> {
        let name = paths.first().map_or(Path::new("text"), AsRef::as_ref);
        self.fill(name, paths, |path, encoder, to, each| text::read(path, encoder, to, each))
    }

    /// Reads files of JSON lines, each an object with
    ///
    /// * `text`: as a document of [`text`](Self::text);
    /// * `prompt` and `completion`: two strings, of which the second counts, and the end token behind it; or two lists of messages;
    /// * `messages`, and `tools` if the template shows them: a conversation, in which the assistant's turns count.
    ///
    /// What counts is what the model would have to write itself after the prompt that inference gives it: of a chat template's output
    /// neither the header of a turn nor white space behind the token that ends it, but that token itself. Templates with
    /// `{% generation %}` blocks say so themselves; those without must render the beginning of a conversation as the beginning of
    /// its rendering.
    ///
    /// Blank lines are passed over, further fields too.
    ///
    /// Errors: what the operating system says; by file and line what is no UTF-8, no JSON, none of the above, or teaches nothing;
    /// what the template says; no line at all.
    pub fn jsonl(self, paths: &[impl AsRef<Path>]) -> Result<Dataset> {
        self.lines(paths, &|encoder, line, place, to| to.push(&encoder.record(&Record::parse(line, place)?, place)?))
    }

    /// Reads JSON lines of preferences, as [`Preferences::from_jsonl`].
    pub fn preferences(self, paths: &[impl AsRef<Path>]) -> Result<Preferences> {
        let documents = self.lines(paths, &|encoder, line, place, to| {
            let pair = encoder.pair(Record::parse(line, place)?, place)?;
            to.push(&pair.chosen)?;
            to.push(&pair.rejected)
        })?;
        Ok(Preferences::new(documents))
    }

    fn lines(self, paths: &[impl AsRef<Path>], each_line: &EachLine<'_>) -> Result<Dataset> {
        let name = paths.first().map_or(Path::new("lines"), AsRef::as_ref);
        self.fill(name, paths, |path, encoder, to, each| {
            let mut lines = Lines::open(path)?;
            while let Some(line) = lines.next(MAX_LINE, true)?.map(str::to_owned) {
                if !line.trim().is_empty() {
                    each_line(encoder, &line, &|| lines.place(), to)?;
                }
                each(lines.bytes(), to);
            }
            Ok(())
        })
    }

    /// Fills a token file, in memory or on the disk, with what `read` makes of each path.
    fn fill(
        mut self,
        name: &Path,
        paths: &[impl AsRef<Path>],
        read: impl Fn(&Path, &Encoder<'_>, &mut TokenWriter<'_>, &mut Each<'_>) -> Result<()>,
    ) -> Result<Dataset> {
        let encoder = Encoder::new(self.tokenizer, self.template, std::mem::take(&mut self.variables), self.end)?;
        let sizes = paths.iter().map(|path| std::fs::metadata(path).map_or(0, |metadata| metadata.len()));
        let (of, mut before) = (sizes.sum::<u64>(), 0);
        let mut report = self.progress;
        let fill = |to: &mut TokenWriter<'_>| {
            for path in paths {
                let (mut now, mut reported) = (0, 0);
                let mut report = |bytes: u64, to: &TokenWriter<'_>| {
                    if let Some(report) = report.as_mut() {
                        report(Progress { bytes: before + bytes, of, documents: to.documents(), tokens: to.tokens() });
                    }
                };
                let mut each = |bytes: u64, to: &TokenWriter<'_>| {
                    now = bytes;
                    if bytes >= reported + REPORT {
                        reported = bytes;
                        report(bytes, to);
                    }
                };
                read(path.as_ref(), &encoder, to, &mut each)?;
                report(now, to);
                before += now;
            }
            Ok(())
        };
        let vocab_size = self.tokenizer.vocab_size();
        let tokens = match &self.store {
            Some(path) => fill_file(path, vocab_size, fill),
            None => fill_memory(name, vocab_size, fill),
        };
        Ok(tokens?.into())
    }
}

/// Bytes between two reports.
const REPORT: u64 = 1 << 20;

/// Hears of each piece that is read: the bytes of its file so far, and what is written.
pub(super) type Each<'a> = dyn FnMut(u64, &TokenWriter<'_>) + 'a;

/// Writes what a line at a place holds.
type EachLine<'a> = dyn Fn(&Encoder<'_>, &str, &dyn Fn() -> String, &mut TokenWriter<'_>) -> Result<()> + 'a;
