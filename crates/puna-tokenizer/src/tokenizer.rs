use std::fmt;

use crate::Result;
use crate::added::{AddedTokens, Part};
use crate::decode::{Decoder, with_bytes_replaced};
use crate::model::{Alphabet, Bpe, Scratch};
use crate::normalize::{Normalize, normalize};
use crate::split::{self, Split};
use crate::vocabulary::{Kind, Vocabulary};

/// What becomes of special tokens' text in a text that is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Special {
    /// It is text like any other: what users write cannot become a control token.
    Text,
    /// It becomes the special token: for rendered chat templates.
    Parse,
}

/// Whether a text gets the token that begins one. No double is removed after the fact: who asks, decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bos {
    /// What the tokenizer puts around a text: for Llama its beginning token in front, where its file says so.
    Add,
    /// Nothing is added: a chat template has written it.
    AsWritten,
}

/// Text to token ids and back.
///
/// Read by [`from_file`](Self::from_file) and its kin. Shared between threads as it is.
pub struct Tokenizer {
    pub(crate) vocabulary: Vocabulary,
    /// SentencePiece's score of each token; empty for tokenizers that merge by a list.
    pub(crate) scores: Vec<f32>,
    pub(crate) added: AddedTokens,
    pub(crate) normalizer: Vec<Normalize>,
    pub(crate) splits: Vec<Split>,
    pub(crate) model: Bpe,
    pub(crate) decoder: Decoder,
    pub(crate) template: Template,
    pub(crate) bos: Option<u32>,
    pub(crate) eos: Option<u32>,
    pub(crate) pad: Option<u32>,
    /// Whether texts are cut as Meta's code does before anything else.
    pub(crate) limits: Limits,
}

/// What a text gets with [`Bos::Add`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Template {
    pub(crate) before: Vec<u32>,
    pub(crate) behind: Vec<u32>,
}

/// Where long texts are cut before they are encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Limits {
    /// Nowhere.
    None,
    /// Where Meta's code for tiktoken files does.
    Meta,
}

impl Tokenizer {
    /// Text to ids. Encoding takes O(n log n) for n bytes, whatever they are.
    ///
    /// Errors: a pattern from a `tokenizer.json` that takes too many steps on this text. Llama's own patterns never fail.
    pub fn encode(&self, text: &str, special: Special, bos: Bos) -> Result<Vec<u32>> {
        let mut ids = Vec::with_capacity(text.len() / 4 + 8);
        self.around(bos, &mut ids, |ids| {
            let mut scratch = Scratch::default();
            let mut encode = |text: &str| self.encode_text(text, special, &mut scratch, ids);
            match self.limits {
                Limits::None => encode(text),
                Limits::Meta => split::meta::chunks(text, &mut encode),
            }
        })?;
        Ok(ids)
    }

    /// Bytes that should be UTF-8 to ids.
    ///
    /// Where they are not, byte-level tokenizers encode each ill-formed stretch as a piece of its own, so that
    /// [`token_bytes`](Self::token_bytes) of the ids together are the bytes again; others read each ill-formed byte as U+FFFD.
    ///
    /// Errors: as [`encode`](Self::encode).
    pub fn encode_bytes(&self, bytes: &[u8], special: Special, bos: Bos) -> Result<Vec<u32>> {
        if !matches!(self.model.alphabet, Alphabet::Bytes(_)) {
            return self.encode(&with_bytes_replaced(bytes), special, bos);
        }
        let mut ids = Vec::with_capacity(bytes.len() / 4 + 8);
        self.around(bos, &mut ids, |ids| {
            let mut scratch = Scratch::default();
            for chunk in bytes.utf8_chunks() {
                ids.extend(self.encode(chunk.valid(), special, Bos::AsWritten)?);
                if !chunk.invalid().is_empty() {
                    self.model.encode_bytes(chunk.invalid(), &self.vocabulary, &mut scratch, ids);
                }
            }
            Ok(())
        })?;
        Ok(ids)
    }

    /// The one place that adds what begins and ends a text.
    fn around(&self, bos: Bos, ids: &mut Vec<u32>, encode: impl FnOnce(&mut Vec<u32>) -> Result<()>) -> Result<()> {
        if bos == Bos::Add {
            ids.extend_from_slice(&self.template.before);
        }
        encode(ids)?;
        if bos == Bos::Add {
            ids.extend_from_slice(&self.template.behind);
        }
        Ok(())
    }

