//! Teaches a smaller Llama what a larger one with the same tokenizer knows.
//!
//!     cargo run --release --features train --example distill -- --data stories.txt --out small
//!
//! The student learns the teacher's distributions of each next token (their divergence at a temperature) beside the tokens themselves. It
//! begins with half of the teacher's layers, or with a model of one's own (`--student`). `--stored K` has the teacher run once, and keeps
//! its K likeliest tokens on disk. Data is text, documents separated by lines `<|endoftext|>`, or JSON lines (`*.jsonl`) as `finetune`
//! reads them. What comes out is a Hugging Face folder.

mod shared;

use std::path::PathBuf;

use clap::Parser;
use puna::autograd::optim::{AdamW, AdamWOptions, Schedule};
use puna::llama::convert::{SaveOptions, Vocabulary};
use puna::llama::{Checkpoint, Llama, Module};
use puna::prelude::*;
use puna::train::data::{Overlong, Packing, Tokenize};
use puna::train::{Distillation, StoredTeacher, TrainOptions, Trainer};

/// Teaches a smaller Llama what a larger one with the same tokenizer knows.
#[derive(Parser)]
struct Arguments {
    /// The teacher: a folder, a file, or `org/name` from the Hub's cache; by default the small story teller that puna carries.
    #[arg(long)]
    teacher: Option<String>,
    /// The student, with the teacher's tokenizer; by default some of the teacher's layers.
    #[arg(long)]
    student: Option<String>,
    /// How many of the teacher's layers the student begins with; by default half of them.
    #[arg(long, conflicts_with = "student")]
    layers: Option<usize>,
    /// Text, or JSON lines (`*.jsonl`).
    #[arg(long)]
    data: PathBuf,
    /// The folder for the student, and for what is needed to go on.
    #[arg(long)]
    out: PathBuf,
    /// The temperature of both distributions.
    #[arg(long, default_value_t = 2.0)]
    temperature: f64,
    /// The share of the divergence in the loss; the rest is the cross entropy of the tokens.
    #[arg(long, default_value_t = 0.5)]
    share: f64,
    /// Keeps so many of the teacher's likeliest tokens on disk, in place of running it beside the student.
    #[arg(long)]
    stored: Option<usize>,
    /// How many steps at most; by default one pass over the data.
    #[arg(long)]
    steps: Option<u64>,
    /// The length of a row of tokens.
    #[arg(long, default_value_t = 256)]
    length: usize,
    /// How many rows a step learns from.
    #[arg(long, default_value_t = 8)]
    rows: usize,
    /// The largest learning rate.
    #[arg(long, default_value_t = 1e-3)]
    lr: f64,
    /// What share of the documents is held out, to see what the student makes of text that it does not learn.
    #[arg(long, default_value_t = 0.02)]
    held_out: f64,
    /// After how many steps the held-out documents are tried, and a checkpoint is written.
    #[arg(long, default_value_t = 100)]
    every: u64,
    /// Computes layers again in the backward pass, to save memory.
    #[arg(long)]
    recompute: bool,
    /// The same seed gives the same student.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    device: shared::DeviceArguments,
}

fn main() -> std::process::ExitCode {
    shared::exit(run(Arguments::parse()))
}

fn run(arguments: Arguments) -> shared::Result<()> {
    let device = arguments.device.device()?;
    let checkpoint = shared::open(arguments.teacher.as_deref())?;
    let tokenizer = checkpoint.read_tokenizer()?;
    let template = checkpoint.read_chat_template(&tokenizer)?;
    let end = checkpoint.end_tokens().first().copied().or(tokenizer.eos());
    let documents = Tokenize::new(&tokenizer).template(template.as_ref()).end(end);
    let lines = arguments.data.extension().is_some_and(|extension| extension == "jsonl");
    let data = if lines { documents.jsonl(&[&arguments.data])? } else { documents.text(&[&arguments.data])? };
    let packing = if lines { Packing::Whole(Overlong::Truncate) } else { Packing::Contiguous };
    let (data, held_out) = data.split(arguments.held_out, arguments.seed)?;
    let (data, held_out) = (data.pack(arguments.length, packing)?, held_out.pack(arguments.length, packing)?);

    let teacher = load(&checkpoint, None, &device)?;
    let mut student = match &arguments.student {
        Some(student) => load(&shared::open(Some(student))?, Some(DType::F32), &device)?,
        None => {
            let all = load(&checkpoint, Some(DType::F32), &device)?;
            all.with_layers(arguments.layers.unwrap_or(all.config.layers.div_ceil(2)))?
        }
    };
    let (theirs, ours) = (Module::parameters(&teacher), Module::parameters(&student));
    let steps = arguments.steps.unwrap_or(data.len().div_ceil(arguments.rows as u64));
    eprintln!("a teacher of {theirs} parameters, a student of {ours}, {} rows, {steps} steps", data.len());

    let distillation = match arguments.stored {
        Some(k) => {
            let path = arguments.out.join("run/teacher.safetensors");
            let stored = if path.exists() { StoredTeacher::open(&path)? } else { store(&arguments, &data, &teacher, k)? };
            Distillation::stored(data, stored)?
        }
        None => Distillation::new(data, teacher.clone(), arguments.temperature)?,
    };
    let options = TrainOptions {
        steps,
        rows: arguments.rows,
        lr: arguments.lr,
        schedule: Schedule::Cosine { warmup: (steps / 20).min(100), steps, floor: 0.1 },
        seed: arguments.seed,
        recompute: arguments.recompute,
        evaluate_every: arguments.every,
        save_every: arguments.every,
        folder: Some(arguments.out.join("run")),
        stop: Some(shared::stop_on_interrupt()?),
        ..TrainOptions::default()
    };
    let adamw = Box::new(AdamW::new(AdamWOptions::default()));
    let mut trainer = Trainer::new(&mut student, adamw, options, |_, _| true)?;
    if let Some(path) = trainer.resume()? {
        eprintln!("going on from {}", path.display());
    }
    let mut progress = shared::TrainingProgress::new(steps);
    let report = trainer.train(&distillation.share(arguments.share)?, Some(&held_out), &mut |event| progress.show(event))?;
    progress.finish();
    eprintln!("{report}");
    shared::draw(&arguments.out)?;
    if report.stopped {
        return Ok(());
    }
    student.save(&arguments.out, &SaveOptions { vocabulary: Vocabulary::Of(&checkpoint), ..SaveOptions::default() })?;
    println!("{}", arguments.out.display());
    Ok(())
}

/// What is trained, which has a dtype, is not packed.
fn load(checkpoint: &Checkpoint, dtype: Option<DType>, device: &Device) -> shared::Result<Llama> {
    shared::load_network(checkpoint, dtype, dtype.is_none(), device)
}

/// Runs the teacher over the data and keeps what it says.
fn store(arguments: &Arguments, data: &puna::train::Packed, teacher: &Llama, k: usize) -> shared::Result<StoredTeacher> {
    let folder = arguments.out.join("run");
    std::fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let bar = shared::bar("teacher");
    let path = folder.join("teacher.safetensors");
    let stored = StoredTeacher::write(path, data, teacher.clone(), arguments.temperature, k, &mut |done, of| {
        bar.set_length(of);
        bar.set_position(done);
    });
    bar.finish_and_clear();
    Ok(stored?)
}
