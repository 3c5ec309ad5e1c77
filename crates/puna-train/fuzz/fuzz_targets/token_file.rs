//! `cargo fuzz run token_file --sanitizer none -- -max_total_time=60`, with `seeds/token_file` as a second corpus.
#![no_main]

use libfuzzer_sys::fuzz_target;
use puna_llama::weights::mmap::MappedFile;
use puna_train::data::TokenFile;

fuzz_target!(|bytes: &[u8]| {
    let Ok(file) = TokenFile::parse(&MappedFile::from_vec("f.tokens", bytes.to_vec())) else { return };
    // A token takes two bytes at least, so what is claimed cannot be more than what is there.
    assert!(file.tokens() <= bytes.len() as u64 && file.documents() <= bytes.len() as u64);
    let mut tokens = 0;
    for document in 0..file.documents() {
        let Ok(example) = file.example(document) else { continue };
        assert_eq!(example.ids.len(), example.counts.len());
        assert!(example.ids.iter().all(|id| (*id as usize) < file.vocab_size()));
        tokens += example.ids.len() as u64;
    }
    assert!(tokens <= file.tokens());
    assert!(file.example(file.documents()).is_err());
});
