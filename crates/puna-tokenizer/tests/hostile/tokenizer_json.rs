use puna_tokenizer::{Bos, Result, Special, Tokenizer};
use serde_json::{Value, json};

use crate::builders::{good_byte_level, good_characters};
use crate::{beginnings, refused};

fn read(json: &Value) -> Result<Tokenizer> {
    Tokenizer::from_tokenizer_json(json.to_string().as_bytes())
}

/// The byte-level file with the value at a path replaced, or, where the last of the path is not there, added.
fn with(mut json: Value, path: &str, value: Value) -> Value {
    let (parent, name) = path.rsplit_once('/').unwrap();
    json.pointer_mut(parent).unwrap()[name] = value;
    json
}

#[track_caller]
fn check(path: &str, value: Value, parts: &[&str]) {
    refused(read(&with(good_byte_level(), path, value)), parts);
}

#[track_caller]
fn check_characters(path: &str, value: Value, parts: &[&str]) {
    refused(read(&with(good_characters(), path, value)), parts);
}

#[test]
fn the_good_files_are_good() {
    let tokenizer = read(&good_byte_level()).unwrap();
    let ids = tokenizer.encode("abab abab <m> ab", Special::Text, Bos::Add).unwrap();
    assert_eq!(ids, [6, 4, 5, 7, 3]);
    assert_eq!(tokenizer.decode(&ids).unwrap(), "<s>abab abab<m>ab");
    let tokenizer = read(&good_characters()).unwrap();
    assert_eq!(tokenizer.encode("ab xxb", Special::Text, Bos::AsWritten).unwrap(), [6, 2, 0, 4]);
}

#[test]
fn truncated_files_are_refused() {
    for json in [good_byte_level(), good_characters()] {
        beginnings(json.to_string().as_bytes(), Tokenizer::from_tokenizer_json, |_| true);
    }
}

#[test]
fn what_is_no_json_says_line_and_column() {
    refused(Tokenizer::from_tokenizer_json(b"{\n \"model\": }"), &["tokenizer.json", "line 2 column 11"]);
    refused(Tokenizer::from_tokenizer_json(b"[]"), &["tokenizer.json", "line 1"]);
    refused(Tokenizer::from_tokenizer_json(b"{}"), &["tokenizer.json", "`model`"]);
    refused(Tokenizer::from_tokenizer_json(&[b"{\"model\": ".as_slice(), &b"[".repeat(100_000)].concat()), &["tokenizer.json"]);
    refused(
        Tokenizer::from_tokenizer_json(b"{\"model\": {\"vocab\": {\"\xff\": 0}, \"merges\": []}}"),
        &["tokenizer.json", "line 1"],
    );
}

#[test]
fn nesting_without_end_is_refused() {
    let deep = |open: &str, close: &str| open.repeat(10_000) + "1" + &close.repeat(10_000);
    for part in ["normalizer", "pre_tokenizer", "decoder", "post_processor", "unknown"] {
        for nested in [deep("[", "]"), deep("{\"type\":", "}")] {
            let json = format!("{{\"{part}\": {nested}, \"model\": {{\"vocab\": {{}}, \"merges\": []}}}}");
            refused(Tokenizer::from_tokenizer_json(json.as_bytes()), &["tokenizer.json"]);
        }
    }
}

#[test]
fn other_models_are_refused_by_name() {
    check("/model/type", json!("WordPiece"), &["model: WordPiece is not supported; BPE is"]);
    check("/model/type", json!("Unigram"), &["Unigram"]);
    check("/model/dropout", json!(0.1), &["model", "dropout 0.1"]);
    check("/model/continuing_subword_prefix", json!("##"), &["model", "continuing_subword_prefix"]);
    check("/model/end_of_word_suffix", json!("</w>"), &["model", "end_of_word_suffix"]);
    check("/model/surprise", json!(1), &["surprise"]);
    check("/surprise", json!(1), &["surprise"]);
}

