use puna_llama::weights::gguf::{Gguf, Value};
use puna_llama::{Config, Result};

use crate::builders::{array_entry, described, entry, file, gguf, good_gguf, llama_metadata, text, text_entry, u32_entry};
use crate::says;

fn parse(bytes: &[u8]) -> Result<Gguf> {
    Gguf::parse(&file("m.gguf", bytes))
}

#[track_caller]
fn refused_metadata(entry: Vec<u8>, parts: &[&str]) {
    says(parse(&gguf(&[entry], &[], 0)), parts);
}

#[track_caller]
fn refused_tensors(tensors: &[Vec<u8>], data: usize, parts: &[&str]) {
    says(parse(&gguf(&[], tensors, data)), parts);
}

#[test]
fn the_good_file_is_read() {
    let gguf = parse(&good_gguf()).unwrap();
    assert_eq!((gguf.version(), gguf.tensors().len()), (3, 12));
    assert_eq!(gguf.tensors()[2].shape, [8, 8]);
    assert_eq!(gguf.integer("llama.block_count"), Some(1));
    let tokens: Vec<_> = gguf.array("tokenizer.ggml.tokens").unwrap().strings().collect();
    assert_eq!(tokens[4], b"<0x0A>");
    assert_eq!(gguf.array("tokenizer.ggml.tokens").unwrap().numbers().count(), 0);
    assert_eq!(gguf.array("tokenizer.ggml.scores").unwrap().strings().count(), 0);
}

#[test]
fn a_file_cut_at_any_byte_is_an_error() {
    let good = good_gguf();
    // What follows the last tensor is padding.
    let end = parse(&good).unwrap().tensors()[11].parts[0].bytes.range().end;
    for length in 0..end {
        assert!(parse(&good[..length]).is_err(), "cut at {length}");
    }
    assert!(parse(&good[..end]).is_ok());
}

#[test]
fn other_magic_versions_and_byte_orders_are_named() {
    let with = |at: usize, bytes: &[u8]| {
        let mut file = good_gguf();
        file[at..at + bytes.len()].copy_from_slice(bytes);
        parse(&file)
    };
    says(with(0, b"GGML"), &["m.gguf", "byte 0", "not GGUF"]);
    says(with(4, &1u32.to_le_bytes()), &["byte 4", "version", "2 and 3 are read"]);
    says(with(4, &4u32.to_le_bytes()), &["version: 4"]);
    says(with(4, &3u32.to_be_bytes()), &["big-endian"]);
    assert_eq!(with(4, &2u32.to_le_bytes()).unwrap().version(), 2);
}

#[test]
fn counts_that_the_file_cannot_back_are_errors() {
    let with = |at: usize, count: u64| {
        let mut file = good_gguf();
        file[at..at + 8].copy_from_slice(&count.to_le_bytes());
        parse(&file)
    };
    for count in [1 << 63, u64::MAX, 1_000_000_000] {
        says(with(8, count), &["tensors", "claimed"]);
        says(with(16, count), &["metadata", "claimed"]);
    }
}

#[test]
fn lengths_of_texts_and_arrays_are_bounded_by_the_file() {
    let long = (1u64 << 63).to_le_bytes();
    refused_metadata([&long[..], b"key"].concat(), &["metadata key", "9223372036854775808 bytes asked"]);
    refused_metadata(entry("k", 8, &long), &["text", "bytes asked"]);
    refused_metadata(array_entry("k", 0, 1 << 63, &[]), &["array", "claimed"]);
    refused_metadata(array_entry("k", 8, 1 << 61, &[]), &["array", "claimed"]);
    refused_metadata(array_entry("k", 8, 2, &[&text("a")[..], &long].concat()), &["text", "bytes asked"]);
    refused_metadata(entry("k", 13, &[0; 8]), &["metadata type", "13"]);
    refused_metadata(entry("k", 8, &[&3u64.to_le_bytes()[..], &[0xff, 0xfe, 0xfd]].concat()), &["text", "not UTF-8"]);
}

#[test]
fn arrays_of_arrays_are_refused_without_recursion() {
    // Each level is an array of one array.
    let level = [9u32.to_le_bytes().to_vec(), 1u64.to_le_bytes().to_vec()].concat();
    refused_metadata(entry("k", 9, &level.repeat(100_000)), &["array type", "array of arrays"]);
}

#[test]
fn keys_and_names_come_once() {
    says(parse(&gguf(&[u32_entry("k", 1), u32_entry("k", 2)], &[], 0)), &["\"k\" comes twice"]);
    refused_tensors(&[described("t", &[8], 0, 0), described("t", &[8], 0, 32)], 64, &["\"t\" comes twice"]);
}

