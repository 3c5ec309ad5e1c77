//! Files that are truncated, mislabelled or hostile: each an error that says where and what.

mod builders;
mod folder;
mod gguf;
mod sentencepiece;
mod tiktoken;
mod tokenizer_json;

use puna_tokenizer::{Result, Tokenizer};

/// Reading fails, and the message holds each of these.
#[track_caller]
fn refused(read: Result<Tokenizer>, parts: &[&str]) {
    let message = match read {
        Ok(tokenizer) => panic!("read as {tokenizer:?}; an error with {parts:?} would be right"),
        Err(error) => error.to_string(),
    };
    for part in parts {
        assert!(message.contains(part), "{message:?} does not say {part:?}");
    }
    assert!(
        message.contains(": ") && !message.contains('\n') && !message.ends_with('.'),
        "{message:?} is not one line, where: what"
    );
}

/// Every beginning of a file is read or refused, and refused where `least` says.
#[track_caller]
fn beginnings(good: &[u8], read: impl Fn(&[u8]) -> Result<Tokenizer>, must_fail: impl Fn(usize) -> bool) {
    read(good).unwrap();
    for length in 0..good.len() {
        let result = read(&good[..length]);
        assert!(result.is_err() || !must_fail(length), "{length} of {} bytes were read as {result:?}", good.len());
    }
}
