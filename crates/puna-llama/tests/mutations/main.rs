//! Ten thousand damaged files for each parser: none panics, hangs, or takes memory that the file does not back.

mod alloc_ffi;
#[path = "../hostile/builders.rs"]
#[allow(dead_code)]
mod builders;

use std::time::{Duration, Instant};

use puna_llama::Config;
use puna_llama::config::FromWeights;
use puna_llama::rope;
use puna_llama::weights::gguf::{Gguf, Value};
use puna_llama::weights::{TensorInfo, pth, safetensors};

use alloc_ffi::peak_during;
use builders::{file, good_gguf, good_pth, good_safetensors};

#[global_allocator]
static ALLOCATOR: alloc_ffi::Counting = alloc_ffi::Counting;

const CASES: u64 = 10_000;
/// A case takes some 20 us; a hang is what this is to find, on a machine however busy.
const LONGEST: Duration = Duration::from_secs(5);
/// Descriptions of tensors and entries take more than their bytes in the file: up to some 40 times, for the shortest of each.
const BYTES_A_BYTE: usize = 64;
/// What an error, its backtrace's absence and a few names take.
const BYTES_ANYWAY: usize = 64 << 10;

/// splitmix64, Steele and others 2014.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }
}

/// A file with one to four damages.
fn mutate(good: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = good.to_vec();
    for _ in 0..=random.below(4) {
        if bytes.is_empty() {
            break;
        }
        let at = random.below(bytes.len());
        match random.below(8) {
            0 => bytes[at] ^= 1 << random.below(8),
            1 => bytes[at] = random.next() as u8,
            // A number at one of its edges, of 1, 2, 4 or 8 bytes.
            2 | 3 => {
                let edges =
                    [0, 1, u64::MAX, 1 << 63, (1 << 63) - 1, 1 << 40, (1 << 42) + 1, 1 << 31, (1 << 31) - 1, 1 << 16, 0xff];
                let edge = edges[random.below(edges.len())].to_le_bytes();
                let width = (1usize << random.below(4)).min(bytes.len() - at);
                bytes[at..at + width].copy_from_slice(&edge[..width]);
            }
            4 => bytes.truncate(at),
            5 => {
                let length = random.below(16).min(bytes.len() - at);
                bytes.drain(at..at + length);
            }
            // A run copied elsewhere.
            6 => {
                let length = random.below(64).min(bytes.len() - at);
                let run = bytes[at..at + length].to_vec();
                let to = random.below(bytes.len());
                bytes.splice(to..to, run);
            }
            // A digit in a text: sizes of JSON.
            _ => match bytes[at..].iter().position(u8::is_ascii_digit) {
                Some(digit) => bytes[at + digit] = b'0' + random.below(10) as u8,
                None => bytes[at] = b'9',
            },
        }
    }
    bytes
}

#[track_caller]
fn survives(good: &[u8], read: impl Fn(&[u8]) -> bool) {
    assert!(read(good), "the file without damage is right");
    let mut refused = 0;
    for seed in 0..CASES {
        let bytes = mutate(good, &mut Random(seed));
        let started = Instant::now();
        let mut accepted = false;
        let peak = peak_during(|| accepted = read(&bytes));
        refused += u64::from(!accepted);
        let most = BYTES_ANYWAY + BYTES_A_BYTE * bytes.len();
        assert!(peak <= most, "seed {seed}: {peak} bytes taken for a file of {}; {most} at most", bytes.len());
        assert!(started.elapsed() < LONGEST, "seed {seed}: {:?}", started.elapsed());
    }
    // Damage is noticed more often than not; were nothing refused, nothing would have been damaged.
    assert!(refused > CASES / 10, "{refused} of {CASES} refused");
}

/// Reads all that is described.
fn touch(tensors: &[TensorInfo]) {
    for info in tensors {
        let _ = (info.elements(), info.stored_bytes(), info.file());
        if info.dtype().is_ok() {
            let bytes = info.bytes().unwrap();
            assert!(bytes.len() <= info.parts[0].bytes.file().as_ref().len(), "{} is larger than its file", info.name);
        }
    }
}

#[test]
fn safetensors_headers() {
    survives(&good_safetensors(), |bytes| match safetensors::parse(&file("m.safetensors", bytes)) {
        Ok(tensors) => {
            touch(&tensors);
            true
        }
        Err(_) => false,
    });
}

#[test]
fn gguf_files() {
    survives(&good_gguf(), |bytes| {
        let Ok(gguf) = Gguf::parse(&file("m.gguf", bytes)) else { return false };
        touch(gguf.tensors());
        for (_, value) in gguf.metadata() {
            if let Value::Array(array) = value {
                assert!(array.strings().count() <= array.length && array.numbers().count() <= array.length);
            }
        }
        Config::from_gguf(&gguf, gguf.tensors()).map(|config| drop(rope::frequencies(&config, 0))).is_ok()
    });
}

#[test]
fn zip_archives_with_pickles() {
    survives(&good_pth(), |bytes| match pth::parse(&file("m.pth", bytes)) {
        Ok(tensors) => {
            touch(&tensors);
            true
        }
        Err(_) => false,
    });
}

/// Configs may be of models with thousands of layers, whose frequencies and tensors are listed all the same.
fn read_config(config: puna_llama::Result<Config>) -> bool {
    let Ok(config) = config else { return false };
    let frequencies = rope::frequencies(&config, 0);
    assert!(frequencies.inv_freq.len() == config.head_dim / 2 && frequencies.inv_freq.iter().all(|f| f.is_finite()));
    let _ = config.to_hf_json();
    true
}

#[test]
fn config_json() {
    let llama3 = br#"{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", "hidden_size": 2048,
        "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 64,
        "vocab_size": 128256, "max_position_embeddings": 131072, "rms_norm_eps": 1e-05, "rope_theta": 500000.0,
        "rope_scaling": {"factor": 32.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0,
        "original_max_position_embeddings": 8192, "rope_type": "llama3"}, "tie_word_embeddings": true,
        "eos_token_id": [128001, 128008, 128009], "torch_dtype": "bfloat16"}"#;
    survives(llama3, |bytes| read_config(Config::from_hf_json("config.json", bytes)));
    let yarn = br#"{"model_type":"llama","hidden_size":64,"intermediate_size":160,"num_hidden_layers":2,"num_attention_heads":4,
        "vocab_size":320,"rope_parameters":{"rope_type":"yarn","rope_theta":10000.0,"factor":4.0,"beta_fast":32.0,"beta_slow":1,
        "mscale":1.0,"mscale_all_dim":0.8,"original_max_position_embeddings":64,"truncate":false}}"#;
    survives(yarn, |bytes| read_config(Config::from_hf_json("config.json", bytes)));
}

#[test]
fn params_json() {
    let params = br#"{"dim": 2048, "n_layers": 16, "n_heads": 32, "n_kv_heads": 8, "vocab_size": 128256, "multiple_of": 256,
        "ffn_dim_multiplier": 1.5, "norm_eps": 1e-05, "rope_theta": 500000.0, "use_scaled_rope": true, "rope_scaling_factor": 32}"#;
    survives(params, |bytes| read_config(Config::from_meta_json("params.json", bytes, FromWeights::default())));
}