    fn encode_text(&self, text: &str, special: Special, scratch: &mut Scratch, ids: &mut Vec<u32>) -> Result<()> {
        let parse = special == Special::Parse;
        self.added.cut(text, parse, &mut |part| match part {
            Part::Token(id) => {
                ids.push(id);
                Ok(())
            }
            Part::Text(text, begins) if self.normalizer.is_empty() => self.encode_normalized(text, begins, parse, scratch, ids),
            Part::Text(text, begins) => self.encode_normalized(&normalize(&self.normalizer, text), begins, parse, scratch, ids),
        })
    }

    fn encode_normalized(&self, text: &str, begins: bool, parse: bool, scratch: &mut Scratch, ids: &mut Vec<u32>) -> Result<()> {
        self.added.cut_normalized(text, begins, parse, &mut |part| match part {
            Part::Token(id) => {
                ids.push(id);
                Ok(())
            }
            Part::Text(text, begins) => split::cut(&self.splits, text, begins, &mut |piece, _| {
                self.model.encode(piece, &self.vocabulary, scratch, ids);
                Ok(())
            }),
        })
    }

    /// How many ids there are: the largest and one.
    pub fn vocab_size(&self) -> usize {
        self.vocabulary.len()
    }

    /// The token that begins a text, as far as the file says.
    pub fn bos(&self) -> Option<u32> {
        self.bos
    }

    /// The token that ends a text, as far as the file says.
    pub fn eos(&self) -> Option<u32> {
        self.eos
    }

    /// The token that pads texts of different lengths, as far as the file says.
    pub fn pad(&self) -> Option<u32> {
        self.pad
    }

    /// The token that unknown characters become.
    pub fn unk(&self) -> Option<u32> {
        self.model.unk
    }

    /// Whether [`Bos::Add`] puts [`bos`](Self::bos) before a text.
    pub fn adds_bos(&self) -> bool {
        self.bos.is_some() && self.template.before.first().copied() == self.bos
    }

    /// The id of a token by its text, as [`token`](Self::token) gives it: of a special token, else of one that merging makes.
    pub fn id(&self, token: &str) -> Option<u32> {
        let added = self.added.by_text(token).map(|added| added.id);
        added.or_else(|| self.vocabulary.id(token.as_bytes())).or_else(|| {
            let mut others = self
                .vocabulary
                .ids()
                .filter(|id| matches!(self.vocabulary.kind(*id), Kind::Byte | Kind::Unknown | Kind::Control));
            others.find(|id| self.token(*id).as_deref() == Some(token))
        })
    }

    /// A token's text: that of a special token, a SentencePiece piece as it is written (`▁the`, `<0x0A>`), the bytes of a
    /// byte-level token with ill-formed UTF-8 as U+FFFD. `None` for an id without a token.
    pub fn token(&self, id: u32) -> Option<String> {
        if let Some(added) = self.added.by_id(id) {
            return Some(added.text.clone());
        }
        match self.vocabulary.kind(id) {
            Kind::Gap => None,
            Kind::Byte => Some(format!("<0x{:02X}>", self.vocabulary.bytes(id)[0])),
            _ => Some(String::from_utf8_lossy(self.vocabulary.bytes(id)).into_owned()),
        }
    }

    /// The bytes of a token as the vocabulary holds them: of a byte-level token and of a byte piece those it stands for, of other
    /// SentencePiece pieces their text with `▁` for spaces. `None` for an id without a token.
    pub fn token_bytes(&self, id: u32) -> Option<&[u8]> {
        (self.vocabulary.kind(id) != Kind::Gap).then(|| self.vocabulary.bytes(id))
    }

    /// Whether a token is special: a control token, no text.
    pub fn is_special(&self, id: u32) -> bool {
        self.vocabulary.kind(id) == Kind::Control || self.added.by_id(id).is_some_and(|added| added.special)
    }

    /// The special tokens in the order of the file: id and text.
    pub fn special_tokens(&self) -> impl Iterator<Item = (u32, &str)> {
        self.added.list.iter().filter(|added| added.special).map(|added| (added.id, added.text.as_str()))
    }
}

impl fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokenizer")
            .field("vocab_size", &self.vocab_size())
            .field("bos", &self.bos)
            .field("eos", &self.eos)
            .finish_non_exhaustive()
    }
}
