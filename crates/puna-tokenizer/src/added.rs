//! Tokens that are found in text as they are written: special tokens, and others.

use aho_corasick::{AhoCorasick, AhoCorasickKind, MatchKind};

use crate::hash::FastMap;
use crate::normalize::{Normalize, normalize};
use crate::{Error, Result};

/// Added tokens have at most so many bytes: how far a search looks ahead, at every place. Llama's have at most 43.
const MOST_BYTES: usize = 1024;

/// A token that is found in text as it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Added {
    pub(crate) text: String,
    pub(crate) id: u32,
    /// Found only where special tokens are parsed.
    pub(crate) special: bool,
    /// White space before it belongs to it.
    pub(crate) lstrip: bool,
    /// White space behind it belongs to it.
    pub(crate) rstrip: bool,
    /// Found only where no word character stands beside it.
    pub(crate) single_word: bool,
    /// Found, itself normalized, in normalized text rather than in the text as given.
    pub(crate) normalized: bool,
}

impl Added {
    pub(crate) fn special(text: impl Into<String>, id: u32) -> Self {
        Self { text: text.into(), id, special: true, lstrip: false, rstrip: false, single_word: false, normalized: false }
    }
}

/// All added tokens, to find them in text.
#[derive(Default)]
pub(crate) struct AddedTokens {
    pub(crate) list: Vec<Added>,
    by_id: FastMap<u32, usize>,
    by_text: std::collections::HashMap<String, usize>,
    raw: Option<Search>,
    normalized: Option<Search>,
}

/// Finds some of the tokens: at each place the longest.
struct Search {
    automaton: AhoCorasick,
    /// For each pattern, its token's place in the list.
    tokens: Vec<usize>,
    /// Whether one of them is not special, so that text is searched even where special tokens are not parsed.
    any_plain: bool,
}

/// A part of a text.
pub(crate) enum Part<'t> {
    /// What lies between added tokens, and whether it begins the text.
    Text(&'t str, bool),
    /// An added token's id.
    Token(u32),
}

