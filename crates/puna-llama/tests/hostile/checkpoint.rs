//! Files that are each right and together wrong.

use std::path::Path;

use puna_llama::weights::write::{self, TensorPlan};
use puna_llama::weights::{Checkpoint, Format};
use puna_llama::{Config, Kind, Result};
use puna_tensor::DType;
use serde_json::json;
use tempfile::TempDir;

use crate::builders::{good_gguf, op, pth};
use crate::says;

fn config_json(tied: bool) -> serde_json::Value {
    json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 8, "intermediate_size": 16,
        "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": 5,
        "max_position_embeddings": 64, "tie_word_embeddings": tied, "eos_token_id": 2,
    })
}

/// A folder with `config.json`, and the plans of its model's tensors.
fn folder(tied: bool) -> (TempDir, Vec<TensorPlan>) {
    let folder = tempfile::tempdir().unwrap();
    let text = config_json(tied).to_string();
    std::fs::write(folder.path().join("config.json"), &text).unwrap();
    let config = Config::from_hf_json("config.json", text.as_bytes()).unwrap();
    let plan = |(name, shape)| TensorPlan { name, dtype: DType::F32, shape };
    (folder, config.tensors().into_iter().map(plan).collect())
}

/// Writes the tensors, each of bytes of its own.
fn write(folder: &Path, plans: &[TensorPlan], shard_bytes: u64) {
    let mut produce = |plan: &TensorPlan| Ok(contents(plan));
    write::safetensors(folder, plans, shard_bytes, &mut produce).unwrap();
}

fn contents(plan: &TensorPlan) -> Vec<u8> {
    let seed: usize = plan.name.bytes().map(usize::from).sum();
    (0..plan.bytes().unwrap()).map(|i| ((i * 7 + seed) % 251) as u8).collect()
}

fn check(folder: &Path) -> Result<()> {
    Checkpoint::open(folder)?.check()
}

#[test]
fn what_is_written_is_read_whole_and_in_shards() {
    for shard_bytes in [u64::MAX, 1000] {
        let (folder, plans) = folder(false);
        write(folder.path(), &plans, shard_bytes);
        let checkpoint = Checkpoint::open(folder.path()).unwrap();
        checkpoint.check().unwrap();
        assert_eq!(checkpoint.end_tokens(), [2]);
        let files = std::fs::read_dir(folder.path()).unwrap().count();
        assert_eq!(files, if shard_bytes == u64::MAX { 2 } else { 9 }, "config, shards, index, and nothing temporary");
        for plan in &plans {
            let info = checkpoint.tensor(&plan.name).unwrap();
            assert_eq!(info.bytes().unwrap().as_ref(), contents(plan), "{}", plan.name);
            assert_eq!(info.contiguous().unwrap().range().start % 4, 0, "mapped f32 lies where f32 may lie");
        }
    }
}

#[test]
fn tensors_that_are_missing_misshapen_or_extra_are_all_named() {
    let (folder, mut plans) = folder(false);
    plans.retain(|plan| !plan.name.contains("up_proj"));
    plans.push(TensorPlan { name: "model.layers.0.self_attn.rotary_emb.inv_freq".into(), dtype: DType::F32, shape: vec![2] });
    plans.push(TensorPlan { name: "model.layers.2.input_layernorm.weight".into(), dtype: DType::F32, shape: vec![8] });
    for plan in &mut plans {
        if plan.name == "model.layers.1.self_attn.k_proj.weight" {
            plan.shape = vec![8, 8];
        }
    }
    write(folder.path(), &plans, u64::MAX);
    let error = check(folder.path()).unwrap_err();
    assert_eq!(error.kind(), Kind::MissingTensor);
    assert_eq!(
        error.message(),
        "2 tensors missing: model.layers.0.mlp.up_proj.weight, model.layers.1.mlp.up_proj.weight; 1 tensor misshapen: \
         model.layers.1.self_attn.k_proj.weight is [8, 8], but the config (kv_heads 1, head_dim 4, hidden_size 8) needs [4, 8]; \
         1 tensor that a Llama of this config does not have: model.layers.2.input_layernorm.weight"
    );
}