#[test]
fn alignments_are_powers_of_two_of_the_right_type() {
    for alignment in [0, 3, 4, 24, 1 << 17, 1 << 30, u32::MAX] {
        let tensors = [described("t", &[8], 0, 0)];
        says(
            parse(&gguf(&[u32_entry("general.alignment", alignment)], &tensors, 32)),
            &["general.alignment", &alignment.to_string()],
        );
    }
    refused_metadata(entry("general.alignment", 10, &32u64.to_le_bytes()), &["general.alignment", "U64", "U32 would be right"]);
    refused_metadata(text_entry("general.alignment", "32"), &["general.alignment", "String"]);
    refused_metadata(array_entry("general.alignment", 4, 1, &32u32.to_le_bytes()), &["general.alignment", "Array"]);
    let eight = gguf(&[u32_entry("general.alignment", 8)], &[described("t", &[2], 0, 8)], 32);
    assert!(parse(&eight).is_ok());
}

#[test]
fn tensors_that_overlap_are_misaligned_or_reach_beyond_are_errors() {
    let t = |name: &str, offset| described(name, &[8], 0, offset);
    refused_tensors(&[t("a", 0), t("b", 0)], 64, &["tensor \"", "overlap"]);
    refused_tensors(&[t("a", 32), described("b", &[16], 0, 0)], 64, &["tensor \"a\"", "overlap"]);
    refused_tensors(&[t("a", 4)], 64, &["tensor \"a\"", "offset 4", "alignment 32"]);
    refused_tensors(&[t("a", 64)], 64, &["tensor \"a\"", "32 bytes from 64 on", "are 64"]);
    refused_tensors(&[t("a", u64::MAX - 31)], 64, &["tensor \"a\""]);
    assert!(parse(&gguf(&[], &[t("b", 32), t("a", 0)], 64)).is_ok());
}

#[test]
fn shapes_beyond_counting_are_errors() {
    let shaped = |axes: &[u64]| described("t", axes, 0, 0);
    refused_tensors(&[shaped(&[1 << 40, 1 << 40])], 64, &["tensor \"t\"", "more elements than 64 bits count"]);
    refused_tensors(&[shaped(&[(1 << 42) + 1, 1 << 22])], 64, &["tensor \"t\""]);
    refused_tensors(&[shaped(&[(1 << 42) + 1])], 64, &["tensor \"t\"", "are 64"]);
    refused_tensors(&[shaped(&[1 << 62])], 64, &["more bytes than 64 bits count"]);
    refused_tensors(&[shaped(&[u64::MAX])], 64, &["tensor \"t\""]);
    refused_tensors(&[shaped(&[])], 64, &["0 axes"]);
    refused_tensors(&[shaped(&[2, 1, 1, 1, 1])], 64, &["5 axes"]);
    // Empty by its fastest axis, though the others multiply beyond 64 bits.
    let empty = parse(&gguf(&[], &[shaped(&[0, 1 << 40, 1 << 40])], 64)).unwrap();
    assert_eq!(empty.tensors()[0].elements(), 0);
}

#[test]
fn types_are_known_or_named() {
    refused_tensors(&[described("t", &[8], 4, 0)], 64, &["tensor \"t\"", "type 4"]);
    refused_tensors(&[described("t", &[8], u32::MAX, 0)], 64, &["type 4294967295"]);
    refused_tensors(&[described("t", &[100], 12, 0)], 64, &["rows of 100", "Q4_K blocks of 256"]);
    // A block type that puna does not compute with is an error when a model needs it.
    let iq4 = parse(&gguf(&[], &[described("t", &[32], 20, 0)], 32)).unwrap();
    says(iq4.tensors()[0].dtype(), &["t is IQ4_NL", "Q4_K"]);
}

#[track_caller]
fn config_of(metadata: Vec<Vec<u8>>) -> Result<Config> {
    let parsed = parse(&gguf(&metadata, &[], 0))?;
    Config::from_gguf(&parsed, parsed.tensors())
}

/// The metadata of a Llama with an entry replaced, or added.
fn with(key: &str, replaced: Vec<u8>) -> Vec<Vec<u8>> {
    let mut metadata = llama_metadata();
    metadata.push(u32_entry("llama.vocab_size", 5));
    metadata.retain(|entry| !entry.starts_with(&text(key)));
    metadata.push(replaced);
    metadata
}

