//! Writing token files. The layout is that of [`super::token_file`].

use std::io::{Cursor, Seek, SeekFrom, Write};
use std::path::Path;

use puna_llama::weights::mmap::MappedFile;
use puna_llama::weights::write::atomically;

use super::example::Example;
use super::token_file::{Header, TokenFile, Width};
use crate::error::{Error, Kind, Result};

/// Writes documents of tokens into a file, one behind the other, holding no more of them than where they begin.
pub(crate) struct TokenWriter<'w> {
    to: &'w mut dyn WriteSeek,
    place: String,
    vocab_size: u32,
    width: Width,
    tokens: u64,
    offsets: Vec<u64>,
    /// A bit for each token, set where it counts.
    counts: Vec<u8>,
    /// Whether there is one that does not count.
    masked: bool,
}

impl<'w> TokenWriter<'w> {
    /// Begins a file at the start of `to`; errors name it `place`.
    pub(crate) fn new(to: &'w mut dyn WriteSeek, place: String, vocab_size: usize) -> Result<Self> {
        let Some(vocab_size) = u32::try_from(vocab_size).ok().filter(|size| *size > 0) else {
            let message = format!("a vocabulary of {vocab_size} tokens; from 1 to {} fit a token file", u32::MAX);
            return Err(Error::argument(place, message));
        };
        let width = Width::of(vocab_size);
        let mut writer = Self { to, place, vocab_size, width, tokens: 0, offsets: vec![0], counts: Vec::new(), masked: false };
        // Room for the header, which knows the counts only at the end.
        writer.write(&[0; Header::BYTES])?;
        Ok(writer)
    }

    /// Appends tokens to the document that is open; `counts` says which of them count, all where it is `None`.
    pub(crate) fn append(&mut self, ids: &[u32], counts: Option<&[bool]>) -> Result<()> {
        if let Some(at) = ids.iter().position(|id| *id >= self.vocab_size) {
            let (id, size, document) = (ids[at], self.vocab_size, self.documents());
            let message = format!("document {document}: id {id}, but the vocabulary has {size} tokens; ids are below {size}");
            return Err(Error::new(Kind::TokenOutOfRange, &self.place, message));
        }
        let mut bytes = Vec::with_capacity(ids.len() * self.width.bytes());
        for id in ids {
            bytes.extend_from_slice(&id.to_le_bytes()[..self.width.bytes()]);
        }
        self.write(&bytes)?;
        for at in 0..ids.len() {
            let counted = counts.is_none_or(|counts| counts[at]);
            let bit = (self.tokens % 8) as u32;
            if bit == 0 {
                self.counts.push(0);
            }
            *self.counts.last_mut().expect("a byte was pushed for bit 0") |= u8::from(counted) << bit;
            self.masked |= !counted;
            self.tokens += 1;
        }
        Ok(())
    }

    /// Ends the document that is open.
    pub(crate) fn end_document(&mut self) {
        self.offsets.push(self.tokens);
    }

    /// Appends a whole document.
    pub(crate) fn push(&mut self, example: &Example) -> Result<()> {
        if example.ids.len() != example.counts.len() {
            let (n, m) = (example.ids.len(), example.counts.len());
            let message = format!("document {}: {n} ids and {m} counts; one for each", self.documents());
            return Err(Error::argument(&self.place, message));
        }
        self.append(&example.ids, Some(&example.counts))?;
        self.end_document();
        Ok(())
    }

    /// How many documents are complete.
    pub(crate) fn documents(&self) -> u64 {
        self.offsets.len() as u64 - 1
    }

    /// How many tokens there are.
    pub(crate) fn tokens(&self) -> u64 {
        self.tokens
    }

    /// Writes what stands behind the tokens, and the header.
    pub(crate) fn finish(mut self) -> Result<()> {
        let header = Header {
            width: self.width,
            masked: self.masked,
            vocab_size: self.vocab_size,
            tokens: self.tokens,
            documents: self.documents(),
        };
        self.align(self.tokens * self.width.bytes() as u64)?;
        if self.masked {
            let counts = std::mem::take(&mut self.counts);
            self.write(&counts)?;
            self.align(counts.len() as u64)?;
        }
        for chunk in std::mem::take(&mut self.offsets).chunks(1 << 13) {
            let bytes: Vec<u8> = chunk.iter().flat_map(|offset| offset.to_le_bytes()).collect();
            self.write(&bytes)?;
        }
        self.to.seek(SeekFrom::Start(0)).map_err(|e| failed(&self.place, e))?;
        self.write(&header.to_bytes())
    }

    fn align(&mut self, written: u64) -> Result<()> {
        self.write(&[0; 8][..(written.next_multiple_of(8) - written) as usize])
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.to.write_all(bytes).map_err(|e| failed(&self.place, e))
    }
}

fn failed(place: &str, source: std::io::Error) -> Error {
    Error::new(Kind::Io, place, format!("cannot write it: {source}")).with_source(source)
}

/// Writes documents into a token file, which appears whole or not at all (written beside its place, synced, renamed), and opens it.
/// Ids take two bytes each where the vocabulary has at most 65,536 tokens, else four. What [`TokenFile`] says of its layout holds.
///
/// Errors: those of `examples`; an id beyond the vocabulary; no document; what the operating system says.
pub fn write_tokens(path: &Path, vocab_size: usize, examples: impl IntoIterator<Item = Result<Example>>) -> Result<TokenFile> {
    fill_file(path, vocab_size, |writer| examples.into_iter().try_for_each(|example| writer.push(&example?)))
}

/// Lets `fill` write a token file on the disk, and opens it.
pub(crate) fn fill_file(
    path: &Path,
    vocab_size: usize,
    fill: impl FnOnce(&mut TokenWriter<'_>) -> Result<()>,
) -> Result<TokenFile> {
    let mut outcome = Ok(());
    let written = atomically(path, |to| {
        outcome = filled(to, path, vocab_size, fill);
        // Any error keeps the file from appearing; ours is the one that is told.
        outcome.as_ref().map_err(|e| puna_llama::Error::new(puna_llama::Kind::Io, e.place(), e.message())).copied()
    });
    outcome?;
    written?;
    TokenFile::open(path)
}

/// Lets `fill` write a token file in memory; `name` is what errors call it.
pub(crate) fn fill_memory(
    name: &Path,
    vocab_size: usize,
    fill: impl FnOnce(&mut TokenWriter<'_>) -> Result<()>,
) -> Result<TokenFile> {
    let mut bytes = Cursor::new(Vec::new());
    filled(&mut bytes, name, vocab_size, fill)?;
    TokenFile::parse(&MappedFile::from_vec(name, bytes.into_inner()))
}

fn filled(
    to: &mut dyn WriteSeek,
    path: &Path,
    vocab_size: usize,
    fill: impl FnOnce(&mut TokenWriter<'_>) -> Result<()>,
) -> Result<()> {
    let mut writer = TokenWriter::new(to, path.display().to_string(), vocab_size)?;
    fill(&mut writer)?;
    if writer.documents() == 0 {
        return Err(Error::new(Kind::Empty, path.display().to_string(), "no document in it; a data set has one at least"));
    }
    writer.finish()
}

/// What a token file is written to.
pub(crate) trait WriteSeek: Write + Seek {}

impl<T: Write + Seek> WriteSeek for T {}
