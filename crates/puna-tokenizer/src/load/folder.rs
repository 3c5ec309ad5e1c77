//! Tokenizers from paths: a file, or a folder with what lies beside it.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{MOST_BYTES, check_size};
use crate::{Error, Result, Tokenizer};

/// In this order: `tokenizer.json` says more than the file that it was made from. Meta's folders hold `tokenizer.model`.
const NAMES: [&str; 3] = ["tokenizer.json", "tokenizer.model", "original/tokenizer.model"];

pub(super) fn read(path: &Path) -> Result<Tokenizer> {
    let file = if path.is_dir() {
        let file = NAMES.iter().map(|name| path.join(name)).find(|file| file.is_file());
        file.ok_or_else(|| Error::File {
            path: path.into(),
            source: Error::invalid("tokenizer", "the folder holds none; tokenizer.json or tokenizer.model would be right").into(),
        })?
    } else {
        path.into()
    };
    let in_file = |path: &Path, source: Error| Error::File { path: path.into(), source: source.into() };
    let mut tokenizer = Tokenizer::from_bytes(&bytes(&file)?).map_err(|source| in_file(&file, source))?;
    let config = file.with_file_name("tokenizer_config.json");
    if file.file_name().is_some_and(|name| name == "tokenizer.json") && config.is_file() {
        let value = serde_json::from_slice(&bytes(&config)?).map_err(Error::from);
        value.and_then(|value| tokenizer.heed(&value)).map_err(|source| in_file(&config, source))?;
    }
    Ok(tokenizer)
}

fn bytes(path: &Path) -> Result<Vec<u8>> {
    let io = |source| Error::Io { path: PathBuf::from(path), source };
    let file = File::open(path).map_err(io)?;
    let length = file.metadata().map_err(io)?.len();
    check_size("file", length).map_err(|source| Error::File { path: path.into(), source: source.into() })?;
    let mut bytes = Vec::with_capacity(length as usize);
    // What is no plain file may have no length and no end.
    file.take(MOST_BYTES + 1).read_to_end(&mut bytes).map_err(io)?;
    Ok(bytes)
}

impl Tokenizer {
    /// Heeds a `tokenizer_config.json`: which tokens begin, end and pad a text; for the class `LlamaTokenizer`, which builds its
    /// post-processor itself, also whether [`Bos::Add`](crate::Bos::Add) adds them.
    ///
    /// Errors: a token that the vocabulary does not have.
    fn heed(&mut self, config: &Value) -> Result<()> {
        for name in ["bos_token", "eos_token", "pad_token"] {
            // Text, or an added token with all its fields.
            let text = config[name].as_str().or_else(|| config[name]["content"].as_str());
            if let Some(text) = text {
                let missing = || Error::invalid(name, format!("{text:?} is no token of the vocabulary"));
                let id = self.id(text).ok_or_else(missing)?;
                *match name {
                    "bos_token" => &mut self.bos,
                    "eos_token" => &mut self.eos,
                    _ => &mut self.pad,
                } = Some(id);
            }
        }
        let class = config["tokenizer_class"].as_str().unwrap_or_default();
        if matches!(class, "LlamaTokenizer" | "LlamaTokenizerFast") {
            let flag = |name: &str, default: bool| config[name].as_bool().unwrap_or(default);
            self.template.before = self.bos.filter(|_| flag("add_bos_token", true)).into_iter().collect();
            self.template.behind = self.eos.filter(|_| flag("add_eos_token", false)).into_iter().collect();
        }
        Ok(())
    }
}
