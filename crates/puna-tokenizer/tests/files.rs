//! What a file says is heeded or refused by name; what was read can be written and read again.

use std::fs;
use std::time::{Duration, Instant};

use puna_tokenizer::{Bos, Error, GgufTokenizer, Special, TiktokenKind, Tokenizer};
use serde_json::{Value, json};

const GOLDENS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../puna-conformance/goldens/tokenizers");

const COMMITTED: [&str; 5] = [
    "files/smollm2/tokenizer.json",
    "files/mistral-v1/tokenizer.model",
    "bpe_training/hf_bytelevel_512.json",
    "bpe_training/hf_bytelevel_llama3_regex_512.json",
    "bpe_training/sentencepiece_bpe_512.model",
];

fn open(name: &str) -> Tokenizer {
    Tokenizer::from_file(format!("{GOLDENS}/{name}")).unwrap()
}

/// Texts of every kind that goldens have.
fn texts() -> Vec<String> {
    let text = fs::read_to_string(format!("{GOLDENS}/golden/smollm2.jsonl")).unwrap();
    let lines = text.split('\n').filter(|line| !line.is_empty());
    lines.map(|line| serde_json::from_str::<Value>(line).unwrap()["text"].as_str().unwrap().to_owned()).collect()
}

/// Whether two tokenizers show special tokens.
#[derive(PartialEq)]
enum Shown {
    Alike,
    /// A SentencePiece model shows none, Hugging Face's form of it does.
    Not,
}

#[track_caller]
fn works_alike(a: &Tokenizer, b: &Tokenizer, shown: Shown) {
    for text in texts() {
        for special in [Special::Text, Special::Parse] {
            let ids = a.encode(&text, special, Bos::Add).unwrap();
            assert_eq!(b.encode(&text, special, Bos::Add).unwrap(), ids, "{text:?}");
            if shown == Shown::Alike {
                assert_eq!(b.decode(&ids).unwrap(), a.decode(&ids).unwrap(), "{ids:?}");
            }
        }
    }
    assert!(a.special_tokens().eq(b.special_tokens()));
    assert_eq!((a.bos(), a.unk()), (b.bos(), b.unk()));
}

#[test]
fn a_gguf_says_all_that_a_tokenizer_does() {
    for name in COMMITTED {
        let tokenizer = open(name);
        let gguf = tokenizer.to_gguf().unwrap();
        works_alike(&tokenizer, &Tokenizer::from_gguf(&gguf).unwrap(), Shown::Alike);
    }
}

#[test]
fn a_tokenizer_json_says_all_that_a_tokenizer_does() {
    for name in COMMITTED {
        let tokenizer = open(name);
        let value = tokenizer.to_tokenizer_json().unwrap();
        let again = Tokenizer::from_tokenizer_json(&serde_json::to_vec(&value).unwrap()).unwrap();
        assert_eq!(again.to_tokenizer_json().unwrap(), value, "{name}");
        works_alike(&tokenizer, &again, if name.ends_with(".json") { Shown::Alike } else { Shown::Not });
        // Through a GGUF too: the scores that merges have there are those of the model that they were made from.
        if name.ends_with(".model") {
            works_alike(&again, &Tokenizer::from_gguf(&again.to_gguf().unwrap()).unwrap(), Shown::Not);
        }
    }
}

#[test]
fn tokens_are_found_by_their_text() {
    let mistral = open("files/mistral-v1/tokenizer.model");
    for (id, text) in [(0, "<unk>"), (1, "<s>"), (2, "</s>"), (13, "<0x0A>"), (272, "▁the")] {
        assert_eq!((mistral.token(id).as_deref(), mistral.id(text)), (Some(text), Some(id)));
    }
    assert_eq!((mistral.bos(), mistral.eos(), mistral.unk()), (Some(1), Some(2), Some(0)));
    assert_eq!(mistral.token_bytes(13), Some(&b"\n"[..]));
    assert!(mistral.is_special(1) && !mistral.is_special(272));
    assert_eq!(mistral.vocab_size(), 32000);
    let smollm2 = open("files/smollm2/tokenizer.json");
    assert_eq!((smollm2.id("<|im_start|>"), smollm2.token(1).as_deref()), (Some(1), Some("<|im_start|>")));
    assert_eq!(smollm2.special_tokens().count(), 17);
    assert_eq!(smollm2.id(" the").and_then(|id| smollm2.token(id)).as_deref(), Some(" the"));
    assert_eq!(smollm2.id("no such token"), None);
}

