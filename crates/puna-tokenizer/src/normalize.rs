//! What happens to text before it is cut: prefixes and replacements.

/// One step of normalization.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Normalize {
    /// Text that is not empty gets this before it.
    Prepend(String),
    /// Each occurrence of the first becomes the second.
    Replace(String, String),
    /// White space at both ends goes, and runs of spaces become one.
    CollapseSpaces,
}

/// All steps in order.
pub(crate) fn normalize(steps: &[Normalize], text: &str) -> String {
    let mut text = text.to_owned();
    for step in steps {
        text = match step {
            Normalize::Prepend(_) if text.is_empty() => text,
            Normalize::Prepend(prefix) => format!("{prefix}{text}"),
            Normalize::Replace(from, to) => text.replace(from, to),
            Normalize::CollapseSpaces => text.split(' ').filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" "),
        };
    }
    text
}
