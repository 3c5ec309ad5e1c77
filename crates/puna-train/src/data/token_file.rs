use std::fmt;
use std::ops::Range;
use std::path::Path;

use puna_bytes::Reader;
use puna_llama::weights::mmap::MappedFile;

use super::example::Example;
use crate::error::{Error, Kind, Result};

/// The first bytes of a token file.
const MAGIC: [u8; 8] = *b"PUNATOK\0";
const VERSION: u32 = 1;
/// Set where the file says which tokens count.
const MASKED: u16 = 1;

/// Documents of tokens in a mapped file: nothing is read before it is looked at, so a corpus may be larger than memory.
///
/// Little-endian, each part beginning at a multiple of 8 bytes, the gaps filled with zeros:
///
/// | part | holds |
/// | --- | --- |
/// | header, 48 bytes | `PUNATOK\0`, version 1 (u32), bytes an id (u16: 2 or 4), flags (u16: bit 0, there is a mask), vocabulary size, tokens, documents (u64 each), FNV-1a of the 40 bytes before (u64) |
/// | ids | `tokens` of them, u16 or u32 |
/// | mask, if flagged | a bit for each token, the lowest first: whether it counts |
/// | offsets | `documents + 1` u64: the token at which each document begins, and the end |
///
/// A handle: clones share the mapping. The file must not be changed while it is mapped.
#[derive(Clone)]
pub struct TokenFile {
    file: MappedFile,
    header: Header,
    ids: Range<usize>,
    counts: Option<Range<usize>>,
    offsets: Range<usize>,
}

/// How many bytes an id takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Width {
    U16,
    U32,
}

impl Width {
    /// The width for a vocabulary.
    pub(crate) fn of(vocab_size: u32) -> Self {
        if vocab_size <= 1 << 16 { Self::U16 } else { Self::U32 }
    }

    pub(crate) fn bytes(self) -> usize {
        match self {
            Self::U16 => 2,
            Self::U32 => 4,
        }
    }
}

/// What a file says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) width: Width,
    pub(crate) masked: bool,
    pub(crate) vocab_size: u32,
    pub(crate) tokens: u64,
    pub(crate) documents: u64,
}

impl Header {
    pub(crate) const BYTES: usize = 48;

    pub(crate) fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[12..14].copy_from_slice(&(self.width.bytes() as u16).to_le_bytes());
        bytes[14..16].copy_from_slice(&(if self.masked { MASKED } else { 0 }).to_le_bytes());
        bytes[16..24].copy_from_slice(&u64::from(self.vocab_size).to_le_bytes());
        bytes[24..32].copy_from_slice(&self.tokens.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.documents.to_le_bytes());
        let sum = checksum(&bytes[..40]);
        bytes[40..].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    fn read(r: &mut Reader<'_>) -> puna_bytes::Result<Self> {
        let sum = checksum(r.peek("header", 40)?);
        if r.peek("magic", 8)? != MAGIC {
            return Err(r.invalid("magic", "no token file; one begins with \"PUNATOK\\0\""));
        }
        r.skip("magic", 8)?;
        let version = r.clone().u32_le("version")?;
        if version != VERSION {
            return Err(r.invalid("version", format!("version {version}; this program reads {VERSION}")));
        }
        r.skip("version", 4)?;
        let width = match r.clone().u16_le("bytes an id")? {
            2 => Width::U16,
            4 => Width::U32,
            other => return Err(r.invalid("bytes an id", format!("{other}; 2 and 4 there are"))),
        };
        r.skip("bytes an id", 2)?;
        let flags = r.clone().u16_le("flags")?;
        if flags & !MASKED != 0 {
            return Err(r.invalid("flags", format!("{flags:#06x}; only bit 0 has a meaning")));
        }
        r.skip("flags", 2)?;
        let size = r.clone().u64_le("vocabulary size")?;
        let Some(vocab_size) = u32::try_from(size).ok().filter(|size| *size > 0) else {
            return Err(r.invalid("vocabulary size", format!("{size}; from 1 to {}", u32::MAX)));
        };
        r.skip("vocabulary size", 8)?;
        let tokens = r.u64_le("tokens")?;
        let documents = r.u64_le("documents")?;
        if r.clone().u64_le("checksum")? != sum {
            return Err(r.invalid("checksum", "it is not that of the header, which is damaged"));
        }
        r.skip("checksum", 8)?;
        Ok(Self { width, masked: flags & MASKED != 0, vocab_size, tokens, documents })
    }
}

/// FNV-1a: tells accidents from a header, not attacks.
pub(crate) fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}