#[test]
fn one_misshapen_tensor_is_told_with_its_file() {
    let (folder, mut plans) = folder(false);
    plans.iter_mut().find(|plan| plan.name.contains("layers.1.mlp.down_proj")).unwrap().shape = vec![16, 8];
    write(folder.path(), &plans, 1000);
    let error = check(folder.path()).unwrap_err();
    assert_eq!(error.kind(), Kind::Misshapen);
    let expected =
        "model.layers.1.mlp.down_proj.weight is [16, 8], but the config (intermediate_size 16, hidden_size 8) needs [8, 16]";
    assert_eq!(error.message(), expected);
    assert!(error.place().starts_with("model-0000") && error.place().ends_with(".safetensors"), "{}", error.place());
}

#[test]
fn a_checkpoint_without_most_tensors_names_the_first_and_counts() {
    let (folder, plans) = folder(false);
    write(folder.path(), &plans[..2], u64::MAX);
    says(check(folder.path()), &["19 tensors missing", "model.layers.0.post_attention_layernorm.weight", "and 16 more"]);
}

#[test]
fn a_tied_head_is_the_embedding_or_an_error() {
    let (folder, mut plans) = folder(true);
    plans.push(TensorPlan { name: "lm_head.weight".into(), dtype: DType::F32, shape: vec![5, 8] });
    let mut same = |plan: &TensorPlan| {
        let name = plan.name.replace("lm_head.weight", "model.embed_tokens.weight");
        Ok(contents(&TensorPlan { name, ..plan.clone() }))
    };
    write::safetensors(folder.path(), &plans, u64::MAX, &mut same).unwrap();
    check(folder.path()).unwrap();
    write(folder.path(), &plans, u64::MAX);
    says(check(folder.path()), &["lm_head.weight is not model.embed_tokens.weight", "tie_word_embeddings true"]);
}

#[test]
fn types_that_cannot_be_computed_with_are_errors_where_the_model_needs_them() {
    let (folder, plans) = folder(false);
    write(folder.path(), &plans, u64::MAX);
    let path = folder.path().join("model.safetensors");
    let mut bytes = std::fs::read(&path).unwrap();
    let at = bytes.windows(5).position(|window| window == b"\"F32\"").unwrap();
    bytes[at..at + 5].copy_from_slice(b"\"I32\"");
    std::fs::write(&path, bytes).unwrap();
    says(check(folder.path()), &["model.safetensors: model.embed_tokens.weight is I32", "bf16"]);
}

#[test]
fn indices_that_lie_are_errors() {
    let (folder, plans) = folder(false);
    write(folder.path(), &plans, 1000);
    let path = folder.path().join("model.safetensors.index.json");
    let good: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let with = |name: &str, file: &str| {
        let mut index = good.clone();
        index["weight_map"][name] = json!(file);
        std::fs::write(&path, index.to_string()).unwrap();
        check(folder.path())
    };
    let name = "model.norm.weight";
    for file in ["../model.safetensors", "/etc/passwd", "..", "a/b.safetensors", "a\\b", "c:x", ""] {
        says(with(name, file), &["is no name of a file beside it"]);
    }
    says(with(name, "model-00009-of-00007.safetensors"), &["model-00009-of-00007.safetensors", "cannot open"]);
    says(
        with(name, "model-00001-of-00007.safetensors"),
        &["model.norm.weight is in model-00001-of-00007.safetensors, which has no such tensor"],
    );
    says(with("x", "model-00001-of-00007.safetensors"), &["it says that x is in"]);
    std::fs::write(&path, "{}").unwrap();
    says(check(folder.path()), &["model.safetensors.index.json: no index", "weight_map"]);
}

#[test]
fn a_tensor_in_two_shards_is_an_error() {
    let (folder, plans) = folder(false);
    write(folder.path(), &plans, 1000);
    let shard = |n: usize| folder.path().join(format!("model-{n:05}-of-00007.safetensors"));
    std::fs::copy(shard(1), shard(2)).unwrap();
    says(check(folder.path()), &["is in model-00001-of-00007.safetensors too"]);
}

