use std::backtrace::Backtrace;
use std::fmt;

use crate::{DType, Shape, Tensor};

/// The result of everything that can fail in this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong, in which op, with the shapes, dtypes and devices of its arguments.
///
/// Small (one pointer), so that `Result<Tensor>` is. Displayed as one line: where, what, what would be right.
pub struct Error(Box<Facts>);

struct Facts {
    kind: Kind,
    place: String,
    message: String,
    arguments: Vec<Argument>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
    backtrace: Backtrace,
}

/// An argument of the op that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Argument {
    /// Its shape.
    pub shape: Shape,
    /// Its dtype.
    pub dtype: DType,
    /// The name of its device.
    pub device: String,
}

/// The kind of an [`Error`], to match on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// Shapes that do not fit each other or the op.
    Shape,
    /// A dtype that the op does not take.
    DType,
    /// Arguments on different devices.
    Device,
    /// A wrong number of arguments, an attribute out of its range.
    Argument,
    /// A number of bytes that the device cannot give.
    Memory,
    /// An in-place op on what it must not change.
    InPlace,
    /// A tensor that autograd saved has since been changed.
    Version,
    /// An op whose derivative does not exist.
    NotDifferentiable,
    /// The device has no kernel for a primitive op.
    Unsupported,
    /// The back end itself failed: a driver, a compiler, a lost device.
    Backend,
}

impl Error {
    /// An error at `place` (an op, a device): `message` says what, with the numbers, and what would be right.
    pub fn new(kind: Kind, place: impl Into<String>, message: impl Into<String>) -> Self {
        Self(Box::new(Facts {
            kind,
            place: place.into(),
            message: message.into(),
            arguments: Vec::new(),
            source: None,
            backtrace: Backtrace::capture(),
        }))
    }

    /// Adds the arguments of the op.
    pub fn with_arguments(mut self, arguments: &[&Tensor]) -> Self {
        self.0.arguments = arguments
            .iter()
            .map(|t| Argument { shape: *t.shape(), dtype: t.dtype(), device: t.device().name().to_owned() })
            .collect();
        self
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

    /// The op or device that failed.
    pub fn place(&self) -> &str {
        &self.0.place
    }

    /// The arguments of the op that failed, if it was an op.
    pub fn arguments(&self) -> &[Argument] {
        &self.0.arguments
    }

    /// Where the error arose, if `RUST_BACKTRACE` asks for it.
    pub fn backtrace(&self) -> &Backtrace {
        &self.0.backtrace
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.0.place, self.0.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self} ({:?}", self.0.kind)?;
        for argument in &self.0.arguments {
            write!(f, ", {} {} on {}", argument.shape, argument.dtype, argument.device)?;
        }
        f.write_str(")")
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}
