//! A bounded reader for untrusted bytes: every count is checked against what is left before it is used.
//!
//! Files from the internet claim things: a string of 2^63 bytes, a table of 2^40 entries. [`Reader`] knows how many bytes are
//! left, so a claim that the file cannot back is an [`Error`] that says where and what, before anything is allocated or copied.
//! All of puna's parsers (safetensors, GGUF, zip and pickle, SentencePiece) stand on it.
//!
//! ```
//! use puna_bytes::Reader;
//!
//! let mut r = Reader::new(&[3, 0, 0, 0, b'a', b'b', b'c']);
//! let n = r.u32_le("name length")?;
//! assert_eq!(r.str("name", n.into())?, "abc");
//!
//! let mut r = Reader::new(&[255, 255, 255, 255, b'a']);
//! let n = r.u32_le("name length")?;
//! let e = r.str("name", n.into()).unwrap_err();
//! assert_eq!(e.to_string(), "byte 4: name: 4294967295 bytes asked, 1 left");
//! # Ok::<(), puna_bytes::Error>(())
//! ```
#![forbid(unsafe_code)]

mod error;
mod reader;

pub use error::{Error, Kind, Result};
pub use reader::Reader;
