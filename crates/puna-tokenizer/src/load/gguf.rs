//! The tokenizer inside a GGUF, as plain data: the file's own parser lives elsewhere.

use super::byte_of;
use super::sentencepiece::{SPACE, from_pieces};
use super::tokenizer_json::{ByteLevel, byte_level_bytes};
use crate::added::{Added, AddedTokens};
use crate::normalize::Normalize;
use crate::split::Split;
use crate::tokenizer::{Token, TokenKind};
use crate::{Error, Result, Tokenizer};

/// What the keys `tokenizer.ggml.*` of a GGUF hold.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct GgufTokenizer {
    /// `model`: `gpt2` for byte-level BPE, `llama` for SentencePiece.
    pub model: String,
    /// `pre`: which pre-tokenizer.
    pub pre: Option<String>,
    /// `tokens`: each token as it is written in the file.
    pub tokens: Vec<String>,
    /// `scores`, for SentencePiece.
    pub scores: Option<Vec<f32>>,
    /// `token_type`: 1 normal, 2 unknown, 3 control, 4 user defined, 5 unused, 6 byte.
    pub token_types: Option<Vec<i32>>,
    /// `merges`: two tokens and a space between, for byte-level BPE.
    pub merges: Vec<String>,
    /// `bos_token_id`.
    pub bos: Option<u32>,
    /// `eos_token_id`.
    pub eos: Option<u32>,
    /// `unknown_token_id`.
    pub unk: Option<u32>,
    /// `add_bos_token`.
    pub add_bos: Option<bool>,
    /// `add_space_prefix`.
    pub add_space_prefix: Option<bool>,
}

/// The pre-tokenizers that are known by name.
const PRE: &str = "llama-bpe, llama3, llama-v3, llama4, smollm, gpt-2 and default are";

fn splits(pre: &str) -> Result<(Vec<Split>, bool)> {
    // And whether a piece that is a token as a whole is taken as that.
    Ok(match pre {
        "llama-bpe" | "llama3" | "llama-v3" => (vec![Split::Llama3], true),
        "llama4" => (vec![Split::Llama4], true),
        "smollm" => (vec![Split::Digits, Split::Gpt2], false),
        "gpt-2" | "default" => (vec![Split::Gpt2], false),
        other => return Err(Error::unsupported("tokenizer.ggml.pre", format!("{other:?}"), PRE)),
    })
}

impl Tokenizer {
    /// Builds the tokenizer that a GGUF describes.
    ///
    /// Errors: an unknown model or pre-tokenizer, by name; lists of different lengths; merges of tokens that are not there.
    pub fn from_gguf(gguf: &GgufTokenizer) -> Result<Self> {
        let count = gguf.tokens.len();
        let lengths = [("scores", gguf.scores.as_ref().map(Vec::len)), ("token_type", gguf.token_types.as_ref().map(Vec::len))];
        for (name, length) in lengths {
            if let Some(length) = length.filter(|length| *length != count) {
                return Err(Error::invalid(format!("tokenizer.ggml.{name}"), format!("{length} entries for {count} tokens")));
            }
        }
        if count == 0 {
            return Err(Error::invalid("tokenizer.ggml.tokens", "there are none"));
        }
        match gguf.model.as_str() {
            "gpt2" => byte_level(gguf),
            "llama" => pieces(gguf),
            other => Err(Error::unsupported("tokenizer.ggml.model", format!("{other:?}"), "gpt2 and llama are")),
        }
    }
}

fn kinds(gguf: &GgufTokenizer) -> Result<Vec<TokenKind>> {
    let Some(types) = &gguf.token_types else { return Ok(vec![TokenKind::Normal; gguf.tokens.len()]) };
    let kind = |(at, kind): (usize, &i32)| {
        Ok(match kind {
            1 => TokenKind::Normal,
            2 => TokenKind::Unknown,
            3 => TokenKind::Control,
            4 => TokenKind::UserDefined,
            5 => TokenKind::Unused,
            6 => TokenKind::Byte,
            other => {
                return Err(Error::invalid("tokenizer.ggml.token_type", format!("{other} for token {at}; there are 1 to 6")));
            }
        })
    };
    types.iter().enumerate().map(kind).collect()
}

fn byte_level(gguf: &GgufTokenizer) -> Result<Tokenizer> {
    let (splits, whole) = splits(gguf.pre.as_deref().unwrap_or("default"))?;
    let mut vocabulary = Vec::with_capacity(gguf.tokens.len());
    let mut added = Vec::new();
    for (id, (token, kind)) in (0..).zip(gguf.tokens.iter().zip(kinds(gguf)?)) {
        let bytes = match kind {
            TokenKind::Normal => byte_level_bytes(token).unwrap_or_else(|| token.clone().into_bytes()),
            _ => token.clone().into_bytes(),
        };
        match kind {
            TokenKind::Control | TokenKind::Unknown => added.push(Added::special(token.as_str(), id)),
            TokenKind::UserDefined => added.push(Added { special: false, ..Added::special(token.as_str(), id) }),
            _ => {}
        }
        // Byte-level vocabularies have no unknown token: what is typed so is shown as it is written.
        let kind = if kind == TokenKind::Unknown { TokenKind::Control } else { kind };
        vocabulary.push(Token { bytes: bytes.into(), kind, score: 0.0 });
    }
    let merges = gguf.merges.iter().map(|merge| merge.split_once(' ').ok_or(merge));
    let merges = merges.collect::<std::result::Result<Vec<_>, _>>();
    let merges = merges.map_err(|merge| Error::invalid("tokenizer.ggml.merges", format!("{merge:?} names no two tokens")))?;
    ByteLevel {
        vocabulary,
        names: &gguf.tokens,
        merges,
        place: "tokenizer.ggml.merges",
        added: AddedTokens::new(added),
        splits,
        whole,
        bos: gguf.bos,
        eos: gguf.eos,
        // Files for Llama 3 leave it out and mean yes; SmolLM2's say no.
        adds_bos: gguf.add_bos.unwrap_or(whole),
    }
    .build()
}

fn pieces(gguf: &GgufTokenizer) -> Result<Tokenizer> {
    let scores = gguf
        .scores
        .as_ref()
        .ok_or_else(|| Error::invalid("tokenizer.ggml.scores", "there are none; SentencePiece merges by them"))?;
    let mut vocabulary = Vec::with_capacity(gguf.tokens.len());
    for ((token, kind), &score) in gguf.tokens.iter().zip(kinds(gguf)?).zip(scores) {
        let bytes = match kind {
            TokenKind::Byte => {
                let byte = byte_of(token).ok_or_else(|| {
                    Error::invalid("tokenizer.ggml.tokens", format!("{token:?} of type byte; they are <0x00> to <0xFF>"))
                })?;
                vec![byte]
            }
            _ => token.clone().into_bytes(),
        };
        if score.is_nan() {
            return Err(Error::invalid("tokenizer.ggml.scores", format!("that of {token:?} is no number")));
        }
        vocabulary.push(Token { bytes: bytes.into(), kind, score });
    }
    let prefix = gguf.add_space_prefix.unwrap_or(true);
    let mut normalizer = vec![Normalize::Replace(" ".into(), SPACE.into())];
    if prefix {
        normalizer.insert(0, Normalize::Prepend(" ".into()));
    }
    let ids = [gguf.bos.or(Some(1)), gguf.eos.or(Some(2)), gguf.unk.or(Some(0))];
    let mut tokenizer = from_pieces(vocabulary, normalizer, prefix, " \u{2047} ".into(), ids);
    tokenizer.adds_bos = gguf.add_bos.unwrap_or(true);
    Ok(tokenizer)
}
