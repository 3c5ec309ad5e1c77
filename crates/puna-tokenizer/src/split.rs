//! Pre-tokenizers: text to the pieces inside which merging happens.
//!
//! Llama's own patterns are matched by hand, a character at a time; patterns from elsewhere go through a regular expression engine.

use fancy_regex::Regex;

use crate::unicode::{Category, LETTER, LOWER, MARK, NUMBER, OTHER_LETTER, SPACE, UPPER, category};
use crate::{Error, Result};

/// One way to cut text.
#[derive(Debug, Clone)]
pub(crate) enum Split {
    /// GPT-2's pattern.
    Gpt2,
    /// Llama 3's pattern.
    Llama3,
    /// Llama 4's pattern.
    Llama4,
    /// Each digit is a piece.
    Digits,
    /// Runs of digits are pieces.
    DigitRuns,
    /// Matches of a pattern from elsewhere are pieces, and so is what lies between them.
    Pattern(Box<Regex>),
}

pub(crate) const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
pub(crate) const LLAMA3: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
pub(crate) const LLAMA4: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";

impl Split {
    /// A pattern as a file gives it: one of ours by its text, else compiled.
    ///
    /// Errors: no pattern that the engine takes.
    pub(crate) fn from_pattern(pattern: &str) -> Result<Self> {
        match pattern {
            GPT2 => return Ok(Self::Gpt2),
            LLAMA3 => return Ok(Self::Llama3),
            LLAMA4 => return Ok(Self::Llama4),
            _ => {}
        }
        // A hostile pattern ends after so many steps; what follows then is one piece.
        let regex = fancy_regex::RegexBuilder::new(pattern).backtrack_limit(1_000_000).build();
        let regex = regex.map_err(|e| Error::invalid("pre_tokenizer", format!("the pattern {pattern:?} cannot be read: {e}")))?;
        Ok(Self::Pattern(Box::new(regex)))
    }

    /// Calls `each` with the pieces of `text`, in order; together they are the text.
    pub(crate) fn pieces<'t>(&self, text: &'t str, each: &mut dyn FnMut(&'t str)) {
        let by_hand: fn(&str) -> usize = match self {
            Self::Gpt2 => gpt2,
            Self::Llama3 => llama3,
            Self::Llama4 => llama4,
            Self::Digits => |text| digits(text, 1),
            Self::DigitRuns => |text| digits(text, usize::MAX),
            Self::Pattern(regex) => return by_pattern(regex, text, each),
        };
        let mut rest = text;
        while !rest.is_empty() {
            let (piece, behind) = rest.split_at(by_hand(rest));
            each(piece);
            rest = behind;
        }
    }
}

fn by_pattern<'t>(regex: &Regex, text: &'t str, each: &mut dyn FnMut(&'t str)) {
    let mut from = 0;
    for found in regex.find_iter(text) {
        // The engine gives up where a pattern backtracks without end.
        let Ok(found) = found else { break };
        if found.start() > from {
            each(&text[from..found.start()]);
        }
        if found.end() > found.start() {
            each(found.as_str());
        }
        from = from.max(found.end());
    }
    if from < text.len() {
        each(&text[from..]);
    }
}

/// How long the characters at the start are that fit, in bytes, at most `most` of them.
fn run(text: &str, most: usize, fits: impl Fn(char) -> bool) -> usize {
    text.char_indices()
        .take(most)
        .find(|(_, c)| !fits(*c))
        .map_or_else(|| text.char_indices().nth(most).map_or(text.len(), |(at, _)| at), |(at, _)| at)
}

fn is(c: char, categories: Category) -> bool {
    category(c) & categories != 0
}

/// `[^\s\p{L}\p{N}]`
fn is_symbol(c: char) -> bool {
    !is(c, SPACE | LETTER | NUMBER)
}

fn is_line_end(c: char) -> bool {
    c == '\r' || c == '\n'
}

/// `'s|'t|'re|'ve|'m|'ll|'d`: its length at the start, or 0. Without case, `'s` is also `'ſ`, as Unicode folds it.
fn contraction(text: &str, any_case: bool) -> usize {
    let Some(rest) = text.strip_prefix('\'') else { return 0 };
    let fold = |c: char| match c {
        'ſ' if any_case => 's',
        _ if any_case => c.to_ascii_lowercase(),
        _ => c,
    };
    let mut chars = rest.chars();
    let (first, second) = (chars.next(), chars.next());
    let length = |chars: [Option<char>; 2]| 1 + chars.into_iter().flatten().map(char::len_utf8).sum::<usize>();
    match (first.map(fold), second.map(fold)) {
        (Some('s' | 't' | 'm' | 'd'), _) => length([first, None]),
        (Some('r' | 'v'), Some('e')) | (Some('l'), Some('l')) => length([first, second]),
        _ => 0,
    }
}

/// `\s+(?!\S)|\s+`: white space up to the last one before something else.
fn spaces(text: &str) -> usize {
    let all = run(text, usize::MAX, |c| is(c, SPACE));
    if all == text.len() {
        return all;
    }
    let last = text[..all].chars().next_back().map_or(0, char::len_utf8);
    if all > last { all - last } else { all }
}

fn gpt2(text: &str) -> usize {
    let short = contraction(text, false);
    if short > 0 {
        return short;
    }
    let space = usize::from(text.starts_with(' '));
    let rest = &text[space..];
    let kinds: [&dyn Fn(char) -> bool; 3] = [&|c| is(c, LETTER), &|c| is(c, NUMBER), &is_symbol];
    for kind in kinds {
        let length = run(rest, usize::MAX, kind);
        if length > 0 {
            return space + length;
        }
    }
    spaces(text)
}

