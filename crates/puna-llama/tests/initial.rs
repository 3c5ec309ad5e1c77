//! Weights to begin with.

use puna_llama::{Config, InitialWeights, Llama, LoadOptions, Module};
use puna_tensor::Tensor;

fn config() -> Config {
    let json = r#"{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 64, "intermediate_size": 160, "num_attention_heads": 4,
        "num_key_value_heads": 2, "num_hidden_layers": 8, "vocab_size": 512, "rms_norm_eps": 1e-5, "max_position_embeddings": 128,
        "tie_word_embeddings": true, "rope_theta": 10000.0}"#;
    Config::from_hf_json("config.json", json.as_bytes()).unwrap()
}

fn llama(seed: u64, threads: usize) -> Llama {
    let device = puna_cpu::device(puna_cpu::Options { threads: std::num::NonZeroUsize::new(threads) }).unwrap();
    let options = LoadOptions { dtype: None, activations: None, pack: false, progress: &mut |_| {} };
    Llama::from_weights(&config(), &InitialWeights::new(&config(), seed), &device, options).unwrap()
}

fn weights(seed: u64, threads: usize) -> Vec<(String, Tensor)> {
    let mut all = Vec::new();
    llama(seed, threads).visit("", &mut |path, tensor| all.push((path.to_owned(), tensor.clone())));
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

#[test]
fn a_student_has_some_of_the_layers_the_first_and_the_last_among_them() {
    let teacher = llama(1, 1);
    let bytes = |llama: &Llama, layer: usize| llama.model.layers[layer].self_attn.q_proj.weight.to_bytes().unwrap();
    for (count, expected) in [(1, &[0][..]), (2, &[0, 7]), (3, &[0, 4, 7]), (5, &[0, 2, 4, 5, 7]), (8, &[0, 1, 2, 3, 4, 5, 6, 7])]
    {
        let student = teacher.with_layers(count).unwrap();
        assert_eq!((student.config.layers, student.model.layers.len()), (count, count));
        for (i, &layer) in expected.iter().enumerate() {
            assert_eq!(bytes(&student, i), bytes(&teacher, layer), "layer {i} of {count} is not layer {layer}");
        }
    }
    for count in [0, 9] {
        let text = teacher.with_layers(count).unwrap_err().to_string();
        assert_eq!(text, format!("layers: {count} layers of 8; from 1 to all of them would be right"));
    }
}
