use std::path::Path;

use crate::added::{AddedTokens, Part};
use crate::merge::{FastMap, Merges, Symbol, UNKNOWN};
use crate::normalize::{Normalize, normalize};
use crate::split::Split;
use crate::{DecodeStream, Error, Result};

/// What becomes of special tokens' text in a text that is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Special {
    /// It is text like any other: what users write cannot become a control token.
    Text,
    /// It becomes the special token: for rendered chat templates.
    Parse,
}

/// Whether a text gets the token that begins one. There is no removing of doubles after the fact: who asks, decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bos {
    /// The tokenizer's beginning token goes before it, where the tokenizer says that texts begin with one.
    Add,
    /// As the text is written: a chat template has written it.
    AsWritten,
}

/// Text to token ids and back.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    /// What each token is; the index is the id.
    pub(crate) vocabulary: Vec<Token>,
    pub(crate) ids: FastMap<Box<[u8]>, u32>,
    pub(crate) added: AddedTokens,
    pub(crate) normalizer: Vec<Normalize>,
    pub(crate) splits: Vec<Split>,
    pub(crate) model: Model,
    pub(crate) decoder: Decoder,
    pub(crate) bos: Option<u32>,
    pub(crate) eos: Option<u32>,
    pub(crate) unk: Option<u32>,
    pub(crate) adds_bos: bool,
}

/// A token of the vocabulary.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Token {
    /// What it stands for: bytes of text, or the text of a special token.
    pub(crate) bytes: Box<[u8]>,
    pub(crate) kind: TokenKind,
    /// SentencePiece's score; 0 elsewhere.
    pub(crate) score: f32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TokenKind {
    /// Text that merging makes.
    Normal,
    /// A single byte that stands where a character is no token.
    Byte,
    /// What an unknown character becomes.
    Unknown,
    /// A special token: it is no text.
    Control,
    /// Found in text as it is.
    UserDefined,
    /// An id without a token.
    Unused,
}

/// How pieces become tokens.
#[derive(Debug, Clone)]
pub(crate) enum Model {
    /// Symbols are bytes at first.
    Bytes {
        /// The token of each byte.
        bytes: Box<[u32; 256]>,
        merges: Merges,
        /// Whether a piece that is a token as a whole is taken as that, whatever merging would give.
        whole: bool,
    },
    /// Symbols are characters at first; one that is no token becomes its bytes, or the unknown token.
    Characters {
        /// The token of each byte, where there are such.
        bytes: Option<Box<[u32; 256]>>,
        merges: Merges,
        whole: bool,
        /// Whether unknown characters side by side are one token.
        fuse_unknown: bool,
    },
}

/// How tokens become text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Decoder {
    /// What stands for a space in tokens.
    pub(crate) space: Option<String>,
    /// Whether the first token's leading space is one that encoding added.
    pub(crate) strip_first: bool,
    /// Whether special tokens are shown.
    pub(crate) shows_special: bool,
    /// What the unknown token reads.
    pub(crate) unknown: String,
}

