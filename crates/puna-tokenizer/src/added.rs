//! Tokens that stand beside the merged ones: special tokens, and others that are found in text as they are.

use crate::merge::FastMap;

/// A token that is found in text as it is written.
#[derive(Debug, Clone)]
pub(crate) struct Added {
    pub(crate) text: String,
    pub(crate) id: u32,
    /// Found only where special tokens are asked for, and no text when decoded as such.
    pub(crate) special: bool,
    /// White space before it belongs to it.
    pub(crate) lstrip: bool,
    /// White space behind it belongs to it.
    pub(crate) rstrip: bool,
    /// Found only where no word character stands beside it.
    pub(crate) single_word: bool,
    /// Found in normalized text rather than in the text as given.
    pub(crate) normalized: bool,
}

impl Added {
    pub(crate) fn special(text: impl Into<String>, id: u32) -> Self {
        Self { text: text.into(), id, special: true, lstrip: false, rstrip: false, single_word: false, normalized: false }
    }
}

/// All added tokens, to find them in text.
#[derive(Debug, Clone, Default)]
pub(crate) struct AddedTokens {
    pub(crate) list: Vec<Added>,
    by_id: FastMap<u32, usize>,
    by_text: FastMap<Box<str>, usize>,
    /// For each first byte, the lengths that tokens beginning with it have, longest first.
    lengths: FastMap<u8, Vec<usize>>,
}

/// A part of a text: what lies between added tokens, or one of them.
pub(crate) enum Part<'t> {
    Text(&'t str),
    Token(u32),
}

impl AddedTokens {
    pub(crate) fn new(list: Vec<Added>) -> Self {
        let mut tokens = Self::default();
        for (at, added) in list.iter().enumerate() {
            tokens.by_id.insert(added.id, at);
            // An empty token would be found everywhere.
            let Some(&first) = added.text.as_bytes().first() else { continue };
            tokens.by_text.insert(added.text.as_str().into(), at);
            let lengths = tokens.lengths.entry(first).or_default();
            if !lengths.contains(&added.text.len()) {
                lengths.push(added.text.len());
                lengths.sort_unstable_by_key(|length| std::cmp::Reverse(*length));
            }
        }
        tokens.list = list;
        tokens
    }

    pub(crate) fn by_id(&self, id: u32) -> Option<&Added> {
        self.by_id.get(&id).map(|&at| &self.list[at])
    }

    pub(crate) fn by_text(&self, text: &str) -> Option<&Added> {
        self.by_text.get(text).map(|&at| &self.list[at])
    }

    /// Cuts `text` at the tokens that `wanted` takes: at each place the longest, from left to right.
    pub(crate) fn parts<'t>(&self, text: &'t str, wanted: impl Fn(&Added) -> bool, each: &mut dyn FnMut(Part<'t>)) {
        let (mut from, mut at) = (0, 0);
        while at < text.len() {
            let Some(added) = self.at(text, at).filter(|added| wanted(added) && stands_alone(added, text, at)) else {
                at += 1;
                continue;
            };
            let mut start = at;
            if added.lstrip {
                start = text[from..at].trim_end().len() + from;
            }
            if start > from {
                each(Part::Text(&text[from..start]));
            }
            each(Part::Token(added.id));
            at += added.text.len();
            if added.rstrip {
                at += text[at..].len() - text[at..].trim_start().len();
            }
            from = at;
        }
        if from < text.len() {
            each(Part::Text(&text[from..]));
        }
    }

    fn at(&self, text: &str, at: usize) -> Option<&Added> {
        let lengths = self.lengths.get(&text.as_bytes()[at])?;
        lengths.iter().find_map(|&length| self.by_text(text.get(at..at + length)?))
    }
}

fn stands_alone(added: &Added, text: &str, at: usize) -> bool {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let end = at + added.text.len();
    !added.single_word
        || !(text[..at].chars().next_back().is_some_and(is_word) || text[end..].chars().next().is_some_and(is_word))
}
