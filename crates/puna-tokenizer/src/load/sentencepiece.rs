//! SentencePiece's `tokenizer.model`: a protocol buffer of pieces, and of how they were trained.
//!
//! Kudo and Richardson 2018, arXiv 1808.06226.

use puna_bytes::Reader;

use super::{byte_of, byte_tokens, ids_of, merges_by_score};
use crate::added::{Added, AddedTokens};
use crate::normalize::Normalize;
use crate::tokenizer::{Decoder, Model, Token, TokenKind};
use crate::{Error, Result, Tokenizer};

/// What stands for a space in pieces.
pub(crate) const SPACE: &str = "\u{2581}";

/// What the model says beside its pieces.
struct Settings {
    model_type: u64,
    treat_whitespace_as_suffix: bool,
    unk: Option<u32>,
    bos: Option<u32>,
    eos: Option<u32>,
    unk_surface: String,
    normalizer: String,
    has_charsmap: bool,
    add_dummy_prefix: bool,
    remove_extra_whitespaces: bool,
    escape_whitespaces: bool,
}

/// A field of a message: its number and what it holds.
enum Value<'a> {
    Number(u64),
    Fixed32([u8; 4]),
    Bytes(Reader<'a>),
    /// Eight bytes, which none of the fields that are read has.
    Fixed64,
}

fn field<'a>(reader: &mut Reader<'a>, what: &str) -> Result<(u64, Value<'a>)> {
    let key = reader.varint(what)?;
    let value = match key & 7 {
        0 => Value::Number(reader.varint(what)?),
        1 => {
            reader.skip(what, 8)?;
            Value::Fixed64
        }
        2 => {
            let length = reader.varint(what)?;
            Value::Bytes(reader.nested(what, length)?)
        }
        5 => Value::Fixed32(reader.array(what)?),
        other => return Err(reader.invalid(what, format!("wire type {other}; there are 0, 1, 2 and 5")).into()),
    };
    Ok((key >> 3, value))
}

fn text(mut reader: Reader<'_>, what: &str) -> Result<String> {
    let length = reader.left() as u64;
    Ok(reader.str(what, length)?.to_owned())
}

impl Tokenizer {
    /// Reads a SentencePiece model.
    ///
    /// Errors: no such message; a model that is not BPE; a normalizer other than identity, all by name.
    pub fn from_sentencepiece(bytes: &[u8]) -> Result<Self> {
        let mut reader = Reader::new(bytes);
        let mut vocabulary = Vec::new();
        let mut settings = Settings {
            // The format's own defaults.
            model_type: 1,
            treat_whitespace_as_suffix: false,
            unk: Some(0),
            bos: Some(1),
            eos: Some(2),
            unk_surface: " \u{2047} ".into(),
            normalizer: String::new(),
            has_charsmap: false,
            add_dummy_prefix: true,
            remove_extra_whitespaces: true,
            escape_whitespaces: true,
        };
        while !reader.is_empty() {
            match field(&mut reader, "model")? {
                (1, Value::Bytes(piece)) => vocabulary.push(read_piece(piece)?),
                (2, Value::Bytes(trainer)) => read_trainer(trainer, &mut settings)?,
                (3, Value::Bytes(normalizer)) => read_normalizer(normalizer, &mut settings)?,
                (1..=3, _) => return Err(reader.invalid("model", "a field of another type than its number says").into()),
                _ => {}
            }
        }
        build(vocabulary, settings)
    }
}

fn read_piece(mut reader: Reader<'_>) -> Result<Token> {
    let (mut piece, mut score, mut kind) = (String::new(), 0.0, 1);
    while !reader.is_empty() {
        match field(&mut reader, "piece")? {
            (1, Value::Bytes(bytes)) => piece = text(bytes, "piece text")?,
            (2, Value::Fixed32(bytes)) => score = f32::from_le_bytes(bytes),
            (3, Value::Number(number)) => kind = number,
            _ => {}
        }
    }
    if score.is_nan() {
        return Err(reader.invalid("piece score", "it is no number").into());
    }
    let kind = match kind {
        1 => TokenKind::Normal,
        2 => TokenKind::Unknown,
        3 => TokenKind::Control,
        4 => TokenKind::UserDefined,
        5 => {
            return Err(Error::unsupported(
                "tokenizer.model",
                format!("the unused piece {piece:?}"),
                "BPE models of Llama have none",
            ));
        }
        6 => TokenKind::Byte,
        other => return Err(reader.invalid("piece type", format!("{other}; there are 1 to 6")).into()),
    };
    let bytes = match kind {
        TokenKind::Byte => {
            let byte = byte_of(&piece)
                .ok_or_else(|| reader.invalid("piece text", format!("{piece:?} of type byte; they are <0x00> to <0xFF>")))?;
            Box::from([byte])
        }
        _ => piece.into_bytes().into(),
    };
    Ok(Token { bytes, kind, score })
}

