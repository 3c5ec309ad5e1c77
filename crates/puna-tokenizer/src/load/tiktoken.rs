//! Llama 3 and 4's files: a line for each token, base64 and its rank.

use super::{check_size, joined_pairs};
use crate::added::{Added, AddedTokens};
use crate::decode::{Decoder, Lead, Malformed};
use crate::model::{Alphabet, Bpe};
use crate::split::Split;
use crate::tokenizer::{Limits, Template};
use crate::vocabulary::{Kind, Vocabulary};
use crate::{Error, Result, Tokenizer};

const PLACE: &str = "tiktoken file";

/// Whose ranks a tiktoken file holds: the file names neither its pattern nor its special tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TiktokenKind {
    /// Llama 3, 3.1, 3.2, 3.3: 128,000 ranks, then 256 special tokens.
    Llama3,
    /// Llama 4: 200,000 ranks, then 2,048 special tokens.
    Llama4,
}

impl TiktokenKind {
    /// Told by the number of ranks.
    pub(super) fn from_bytes(bytes: &[u8]) -> Result<Self> {
        match bytes.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty()).count() {
            128_000 => Ok(Self::Llama3),
            200_000 => Ok(Self::Llama4),
            ranks => {
                let what = format!("a file of {ranks} lines");
                Err(Error::unsupported(PLACE, what, "Llama 3's of 128000 and Llama 4's of 200000 are, others by their kind"))
            }
        }
    }

    fn split(self) -> Split {
        match self {
            Self::Llama3 => Split::Llama3,
            Self::Llama4 => Split::Llama4,
        }
    }

    /// The special tokens in the order of their ids, which follow the ranks.
    fn special_tokens(self) -> Vec<String> {
        let reserved = |name: &'static str, numbers: std::ops::Range<u32>| {
            numbers.map(move |i| format!("<|{name}reserved_special_token_{i}|>"))
        };
        let mut tokens: Vec<String> = Vec::with_capacity(2048);
        let named = |names: &[&str]| names.iter().map(|name| format!("<|{name}|>")).collect::<Vec<_>>();
        match self {
            Self::Llama3 => {
                tokens.extend(named(&["begin_of_text", "end_of_text"]));
                tokens.extend(reserved("", 0..2));
                tokens.extend(named(&[
                    "finetune_right_pad_id",
                    "step_id",
                    "start_header_id",
                    "end_header_id",
                    "eom_id",
                    "eot_id",
                ]));
                tokens.extend(named(&["python_tag", "image"]));
                tokens.extend(reserved("", 2..246));
            }
            Self::Llama4 => {
                tokens.extend(named(&["begin_of_text", "end_of_text", "fim_prefix", "fim_middle", "fim_suffix"]));
                tokens.extend(named(&["header_start", "header_end", "eom", "eot", "step"]));
                tokens.extend(reserved("text_post_train_", 0..6));
                tokens.extend(named(&["python_start", "python_end", "finetune_right_pad"]));
                tokens.extend(reserved("text_post_train_", 8..69));
                tokens.extend(named(&["image_start", "image_end"]));
                tokens.extend(reserved("vision_", 0..2));
                tokens.extend(named(&["tile_x_separator", "tile_y_separator"]));
                tokens.extend(reserved("vision_", 2..6));
                tokens.extend(named(&["image"]));
                tokens.extend(reserved("vision_", 6..7));
                tokens.extend(named(&["patch"]));
                tokens.extend(reserved("vision_", 7..1048));
                tokens.extend(reserved("reasoning_", 0..8));
                tokens.extend(named(&["reasoning_thinking_start", "reasoning_thinking_end"]));
                let rest = 2048 - tokens.len() as u32;
                tokens.extend(reserved("", 0..rest));
            }
        }
        tokens
    }
}

