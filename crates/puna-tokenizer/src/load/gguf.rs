//! The tokenizer inside a GGUF, as plain data: the file's own parser lives elsewhere.

use super::byte_of;
use super::sentencepiece::{SPACE, from_pieces};
use super::tokenizer_json::{ByteLevel, byte_level_bytes};
use crate::added::{Added, AddedTokens};
use crate::normalize::Normalize;
use crate::split::Split;
use crate::tokenizer::{Token, TokenKind};
use crate::{Error, Result, Tokenizer};

/// What `tokenizer.ggml.*` says. Nothing is interpreted.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct GgufTokenizer {
    /// `gpt2` for byte-level BPE, `llama` for SentencePiece BPE.
    pub model: String,
    /// Which pre-tokenizer splits the text, for byte-level BPE.
    pub pre: Option<String>,
    /// Each token's text, by id; bytes, for not every writer checks that they are UTF-8.
    pub tokens: Vec<Vec<u8>>,
    /// SentencePiece's score of each token; empty where there are none.
    pub scores: Vec<f32>,
    /// Each token's type: 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte; empty where there are none.
    pub token_types: Vec<i32>,
    /// Byte-level BPE's merges, first to last, each two tokens with a space between.
    pub merges: Vec<Vec<u8>>,
    /// The token that begins a text.
    pub bos: Option<u32>,
    /// The token that ends a text.
    pub eos: Option<u32>,
    /// The token for what is not known.
    pub unk: Option<u32>,
    /// The token that pads.
    pub pad: Option<u32>,
    /// Whether to begin with `bos` when the caller does not say.
    pub add_bos: Option<bool>,
    /// Whether to end with `eos` when the caller does not say.
    pub add_eos: Option<bool>,
    /// Whether SentencePiece puts a space in front of a text.
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
        let lengths = [("scores", gguf.scores.len()), ("token_type", gguf.token_types.len())];
        for (name, length) in lengths {
            if length != 0 && length != count {
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

/// Tokens and merges are text; not every writer sees to it.
fn texts(key: &str, list: &[Vec<u8>]) -> Result<Vec<String>> {
    let text = |(at, bytes): (usize, &Vec<u8>)| {
        String::from_utf8(bytes.clone())
            .map_err(|_| Error::invalid(format!("tokenizer.ggml.{key}"), format!("entry {at} is not UTF-8")))
    };
    list.iter().enumerate().map(text).collect()
}

fn kinds(gguf: &GgufTokenizer) -> Result<Vec<TokenKind>> {
    if gguf.token_types.is_empty() {
        return Ok(vec![TokenKind::Normal; gguf.tokens.len()]);
    }
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
    gguf.token_types.iter().enumerate().map(kind).collect()
}

fn byte_level(gguf: &GgufTokenizer) -> Result<Tokenizer> {
    let (splits, whole) = splits(gguf.pre.as_deref().unwrap_or("default"))?;
    let names = texts("tokens", &gguf.tokens)?;
    let merges = texts("merges", &gguf.merges)?;
    let mut vocabulary = Vec::with_capacity(names.len());
    let mut added = Vec::new();
    for (id, (token, kind)) in (0..).zip(names.iter().zip(kinds(gguf)?)) {
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
    let merges = merges.iter().map(|merge| merge.split_once(' ').ok_or(merge));
    let merges = merges.collect::<std::result::Result<Vec<_>, _>>();
    let merges = merges.map_err(|merge| Error::invalid("tokenizer.ggml.merges", format!("{merge:?} names no two tokens")))?;
    ByteLevel {
        vocabulary,
        names: &names,
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
    if gguf.scores.is_empty() {
        return Err(Error::invalid("tokenizer.ggml.scores", "there are none; SentencePiece merges by them"));
    }
    let names = texts("tokens", &gguf.tokens)?;
    let mut vocabulary = Vec::with_capacity(names.len());
    for ((token, kind), &score) in names.iter().zip(kinds(gguf)?).zip(&gguf.scores) {
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
