use std::backtrace::Backtrace;
use std::fmt;
use std::path::Path;

/// The result of everything that can fail in this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong, and where: a file, a tensor, an option.
///
/// Small (one pointer). Displayed as one line: where, what with the numbers, what would be right.
pub struct Error(Box<Facts>);

struct Facts {
    kind: Kind,
    place: String,
    message: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
    backtrace: Backtrace,
}

/// The kind of an [`Error`], to match on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// The operating system could not open, read or write a file.
    Io,
    /// A file is not what its format allows: cut, mislabelled, hostile.
    Format,
    /// A tensor that the model needs is not in the checkpoint.
    MissingTensor,
    /// A tensor in the checkpoint is not part of the model.
    ExtraTensor,
    /// A tensor has another shape than the config says, or the parts of one do not fit together.
    Misshapen,
    /// The config lacks something, contradicts itself or is out of bounds.
    Config,
    /// The file is well formed, but what it asks for is not supported: an architecture, a rope kind, a dtype.
    Unsupported,
    /// A token id that the vocabulary does not have.
    TokenOutOfRange,
    /// More tokens than the context holds.
    ContextFull,
    /// More tokens than the cache holds.
    CacheFull,
    /// A sampling option out of its range.
    SamplingOption,
    /// An argument that cannot be.
    Argument,
    /// The tokenizer refused.
    Tokenizer,
    /// The chat template cannot be read, or refused the messages.
    ChatTemplate,
    /// The Hub knows no such repository, revision or file.
    NotFound,
    /// The repository's licence has to be accepted first.
    Gated,
    /// The Hub did not accept the token, or there is none.
    Unauthorized,
    /// The file is not in the cache and there is no way to fetch it.
    Offline,
    /// A download failed.
    Download,
    /// An operation on tensors failed.
    Tensor,
}

impl Error {
    /// An error at `place` (a file, a tensor, an option): `message` says what, with the numbers, and what would be right.
    pub fn new(kind: Kind, place: impl Into<String>, message: impl Into<String>) -> Self {
        Self(Box::new(Facts {
            kind,
            place: place.into(),
            message: message.into(),
            source: None,
            backtrace: Backtrace::capture(),
        }))
    }

    /// Adds what caused the error.
    pub fn with_source(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// The kind, to match on.
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// Where it went wrong: a path, a tensor's name, an option's.
    pub fn place(&self) -> &str {
        &self.0.place
    }

    /// What went wrong, without the place.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// Where the error arose, if `RUST_BACKTRACE` asks for it.
    pub fn backtrace(&self) -> &Backtrace {
        &self.0.backtrace
    }

    /// What the operating system said of a file.
    pub(crate) fn io(path: &Path, doing: &str, source: std::io::Error) -> Self {
        Self::new(Kind::Io, path.display().to_string(), format!("cannot {doing} it: {source}")).with_source(source)
    }

    /// A file that is not what its format allows.
    pub(crate) fn format(place: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(Kind::Format, place, message)
    }

    /// A field that the bounded reader refused.
    pub(crate) fn bytes(place: impl Into<String>, source: puna_bytes::Error) -> Self {
        Self::new(Kind::Format, place, source.to_string()).with_source(source)
    }

    /// A config that lacks something, contradicts itself or is out of bounds.
    pub(crate) fn config(place: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(Kind::Config, place, message)
    }

    /// What is well formed, but not supported.
    pub(crate) fn unsupported(place: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(Kind::Unsupported, place, message)
    }

    /// An argument that cannot be.
    pub(crate) fn argument(place: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(Kind::Argument, place, message)
    }

    /// A sampling option out of its range.
    pub(crate) fn sampling(option: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(Kind::SamplingOption, option, message)
    }

    /// More tokens than the cache holds.
    pub(crate) fn cache_full(message: impl Into<String>) -> Self {
        Self::new(Kind::CacheFull, "cache", message)
    }

    /// More tokens than the context holds.
    pub(crate) fn context_full(tokens: usize, limit: usize) -> Self {
        Self::new(
            Kind::ContextFull,
            "prompt",
            format!("{tokens} tokens, but the model's context holds {limit}; {limit} at most fit"),
        )
    }

    /// A token id that the vocabulary does not have.
    pub(crate) fn token_out_of_range(at: usize, id: u32, vocab_size: usize) -> Self {
        let message = format!("id {id} at {at}, but the vocabulary has {vocab_size} tokens; ids are below {vocab_size}");
        Self::new(Kind::TokenOutOfRange, "tokens", message)
    }
}

impl From<puna_tensor::Error> for Error {
    fn from(source: puna_tensor::Error) -> Self {
        let text = source.to_string();
        let message = text.strip_prefix(source.place()).and_then(|rest| rest.strip_prefix(": ")).unwrap_or(&text);
        Self::new(Kind::Tensor, source.place(), message).with_source(source)
    }
}

impl From<puna_tokenizer::Error> for Error {
    fn from(source: puna_tokenizer::Error) -> Self {
        Self::new(Kind::Tokenizer, "tokenizer", source.to_string()).with_source(source)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.0.place, self.0.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self} ({:?})", self.0.kind)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}
