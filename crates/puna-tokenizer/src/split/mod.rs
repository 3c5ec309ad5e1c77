//! Pre-tokenizers: text to the pieces inside which merging happens.

mod llama;
pub(crate) mod meta;

use fancy_regex::Regex;
pub(crate) use llama::{GPT2, LLAMA3, LLAMA4};

use crate::{Error, Result};

/// How many steps of backtracking a pattern from elsewhere may take on one text before that is an error.
const BACKTRACK_LIMIT: usize = 1_000_000;

/// What memory each part of a pattern from elsewhere may take that needs no backtracking; a pattern may have many.
const DELEGATE_BYTES: usize = 1 << 18;

/// One way to cut text.
pub(crate) enum Split {
    /// GPT-2's pattern, [`GPT2`].
    Gpt2,
    /// Llama 3's pattern, [`LLAMA3`].
    Llama3,
    /// Llama 4's pattern, [`LLAMA4`].
    Llama4,
    /// Each digit is a piece ([`char::is_numeric`]).
    Digits,
    /// Each run of digits is a piece.
    DigitRuns,
    /// A pattern from elsewhere.
    Pattern(Pattern),
    /// Text that does not begin with a space gets one.
    PrefixSpace,
    /// Spaces become another character.
    Metaspace(Metaspace),
}

/// A pattern from elsewhere, matched by a regular expression engine.
pub(crate) struct Pattern {
    regex: Regex,
    /// As it is written in the file.
    pub(crate) source: PatternSource,
    pub(crate) behavior: Behavior,
    /// Whether what lies between matches counts as matched, and matches do not.
    pub(crate) invert: bool,
}

/// A pattern as it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PatternSource {
    /// A regular expression.
    Regex(String),
    /// Text that is to be found as it is.
    Text(String),
}

/// What becomes of matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Behavior {
    /// They are left out.
    Removed,
    /// Each is a piece.
    Isolated,
    /// Each joins the piece before.
    MergedWithPrevious,
    /// Each joins the piece behind.
    MergedWithNext,
    /// Those side by side are one piece.
    Contiguous,
}

/// Spaces as a visible character.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Metaspace {
    pub(crate) replacement: char,
    pub(crate) prepend: Prepend,
    /// Whether a piece begins with each of these characters.
    pub(crate) split: bool,
}

/// Where a visible space is put before text that does not begin with one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Prepend {
    /// Everywhere.
    Always,
    /// At the beginning of the whole text only.
    First,
    /// Nowhere.
    Never,
}

/// Takes a piece, and whether it begins the whole text.
pub(crate) type Each<'a> = &'a mut dyn FnMut(&str, bool) -> Result<()>;

/// Cuts text by all of `splits`, each cutting the pieces of the one before.
pub(crate) fn cut(splits: &[Split], text: &str, begins: bool, each: Each<'_>) -> Result<()> {
    match splits {
        [] => each(text, begins),
        [last] => last.cut(text, begins, each),
        [first, rest @ ..] => first.cut(text, begins, &mut |piece, begins| cut(rest, piece, begins, each)),
    }
}

impl Split {
    /// A pattern as a file gives it: one of ours where it is written so, else compiled.
    ///
    /// Errors: a pattern that the engine does not take.
    pub(crate) fn from_pattern(source: PatternSource, behavior: Behavior, invert: bool) -> Result<Self> {
        // Our patterns match at every place, so that what becomes of matches is the same for all that keep each.
        let keeps_matches = matches!((behavior, invert), (Behavior::Isolated, false) | (Behavior::Removed, true));
        if let (PatternSource::Regex(pattern), true) = (&source, keeps_matches) {
            match pattern.as_str() {
                GPT2 => return Ok(Self::Gpt2),
                LLAMA3 => return Ok(Self::Llama3),
                LLAMA4 => return Ok(Self::Llama4),
                _ => {}
            }
        }
        let pattern = match &source {
            PatternSource::Regex(pattern) => pattern.clone(),
            PatternSource::Text(text) => fancy_regex::escape(text).into_owned(),
        };
        let regex = fancy_regex::RegexBuilder::new(&pattern)
            .backtrack_limit(BACKTRACK_LIMIT)
            .delegate_size_limit(DELEGATE_BYTES)
            .delegate_dfa_size_limit(DELEGATE_BYTES)
            .build();
        let regex = regex.map_err(|e| Error::Pattern { pattern, message: e.to_string() })?;
        Ok(Self::Pattern(Pattern { regex, source, behavior, invert }))
    }