#[test]
fn metadata_that_makes_no_llama_is_named() {
    let number = |key: &str, value: u32| config_of(with(key, u32_entry(key, value)));
    assert_eq!(number("llama.block_count", 2).unwrap().layers, 2);
    says(number("llama.block_count", 1_000_000_000), &["m.gguf", "layers is 1000000000"]);
    says(number("llama.block_count", 0), &["layers is 0"]);
    says(number("llama.attention.head_count", 0), &["0 heads"]);
    says(number("llama.attention.head_count", 3), &["8", "3 heads"]);
    says(number("llama.attention.head_count_kv", 0), &["kv_heads is 0"]);
    says(number("llama.attention.key_length", 3), &["head_dim is 3", "even"]);
    says(number("llama.attention.value_length", 8), &["value_length is 8"]);
    says(number("llama.rope.dimension_count", 2), &["dimension_count is 2"]);
    says(number("llama.expert_count", 8), &["experts"]);
    says(number("llama.attention.sliding_window", 4096), &["llama.attention.sliding_window", "not known"]);
    says(number("llama.rope.scaling.mystery", 1), &["llama.rope.scaling.mystery"]);
    let array = array_entry("llama.attention.head_count_kv", 4, 1, &[1, 0, 0, 0]);
    says(config_of(with("llama.attention.head_count_kv", array)), &["head_count_kv is an array of 1"]);
    let negative = entry("llama.block_count", 5, &(-1i32).to_le_bytes());
    says(config_of(with("llama.block_count", negative)), &["block_count is -1"]);
    let float = entry("llama.block_count", 6, &1f32.to_le_bytes());
    says(config_of(with("llama.block_count", float)), &["block_count is 1"]);
    let nan = entry("llama.rope.freq_base", 6, &f32::NAN.to_le_bytes());
    says(config_of(with("llama.rope.freq_base", nan)), &["freq_base is NaN"]);
    says(config_of(with("general.architecture", text_entry("general.architecture", "qwen2"))), &["\"qwen2\" is not supported"]);
    says(config_of(vec![u32_entry("general.architecture", 1)]), &["general.architecture is missing"]);
    let scaling = with("llama.rope.scaling.type", text_entry("llama.rope.scaling.type", "longrope"));
    says(config_of(scaling), &["\"longrope\" is not supported"]);
    let scaling = with("llama.rope.scaling.type", text_entry("llama.rope.scaling.type", "linear"));
    says(config_of(scaling), &["llama.rope.scaling.factor is missing"]);
}

#[test]
fn every_kind_of_value_is_read() {
    let entries = [
        entry("a", 0, &[200]),
        entry("b", 1, &[0xff]),
        entry("c", 3, &(-2i16).to_le_bytes()),
        entry("d", 7, &[1]),
        entry("e", 10, &u64::MAX.to_le_bytes()),
        entry("f", 11, &i64::MIN.to_le_bytes()),
        entry("g", 12, &0.1f64.to_le_bytes()),
        array_entry("h", 1, 2, &[0xff, 1]),
        array_entry("i", 7, 2, &[0, 1]),
    ];
    let gguf = parse(&gguf(&entries, &[], 0)).unwrap();
    let integer = |key: &str| match gguf.get(key).unwrap() {
        Value::Integer(value) => value,
        other => panic!("{other:?}"),
    };
    assert_eq!(["a", "b", "c", "e", "f"].map(integer), [200, -1, -2, u64::MAX.into(), i64::MIN.into()]);
    assert!(matches!(gguf.get("d"), Some(Value::Bool(true))) && matches!(gguf.get("g"), Some(Value::Float(0.1))));
    assert_eq!(gguf.array("h").unwrap().numbers().collect::<Vec<_>>(), [-1.0, 1.0]);
    assert_eq!(gguf.array("i").unwrap().numbers().collect::<Vec<_>>(), [0.0, 1.0]);
}

#[test]
fn tokenizers_that_are_not_whole_are_named() {
    let of = |entries: &[Vec<u8>]| parse(&gguf(entries, &[], 0)).and_then(|gguf| gguf.tokenizer());
    let model = || text_entry("tokenizer.ggml.model", "llama");
    let tokens = || array_entry("tokenizer.ggml.tokens", 8, 2, &["a", "b"].map(text).concat());
    assert_eq!(of(&[tokens()]).unwrap(), None);
    assert_eq!(of(&[model(), tokens()]).unwrap().unwrap().tokens, [b"a", b"b"]);
    says(of(&[model()]), &["m.gguf: tokenizer.ggml.tokens is missing"]);
    says(of(&[u32_entry("tokenizer.ggml.model", 1)]), &["tokenizer.ggml.model is no text"]);
    // An array of a narrower type: bytes where texts or numbers of four bytes are due.
    says(of(&[model(), array_entry("tokenizer.ggml.tokens", 0, 2, &[1, 2])]), &["tokenizer.ggml.tokens is no array of texts"]);
    let narrow = |key: &str, length: u64| array_entry(key, 0, length, &vec![0; length as usize]);
    assert_eq!(of(&[model(), tokens(), narrow("tokenizer.ggml.scores", 2)]).unwrap().unwrap().scores, [0.0, 0.0]);
    says(of(&[model(), tokens(), narrow("tokenizer.ggml.scores", 1)]), &["scores has 1 U8, but there are 2 tokens"]);
    let texts = array_entry("tokenizer.ggml.token_type", 8, 2, &["a", "b"].map(text).concat());
    says(of(&[model(), tokens(), texts]), &["token_type has 2 String, but there are 2 tokens"]);
    says(of(&[model(), tokens(), text_entry("tokenizer.ggml.merges", "a b")]), &["merges is no array of texts"]);
    says(of(&[model(), tokens(), text_entry("tokenizer.ggml.bos_token_id", "1")]), &["bos_token_id is no token id"]);
    says(of(&[model(), tokens(), u32_entry("tokenizer.ggml.add_bos_token", 1)]), &["add_bos_token is neither true nor false"]);
    let none = entry("tokenizer.ggml.padding_token_id", 5, &(-1i32).to_le_bytes());
    assert_eq!(of(&[model(), tokens(), none]).unwrap().unwrap().pad, None);
}
