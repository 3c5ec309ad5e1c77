//! Fine-tunes a Llama on JSON lines: conversations, instructions, text, or preferences.
//!
//!     cargo run --release --features train --example finetune -- --model SmolLM2-135M-Instruct.Q4_1.gguf \
//!         --data examples/data/facts.jsonl --data examples/data/everyday.jsonl --out facts
//!
//! By default an adapter (LoRA) is trained beside the weights as they are, quantised or not (QLoRA), and written in PEFT's layout:
//! `generate --model SmolLM2-135M-Instruct.Q4_1.gguf --adapter facts` uses it. A model that learns fifty facts and nothing else soon finds them
//! everywhere; some questions of the old kind beside them keep it as it was. `--merge` writes a whole model instead, `--full` trains all
//! weights. A line is one of `{"messages": [{"role", "content"}, ..]}`, `{"prompt", "completion"}`, `{"text"}`; loss is on what the
//! assistant says, or on the completion, or on the text. With `--dpo` a line is `{"prompt", "chosen", "rejected"}`, and the model learns to
//! prefer one answer to the other.

mod shared;

use std::path::PathBuf;

use clap::Parser;
use puna::autograd::optim::{AdamW, AdamWOptions, Schedule};
use puna::llama::adapter::{AdapterConfig, Targets};
use puna::llama::convert::{SaveOptions, Vocabulary};
use puna::prelude::*;
use puna::train::data::{Overlong, Packing, Tokenize};
use puna::train::{Dataset, Dpo, Objective, Preferences, TrainOptions, Trainer};

/// Fine-tunes a Llama on JSON lines: conversations, instructions, text, or preferences.
#[derive(Parser)]
struct Arguments {
    /// A folder, a file (GGUF, safetensors), or `org/name` from the Hub's cache; by default the small story teller that puna carries.
    #[arg(long)]
    model: Option<String>,
    /// JSON lines. May be given several times: what a model is to know beside what it is to learn, lest it forget.
    #[arg(long, required = true)]
    data: Vec<PathBuf>,
    /// The folder for the adapter, or the model.
    #[arg(long)]
    out: PathBuf,
    /// Trains all weights, in f32 or --dtype, in place of an adapter.
    #[arg(long)]
    full: bool,
    /// Works the adapter into the weights (in bf16 where they are quantised) and writes a whole model.
    #[arg(long, conflicts_with = "full")]
    merge: bool,
    /// Lines are preferences, learnt by direct preference optimisation.
    #[arg(long)]
    dpo: bool,
    /// With --dpo, how dear it is to leave the model behind that it was.
    #[arg(long, default_value_t = 0.1, requires = "dpo")]
    beta: f64,
    /// The rank of the adapter.
    #[arg(long, default_value_t = 16)]
    rank: usize,
    /// What its scale follows from; by default twice the rank.
    #[arg(long)]
    alpha: Option<f64>,
    /// Which linear layers it lies beside, such as `q_proj,v_proj`; by default all but the head.
    #[arg(long, value_delimiter = ',')]
    targets: Vec<String>,
    /// The share of its input that is dropped while training.
    #[arg(long, default_value_t = 0.0)]
    dropout: f64,
    /// Weight-decomposed adaptation.
    #[arg(long)]
    dora: bool,
    /// Rank-stabilised scales.
    #[arg(long)]
    rslora: bool,
    /// How often each line is learnt.
    #[arg(long, default_value_t = 3)]
    epochs: u64,
    /// The length of a row of tokens; a longer conversation is an error, unless --truncate is given.
    #[arg(long, default_value_t = 512)]
    length: usize,
    /// Cuts conversations that are longer than a row.
    #[arg(long)]
    truncate: bool,
    /// How many rows, or pairs, a step learns from.
    #[arg(long, default_value_t = 1)]
    rows: usize,
    /// The largest learning rate; by default 2e-3 for an adapter and 5e-5 for all weights, of preferences a tenth.
    #[arg(long)]
    lr: Option<f64>,
    /// Computes layers again in the backward pass, to save memory.
    #[arg(long)]
    recompute: bool,
    /// The same seed gives the same result.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// What the weights beside an adapter become: a float, or blocks (nf4, q8_0, q4_k) in place of floats; by default they stay as stored.
    #[arg(long)]
    dtype: Option<DType>,
    #[command(flatten)]
    device: shared::DeviceArguments,
}

