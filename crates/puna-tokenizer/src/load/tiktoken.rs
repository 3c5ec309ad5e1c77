//! Llama 3 and 4's files: one line a token, base64 and its rank.

use super::ids_of;
use crate::added::{Added, AddedTokens};
use crate::merge::{FastMap, Merges};
use crate::split::Split;
use crate::tokenizer::{Decoder, Model, Token, TokenKind};
use crate::{Error, Result, Tokenizer};

/// Whose ranks a tiktoken file holds: the file names neither its pattern nor its special tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TiktokenKind {
    /// Llama 3, 3.1, 3.2, 3.3: 128,000 ranks, 256 special tokens behind.
    Llama3,
    /// Llama 4: 200,000 ranks, 1,135 special tokens behind.
    Llama4,
}

impl TiktokenKind {
    /// Told by the number of ranks.
    pub(crate) fn from_ranks(ranks: usize) -> Result<Self> {
        match ranks {
            128_000 => Ok(Self::Llama3),
            200_000 => Ok(Self::Llama4),
            _ => {
                let what = format!("a tiktoken file of {ranks} ranks");
                Err(Error::unsupported("tokenizer.model", what, "Llama 3 has 128000, Llama 4 200000"))
            }
        }
    }

    /// The special tokens in the order of their ids, which follow the ranks.
    fn special_tokens(self) -> Vec<String> {
        match self {
            Self::Llama3 => {
                let named = [
                    "<|begin_of_text|>",
                    "<|end_of_text|>",
                    "<|reserved_special_token_0|>",
                    "<|reserved_special_token_1|>",
                    "<|finetune_right_pad_id|>",
                    "<|step_id|>",
                    "<|start_header_id|>",
                    "<|end_header_id|>",
                    "<|eom_id|>",
                    "<|eot_id|>",
                    "<|python_tag|>",
                    "<|image|>",
                ];
                let reserved = (2..).map(|i| format!("<|reserved_special_token_{i}|>"));
                named.into_iter().map(String::from).chain(reserved).take(256).collect()
            }
            Self::Llama4 => {
                let mut tokens: Vec<String> =
                    ["<|begin_of_text|>", "<|end_of_text|>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>"]
                        .into_iter()
                        .map(String::from)
                        .collect();
                let post_training = ["<|header_start|>", "<|header_end|>", "<|eom|>", "<|eot|>", "<|step|>"];
                tokens.extend(post_training.map(String::from));
                tokens.extend((0..6).map(|i| format!("<|text_post_train_reserved_special_token_{i}|>")));
                tokens.extend(["<|python_start|>", "<|python_end|>", "<|finetune_right_pad|>"].map(String::from));
                tokens.extend((8..69).map(|i| format!("<|text_post_train_reserved_special_token_{i}|>")));
                let vision = [
                    "<|image_start|>",
                    "<|image_end|>",
                    "<|vision_reserved_special_token_0|>",
                    "<|vision_reserved_special_token_1|>",
                    "<|tile_x_separator|>",
                    "<|tile_y_separator|>",
                    "<|vision_reserved_special_token_2|>",
                    "<|vision_reserved_special_token_3|>",
                    "<|vision_reserved_special_token_4|>",
                    "<|vision_reserved_special_token_5|>",
                    "<|image|>",
                    "<|vision_reserved_special_token_6|>",
                    "<|patch|>",
                ];
                tokens.extend(vision.map(String::from));
                tokens.extend((7..1048).map(|i| format!("<|vision_reserved_special_token_{i}|>")));
                tokens
            }
        }
    }
}

impl Tokenizer {
    /// Reads tiktoken ranks: lines of a token in base64, a space, and its rank, which count up from 0.
    ///
    /// Errors: a line that is none; ranks that do not count up; a byte without a token.
    pub fn from_tiktoken(bytes: &[u8], kind: TiktokenKind) -> Result<Self> {
        let mut vocabulary = Vec::new();
        for (number, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
            let line = line.trim_ascii_end();
            if line.is_empty() {
                continue;
            }
            let place = || format!("tokenizer.model: line {}", number + 1);
            let fail = |message: &str| Error::invalid(place(), message);
            let space = line
                .iter()
                .position(|byte| *byte == b' ')
                .ok_or_else(|| fail("there is no rank; a line is base64, a space, a number"))?;
            let token = base64(&line[..space]).ok_or_else(|| fail("the token is no base64"))?;
            let rank = std::str::from_utf8(&line[space + 1..]).ok().and_then(|rank| rank.parse::<usize>().ok());
            if rank != Some(vocabulary.len()) {
                return Err(fail(&format!("the rank is not {}; ranks count up from 0", vocabulary.len())));
            }
            if token.is_empty() {
                return Err(fail("the token is empty"));
            }
            vocabulary.push(Token { bytes: token.into(), kind: TokenKind::Normal, score: 0.0 });
        }
        let written: FastMap<_, _> = (0..).zip(&vocabulary).map(|(id, token)| (token.bytes.clone(), (id, id))).collect();
        let bytes: Vec<u32> = (0..=255u8).map_while(|byte| written.get(&[byte][..]).map(|(_, id)| *id)).collect();
        let bytes: Box<[u32; 256]> = bytes.into_boxed_slice().try_into().map_err(|bytes: Box<[u32]>| {
            Error::invalid("tokenizer.model", format!("byte {:#04x} has no token; all 256 have one", bytes.len()))
        })?;
        let ids = ids_of(&vocabulary);
        let mut added = Vec::new();
        for token in kind.special_tokens() {
            added.push(Added::special(token.as_str(), vocabulary.len() as u32));
            vocabulary.push(Token { bytes: token.into_bytes().into(), kind: TokenKind::Control, score: 0.0 });
        }
        let added = AddedTokens::new(added);
        let id = |token: &str| added.by_text(token).map(|added| added.id);
        let (bos, eos) = (id("<|begin_of_text|>"), id("<|end_of_text|>"));
        let split = match kind {
            TiktokenKind::Llama3 => Split::Llama3,
            TiktokenKind::Llama4 => Split::Llama4,
        };
        Ok(Self {
            ids,
            vocabulary,
            added,
            normalizer: Vec::new(),
            splits: vec![split],
            model: Model::Bytes { bytes, merges: Merges::Written(written), whole: true },
            decoder: Decoder { space: None, strip_first: false, shows_special: true, unknown: String::new() },
            bos,
            eos,
            unk: None,
            adds_bos: true,
        })
    }
}

fn base64(text: &[u8]) -> Option<Vec<u8>> {
    let text = match text {
        [text @ .., b'=', b'='] | [text @ .., b'='] => text,
        _ => text,
    };
    let mut bytes = Vec::with_capacity(text.len() * 3 / 4);
    for chunk in text.chunks(4) {
        let mut bits = 0u32;
        for &byte in chunk {
            let value = match byte {
                b'A'..=b'Z' => byte - b'A',
                b'a'..=b'z' => byte - b'a' + 26,
                b'0'..=b'9' => byte - b'0' + 52,
                b'+' => 62,
                b'/' => 63,
                _ => return None,
            };
            bits = bits << 6 | u32::from(value);
        }
        if chunk.len() == 1 {
            return None;
        }
        bits <<= 6 * (4 - chunk.len());
        bytes.extend_from_slice(&bits.to_be_bytes()[1..chunk.len()]);
    }
    Some(bytes)
}
