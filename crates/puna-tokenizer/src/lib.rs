//! Llama's tokenizers: byte-level BPE, SentencePiece BPE, `tokenizer.json`.
//!
//! One [`Tokenizer`], read from any of the files that Llama checkpoints carry: Llama 3 and 4's tiktoken ranks
//! ([`Tokenizer::from_tiktoken`]), Llama 1 and 2's SentencePiece model ([`Tokenizer::from_sentencepiece`]), Hugging Face's
//! `tokenizer.json` ([`Tokenizer::from_tokenizer_json`]), and what a GGUF holds ([`Tokenizer::from_gguf`]);
//! [`Tokenizer::from_file`] finds out which it is. Ids equal those of the reference implementations, and whatever was read can be
//! written as a `tokenizer.json` or for a GGUF. [`Trainer`] learns a new one.
//!
//! ```
//! use puna_tokenizer::{Bos, Special, Tokenizer};
//!
//! let json = br#"{
//!     "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"]},
//!     "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false},
//!     "decoder": {"type": "ByteLevel"},
//!     "added_tokens": [{"id": 3, "content": "<s>", "special": true}]
//! }"#;
//! let tokenizer = Tokenizer::from_tokenizer_json(json)?;
//! // Rendered chat templates have their special tokens parsed; what users write never is.
//! assert_eq!(tokenizer.encode("<s>abb", Special::Parse, Bos::AsWritten)?, [3, 2, 1]);
//! assert_eq!(tokenizer.decode(&[2, 1])?, "abb");
//!
//! let mut stream = tokenizer.decode_stream();
//! assert_eq!(stream.push(2)? + &stream.push(1)? + &stream.flush(), "abb");
//! # Ok::<(), puna_tokenizer::Error>(())
//! ```
#![forbid(unsafe_code)]

mod added;
mod byte_level;
mod decode;
mod error;
mod hash;
mod load;
mod merge;
mod model;
mod normalize;
mod split;
mod stream;
mod tokenizer;
mod train;
mod unicode;
mod vocabulary;
mod write;

pub use error::{Error, Result};
pub use load::{GgufTokenizer, TiktokenKind};
pub use stream::DecodeStream;
pub use tokenizer::{Bos, Special, Tokenizer};
pub use train::{Trainer, TrainerOptions};
