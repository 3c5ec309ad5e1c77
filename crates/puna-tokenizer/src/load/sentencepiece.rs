//! SentencePiece models: protobuf messages of pieces, how they were trained and how text is normalized.
//!
//! Kudo and Richardson 2018, arXiv 1808.06226.

use std::collections::{HashMap, HashSet};

use puna_bytes::Reader;

use super::{byte_of, check_size, joined_pairs};
use crate::added::{Added, AddedTokens};
use crate::decode::{Decoder, Lead, Malformed};
use crate::merge::Merges;
use crate::model::{Alphabet, Bpe, Characters, byte_tokens};
use crate::normalize::Normalize;
use crate::tokenizer::{Limits, Template};
use crate::vocabulary::{Kind, Vocabulary};
use crate::{Error, Result, Tokenizer};

/// What pieces have for a space.
pub(super) const SPACE: char = '\u{2581}';

/// What the unknown token reads if the model does not say.
const UNKNOWN_SURFACE: &str = " \u{2047} ";

const PLACE: &str = "SentencePiece model";

/// A protobuf field's value.
enum Value<'a> {
    Number(u64),
    Fixed32([u8; 4]),
    Bytes(Reader<'a>),
    /// Of a type that no field here has.
    Other,
}

/// Reads a field's number and value.
fn field<'a>(reader: &mut Reader<'a>, what: &str) -> Result<(u64, Value<'a>)> {
    let key = reader.varint(what)?;
    let value = match key & 7 {
        0 => Value::Number(reader.varint(what)?),
        1 => {
            reader.skip(what, 8)?;
            Value::Other
        }
        2 => {
            let length = reader.varint(what)?;
            Value::Bytes(reader.nested(what, length)?)
        }
        5 => Value::Fixed32(reader.array(what)?),
        other => return Err(reader.invalid(what, format!("wire type {other}; 0, 1, 2 or 5 would be right")).into()),
    };
    Ok((key >> 3, value))
}

fn text<'a>(mut reader: Reader<'a>, what: &str) -> Result<&'a str> {
    let length = reader.left() as u64;
    Ok(reader.str(what, length)?)
}

/// A message's fields, each named for errors by the message. A known field of another type than its number says is an error.
fn fields<'a>(mut reader: Reader<'a>, what: &str, mut each: impl FnMut(u64, &Value<'a>) -> Result<Known>) -> Result<()> {
    while !reader.is_empty() {
        let at = reader.clone();
        let (number, value) = field(&mut reader, what)?;
        if each(number, &value)? == Known::OtherType {
            return Err(at.invalid(what, format!("field {number} has another type than it should")).into());
        }
    }
    Ok(())
}

/// What a message makes of a field.
#[derive(PartialEq)]
enum Known {
    Taken,
    OtherType,
    /// Not among those that say what tokens a text has.
    Ignored,
}

/// What a model says beside its pieces; at first the format's defaults.
struct Settings {
    model_type: u64,
    suffix_space: bool,
    byte_fallback: bool,
    ids: [i64; 3],
    unknown_surface: String,
    normalizer: String,
    has_charsmap: bool,
    add_dummy_prefix: bool,
    remove_extra_whitespaces: bool,
    escape_whitespaces: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            model_type: 1,
            suffix_space: false,
            byte_fallback: false,
            ids: [0, 1, 2],
            unknown_surface: UNKNOWN_SURFACE.into(),
            normalizer: String::new(),
            has_charsmap: false,
            add_dummy_prefix: true,
            remove_extra_whitespaces: true,
            escape_whitespaces: true,
        }
    }
}

