//! `cargo fuzz run safetensors --sanitizer none -- -max_total_time=60`, with `seeds/safetensors` as a second corpus.
#![no_main]

use libfuzzer_sys::fuzz_target;
use puna_llama::weights::mmap::MappedFile;
use puna_llama::weights::safetensors;

fuzz_target!(|bytes: &[u8]| {
    let file = MappedFile::from_vec("m.safetensors", bytes.to_vec());
    for tensor in safetensors::parse(&file).into_iter().flatten() {
        let _ = (tensor.elements(), tensor.dtype());
        assert!(tensor.stored_bytes() <= bytes.len());
    }
});
