//! Any bytes as a tokenizer.json: an error, or a tokenizer that works.
#![no_main]

use libfuzzer_sys::fuzz_target;
use puna_tokenizer::{Bos, Special, Tokenizer};

fuzz_target!(|bytes: &[u8]| {
    let Ok(tokenizer) = Tokenizer::from_tokenizer_json(bytes) else { return };
    // A pattern may take too many steps.
    if let Ok(ids) = tokenizer.encode_bytes(bytes, Special::Parse, Bos::Add) {
        tokenizer.decode(&ids).expect("an id that encoding gives names a token");
        let mut stream = tokenizer.decode_stream();
        ids.iter().for_each(|id| drop(stream.push(*id).expect("it names a token")));
    }
    let json = tokenizer.to_tokenizer_json().expect("it was one");
    let again = Tokenizer::from_tokenizer_json(json.to_string().as_bytes()).expect("what is written can be read");
    assert_eq!(again.to_tokenizer_json().expect("it was one"), json);
    let _ = tokenizer.to_gguf();
});
