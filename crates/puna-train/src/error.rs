use std::backtrace::Backtrace;
use std::fmt;
use std::path::Path;

/// The result of everything that can fail in this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong, and where: a line of a file, a document, an option.
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
    /// A line or a document of a data set is not what it should be.
    Data,
    /// A data set with nothing in it.
    Empty,
    /// A document that no sequence holds.
    TooLong,
    /// An example or a batch in which no token counts.
    NothingToLearn,
    /// A token id that the vocabulary does not have.
    TokenOutOfRange,
    /// The chat template cannot be read, refused the messages, or hides where the assistant speaks.
    ChatTemplate,
    /// The tokenizer refused.
    Tokenizer,
    /// An argument that cannot be.
    Argument,
    /// A loss, a gradient or a weight that is no finite number.
    NonFinite,
    /// A checkpoint that does not fit what is trained.
    Checkpoint,
    /// The model refused.
    Model,
    /// An operation on tensors failed.
    Tensor,
}

impl Error {
    /// An error at `place` (a file and its line, a document, an option): `message` says what, with the numbers, and what would be
    /// right.
    pub fn new(kind: Kind, place: impl Into<String>, message: impl Into<String>) -> Self {
        Self(Box::new(Facts {
            kind,
            place: one_line(place.into()),
            message: one_line(message.into()),
            source: None,
            backtrace: Backtrace::capture(),
        }))
    }

    /// Adds what caused the error.
    pub fn with_source(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// The same error at another place, where a better name is known.
    pub fn at(mut self, place: impl Into<String>) -> Self {
        self.0.place = one_line(place.into());
        self
    }

    /// The kind, to match on.
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// Where it went wrong: a path, a path and a line, an option.
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

    /// A line or a document that is not what it should be.
    pub(crate) fn data(place: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(Kind::Data, place, message)
    }

    /// An argument that cannot be.
    pub(crate) fn argument(place: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(Kind::Argument, place, message)
    }
}

/// Names, roles and templates' words come from files; none of them may begin another line.
fn one_line(text: String) -> String {
    if text.contains(['\n', '\r']) { text.replace('\n', "\\n").replace('\r', "\\r") } else { text }
}

impl From<puna_llama::Error> for Error {
    fn from(source: puna_llama::Error) -> Self {
        let kind = match source.kind() {
            puna_llama::Kind::Io => Kind::Io,
            puna_llama::Kind::Format => Kind::Format,
            puna_llama::Kind::TokenOutOfRange => Kind::TokenOutOfRange,
            puna_llama::Kind::Argument => Kind::Argument,
            puna_llama::Kind::Tokenizer => Kind::Tokenizer,
            puna_llama::Kind::ChatTemplate => Kind::ChatTemplate,
            puna_llama::Kind::Tensor => Kind::Tensor,
            _ => Kind::Model,
        };
        Self::new(kind, source.place(), source.message()).with_source(source)
    }
}

impl From<puna_llama::chat::ChatError> for Error {
    fn from(source: puna_llama::chat::ChatError) -> Self {
        puna_llama::Error::from(source).into()
    }
}

impl From<puna_tensor::Error> for Error {
    fn from(source: puna_tensor::Error) -> Self {
        puna_llama::Error::from(source).into()
    }
}

impl From<puna_tokenizer::Error> for Error {
    fn from(source: puna_tokenizer::Error) -> Self {
        puna_llama::Error::from(source).into()
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
