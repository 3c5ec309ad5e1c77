//! Any bytes as a SentencePiece model: an error, or a tokenizer that works.
#![no_main]

use libfuzzer_sys::fuzz_target;
use puna_tokenizer::{Bos, Special, Tokenizer};

fuzz_target!(|bytes: &[u8]| {
    let Ok(tokenizer) = Tokenizer::from_sentencepiece(bytes) else { return };
    // The file as text of its own tokenizer has its pieces in it.
    let ids = tokenizer.encode_bytes(bytes, Special::Parse, Bos::Add).expect("no pattern, no failure");
    tokenizer.decode(&ids).expect("an id that encoding gives names a token");
    if let Ok(gguf) = tokenizer.to_gguf() {
        Tokenizer::from_gguf(&gguf).expect("what is written can be read");
    }
    if let Ok(json) = tokenizer.to_tokenizer_json() {
        Tokenizer::from_tokenizer_json(json.to_string().as_bytes()).expect("what is written can be read");
    }
});
