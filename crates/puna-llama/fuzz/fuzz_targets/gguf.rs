//! `cargo fuzz run gguf --sanitizer none -- -max_total_time=60`, with `seeds/gguf` as a second corpus.
#![no_main]

use libfuzzer_sys::fuzz_target;
use puna_llama::Config;
use puna_llama::weights::gguf::{Gguf, Value};
use puna_llama::weights::mmap::MappedFile;

fuzz_target!(|bytes: &[u8]| {
    let Ok(gguf) = Gguf::parse(&MappedFile::from_vec("m.gguf", bytes.to_vec())) else { return };
    for tensor in gguf.tensors() {
        let _ = (tensor.elements(), tensor.dtype());
        assert!(tensor.stored_bytes() <= bytes.len());
    }
    for (key, value) in gguf.metadata() {
        assert!(gguf.get(key).is_some());
        if let Value::Array(array) = value {
            assert!(array.strings().count() <= array.length && array.numbers().count() <= array.length);
        }
    }
    if let Ok(config) = Config::from_gguf(&gguf, gguf.tensors()) {
        let _ = config.to_hf_json();
    }
});
