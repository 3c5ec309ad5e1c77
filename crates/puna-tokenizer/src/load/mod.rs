//! The files that tokenizers come in.

mod components;
mod folder;
mod gguf;
mod pairs;
mod sentencepiece;
mod tiktoken;
mod tokenizer_json;

use std::path::Path;

pub use gguf::GgufTokenizer;
pub(crate) use gguf::pre_tokenizer_name;
pub(crate) use pairs::joined_pairs;
pub use tiktoken::TiktokenKind;

use crate::{Error, Result, Tokenizer};

/// Larger files are no tokenizers: Llama 4's has 28 MB.
const MOST_BYTES: u64 = 1 << 30;

impl Tokenizer {
    /// Reads a tokenizer from a file, or from a folder that holds a `tokenizer.json` or a `tokenizer.model`. What it is follows
    /// from its content. In a folder, what `tokenizer_config.json` says of the beginning and the end of texts is heeded.
    ///
    /// Errors: no such file; what is wrong in it, with its path.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self> {
        folder::read(path.as_ref())
    }

    /// Reads a tokenizer from a file's bytes: a `tokenizer.json`, a SentencePiece model, or Llama 3's or 4's tiktoken ranks.
    ///
    /// Errors: bytes that are none of these; what is wrong in them.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        match bytes {
            [] => Err(Error::invalid("tokenizer", "the file is empty")),
            _ if bytes.starts_with(b"version https://git-lfs.github.com/spec/") => {
                Err(Error::invalid("tokenizer", "a pointer of Git LFS, not the file; git lfs pull would fetch it"))
            }
            _ if looks_like_json(bytes) => Self::from_tokenizer_json(bytes),
            // Fields 1 to 3 of a protobuf message.
            [0x0a | 0x12 | 0x1a, ..] => Self::from_sentencepiece(bytes),
            [first, ..] if first.is_ascii_alphanumeric() || matches!(first, b'+' | b'/') => {
                Self::from_tiktoken(bytes, TiktokenKind::from_bytes(bytes)?)
            }
            _ => Err(Error::unsupported(
                "tokenizer",
                "a file of this kind",
                "a tokenizer.json, a SentencePiece model and a tiktoken file are",
            )),
        }
    }
}

fn looks_like_json(bytes: &[u8]) -> bool {
    bytes.trim_ascii_start().first() == Some(&b'{')
}

/// Errors: more bytes than any tokenizer has, so that offsets fit into 32 bits and nothing reads a checkpoint as a tokenizer.
fn check_size(place: &str, bytes: u64) -> Result<()> {
    if bytes <= MOST_BYTES {
        return Ok(());
    }
    Err(Error::invalid(place, format!("{bytes} bytes are no tokenizer; at most {MOST_BYTES} would be right")))
}

/// The byte that a piece such as `<0x0A>` stands for. Its digits are upper case: one piece for a byte.
fn byte_of(piece: &str) -> Option<u8> {
    let digits = piece.strip_prefix("<0x")?.strip_suffix('>')?;
    let is_hex = digits.len() == 2 && digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'A'..=b'F'));
    is_hex.then(|| u8::from_str_radix(digits, 16).ok()).flatten()
}