impl Tokenizer {
    /// Reads a SentencePiece model. Control and unknown pieces in text are found only where special tokens are parsed; each stretch of text
    /// between them gets the space that the model puts before a text.
    ///
    /// Errors: bytes that are no such message, with their offset; a model that is not BPE, a normalizer other than identity,
    /// unused pieces, all by name.
    pub fn from_sentencepiece(bytes: &[u8]) -> Result<Self> {
        check_size(PLACE, bytes.len() as u64)?;
        let mut pieces = Pieces::default();
        let mut settings = Settings::default();
        fields(Reader::new(bytes), "model", |number, value| match (number, value) {
            (1, Value::Bytes(piece)) => read_piece(piece.clone(), &mut pieces).map(|()| Known::Taken),
            (2, Value::Bytes(trainer)) => read_trainer(trainer.clone(), &mut settings).map(|()| Known::Taken),
            (3, Value::Bytes(normalizer)) => read_normalizer(normalizer.clone(), &mut settings).map(|()| Known::Taken),
            (1..=3, _) => Ok(Known::OtherType),
            // Self-tests, and a denormalizer that only other programs use.
            _ => Ok(Known::Ignored),
        })?;
        build(pieces, settings)
    }
}

fn read_piece(reader: Reader<'_>, pieces: &mut Pieces) -> Result<()> {
    let (mut piece, mut score, mut kind) = ("", 0.0, 1);
    let whole = reader.clone();
    fields(reader, "piece", |number, value| {
        match (number, value) {
            (1, Value::Bytes(bytes)) => piece = text(bytes.clone(), "piece text")?,
            (2, Value::Fixed32(bytes)) => score = f32::from_le_bytes(*bytes),
            (3, Value::Number(number)) => kind = *number,
            (1..=3, _) => return Ok(Known::OtherType),
            _ => return Ok(Known::Ignored),
        }
        Ok(Known::Taken)
    })?;
    let kind = match kind {
        1 => Kind::Normal,
        2 => Kind::Unknown,
        3 => Kind::Control,
        4 => Kind::UserDefined,
        5 => return Err(Error::unsupported(PLACE, format!("the unused piece {piece:?}"), "Llama's models have none")),
        6 => Kind::Byte,
        other => return Err(whole.invalid("piece type", format!("{other}; 1 to 6 would be right")).into()),
    };
    pieces.push(piece, score, kind).map_err(|message| whole.invalid("piece", message).into())
}

fn read_trainer(reader: Reader<'_>, settings: &mut Settings) -> Result<()> {
    fields(reader, "trainer settings", |number, value| {
        match (number, value) {
            (3, Value::Number(number)) => settings.model_type = *number,
            (24, Value::Number(number)) => settings.suffix_space = *number != 0,
            (35, Value::Number(number)) => settings.byte_fallback = *number != 0,
            // Negative: there is none.
            (40..=42, Value::Number(id)) => settings.ids[(number - 40) as usize] = *id as i64,
            (44, Value::Bytes(bytes)) => settings.unknown_surface = text(bytes.clone(), "unk_surface")?.to_owned(),
            (3 | 24 | 35 | 40..=42 | 44, _) => return Ok(Known::OtherType),
            _ => return Ok(Known::Ignored),
        }
        Ok(Known::Taken)
    })
}

fn read_normalizer(reader: Reader<'_>, settings: &mut Settings) -> Result<()> {
    fields(reader, "normalizer settings", |number, value| {
        match (number, value) {
            (1, Value::Bytes(bytes)) => settings.normalizer = text(bytes.clone(), "normalizer name")?.to_owned(),
            (2, Value::Bytes(bytes)) => settings.has_charsmap = !bytes.is_empty(),
            (3, Value::Number(number)) => settings.add_dummy_prefix = *number != 0,
            (4, Value::Number(number)) => settings.remove_extra_whitespaces = *number != 0,
            (5, Value::Number(number)) => settings.escape_whitespaces = *number != 0,
            (1..=5, _) => return Ok(Known::OtherType),
            _ => return Ok(Known::Ignored),
        }
        Ok(Known::Taken)
    })
}

