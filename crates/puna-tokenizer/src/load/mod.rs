//! The files that tokenizers come in.

mod gguf;
mod sentencepiece;
mod tiktoken;
mod tokenizer_json;

pub use gguf::GgufTokenizer;
pub use tiktoken::TiktokenKind;
pub(crate) use tokenizer_json::byte_level_alphabet;

use crate::merge::{FastMap, Merges};
use crate::tokenizer::{Token, TokenKind};

/// The tokens that merging can make, by what is written.
fn ids_of(vocabulary: &[Token]) -> FastMap<Box<[u8]>, u32> {
    let mut ids = FastMap::default();
    for (id, token) in vocabulary.iter().enumerate() {
        if matches!(token.kind, TokenKind::Normal | TokenKind::UserDefined) {
            // Of tokens that are written alike the first one counts.
            ids.entry(token.bytes.clone()).or_insert(id as u32);
        }
    }
    ids
}

/// SentencePiece's merges: of neighbors that together are a piece, those of the highest score first.
fn merges_by_score(vocabulary: &[Token]) -> Merges {
    let mut pieces: Vec<(u32, &Token)> = (0..).zip(vocabulary).filter(|(_, token)| token.kind == TokenKind::Normal).collect();
    pieces.sort_by(|(_, a), (_, b)| b.score.total_cmp(&a.score));
    let (mut written, mut rank, mut before) = (FastMap::default(), 0, f32::INFINITY);
    for (id, token) in pieces {
        // Pieces of one score have one rank: the leftmost goes first.
        if token.score < before {
            rank += 1;
            before = token.score;
        }
        written.entry(token.bytes.clone()).or_insert((rank, id));
    }
    Merges::Written(written)
}

/// The token of each byte, where all are there: those of kind [`TokenKind::Byte`].
fn byte_tokens(vocabulary: &[Token]) -> Option<Box<[u32; 256]>> {
    let mut bytes = Box::new([u32::MAX; 256]);
    for (id, token) in vocabulary.iter().enumerate() {
        if let (TokenKind::Byte, &[byte]) = (token.kind, &token.bytes[..]) {
            bytes[usize::from(byte)] = id as u32;
        }
    }
    (!bytes.contains(&u32::MAX)).then_some(bytes)
}

/// The byte that a piece such as `<0x0A>` stands for.
fn byte_of(piece: &str) -> Option<u8> {
    let digits = piece.strip_prefix("<0x")?.strip_suffix('>')?;
    let is_hex = digits.len() == 2 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_hex.then(|| u8::from_str_radix(digits, 16).ok()).flatten()
}