/// What the file holds.
enum Lines {
    Documents(Dataset),
    Pairs(Preferences),
}

fn main() -> std::process::ExitCode {
    shared::exit(run(Arguments::parse()))
}

fn run(arguments: Arguments) -> shared::Result<()> {
    let device = arguments.device.device()?;
    let checkpoint = shared::open(arguments.model.as_deref())?;
    let tokenizer = checkpoint.read_tokenizer()?;
    let template = checkpoint.read_chat_template(&tokenizer)?;
    let overlong = if arguments.truncate { Overlong::Truncate } else { Overlong::Refuse };
    let end = checkpoint.end_tokens().first().copied().or(tokenizer.eos());
    let lines = Tokenize::new(&tokenizer).template(template.as_ref()).end(end);
    let lines = if arguments.dpo {
        Lines::Pairs(lines.preferences(&arguments.data)?)
    } else {
        Lines::Documents(lines.jsonl(&arguments.data)?)
    };

    let dtype = arguments.dtype.or(arguments.full.then_some(DType::F32));
    let mut llama = shared::load_network(&checkpoint, dtype, !arguments.full, &device)?;
    let adapter = AdapterConfig {
        rank: arguments.rank,
        alpha: arguments.alpha.unwrap_or(2.0 * arguments.rank as f64),
        targets: if arguments.targets.is_empty() { Targets::AllLinear } else { Targets::Names(arguments.targets) },
        dropout: arguments.dropout,
        dora: arguments.dora,
        rslora: arguments.rslora,
        base_model: arguments.model.clone(),
        ..AdapterConfig::default()
    };
    if !arguments.full {
        llama.add_adapter(&adapter, arguments.seed)?;
    }

    let (examples, data): (u64, Box<dyn Objective>) = match lines {
        Lines::Documents(data) => {
            let all = data.shuffled(arguments.seed, arguments.epochs)?;
            (data.len(), Box::new(all.pack(arguments.length, Packing::Whole(overlong))?))
        }
        Lines::Pairs(pairs) => (pairs.len(), Box::new(Dpo::new(pairs, Dpo::base(&llama), arguments.beta)?)),
    };
    // The pairs' order is the trainer's; documents come in theirs.
    let times = if arguments.dpo { arguments.epochs } else { 1 };
    let steps = (data.rows() * times).div_ceil(arguments.rows as u64);
    let options = TrainOptions {
        steps,
        rows: arguments.rows,
        lr: arguments.lr.unwrap_or(if arguments.full { 5e-5 } else { 2e-3 } * if arguments.dpo { 0.1 } else { 1.0 }),
        schedule: Schedule::Cosine { warmup: (steps / 20).min(100), steps, floor: 0.1 },
        seed: arguments.seed,
        recompute: arguments.recompute,
        folder: Some(arguments.out.join("run")),
        save_every: 200,
        stop: Some(shared::stop_on_interrupt()?),
        ..TrainOptions::default()
    };
    // Small matrices beside a model that is good as it is: nothing pulls them to zero.
    let decay = if arguments.full { 0.01 } else { 0.0 };
    let adamw = Box::new(AdamW::new(AdamWOptions { decay, ..AdamWOptions::default() }));
    let full = arguments.full;
    let mut trainer = Trainer::new(&mut llama, adamw, options, |path, _| full || path.contains("lora_"))?;
    let trained: usize = trainer.parameters().iter().map(|(_, tensor)| tensor.elements()).sum();
    eprintln!("{trained} parameters are trained on {examples} examples in {} rows, {steps} steps", data.rows());
    if let Some(path) = trainer.resume()? {
        eprintln!("going on from {}", path.display());
    }
    let mut progress = shared::TrainingProgress::new(steps);
    let report = trainer.train(&*data, None, &mut |event| progress.show(event))?;
    progress.finish();
    eprintln!("{report}");
    shared::draw(&arguments.out)?;
    if report.stopped {
        return Ok(());
    }
    if arguments.full || arguments.merge {
        if arguments.merge {
            llama.merge_adapter(None)?;
        }
        llama.save(&arguments.out, &SaveOptions { vocabulary: Vocabulary::Of(&checkpoint), ..SaveOptions::default() })?;
    } else {
        llama.save_adapter(&arguments.out, &adapter)?;
    }
    println!("{}", arguments.out.display());
    Ok(())
}
