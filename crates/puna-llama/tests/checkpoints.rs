//! Checkpoints of the reference, opened and described.

use std::path::PathBuf;

use puna_llama::config::{FromWeights, Yarn};
use puna_llama::rope::{self, Frequencies};
use puna_llama::weights::gguf::{Gguf, Value, ValueKind};
use puna_llama::weights::mmap::MappedFile;
use puna_llama::weights::{Checkpoint, Format, StoredType, TokenizerSource, safetensors, write};
use puna_llama::{Config, RopeScaling};
use puna_tensor::op::RopePairs;
use puna_tensor::{BlockType, DType};

fn golden(path: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../puna-conformance/goldens")).join(path)
}

fn config(model: &str) -> Config {
    let bytes = std::fs::read(golden(&format!("models/{model}/config.json"))).unwrap();
    Config::from_hf_json(model, &bytes).unwrap()
}

/// The fixtures' small model: what they all have but for what their names say.
fn small() -> Config {
    Config {
        hidden_size: 64,
        intermediate_size: 160,
        layers: 3,
        heads: 4,
        kv_heads: 4,
        head_dim: 16,
        vocab_size: 320,
        max_seq: 512,
        rms_norm_eps: 1e-5,
        rope_theta: 10000.0,
        rope: RopeScaling::Default,
        rope_pairs: RopePairs::Halves,
        tie_word_embeddings: false,
        attention_bias: false,
        mlp_bias: false,
        bos: Some(1),
        eos: vec![2],
        pad: None,
        dtype: Some(DType::F32),
    }
}

fn grouped() -> Config {
    Config { hidden_size: 128, intermediate_size: 224, heads: 8, kv_heads: 2, rope_theta: 500_000.0, vocab_size: 400, ..small() }
}

fn llama3(factor: f64) -> RopeScaling {
    RopeScaling::Llama3 { factor, low_freq_factor: 1.0, high_freq_factor: 4.0, original_max_seq: 64 }
}

#[test]
fn both_spellings_of_config_json_say_the_same() {
    let yarn = Yarn {
        factor: 4.0,
        original_max_seq: 64,
        attention_factor: None,
        beta_fast: 32.0,
        beta_slow: 1.0,
        mscale: None,
        mscale_all_dim: None,
        truncate: true,
    };
    assert_eq!(config("llama2"), small());
    assert_eq!(config("llama3"), grouped());
    assert_eq!(config("llama3-headdim"), Config { head_dim: 32, ..grouped() });
    assert_eq!(config("llama3.1"), Config { rope: llama3(8.0), ..grouped() });
    assert_eq!(config("llama3.2-tied"), Config { rope: llama3(32.0), tie_word_embeddings: true, ..grouped() });
    assert_eq!(config("bias"), Config { attention_bias: true, mlp_bias: true, ..small() });
    assert_eq!(config("rope-linear"), Config { rope: RopeScaling::Linear { factor: 4.0 }, ..small() });
    assert_eq!(config("rope-dynamic"), Config { rope: RopeScaling::Dynamic { factor: 2.0 }, max_seq: 64, ..small() });
    assert_eq!(config("rope-yarn"), Config { rope: RopeScaling::Yarn(yarn), ..small() });
    assert_eq!(config("sharded-bf16"), Config { dtype: Some(DType::BF16), ..grouped() });
    assert_eq!(config("f16"), Config { dtype: Some(DType::F16), ..grouped() });
}

#[test]
fn a_config_that_is_written_reads_the_same() {
    for model in
        ["llama2", "llama3-headdim", "llama3.1", "llama3.2-tied", "bias", "rope-linear", "rope-dynamic", "rope-yarn", "f16"]
    {
        let config = config(model);
        let json = serde_json::to_vec(&config.to_hf_json().unwrap()).unwrap();
        assert_eq!(Config::from_hf_json(model, &json).unwrap(), config, "{model}");
    }
}