fn build(pieces: Pieces, settings: Settings) -> Result<Tokenizer> {
    let refuse = |what: String, known: &str| Err(Error::unsupported(PLACE, what, known));
    if pieces.kinds.is_empty() {
        return Err(Error::invalid(PLACE, "no pieces, so this is no SentencePiece model"));
    }
    if settings.model_type != 2 {
        let names = ["type 0", "unigram", "bpe", "word", "char"];
        let name = usize::try_from(settings.model_type)
            .ok()
            .and_then(|at| names.get(at))
            .map_or_else(|| format!("type {}", settings.model_type), |name| (*name).to_owned());
        return refuse(format!("a {name} model"), "Llama's are bpe");
    }
    if settings.has_charsmap {
        return refuse(format!("the normalizer {:?}", settings.normalizer), "Llama's is identity");
    }
    if settings.suffix_space || !settings.escape_whitespaces {
        return refuse("white space that is a suffix or not escaped".into(), "Llama's models escape it as a prefix");
    }
    let has_bytes = pieces.kinds.contains(&Kind::Byte);
    if settings.byte_fallback && !has_bytes {
        return Err(Error::invalid(PLACE, "byte_fallback without byte pieces; <0x00> to <0xFF> would be right"));
    }
    let ids = settings.ids.map(|id| u32::try_from(id).ok());
    let mut normalizer = Vec::new();
    if settings.remove_extra_whitespaces {
        normalizer.push(Normalize::CollapseSpaces);
    }
    if settings.add_dummy_prefix {
        normalizer.push(Normalize::Prepend(SPACE.into()));
    }
    let mut tokenizer = pieces.build(normalizer, settings.unknown_surface, ids, settings.byte_fallback, PLACE)?;
    if settings.remove_extra_whitespaces {
        tokenizer.decoder.lead = Lead::Pieces;
    }
    Ok(tokenizer)
}

/// Scored pieces, as a SentencePiece model and a GGUF hold them.
#[derive(Default)]
pub(super) struct Pieces {
    text: String,
    ends: Vec<u32>,
    kinds: Vec<Kind>,
    scores: Vec<f32>,
}

impl Pieces {
    /// Enters the next id's piece. Errors, as a message: a score that is no number; a byte piece that names no byte; no text.
    pub(super) fn push(&mut self, piece: &str, score: f32, kind: Kind) -> std::result::Result<(), String> {
        if score.is_nan() {
            return Err(format!("the score of {piece:?} is no number"));
        }
        if kind == Kind::Byte && byte_of(piece).is_none() {
            return Err(format!("{piece:?} of type byte; <0x00> to <0xFF> would be right"));
        }
        if piece.is_empty() && kind != Kind::Unused {
            return Err(format!("piece {} is empty", self.kinds.len()));
        }
        self.text.push_str(piece);
        self.ends.push(self.text.len() as u32);
        self.kinds.push(kind);
        self.scores.push(score);
        Ok(())
    }

