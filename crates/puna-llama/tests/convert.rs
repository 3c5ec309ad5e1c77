//! Checkpoints of the reference, converted and opened again: what they compute stays what it was.

use std::path::{Path, PathBuf};

use puna_llama::convert::{Existing, FileType, GgufOptions, HuggingFaceOptions, Mix, Written, to_gguf, to_hugging_face};
use puna_llama::weights::mmap::MappedFile;
use puna_llama::weights::{Format, TensorInfo, TokenizerSource, reorder_pairs, safetensors};
use puna_llama::{Checkpoint, Config, Model, Result};
use puna_tensor::op::RopePairs;
use puna_tensor::{BlockType, DType};
use tempfile::TempDir;

const ALL_IN_ONE: u64 = u64::MAX;

fn golden(path: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../puna-conformance/goldens")).join(path)
}

fn open(path: &Path) -> Checkpoint {
    let checkpoint = Checkpoint::open(path).unwrap();
    checkpoint.check().unwrap();
    checkpoint
}

fn gguf(checkpoint: &Checkpoint, path: &Path, file_type: FileType) -> Result<Written> {
    let options = GgufOptions { file_type, name: None, existing: Existing::Refuse, progress: &mut |_| {} };
    to_gguf(checkpoint, path, options)
}

fn folder(checkpoint: &Checkpoint, path: &Path, dtype: Option<DType>) -> Result<Written> {
    let options = HuggingFaceOptions { dtype, shard_bytes: ALL_IN_ONE, existing: Existing::Refuse, progress: &mut |_| {} };
    to_hugging_face(checkpoint, path, options)
}

fn logits(checkpoint: &Checkpoint, ids: &[u32], dtype: Option<DType>) -> Vec<f32> {
    let device = puna_cpu::device(puna_cpu::Options { threads: std::num::NonZeroUsize::new(1) }).unwrap();
    let loader = Model::loader().cache_tokens(1024);
    let loader = match dtype {
        Some(dtype) => loader.dtype(dtype),
        None => loader,
    };
    let engine = loader.engine(checkpoint, &device).unwrap();
    engine.llama.sequence_logits(ids).unwrap().to_vec().unwrap()
}

/// Relative error in the Frobenius norm.
fn distance(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let off: f64 = a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2)).sum();
    (off / b.iter().map(|b| f64::from(*b).powi(2)).sum::<f64>()).sqrt()
}

fn ids(vocab_size: usize) -> Vec<u32> {
    (0..40u32).map(|i| (i.wrapping_mul(2654435761) >> 9) % vocab_size as u32).collect()
}

fn decoded(info: &TensorInfo) -> Vec<f32> {
    let bytes = info.bytes().unwrap();
    match info.dtype().unwrap() {
        DType::F32 => bytemuck::pod_collect_to_vec(&bytes),
        DType::Block(block) => {
            let mut values = vec![0.0; info.elements()];
            puna_quant::decode(block, &bytes, &mut values).unwrap();
            values
        }
        other => panic!("{other} is not decoded here"),
    }
}

fn same_tensors(a: &Checkpoint, b: &Checkpoint) {
    for (name, _) in a.config().tensors() {
        let (a, b) = (a.tensor(&name).unwrap(), b.tensor(&name).unwrap());
        assert_eq!(a.dtype, b.dtype, "{name}");
        assert!(a.bytes().unwrap() == b.bytes().unwrap(), "{name}");
    }
}

