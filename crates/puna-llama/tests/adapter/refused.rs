//! Adapters that do not fit, and files that are not what they should be: each a clear error, and the model as it was.

use std::fs;
use std::path::Path;

use puna_llama::adapter::{Adapter, AdapterConfig, Targets};
use puna_llama::{Error, Kind};
use puna_tensor::DType;
use serde_json::{Value, json};

use super::{adapter, base, bytes, golden, tensors_of};

/// A copy of one of PEFT's adapters.
fn copy(name: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for file in ["adapter_config.json", "adapter_model.safetensors"] {
        fs::copy(golden(&format!("models/adapters/{name}/{file}")), folder.path().join(file)).unwrap();
    }
    folder
}

fn edit(folder: &Path, change: impl FnOnce(&mut serde_json::Map<String, Value>)) {
    let path = folder.join("adapter_config.json");
    let mut json: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    change(json.as_object_mut().unwrap());
    fs::write(path, json.to_string()).unwrap();
}

type Stored = (String, Vec<usize>, Vec<u8>);

/// Rewrites the weights, all of them f32.
fn rewrite(folder: &Path, change: impl FnOnce(&mut Vec<Stored>)) {
    let mut tensors = tensors_of(folder);
    change(&mut tensors);
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    for (name, shape, bytes) in tensors {
        let start = data.len();
        data.extend(bytes);
        header.insert(name, json!({"dtype": "F32", "shape": shape, "data_offsets": [start, data.len()]}));
    }
    let header = Value::Object(header).to_string();
    let file = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat();
    fs::write(folder.join("adapter_model.safetensors"), file).unwrap();
}

#[track_caller]
fn says(error: &Error, kind: Kind, words: &[&str]) {
    let text = error.to_string();
    assert_eq!(error.kind(), kind, "{text}");
    words.iter().for_each(|word| assert!(text.contains(word), "{text:?} does not say {word:?}"));
    assert!(!text.contains('\n') && !text.ends_with('.') && text.len() < 1500, "{text:?} is one line");
}

/// Opening, or loading onto the base, fails so; the base is as it was.
#[track_caller]
fn refused(folder: &Path, kind: Kind, words: &[&str]) {
    let mut llama = base().llama;
    let before = bytes(&llama);
    let error = Adapter::open(folder).and_then(|adapter| llama.load_adapter(&adapter)).unwrap_err();
    says(&error, kind, words);
    assert!(bytes(&llama) == before, "the model is as it was");
}

#[test]
fn settings_that_change_what_is_computed_are_refused_by_name() {
    for (key, value, kind, words) in [
        ("peft_type", json!("ADALORA"), Kind::Unsupported, &["peft_type", "ADALORA", "LORA"][..]),
        ("peft_type", Value::Null, Kind::Config, &["peft_type"]),
        ("peft_type", json!(3), Kind::Config, &["peft_type"]),
        ("modules_to_save", json!(["lm_head"]), Kind::Unsupported, &["modules_to_save", "lm_head"]),
        ("bias", json!("lora_only"), Kind::Unsupported, &["bias", "lora_only"]),
        ("fan_in_fan_out", json!(true), Kind::Unsupported, &["fan_in_fan_out"]),
        ("lora_bias", json!(true), Kind::Unsupported, &["lora_bias"]),
        ("layer_replication", json!([[0, 2], [1, 2]]), Kind::Unsupported, &["layer_replication"]),
        ("target_parameters", json!(["mlp.up_proj.weight"]), Kind::Unsupported, &["target_parameters"]),
        ("trainable_token_indices", json!([1]), Kind::Unsupported, &["trainable_token_indices"]),
        ("use_qalora", json!(true), Kind::Unsupported, &["use_qalora"]),
        ("init_lora_weights", json!("pissa"), Kind::Unsupported, &["init_lora_weights", "pissa"]),
        ("init_lora_weights", json!("loftq"), Kind::Unsupported, &["init_lora_weights", "loftq"]),
        ("a_kind_of_the_future", json!({"strength": 2}), Kind::Unsupported, &["a_kind_of_the_future", "strength"]),
        ("r", json!(0), Kind::Config, &["r is 0"]),
        ("r", json!(-4), Kind::Config, &["r is -4"]),
        ("r", json!(1e30), Kind::Config, &["r is"]),
        ("lora_alpha", json!("much"), Kind::Config, &["lora_alpha"]),
        ("lora_dropout", json!(1.0), Kind::Config, &["lora_dropout is 1"]),
        ("target_modules", Value::Null, Kind::Config, &["target_modules"]),
        ("target_modules", json!([1]), Kind::Config, &["target_modules"]),
        ("target_modules", json!(["c_attn", "c_proj"]), Kind::Config, &["c_attn", "self_attn.q_proj"]),
        ("target_modules", json!("(q_proj"), Kind::Config, &["regular expression"]),
        ("target_modules", json!("q".repeat(5000)), Kind::Config, &["4096"]),
        ("target_modules", json!(r"\w{1000}{1000}"), Kind::Config, &["regular expression"]),
        ("target_modules", json!(["q_proj", "embed_tokens"]), Kind::Unsupported, &["embed_tokens"]),
        ("rank_pattern", json!({"q_proj": 0}), Kind::Config, &["q_proj is 0"]),
        ("rank_pattern", json!({"q_proj": null}), Kind::Config, &["q_proj"]),
        ("rank_pattern", json!({"(": 1}), Kind::Config, &["regular expression"]),
        ("alpha_pattern", json!([1]), Kind::Config, &["alpha_pattern"]),
        ("layers_to_transform", json!([-1]), Kind::Config, &["layers_to_transform"]),
        ("layers_to_transform", json!([7]), Kind::Config, &["target_modules"]),
        ("use_dora", json!("yes"), Kind::Config, &["use_dora"]),
    ] {
        let folder = copy("plain");
        edit(folder.path(), |object| drop(object.insert(key.into(), value)));
        refused(folder.path(), kind, words);
    }
}

