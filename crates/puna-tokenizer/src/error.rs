use std::path::PathBuf;

/// The result of everything that can fail in this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a tokenizer cannot be read, a text cannot be encoded or ids cannot be decoded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file cannot be read.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// Something is wrong in a file.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong in it.
        source: Box<Error>,
    },
    /// Bytes are not what the format says.
    #[error(transparent)]
    Bytes(#[from] puna_bytes::Error),
    /// JSON is ill-formed, or has another shape; the message ends with line and column.
    #[error("tokenizer.json: {0}")]
    Json(#[from] serde_json::Error),
    /// A value cannot be.
    #[error("{place}: {message}")]
    Invalid {
        /// Where.
        place: String,
        /// What, with the numbers, and what would be right.
        message: String,
    },
    /// Something that this crate does not know how to do, by name.
    #[error("{place}: {what} is not supported; {known}")]
    Unsupported {
        /// Where.
        place: String,
        /// What.
        what: String,
        /// What is supported.
        known: String,
    },
    /// An id names no token.
    #[error("token id {id} names no token; the vocabulary has {vocab_size} ids")]
    NoToken {
        /// The id.
        id: u32,
        /// How many ids there are.
        vocab_size: usize,
    },
    /// A pattern from a `tokenizer.json` took more steps on a text than are allowed.
    #[error("pre_tokenizer: the pattern {pattern:?} cannot be matched: {message}")]
    Pattern {
        /// The regular expression.
        pattern: String,
        /// What its engine says.
        message: String,
    },
}

impl Error {
    pub(crate) fn invalid(place: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Invalid { place: place.into(), message: message.into() }
    }

    pub(crate) fn unsupported(place: impl Into<String>, what: impl Into<String>, known: impl Into<String>) -> Self {
        Self::Unsupported { place: place.into(), what: what.into(), known: known.into() }
    }
}