    fn cut(&self, text: &str, begins: bool, each: Each<'_>) -> Result<()> {
        if text.is_empty() {
            return Ok(());
        }
        match self {
            Self::Gpt2 => by_length(llama::gpt2, text, begins, each),
            Self::Llama3 => by_length(llama::llama3, text, begins, each),
            Self::Llama4 => by_length(llama::llama4, text, begins, each),
            Self::Digits => by_length(|text, at| digits(text, at, 1), text, begins, each),
            Self::DigitRuns => by_length(|text, at| digits(text, at, usize::MAX), text, begins, each),
            Self::Pattern(pattern) => pattern.cut(text, begins, each),
            Self::PrefixSpace if text.starts_with(' ') => each(text, begins),
            Self::PrefixSpace => each(&format!(" {text}"), begins),
            Self::Metaspace(metaspace) => metaspace.cut(text, begins, each),
        }
    }
}

/// Cuts by a function that gives where the piece ends that begins at a place.
#[inline]
fn by_length(end_of: impl Fn(&str, usize) -> usize, text: &str, begins: bool, each: Each<'_>) -> Result<()> {
    let mut from = 0;
    while from < text.len() {
        let end = end_of(text, from);
        each(&text[from..end], begins && from == 0)?;
        from = end;
    }
    Ok(())
}

/// Digits, at most `most` in a piece, apart from what is none.
fn digits(text: &str, at: usize, most: usize) -> usize {
    let mut chars = text[at..].char_indices();
    let is_digit = chars.next().is_some_and(|(_, c)| c.is_numeric());
    let most = if is_digit { most } else { usize::MAX };
    chars.zip(1..).find(|((_, c), n)| *n == most || c.is_numeric() != is_digit).map_or(text.len(), |((end, _), _)| at + end)
}

impl Pattern {
    fn cut(&self, text: &str, begins: bool, each: Each<'_>) -> Result<()> {
        // The stretches of the text in order, and whether each is a match.
        let mut stretches: Vec<(usize, usize, bool)> = Vec::new();
        let mut from = 0;
        for found in self.regex.find_iter(text) {
            let found = found.map_err(|e| Error::Pattern { pattern: self.regex.as_str().to_owned(), message: e.to_string() })?;
            if from < found.start() {
                stretches.push((from, found.start(), self.invert));
            }
            if found.start() < found.end() {
                stretches.push((found.start(), found.end(), !self.invert));
            }
            from = found.end();
        }
        if from < text.len() {
            stretches.push((from, text.len(), self.invert));
        }
        self.behavior.apply(&mut stretches);
        stretches.into_iter().try_for_each(|(start, end, _)| each(&text[start..end], begins && start == 0))
    }
}

impl Behavior {
    /// Joins or drops stretches of text, which are given with whether each is a match.
    fn apply(self, stretches: &mut Vec<(usize, usize, bool)>) {
        match self {
            Self::Isolated => {}
            Self::Removed => stretches.retain(|(_, _, matched)| !matched),
            Self::Contiguous => stretches.dedup_by(|next, before| {
                let joins = next.2 == before.2;
                if joins {
                    before.1 = next.1;
                }
                joins
            }),
            Self::MergedWithPrevious => join_matches(stretches, |before, next| before.1 = next.1),
            Self::MergedWithNext => {
                stretches.reverse();
                join_matches(stretches, |behind, next| behind.0 = next.0);
                stretches.reverse();
            }
        }
    }
}

