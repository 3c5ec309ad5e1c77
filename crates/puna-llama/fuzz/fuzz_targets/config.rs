//! `cargo fuzz run config --sanitizer none -- -max_total_time=60`, with `seeds/config` as a second corpus.
#![no_main]

use libfuzzer_sys::fuzz_target;
use puna_llama::config::FromWeights;
use puna_llama::{Config, rope};

fuzz_target!(|bytes: &[u8]| {
    let weights = FromWeights { vocab_size: Some(320), ..FromWeights::default() };
    let configs = [Config::from_hf_json("config.json", bytes), Config::from_meta_json("params.json", bytes, weights)];
    for config in configs.into_iter().flatten() {
        let frequencies = rope::frequencies(&config, config.max_seq.saturating_mul(2));
        assert_eq!(frequencies.inv_freq.len(), config.head_dim / 2);
        let json = config.to_hf_json().expect("only factors of a GGUF cannot be written");
        // What is written is read the same, but for the pairing, which config.json does not say.
        let text = serde_json::Value::Object(json).to_string();
        let again = Config::from_hf_json("config.json", text.as_bytes()).expect("what is written can be read");
        let expected = Config { rope_pairs: again.rope_pairs, dtype: again.dtype, ..config };
        assert_eq!(again, expected);
    }
});
