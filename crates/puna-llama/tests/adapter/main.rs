//! Adapters: PEFT's own, written again, merged and taken off, formed anew; and those that do not fit.

mod formed;
mod refused;

use std::path::{Path, PathBuf};

use puna_llama::adapter::{Adapter, AdapterConfig, Targets};
use puna_llama::convert::{self, Existing, FileType, GgufOptions};
use puna_llama::weights::mmap::MappedFile;
use puna_llama::weights::safetensors;
use puna_llama::{Checkpoint, Engine, Llama, Model, Module, Options};
use puna_tensor::{DType, Device, Tensor};

/// Those that PEFT has written: plain; rank-stabilised, by patterns; weight-decomposed; of one layer; of the head.
const NAMES: [&str; 5] = ["plain", "rslora", "dora", "layers", "head"];
/// What f32 may be off by, relative to the reference in f64.
const F32: f64 = 1e-5;

fn golden(path: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../puna-conformance/goldens")).join(path)
}

fn adapter(name: &str) -> Adapter {
    Adapter::open(golden(&format!("models/adapters/{name}"))).unwrap()
}

fn cpu() -> Device {
    puna_cpu::device(puna_cpu::Options { threads: std::num::NonZeroUsize::new(2) }).unwrap()
}

fn base() -> Engine {
    let checkpoint = Checkpoint::open(golden("models/adapters/base")).unwrap();
    Model::loader().dtype(DType::F32).engine(&checkpoint, &cpu()).unwrap()
}

struct Expected {
    ids: Vec<u32>,
    logits: Vec<f32>,
    greedy: Vec<u32>,
}

fn expected(name: &str) -> Vec<Expected> {
    let file = MappedFile::open(&golden(&format!("models/adapters/{name}/expected.safetensors"))).unwrap();
    let tensors = safetensors::parse(&file).unwrap();
    let bytes = |name: String| tensors.iter().find(|tensor| tensor.name == name).unwrap().bytes().unwrap().into_owned();
    let ids = |name| bytemuck::pod_collect_to_vec::<u8, i64>(&bytes(name)).into_iter().map(|id| id as u32).collect();
    let prompt = |i: usize| Expected {
        ids: ids(format!("prompt.{i}.ids")),
        logits: bytemuck::pod_collect_to_vec(&bytes(format!("prompt.{i}.logits"))),
        greedy: ids(format!("prompt.{i}.greedy")),
    };
    vec![prompt(0), prompt(1)]
}

fn relative(got: &[f32], right: &[f32]) -> f64 {
    assert_eq!(got.len(), right.len());
    let square = |x: f64| x * x;
    let off: f64 = got.iter().zip(right).map(|(a, b)| square(f64::from(*a) - f64::from(*b))).sum();
    (off / right.iter().map(|b| square((*b).into())).sum::<f64>()).sqrt()
}

#[track_caller]
fn check(what: &str, llama: &Llama, expected: &[Expected], bound: f64) {
    for (i, Expected { ids, logits, .. }) in expected.iter().enumerate() {
        let off = relative(&llama.sequence_logits(ids).unwrap().to_vec().unwrap(), logits);
        assert!(off <= bound, "{what}, prompt {i}: off by {off:.2e}");
    }
}

fn greedy(engine: &Engine, ids: &[u32], count: usize) -> Vec<u32> {
    let mut batch = engine.batch();
    batch.add(ids, Options { max_tokens: Some(count), ignore_end: true, ..Options::default() }).unwrap();
    while !batch.is_done() {
        batch.step().unwrap();
    }
    batch.tokens(0)[ids.len()..].to_vec()
}

/// Every weight's bytes, by its path.
fn bytes(llama: &Llama) -> Vec<(String, Vec<u8>)> {
    let mut all = Vec::new();
    llama.visit("", &mut |path, tensor| all.push((path.to_owned(), tensor.to_bytes().unwrap())));
    all
}

#[test]
fn adapters_of_peft_give_its_logits_applied_and_merged() {
    for name in NAMES {
        let expected = expected(name);
        let mut engine = base();
        let plain = bytes(&engine.llama);
        engine.llama.load_adapter(&adapter(name)).unwrap();
        let adapted = bytes(&engine.llama);
        check(&format!("{name} applied"), &engine.llama, &expected, F32);
        for prompt in &expected {
            assert_eq!(greedy(&engine, &prompt.ids, prompt.greedy.len()), prompt.greedy, "{name}");
        }
        let former = engine.llama.merge_adapter(None).unwrap();
        assert!(!engine.llama.is_adapted() && bytes(&engine.llama) != plain);
        check(&format!("{name} merged"), &engine.llama, &expected, F32);
        for prompt in &expected {
            assert_eq!(greedy(&engine, &prompt.ids, prompt.greedy.len()), prompt.greedy, "{name} merged");
        }
        engine.llama.unmerge_adapter(former).unwrap();
        assert!(bytes(&engine.llama) == adapted, "{name}: unmerging brings every bit back");
        assert!(engine.llama.remove_adapter() && !engine.llama.remove_adapter());
        assert!(bytes(&engine.llama) == plain, "{name}: the base is untouched");
        let off = relative(&engine.llama.sequence_logits(&expected[0].ids).unwrap().to_vec().unwrap(), &expected[0].logits);
        assert!(off > 0.05, "{name} changes what the base says: {off}");
    }
}

