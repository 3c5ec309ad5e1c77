//! Weights that become blocks while they are loaded.

use puna_llama::{Config, InitialWeights, Llama, LoadOptions, Module, Result};
use puna_tensor::op::Activations;
use puna_tensor::{BlockType, DType, Device};

fn load(intermediate: usize, dtype: Option<DType>, pack: bool, device: &Device) -> Result<Llama> {
    let json = format!(
        r#"{{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 256, "intermediate_size": {intermediate},
        "num_attention_heads": 4, "num_key_value_heads": 2, "num_hidden_layers": 2, "vocab_size": 96, "rms_norm_eps": 1e-5,
        "max_position_embeddings": 64, "tie_word_embeddings": false}}"#
    );
    let config = Config::from_hf_json("config.json", json.as_bytes()).unwrap();
    let options = LoadOptions { dtype, activations: None, pack, progress: &mut |_| {} };
    Llama::from_weights(&config, &InitialWeights::new(&config, 3), device, options)
}

#[test]
fn matrices_of_layers_become_blocks_and_nothing_else_does() {
    let device = puna_cpu::device(puna_cpu::Options::default()).unwrap();
    let whole = load(512, None, false, &device).unwrap();
    let mut floats = std::collections::HashMap::new();
    whole.visit("", &mut |path, tensor| drop(floats.insert(path.to_owned(), tensor.clone())));
    for block in BlockType::ALL {
        let llama = load(512, Some(DType::Block(block)), false, &device).unwrap();
        assert_eq!((llama.dtype, llama.activations), (DType::F32, Activations::Int8));
        let mut blocks = 0;
        llama.visit("", &mut |path, tensor| {
            let values = floats[path].to_vec::<f32>().unwrap();
            if path.ends_with("_proj.weight") {
                let mut expected = vec![0; tensor.dtype().bytes_for(values.len()).unwrap()];
                puna_quant::encode(block, &values, &mut expected).unwrap();
                assert_eq!((tensor.dtype(), tensor.to_bytes().unwrap()), (DType::Block(block), expected), "{path}");
                blocks += 1;
            } else {
                assert_eq!(tensor.to_vec::<f32>().unwrap(), values, "{path}");
            }
        });
        assert_eq!(blocks, 14, "seven matrices a layer");
    }
}

#[test]
fn blocks_give_the_logits_of_what_they_stand_for() {
    let device = puna_cpu::device(puna_cpu::Options::default()).unwrap();
    for block in BlockType::ALL {
        let mut decoded = load(512, Some(DType::Block(block)), false, &device).unwrap();
        decoded.visit_mut("", &mut |_, tensor| *tensor = tensor.cast(DType::F32).unwrap());
        decoded.activations = Activations::Exact;
        let expected = decoded.sequence_logits(&[1, 50, 7, 7, 95]).unwrap().to_vec::<f32>().unwrap();
        for pack in [false, true] {
            let mut llama = load(512, Some(DType::Block(block)), pack, &device).unwrap();
            llama.activations = Activations::Exact;
            let logits = llama.sequence_logits(&[1, 50, 7, 7, 95]).unwrap().to_vec::<f32>().unwrap();
            // One chain of fused multiply-adds, whatever the weight was decoded from.
            assert_eq!(logits, expected, "{block} packed {pack}");
        }
    }
}

#[test]
fn rows_that_blocks_do_not_divide_are_refused_by_name() {
    let device = puna_cpu::device(puna_cpu::Options::default()).unwrap();
    let error = load(480, Some(DType::Block(BlockType::Nf4)), true, &device).unwrap_err().to_string();
    assert!(error.contains("model.layers.0.mlp.down_proj.weight") && error.contains("NF4"), "{error}");
}
