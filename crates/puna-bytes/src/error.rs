use std::fmt;

/// The result of reading untrusted bytes.
pub type Result<T> = std::result::Result<T, Error>;

/// Where in the bytes something was wrong, with what, and how.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Error {
    /// The offset in the outermost bytes at which the field starts.
    pub at: u64,
    /// The field's name.
    pub what: String,
    /// What was wrong with it.
    pub kind: Kind,
}

/// What was wrong with a field.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// More bytes are asked for than there are.
    Truncated {
        /// How many bytes the field would take.
        asked: u64,
        /// How many there are.
        left: u64,
    },
    /// A table claims more entries than the bytes left could hold.
    Count {
        /// How many entries are claimed.
        claimed: u64,
        /// The fewest bytes that one entry takes.
        entry_bytes: u64,
        /// How many bytes there are.
        left: u64,
    },
    /// The text is not UTF-8.
    NotUtf8,
    /// The value is none that the format allows; the message says which are.
    Invalid(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "byte {}: {}: ", self.at, self.what)?;
        match &self.kind {
            Kind::Truncated { asked, left } => write!(f, "{asked} bytes asked, {left} left"),
            Kind::Count { claimed, entry_bytes, left } => {
                write!(f, "{claimed} entries of at least {entry_bytes} bytes claimed, {left} bytes left")
            }
            Kind::NotUtf8 => write!(f, "not UTF-8"),
            Kind::Invalid(message) => f.write_str(message),
        }
    }
}