#[test]
fn there_and_back_changes_no_bit() {
    let scratch = TempDir::new().unwrap();
    for (i, model) in ["bias", "llama3.2-tied", "sharded-bf16", "rope-yarn"].into_iter().enumerate() {
        let path = |end: &str| scratch.path().join(format!("{i}{end}"));
        let original = open(&golden(&format!("models/{model}")));
        gguf(&original, &path(".gguf"), FileType::AsStored).unwrap();
        let between = open(&path(".gguf"));
        let dtype = original.config().dtype;
        folder(&between, &path(""), dtype).unwrap();
        let back = open(&path(""));
        same_tensors(&original, &back);
        assert_eq!(original.config(), back.config(), "{model}");
        let ids = ids(original.config().vocab_size);
        assert_eq!(logits(&original, &ids, None), logits(&back, &ids, None), "{model}");
        // Another order of rows within heads is another order of sums: within the rounding of f32.
        let error = distance(&logits(&between, &ids, Some(DType::F32)), &logits(&original, &ids, Some(DType::F32)));
        assert!(error < 2e-6, "{model}: {error:e}");
    }
}

#[test]
fn half_precision_survives_a_gguf_of_half_precision() {
    let scratch = TempDir::new().unwrap();
    let path = |name: &str| scratch.path().join(name);
    folder(&open(&golden("models/bias")), &path("half"), Some(DType::F16)).unwrap();
    let half = open(&path("half"));
    assert_eq!(half.config().dtype, Some(DType::F16));
    let written = gguf(&half, &path("half.gguf"), FileType::Pure(DType::F16)).unwrap();
    assert_eq!(written.dtypes.iter().map(|(dtype, ..)| *dtype).collect::<Vec<_>>(), [DType::F16, DType::F32]);
    let stored = open(&path("half.gguf"));
    assert_eq!(stored.gguf().unwrap().integer("general.file_type"), Some(1));
    assert_eq!(stored.tensor("model.layers.0.self_attn.q_proj.bias").unwrap().dtype().unwrap(), DType::F32);
    folder(&stored, &path("back"), Some(DType::F16)).unwrap();
    same_tensors(&half, &open(&path("back")));
}

#[test]
fn rows_of_q_and_k_move_and_no_others() {
    let scratch = TempDir::new().unwrap();
    let original = open(&golden("models/meta-pth-mp2"));
    folder(&original, &scratch.path().join("folder"), None).unwrap();
    gguf(&original, &scratch.path().join("file.gguf"), FileType::AsStored).unwrap();
    let (halves, interleaved) = (open(&scratch.path().join("folder")), open(&scratch.path().join("file.gguf")));
    assert_eq!((halves.format(), interleaved.format()), (Format::SafeTensors, Format::Gguf));
    let Config { heads, kv_heads, head_dim, .. } = *original.config();
    for (name, shape) in original.config().tensors() {
        let bytes = |checkpoint: &Checkpoint| checkpoint.tensor(&name).unwrap().bytes().unwrap().into_owned();
        let stored = bytes(&original);
        if shape.len() == 2 {
            assert!(bytes(&interleaved) == stored, "{name}");
        }
        let reorder = |heads| reorder_pairs(&stored, heads, head_dim, RopePairs::Interleaved, RopePairs::Halves);
        let expected = if name.contains("q_proj") {
            reorder(heads)
        } else if name.contains("k_proj") {
            reorder(kv_heads)
        } else {
            stored.clone()
        };
        assert!(bytes(&halves) == expected, "{name}");
    }
    let ids = ids(original.config().vocab_size);
    let error = distance(&logits(&halves, &ids, Some(DType::F32)), &logits(&original, &ids, Some(DType::F32)));
    assert!(error < 2e-6, "{error:e}");
}

#[test]
fn blocks_decode_to_the_weights_that_the_reference_multiplies() {
    let scratch = TempDir::new().unwrap();
    for model in ["basic", "kquants", "tied"] {
        let path = scratch.path().join(model);
        folder(&open(&golden(&format!("gguf/{model}/model.gguf"))), &path, Some(DType::F32)).unwrap();
        let converted = open(&path);
        let file = MappedFile::open(&golden(&format!("gguf/{model}/expected.safetensors"))).unwrap();
        let expected = safetensors::parse(&file).unwrap();
        let find = |name: &str| expected.iter().find(|info| info.name == name);
        let ids: Vec<i64> = bytemuck::pod_collect_to_vec(&find("prompt.0.ids").unwrap().bytes().unwrap());
        let ids: Vec<u32> = ids.into_iter().map(|id| id as u32).collect();
        // The reference multiplies in f64.
        let error = distance(&logits(&converted, &ids, None), &decoded(find("prompt.0.logits").unwrap()));
        assert!(error < 2e-6, "{model}: {error:e}");
    }
}