#[test]
fn vocabularies_that_cannot_be_are_refused() {
    check("/model/vocab/b", json!(0), &["model.vocab", "\"a\" and \"b\" have the same id, 0"]);
    check("/model/vocab/b", json!(4_000_000_000u32), &["model.vocab", "4000000000"]);
    check("/model/vocab/b", json!(u32::MAX), &["model.vocab", "4294967295"]);
    check("/model/vocab/b", json!(1u64 << 32), &["tokenizer.json"]);
    check("/model/vocab/b", json!(-1), &["tokenizer.json"]);
    check("/model/vocab/b", json!("1"), &["tokenizer.json"]);
    check("/model/vocab", json!([]), &["tokenizer.json", "a map from tokens to ids"]);
    check("/model/vocab", json!({}), &["model.merges[0]", "\"a\" is no token"]);
    check("/model/vocab", json!(null), &["tokenizer.json"]);
    check_characters("/model/unk_token", json!("<none>"), &["model", "unk_token \"<none>\" is no token"]);
}

#[test]
fn an_empty_vocabulary_encodes_nothing() {
    let mut json = with(good_byte_level(), "/model/vocab", json!({}));
    json["model"]["merges"] = json!([]);
    json["added_tokens"] = json!([]);
    json["post_processor"] = Value::Null;
    let tokenizer = read(&json).unwrap();
    assert_eq!(tokenizer.vocab_size(), 0);
    assert!(tokenizer.encode("abc", Special::Parse, Bos::Add).unwrap().is_empty());
    assert!(tokenizer.decode(&[0]).is_err());
}

#[test]
fn merges_that_cannot_be_are_refused() {
    check("/model/merges", json!([["a", "x"]]), &["model.merges[0]", "\"x\" is no token"]);
    check("/model/merges", json!([["a", "b"], ["b", "a"]]), &["model.merges[1]", "\"ba\" is no token"]);
    check("/model/merges", json!([["a"]]), &["tokenizer.json", "two tokens"]);
    check("/model/merges", json!([["a", "b", "ab"]]), &["tokenizer.json", "two tokens"]);
    check("/model/merges", json!(["ab"]), &["tokenizer.json", "two tokens and a space between"]);
    check("/model/merges", json!(["a b ab"]), &["tokenizer.json", "two tokens and a space between"]);
    check("/model/merges", json!([7]), &["tokenizer.json", "two tokens"]);
    check("/model/merges", json!({}), &["tokenizer.json"]);
}

#[test]
fn added_tokens_that_cannot_be_are_refused() {
    let token = |id: u64, content: &str| json!([{"id": 6, "content": "<s>", "special": true}, {"id": id, "content": content, "special": true}]);
    check("/added_tokens", token(0, "<t>"), &["added_tokens", "\"<t>\" and \"a\" have the same id, 0"]);
    check("/added_tokens", token(6, "<t>"), &["added_tokens", "\"<t>\" and \"<s>\" have the same id, 6"]);
    check("/added_tokens", token(8, "ab"), &["added_tokens", "\"ab\" has the id 8, but 3 in model.vocab"]);
    check("/added_tokens", token(u64::from(u32::MAX), "<t>"), &["model.vocab", "4294967295"]);
    check("/added_tokens", token(1 << 40, "<t>"), &["tokenizer.json"]);
    check("/added_tokens", token(8, &"x".repeat(1025)), &["added_tokens", "token 8 has 1025 bytes", "at most 1024"]);
    check("/added_tokens", json!([{"id": 6}]), &["tokenizer.json", "content"]);
    check("/added_tokens/0/weight", json!(1), &["tokenizer.json", "weight"]);
}