#[test]
fn settings_that_change_nothing_are_passed_over() {
    let folder = copy("plain");
    edit(folder.path(), |object| {
        object.insert("a_kind_of_the_future".into(), json!(false));
        object.insert("another".into(), json!({}));
        object.insert("task_type".into(), json!("FEATURE_EXTRACTION"));
        object.insert("init_lora_weights".into(), json!("gaussian"));
        object.insert("peft_version".into(), json!("99.0"));
        object.insert("modules_to_save".into(), json!([]));
        object.insert("lora_alpha".into(), json!(8.0));
    });
    let opened = Adapter::open(folder.path()).unwrap();
    assert_eq!(opened.config(), adapter("plain").config());
}

/// A regular expression that would be tried for ages is given up.
#[test]
fn a_pattern_that_takes_too_long_is_an_error() {
    let folder = copy("plain");
    edit(folder.path(), |object| drop(object.insert("target_modules".into(), json!(r"(?=((\w|\.|_)+)+\1x)(a|model.*)+"))));
    let started = std::time::Instant::now();
    let mut llama = base().llama;
    assert!(Adapter::open(folder.path()).and_then(|adapter| llama.load_adapter(&adapter)).is_err());
    assert!(started.elapsed().as_secs() < 30, "it hangs");
}

#[test]
fn an_adapter_of_another_base_is_told_by_its_tensors() {
    let folder = copy("plain");
    rewrite(folder.path(), |tensors| tensors.retain(|(name, ..)| !name.contains("layers.1.self_attn.v_proj.lora_B")));
    refused(folder.path(), Kind::MissingTensor, &["1 tensor missing", "model.layers.1.self_attn.v_proj.lora_B.weight", "base"]);

    let folder = copy("plain");
    edit(folder.path(), |object| drop(object.insert("base_model_name_or_path".into(), json!("someone/Llama-70B"))));
    rewrite(folder.path(), |tensors| {
        for (name, shape, bytes) in tensors {
            if name.contains("down_proj.lora_A") {
                shape[1] = 80;
                bytes.extend_from_within(..);
            }
        }
    });
    refused(
        folder.path(),
        Kind::Misshapen,
        &["2 tensors misshapen", "down_proj.lora_A.weight is [4, 80]", "[4, 40]", "someone/Llama-70B"],
    );

    let folder = copy("plain");
    rewrite(folder.path(), |tensors| {
        let more: Vec<Stored> = tensors
            .iter()
            .map(|(name, shape, bytes)| (name.replace("layers.1", "layers.2"), shape.clone(), bytes.clone()))
            .collect();
        tensors.extend(more.into_iter().filter(|(name, ..)| name.contains("layers.2")));
    });
    refused(folder.path(), Kind::ExtraTensor, &["6 tensors", "model.layers.2.mlp.down_proj.lora_A.weight", "and 3 more"]);

    let folder = copy("plain");
    edit(folder.path(), |object| drop(object.insert("r".into(), json!(8))));
    refused(folder.path(), Kind::Misshapen, &["12 tensors misshapen", "[8, "]);

    let folder = copy("plain");
    edit(folder.path(), |object| drop(object.insert("use_dora".into(), json!(true))));
    refused(folder.path(), Kind::MissingTensor, &["6 tensors missing", "lora_magnitude_vector"]);

    let folder = copy("dora");
    edit(folder.path(), |object| drop(object.insert("use_dora".into(), json!(false))));
    refused(folder.path(), Kind::ExtraTensor, &["14 tensors", "lora_magnitude_vector"]);

    let folder = copy("plain");
    rewrite(folder.path(), |tensors| tensors[0].0 = "model.layers.0.mlp.down_proj.lora_A.weight".into());
    refused(folder.path(), Kind::ExtraTensor, &["base_model.model."]);
}