#[test]
fn a_mix_opens_and_its_weights_are_near() {
    let scratch = TempDir::new().unwrap();
    let path = |name: &str| scratch.path().join(name);
    folder(&open(&golden("gguf/kquants/model.gguf")), &path("floats"), Some(DType::F32)).unwrap();
    let floats = open(&path("floats"));
    for (mix, number) in [(Mix::Q4KM, 15), (Mix::Q5KM, 17)] {
        let path = path(&format!("{}.gguf", mix.name()));
        let written = gguf(&floats, &path, FileType::Mix(mix)).unwrap();
        let mixed = open(&path);
        assert_eq!(mixed.gguf().unwrap().integer("general.file_type"), Some(number));
        assert_eq!(mixed.gguf().unwrap().integer("general.quantization_version"), Some(2));
        assert!(written.dtypes.iter().any(|(dtype, ..)| *dtype == DType::Block(BlockType::Q6K)));
        for (name, shape) in mixed.config().tensors() {
            let (stored, source) = (mixed.tensor(&name).unwrap(), floats.tensor(&name).unwrap());
            let (dtype, _) = FileType::Mix(mix).dtype(floats.config(), &name, &shape, DType::F32);
            assert_eq!(stored.dtype().unwrap(), dtype, "{name}");
            let heads = [("q_proj", 8), ("k_proj", 4)].into_iter().find(|(part, _)| name.contains(part));
            let source = match heads {
                Some((_, heads)) => {
                    let bytes = source.bytes().unwrap();
                    let (from, to) = (RopePairs::Halves, RopePairs::Interleaved);
                    bytemuck::pod_collect_to_vec(&reorder_pairs(&bytes, heads, floats.config().head_dim, from, to))
                }
                None => decoded(source),
            };
            // 16, 32 and 64 steps over a range of four standard deviations or so: a step is off by 1/sqrt(12) of itself.
            let bound = match dtype {
                DType::Block(BlockType::Q4K) => 0.08,
                DType::Block(BlockType::Q5K) => 0.04,
                DType::Block(BlockType::Q6K) => 0.02,
                _ => 0.0,
            };
            let error = distance(&decoded(stored), &source);
            assert!(error <= bound, "{name} {dtype}: {error}");
        }
    }
}

#[test]
fn rows_of_another_length_fall_back_and_say_so() {
    let scratch = TempDir::new().unwrap();
    let path = scratch.path().join("model.gguf");
    let written = gguf(&open(&golden("models/sharded-bf16")), &path, FileType::Pure(DType::Block(BlockType::Q4K))).unwrap();
    assert!(written.notes.iter().any(|note| note.contains("rows of 224") && note.contains("Q5_0 in place of Q4_K")));
    assert_eq!(open(&path).tensor("lm_head.weight").unwrap().dtype().unwrap(), DType::Block(BlockType::Q5_0));
}

#[test]
fn equal_blocks_are_copied_and_others_told_of() {
    let scratch = TempDir::new().unwrap();
    let original = open(&golden("gguf/kquants/model.gguf"));
    let written = gguf(&original, &scratch.path().join("same.gguf"), FileType::AsStored).unwrap();
    same_tensors(&original, &open(&scratch.path().join("same.gguf")));
    assert!(!written.notes.iter().any(|note| note.contains("blocks")), "{:?}", written.notes);
    let written = gguf(&original, &scratch.path().join("other.gguf"), FileType::Pure(DType::Block(BlockType::Q8_0))).unwrap();
    assert!(written.notes.iter().any(|note| note.contains("other blocks")), "{:?}", written.notes);
}

