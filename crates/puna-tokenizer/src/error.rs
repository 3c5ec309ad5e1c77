use std::path::PathBuf;

/// The result of everything that can fail in this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a tokenizer cannot be read or ids cannot be decoded.
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
    /// In this file.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong in it.
        source: Box<Error>,
    },
    /// Bytes that are not what the format says.
    #[error(transparent)]
    Bytes(#[from] puna_bytes::Error),
    /// JSON that is none, or has another shape.
    #[error("tokenizer.json: {0}")]
    Json(#[from] serde_json::Error),
    /// Something in the file that cannot be.
    #[error("{place}: {message}")]
    Invalid {
        /// Where.
        place: String,
        /// What, and what would be right.
        message: String,
    },
    /// Something in the file that this crate does not know how to do, by name.
    #[error("{place}: {what} is not supported; {known}")]
    Unsupported {
        /// Where.
        place: String,
        /// What.
        what: String,
        /// What is.
        known: String,
    },
    /// An id that the vocabulary does not have.
    #[error("token id {id} is out of range; the vocabulary has {vocab_size} tokens")]
    TokenOutOfRange {
        /// The id.
        id: u32,
        /// How many tokens there are.
        vocab_size: usize,
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
