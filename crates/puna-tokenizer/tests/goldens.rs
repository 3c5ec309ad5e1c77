//! Ids and text equal those of the reference implementations.
//!
//! The goldens are those in the checkout; `PUNA_GOLDENS` names another folder of the same layout. Llama's own tokenizer files may not
//! be committed: they are looked for in the folder that `PUNA_FIXTURES` names, else in the workspace's `target/fixtures`, under
//! `tokenizers/llama3/tokenizer.model` and so on. One line is printed for each file of goldens.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use puna_tokenizer::{Bos, Special, Tokenizer};
use serde_json::Value;

fn goldens() -> PathBuf {
    let committed = concat!(env!("CARGO_MANIFEST_DIR"), "/../puna-conformance/goldens");
    let folder = std::env::var_os("PUNA_GOLDENS").map_or_else(|| committed.into(), PathBuf::from);
    // The folder of all fixtures, or that of the tokenizers in it.
    if folder.join("tokenizers").is_dir() { folder.join("tokenizers") } else { folder }
}

/// A Llama tokenizer that may not be committed.
fn licensed(name: &str) -> Option<PathBuf> {
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/fixtures");
    let folder = std::env::var_os("PUNA_FIXTURES").map_or(target, PathBuf::from);
    let file = folder.join("tokenizers").join(name).join("tokenizer.model");
    file.is_file().then_some(file)
}

/// The tokenizers that goldens name, each read once.
struct Tokenizers {
    folder: PathBuf,
    read: BTreeMap<String, Option<Tokenizer>>,
}

impl Tokenizers {
    fn new() -> Self {
        Self { folder: goldens(), read: BTreeMap::new() }
    }

    /// `None` where the file may not be committed and is not there, which is said aloud.
    fn get(&mut self, name: &str) -> Option<&Tokenizer> {
        if !self.read.contains_key(name) {
            let tokenizer = match name {
                "llama2" | "llama3" | "llama4" => licensed(name),
                // The same tokens and merges in Hugging Face's clothes.
                "llama2-hf" => licensed("llama2"),
                "smollm2" => Some(self.folder.join("files/smollm2/tokenizer.json")),
                "mistral-v1" => Some(self.folder.join("files/mistral-v1/tokenizer.model")),
                "sentencepiece_bpe_512" => Some(self.folder.join("bpe_training/sentencepiece_bpe_512.model")),
                other => Some(self.folder.join(format!("bpe_training/{other}.json"))),
            };
            let tokenizer = tokenizer.map(|path| Tokenizer::from_file(path).unwrap());
            let tokenizer = match tokenizer {
                Some(tokenizer) if name == "llama2-hf" => {
                    let json = serde_json::to_vec(&tokenizer.to_tokenizer_json().unwrap()).unwrap();
                    Some(Tokenizer::from_tokenizer_json(&json).unwrap())
                }
                other => other,
            };
            if tokenizer.is_none() {
                println!("SKIPPED: the goldens of {name}, for its tokenizer.model is not there; run cargo xtask fixtures");
            }
            self.read.insert(name.into(), tokenizer);
        }
        self.read[name].as_ref()
    }
}