#[test]
fn folders_without_a_checkpoint_say_what_would_be_one() {
    let empty = tempfile::tempdir().unwrap();
    says(Checkpoint::open(empty.path()), &["no checkpoint in it", "consolidated.00.pth", ".gguf"]);
    says(Checkpoint::open(empty.path().join("x.gguf")), &["x.gguf", "no such file"]);
    std::fs::write(empty.path().join("config.json"), config_json(false).to_string()).unwrap();
    says(Checkpoint::open(empty.path()), &["no checkpoint in it"]);
    std::fs::write(empty.path().join("a.gguf"), good_gguf()).unwrap();
    assert_eq!(Checkpoint::open(empty.path()).unwrap().format(), Format::Gguf);
    std::fs::write(empty.path().join("b.gguf"), good_gguf()).unwrap();
    says(Checkpoint::open(empty.path()), &["2 .gguf files", "a.gguf, b.gguf"]);
    std::fs::write(empty.path().join("notes.txt"), "x").unwrap();
    says(Checkpoint::open(empty.path().join("notes.txt")), &["notes.txt", "no checkpoint by its name"]);
    // A blob of the Hub's cache has no name that tells.
    std::fs::write(empty.path().join("0123abcd"), good_gguf()).unwrap();
    assert_eq!(Checkpoint::open(empty.path().join("0123abcd")).unwrap().format(), Format::Gguf);
}

#[test]
fn a_gguf_of_a_llama_is_checked() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.gguf");
    std::fs::write(&path, good_gguf()).unwrap();
    let checkpoint = Checkpoint::open(&path).unwrap();
    checkpoint.check().unwrap();
    assert_eq!((checkpoint.config().vocab_size, checkpoint.end_tokens()), (5, vec![1]));
    assert_eq!(checkpoint.config().rope, puna_llama::RopeScaling::Factors(vec![1.0, 2.0]));
    // Both files of a split have to be there, and say so.
    let split = |n: usize| folder.path().join(format!("s-0000{n}-of-00002.gguf"));
    std::fs::write(split(1), good_gguf()).unwrap();
    says(Checkpoint::open(split(1)), &["s-00002-of-00002.gguf", "cannot open"]);
    std::fs::write(split(2), good_gguf()).unwrap();
    says(Checkpoint::open(split(2)), &["s-00001-of-00002.gguf", "split.count is not given"]);
}

/// Writes Meta's folder with two files; `tensor` gives each file's part of a tensor of a full shape.
fn meta(part: impl Fn(&str, usize, &[usize]) -> (Vec<i64>, u8)) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let params =
        json!({"dim": 8, "n_layers": 1, "n_heads": 2, "n_kv_heads": 2, "vocab_size": -1, "multiple_of": 4, "norm_eps": 1e-5});
    std::fs::write(folder.path().join("params.json"), params.to_string()).unwrap();
    let tensors: [(&str, &[usize]); 12] = [
        ("tok_embeddings", &[6, 8]),
        ("norm", &[8]),
        ("output", &[6, 8]),
        ("layers.0.attention.wq", &[8, 8]),
        ("layers.0.attention.wk", &[8, 8]),
        ("layers.0.attention.wv", &[8, 8]),
        ("layers.0.attention.wo", &[8, 8]),
        ("layers.0.feed_forward.w1", &[24, 8]),
        ("layers.0.feed_forward.w2", &[8, 24]),
        ("layers.0.feed_forward.w3", &[24, 8]),
        ("layers.0.attention_norm", &[8]),
        ("layers.0.ffn_norm", &[8]),
    ];
    for rank in 0..2 {
        let (mut pickled, mut storages) = (Vec::new(), Vec::new());
        for (i, (name, full)) in tensors.iter().enumerate() {
            let (shape, fill) = part(name, rank, full);
            let elements: i64 = shape.iter().product();
            let strides: Vec<i64> = (0..shape.len()).map(|axis| shape[axis + 1..].iter().product()).collect();
            let stored = format!("{name}.weight");
            pickled.push((stored, op::tensor("ByteStorage", &i.to_string(), elements, 0, &shape, &strides)));
            storages.push((format!("x/data/{i}"), vec![fill; elements as usize]));
        }
        let items: Vec<(&str, Vec<u8>)> = pickled.iter().map(|(name, tensor)| (name.as_str(), tensor.clone())).collect();
        let pickle = op::dict(&items);
        let mut entries: Vec<(&str, &[u8])> = vec![("x/data.pkl", &pickle)];
        entries.extend(storages.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())));
        std::fs::write(folder.path().join(format!("consolidated.0{rank}.pth")), crate::builders::zip(&entries)).unwrap();
    }
    folder
}