/// What Llama 3 and 4 have in common behind their words: numbers, symbols, line ends, spaces.
fn behind_words(text: &str, symbol_tail: fn(char) -> bool) -> usize {
    let numbers = run(text, 3, |c| is(c, NUMBER));
    if numbers > 0 {
        return numbers;
    }
    let space = usize::from(text.starts_with(' '));
    let symbols = run(&text[space..], usize::MAX, is_symbol);
    if symbols > 0 {
        let end = space + symbols;
        return end + run(&text[end..], usize::MAX, symbol_tail);
    }
    // `\s*[\r\n]+`: white space up to the last line end in it.
    let all = run(text, usize::MAX, |c| is(c, SPACE));
    match text[..all].rfind(is_line_end) {
        Some(at) => at + 1,
        None => spaces(text),
    }
}

/// `[^\r\n\p{L}\p{N}]?` before letters: its length at the start where it fits.
fn before_word(text: &str) -> usize {
    run(text, 1, |c| !is_line_end(c) && !is(c, LETTER | NUMBER))
}

fn llama3(text: &str) -> usize {
    let short = contraction(text, true);
    if short > 0 {
        return short;
    }
    let before = before_word(text);
    let letters = run(&text[before..], usize::MAX, |c| is(c, LETTER));
    if letters > 0 {
        return before + letters;
    }
    behind_words(text, is_line_end)
}

fn llama4(text: &str) -> usize {
    // A mark is both something that may stand before a word and part of one: each alternative tries with it first, then without.
    let before = before_word(text);
    let begins = if before > 0 { &[before, 0][..] } else { &[0] };
    for word in [word_with_tail, word_of_capitals] {
        for &begin in begins {
            let length = word(&text[begin..]);
            if length > 0 {
                let end = begin + length;
                return end + contraction(&text[end..], true);
            }
        }
    }
    behind_words(text, |c| is_line_end(c) || c == '/')
}

/// `[upper]*[lower]+`, both classes with the letters that have no case and with marks.
fn word_with_tail(text: &str) -> usize {
    let upper = run(text, usize::MAX, |c| is(c, UPPER | OTHER_LETTER | MARK));
    let lower = run(&text[upper..], usize::MAX, |c| is(c, LOWER | OTHER_LETTER | MARK));
    if lower > 0 {
        return upper + lower;
    }
    // The first class gives back characters until the second takes one: the last of both classes.
    let both = |(_, c): &(usize, char)| is(*c, OTHER_LETTER | MARK);
    text[..upper].char_indices().rev().find(both).map_or(0, |(at, c)| at + c.len_utf8())
}

/// `[upper]+[lower]*` where the other alternative finds nothing: then no lowercase follows.
fn word_of_capitals(text: &str) -> usize {
    run(text, usize::MAX, |c| is(c, UPPER | OTHER_LETTER | MARK))
}

/// Digits, at most `most` in a piece, apart from what is none. By [`char::is_numeric`], as the reference does.
fn digits(text: &str, most: usize) -> usize {
    let numbers = run(text, most, char::is_numeric);
    if numbers > 0 { numbers } else { run(text, usize::MAX, |c| !c.is_numeric()) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

    use super::*;

    fn pieces(split: &Split, text: &str) -> Vec<String> {
        let mut pieces = Vec::new();
        split.pieces(text, &mut |piece| pieces.push(piece.to_owned()));
        pieces
    }

    /// Characters that patterns tell apart, and any.
    fn texts() -> impl Strategy<Value = String> {
        let telling = prop::sample::select(
            "aZbé\u{1c5}ßʰªあ中ا\u{301}\u{300}\u{93f}0٣½Ⅷ७ \u{a0}\u{2003}\t\n\r\u{85}\u{2028}'sStTrReEvVmMlLdDſK.,!-/_$€😀\u{200d}\u{fe0f}".chars().collect::<Vec<_>>(),
        );
        prop::collection::vec(prop_oneof![8 => telling, 1 => any::<char>()], 0..24).prop_map(String::from_iter)
    }

    #[track_caller]
    fn equals_its_pattern(split: Split, pattern: &str) {
        let regex = Split::Pattern(Box::new(Regex::new(pattern).unwrap()));
        let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]);
        let mut runner = TestRunner::new_with_rng(Config { cases: 20_000, ..Config::default() }, rng);
        runner
            .run(&texts(), |text| {
                prop_assert_eq!(pieces(&split, &text), pieces(&regex, &text));
                Ok(())
            })
            .unwrap();
    }

    #[test]
    fn gpt2_equals_its_pattern() {
        equals_its_pattern(Split::Gpt2, GPT2);
    }

    #[test]
    fn llama3_equals_its_pattern() {
        equals_its_pattern(Split::Llama3, LLAMA3);
    }

    #[test]
    fn llama4_equals_its_pattern() {
        equals_its_pattern(Split::Llama4, LLAMA4);
    }

    #[test]
    fn what_a_pattern_leaves_out_is_a_piece() {
        let split = Split::from_pattern("b+").unwrap();
        assert_eq!(pieces(&split, "abbca"), ["a", "bb", "ca"]);
        assert_eq!(pieces(&Split::Digits, "a12b"), ["a", "1", "2", "b"]);
        assert_eq!(pieces(&Split::DigitRuns, "a12b"), ["a", "12", "b"]);
    }
}
