use std::fmt;

use crate::BlockType;

/// The result of this crate's fallible calls.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why slices do not fit together.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// A number of values that is no whole number of blocks.
    PartOfBlock {
        /// The call.
        call: &'static str,
        /// The block format.
        block: BlockType,
        /// How many values there are.
        values: usize,
    },
    /// A slice of the wrong length.
    Length {
        /// The call.
        call: &'static str,
        /// The argument.
        argument: &'static str,
        /// Its length.
        found: usize,
        /// The length that would be right.
        needed: usize,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PartOfBlock { call, block, values } => {
                let unit = block.values();
                write!(f, "{call}: {values} values are no whole number of {block} blocks; a multiple of {unit} is")
            }
            Self::Length { call, argument, found, needed } => {
                write!(f, "{call}: {argument} has length {found}; {needed} would be right")
            }
        }
    }
}

impl std::error::Error for Error {}

pub(crate) fn check_length(call: &'static str, argument: &'static str, found: usize, needed: usize) -> Result<()> {
    if found == needed { Ok(()) } else { Err(Error::Length { call, argument, found, needed }) }
}