#[test]
fn params_json_gives_the_size_that_metas_code_gives() {
    for model in ["meta-pth", "meta-pth-mp2"] {
        let bytes = std::fs::read(golden(&format!("models/{model}/params.json"))).unwrap();
        let config = Config::from_meta_json(model, &bytes, FromWeights::default()).unwrap();
        let expected =
            Config { rope_pairs: RopePairs::Interleaved, max_seq: 8192, bos: None, eos: Vec::new(), dtype: None, ..grouped() };
        assert_eq!(config, expected);
    }
    // The released models: (params.json, intermediate size).
    let released = [
        (r#"{"dim":4096,"multiple_of":256,"n_heads":32,"n_layers":32,"norm_eps":1e-5,"vocab_size":-1}"#, 11008),
        (
            r#"{"dim":8192,"multiple_of":4096,"ffn_dim_multiplier":1.3,"n_heads":64,"n_kv_heads":8,"n_layers":80,"norm_eps":1e-5,"vocab_size":-1}"#,
            28672,
        ),
        (
            r#"{"dim":4096,"n_layers":32,"n_heads":32,"n_kv_heads":8,"vocab_size":128256,"multiple_of":1024,"ffn_dim_multiplier":1.3,"norm_eps":1e-05,"rope_theta":500000.0,"use_scaled_rope":true}"#,
            14336,
        ),
        (
            r#"{"dim":2048,"n_layers":16,"n_heads":32,"n_kv_heads":8,"vocab_size":128256,"multiple_of":256,"ffn_dim_multiplier":1.5,"norm_eps":1e-05,"rope_theta":500000.0,"use_scaled_rope":true,"rope_scaling_factor":32}"#,
            8192,
        ),
    ];
    for (json, intermediate_size) in released {
        let weights = FromWeights { vocab_size: Some(32000), ..FromWeights::default() };
        assert_eq!(Config::from_meta_json("params.json", json.as_bytes(), weights).unwrap().intermediate_size, intermediate_size);
    }
}

#[test]
fn a_scaled_rope_without_a_factor_is_scaled_by_eight() {
    let json = r#"{"dim":4096,"n_layers":32,"n_heads":32,"n_kv_heads":8,"vocab_size":128256,"multiple_of":1024,"ffn_dim_multiplier":1.3,"norm_eps":1e-05,"rope_theta":500000.0,"use_scaled_rope":true}"#;
    let config = Config::from_meta_json("params.json", json.as_bytes(), FromWeights::default()).unwrap();
    let expected = RopeScaling::Llama3 { factor: 8.0, low_freq_factor: 1.0, high_freq_factor: 4.0, original_max_seq: 8192 };
    assert_eq!((config.rope, config.max_seq), (expected, 131_072));
}

#[test]
fn every_golden_checkpoint_has_exactly_the_models_tensors() {
    let folders = ["bias", "rope-dynamic", "rope-yarn", "sharded-bf16", "meta-pth-mp2", "llama3.2-tied"];
    let models = folders.map(|name| format!("models/{name}"));
    let gguf = ["basic", "kquants", "tied"].map(|name| format!("gguf/{name}/model.gguf"));
    for model in models.iter().chain(&gguf) {
        let checkpoint = Checkpoint::open(golden(model)).unwrap();
        checkpoint.check().unwrap();
        for (name, shape) in checkpoint.config().tensors() {
            let info = checkpoint.tensor(&name).unwrap();
            assert_eq!(info.shape, shape, "{model} {name}");
            let bytes = info.dtype().unwrap().bytes_for(info.elements()).unwrap();
            assert_eq!((info.stored_bytes(), info.bytes().unwrap().len()), (bytes, bytes), "{model} {name}");
        }
    }
}

#[test]
fn a_folder_is_known_by_what_lies_in_it() {
    let format = |path: &str| Checkpoint::open(golden(path)).unwrap().format();
    assert_eq!(format("models/bias"), Format::SafeTensors);
    assert_eq!(format("models/bias/model.safetensors"), Format::SafeTensors);
    assert_eq!(format("models/sharded-bf16/model-00002-of-00004.safetensors"), Format::SafeTensors);
    assert_eq!(format("models/meta-pth-mp2"), Format::Meta);
    assert_eq!(format("models/meta-pth-mp2/consolidated.01.pth"), Format::Meta);
    assert_eq!(format("gguf/tied"), Format::Gguf);
    assert_eq!(Checkpoint::open(golden("models/sharded-bf16")).unwrap().generation().eos, [2]);
}

#[test]
fn gguf_metadata_gives_the_config_and_the_tokenizer() {
    let checkpoint = Checkpoint::open(golden("gguf/kquants/model.gguf")).unwrap();
    let config = checkpoint.config();
    assert_eq!((config.hidden_size, config.intermediate_size, config.layers), (256, 512, 2));
    assert_eq!((config.heads, config.kv_heads, config.head_dim), (8, 4, 32));
    assert_eq!((config.rope_theta, config.rms_norm_eps, config.max_seq), (500_000.0, 1e-5, 512));
    assert_eq!(config.rope_pairs, RopePairs::Interleaved);
    assert!(!config.tie_word_embeddings);
    assert_eq!((config.bos, config.eos.as_slice()), (Some(0), [1].as_slice()));
    assert_eq!(checkpoint.tokenizer_source(), &TokenizerSource::Gguf);
    let dtype = |name: &str| checkpoint.tensor(name).unwrap().dtype.clone();
    assert_eq!(dtype("model.layers.1.mlp.gate_proj.weight"), StoredType::DType(DType::Block(BlockType::Q2K)));
    assert_eq!(dtype("model.layers.0.self_attn.q_proj.weight"), StoredType::DType(DType::Block(BlockType::Q4K)));
    assert_eq!(dtype("model.norm.weight"), StoredType::DType(DType::F32));

    let gguf = checkpoint.gguf().unwrap();
    assert_eq!(gguf.string("tokenizer.ggml.pre"), Some("llama-bpe"));
    let tokens = gguf.array("tokenizer.ggml.tokens").unwrap();
    assert_eq!((tokens.kind, tokens.length), (ValueKind::String, config.vocab_size));
    assert_eq!(tokens.strings().count(), tokens.length);
    let types = gguf.array("tokenizer.ggml.token_type").unwrap();
    assert!(types.numbers().count() == tokens.length && types.numbers().all(|t| (1.0..=6.0).contains(&t)));
    assert!(matches!(gguf.get("general.architecture"), Some(Value::String("llama"))));
    assert!(Checkpoint::open(golden("gguf/tied/model.gguf")).unwrap().config().tie_word_embeddings);
}

#[test]
fn rope_factors_of_gguf_are_those_of_the_llama3_setting() {
    let checkpoint = Checkpoint::open(golden("gguf/kquants/model.gguf")).unwrap();
    let config = checkpoint.config();
    let RopeScaling::Factors(factors) = &config.rope else { panic!("{:?}", config.rope) };
    assert_eq!(rope::llama3_setting(factors, config.rope_theta, config.head_dim), Some(llama3(8.0)));
    let as_llama3 = Config { rope: llama3(8.0), ..config.clone() };
    let (a, b) = (rope::frequencies(config, 0), rope::frequencies(&as_llama3, 0));
    a.inv_freq.iter().zip(&b.inv_freq).for_each(|(a, b)| assert!((a - b).abs() <= 1e-6 * b));
    let made = rope::factors(&as_llama3).unwrap();
    factors.iter().zip(made).for_each(|(a, b)| assert!((a - b).abs() <= 1e-6 * b));
}

#[test]
fn what_was_not_read_right_has_no_llama3_setting() {
    let mut factors = vec![1.0f32; 32];
    factors[31] = 8.0;
    assert_eq!(rope::llama3_setting(&factors, 500_000.0, 64), None);
    assert_eq!(rope::llama3_setting(&factors[..31], 500_000.0, 64), None);
}

struct Golden(Vec<puna_llama::weights::TensorInfo>);

impl Golden {
    fn open(path: &str) -> Self {
        Self(safetensors::parse(&MappedFile::open(&golden(path)).unwrap()).unwrap())
    }

    fn get<T: bytemuck::Pod>(&self, name: &str) -> Vec<T> {
        let info = self.0.iter().find(|info| info.name == name).unwrap();
        bytemuck::pod_collect_to_vec(&info.bytes().unwrap())
    }
}

#[test]
fn frequencies_are_the_references() {
    let golden_file = Golden::open("models/rope.safetensors");
    let settings: serde_json::Map<String, serde_json::Value> =
        serde_json::from_slice(&std::fs::read(golden("models/rope.json")).unwrap()).unwrap();
    for (name, setting) in &settings {
        // The settings are a config's rope fields: a whole one is made around them.
        let mut json = small().to_hf_json().unwrap();
        let head_dim = setting["head_dim"].as_u64().unwrap() as usize;
        for key in ["head_dim", "rope_theta", "max_position_embeddings"] {
            json[key] = setting[key].clone();
        }
        let mut scaling = setting.as_object().unwrap().clone();
        scaling.retain(|key, _| !["head_dim", "rope_theta", "max_position_embeddings"].contains(&key.as_str()));
        json["rope_scaling"] = if scaling.is_empty() { serde_json::Value::Null } else { scaling.into() };
        let config = Config::from_hf_json(name, &serde_json::to_vec(&json).unwrap()).unwrap();
        let made = rope::frequencies(&config, 0);
        let expected: Vec<f32> = golden_file.get(&format!("{name}.inv_freq"));
        assert_eq!(made.inv_freq.len(), head_dim / 2);
        for (i, (a, b)) in made.inv_freq.iter().zip(&expected).enumerate() {
            assert!((a - b).abs() <= 1e-6 * b.abs(), "{name} {i}: {a} for {b}");
        }
        let scaling: Vec<f64> = golden_file.get(&format!("{name}.attention_scaling"));
        assert!((made.scaling - scaling[0]).abs() <= 1e-6, "{name}: {} for {}", made.scaling, scaling[0]);
    }
}

#[test]
fn cosines_and_sines_are_right_to_1e_6_at_every_position_to_131071() {
    let golden_file = Golden::open("models/rope.safetensors");
    let positions: Vec<i64> = golden_file.get("positions");
    for name in ["llama2", "llama3", "llama3.1", "llama3.2-1b", "linear", "yarn"] {
        let frequencies = Frequencies { inv_freq: golden_file.get(&format!("{name}.inv_freq")), scaling: 1.0 };
        let half = frequencies.inv_freq.len();
        let (cos, sin): (Vec<f64>, Vec<f64>) = (golden_file.get(&format!("{name}.cos")), golden_file.get(&format!("{name}.sin")));
        for (row, &position) in positions.iter().enumerate() {
            let position = position as usize;
            let (made_cos, made_sin) = frequencies.table(position..position + 1);
            for i in 0..half {
                let off = (f64::from(made_cos[i]) - cos[row * half + i])
                    .abs()
                    .max((f64::from(made_sin[i]) - sin[row * half + i]).abs());
                assert!(off <= 1e-6, "{name} position {position} pair {i}: off by {off}");
            }
        }
    }
}

#[test]
fn the_scaling_multiplies_cosines_and_sines() {
    let plain = Frequencies { inv_freq: vec![1.0, 0.1], scaling: 1.0 };
    let scaled = Frequencies { scaling: 1.25, ..plain.clone() };
    let ((cos, sin), (scaled_cos, scaled_sin)) = (plain.table(3..5), scaled.table(3..5));
    for (a, b) in cos.iter().chain(&sin).zip(scaled_cos.iter().chain(&scaled_sin)) {
        assert!((a * 1.25 - b).abs() < 1e-6);
    }
    assert!((f64::from(cos[2]) - 4f64.cos()).abs() < 1e-7 && (f64::from(sin[3]) - 0.4f64.sin()).abs() < 1e-7);
}

#[test]
fn dynamic_frequencies_change_only_beyond_max_seq() {
    let config = config("rope-dynamic");
    let base = rope::frequencies(&config, 0);
    assert_eq!(rope::frequencies(&config, 64), base);
    let longer = rope::frequencies(&config, 130);
    // theta (2 * 130 / 64 - 1)^(16 / 14), of the last pair: theta^(-14/16)
    let theta = 10000.0 * (2.0 * 130.0 / 64.0 - 1.0f64).powf(16.0 / 14.0);
    assert!((f64::from(longer.inv_freq[7]) * theta.powf(14.0 / 16.0) - 1.0).abs() < 1e-6);
    assert_eq!(longer.inv_freq[0], 1.0);
    assert_eq!(config.context_limit(), None);
    assert_eq!(self::config("rope-linear").context_limit(), Some(2048));
    assert_eq!(self::config("llama3").context_limit(), Some(512));
}

#[test]
fn architectures_that_are_not_supported_are_named() {
    let error = |path: &str| {
        let bytes = std::fs::read(golden(path)).unwrap();
        Config::from_hf_json("config.json", &bytes).unwrap_err().to_string()
    };
    let expect = |name: &str, architecture: &str| {
        let message = format!("config.json: the architecture {architecture:?} is not supported yet; LlamaForCausalLM is");
        assert_eq!(error(&format!("models/{name}/config.json")), message);
    };
    expect("llama4-text", "Llama4ForCausalLM");
    expect("mllama", "MllamaForConditionalGeneration");
}

#[test]
fn a_gguf_opens_through_parse_as_through_the_checkpoint() {
    let file = MappedFile::open(&golden("gguf/basic/model.gguf")).unwrap();
    let gguf = Gguf::parse(&file).unwrap();
    assert_eq!(gguf.version(), 3);
    assert_eq!(gguf.tensors().len(), Checkpoint::open(golden("gguf/basic")).unwrap().tensors().len());
    assert_eq!(gguf.metadata().count(), gguf.metadata().map(|(key, _)| key).collect::<std::collections::HashSet<_>>().len());
}

#[test]
fn a_tokenizer_of_gguf_is_written_as_it_is_read() {
    for (model, kind) in [("basic", "llama"), ("kquants", "gpt2")] {
        let checkpoint = Checkpoint::open(golden(&format!("gguf/{model}/model.gguf"))).unwrap();
        let tokenizer = checkpoint.gguf().unwrap().tokenizer().unwrap().unwrap();
        assert_eq!((tokenizer.model.as_str(), tokenizer.tokens.len()), (kind, checkpoint.config().vocab_size));
        assert_eq!(tokenizer.token_types.len(), tokenizer.tokens.len());
        assert_eq!((tokenizer.scores.is_empty(), tokenizer.merges.is_empty()), (kind == "gpt2", kind == "llama"));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.gguf");
        write::gguf(&path, &puna_llama::weights::gguf::tokenizer_metadata(&tokenizer), &[], &mut |_| unreachable!()).unwrap();
        let again = Gguf::parse(&MappedFile::open(&path).unwrap()).unwrap().tokenizer().unwrap();
        assert_eq!(again, Some(tokenizer));
    }
}