impl AddedTokens {
    /// Errors: a token of more than 1024 bytes; tokens so long altogether that no automaton finds them.
    pub(crate) fn new(list: Vec<Added>, normalizer: &[Normalize]) -> Result<Self> {
        let mut tokens = Self::default();
        for (at, added) in list.iter().enumerate() {
            if added.text.len() > MOST_BYTES {
                let message = format!("token {} has {} bytes; at most {MOST_BYTES} would be right", added.id, added.text.len());
                return Err(Error::invalid("added_tokens", message));
            }
            tokens.by_id.insert(added.id, at);
            tokens.by_text.insert(added.text.clone(), at);
        }
        let search = |normalized: bool| -> Result<Option<Search>> {
            // An empty token would be found everywhere. One given twice counts as the last of them.
            let wanted = |(at, added): &(usize, &Added)| {
                added.normalized == normalized && !added.text.is_empty() && tokens.by_text[&added.text] == *at
            };
            let (places, texts): (Vec<usize>, Vec<String>) = list
                .iter()
                .enumerate()
                .filter(wanted)
                .map(|(at, added)| (at, if normalized { normalize(normalizer, &added.text) } else { added.text.clone() }))
                .unzip();
            if places.is_empty() {
                return Ok(None);
            }
            // Not a DFA: to make one takes time quadratic in the length of a hostile token.
            let kind = Some(AhoCorasickKind::ContiguousNFA);
            let automaton = AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).kind(kind).build(&texts);
            let automaton = automaton.map_err(|e| Error::invalid("added_tokens", format!("they cannot be searched for: {e}")))?;
            let any_plain = places.iter().any(|&at| !list[at].special);
            Ok(Some(Search { automaton, tokens: places, any_plain }))
        };
        (tokens.raw, tokens.normalized) = (search(false)?, search(true)?);
        tokens.list = list;
        Ok(tokens)
    }

    pub(crate) fn by_id(&self, id: u32) -> Option<&Added> {
        self.by_id.get(&id).map(|&at| &self.list[at])
    }

    pub(crate) fn by_text(&self, text: &str) -> Option<&Added> {
        self.by_text.get(text).map(|&at| &self.list[at])
    }

    /// Cuts text as it is given.
    pub(crate) fn cut(&self, text: &str, parse: bool, each: &mut dyn FnMut(Part<'_>) -> Result<()>) -> Result<()> {
        self.cut_by(self.raw.as_ref(), text, true, parse, each)
    }

    /// Cuts normalized text; `begins`: what it comes from begins the text as given.
    pub(crate) fn cut_normalized(
        &self,
        text: &str,
        begins: bool,
        parse: bool,
        each: &mut dyn FnMut(Part<'_>) -> Result<()>,
    ) -> Result<()> {
        self.cut_by(self.normalized.as_ref(), text, begins, parse, each)
    }

    fn cut_by(
        &self,
        search: Option<&Search>,
        text: &str,
        begins: bool,
        parse: bool,
        each: &mut dyn FnMut(Part<'_>) -> Result<()>,
    ) -> Result<()> {
        let mut from = 0;
        // Where the white space ends that was seen last: tokens in it need not look again.
        let mut spaces_end = 0;
        if let Some(search) = search.filter(|search| parse || search.any_plain) {
            for found in search.automaton.find_iter(text) {
                let added = &self.list[search.tokens[found.pattern().as_usize()]];
                let (mut start, mut end) = (found.start(), found.end());
                if (added.special && !parse) || (added.single_word && !stands_alone(text, start, end)) {
                    continue;
                }
                if added.lstrip {
                    // White space that the token before has taken is gone.
                    start = text.get(from..start).map_or(from, |before| from + before.trim_end().len());
                }
                if added.rstrip {
                    if end > spaces_end {
                        spaces_end = text.len() - text[end..].trim_start().len();
                    }
                    end = spaces_end;
                }
                if from < start {
                    each(Part::Text(&text[from..start], begins && from == 0))?;
                }
                each(Part::Token(added.id))?;
                from = end;
            }
        }
        if from < text.len() { each(Part::Text(&text[from..], begins && from == 0)) } else { Ok(()) }
    }
}

/// Whether no word character, `\w`, stands beside `text[start..end]`.
fn stands_alone(text: &str, start: usize, end: usize) -> bool {
    let is_word = |c: Option<char>| c.is_some_and(regex_syntax::is_word_character);
    !is_word(text[..start].chars().next_back()) && !is_word(text[end..].chars().next())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(list: Vec<Added>, text: &str, parse: bool, expected: &[&str]) {
        let tokens = AddedTokens::new(list, &[]).unwrap();
        let mut parts = Vec::new();
        let mut each = |part: Part<'_>| {
            parts.push(match part {
                Part::Text(text, _) => text.to_owned(),
                Part::Token(id) => format!("#{id}"),
            });
            Ok(())
        };
        tokens.cut(text, parse, &mut each).unwrap();
        assert_eq!(parts, expected);
    }

    #[test]
    fn the_longest_token_is_found() {
        let list = vec![Added::special("<a", 1), Added::special("<ab>", 2), Added::special("b>", 3)];
        check(list.clone(), "x<ab><acb>", true, &["x", "#2", "#1", "c", "#3"]);
        check(list, "x<ab>", false, &["x<ab>"]);
    }

    #[test]
    fn white_space_belongs_to_tokens_that_strip() {
        let strips = Added { lstrip: true, rstrip: true, ..Added::special("<m>", 1) };
        check(vec![strips], "a \t<m> \n<m>  b", true, &["a", "#1", "#1", "b"]);
    }

    #[test]
    fn a_single_word_stands_alone() {
        let word = Added { special: false, single_word: true, ..Added::special("day", 1) };
        check(vec![word], "monday day, \u{e9}day day", false, &["monday ", "#1", ", \u{e9}day ", "#1"]);
    }
}