/// Of the base as it is stored, in bf16, which is merged in bf16; and of f64.
#[test]
fn every_dtype_of_a_base_takes_adapters() {
    let checkpoint = Checkpoint::open(golden("models/adapters/base")).unwrap();
    for (name, dtype) in NAMES.into_iter().flat_map(|name| [None, Some(DType::F16), Some(DType::F64)].map(|d| (name, d))) {
        let loader = Model::loader().adapter(golden(&format!("models/adapters/{name}")));
        let loader = dtype.map_or(Model::loader().adapter(golden(&format!("models/adapters/{name}"))), |d| loader.dtype(d));
        let mut llama = loader.engine(&checkpoint, &cpu()).unwrap().llama;
        // Between ops it is f32 where the weights stay as they are.
        let bound = if dtype == Some(DType::F16) { 2e-2 } else { F32 };
        let expected = expected(name);
        for Expected { ids, logits, .. } in &expected {
            let got = llama.sequence_logits(ids).unwrap().cast(DType::F32).unwrap().to_vec().unwrap();
            let off = relative(&got, logits);
            assert!(off <= bound, "{name} {dtype:?}: off by {off:.2e}");
        }
        llama.merge_adapter(None).unwrap();
        for (path, linear) in llama.linears() {
            assert_eq!(linear.weight.dtype(), dtype.unwrap_or(DType::BF16), "{name} {path} keeps its dtype");
            assert!(linear.weight.is_packed(), "{name} {path} stays packed");
        }
        let bound = if dtype == Some(DType::F64) { F32 } else { 2e-2 };
        for Expected { ids, logits, .. } in &expected {
            let got = llama.sequence_logits(ids).unwrap().cast(DType::F32).unwrap().to_vec().unwrap();
            let off = relative(&got, logits);
            assert!(off <= bound, "{name} {dtype:?} merged: off by {off:.2e}");
        }
    }
}

fn tensors_of(folder: &Path) -> Vec<(String, Vec<usize>, Vec<u8>)> {
    let file = MappedFile::open(&folder.join("adapter_model.safetensors")).unwrap();
    let tensors = safetensors::parse(&file).unwrap();
    let mut tensors: Vec<_> =
        tensors.into_iter().map(|t| (t.name.clone(), t.shape.clone(), t.bytes().unwrap().into_owned())).collect();
    tensors.retain(|(name, ..)| !name.ends_with(".base_layer.weight"));
    tensors.sort();
    tensors
}

#[test]
fn what_peft_wrote_is_written_again_to_the_bit() {
    for name in NAMES {
        let (mut llama, adapter) = (base().llama, adapter(name));
        llama.load_adapter(&adapter).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let saved = folder.path().join("deep/adapter");
        llama.save_adapter(&saved, adapter.config()).unwrap();
        assert!(tensors_of(&saved) == tensors_of(adapter.path()), "{name}: names, shapes, bytes");
        let again = Adapter::open(&saved).unwrap();
        assert_eq!(again.config(), adapter.config(), "{name}");
        let mut other = base().llama;
        other.load_adapter(&again).unwrap();
        assert!(bytes(&other) == bytes(&llama), "{name}");
    }
}

/// GGUF and Meta's files pair rotary dimensions otherwise, so their rows of q and k stand in another order, and with them an
/// adapter's.
#[test]
fn adapters_fit_bases_in_another_order_of_rows() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoint = Checkpoint::open(golden("models/adapters/base")).unwrap();
    let path = folder.path().join("base.gguf");
    let options = GgufOptions { file_type: FileType::AsStored, name: None, existing: Existing::Refuse, progress: &mut |_| {} };
    convert::to_gguf(&checkpoint, &path, options).unwrap();
    let gguf = Checkpoint::open(&path).unwrap();
    assert_ne!(gguf.config().rope_pairs, checkpoint.config().rope_pairs);
    for name in NAMES {
        let adapter = adapter(name);
        let mut llama = Model::loader().dtype(DType::F32).engine(&gguf, &cpu()).unwrap().llama;
        llama.load_adapter(&adapter).unwrap();
        check(&format!("{name} on GGUF"), &llama, &expected(name), F32);
        let saved = folder.path().join(name);
        llama.save_adapter(&saved, adapter.config()).unwrap();
        assert!(tensors_of(&saved) == tensors_of(adapter.path()), "{name}: rows stand in PEFT's order again");
        llama.merge_adapter(None).unwrap();
        check(&format!("{name} merged into GGUF"), &llama, &expected(name), F32);
    }
}

