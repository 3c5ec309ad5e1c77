//! `cargo fuzz run pth --sanitizer none -- -max_total_time=60`, with `seeds/pth` as a second corpus.
#![no_main]

use libfuzzer_sys::fuzz_target;
use puna_llama::weights::mmap::MappedFile;
use puna_llama::weights::pth;

fuzz_target!(|bytes: &[u8]| {
    let file = MappedFile::from_vec("m.pth", bytes.to_vec());
    for tensor in pth::parse(&file).into_iter().flatten() {
        if tensor.dtype().is_ok() {
            let gathered = tensor.bytes().expect("what is described can be gathered");
            assert!(gathered.len() <= bytes.len());
        }
    }
});