/// The JSON lines of a file of goldens; none, said aloud, where the folder lacks the file.
fn lines(path: &Path) -> Vec<Value> {
    let Ok(text) = fs::read_to_string(path) else {
        println!("SKIPPED: {}, which is not there", path.display());
        return Vec::new();
    };
    text.split('\n').filter(|line| !line.is_empty()).map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

/// Counts what agrees, prints a line, and panics with the first that does not.
struct Tally {
    file: String,
    right: usize,
    skipped: usize,
    wrong: Vec<String>,
}

impl Tally {
    fn new(file: &Path) -> Self {
        Self { file: file.file_name().unwrap().to_string_lossy().into_owned(), right: 0, skipped: 0, wrong: Vec::new() }
    }

    fn check(&mut self, what: &str, got: impl PartialEq<Value> + std::fmt::Debug, expected: &Value) {
        if got == *expected {
            self.right += 1;
        } else {
            self.wrong.push(format!("{what}\n     got {got:?}\nexpected {expected}"));
        }
    }

    fn end(self) {
        let Self { file, right, skipped, wrong } = self;
        println!("{file}: {right} of {} equal, {skipped} skipped", right + wrong.len());
        if let Some(first) = wrong.first() {
            panic!("{file}: {} differ, first\n{first}", wrong.len());
        }
    }
}

/// Ids as JSON, to compare and to print.
fn json(ids: &[u32]) -> Value {
    ids.into()
}

fn encode(tokenizer: &Tokenizer, text: &str, special: Special) -> Vec<u32> {
    tokenizer.encode(text, special, Bos::AsWritten).unwrap()
}

fn check_lines(tokenizers: &mut Tokenizers, file: &Path) {
    let mut tally = Tally::new(file);
    for line in lines(file) {
        let Some(tokenizer) = tokenizers.get(line["tokenizer"].as_str().unwrap()) else {
            tally.skipped += 1;
            continue;
        };
        let text = line["text"].as_str().unwrap();
        let got = match line["special_handling"].as_str().unwrap() {
            "none" => encode(tokenizer, text, Special::Text),
            "all" => encode(tokenizer, text, Special::Parse),
            "none+bos+eos" => {
                let mut ids = tokenizer.encode(text, Special::Text, Bos::Add).unwrap();
                ids.extend(tokenizer.eos());
                ids
            }
            other => panic!("{other}"),
        };
        tally.check(&format!("ids of {text:?}"), json(&got), &line["ids"]);
        let expected = if line["decoded"].is_null() { &line["text"] } else { &line["decoded"] };
        tally.check(&format!("text of {}", line["ids"]), Value::from(tokenizer.decode(&ids(&line["ids"])).unwrap()), expected);
    }
    tally.end();
}

#[test]
fn texts_have_the_references_ids() {
    let mut tokenizers = Tokenizers::new();
    let folder = tokenizers.folder.join("golden");
    for name in ["llama3", "llama4", "llama2", "mistral-v1", "llama2-hf", "smollm2"] {
        check_lines(&mut tokenizers, &folder.join(name).with_extension("jsonl"));
    }
}

#[test]
fn a_sentencepiece_model_parses_special_tokens_as_hugging_face_does() {
    let mut tokenizers = Tokenizers::new();
    let file = tokenizers.folder.join("golden/llama2-hf.jsonl");
    let Some(tokenizer) = tokenizers.get("llama2") else { return };
    let mut tally = Tally::new(&file);
    for line in lines(&file) {
        let text = line["text"].as_str().unwrap();
        tally.check(&format!("ids of {text:?}"), json(&encode(tokenizer, text, Special::Parse)), &line["ids"]);
    }
    tally.end();
}

#[test]
fn trained_tokenizers_have_the_references_ids() {
    let mut tokenizers = Tokenizers::new();
    let folder = tokenizers.folder.join("bpe_training");
    for name in ["hf_bytelevel_512", "hf_bytelevel_llama3_regex_512", "sentencepiece_bpe_512"] {
        check_lines(&mut tokenizers, &folder.join(format!("{name}.encodings.jsonl")));
    }
}

#[test]
fn rendered_chats_have_the_references_ids() {
    let mut tokenizers = Tokenizers::new();
    let file = tokenizers.folder.join("chat/chat.jsonl");
    let mut tally = Tally::new(&file);
    for line in lines(&file) {
        let Some(rendered) = line["rendered"].as_str() else { continue };
        match tokenizers.get(line["ids_tokenizer"].as_str().unwrap()) {
            Some(tokenizer) => tally.check(rendered, json(&encode(tokenizer, rendered, Special::Parse)), &line["ids"]),
            None => tally.skipped += 1,
        }
    }
    tally.end();
}

#[test]
fn ill_formed_text_is_read_as_the_reference_does() {
    let mut tokenizers = Tokenizers::new();
    let file = tokenizers.folder.join("golden/invalid.jsonl");
    let mut tally = Tally::new(&file);
    for line in lines(&file) {
        let Some(tokenizer) = tokenizers.get(line["tokenizer"].as_str().unwrap()) else {
            tally.skipped += 1;
            continue;
        };
        let got = if let Some(hex) = line["hex"].as_str() {
            let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
            let bytes: Vec<u8> = (0..hex.len()).step_by(2).map(byte).collect();
            let got = tokenizer.encode_bytes(&bytes, Special::Text, Bos::AsWritten).unwrap();
            if line["tokenizer"] == "llama2" {
                tally.check(hex, json(&got), &line["ids"]);
            } else {
                let back: Vec<u8> = got.iter().flat_map(|id| tokenizer.token_bytes(*id).unwrap()).copied().collect();
                assert_eq!(back, bytes, "the round trip of {hex}");
            }
            got
        } else {
            let units: Vec<u16> = line["utf16"].as_array().unwrap().iter().map(|unit| unit.as_u64().unwrap() as u16).collect();
            let got = encode(tokenizer, &String::from_utf16_lossy(&units), Special::Text);
            tally.check(&format!("{units:x?}"), json(&got), &line["ids"]);
            got
        };
        tally.check(&format!("text of {got:?}"), Value::from(tokenizer.decode(&got).unwrap()), &line["decoded"]);
    }
    tally.end();
}

#[test]
fn streams_give_the_references_text_token_by_token() {
    let mut tokenizers = Tokenizers::new();
    let file = tokenizers.folder.join("stream/stream.jsonl");
    let mut tally = Tally::new(&file);
    for line in lines(&file) {
        let name = line["tokenizer"].as_str().unwrap();
        let Some(tokenizer) = tokenizers.get(name) else {
            tally.skipped += 1;
            continue;
        };
        let mut stream = tokenizer.decode_stream();
        let steps: Vec<String> = ids(&line["ids"]).into_iter().map(|id| stream.push(id).unwrap()).collect();
        tally.check(&format!("steps of {}", line["ids"]), Value::from(steps.as_slice()), &line["steps"]);
        tally.check(&format!("what is left of {}", line["ids"]), Value::from(stream.flush()), &line["flush"]);
        tally.check(
            &format!("text of {}", line["ids"]),
            Value::from(tokenizer.decode(&ids(&line["ids"])).unwrap()),
            &line["decoded"],
        );
        if name == "llama2"
            && line["decoded_hf"].is_string()
            && let Some(tokenizer) = tokenizers.get("llama2-hf")
        {
            let got = tokenizer.decode(&ids(&line["ids"])).unwrap();
            tally.check(&format!("Hugging Face's text of {}", line["ids"]), Value::from(got), &line["decoded_hf"]);
        }
    }
    tally.end();
}
