//! Weights to begin with.

use puna_llama::{Config, InitialWeights, Llama, LoadOptions, Module};
use puna_tensor::Tensor;

fn config() -> Config {
    let json = r#"{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 64, "intermediate_size": 160, "num_attention_heads": 4,
        "num_key_value_heads": 2, "num_hidden_layers": 8, "vocab_size": 512, "rms_norm_eps": 1e-5, "max_position_embeddings": 128,
        "tie_word_embeddings": true, "rope_theta": 10000.0}"#;
    Config::from_hf_json("config.json", json.as_bytes()).unwrap()
}

fn weights(seed: u64, threads: usize) -> Vec<(String, Tensor)> {
    let device = puna_cpu::device(puna_cpu::Options { threads: std::num::NonZeroUsize::new(threads) }).unwrap();
    let options = LoadOptions { dtype: None, activations: None, pack: false, progress: &mut |_| {} };
    let llama = Llama::from_weights(&config(), &InitialWeights::new(&config(), seed), &device, options).unwrap();
    let mut all = Vec::new();
    llama.visit("", &mut |path, tensor| all.push((path.to_owned(), tensor.clone())));
    all
}

#[test]
fn initial_weights_have_the_deviations_that_they_say() {
    for (path, tensor) in weights(1, 1) {
        let values = tensor.to_vec::<f32>().unwrap();
        if tensor.rank() == 1 {
            assert!(values.iter().all(|v| *v == 1.0), "{path}");
            continue;
        }
        let n = values.len() as f64;
        let mean = values.iter().map(|v| f64::from(*v)).sum::<f64>() / n;
        let deviation = (values.iter().map(|v| (f64::from(*v) - mean).powi(2)).sum::<f64>() / n).sqrt();
        let expected = if path.contains("o_proj") || path.contains("down_proj") { 0.02 / 4.0 } else { 0.02 };
        // Of n draws the mean is off by 1 / sqrt(n), the deviation by 1 / sqrt(2 n).
        assert!(mean.abs() < 5.0 * expected / n.sqrt(), "{path}: mean {mean}");
        assert!((deviation / expected - 1.0).abs() < 5.0 / (2.0 * n).sqrt(), "{path}: {deviation}");
    }
}

#[test]
fn a_seed_is_a_model_whatever_the_threads_and_another_is_another() {
    let bits = |all: &[(String, Tensor)]| all.iter().map(|(_, t)| t.to_bytes().unwrap()).collect::<Vec<_>>();
    let first = bits(&weights(1, 1));
    assert_eq!(first, bits(&weights(1, 3)));
    let second = bits(&weights(2, 1));
    let all = weights(1, 1);
    for (i, (path, tensor)) in all.iter().enumerate().filter(|(_, (_, t))| t.rank() == 2) {
        assert_ne!(first[i], second[i], "{path}");
        // No two tensors hold the same numbers.
        let twin = all[..i].iter().position(|(_, other)| other.shape() == tensor.shape()).filter(|&j| first[j] == first[i]);
        assert_eq!(twin, None, "{path}");
    }
}