/// Halves as Meta splits them; embeddings by columns (Llama 2) or rows (Llama 3).
fn halves(name: &str, full: &[usize], embedding_axis: usize) -> Vec<i64> {
    let mut shape: Vec<i64> = full.iter().map(|&length| length as i64).collect();
    if shape.len() == 2 {
        let axis = match name {
            "tok_embeddings" => embedding_axis,
            _ => usize::from(name.ends_with("wo") || name.ends_with("w2")),
        };
        shape[axis] /= 2;
    }
    shape
}

#[test]
fn parts_are_joined_by_rows_or_columns_as_their_shapes_say() {
    for embedding_axis in [0, 1] {
        let folder = meta(|name, rank, full| (halves(name, full, embedding_axis), if full.len() == 1 { 9 } else { rank as u8 }));
        let checkpoint = Checkpoint::open(folder.path()).unwrap();
        checkpoint.check().unwrap();
        assert_eq!(checkpoint.config().vocab_size, 6);
        let bytes = |name: &str| checkpoint.tensor(name).unwrap().bytes().unwrap().into_owned();
        let embedding = bytes("model.embed_tokens.weight");
        let expected: Vec<u8> = (0..48).map(|i| if embedding_axis == 0 { i / 24 } else { i % 8 / 4 }).collect();
        assert_eq!(embedding, expected);
        assert_eq!(bytes("lm_head.weight"), (0..48).map(|i| i / 24).collect::<Vec<u8>>());
        assert_eq!(bytes("model.layers.0.mlp.down_proj.weight"), (0..192).map(|i| i % 24 / 12).collect::<Vec<u8>>());
        assert_eq!(bytes("model.norm.weight"), [9; 8]);
    }
}

#[test]
fn parts_that_do_not_belong_together_are_errors() {
    let differing_norms = meta(|name, rank, full| (halves(name, full, 1), rank as u8));
    says(
        Checkpoint::open(differing_norms.path()),
        &["consolidated.01.pth", "norm.weight is not what it is in consolidated.00.pth"],
    );
    let differing_shapes = meta(|name, rank, full| {
        let mut shape = halves(name, full, 1);
        shape[0] += (rank == 1 && name.ends_with("wv")) as i64;
        (shape, 0)
    });
    says(Checkpoint::open(differing_shapes.path()), &["layers.0.attention.wv.weight is [5, 8]", "[4, 8]", "all parts are alike"]);
    let gap = meta(|name, _, full| (halves(name, full, 1), 0));
    std::fs::remove_file(gap.path().join("consolidated.00.pth")).unwrap();
    says(Checkpoint::open(gap.path()), &["consolidated.00.pth is missing, but consolidated.01.pth is there"]);
    // One file of two: everything but the norms has half its rows or columns.
    let half = meta(|name, _, full| (halves(name, full, 1), 0));
    std::fs::remove_file(half.path().join("consolidated.01.pth")).unwrap();
    says(check(half.path()), &["8 tensors misshapen", "model.layers.0.self_attn.q_proj.weight is [4, 8]", "needs [8, 8]"]);
    let fewer = meta(|name, _, full| (halves(name, full, 1), 0));
    std::fs::write(fewer.path().join("consolidated.01.pth"), pth(&op::dict(&[]), &[])).unwrap();
    says(Checkpoint::open(fewer.path()), &["tok_embeddings.weight is missing in consolidated.01.pth"]);
}

