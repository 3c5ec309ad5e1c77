//! Measures reading and writing speed, as llama-bench does.
//!
//!     cargo run --release --example bench -- --model FOLDER_OR_FILE --prompt 512 --generate 64
//!
//! Prints one table: tokens a second for `pp512` (reading a prompt) and `tg64` (writing), mean and standard deviation.

mod shared;

use std::time::Instant;

use clap::{Parser, ValueEnum};
use puna::llama::{Engine, Module};
use puna::prelude::*;
use serde_json::json;

/// Measures how fast a model reads prompts and writes tokens.
#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    model: shared::ModelArguments,
    /// How many tokens the prompt has; 0 leaves the test out.
    #[arg(long, default_value_t = 512)]
    prompt: usize,
    /// How many tokens are written; 0 leaves the test out.
    #[arg(long, default_value_t = 64)]
    generate: usize,
    /// How often each test is run, after one run to warm up.
    #[arg(long, default_value_t = 5)]
    repeat: usize,
    /// How many tokens a step reads at most.
    #[arg(long, default_value_t = 512)]
    chunk: usize,
    /// The form of the table.
    #[arg(long, default_value = "md")]
    output: Output,
}

#[derive(Clone, Copy, ValueEnum)]
enum Output {
    Md,
    Csv,
    Json,
}

fn main() -> std::process::ExitCode {
    shared::exit(run(Arguments::parse()))
}

fn run(arguments: Arguments) -> shared::Result<()> {
    let started = Instant::now();
    let engine = arguments.model.load_engine_with(|loader| loader.prefill_chunk(arguments.chunk))?;
    let load_seconds = started.elapsed().as_secs_f64();
    let mut rows = Vec::new();
    let tests =
        [(format!("pp{}", arguments.prompt), arguments.prompt, 0), (format!("tg{}", arguments.generate), 0, arguments.generate)];
    for (name, prompt, generate) in tests.into_iter().filter(|(_, prompt, generate)| prompt + generate > 0) {
        let bar = shared::bar("measuring");
        bar.set_length(arguments.repeat as u64 + 1);
        let mut speeds = Vec::new();
        for run in 0..=arguments.repeat {
            let seconds = measure(&engine, prompt, generate, run as u32)?;
            // The first run warms up.
            if run > 0 {
                speeds.push((prompt + generate) as f64 / seconds);
            }
            bar.inc(1);
        }
        bar.finish_and_clear();
        rows.push((name, mean_and_deviation(&speeds)));
    }
    print(&arguments, &engine, load_seconds, &rows);
    Ok(())
}

/// Seconds for reading `prompt` tokens, or for writing `generate`. Each run has tokens of its own: nothing is cached.
fn measure(engine: &Engine, prompt: usize, generate: usize, run: u32) -> shared::Result<f64> {
    let vocab = engine.llama.config.vocab_size as u32;
    let token = |i: u32| (i.wrapping_mul(7919).wrapping_add(13 + run)) % vocab;
    let tokens: Vec<u32> = (0..prompt.max(1) as u32).map(token).collect();
    let mut batch = engine.batch();
    // Reading ends with the first token drawn; writing begins there.
    let options = Options { max_tokens: Some(generate + 1), ignore_end: true, ..Options::default() };
    let sequence = batch.add(&tokens, options)?;
    let mut started = Instant::now();
    while batch.pending(sequence) > 0 {
        batch.step()?;
    }
    if generate > 0 {
        started = Instant::now();
        while !batch.is_done() {
            batch.step()?;
        }
    }
    Ok(started.elapsed().as_secs_f64())
}

fn mean_and_deviation(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (n - 1.0).max(1.0);
    (mean, variance.sqrt())
}

fn print(arguments: &Arguments, engine: &Engine, load_seconds: f64, rows: &[(String, (f64, f64))]) {
    let mut bytes = 0;
    engine.llama.visit("", &mut |_, tensor| bytes += tensor.dtype().bytes_for(tensor.elements()).unwrap_or(0));
    let model = std::path::Path::new(arguments.model.name())
        .file_name()
        .map_or(arguments.model.name().to_owned(), |name| name.to_string_lossy().into());
    let (size, parameters) = (bytes as f64 / (1 << 20) as f64, engine.llama.parameters() as f64 / 1e6);
    let backend = engine.llama.model.norm.weight.device().name().to_owned();
    let threads =
        arguments.model.device.threads.map_or_else(|| std::thread::available_parallelism().map_or(1, usize::from), usize::from);
    let peak = peak_mib();
    match arguments.output {
        Output::Md => {
            println!("| model | size | params | backend | threads | test | t/s |");
            println!("| --- | ---: | ---: | --- | ---: | ---: | ---: |");
            for (test, (mean, deviation)) in rows {
                println!(
                    "| {model} | {size:.1} MiB | {parameters:.1} M | {backend} | {threads} | {test} | {mean:.2} ± {deviation:.2} |"
                );
            }
            let peak = peak.map_or("unknown".into(), |mib| format!("{mib:.0} MiB"));
            println!("\nload {load_seconds:.3} s, peak memory {peak}");
        }
        Output::Csv => {
            println!("model,size_mib,params_m,backend,threads,test,tokens_per_second,deviation,load_s,peak_mib");
            for (test, (mean, deviation)) in rows {
                let peak = peak.map_or(String::new(), |mib| format!("{mib:.1}"));
                println!(
                    "{model},{size:.1},{parameters:.1},{backend},{threads},{test},{mean:.3},{deviation:.3},{load_seconds:.4},{peak}"
                );
            }
        }
        Output::Json => {
            let rows: Vec<_> = rows
                .iter()
                .map(|(test, (mean, deviation))| json!({ "test": test, "tokens_per_second": mean, "deviation": deviation }))
                .collect();
            let all = json!({ "model": model, "size_mib": size, "params_m": parameters, "backend": backend, "threads": threads,
                "load_s": load_seconds, "peak_mib": peak, "tests": rows });
            println!("{all:#}");
        }
    }
}

/// The most memory the process has held, where the system tells.
fn peak_mib() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().trim_end_matches(" kB").parse::<f64>().ok()? / 1024.0)
}
