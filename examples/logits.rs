//! Writes a model's logits for given tokens, to compare with other implementations.
//!
//!     cargo run --release --example logits -- --model FOLDER --tokens 1,2,3 --greedy 8 --out logits.safetensors
//!
//! The file holds `logits`, f32 `[tokens, vocab]`, and with `--greedy N` also `greedy_ids`, i64 `[N]`.

mod shared;

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Parser;
use puna::prelude::*;
use safetensors::tensor::{Dtype, TensorView};

/// Writes the logits of every token, and the greedy continuation.
#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    model: shared::ModelArguments,
    /// Token ids, separated by commas. None is added.
    #[arg(long, value_delimiter = ',', required = true)]
    tokens: Vec<u32>,
    /// How many tokens to continue greedily, past every end token.
    #[arg(long)]
    greedy: Option<usize>,
    /// Where to write.
    #[arg(long)]
    out: PathBuf,
}

fn main() -> std::process::ExitCode {
    shared::exit(run(Arguments::parse()))
}

fn run(arguments: Arguments) -> shared::Result<()> {
    let engine = arguments.model.load_engine()?;
    let logits = engine.llama.sequence_logits(&arguments.tokens)?.cast(DType::F32)?;
    let shape = logits.shape().to_vec();
    let bytes = logits.to_bytes()?;
    let mut tensors = BTreeMap::from([("logits", TensorView::new(Dtype::F32, shape, &bytes)?)]);
    let mut greedy = Vec::new();
    if let Some(count) = arguments.greedy {
        let options = Options { max_tokens: Some(count), ignore_end: true, ..Options::default() };
        let mut batch = engine.batch();
        batch.add(&arguments.tokens, options)?;
        while !batch.is_done() {
            batch.step()?;
        }
        let ids = &batch.tokens(0)[arguments.tokens.len()..];
        if ids.len() < count {
            return Err(format!("the context is full after {} of {count} tokens", ids.len()).into());
        }
        greedy.extend(ids.iter().flat_map(|&id| i64::from(id).to_le_bytes()));
        tensors.insert("greedy_ids", TensorView::new(Dtype::I64, vec![count], &greedy)?);
    }
    safetensors::serialize_to_file(tensors, None, &arguments.out)?;
    Ok(())
}
