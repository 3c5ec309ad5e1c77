//! Llama's own patterns, matched by hand: a table look-up a character, no backtracking.

use crate::unicode::{CASELESS, Categories, Category, LETTER, LINE_END, LOWER, MARK, NUMBER, SPACE, UPPER};

/// GPT-2's pattern, also SmolLM's.
pub(crate) const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";

/// Llama 3's pattern.
pub(crate) const LLAMA3: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// Llama 4's pattern.
pub(crate) const LLAMA4: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// Where the piece ends that begins at `at`, by GPT-2's pattern.
pub(super) fn gpt2(text: &str, at: usize) -> usize {
    let text = Text::new(text);
    if let Some(end) = text.contraction(at, Case::Sensitive) {
        return end;
    }
    let begin = at + usize::from(text.bytes.get(at) == Some(&b' '));
    match text.category(begin) {
        Some(c) if c & LETTER != 0 => text.run(begin, LETTER),
        Some(c) if c & NUMBER != 0 => text.run(begin, NUMBER),
        Some(c) if c & SPACE == 0 => text.run_without(begin, SPACE | LETTER | NUMBER),
        _ => text.spaces(at),
    }
}

/// Where the piece ends that begins at `at`, by Llama 3's pattern.
pub(super) fn llama3(text: &str, at: usize) -> usize {
    let text = Text::new(text);
    if let Some(end) = text.contraction(at, Case::Insensitive) {
        return end;
    }
    let begin = text.before_word(at);
    let letters = text.run(begin, LETTER);
    if letters > begin {
        return letters;
    }
    text.behind_words(at, |byte| matches!(byte, b'\r' | b'\n'))
}

/// Where the piece ends that begins at `at`, by Llama 4's pattern.
pub(super) fn llama4(text: &str, at: usize) -> usize {
    let text = Text::new(text);
    let begin = text.before_word(at);
    // A mark may stand before a word and be part of one: each alternative tries with it before, then as part.
    let word = text.lower_word(begin).or_else(|| text.lower_word(at));
    let word = word.or_else(|| text.upper_word(begin)).or_else(|| text.upper_word(at));
    if let Some(end) = word {
        return text.contraction(end, Case::Insensitive).unwrap_or(end);
    }
    text.behind_words(at, |byte| matches!(byte, b'\r' | b'\n' | b'/'))
}

/// The categories of ASCII.
const ASCII: [Category; 128] = {
    let mut table = [0; 128];
    let mut byte = 0u8;
    while byte < 128 {
        table[byte as usize] = match byte {
            b'A'..=b'Z' => UPPER,
            b'a'..=b'z' => LOWER,
            b'0'..=b'9' => NUMBER,
            b'\r' | b'\n' => SPACE | LINE_END,
            b' ' | b'\t' | 0x0b | 0x0c => SPACE,
            _ => 0,
        };
        byte += 1;
    }
    table
};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Case {
    Sensitive,
    Insensitive,
}

struct Text<'t> {
    text: &'t str,
    bytes: &'t [u8],
    categories: &'static Categories,
}

impl<'t> Text<'t> {
    #[inline]
    fn new(text: &'t str) -> Self {
        Self { text, bytes: text.as_bytes(), categories: Categories::table() }
    }

    /// The categories of the character at `at`; `None` at the end.
    #[inline]
    fn category(&self, at: usize) -> Option<Category> {
        self.character(at).map(|(category, _)| category)
    }

    /// The categories of the character at `at`, and where it ends.
    #[inline]
    fn character(&self, at: usize) -> Option<(Category, usize)> {
        let byte = *self.bytes.get(at)?;
        if byte < 128 {
            return Some((ASCII[usize::from(byte)], at + 1));
        }
        let c = self.text[at..].chars().next()?;
        Some((self.categories.of(c), at + c.len_utf8()))
    }

    /// Where the characters of these categories end that begin at `at`.
    #[inline]
    fn run(&self, mut at: usize, categories: Category) -> usize {
        while let Some((category, end)) = self.character(at)
            && category & categories != 0
        {
            at = end;
        }
        at
    }

    /// Where the characters of none of these categories end that begin at `at`.
    #[inline]
    fn run_without(&self, mut at: usize, categories: Category) -> usize {
        while let Some((category, end)) = self.character(at)
            && category & categories == 0
        {
            at = end;
        }
        at
    }

    /// `'s|'t|'re|'ve|'m|'ll|'d`. Without case, `'s` is also `'ſ`: Unicode folds the long s to s.
    #[inline]
    fn contraction(&self, at: usize, case: Case) -> Option<usize> {
        if self.bytes.get(at) != Some(&b'\'') {
            return None;
        }
        let letter = |at: usize| match (self.bytes.get(at), case) {
            (Some(byte), Case::Insensitive) => byte.to_ascii_lowercase(),
            (Some(byte), Case::Sensitive) => *byte,
            (None, _) => 0,
        };
        match (letter(at + 1), letter(at + 2)) {
            (b's' | b't' | b'm' | b'd', _) => Some(at + 2),
            (b'r' | b'v', b'e') | (b'l', b'l') => Some(at + 3),
            _ if case == Case::Insensitive && self.text[at + 1..].starts_with('ſ') => Some(at + 1 + 'ſ'.len_utf8()),
            _ => None,
        }
    }