    /// The tokenizer. `normalizer`: what comes before spaces are made visible. `[unk, bos, eos]`: ids that need not be there.
    ///
    /// Errors: pieces that are there twice; some bytes without a piece; pieces too long to have been learned.
    pub(super) fn build(
        self,
        mut normalizer: Vec<Normalize>,
        unknown_surface: String,
        [unk, bos, eos]: [Option<u32>; 3],
        byte_fallback: bool,
        place: &str,
    ) -> Result<Tokenizer> {
        let adds_prefix = normalizer.iter().any(|step| matches!(step, Normalize::Prepend(_)));
        normalizer.push(Normalize::Replace(" ".into(), SPACE.into()));
        let mut vocabulary = Vocabulary::with_capacity(self.kinds.len(), self.text.len());
        let mut added = Vec::new();
        let mut seen = HashSet::with_capacity(self.kinds.len());
        let mut start = 0;
        for (&end, &kind) in self.ends.iter().zip(&self.kinds) {
            let piece = &self.text[start..end as usize];
            start = end as usize;
            if kind != Kind::Unused && !seen.insert(piece) {
                return Err(Error::invalid(place, format!("the piece {piece:?} is there twice")));
            }
            let id = match (kind, byte_of(piece)) {
                (Kind::Byte, Some(byte)) => vocabulary.push(&[byte], kind),
                _ => vocabulary.push(piece.as_bytes(), kind),
            };
            match kind {
                Kind::Control | Kind::Unknown => added.push(Added::special(piece, id)),
                Kind::UserDefined => added.push(Added { special: false, normalized: true, ..Added::special(piece, id) }),
                _ => {}
            }
        }
        let there = |id: &u32| (*id as usize) < vocabulary.len();
        let (bos, eos) = (bos.filter(there), eos.filter(there));
        let unk = unk.filter(|id| vocabulary.kind(*id) == Kind::Unknown);
        let unk = unk.or_else(|| vocabulary.ids().find(|id| vocabulary.kind(*id) == Kind::Unknown));
        let (merges, parts) = merges_by_score(&vocabulary, &self.scores, place)?;
        let bytes = byte_tokens(&vocabulary, place)?.filter(|_| byte_fallback);
        if bytes.is_none() && unk.is_none() {
            return Err(Error::invalid(place, "no unknown piece and no bytes to fall back to; unknown characters need one"));
        }
        let characters = Characters::new(&vocabulary, bytes, parts);
        let model = Bpe::new(&vocabulary, Alphabet::Characters(characters), merges, false, unk, true);
        Ok(Tokenizer {
            // User-defined pieces have spaces made visible already.
            added: AddedTokens::new(added, &[])?,
            normalizer,
            splits: Vec::new(),
            model,
            decoder: Decoder {
                space: Some(SPACE),
                lead: if adds_prefix { Lead::FirstPiece } else { Lead::Keep },
                malformed: Malformed::Bytes,
                shows_special: false,
                unknown: Some(unknown_surface),
            },
            template: Template { before: bos.into_iter().collect(), behind: Vec::new() },
            bos,
            eos,
            pad: None,
            limits: Limits::None,
            scores: self.scores,
            vocabulary,
        })
    }
}

/// SentencePiece's merges: of neighbors that together are a piece, those of the highest score first; and the characters that are
/// no piece themselves but part of one.
fn merges_by_score(vocabulary: &Vocabulary, scores: &[f32], place: &str) -> Result<(Merges, Vec<char>)> {
    let mut pieces: Vec<u32> = vocabulary.ids().filter(|id| vocabulary.kind(*id) == Kind::Normal).collect();
    let score = |id: u32| scores[id as usize];
    pieces.sort_by(|a, b| score(*b).total_cmp(&score(*a)));
    // Pieces of one score have one rank: the leftmost goes first.
    let mut ranked = Vec::with_capacity(pieces.len());
    let (mut rank, mut before) = (0, None);
    for id in pieces {
        if before.is_some_and(|before| score(id) != before) {
            rank += 1;
        }
        before = Some(score(id));
        ranked.push((id, rank));
    }
    let mut parts = Vec::new();
    let mut part_ids = HashMap::new();
    for &(id, _) in &ranked {
        for c in std::str::from_utf8(vocabulary.bytes(id)).expect("pieces are text").chars() {
            if vocabulary.id(c.encode_utf8(&mut [0; 4]).as_bytes()).is_none() && !part_ids.contains_key(&c) {
                part_ids.insert(c, vocabulary.len() as u32 + parts.len() as u32);
                parts.push(c);
            }
        }
    }
    let part = |bytes: &[u8]| {
        vocabulary.id(bytes).or_else(|| {
            let mut chars = std::str::from_utf8(bytes).ok()?.chars();
            let c = chars.next().filter(|_| chars.next().is_none())?;
            part_ids.get(&c).copied()
        })
    };
    let is_seam = |piece: &[u8], at: usize| piece[at] & 0xc0 != 0x80;
    let merges = joined_pairs(vocabulary, ranked.into_iter(), part, is_seam, place)?;
    Ok((merges, parts))
}
