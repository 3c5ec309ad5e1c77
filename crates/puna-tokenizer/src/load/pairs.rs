//! Merges that no list names: neighbors merge where together they are a token.

use crate::merge::Merges;
use crate::vocabulary::Vocabulary;
use crate::{Error, Result};

/// Tokens have at most so many bytes: every place in each is tried as a seam. Llama's have at most 128.
const MOST_BYTES: usize = 1024;

/// The merges of `tokens`, each an id with its rank: every way to write one as two others.
///
/// `part` gives the id of a half. Halves begin and end where `is_seam` says of a token and a place in it.
///
/// Errors: a token of more than 1024 bytes.
pub(crate) fn joined_pairs(
    vocabulary: &Vocabulary,
    tokens: impl Iterator<Item = (u32, u32)>,
    part: impl Fn(&[u8]) -> Option<u32>,
    is_seam: impl Fn(&[u8], usize) -> bool,
    place: &str,
) -> Result<Merges> {
    // Llama 3 has 2.2 pairs a token.
    let mut merges = Merges::with_capacity(vocabulary.len() * 9 / 4);
    for (id, rank) in tokens {
        let token = vocabulary.bytes(id);
        if token.len() > MOST_BYTES {
            let message = format!("token {id} has {} bytes; at most {MOST_BYTES} would be right", token.len());
            return Err(Error::invalid(place, message));
        }
        for at in (1..token.len()).filter(|at| is_seam(token, *at)) {
            let (left, right) = token.split_at(at);
            if let Some(left) = part(left)
                && let Some(right) = part(right)
            {
                merges.insert(left, right, rank, id);
            }
        }
    }
    Ok(merges)
}