#[test]
fn pytorchs_files_make_a_hugging_face_folder_too() {
    let (folder, plans) = folder(true);
    let stored = |plan: &TensorPlan, key: usize| {
        let shape: Vec<i64> = plan.shape.iter().map(|&length| length as i64).collect();
        let strides: Vec<i64> = (0..shape.len()).map(|axis| shape[axis + 1..].iter().product()).collect();
        op::tensor("FloatStorage", &key.to_string(), shape.iter().product(), 0, &shape, &strides)
    };
    let items: Vec<(&str, Vec<u8>)> = plans.iter().enumerate().map(|(i, plan)| (plan.name.as_str(), stored(plan, i))).collect();
    let names: Vec<String> = (0..plans.len()).map(|i| i.to_string()).collect();
    let storages: Vec<(&str, usize)> =
        names.iter().zip(&plans).map(|(name, plan)| (name.as_str(), plan.bytes().unwrap())).collect();
    std::fs::write(folder.path().join("pytorch_model.bin"), pth(&op::dict(&items), &storages)).unwrap();
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    assert_eq!(checkpoint.format(), Format::Pytorch);
    checkpoint.check().unwrap();
}

#[test]
fn templates_and_generation_settings_beside_the_model_are_found() {
    let (folder, plans) = folder(false);
    write(folder.path(), &plans, u64::MAX);
    let put = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    let template = || Checkpoint::open(folder.path()).map(|checkpoint| checkpoint.chat_template_source().map(str::to_owned));
    assert_eq!(template().unwrap(), None);
    put("tokenizer_config.json", r#"{"added_tokens_decoder": {"0": {}}, "chat_template": "one"}"#);
    assert_eq!(template().unwrap().as_deref(), Some("one"));
    let several = r#"{"chat_template": [{"name": "tool_use", "template": "x"}, {"name": "default", "template": "two"}]}"#;
    put("tokenizer_config.json", several);
    assert_eq!(template().unwrap().as_deref(), Some("two"));
    put("tokenizer_config.json", r#"{"chat_template": 3}"#);
    says(template(), &["tokenizer_config.json", "neither a text nor a list"]);
    put("chat_template.json", r#"{"chat_template": "three"}"#);
    assert_eq!(template().unwrap().as_deref(), Some("three"));
    put("chat_template.jinja", "four");
    assert_eq!(template().unwrap().as_deref(), Some("four"));

    put("generation_config.json", r#"{"eos_token_id": [3, 4], "temperature": 0.6, "top_p": 0.9, "transformers_version": "4.4"}"#);
    let generation = Checkpoint::open(folder.path()).unwrap().generation().clone();
    assert_eq!((generation.eos.as_slice(), generation.temperature, generation.top_p), ([3, 4].as_slice(), Some(0.6), Some(0.9)));
    put("generation_config.json", r#"{"temperature": "hot"}"#);
    says(Checkpoint::open(folder.path()), &["generation_config.json: temperature is \"hot\""]);
}

#[test]
fn a_gguf_that_is_written_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let config = Config::from_hf_json("config.json", config_json(true).to_string().as_bytes()).unwrap();
    let metadata = config.to_gguf_metadata("tiny", DType::F32).unwrap();
    let plan = |(name, shape): (String, Vec<usize>)| {
        use puna_llama::names::{Convention, translate};
        TensorPlan { name: translate(&name, Convention::HuggingFace, Convention::Gguf).unwrap(), dtype: DType::F32, shape }
    };
    let plans: Vec<TensorPlan> = config.tensors().into_iter().map(plan).collect();
    let path = folder.path().join("m.gguf");
    write::gguf(&path, &metadata, &plans, &mut |plan| Ok(contents(plan))).unwrap();
    let checkpoint = Checkpoint::open(&path).unwrap();
    checkpoint.check().unwrap();
    let expected = Config { rope_pairs: checkpoint.config().rope_pairs, eos: Vec::new(), dtype: None, ..config };
    assert_eq!(*checkpoint.config(), expected);
    for (info, plan) in checkpoint.tensors().zip(&plans) {
        assert_eq!((info.stored_name.as_str(), info.bytes().unwrap().as_ref()), (plan.name.as_str(), contents(plan).as_slice()));
    }
    let short = write::gguf(&path, &metadata, &plans, &mut |_| Ok(vec![0; 3]));
    says(short, &["token_embd.weight: 3 bytes produced", "takes 160"]);
    assert!(Checkpoint::open(&path).is_ok(), "a failed write leaves the file that was there");
}