#[test]
fn both_spellings_of_a_magnitude_are_read_but_not_together() {
    let folder = copy("dora");
    rewrite(folder.path(), |tensors| {
        for (name, ..) in tensors.iter_mut().filter(|(name, ..)| name.ends_with("magnitude_vector")) {
            name.push_str(".weight");
        }
    });
    let (mut llama, mut other) = (base().llama, base().llama);
    llama.load_adapter(&Adapter::open(folder.path()).unwrap()).unwrap();
    other.load_adapter(&adapter("dora")).unwrap();
    assert!(bytes(&llama) == bytes(&other));
    rewrite(folder.path(), |tensors| {
        let (name, shape, bytes) = tensors.iter().find(|(name, ..)| name.ends_with("magnitude_vector.weight")).unwrap().clone();
        tensors.push((name.strip_suffix(".weight").unwrap().into(), shape, bytes));
    });
    refused(folder.path(), Kind::Format, &["both spellings", "lora_magnitude_vector"]);
}

#[test]
fn a_whole_weight_that_is_not_the_bases_is_refused() {
    // PEFT has saved the head with its adapter; it is the base's, and passed over.
    base().llama.load_adapter(&adapter("head")).unwrap();
    let folder = copy("head");
    let path = folder.path().join("adapter_model.safetensors");
    let mut file = fs::read(&path).unwrap();
    let at = file.len() - 8 - 3;
    let (_, head) = (at, String::from_utf8_lossy(&file).contains("lm_head.base_layer.weight"));
    assert!(head, "the golden holds it");
    let header = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
    let json: Value = serde_json::from_slice(&file[8..8 + header]).unwrap();
    let offset = json["base_model.model.lm_head.base_layer.weight"]["data_offsets"][0].as_u64().unwrap() as usize;
    file[8 + header + offset + 1] ^= 0x10;
    fs::write(&path, file).unwrap();
    refused(folder.path(), Kind::Unsupported, &["lm_head.base_layer.weight", "not the model's"]);
}

#[test]
fn files_that_are_not_there_or_not_whole_are_told() {
    let folder = tempfile::tempdir().unwrap();
    refused(folder.path(), Kind::Io, &["adapter_config.json"]);
    refused(&folder.path().join("nowhere"), Kind::Io, &["nowhere", "adapter_config.json"]);
    fs::copy(golden("models/adapters/plain/adapter_config.json"), folder.path().join("adapter_config.json")).unwrap();
    refused(folder.path(), Kind::Io, &["adapter_model.safetensors"]);
    fs::write(folder.path().join("adapter_model.bin"), b"PK").unwrap();
    refused(folder.path(), Kind::Unsupported, &["adapter_model.bin", "adapter_model.safetensors"]);
    fs::write(folder.path().join("adapter_model.safetensors"), b"\xff\xff\xff\xff\xff\xff\xff\x7f").unwrap();
    refused(folder.path(), Kind::Format, &["header"]);
    for config in ["", "[]", "{", "null", "{\"peft_type\":"] {
        fs::write(folder.path().join("adapter_config.json"), config).unwrap();
        refused(folder.path(), Kind::Format, &["JSON"]);
    }
    fs::write(folder.path().join("adapter_config.json"), " ".repeat((1 << 20) + 1)).unwrap();
    refused(folder.path(), Kind::Format, &["1048577", "1048576"]);
}