fn read_trainer(mut reader: Reader<'_>, settings: &mut Settings) -> Result<()> {
    // Ids are signed: -1 says that there is none.
    let id = |number: u64| u32::try_from(number).ok();
    while !reader.is_empty() {
        match field(&mut reader, "trainer")? {
            (3, Value::Number(number)) => settings.model_type = number,
            (24, Value::Number(number)) => settings.treat_whitespace_as_suffix = number != 0,
            (40, Value::Number(number)) => settings.unk = id(number),
            (41, Value::Number(number)) => settings.bos = id(number),
            (42, Value::Number(number)) => settings.eos = id(number),
            (44, Value::Bytes(bytes)) => settings.unk_surface = text(bytes, "unk_surface")?,
            _ => {}
        }
    }
    Ok(())
}

fn read_normalizer(mut reader: Reader<'_>, settings: &mut Settings) -> Result<()> {
    while !reader.is_empty() {
        match field(&mut reader, "normalizer")? {
            (1, Value::Bytes(bytes)) => settings.normalizer = text(bytes, "normalizer name")?,
            (2, Value::Bytes(bytes)) => settings.has_charsmap = !bytes.is_empty(),
            (3, Value::Number(number)) => settings.add_dummy_prefix = number != 0,
            (4, Value::Number(number)) => settings.remove_extra_whitespaces = number != 0,
            (5, Value::Number(number)) => settings.escape_whitespaces = number != 0,
            _ => {}
        }
    }
    Ok(())
}

fn build(vocabulary: Vec<Token>, settings: Settings) -> Result<Tokenizer> {
    let refuse = |what: String, known: &str| Err(Error::unsupported("tokenizer.model", what, known));
    if vocabulary.is_empty() {
        return Err(Error::invalid("tokenizer.model", "it holds no pieces, so it is no SentencePiece model"));
    }
    if settings.model_type != 2 {
        let name = ["", "unigram", "bpe", "word", "char"].get(settings.model_type as usize).copied().unwrap_or("unknown");
        return refuse(format!("model type {} ({name})", settings.model_type), "Llama's are BPE");
    }
    if settings.has_charsmap {
        return refuse(format!("the normalizer {:?}", settings.normalizer), "identity is");
    }
    if settings.treat_whitespace_as_suffix || !settings.escape_whitespaces {
        return refuse("white space that is not escaped, or is a suffix".into(), "Llama's models escape it as a prefix");
    }
    let mut normalizer = Vec::new();
    if settings.remove_extra_whitespaces {
        normalizer.push(Normalize::CollapseSpaces);
    }
    if settings.add_dummy_prefix {
        normalizer.push(Normalize::Prepend(" ".into()));
    }
    normalizer.push(Normalize::Replace(" ".into(), SPACE.into()));
    Ok(from_pieces(
        vocabulary,
        normalizer,
        settings.add_dummy_prefix,
        settings.unk_surface,
        [settings.bos, settings.eos, settings.unk],
    ))
}

/// A tokenizer of scored pieces.
pub(super) fn from_pieces(
    vocabulary: Vec<Token>,
    normalizer: Vec<Normalize>,
    strip_first: bool,
    unknown: String,
    [bos, eos, unk]: [Option<u32>; 3],
) -> Tokenizer {
    let there = |id: &u32| (*id as usize) < vocabulary.len();
    let (bos, eos, unk) = (bos.filter(there), eos.filter(there), unk.filter(there));
    let of_kind = |kind| (0..).zip(&vocabulary).filter(move |(_, token)| token.kind == kind);
    let name = |token: &Token| String::from_utf8_lossy(&token.bytes).into_owned();
    let special = of_kind(TokenKind::Control).map(|(id, token)| Added::special(name(token), id));
    let own = of_kind(TokenKind::UserDefined).map(|(id, token)| Added {
        special: false,
        normalized: true,
        ..Added::special(name(token), id)
    });
    let added = AddedTokens::new(special.chain(own).collect());
    Tokenizer {
        ids: ids_of(&vocabulary),
        added,
        normalizer,
        splits: Vec::new(),
        model: Model::Characters {
            bytes: byte_tokens(&vocabulary),
            merges: merges_by_score(&vocabulary),
            whole: false,
            fuse_unknown: true,
        },
        decoder: Decoder { space: Some(SPACE.into()), strip_first, shows_special: false, unknown },
        bos,
        eos,
        unk,
        adds_bos: true,
        vocabulary,
    }
}
