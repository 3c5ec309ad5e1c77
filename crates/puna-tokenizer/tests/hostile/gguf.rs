use puna_tokenizer::{GgufTokenizer, Tokenizer};

use crate::refused;

fn byte_level() -> GgufTokenizer {
    let tokens = ["a", "b", "ab", "<s>", "Ġ"];
    GgufTokenizer {
        model: "gpt2".into(),
        pre: Some("llama-bpe".into()),
        tokens: tokens.iter().map(|token| token.as_bytes().to_vec()).collect(),
        token_types: vec![1, 1, 1, 3, 1],
        merges: vec![b"a b".to_vec()],
        bos: Some(3),
        ..GgufTokenizer::default()
    }
}

fn pieces() -> GgufTokenizer {
    let tokens = ["<unk>", "<s>", "</s>", "▁", "a", "▁a"];
    GgufTokenizer {
        model: "llama".into(),
        tokens: tokens.iter().map(|token| token.as_bytes().to_vec()).collect(),
        scores: vec![0.0, 0.0, 0.0, -2.0, -3.0, -1.0],
        token_types: vec![2, 3, 3, 1, 1, 1],
        ..GgufTokenizer::default()
    }
}

#[track_caller]
fn check(gguf: GgufTokenizer, change: impl FnOnce(&mut GgufTokenizer), parts: &[&str]) {
    let mut changed = gguf.clone();
    Tokenizer::from_gguf(&gguf).unwrap();
    change(&mut changed);
    refused(Tokenizer::from_gguf(&changed), parts);
}

#[test]
fn other_models_and_pre_tokenizers_are_refused_by_name() {
    check(byte_level(), |gguf| gguf.model = "bert".into(), &["tokenizer.ggml.model", "\"bert\"", "gpt2 and llama"]);
    check(byte_level(), |gguf| gguf.pre = Some("qwen2".into()), &["tokenizer.ggml.pre", "\"qwen2\"", "llama-bpe"]);
}

#[test]
fn lists_of_different_lengths_are_refused() {
    check(byte_level(), |gguf| gguf.tokens.clear(), &["tokenizer.ggml.tokens", "none"]);
    check(byte_level(), |gguf| gguf.token_types.truncate(2), &["tokenizer.ggml.token_type", "2 entries for 5 tokens"]);
    check(pieces(), |gguf| gguf.scores.push(0.0), &["tokenizer.ggml.scores", "7 entries for 6 tokens"]);
    check(pieces(), |gguf| gguf.scores.clear(), &["tokenizer.ggml.scores", "none"]);
}

#[test]
fn values_that_cannot_be_are_refused() {
    for kind in [0, 7, -1, i32::MAX] {
        check(byte_level(), |gguf| gguf.token_types[1] = kind, &["tokenizer.ggml.token_type", &kind.to_string(), "token 1"]);
    }
    check(byte_level(), |gguf| gguf.bos = Some(5), &["tokenizer.ggml.bos_token_id", "5, but there are 5 tokens"]);
    check(byte_level(), |gguf| gguf.pad = Some(u32::MAX), &["tokenizer.ggml.padding_token_id", "4294967295"]);
    check(byte_level(), |gguf| gguf.tokens[1] = vec![0xff], &["tokenizer.ggml.tokens[1]", "not UTF-8"]);
    check(pieces(), |gguf| gguf.scores[4] = f32::NAN, &["tokenizer.ggml.tokens", "score of \"a\""]);
    check(pieces(), |gguf| gguf.token_types[4] = 6, &["tokenizer.ggml.tokens", "\"a\" of type byte"]);
    check(pieces(), |gguf| (gguf.tokens[4], gguf.token_types[4]) = (b"<0x-1>".to_vec(), 6), &["\"<0x-1>\" of type byte"]);
}

#[test]
fn merges_that_cannot_be_are_refused() {
    for (merge, part) in [
        ("a x", "\"x\" is none"),
        ("b a", "\"ba\" is none"),
        ("ab", "space between"),
        ("", "space between"),
        (" ", "space between"),
    ] {
        check(byte_level(), |gguf| gguf.merges[0] = merge.into(), &["tokenizer.ggml.merges[0]", part]);
    }
    check(byte_level(), |gguf| gguf.merges[0] = vec![b'a', b' ', 0xff], &["tokenizer.ggml.merges[0]", "not UTF-8"]);
}
