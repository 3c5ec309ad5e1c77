//! `cargo fuzz run adapter_config --sanitizer none -- -max_total_time=60`, with `seeds/adapter_config` as a second corpus.
#![no_main]

use libfuzzer_sys::fuzz_target;
use puna_llama::AdapterConfig;
use serde_json::{Map, Value};

fuzz_target!(|bytes: &[u8]| {
    let Ok(object) = serde_json::from_slice::<Map<String, Value>>(bytes) else { return };
    let Ok(config) = AdapterConfig::from_json("adapter_config.json", &object) else { return };
    assert!(config.rank > 0 && config.alpha.is_finite() && (0.0..1.0).contains(&config.dropout));
});