    /// `[^\r\n\p{L}\p{N}]?`: where it ends if it takes what it can.
    #[inline]
    fn before_word(&self, at: usize) -> usize {
        match self.character(at) {
            Some((category, end)) if category & (LINE_END | LETTER | NUMBER) == 0 => end,
            _ => at,
        }
    }

    /// `[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+`
    #[inline]
    fn lower_word(&self, at: usize) -> Option<usize> {
        let upper = self.run(at, UPPER | CASELESS | MARK);
        let lower = self.run(upper, LOWER | CASELESS | MARK);
        if lower > upper {
            return Some(lower);
        }
        // The first class gives back characters until the second takes one: the last in the run that is in both. What follows
        // it there is upper case, so the second class takes no more.
        let both = |c: char| self.categories.of(c) & (CASELESS | MARK) != 0;
        let run = &self.text[at..upper];
        run.char_indices().rev().find(|(_, c)| both(*c)).map(|(last, c)| at + last + c.len_utf8())
    }

    /// `[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*`, where no [`lower_word`](Self::lower_word) is.
    #[inline]
    fn upper_word(&self, at: usize) -> Option<usize> {
        let upper = self.run(at, UPPER | CASELESS | MARK);
        (upper > at).then(|| self.run(upper, LOWER | CASELESS | MARK))
    }

    /// What Llama 3 and 4 have in common behind their words: `\p{N}{1,3}| ?[^\s\p{L}\p{N}]+TAIL*|\s*[\r\n]+|\s+(?!\S)|\s+`.
    #[inline]
    fn behind_words(&self, at: usize, tail: impl Fn(u8) -> bool) -> usize {
        if self.category(at).is_some_and(|category| category & NUMBER != 0) {
            return (0..3).fold(at, |at, _| match self.character(at) {
                Some((category, end)) if category & NUMBER != 0 => end,
                _ => at,
            });
        }
        let begin = at + usize::from(self.bytes.get(at) == Some(&b' '));
        let symbols = self.run_without(begin, SPACE | LETTER | NUMBER);
        if symbols > begin {
            return self.bytes[symbols..].iter().position(|byte| !tail(*byte)).map_or(self.bytes.len(), |n| symbols + n);
        }
        // White space up to the last line end in it.
        let spaces = self.run(at, SPACE);
        match self.bytes[at..spaces].iter().rposition(|byte| matches!(byte, b'\r' | b'\n')) {
            Some(last) => at + last + 1,
            None => self.spaces(at),
        }
    }

    /// `\s+(?!\S)|\s+`: white space, but for its last character if something else follows and this is not all.
    #[inline]
    fn spaces(&self, at: usize) -> usize {
        let end = self.run(at, SPACE);
        let last = self.text[at..end].chars().next_back().map_or(0, char::len_utf8);
        if end < self.bytes.len() && end - last > at { end - last } else { end }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

    use super::super::tests::pieces;
    use super::super::{Behavior, PatternSource, Split};
    use super::*;

    /// Characters that the patterns tell apart, and any; in runs, as text is.
    fn texts() -> impl Strategy<Value = String> {
        let telling = "aZbéǅßʰªあ中ا\u{301}\u{300}\u{93f}\u{903}\u{20dd}0٣½Ⅷ७ \u{a0}\u{2003}\t\n\r\u{b}\u{1c}\u{85}\u{2028}'sStTrReEvVmMlLdDſK.,!-/_$€😀\u{200d}\u{fe0f}";
        let telling = prop::sample::select(telling.chars().collect::<Vec<_>>());
        let run = (prop_oneof![8 => telling, 2 => any::<char>()], prop_oneof![6 => Just(1usize), 1 => 2..6usize]);
        prop::collection::vec(run, 0..24).prop_map(|runs| runs.into_iter().flat_map(|(c, n)| std::iter::repeat_n(c, n)).collect())
    }

    #[track_caller]
    fn equals_its_pattern(split: Split, pattern: &str) {
        // Another spelling, so that it is compiled and not recognized.
        let source = PatternSource::Regex(format!("(?:{pattern})"));
        let regex = Split::from_pattern(source, Behavior::Isolated, false).unwrap();
        assert!(matches!(regex, Split::Pattern(_)));
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
    fn a_mark_before_capitals_is_a_word_of_its_own() {
        assert_eq!(pieces(&Split::Llama4, "\u{301}AB"), ["\u{301}", "AB"]);
    }

    #[test]
    fn each_character_stands_as_its_pattern_says() {
        // Every code point between a letter and a digit, and doubled, in texts of many.
        for (split, pattern) in [(Split::Gpt2, GPT2), (Split::Llama3, LLAMA3), (Split::Llama4, LLAMA4)] {
            let source = PatternSource::Regex(format!("(?:{pattern})"));
            let regex = Split::from_pattern(source, Behavior::Isolated, false).unwrap();
            let all: Vec<char> = ('\0'..='\u{33ff}').chain('\u{a000}'..='\u{abff}').chain('\u{f900}'..='\u{1ffff}').collect();
            for some in all.chunks(256) {
                let text: String = some.iter().flat_map(|&c| ['a', c, '1', c, c, 'B']).collect();
                assert_eq!(pieces(&split, &text), pieces(&regex, &text));
            }
        }
    }
}