/// Joins each match to the stretch before it, unless that was a match too.
fn join_matches(stretches: &mut Vec<(usize, usize, bool)>, join: impl Fn(&mut (usize, usize, bool), (usize, usize, bool))) {
    let (mut joined, mut after_match) = (Vec::with_capacity(stretches.len()), false);
    for stretch in stretches.drain(..) {
        match joined.last_mut() {
            Some(before) if stretch.2 && !after_match => join(before, stretch),
            _ => joined.push(stretch),
        }
        after_match = stretch.2;
    }
    *stretches = joined;
}

impl Metaspace {
    fn cut(&self, text: &str, begins: bool, each: Each<'_>) -> Result<()> {
        let mut utf8 = [0; 4];
        let space: &str = self.replacement.encode_utf8(&mut utf8);
        let mut text = text.replace(' ', space);
        let prepends = match self.prepend {
            Prepend::Always => true,
            Prepend::First => begins,
            Prepend::Never => false,
        };
        if prepends && !text.starts_with(space) {
            text.insert_str(0, space);
        }
        if !self.split {
            return each(&text, begins);
        }
        let mut from = 0;
        for (at, _) in text.match_indices(space).filter(|(at, _)| *at > 0) {
            each(&text[from..at], begins && from == 0)?;
            from = at;
        }
        each(&text[from..], begins && from == 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn pieces(split: &Split, text: &str) -> Vec<String> {
        let mut pieces = Vec::new();
        let mut each = |piece: &str, _| {
            pieces.push(piece.to_owned());
            Ok(())
        };
        split.cut(text, true, &mut each).unwrap();
        pieces
    }

    fn pattern(pattern: &str, behavior: Behavior, invert: bool) -> Split {
        Split::from_pattern(PatternSource::Regex(pattern.into()), behavior, invert).unwrap()
    }

    #[test]
    fn behaviors_are_hugging_faces() {
        let check = |behavior, text: &str, expected: &[&str]| assert_eq!(pieces(&pattern("-", behavior, false), text), expected);
        let text = "The-final--countdown";
        check(Behavior::Removed, text, &["The", "final", "countdown"]);
        check(Behavior::Isolated, text, &["The", "-", "final", "-", "-", "countdown"]);
        check(Behavior::MergedWithPrevious, text, &["The-", "final-", "-", "countdown"]);
        check(Behavior::MergedWithNext, text, &["The", "-final", "-", "-countdown"]);
        check(Behavior::Contiguous, text, &["The", "-", "final", "--", "countdown"]);
        check(Behavior::MergedWithPrevious, "---a-", &["-", "-", "-", "a-"]);
        check(Behavior::MergedWithNext, "-a---", &["-a", "-", "-", "-"]);
        assert_eq!(pieces(&pattern("b+", Behavior::Removed, true), "abbca"), ["bb"]);
        assert_eq!(pieces(&pattern("x*", Behavior::Isolated, false), "axxb"), ["a", "xx", "b"]);
    }

    #[test]
    fn digits_stand_alone_or_in_runs() {
        assert_eq!(pieces(&Split::Digits, "a12b½"), ["a", "1", "2", "b", "½"]);
        assert_eq!(pieces(&Split::DigitRuns, "a12b½"), ["a", "12", "b", "½"]);
        assert_eq!(pieces(&Split::DigitRuns, "1234"), ["1234"]);
    }

    #[test]
    fn metaspace_is_hugging_faces() {
        let check = |prepend, split, text: &str, expected: &[&str]| {
            assert_eq!(pieces(&Split::Metaspace(Metaspace { replacement: '▁', prepend, split }), text), expected);
        };
        check(Prepend::Always, true, "Hey  you", &["▁Hey", "▁", "▁you"]);
        check(Prepend::Always, true, " Hey", &["▁Hey"]);
        check(Prepend::Never, true, "Hey you", &["Hey", "▁you"]);
        check(Prepend::First, false, "Hey you", &["▁Hey▁you"]);
    }

    #[test]
    fn a_pattern_that_backtracks_without_end_is_an_error() {
        let split = pattern(r"(?:a|a?)+(?=b)c|(x+x+)+(?!\S)y", Behavior::Isolated, false);
        let error = split.cut(&"x".repeat(4000), true, &mut |_, _| Ok(())).unwrap_err();
        assert!(error.to_string().contains("cannot be matched"), "{error}");
    }
}
