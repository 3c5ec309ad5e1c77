//! Any bytes as a tiktoken file: an error, or a tokenizer that works.
#![no_main]

use libfuzzer_sys::fuzz_target;
use puna_tokenizer::{Bos, Special, TiktokenKind, Tokenizer};

fuzz_target!(|bytes: &[u8]| {
    let Ok(tokenizer) = Tokenizer::from_tiktoken(bytes, TiktokenKind::Llama3) else { return };
    let ids = tokenizer.encode_bytes(bytes, Special::Text, Bos::AsWritten).expect("Llama's own patterns never fail");
    let back: Vec<u8> = ids.iter().flat_map(|id| tokenizer.token_bytes(*id).expect("it names a token")).copied().collect();
    assert_eq!(back, bytes);
});
