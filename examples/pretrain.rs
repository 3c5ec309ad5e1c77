//! Trains a small Llama, and its tokenizer, from nothing on a text file.
//!
//!     cargo run --release --features train --example pretrain -- --data stories.txt --out my-llama
//!
//! Documents are separated by lines `<|endoftext|>`. What comes out is a Hugging Face folder: `generate --model my-llama` runs it.
//! Interrupted (Ctrl-C finishes the step and saves), the same command goes on where it stood.

mod shared;

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use clap::{Parser, ValueEnum};
use puna::autograd::optim::{AdamW, AdamWOptions, Muon, MuonOptions, Optimizer, Schedule};
use puna::llama::convert::{SaveOptions, Vocabulary};
use puna::llama::{Config, InitialWeights, Llama, LoadOptions};
use puna::prelude::*;
use puna::tokenizer::{Tokenizer, Trainer as TokenizerTrainer, TrainerOptions};
use puna::train::data::{Dataset, Packing, Tokenize};
use puna::train::{TrainOptions, Trainer};
use serde_json::json;

/// Trains a small Llama, and its tokenizer, from nothing on a text file.
#[derive(Parser)]
struct Arguments {
    /// Text; documents are separated by lines `<|endoftext|>`. May be given several times.
    #[arg(long, required = true)]
    data: Vec<PathBuf>,
    /// The folder for the model, and for what is needed to go on.
    #[arg(long)]
    out: PathBuf,
    /// How many tokens the tokenizer learns.
    #[arg(long, default_value_t = 1024)]
    vocab: usize,
    /// The width of the residual stream.
    #[arg(long, default_value_t = 128)]
    hidden: usize,
    /// The width of the feed-forward blocks; by default 8/3 of the stream, rounded up to a multiple of 32.
    #[arg(long)]
    intermediate: Option<usize>,
    /// How many layers.
    #[arg(long, default_value_t = 4)]
    layers: usize,
    /// How many query heads.
    #[arg(long, default_value_t = 4)]
    heads: usize,
    /// How many key and value heads.
    #[arg(long, default_value_t = 2)]
    kv_heads: usize,
    /// The length of a row of tokens, and the model's context.
    #[arg(long, default_value_t = 256)]
    context: usize,
    /// How many rows a step learns from.
    #[arg(long, default_value_t = 16)]
    rows: usize,
    /// In how many parts they are computed, to save memory.
    #[arg(long, default_value_t = 1)]
    accumulate: usize,
    /// How many steps.
    #[arg(long, default_value_t = 300)]
    steps: u64,
    /// The largest learning rate.
    #[arg(long, default_value_t = 3e-3)]
    lr: f64,
    /// Over how many steps it rises; it falls along a cosine to a tenth.
    #[arg(long, default_value_t = 50)]
    warmup: u64,
    /// What moves the weights.
    #[arg(long, default_value = "adamw")]
    optimizer: Kind,
    /// With muon, the share of the learning rate by which embedding, head and norms move. In long runs 0.2, with a deviation of some
    /// 1 / sqrt(hidden), keeps words apart that stand in the same places.
    #[arg(long, default_value_t = 1.0)]
    embedding_lr: f64,
    /// The standard deviation of the matrices to begin with.
    #[arg(long, default_value_t = 0.02)]
    deviation: f64,
    /// Computes layers again in the backward pass, to save memory.
    #[arg(long)]
    recompute: bool,
    /// What share of the documents is held out, to see whether it learns more than them.
    #[arg(long, default_value_t = 0.01)]
    held_out: f64,
    /// After how many steps the held-out documents are tried, and a checkpoint is written.
    #[arg(long, default_value_t = 100)]
    every: u64,
    /// The same seed gives the same model.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// The dtype of the weights: f32, or bf16 with f32 masters.
    #[arg(long, default_value = "f32")]
    dtype: DType,
    /// In which dtype the model is written.
    #[arg(long)]
    save_dtype: Option<DType>,
    #[command(flatten)]
    device: shared::DeviceArguments,
}

#[derive(Clone, Copy, ValueEnum)]
enum Kind {
    Adamw,
    Muon,
}

fn main() -> std::process::ExitCode {
    shared::exit(run(Arguments::parse()))
}