#[test]
fn components_that_are_not_known_are_refused_by_name() {
    check_characters("/normalizer", json!({"type": "NFKC"}), &["normalizer: NFKC is not supported"]);
    check_characters("/normalizer", json!({"prepend": "x"}), &["normalizer: no type"]);
    check_characters("/normalizer", json!("NFKC"), &["normalizer: no object"]);
    check_characters(
        "/normalizer",
        json!({"type": "Sequence", "normalizers": [{"type": "Sequence", "normalizers": []}]}),
        &["normalizer", "Sequence in a Sequence"],
    );
    check_characters(
        "/normalizer",
        json!({"type": "Replace", "pattern": {"Regex": "a+"}, "content": "b"}),
        &["normalizer", "Replace of a Regex"],
    );
    check_characters(
        "/normalizer",
        json!({"type": "Replace", "pattern": {"String": ""}, "content": "b"}),
        &["normalizer", "not empty"],
    );
    check_characters("/normalizer", json!({"type": "Prepend", "prepend": 1}), &["normalizer", "prepend is 1", "a string"]);
    check("/pre_tokenizer", json!({"type": "BertPreTokenizer"}), &["pre_tokenizer: BertPreTokenizer is not supported"]);
    check("/pre_tokenizer", json!({"type": "ByteLevel", "surprise": 1}), &["pre_tokenizer", "ByteLevel's field \"surprise\""]);
    check("/pre_tokenizer/pretokenizers/0/behavior", json!("Merged"), &["pre_tokenizer", "behavior is \"Merged\""]);
    check("/pre_tokenizer/pretokenizers/0/pattern", json!({"Glob": "*"}), &["pre_tokenizer", "pattern"]);
    check("/pre_tokenizer/pretokenizers/0/pattern/Regex", json!("(a"), &["pre_tokenizer", "\"(a\""]);
    check("/decoder", json!({"type": "WordPiece"}), &["decoder: WordPiece is not supported"]);
    check("/decoder", json!(null), &["decoder: null is not supported"]);
    check("/decoder", json!({"type": "Fuse"}), &["decoder", "ByteLevel goes with"]);
    check_characters("/decoder", json!({"type": "ByteLevel"}), &["decoder", "ByteLevel goes with"]);
    check("/post_processor", json!({"type": "BertProcessing"}), &["post_processor: BertProcessing is not supported"]);
    check("/post_processor/single", json!([]), &["post_processor", "single"]);
    check("/post_processor/special_tokens", json!({}), &["post_processor", "special_tokens"]);
    check("/post_processor/special_tokens", json!({"<s>": {"ids": [99]}}), &["post_processor", "token id 99 names no token"]);
}

#[test]
fn bytes_are_named_rightly_or_all_or_none() {
    let mut json = with(good_characters(), "/model/byte_fallback", json!(true));
    for (name, id) in [("<0x-1>", 7), ("<0xZZ>", 8), ("<0x+1>", 9)] {
        json["model"]["vocab"][name] = json!(id);
    }
    let tokenizer = read(&json).unwrap();
    // They name no bytes: text like any other.
    assert_eq!(tokenizer.encode("x", Special::Text, Bos::AsWritten).unwrap(), [2, 0]);
    assert_eq!(tokenizer.token(7).as_deref(), Some("<0x-1>"));
    json["model"]["vocab"]["<0x41>"] = json!(10);
    refused(read(&json), &["model.vocab", "1 bytes have tokens"]);
}

#[test]
fn patterns_that_would_take_all_memory_are_refused() {
    let regex = "/pre_tokenizer/pretokenizers/0/pattern/Regex";
    check(regex, json!("\\p{L}{1000}{1000}"), &["pre_tokenizer"]);
    check(regex, json!("(?:(?:\\w{100}){100}){100}(?!x)"), &["pre_tokenizer"]);
    check(regex, json!("(".repeat(5000)), &["pre_tokenizer"]);
    check(regex, json!("(?=\\w{20})".repeat(1000)), &["pre_tokenizer", "10000 bytes"]);
    let split = json!({"type": "Split", "pattern": {"Regex": "\\p{L}{100}"}, "behavior": "Isolated", "invert": false});
    check("/pre_tokenizer/pretokenizers", json!(vec![split; 1000]), &["pre_tokenizer", "patterns"]);
}

#[test]
fn normalizers_that_would_take_all_memory_are_refused() {
    let double = json!({"type": "Replace", "pattern": {"String": "a"}, "content": "aa"});
    check_characters("/normalizer/normalizers", json!(vec![double; 40]), &["normalizer", "times as long"]);
    let long = json!({"type": "Replace", "pattern": {"String": "a"}, "content": "b".repeat(100_000)});
    check_characters("/normalizer", long, &["normalizer", "100000 times as long"]);
    check_characters("/normalizer", json!({"type": "Prepend", "prepend": "b".repeat(100_000)}), &["normalizer", "100000 bytes"]);
}