impl Tokenizer {
    /// Reads a tokenizer from a file, or from a folder that holds `tokenizer.json` or `tokenizer.model`. What it is follows from its content.
    ///
    /// Errors: no such file; what is wrong in it, with its path.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let in_folder = ["tokenizer.json", "tokenizer.model"].into_iter().map(|name| path.join(name)).find(|file| file.is_file());
        let path = in_folder.as_deref().unwrap_or(path);
        let bytes = std::fs::read(path).map_err(|source| Error::Io { path: path.into(), source })?;
        Self::from_bytes(&bytes).map_err(|source| Error::File { path: path.into(), source: Box::new(source) })
    }

    /// Reads a tokenizer from a file's bytes: a `tokenizer.json`, a SentencePiece model, or tiktoken ranks.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        match bytes.iter().find(|byte| !byte.is_ascii_whitespace()) {
            Some(b'{') => Self::from_tokenizer_json(bytes),
            // Lines of base64 and a number, against protobuf, which begins with the tag of the first piece.
            Some(b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'+' | b'/')
                if bytes.iter().take(64).any(|byte| *byte == b' ') && bytes.first() != Some(&b'\n') =>
            {
                let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).count();
                let kind = crate::load::TiktokenKind::from_ranks(lines)?;
                Self::from_tiktoken(bytes, kind)
            }
            Some(_) => Self::from_sentencepiece(bytes),
            None => Err(Error::invalid("tokenizer", "the file is empty")),
        }
    }

    /// How many ids there are.
    pub fn vocab_size(&self) -> usize {
        self.vocabulary.len()
    }

    /// The token that begins a text.
    pub fn bos(&self) -> Option<u32> {
        self.bos
    }

    /// The token that ends a text.
    pub fn eos(&self) -> Option<u32> {
        self.eos
    }

    /// The token that unknown characters become.
    pub fn unk(&self) -> Option<u32> {
        self.unk
    }

    /// Whether [`Bos::Add`] adds a token.
    pub fn adds_bos(&self) -> bool {
        self.adds_bos && self.bos.is_some()
    }

    /// The id of a token by its text: a special token, or one that is written so.
    pub fn id(&self, token: &str) -> Option<u32> {
        self.added.by_text(token).map(|added| added.id).or_else(|| self.ids.get(token.as_bytes()).copied())
    }

    /// A token's text; ill-formed bytes as U+FFFD.
    pub fn token(&self, id: u32) -> Option<String> {
        self.vocabulary.get(id as usize).map(|token| String::from_utf8_lossy(&token.bytes).into_owned())
    }

    /// The bytes that a token stands for.
    pub fn token_bytes(&self, id: u32) -> Option<&[u8]> {
        self.vocabulary.get(id as usize).map(|token| &*token.bytes)
    }

    /// Whether a token is special: no text.
    pub fn is_special(&self, id: u32) -> bool {
        self.vocabulary.get(id as usize).is_some_and(|token| token.kind == TokenKind::Control)
    }

    /// The special tokens, by id.
    pub fn special_tokens(&self) -> impl Iterator<Item = (u32, &str)> {
        self.added.list.iter().filter(|added| added.special).map(|added| (added.id, added.text.as_str()))
    }

    /// Text to ids.
    pub fn encode(&self, text: &str, special: Special, bos: Bos) -> Vec<u32> {
        let mut ids = Vec::with_capacity(text.len() / 3 + 4);
        if let (Bos::Add, true, Some(id)) = (bos, self.adds_bos, self.bos) {
            ids.push(id);
        }
        let mut scratch = Scratch::default();
        let wanted = |normalized| {
            move |added: &crate::added::Added| added.normalized == normalized && (special == Special::Parse || !added.special)
        };
        let any_normalized = self.added.list.iter().any(|added| added.normalized);
        self.added.parts(text, wanted(false), &mut |part| match part {
            Part::Token(id) => ids.push(id),
            Part::Text(text) if self.normalizer.is_empty() && !any_normalized => self.encode_plain(text, &mut scratch, &mut ids),
            Part::Text(text) => {
                let text = normalize(&self.normalizer, text);
                self.added.parts(&text, wanted(true), &mut |part| match part {
                    Part::Token(id) => ids.push(id),
                    Part::Text(text) => self.encode_plain(text, &mut scratch, &mut ids),
                });
            }
        });
        ids
    }

    /// Bytes that should be UTF-8 to ids. Where they are not, byte-level tokenizers give single bytes' tokens, so that decoding gives the bytes
    /// back; others read each ill-formed byte as U+FFFD.
    pub fn encode_bytes(&self, bytes: &[u8], special: Special, bos: Bos) -> Vec<u32> {
        let Model::Bytes { bytes: tokens, .. } = &self.model else {
            let mut text = String::new();
            for chunk in bytes.utf8_chunks() {
                text.push_str(chunk.valid());
                text.extend(chunk.invalid().iter().map(|_| '\u{fffd}'));
            }
            return self.encode(&text, special, bos);
        };
        let mut ids = self.encode("", special, bos);
        for chunk in bytes.utf8_chunks() {
            ids.extend(self.encode(chunk.valid(), special, Bos::AsWritten));
            ids.extend(chunk.invalid().iter().map(|byte| tokens[usize::from(*byte)]).filter(|id| *id != UNKNOWN));
        }
        ids
    }

    fn encode_plain(&self, text: &str, scratch: &mut Scratch, ids: &mut Vec<u32>) {
        self.split(&self.splits, text, &mut |piece| self.encode_piece(piece, scratch, ids));
    }

    fn split<'t>(&self, splits: &[Split], text: &'t str, each: &mut dyn FnMut(&'t str)) {
        match splits {
            [] => each(text),
            [last] => last.pieces(text, each),
            [first, rest @ ..] => first.pieces(text, &mut |piece| self.split(rest, piece, each)),
        }
    }

    fn encode_piece(&self, piece: &str, scratch: &mut Scratch, ids: &mut Vec<u32>) {
        let (merges, whole) = match &self.model {
            Model::Bytes { merges, whole, .. } | Model::Characters { merges, whole, .. } => (merges, *whole),
        };
        if whole && let Some(&id) = self.ids.get(piece.as_bytes()) {
            ids.push(id);
            return;
        }
        let symbols = &mut scratch.symbols;
        symbols.clear();
        let text = piece.as_bytes();
        match &self.model {
            Model::Bytes { bytes, .. } => {
                symbols.extend(text.iter().enumerate().map(|(i, byte)| Symbol {
                    start: i,
                    end: i + 1,
                    id: bytes[usize::from(*byte)],
                }));
            }
            Model::Characters { .. } => {
                for (start, c) in piece.char_indices() {
                    let end = start + c.len_utf8();
                    symbols.push(Symbol { start, end, id: self.ids.get(&text[start..end]).copied().unwrap_or(UNKNOWN) });
                }
            }
        }
        merges.apply(text, symbols);
        let mut unknown_before = false;
        for symbol in symbols.iter() {
            if symbol.id != UNKNOWN {
                ids.push(symbol.id);
                unknown_before = false;
                continue;
            }
            match &self.model {
                Model::Characters { bytes: Some(bytes), .. } => {
                    ids.extend(text[symbol.start..symbol.end].iter().map(|byte| bytes[usize::from(*byte)]))
                }
                Model::Characters { fuse_unknown, .. } => {
                    if !(unknown_before && *fuse_unknown) {
                        ids.extend(self.unk);
                    }
                    unknown_before = true;
                }
                // A byte without a token: only a vocabulary that lacks some has it, and then nothing stands for it.
                Model::Bytes { .. } => ids.extend(self.unk),
            }
        }
    }

    /// Ids to text; ill-formed UTF-8 becomes U+FFFD, one for each maximal part.
    ///
    /// Errors: an id that the vocabulary does not have.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        let mut bytes = Vec::with_capacity(ids.len() * 4);
        let mut first = true;
        for &id in ids {
            self.append_bytes(id, first, &mut bytes)?;
            first &= self.is_special(id);
        }
        Ok(self.lossy(&bytes))
    }

    fn lossy(&self, bytes: &[u8]) -> String {
        if matches!(self.model, Model::Bytes { .. }) {
            return String::from_utf8_lossy(bytes).into_owned();
        }
        // SentencePiece replaces each ill-formed byte.
        let mut text = String::new();
        for chunk in bytes.utf8_chunks() {
            text.push_str(chunk.valid());
            text.extend(chunk.invalid().iter().map(|_| '\u{fffd}'));
        }
        text
    }

    /// To decode ids as they come.
    pub fn decode_stream(&self) -> DecodeStream<'_> {
        DecodeStream::new(self)
    }

    /// Appends what a token stands for; `first`: no text stands before it.
    pub(crate) fn append_bytes(&self, id: u32, first: bool, bytes: &mut Vec<u8>) -> Result<()> {
        let token = self.vocabulary.get(id as usize).ok_or(Error::TokenOutOfRange { id, vocab_size: self.vocabulary.len() })?;
        match token.kind {
            TokenKind::Control if !self.decoder.shows_special => {}
            TokenKind::Control | TokenKind::Byte => bytes.extend_from_slice(&token.bytes),
            TokenKind::Unknown => bytes.extend_from_slice(self.decoder.unknown.as_bytes()),
            TokenKind::Unused => {}
            TokenKind::Normal | TokenKind::UserDefined => match &self.decoder.space {
                None => bytes.extend_from_slice(&token.bytes),
                Some(space) => {
                    let mut rest = &token.bytes[..];
                    if first && self.decoder.strip_first {
                        rest = rest.strip_prefix(space.as_bytes()).unwrap_or(rest);
                    }
                    while !rest.is_empty() {
                        match rest.strip_prefix(space.as_bytes()) {
                            Some(behind) => {
                                bytes.push(b' ');
                                rest = behind;
                            }
                            None => {
                                bytes.push(rest[0]);
                                rest = &rest[1..];
                            }
                        }
                    }
                }
            },
        }
        Ok(())
    }
}

/// Memory that encoding a text uses for each of its pieces.
#[derive(Default)]
struct Scratch {
    symbols: Vec<Symbol>,
}