/// A page of the cache is known by the weights that computed it.
#[test]
fn what_is_cached_of_one_adapter_is_not_read_by_another() {
    let prompt: Vec<u32> = (0..90).map(|i| (i * 31 + 7) % 48).collect();
    let fresh = |name: Option<&str>| {
        let mut engine = base();
        name.into_iter().for_each(|name| engine.llama.load_adapter(&adapter(name)).unwrap());
        greedy(&engine, &prompt, 8)
    };
    let mut engine = base();
    let held = |engine: &Engine| {
        let mut batch = engine.batch();
        let sequence = batch.add(&prompt, Options::default()).unwrap();
        prompt.len() - batch.pending(sequence)
    };
    assert_eq!(held(&engine), 0);
    assert_eq!(greedy(&engine, &prompt, 8), fresh(None));
    assert_eq!(held(&engine), 64, "a full page is known");
    for name in NAMES {
        engine.llama.load_adapter(&adapter(name)).unwrap();
        assert_eq!(held(&engine), 0, "{name}");
        let adapted = greedy(&engine, &prompt, 8);
        assert_eq!(adapted, fresh(Some(name)), "{name}");
        let former = engine.llama.merge_adapter(None).unwrap();
        assert_eq!(held(&engine), 0, "{name} merged");
        engine.llama.unmerge_adapter(former).unwrap();
        assert_eq!(held(&engine), 64, "{name}: the same weights again");
        engine.llama.remove_adapter();
    }
    assert_eq!(held(&engine), 64, "the base's page is still there");
    // In place, as an optimiser changes weights.
    let weight = &engine.llama.model.norm.weight;
    weight.assign(&Tensor::full(2.0, *weight.shape(), weight.dtype(), weight.device()).unwrap()).unwrap();
    assert_eq!(held(&engine), 0, "a weight was changed in place");
}

#[test]
fn a_sequence_that_was_cached_with_other_weights_is_refused() {
    let mut engine = base();
    let ids = [3, 4, 5, 6];
    let mut batch = engine.batch();
    let sequence = batch.add(&ids[..3], Options { max_tokens: Some(1), ..Options::default() }).unwrap();
    batch.step().unwrap();
    let cached = batch.take_cached(sequence);
    drop(batch);
    engine.llama.load_adapter(&adapter("plain")).unwrap();
    let error = engine.batch().add_cached(cached, &ids, Options::default()).unwrap_err();
    assert!(error.to_string().contains("another adapter"), "{error}");
}

#[test]
fn paths_of_an_adapter_are_pefts_keys() {
    let mut llama = base().llama;
    llama.load_adapter(&adapter("dora")).unwrap();
    let mut paths = Vec::new();
    llama.visit("", &mut |path, _| paths.push(path.to_owned()));
    let mut again = Vec::new();
    llama.visit_mut("", &mut |path, _| again.push(path.to_owned()));
    assert_eq!(paths, again);
    for part in ["lora_A.weight", "lora_B.weight", "lora_magnitude_vector.weight"] {
        assert!(paths.contains(&format!("model.layers.1.mlp.down_proj.{part}")), "{part}");
    }
    let unwrapped = |name: &str| name.strip_prefix("base_model.model.").unwrap().replace("_vector", "_vector.weight");
    let theirs: Vec<String> = tensors_of(adapter("dora").path()).iter().map(|(name, ..)| unwrapped(name)).collect();
    let mut ours: Vec<String> = paths.into_iter().filter(|path| path.contains("lora_")).collect();
    ours.sort();
    assert_eq!(ours, theirs);
}

#[test]
fn the_config_says_what_the_files_say() {
    let config = |name: &str| adapter(name).config().clone();
    let plain = config("plain");
    assert_eq!((plain.rank, plain.alpha, plain.dropout, plain.dora, plain.rslora), (4, 8.0, 0.0, false, false));
    let Targets::Names(mut names) = plain.targets else { panic!("{:?}", plain.targets) };
    names.sort();
    assert_eq!(names, ["down_proj", "q_proj", "v_proj"]);
    let rslora = config("rslora");
    assert!(rslora.rslora && matches!(&rslora.targets, Targets::Pattern(pattern) if pattern.contains("(?!down)")));
    assert_eq!(rslora.rank_pattern, [("k_proj".to_owned(), 2), ("layers.1.mlp.up_proj".to_owned(), 3)]);
    assert_eq!(rslora.alpha_pattern, [("^model.layers.0.self_attn.q_proj".to_owned(), 5.0)]);
    assert!(config("dora").dora);
    let layers = config("layers");
    assert_eq!(layers.layers, Some(vec![1]));
    assert_eq!(layers.exclude, Some(Targets::Names(vec!["lm_head".into()])));
    assert_eq!(AdapterConfig::default().rank, 16);
}