#[test]
fn an_id_without_a_token_is_an_error() {
    let tokenizer = open("files/smollm2/tokenizer.json");
    let error = tokenizer.decode(&[1, 49152]).unwrap_err();
    assert_eq!(error.to_string(), "token id 49152 names no token; the vocabulary has 49152 ids");
    let mut stream = tokenizer.decode_stream();
    assert!(matches!(stream.push(u32::MAX), Err(Error::NoToken { id: u32::MAX, .. })));
    assert_eq!(stream.push(tokenizer.id(" the").unwrap()).unwrap(), " the");
}

#[test]
fn only_bos_add_adds_and_nothing_removes() {
    let tokenizer = open("files/mistral-v1/tokenizer.model");
    let encode = |text, special, bos| tokenizer.encode(text, special, bos).unwrap();
    assert_eq!(encode("", Special::Text, Bos::Add), [1]);
    assert_eq!(encode("", Special::Text, Bos::AsWritten), [0; 0]);
    assert_eq!(encode("<s>", Special::Parse, Bos::Add), [1, 1]);
    assert!(!encode("<s>", Special::Text, Bos::AsWritten).contains(&1));
}

#[test]
fn a_folder_is_read_with_its_config() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tokenizer.json");
    fs::copy(format!("{GOLDENS}/files/smollm2/tokenizer.json"), &file).unwrap();
    assert_eq!(Tokenizer::from_file(folder.path()).unwrap().eos(), None);
    let config = folder.path().join("tokenizer_config.json");
    fs::write(&config, r#"{"bos_token": "<|im_start|>", "eos_token": {"content": "<|im_end|>"}, "pad_token": null}"#).unwrap();
    let tokenizer = Tokenizer::from_file(folder.path()).unwrap();
    assert_eq!((tokenizer.bos(), tokenizer.eos(), tokenizer.pad(), tokenizer.adds_bos()), (Some(1), Some(2), None, false));
    fs::write(&config, r#"{"bos_token": "<|im_start|>", "tokenizer_class": "LlamaTokenizer"}"#).unwrap();
    assert!(Tokenizer::from_file(&file).unwrap().adds_bos());
    fs::write(&config, r#"{"eos_token": "<|nowhere|>"}"#).unwrap();
    let error = Tokenizer::from_file(&file).unwrap_err().to_string();
    assert!(error.contains("tokenizer_config.json: eos_token: \"<|nowhere|>\" is no token of the vocabulary"), "{error}");
    fs::remove_file(&file).unwrap();
    assert!(Tokenizer::from_file(folder.path()).unwrap_err().to_string().contains("the folder holds none"));
    fs::write(&file, "").unwrap();
    assert!(Tokenizer::from_file(&file).unwrap_err().to_string().ends_with("tokenizer.json: tokenizer: the file is empty"));
}

/// A small tokenizer.json in which one place has another value.
fn with(pointer: &str, value: Value) -> Vec<u8> {
    let mut json = json!({
        "added_tokens": [{ "id": 3, "content": "<s>", "special": true }],
        "normalizer": null,
        "pre_tokenizer": { "type": "ByteLevel", "add_prefix_space": false },
        "post_processor": null,
        "decoder": { "type": "ByteLevel" },
        "model": { "type": "BPE", "vocab": { "a": 0, "b": 1, "ab": 2 }, "merges": ["a b"] },
    });
    match json.pointer_mut(pointer) {
        Some(place) => *place = value,
        None => {
            let (parent, key) = pointer.rsplit_once('/').unwrap();
            json.pointer_mut(parent).unwrap()[key] = value;
        }
    }
    serde_json::to_vec(&json).unwrap()
}

#[track_caller]
fn refused(pointer: &str, value: Value, expected: &str) {
    let error = Tokenizer::from_tokenizer_json(&with(pointer, value)).unwrap_err().to_string();
    assert!(error.contains(expected), "{error}");
}

#[test]
fn what_is_not_understood_is_refused_by_name() {
    assert!(Tokenizer::from_tokenizer_json(&with("/version", "1.0".into())).is_ok());
    refused("/model/type", "Unigram".into(), "model: Unigram is not supported; BPE is");
    refused("/model/dropout", 0.1.into(), "dropout 0.1");
    refused("/model/end_of_word_suffix", "</w>".into(), "end_of_word_suffix");
    refused("/model/what", 1.into(), "unknown field `what`");
    refused("/what", 1.into(), "unknown field `what`");
    refused("/normalizer", json!({ "type": "NFC" }), "normalizer: NFC is not supported; Prepend, Replace and Sequence are");
    refused("/pre_tokenizer", json!({ "type": "Whitespace" }), "pre_tokenizer: Whitespace is not supported");
    refused("/pre_tokenizer/what", true.into(), "ByteLevel's field \"what\" is not supported");
    refused("/decoder", json!({ "type": "WordPiece" }), "decoder: WordPiece is not supported");
    refused("/decoder", json!({ "type": "Fuse" }), "ByteLevel goes with a ByteLevel pre_tokenizer");
    refused("/decoder", Value::Null, "decoder: null is not supported");
    refused("/post_processor", json!({ "type": "BertProcessing" }), "post_processor: BertProcessing is not supported");
    let nested = json!({ "type": "Sequence", "normalizers": [{ "type": "Sequence", "normalizers": [] }] });
    refused("/normalizer", nested, "a Sequence in a Sequence");
    let split = json!({ "type": "Split", "pattern": { "Regex": "(" }, "behavior": "Isolated", "invert": false });
    refused("/pre_tokenizer", split, "the pattern \"(\" cannot be matched");
}

#[test]
fn contradictions_are_errors_that_name_their_place() {
    refused("/model/merges", json!(["a c"]), "model.merges[0]: \"c\" is no token of the vocabulary");
    refused("/model/merges", json!(["b a"]), "model.merges[0]: \"ba\" is no token of the vocabulary");
    refused("/model/merges", json!(["a b c"]), "is not two tokens and a space between");
    refused("/model/merges", json!([["a"]]), "invalid length 1, expected two tokens");
    refused("/model/vocab/b", 0.into(), "have the same id, 0");
    refused("/model/vocab/b", 4_000_000_000u32.into(), "the largest id is 4000000000");
    refused("/model/unk_token", "<unk>".into(), "unk_token \"<unk>\" is no token");
    refused("/added_tokens/0/id", 2.into(), "\"<s>\" and \"ab\" have the same id, 2");
    let template = json!({ "type": "TemplateProcessing", "single": [{ "SpecialToken": { "id": "<s>" } }], "special_tokens": {} });
    refused("/post_processor", template, "post_processor: TemplateProcessing's special_tokens");
}

#[test]
fn files_of_other_kinds_are_refused_by_name() {
    let check = |bytes: &[u8], expected: &str| {
        let error = Tokenizer::from_bytes(bytes).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    };
    check(b"", "the file is empty");
    check(b"GGUF\x03\0\0\0", "tiktoken file: a file of 1 lines is not supported");
    check(&[0xff; 8], "a tokenizer.json, a SentencePiece model and a tiktoken file are");
    check(b"{}", "missing field `model`");
    check(b"\n\x05", "byte 2: model: 5 bytes asked, 0 left");
    // A piece, and a trainer that says unigram.
    check(b"\n\x03\n\x01a\x12\x02\x18\x01", "SentencePiece model: a unigram model is not supported; Llama's are bpe");
    let ranks = |lines: &str| Tokenizer::from_tiktoken(lines.as_bytes(), TiktokenKind::Llama3).unwrap_err().to_string();
    assert_eq!(ranks("YQ== 0\nYg== 2"), "tiktoken file: line 2: the rank is not 1; ranks count up from 0");
    assert_eq!(ranks("YQ== 0\nYQ== 1"), "tiktoken file: line 2: the token has a rank already");
    assert_eq!(ranks("YQ=="), "tiktoken file: line 1: not two fields; base64, a space and a number would be right");
    assert_eq!(ranks("YQ== 0"), "tiktoken file: byte 0x00 has no rank; all 256 have one");
}

#[test]
fn a_gguf_tokenizer_that_is_not_known_is_refused_by_name() {
    let gguf = GgufTokenizer { model: "gpt2".into(), tokens: vec![b"a".to_vec()], ..GgufTokenizer::default() };
    assert!(Tokenizer::from_gguf(&gguf).is_ok());
    let check = |gguf: GgufTokenizer, expected: &str| {
        let error = Tokenizer::from_gguf(&gguf).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    };
    check(GgufTokenizer { pre: Some("qwen2".into()), ..gguf.clone() }, "\"qwen2\" is not supported; llama-bpe, llama3");
    check(GgufTokenizer { model: "bert".into(), ..gguf.clone() }, "tokenizer.ggml.model: \"bert\" is not supported");
    check(GgufTokenizer { model: "llama".into(), ..gguf.clone() }, "tokenizer.ggml.scores: there are none");
    check(GgufTokenizer { scores: vec![0.0; 2], ..gguf.clone() }, "tokenizer.ggml.scores: 2 entries for 1 tokens");
    check(GgufTokenizer { token_types: vec![7], ..gguf.clone() }, "7 for token 0; 1 to 6 would be right");
    check(GgufTokenizer { merges: vec![b"ab".to_vec()], ..gguf.clone() }, "tokenizer.ggml.merges[0]");
    check(GgufTokenizer { eos: Some(1), ..gguf.clone() }, "tokenizer.ggml.eos_token_id: 1, but there are 1 tokens");
    check(GgufTokenizer { tokens: vec![vec![0xff]], ..gguf }, "tokenizer.ggml.tokens[0]: not UTF-8");
}

#[test]
fn a_pattern_that_takes_too_many_steps_is_an_error() {
    let split = json!({ "type": "Sequence", "pretokenizers": [
        { "type": "Split", "pattern": { "Regex": "(a+a+)+(?!\\S)b" }, "behavior": "Isolated", "invert": false },
        { "type": "ByteLevel", "add_prefix_space": false, "use_regex": false },
    ] });
    let tokenizer = Tokenizer::from_tokenizer_json(&with("/pre_tokenizer", split)).unwrap();
    assert_eq!(tokenizer.encode("ab", Special::Text, Bos::AsWritten).unwrap(), [2]);
    let error = tokenizer.encode(&"a".repeat(5000), Special::Text, Bos::AsWritten).unwrap_err();
    assert!(matches!(error, Error::Pattern { .. }), "{error}");
}

#[test]
fn monotonous_text_takes_no_quadratic_time() {
    for name in COMMITTED {
        let tokenizer = open(name);
        for text in ["a".repeat(1 << 20), " ".repeat(1 << 20), "ab".repeat(1 << 19), "\n".repeat(1 << 20), "中".repeat(1 << 18)]
        {
            let start = Instant::now();
            let ids = tokenizer.encode(&text, Special::Parse, Bos::AsWritten).unwrap();
            // Half a second without optimization; a quadratic algorithm takes hours.
            assert!(start.elapsed() < Duration::from_secs(60), "{name}, {:?}", &text[..3]);
            assert_eq!(tokenizer.decode(&ids).unwrap(), text, "{name}");
        }
    }
}

#[test]
fn a_tokenizer_is_shared_between_threads() {
    let tokenizer = open("files/smollm2/tokenizer.json");
    let texts = texts();
    let encode =
        || -> Vec<Vec<u32>> { texts.iter().map(|text| tokenizer.encode(text, Special::Text, Bos::AsWritten).unwrap()).collect() };
    let (a, b) = std::thread::scope(|scope| {
        let (a, b) = (scope.spawn(encode), scope.spawn(encode));
        (a.join().unwrap(), b.join().unwrap())
    });
    assert_eq!(a, b);
    assert_eq!(a, encode());
}
