//! Encodes and decodes text, line by line, to compare with other implementations.
//!
//!     echo '{"text": "Hello world"}' | cargo run --release --example tokenize -- --tokenizer FILE_OR_MODEL
//!
//! Reads JSON lines `{"text": .., "special": false}` and writes `{"ids": [..]}`; with `--decode` the other way round.

mod shared;

use std::io::{BufRead, Write};

use clap::Parser;
use puna::llama::Checkpoint;
use puna::tokenizer::{Bos, Special, Tokenizer};
use serde_json::{Value, json};

/// Encodes JSON lines of text to token ids, or decodes them.
#[derive(Parser)]
struct Arguments {
    /// A tokenizer file (tokenizer.json, tokenizer.model), or a model that has one: a folder, a GGUF, `org/name`.
    #[arg(long)]
    tokenizer: String,
    /// Reads `{"ids": [..]}` and writes `{"text": ..}`.
    #[arg(long)]
    decode: bool,
}

fn main() -> std::process::ExitCode {
    shared::exit(run(Arguments::parse()))
}

fn run(arguments: Arguments) -> shared::Result<()> {
    let tokenizer = open(&arguments.tokenizer)?;
    let (input, mut out) = (std::io::stdin().lock(), std::io::stdout().lock());
    for (number, line) in input.split(b'\n').enumerate() {
        let answer = serde_json::from_slice(&line?)
            .map_err(|e| e.to_string())
            .and_then(|value| if arguments.decode { decode(&tokenizer, &value) } else { encode(&tokenizer, &value) })
            .map_err(|e| format!("line {}: {e}", number + 1))?;
        writeln!(out, "{answer}")?;
    }
    Ok(())
}

fn open(what: &str) -> shared::Result<Tokenizer> {
    let path = puna::llama::hub::resolve(what)?;
    let is_model = path.is_dir() || path.extension().is_some_and(|extension| extension == "gguf");
    Ok(if is_model { Checkpoint::open(&path)?.read_tokenizer()? } else { Tokenizer::from_file(&path)? })
}

fn encode(tokenizer: &Tokenizer, value: &Value) -> Result<Value, String> {
    let text = value["text"].as_str().ok_or("there is no text; a line is {\"text\": \"..\"}")?;
    let special = match &value["special"] {
        Value::Null | Value::Bool(false) => Special::Text,
        Value::Bool(true) => Special::Parse,
        other => return Err(format!("special is {other}; it is true or false")),
    };
    Ok(json!({ "ids": tokenizer.encode(text, special, Bos::AsWritten).map_err(|e| e.to_string())? }))
}

fn decode(tokenizer: &Tokenizer, value: &Value) -> Result<Value, String> {
    let ids = value["ids"].as_array().ok_or("there are no ids; a line is {\"ids\": [..]}")?;
    let id = |id: &Value| id.as_u64().and_then(|id| u32::try_from(id).ok()).ok_or_else(|| format!("{id} is no token id"));
    let ids = ids.iter().map(id).collect::<Result<Vec<_>, _>>()?;
    Ok(json!({ "text": tokenizer.decode(&ids).map_err(|e| e.to_string())? }))
}