impl TokenFile {
    /// Maps a file that [`write_tokens`](super::write_tokens) has written and checks its structure. Ids are checked against the
    /// vocabulary when they are read.
    ///
    /// Errors: what the operating system says; no token file, one that is damaged or cut, by the field; one without a document.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::parse(&MappedFile::open(path.as_ref())?)
    }

    /// As [`open`](Self::open), of bytes that are there already.
    pub fn parse(file: &MappedFile) -> Result<Self> {
        let tokens = read(file).map_err(|e| Error::bytes(file.path().display().to_string(), e))?;
        if tokens.documents() == 0 {
            return Err(Error::new(Kind::Empty, tokens.place(), "no document in it; a data set has one at least"));
        }
        Ok(tokens)
    }

    /// How many documents there are.
    pub fn documents(&self) -> u64 {
        self.header.documents
    }

    /// How many tokens all documents have together.
    pub fn tokens(&self) -> u64 {
        self.header.tokens
    }

    /// How many tokens the vocabulary has: all ids are below it.
    pub fn vocab_size(&self) -> usize {
        self.header.vocab_size as usize
    }

    /// Whether there are tokens that do not count.
    pub fn is_masked(&self) -> bool {
        self.header.masked
    }

    /// The file's path; of documents in memory the name that errors call them.
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// A document.
    ///
    /// Errors: no such document; ids beyond the vocabulary.
    pub fn example(&self, document: u64) -> Result<Example> {
        let span = self.span(document)?;
        let mut example = Example::default();
        self.ids(span.clone(), &mut example.ids)?;
        example.counts.extend(span.map(|token| self.counts(token)));
        Ok(example)
    }

    /// Where among the tokens a document lies.
    pub(crate) fn span(&self, document: u64) -> Result<Range<u64>> {
        if document >= self.documents() {
            let message = format!("document {document}, but there are {}; the first is 0", self.documents());
            return Err(Error::argument(self.place(), message));
        }
        let (start, end) = (self.offset(document), self.offset(document + 1));
        // Opening has checked it; the file may have been changed since.
        if start <= end && end <= self.tokens() {
            return Ok(start..end);
        }
        Err(Error::format(self.place(), format!("document {document} now lies at {start} to {end}: the file was changed in use")))
    }

    /// The token at which a document begins; of one behind the last the end.
    pub(crate) fn offset(&self, document: u64) -> u64 {
        let at = self.offsets.start + 8 * document as usize;
        u64::from_le_bytes(self.bytes()[at..at + 8].try_into().expect("eight bytes"))
    }

    /// Appends ids to `into`.
    ///
    /// Errors: an id beyond the vocabulary.
    pub(crate) fn ids(&self, tokens: Range<u64>, into: &mut Vec<u32>) -> Result<()> {
        let width = self.header.width.bytes();
        let bytes = &self.bytes()[self.ids.clone()][tokens.start as usize * width..tokens.end as usize * width];
        let from = into.len();
        match self.header.width {
            Width::U16 => into.extend(bytes.chunks_exact(2).map(|id| u32::from(u16::from_le_bytes([id[0], id[1]])))),
            Width::U32 => into.extend(bytes.chunks_exact(4).map(|id| u32::from_le_bytes([id[0], id[1], id[2], id[3]]))),
        }
        match into[from..].iter().position(|id| *id >= self.header.vocab_size) {
            None => Ok(()),
            Some(at) => {
                let (id, size, token) = (into[from + at], self.header.vocab_size, tokens.start + at as u64);
                let message = format!("token {token} is id {id}, but the vocabulary has {size} tokens; ids are below {size}");
                Err(Error::new(Kind::TokenOutOfRange, self.place(), message))
            }
        }
    }

    /// Whether a token counts.
    pub(crate) fn counts(&self, token: u64) -> bool {
        let Some(counts) = &self.counts else { return true };
        self.bytes()[counts.clone()][(token / 8) as usize] >> (token % 8) & 1 == 1
    }

    pub(crate) fn place(&self) -> String {
        self.path().display().to_string()
    }

    fn bytes(&self) -> &[u8] {
        self.file.as_ref()
    }
}

fn read(file: &MappedFile) -> puna_bytes::Result<TokenFile> {
    let mut r = Reader::new(file.as_ref());
    let header = Header::read(&mut r)?;
    let mut part = |what: &str, entries: u64, entry_bytes: u64| {
        // Counting first: the product below cannot overflow then.
        let entries = r.count(what, entries, entry_bytes)? as u64;
        let start = r.position() as usize;
        r.skip(what, entries * entry_bytes)?;
        let part = start..r.position() as usize;
        r.align(what, 8)?;
        Ok::<_, puna_bytes::Error>(part)
    };
    let ids = part("ids", header.tokens, header.width.bytes() as u64)?;
    let counts = if header.masked { Some(part("mask", header.tokens.div_ceil(8), 1)?) } else { None };
    let offsets = part("offsets", header.documents.saturating_add(1), 8)?;
    if !r.is_empty() {
        return Err(r.invalid("end", format!("{} bytes more than the header says", r.left())));
    }
    let tokens = TokenFile { file: file.clone(), header, ids, counts, offsets };
    let mut before = 0;
    for document in 0..=header.documents {
        let offset = tokens.offset(document);
        let fits = if document == 0 { offset == 0 } else { offset >= before && offset <= header.tokens };
        if !fits || (document == header.documents && offset != header.tokens) {
            let mut at = Reader::new(file.as_ref());
            at.seek("offsets", tokens.offsets.start as u64 + 8 * document)?;
            let message = format!("{offset} behind {before}; they ascend from 0 to {}, the number of tokens", header.tokens);
            return Err(at.invalid(&format!("offset {document}"), message));
        }
        before = offset;
    }
    Ok(tokens)
}

impl fmt::Debug for TokenFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (documents, tokens) = (self.documents(), self.tokens());
        write!(f, "TokenFile({}, {documents} documents, {tokens} tokens)", self.path().display())
    }
}
