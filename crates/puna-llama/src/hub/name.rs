//! Names of models on the Hub, and of files within them. They become paths and addresses, so they are checked first.

use super::HubError;

/// A model on the Hub: a repository, a revision of it, and which of its files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelName {
    /// `org/name`.
    pub repo: String,
    /// A branch, tag or commit; `main` unless said.
    pub revision: String,
    /// Which files.
    pub want: Want,
}

/// Which files of a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Want {
    /// Config, tokenizer and weights: safetensors, else PyTorch's, else Meta's, else the only GGUF.
    Model,
    /// The GGUF of a type, such as `Q4_K_M`.
    Gguf(String),
    /// One file by name.
    File(String),
    /// Every file whose name fits one of these patterns, in which `*` stands for any characters.
    Matching(Vec<String>),
}

impl std::str::FromStr for ModelName {
    type Err = HubError;

    /// `org/name`, `org/name@revision`, `org/name:TYPE`, `org/name@revision:TYPE`, `org/name/file`, `org/name/file@revision`.
    fn from_str(text: &str) -> Result<Self, HubError> {
        let refuse = |detail: &str| HubError::NotFound { model: text.to_owned(), detail: detail.to_owned() };
        let expected =
            "no such file or folder; a model on the Hub is org/name, org/name@revision, org/name:Q4_K_M or org/name/file.gguf";
        let (name, revision) = text.split_once('@').map_or((text, None), |(name, revision)| (name, Some(revision)));
        // The type stands at the very end, after the revision where there is one.
        let (name, revision, kind) = match (revision, name.split_once(':')) {
            (None, Some((name, kind))) => (name, "main", Some(kind)),
            (None, None) => (name, "main", None),
            (Some(revision), None) => match revision.split_once(':') {
                Some((revision, kind)) => (name, revision, Some(kind)),
                None => (name, revision, None),
            },
            (Some(_), Some(_)) => return Err(refuse(expected)),
        };
        let mut slashes = name.match_indices('/').map(|(at, _)| at);
        let (Some(_), file) = (slashes.next(), slashes.next()) else { return Err(refuse(expected)) };
        let (repo, file) = file.map_or((name, None), |at| (&name[..at], Some(&name[at + 1..])));
        if !is_repo(repo) || !file.is_none_or(is_file) {
            return Err(refuse(expected));
        }
        if !is_file(revision) || revision.len() > 200 {
            return Err(refuse("a revision is a branch, a tag or a commit, of letters, digits, `-`, `_`, `.` and `/`"));
        }
        let want = match (kind, file) {
            (None, None) => Want::Model,
            (None, Some(file)) => Want::File(file.to_owned()),
            (Some(kind), None) if !kind.is_empty() && kind.bytes().all(is_word) => Want::Gguf(kind.to_owned()),
            _ => return Err(refuse("a type of GGUF is a word such as Q4_K_M, after org/name")),
        };
        Ok(Self { repo: repo.to_owned(), revision: revision.to_owned(), want })
    }
}

impl std::fmt::Display for ModelName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.repo)?;
        if let Want::File(file) = &self.want {
            write!(f, "/{file}")?;
        }
        if self.revision != "main" {
            write!(f, "@{}", self.revision)?;
        }
        if let Want::Gguf(kind) = &self.want {
            write!(f, ":{kind}")?;
        }
        Ok(())
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// `org/name`: letters, digits, `_`, `-` and `.`, the first and the last a letter, digit or `_`, as the Hub allows.
pub(super) fn is_repo(repo: &str) -> bool {
    let part = |part: &str| {
        let bytes = part.as_bytes();
        let ends = bytes.first().is_some_and(|b| is_word(*b)) && bytes.last().is_some_and(|b| is_word(*b));
        ends && bytes.len() <= 96 && bytes.iter().all(|b| is_word(*b) || b"-.".contains(b)) && !is_device(part)
    };
    let parts = repo.split('/').collect::<Vec<_>>();
    parts.len() == 2 && parts.iter().all(|p| part(p)) && !repo.contains("--") && !repo.contains("..") && !repo.ends_with(".git")
}

/// A relative path within a repository, that stays within it on every system: `/` between parts, none of them empty, `.`,
/// `..`, with a character that some system forbids, or ending in a way that Windows drops.
pub(super) fn is_file(file: &str) -> bool {
    let part = |part: &str| {
        let forbidden = |c: char| c.is_control() || "\\:*?\"<>|".contains(c);
        !part.is_empty() && part.len() <= 255 && !part.contains(forbidden) && !part.ends_with(['.', ' ']) && !is_device(part)
    };
    file.len() <= 1024 && file.split('/').all(part)
}

/// A commit: 40 hexadecimal digits.
pub(super) fn is_commit(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// An ETag that can name a blob.
#[cfg(feature = "hub")]
pub(super) fn is_etag(text: &str) -> bool {
    let bytes = text.as_bytes();
    let dot_free_ends = bytes.first().is_some_and(|b| is_word(*b)) && bytes.last().is_some_and(|b| is_word(*b));
    dot_free_ends && bytes.len() <= 128 && bytes.iter().all(|b| is_word(*b) || b"-.".contains(b)) && !is_device(text)
}

/// Names that Windows gives to devices, whatever follows the first dot.
fn is_device(part: &str) -> bool {
    let stem = part.split('.').next().unwrap_or_default().trim_end().to_ascii_uppercase();
    let numbered = |prefix: &str| stem.strip_prefix(prefix).is_some_and(|n| n.len() == 1 && n.as_bytes()[0].is_ascii_digit());
    matches!(stem.as_str(), "CON" | "PRN" | "AUX" | "NUL") || numbered("COM") || numbered("LPT")
}