#[test]
fn a_tokenizer_goes_there_and_back() {
    let scratch = TempDir::new().unwrap();
    for model in ["basic", "kquants"] {
        let path = |end: &str| scratch.path().join(format!("{model}{end}"));
        let original = open(&golden(&format!("gguf/{model}/model.gguf")));
        folder(&original, &path(""), None).unwrap();
        let between = open(&path(""));
        assert_eq!(between.tokenizer_source(), &TokenizerSource::File(path("").join("tokenizer.json")));
        gguf(&between, &path(".gguf"), FileType::AsStored).unwrap();
        let back = open(&path(".gguf"));
        let tokenizer = |checkpoint: &Checkpoint| checkpoint.gguf().unwrap().tokenizer().unwrap().unwrap();
        let (before, after) = (tokenizer(&original), tokenizer(&back));
        assert_eq!((before.tokens, before.merges), (after.tokens, after.merges));
        assert_eq!((before.model, before.bos, before.eos), (after.model, after.bos, after.eos));
        assert_eq!(before.token_types, after.token_types);
        assert_eq!(original.end_tokens(), back.end_tokens());
        let text = "Hello, world!  1234 \u{e9}\n\tand more";
        let encode = |checkpoint: &Checkpoint| {
            let (special, bos) = (puna_tokenizer::Special::Text, puna_tokenizer::Bos::Add);
            checkpoint.read_tokenizer().unwrap().encode(text, special, bos).unwrap()
        };
        assert_eq!(encode(&original), encode(&between), "{model}");
        assert_eq!(encode(&original), encode(&back), "{model}");
    }
}

