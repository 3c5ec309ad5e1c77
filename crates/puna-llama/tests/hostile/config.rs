use puna_llama::config::FromWeights;
use puna_llama::{Config, Result};
use serde_json::{Value, json};

use crate::says;

fn good() -> Value {
    json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
        "hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "vocab_size": 320, "max_position_embeddings": 512, "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0, "rope_scaling": null, "tie_word_embeddings": false,
    })
}

fn read(value: &Value) -> Result<Config> {
    Config::from_hf_json("config.json", value.to_string().as_bytes())
}

fn with(key: &str, value: Value) -> Result<Config> {
    let mut config = good();
    config[key] = value;
    read(&config)
}

#[test]
fn absent_and_null_fields_have_the_references_defaults() {
    let mut config = good();
    let object = config.as_object_mut().unwrap();
    for key in
        ["num_key_value_heads", "max_position_embeddings", "rms_norm_eps", "rope_theta", "rope_scaling", "tie_word_embeddings"]
    {
        object.insert(key.into(), Value::Null);
    }
    object.remove("architectures");
    object.remove("hidden_act");
    let config = read(&config).unwrap();
    assert_eq!((config.kv_heads, config.head_dim, config.max_seq), (4, 16, 2048));
    assert_eq!((config.rms_norm_eps, config.rope_theta, config.tie_word_embeddings), (1e-6, 10000.0, false));
}

#[test]
fn ids_are_numbers_lists_or_absent() {
    assert_eq!(with("eos_token_id", json!([1, 2, 3])).unwrap().eos, [1, 2, 3]);
    assert_eq!(with("eos_token_id", json!(7)).unwrap().eos, [7]);
    assert_eq!(with("pad_token_id", json!(-1)).unwrap().pad, None);
    says(with("eos_token_id", json!([1, "x"])), &["eos_token_id", "a token id or a list"]);
    says(with("bos_token_id", json!(1u64 << 40)), &["bos_token_id is 1099511627776"]);
}

#[test]
fn sizes_that_cannot_be_are_named_with_their_bounds() {
    says(with("num_hidden_layers", json!(1_000_000_000)), &["config.json: layers is 1000000000; it lies between 1 and 4096"]);
    says(with("num_hidden_layers", json!(0)), &["layers is 0"]);
    says(with("hidden_size", json!(-64)), &["hidden_size is -64; a whole number would be right"]);
    says(with("hidden_size", json!(64.5)), &["hidden_size is 64.5"]);
    says(with("hidden_size", json!("64")), &["hidden_size is \"64\""]);
    says(with("hidden_size", json!(66)), &["66 does not divide among 4"]);
    says(with("hidden_size", json!(u64::MAX)), &["18446744073709551615"]);
    says(with("hidden_size", Value::Null), &["hidden_size is missing"]);
    says(with("num_attention_heads", json!(0)), &["0 num_attention_heads"]);
    says(with("num_key_value_heads", json!(3)), &["4 heads do not divide among 3 kv_heads"]);
    says(with("num_key_value_heads", json!(0)), &["kv_heads is 0"]);
    says(with("head_dim", json!(15)), &["head_dim is 15", "even"]);
    says(with("head_dim", json!(1 << 20)), &["head_dim is 1048576"]);
    says(with("vocab_size", json!(1u64 << 40)), &["vocab_size is 1099511627776"]);
    says(with("max_position_embeddings", json!(0)), &["max_seq is 0"]);
    says(with("rms_norm_eps", json!(-1)), &["rms_norm_eps is -1"]);
    says(with("rope_theta", json!(0)), &["rope_theta is 0"]);
    says(with("rope_theta", json!("x")), &["rope_theta is \"x\"; a number"]);
    says(with("tie_word_embeddings", json!(1)), &["tie_word_embeddings is 1; true or false"]);
    assert_eq!(with("hidden_size", json!(64.0)).unwrap().hidden_size, 64);
}

#[test]
fn other_models_are_refused_by_name() {
    says(with("architectures", json!(["MistralForCausalLM"])), &["\"MistralForCausalLM\" is not supported; LlamaForCausalLM is"]);
    says(with("architectures", json!(["LlamaForSequenceClassification"])), &["LlamaForSequenceClassification"]);
    says(with("architectures", json!("LlamaForCausalLM")), &["architectures is no list"]);
    says(with("model_type", json!("mistral")), &["\"mistral\""]);
    says(with("hidden_act", json!("gelu")), &["hidden_act is \"gelu\""]);
    says(with("quantization_config", json!({"quant_method": "gptq"})), &["quantised (gptq)"]);
    says(with("partial_rotary_factor", json!(0.5)), &["partial_rotary_factor is 0.5"]);
    says(with("rope_interleaved", json!(true)), &["rope_interleaved"]);
    says(read(&json!({})), &["names no architecture"]);
    assert!(with("rope_interleaved", json!(false)).is_ok());
}