/// Every byte of both files changed or cut in turn: an error or an adapter, never a panic.
#[test]
fn mutated_files_never_panic() {
    let folder = copy("layers");
    let files = ["adapter_config.json", "adapter_model.safetensors"].map(|file| folder.path().join(file));
    let mut llama = base().llama;
    let mut state = 1u64;
    let mut next = |n: usize| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) as usize % n
    };
    let mut loaded = 0;
    for path in &files {
        let whole = fs::read(path).unwrap();
        // Tensors' own bytes may be anything.
        let length = whole.len().min(1400);
        for _ in 0..1500 {
            let mut bytes = whole.clone();
            for _ in 0..1 + next(3) {
                let at = next(length).min(bytes.len() - 1);
                match next(4) {
                    0 => bytes[at] = next(256) as u8,
                    1 => bytes[at] ^= 1 << next(8),
                    2 => bytes.truncate(at.max(1)),
                    _ => bytes[at] = b"0123456789\"{}[],:-enull"[next(22)],
                }
            }
            fs::write(path, bytes).unwrap();
            if Adapter::open(folder.path()).and_then(|adapter| llama.load_adapter(&adapter)).is_ok() {
                loaded += 1;
                llama.remove_adapter();
            }
        }
        fs::write(path, whole).unwrap();
    }
    assert!(loaded > 0, "some changes leave the adapter whole");
    Adapter::open(folder.path()).and_then(|adapter| llama.load_adapter(&adapter)).unwrap();
}

#[test]
fn wrong_calls_are_refused_and_change_nothing() {
    let mut llama = base().llama;
    let error = llama.merge_adapter(None).unwrap_err();
    says(&error, Kind::Argument, &["merge_adapter", "no adapter"]);
    let folder = tempfile::tempdir().unwrap();
    let config = AdapterConfig::default();
    let error = llama.save_adapter(folder.path(), &config).unwrap_err();
    says(&error, Kind::Argument, &["self_attn.q_proj", "no pair"]);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is written");

    for (config, words) in [
        (AdapterConfig { rank: 0, ..config.clone() }, "r is 0"),
        (AdapterConfig { alpha: f64::NAN, ..config.clone() }, "lora_alpha"),
        (AdapterConfig { dropout: -0.5, ..config.clone() }, "lora_dropout"),
        (AdapterConfig { targets: Targets::Names(vec!["query".into()]), ..config.clone() }, "query"),
        (AdapterConfig { targets: Targets::Names(vec![String::new()]), ..config.clone() }, "target_modules"),
        (AdapterConfig { rank_pattern: vec![("(".into(), 2)], ..config.clone() }, "regular expression"),
    ] {
        says(&llama.add_adapter(&config, 0).unwrap_err(), Kind::Config, &[words]);
        assert!(!llama.is_adapted());
    }

    llama.load_adapter(&adapter("plain")).unwrap();
    let before = bytes(&llama);
    says(&llama.load_adapter(&adapter("dora")).unwrap_err(), Kind::Argument, &["already", "remove_adapter"]);
    says(&llama.add_adapter(&config, 0).unwrap_err(), Kind::Argument, &["already"]);
    says(&llama.merge_adapter(Some(DType::U32)).unwrap_err(), Kind::Unsupported, &["u32"]);
    let error = llama.save_adapter(folder.path(), adapter("dora").config()).unwrap_err();
    says(&error, Kind::Argument, &["rank 4, scale 2", "rank 3, scale 2, magnitudes"]);
    assert!(bytes(&llama) == before);

    // What another model was merged from.
    let former = llama.merge_adapter(None).unwrap();
    let checkpoint = puna_llama::Checkpoint::open(golden("models/bias")).unwrap();
    let mut other = puna_llama::Model::loader().engine(&checkpoint, &super::cpu()).unwrap().llama;
    let before = bytes(&other);
    says(&other.unmerge_adapter(former).unwrap_err(), Kind::Argument, &["model.layers.0.self_attn.q_proj"]);
    assert!(bytes(&other) == before);
}

/// A folder that cannot be written keeps the adapter that it holds.
#[test]
fn saving_keeps_what_is_there_until_the_new_is_whole() {
    let folder = copy("plain");
    let mut llama = base().llama;
    llama.load_adapter(&adapter("plain")).unwrap();
    // The config's place is taken by a folder, which no file replaces.
    fs::remove_file(folder.path().join("adapter_config.json")).unwrap();
    fs::create_dir(folder.path().join("adapter_config.json")).unwrap();
    let error = llama.save_adapter(folder.path(), adapter("plain").config()).unwrap_err();
    says(&error, Kind::Io, &["adapter_config.json"]);
    let left: Vec<String> = fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(left.len(), 2, "no temporary files are left: {left:?}");
}
