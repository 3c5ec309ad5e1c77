//! Files that lie: each is an error that says what and where, never a panic, never an allocation that the file merely claims.

mod builders;
mod checkpoint;
mod config;
mod gguf;
mod pth;
mod safetensors;

use puna_llama::Result;

/// The message of an error.
#[track_caller]
fn message<T>(result: Result<T>) -> String {
    match result {
        Ok(_) => panic!("it was accepted"),
        Err(e) => e.to_string(),
    }
}

/// Asserts that the message says all of these.
#[track_caller]
fn says<T>(result: Result<T>, parts: &[&str]) {
    let message = message(result);
    assert!(!message.contains('\n') && message.len() < 600, "{message}");
    for part in parts {
        assert!(message.contains(part), "{part:?} is not in {message:?}");
    }
}
