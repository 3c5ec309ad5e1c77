//! What happens to text before it is cut into pieces.

use std::borrow::Cow;

/// [`Normalize::CollapseSpaces`] as a regular expression of what is taken out.
pub(crate) const SUPERFLUOUS_SPACES: &str = r"\A +|[ \x{2581}]+\z| +(?= )";

/// One step of normalization.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Normalize {
    /// Text that is not empty gets this before it.
    Prepend(String),
    /// Each occurrence of the first, from left to right, becomes the second.
    Replace(String, String),
    /// Spaces at both ends go, at the end those that are visible already too, and of several side by side one stays:
    /// SentencePiece's `remove_extra_whitespaces`.
    CollapseSpaces,
}

/// All steps in order.
pub(crate) fn normalize(steps: &[Normalize], text: &str) -> String {
    let mut text = Cow::Borrowed(text);
    for step in steps {
        text = match step {
            Normalize::Prepend(_) if text.is_empty() => text,
            Normalize::Prepend(prefix) => [prefix.as_str(), &text].concat().into(),
            Normalize::Replace(from, to) => text.replace(from, to).into(),
            Normalize::CollapseSpaces => {
                let mut words = text.trim_end_matches([' ', '\u{2581}']).split(' ').filter(|word| !word.is_empty());
                let mut collapsed = String::with_capacity(text.len());
                collapsed.push_str(words.next().unwrap_or_default());
                for word in words {
                    collapsed.push(' ');
                    collapsed.push_str(word);
                }
                collapsed.into()
            }
        };
    }
    text.into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_follow_one_another() {
        let llama2 = [Normalize::Prepend("▁".into()), Normalize::Replace(" ".into(), "▁".into())];
        assert_eq!(normalize(&llama2, " a  b"), "▁▁a▁▁b");
        assert_eq!(normalize(&llama2, ""), "");
        assert_eq!(normalize(&[Normalize::CollapseSpaces, Normalize::Prepend("_".into())], "  a  b c "), "_a b c");
        assert_eq!(normalize(&[Normalize::CollapseSpaces, Normalize::Prepend("_".into())], "   "), "");
    }

    #[test]
    fn superfluous_spaces_are_what_collapsing_takes_out() {
        let regex = fancy_regex::Regex::new(SUPERFLUOUS_SPACES).unwrap();
        for text in ["", " ", "   ", "a", " a", "a ", "a  b", "  a b   c  ", "a \n  b\n ", " ▁  ▁ ", "▁", "a ▁b▁"] {
            assert_eq!(regex.replace_all(text, ""), normalize(&[Normalize::CollapseSpaces], text), "{text:?}");
        }
    }
}