#[test]
fn rope_settings_that_are_unknown_half_there_or_contradictory_are_named() {
    let scaling = |value: Value| with("rope_scaling", value);
    says(scaling(json!({"rope_type": "longrope", "factor": 2.0})), &["\"longrope\" is not supported", "llama3"]);
    says(scaling(json!({"rope_type": "linear"})), &["factor is missing"]);
    says(scaling(json!({"rope_type": "linear", "factor": 2.0, "mrope_section": [1]})), &["\"linear\"", "\"mrope_section\""]);
    says(
        scaling(json!({"rope_type": "linear", "type": "dynamic", "factor": 2.0})),
        &["\"linear\" by rope_type and \"dynamic\" by type"],
    );
    says(scaling(json!({"rope_type": "linear", "factor": 0})), &["rope factor is 0"]);
    says(scaling(json!({"rope_type": "linear", "factor": 1e300})), &["rope factor is 1"]);
    says(scaling(json!({"rope_type": "linear", "factor": "8"})), &["factor is \"8\""]);
    says(scaling(json!("linear")), &["rope_scaling is \"linear\"; an object"]);
    says(scaling(json!({"rope_type": 3})), &["rope_type is 3; a text"]);
    let llama3 = |low: f64, high: f64, original: u64| json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": low, "high_freq_factor": high, "original_max_position_embeddings": original});
    assert!(scaling(llama3(1.0, 4.0, 8192)).is_ok());
    says(scaling(llama3(4.0, 4.0, 8192)), &["low_freq_factor 4 and high_freq_factor 4"]);
    says(scaling(llama3(0.0, 4.0, 8192)), &["low_freq_factor 0"]);
    says(scaling(llama3(1.0, 4.0, 0)), &["original_max_position_embeddings is 0"]);
    says(
        scaling(json!({"rope_type": "yarn", "factor": 4.0, "beta_fast": 1, "beta_slow": 32})),
        &["beta_fast 1 and beta_slow 32"],
    );
    says(scaling(json!({"rope_type": "yarn"})), &["factor is missing"]);
    // The spelling of before 2024.
    assert_eq!(scaling(json!({"type": "linear", "factor": 2})).unwrap().rope, puna_llama::RopeScaling::Linear { factor: 2.0 });
    let mut both = good();
    both["rope_parameters"] = json!({"rope_type": "default", "rope_theta": 500000.0});
    says(read(&both), &["rope_theta is 10000, but in rope_parameters it is 500000"]);
    both["rope_theta"] = Value::Null;
    both["rope_scaling"] = json!({"type": "linear", "factor": 2.0});
    says(read(&both), &["rope_scaling and rope_parameters contradict"]);
    both["rope_scaling"] = Value::Null;
    assert_eq!(read(&both).unwrap().rope_theta, 500_000.0);
}

#[test]
fn text_that_is_no_config_is_an_error() {
    let read = |bytes: &[u8]| Config::from_hf_json("config.json", bytes);
    says(read(b""), &["config.json: no JSON"]);
    says(read(b"[1]"), &["no object"]);
    says(read(&b"[".repeat(100_000)), &["no JSON"]);
    says(read(&vec![b' '; (1 << 20) + 1]), &["1048577 bytes"]);
    says(read(b"\xff\xfe{}"), &["no JSON"]);
    let text = good().to_string();
    for length in 0..text.len() {
        assert!(read(&text.as_bytes()[..length]).is_err(), "cut at {length}");
    }
}

#[test]
fn params_that_cannot_be_are_named() {
    let good = json!({"dim": 64, "n_layers": 2, "n_heads": 4, "vocab_size": -1, "multiple_of": 32, "norm_eps": 1e-5});
    let read = |value: &Value, weights: FromWeights| Config::from_meta_json("params.json", value.to_string().as_bytes(), weights);
    let known = FromWeights { vocab_size: Some(320), ..FromWeights::default() };
    let config = read(&good, known).unwrap();
    assert_eq!((config.vocab_size, config.rope_theta, config.kv_heads, config.max_seq), (320, 10000.0, 4, 4096));
    says(read(&good, FromWeights::default()), &["vocab_size is not given"]);
    let with = |key: &str, value: Value| {
        let mut params = good.clone();
        params[key] = value;
        read(&params, known)
    };
    says(with("multiple_of", json!(0)), &["multiple_of 0"]);
    says(with("multiple_of", json!(1u64 << 60)), &["multiple_of 1152921504606846976"]);
    says(with("dim", json!(1u64 << 60)), &["dim 1152921504606846976"]);
    says(with("dim", json!(66)), &["dim 66 does not divide"]);
    says(with("n_heads", json!(0)), &["0 n_heads"]);
    says(with("ffn_dim_multiplier", json!(1e300)), &["ffn_dim_multiplier"]);
    says(with("ffn_dim_multiplier", json!(-1)), &["ffn_dim_multiplier is -1"]);
    says(with("vocab_size", json!(-2)), &["vocab_size is -2"]);
    says(with("moe_args", json!({"num_experts": 16})), &["params.json has the key \"moe_args\""]);
    says(with("vision_chunk_size", json!(448)), &["vision_chunk_size"]);
    says(with("quantization_args", json!({})), &["quantization_args"]);
}
