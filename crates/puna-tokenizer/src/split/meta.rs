//! Where Meta's code cuts long texts before it encodes them with tiktoken.

use crate::Result;

/// A text is cut after so many characters.
const CHUNK: usize = 400_000;

/// A run of characters that are all white space, or all none, is cut after so many.
const RUN: usize = 25_000;

/// Calls `each` with the parts that Meta's tokenizers for Llama 3 and 4 encode one by one. Tokens never cross such a cut, so that
/// ids of long runs differ from those of the same ranks elsewhere.
pub(crate) fn chunks(text: &str, each: &mut dyn FnMut(&str) -> Result<()>) -> Result<()> {
    if text.len() <= RUN {
        return if text.is_empty() { Ok(()) } else { each(text) };
    }
    let (mut from, mut chunk, mut run, mut spaces) = (0, 0, 0, false);
    for (at, c) in text.char_indices() {
        if chunk == CHUNK {
            each(&text[from..at])?;
            (from, chunk, run) = (at, 0, 0);
        }
        chunk += 1;
        let is_space = is_space(c);
        if run > 0 && is_space == spaces {
            run += 1;
            if run > RUN {
                each(&text[from..at])?;
                (from, run) = (at, 1);
            }
        } else {
            (run, spaces) = (1, is_space);
        }
    }
    each(&text[from..])
}

/// Python's `str.isspace`: Unicode's white space, and four separators of ASCII.
fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &[usize]) {
        let mut lengths = Vec::new();
        let mut whole = String::new();
        chunks(text, &mut |chunk| {
            lengths.push(chunk.chars().count());
            whole.push_str(chunk);
            Ok(())
        })
        .unwrap();
        assert_eq!(lengths, expected);
        assert_eq!(whole, text);
    }

    #[test]
    fn long_runs_and_long_texts_are_cut() {
        check("", &[]);
        check("ab", &[2]);
        check(&"a".repeat(25_000), &[25_000]);
        check(&"a".repeat(60_000), &[25_000, 25_000, 10_000]);
        check(&"é ".repeat(30_000), &[60_000]);
        check(&("a".repeat(20_000) + &" ".repeat(30_000)), &[45_000, 5_000]);
        check(&"\u{1c} ".repeat(13_000), &[25_000, 1_000]);
        check(&"ab ".repeat(150_000), &[400_000, 50_000]);
    }
}
