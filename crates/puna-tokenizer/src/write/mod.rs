//! Tokenizers as the files that others read.

mod gguf;
mod tokenizer_json;

use std::cmp::Reverse;

use crate::Tokenizer;
use crate::byte_level;
use crate::model::Alphabet;
use crate::vocabulary::Kind;

impl Tokenizer {
    fn is_byte_level(&self) -> bool {
        matches!(self.model.alphabet, Alphabet::Bytes(_))
    }

    /// Each token as a vocabulary writes it; empty for an id without one.
    fn names(&self) -> Vec<String> {
        let alphabet = byte_level::alphabet();
        let name = |id| match (self.vocabulary.kind(id), self.added.by_id(id)) {
            (Kind::Normal, _) if self.is_byte_level() => byte_level::written(self.vocabulary.bytes(id), &alphabet),
            (_, Some(added)) => added.text.clone(),
            _ => self.token(id).unwrap_or_default(),
        };
        self.vocabulary.ids().map(name).collect()
    }

    /// The merges by name, first to last. Ways to make tokens of equal rank stand in the order in which Hugging Face's converters
    /// put them: for SentencePiece those of the longest halves first, for tiktoken by the ids of the halves. Characters that are
    /// part of tokens only have no name, so that their merges are left out.
    fn merge_names<'n>(&self, names: &'n [String]) -> Vec<(&'n str, &'n str)> {
        let name = |id: u32| names.get(id as usize).map(String::as_str);
        let mut sorted = self.model.merges.sorted();
        if !self.scores.is_empty() {
            let length = |id: u32| Reverse(name(id).map_or(0, |name| name.chars().count()));
            sorted.sort_by_key(|(rank, left, right, _)| (*rank, length(*left), length(*right)));
        }
        sorted.into_iter().filter_map(|(_, left, right, _)| Some((name(left)?, name(right)?))).collect()
    }
}