fn run(arguments: Arguments) -> shared::Result<()> {
    let device = arguments.device.device()?;
    std::fs::create_dir_all(&arguments.out).map_err(|e| format!("{}: {e}", arguments.out.display()))?;
    let tokenizer = tokenizer(&arguments)?;
    let data = tokens(&arguments, &tokenizer)?;
    let (data, held_out) = data.split(arguments.held_out, arguments.seed)?;
    let (data, held_out) =
        (data.pack(arguments.context, Packing::Contiguous)?, held_out.pack(arguments.context, Packing::Contiguous)?);

    let config = config(&arguments, &tokenizer)?;
    let options = LoadOptions { dtype: Some(arguments.dtype), activations: None, pack: false, progress: &mut |_| {} };
    let mut weights = InitialWeights::new(&config, arguments.seed);
    weights.deviation = arguments.deviation;
    let mut llama = Llama::from_weights(&config, &weights, &device, options)?;
    let optimizer: Box<dyn Optimizer> = match arguments.optimizer {
        Kind::Adamw => Box::new(AdamW::new(AdamWOptions::default())),
        Kind::Muon => Box::new(Muon::new(MuonOptions { adamw_lr: arguments.embedding_lr, ..MuonOptions::default() })),
    };
    let Arguments { steps, rows, accumulate, lr, warmup, seed, recompute, every, .. } = arguments;
    let options = TrainOptions {
        steps,
        rows: rows.div_ceil(accumulate),
        accumulate,
        lr,
        schedule: Schedule::Cosine { warmup, steps, floor: 0.1 },
        seed,
        recompute,
        evaluate_every: every,
        save_every: every,
        folder: Some(arguments.out.join("run")),
        stop: Some(shared::stop_on_interrupt()?),
        ..TrainOptions::default()
    };
    eprintln!(
        "{} parameters, {} rows of {} tokens, {} held out",
        puna::llama::Module::parameters(&llama),
        data.len(),
        data.length(),
        held_out.len()
    );
    let mut trainer = Trainer::new(&mut llama, optimizer, options, |_, _| true)?;
    if let Some(path) = trainer.resume()? {
        eprintln!("going on from {}", path.display());
    }
    let mut progress = shared::TrainingProgress::new(steps);
    let report = trainer.train(&data, Some(&held_out), &mut |event| progress.show(event))?;
    progress.finish();
    eprintln!("{report}");
    shared::draw(&arguments.out)?;
    if report.stopped {
        return Ok(());
    }
    let save =
        SaveOptions { dtype: arguments.save_dtype, vocabulary: Vocabulary::New(&tokenizer, None), ..SaveOptions::default() };
    llama.save(&arguments.out, &save)?;
    println!("{}", arguments.out.display());
    Ok(())
}

/// The tokenizer of an interrupted run, or a new one.
fn tokenizer(arguments: &Arguments) -> shared::Result<Tokenizer> {
    let folder = arguments.out.join("run/tokenizer");
    if folder.join("tokenizer.json").exists() {
        return Ok(Tokenizer::from_file(&folder)?);
    }
    let mut trainer = TokenizerTrainer::new(TrainerOptions { vocab_size: arguments.vocab, ..TrainerOptions::default() })?;
    for path in &arguments.data {
        feed(path, &mut trainer)?;
    }
    let bar = shared::bar("tokenizer");
    let tokenizer = trainer.train(&mut |done, of| {
        bar.set_length(of as u64);
        bar.set_position(done as u64);
    })?;
    bar.finish_and_clear();
    std::fs::create_dir_all(&folder)?;
    let name = |id: Option<u32>| id.and_then(|id| tokenizer.token(id));
    let names = json!({"bos_token": name(tokenizer.bos()), "eos_token": name(tokenizer.eos())});
    puna::llama::weights::write::json_file(&folder.join("tokenizer_config.json"), &names)?;
    puna::llama::weights::write::json_file(&folder.join("tokenizer.json"), &tokenizer.to_tokenizer_json()?)?;
    Ok(tokenizer)
}

/// A document at a time, without the lines that separate them.
fn feed(path: &Path, trainer: &mut TokenizerTrainer) -> shared::Result<()> {
    let place = |e: &dyn std::fmt::Display| format!("{}: {e}", path.display());
    let mut document = String::new();
    for line in BufReader::new(File::open(path).map_err(|e| place(&e))?).lines() {
        let line = line.map_err(|e| place(&e))?;
        if line.trim_end() == "<|endoftext|>" {
            trainer.feed(&document)?;
            document.clear();
        } else {
            document.push_str(&line);
            document.push('\n');
        }
    }
    Ok(trainer.feed(&document)?)
}

/// The tokens of an interrupted run, or those of the files.
fn tokens(arguments: &Arguments, tokenizer: &Tokenizer) -> shared::Result<Dataset> {
    let path = arguments.out.join("run/tokens.bin");
    if path.exists() {
        return Ok(Dataset::open(&path)?);
    }
    let bar = shared::bar("tokens");
    let mut show = |progress: puna::train::data::Progress| {
        bar.set_length(progress.of);
        bar.set_position(progress.bytes);
    };
    let data = Tokenize::new(tokenizer).store(path).progress(&mut show).text(&arguments.data)?;
    bar.finish_and_clear();
    Ok(data)
}

fn config(arguments: &Arguments, tokenizer: &Tokenizer) -> shared::Result<Config> {
    let Arguments { hidden, intermediate, layers, heads, kv_heads, context, .. } = *arguments;
    let json = json!({
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": hidden,
        "intermediate_size": intermediate.unwrap_or((hidden * 8).div_ceil(3).next_multiple_of(32)),
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "vocab_size": tokenizer.vocab_size(),
        "max_position_embeddings": context,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "tie_word_embeddings": true,
        "bos_token_id": tokenizer.bos(),
        "eos_token_id": tokenizer.eos(),
    });
    Ok(Config::from_hf_json("the model asked for", json.to_string().as_bytes())?)
}