impl Tokenizer {
    /// Reads tiktoken ranks: lines of a token in base64, a space, and its rank; ranks count up from 0. Long texts are cut as
    /// Meta's code does: after 400,000 characters, and after 25,000 side by side that are all white space or all none.
    ///
    /// Errors: a line that is none; ranks that do not count up; a byte without a token; a token twice.
    pub fn from_tiktoken(bytes: &[u8], kind: TiktokenKind) -> Result<Self> {
        check_size(PLACE, bytes.len() as u64)?;
        let lines = bytes.iter().filter(|byte| **byte == b'\n').count();
        let mut vocabulary = Vocabulary::with_capacity(lines + 2049, bytes.len() / 2);
        let mut token = Vec::new();
        for (number, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
            let line = line.trim_ascii();
            if line.is_empty() {
                continue;
            }
            let fail = |message: &str| Error::invalid(format!("{PLACE}: line {}", number + 1), message);
            let mut fields = line.split(u8::is_ascii_whitespace);
            let (Some(text), Some(rank), None) = (fields.next(), fields.next(), fields.next()) else {
                return Err(fail("not two fields; base64, a space and a number would be right"));
            };
            decode_base64(text, &mut token).ok_or_else(|| fail("the token is no base64"))?;
            let rank = std::str::from_utf8(rank).ok().and_then(|rank| rank.parse::<usize>().ok());
            if rank != Some(vocabulary.len()) {
                return Err(fail(&format!("the rank is not {}; ranks count up from 0", vocabulary.len())));
            }
            if token.is_empty() {
                return Err(fail("the token is empty"));
            }
            let id = vocabulary.push(&token, Kind::Normal);
            if vocabulary.id(&token) != Some(id) {
                return Err(fail("the token has a rank already"));
            }
        }
        let mut alphabet = Box::new([0; 256]);
        for byte in 0..=255u8 {
            let id = vocabulary.id(&[byte]);
            let missing = || Error::invalid(PLACE, format!("byte {byte:#04x} has no rank; all 256 have one"));
            alphabet[usize::from(byte)] = id.ok_or_else(missing)?;
        }
        let ranked = vocabulary.ids().map(|id| (id, id));
        let merges = joined_pairs(&vocabulary, ranked, |part| vocabulary.id(part), |_, _| true, PLACE)?;
        let special = kind.special_tokens().into_iter().map(|token| {
            let id = vocabulary.push(token.as_bytes(), Kind::Control);
            Added::special(token, id)
        });
        let added = AddedTokens::new(special.collect(), &[])?;
        let id = |token: &str| added.by_text(token).map(|added| added.id);
        let (bos, eos) = (id("<|begin_of_text|>"), id("<|end_of_text|>"));
        let pad = id("<|finetune_right_pad_id|>").or_else(|| id("<|finetune_right_pad|>"));
        Ok(Self {
            model: Bpe::new(&vocabulary, Alphabet::Bytes(alphabet), merges, true, None, false),
            vocabulary,
            scores: Vec::new(),
            added,
            normalizer: Vec::new(),
            splits: vec![kind.split()],
            decoder: Decoder::byte_level(),
            template: Template { before: bos.into_iter().collect(), behind: Vec::new() },
            bos,
            eos,
            pad,
            limits: Limits::Meta,
        })
    }
}

impl Decoder {
    /// Tokens are bytes.
    pub(super) fn byte_level() -> Self {
        Self { space: None, lead: Lead::Keep, malformed: Malformed::Subparts, shows_special: true, unknown: None }
    }
}

/// Replaces `bytes` by what base64 (RFC 4648, with or without padding) says. `None`: it is ill-formed.
fn decode_base64(text: &[u8], bytes: &mut Vec<u8>) -> Option<()> {
    bytes.clear();
    let text = match text {
        [text @ .., b'=', b'='] | [text @ .., b'='] => text,
        _ => text,
    };
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
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_rfc_4648s() {
        let check = |text: &str, expected: Option<&[u8]>| {
            let mut bytes = vec![1];
            assert_eq!(decode_base64(text.as_bytes(), &mut bytes).map(|()| bytes.as_slice()), expected, "{text}");
        };
        for (text, bytes) in [("", ""), ("Zg==", "f"), ("Zm8=", "fo"), ("Zm9v", "foo"), ("Zm9vYg", "foob"), ("Zm9vYmE=", "fooba")]
        {
            check(text, Some(bytes.as_bytes()));
        }
        check("/+8=", Some(&[0xff, 0xef]));
        check("Zm9vY", None);
        check("Zm-v", None);
    }

    #[test]
    fn special_tokens_are_as_many_as_meta_reserves() {
        let count = |kind: TiktokenKind| {
            let tokens = kind.special_tokens();
            let different: std::collections::HashSet<_> = tokens.iter().collect();
            assert_eq!(different.len(), tokens.len());
            tokens.len()
        };
        assert_eq!((count(TiktokenKind::Llama3), count(TiktokenKind::Llama4)), (256, 2048));
        let llama4 = TiktokenKind::Llama4.special_tokens();
        assert_eq!(
            (llama4[1134].as_str(), llama4[1142].as_str()),
            ("<|reasoning_reserved_special_token_0|>", "<|reasoning_thinking_start|>")
        );
        assert_eq!((llama4[80].as_str(), llama4[1144].as_str()), ("<|image_start|>", "<|reserved_special_token_0|>"));
    }
}