#[test]
fn template_and_end_tokens_go_along() {
    let scratch = TempDir::new().unwrap();
    let path = |name: &str| scratch.path().join(name);
    folder(&open(&golden("gguf/kquants/model.gguf")), &path("chat"), None).unwrap();
    let template = "{% for m in messages %}{{ m.content }}\u{e9}\n{% endfor %}";
    std::fs::write(path("chat/chat_template.jinja"), template).unwrap();
    std::fs::write(path("chat/generation_config.json"), r#"{"eos_token_id": [1, 7], "temperature": 0.5}"#).unwrap();
    let chat = open(&path("chat"));
    folder(&chat, &path("copy"), None).unwrap();
    let copy = open(&path("copy"));
    assert_eq!(copy.chat_template_source(), Some(template));
    assert_eq!(copy.generation(), chat.generation());
    let written = gguf(&chat, &path("chat.gguf"), FileType::AsStored).unwrap();
    let file = open(&path("chat.gguf"));
    assert_eq!(file.chat_template_source(), Some(template));
    assert_eq!(file.end_tokens(), [1]);
    // Of several end tokens that are neither of a turn nor of a message the format holds one.
    assert!(written.notes.iter().any(|note| note.contains("token 7")), "{:?}", written.notes);
    folder(&file, &path("back"), None).unwrap();
    assert_eq!(open(&path("back")).chat_template_source(), Some(template));
}

#[test]
fn what_is_there_stays_unless_it_may_be_replaced() {
    let scratch = TempDir::new().unwrap();
    let path = |name: &str| scratch.path().join(name);
    let original = open(&golden("models/bias"));
    let write = |shard_bytes: u64, existing: Existing, to: &Path, checkpoint: &Checkpoint| {
        to_hugging_face(checkpoint, to, HuggingFaceOptions { dtype: None, shard_bytes, existing, progress: &mut |_| {} })
    };
    let sharded = write(200_000, Existing::Refuse, &path("folder"), &original).unwrap();
    assert!(sharded.files.len() > 4, "{:?}", sharded.files);
    same_tensors(&original, &open(&path("folder")));
    assert!(write(ALL_IN_ONE, Existing::Refuse, &path("folder"), &original).is_err());
    std::fs::write(path("folder/notes.txt"), "mine").unwrap();
    write(ALL_IN_ONE, Existing::Replace, &path("folder"), &original).unwrap();
    let names = std::fs::read_dir(path("folder")).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.collect();
    names.sort();
    assert_eq!(names, ["config.json", "generation_config.json", "model.safetensors", "notes.txt"]);
    assert!(write(ALL_IN_ONE, Existing::Replace, &path("folder"), &open(&path("folder"))).is_err());

    gguf(&original, &path("file.gguf"), FileType::AsStored).unwrap();
    assert!(gguf(&original, &path("file.gguf"), FileType::AsStored).is_err());
    let replace = |checkpoint: &Checkpoint| {
        let options =
            GgufOptions { file_type: FileType::AsStored, name: Some("x"), existing: Existing::Replace, progress: &mut |_| {} };
        to_gguf(checkpoint, &path("file.gguf"), options)
    };
    replace(&original).unwrap();
    assert_eq!(open(&path("file.gguf")).gguf().unwrap().string("general.name"), Some("x"));
    assert!(replace(&open(&path("file.gguf"))).is_err());
}

#[test]
fn what_the_target_cannot_say_leaves_nothing_behind() {
    let scratch = TempDir::new().unwrap();
    let path = |name: &str| scratch.path().join(name);
    let error = gguf(&open(&golden("models/rope-dynamic")), &path("file.gguf"), FileType::AsStored).unwrap_err();
    assert!(error.to_string().contains("dynamic"), "{error}");
    let error = folder(&open(&golden("models/bias")), &path("folder"), Some(DType::Block(BlockType::Q8_0))).unwrap_err();
    assert!(error.to_string().contains("f32, f16 and bf16"), "{error}");
    assert_eq!(std::fs::read_dir(scratch.path()).unwrap().count(), 0);
}

#[test]
fn progress_counts_every_tensor() {
    let scratch = TempDir::new().unwrap();
    let original = open(&golden("models/llama3.2-tied"));
    let mut seen = Vec::new();
    let progress = &mut |progress: puna_llama::Progress<'_>| seen.push((progress.done, progress.total, progress.name.to_owned()));
    let options = GgufOptions { file_type: FileType::AsStored, name: None, existing: Existing::Refuse, progress };
    let written = to_gguf(&original, &scratch.path().join("file.gguf"), options).unwrap();
    assert_eq!(seen.len(), written.tensors);
    assert!(seen.iter().enumerate().all(|(i, (done, total, _))| *done == i + 1 && *total == written.tensors));
    assert_eq!(seen.last().unwrap().2, "rope_freqs.weight");
}

/// A model that was loaded, saved and opened again holds what it held, whatever order its rows of q and k were in.
#[test]
fn a_model_in_memory_is_saved_as_what_it_is() {
    use puna_llama::convert::{SaveOptions, Vocabulary};
    let device = puna_cpu::device(puna_cpu::Options { threads: std::num::NonZeroUsize::new(1) }).unwrap();
    for (path, dtype) in [("models/llama3.2-tied", None), ("models/bias", None), ("gguf/kquants/model.gguf", Some(DType::F32))] {
        let checkpoint = open(&golden(path));
        // Packed or not, and decoded to f32: what multiplies is not what is written.
        let loader = Model::loader().cache_tokens(64);
        let engine = loader.engine(&checkpoint, &device).unwrap();
        let target = TempDir::new().unwrap();
        let options = SaveOptions { dtype, vocabulary: Vocabulary::Of(&checkpoint), ..SaveOptions::default() };
        engine.llama.save(target.path(), &options).unwrap();
        // Over what is there.
        let written = engine.llama.save(target.path(), &options).unwrap();
        assert_eq!(written.tensors, checkpoint.config().tensors().len());
        let again = open(target.path());
        assert_eq!(again.format(), Format::SafeTensors);
        assert_eq!(again.config().rope_pairs, RopePairs::Halves);
        let ids = ids(checkpoint.config().vocab_size);
        let (before, after) = (logits(&checkpoint, &ids, Some(DType::F32)), logits(&again, &ids, Some(DType::F32)));
        assert!(distance(&after, &before) < 1e-6, "{path}: {}", distance(&after, &before));
    }
}
