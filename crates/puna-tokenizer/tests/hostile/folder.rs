use std::fs;

use puna_tokenizer::Tokenizer;
use serde_json::json;

use crate::builders::good_byte_level;
use crate::refused;

/// A folder that goes when the test ends.
struct Folder(std::path::PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("puna-tokenizer-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn paths_without_a_tokenizer_are_refused_with_the_path() {
    let folder = Folder::new("empty");
    refused(Tokenizer::from_file(&folder.0), &["puna-tokenizer-", "the folder holds none"]);
    refused(Tokenizer::from_file(folder.0.join("tokenizer.json")), &["tokenizer.json", "No such file"]);
    fs::write(folder.0.join("tokenizer.json"), "{\"model\": {}}").unwrap();
    refused(Tokenizer::from_file(&folder.0), &["empty/tokenizer.json: tokenizer.json: ", "line 1"]);
}

#[test]
fn a_config_that_names_no_token_is_refused() {
    let folder = Folder::new("config");
    fs::write(folder.0.join("tokenizer.json"), good_byte_level().to_string()).unwrap();
    let config = folder.0.join("tokenizer_config.json");
    fs::write(&config, json!({"bos_token": {"content": "<s>"}, "eos_token": "ab", "pad_token": null}).to_string()).unwrap();
    let tokenizer = Tokenizer::from_file(&folder.0).unwrap();
    assert_eq!((tokenizer.bos(), tokenizer.eos(), tokenizer.pad()), (Some(6), Some(3), None));
    fs::write(&config, json!({"eos_token": "</s>"}).to_string()).unwrap();
    refused(Tokenizer::from_file(&folder.0), &["tokenizer_config.json: eos_token", "\"</s>\" is no token"]);
    fs::write(&config, "{").unwrap();
    refused(Tokenizer::from_file(&folder.0), &["tokenizer_config.json", "line 1"]);
}
