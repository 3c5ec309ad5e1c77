//! Measures reading and writing speed, as llama-bench does.
//!
//!     cargo run --release --example bench -- --model FOLDER_OR_FILE --prompt 512 --generate 64
//!
//! Prints one table: tokens a second for `pp512` (reading a prompt) and `tg64` (writing), mean and standard deviation.

mod shared;

use std::time::Instant;

use clap::{Parser, ValueEnum};
use puna::llama::{Config, Engine, InitialWeights, Module};
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
    /// How many sequences are written side by side; their tokens are counted together.
    #[arg(long, default_value_t = 1)]
    batch: usize,
    /// In place of a model, random weights in the shape of Llama 3.2 1B or 3.1 8B, bf16 (or --dtype), made on the device.
    #[arg(long)]
    random: Option<Size>,
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
enum Size {
    #[value(name = "1b")]
    OneB,
    #[value(name = "8b")]
    EightB,
}

impl Size {
    fn name(self) -> &'static str {
        match self {
            Self::OneB => "random 1B",
            Self::EightB => "random 8B",
        }
    }

    /// The shape, as the models' own files give it.
    fn config(self) -> shared::Result<Config> {
        let (hidden, intermediate, layers, heads, head_dim, tied) = match self {
            Self::OneB => (2048, 8192, 16, 32, 64, true),
            Self::EightB => (4096, 14336, 32, 32, 128, false),
        };
        let json = json!({
            "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": hidden, "intermediate_size": intermediate,
            "num_hidden_layers": layers, "num_attention_heads": heads, "num_key_value_heads": 8, "head_dim": head_dim,
            "vocab_size": 128256, "max_position_embeddings": 131072, "rms_norm_eps": 1e-5, "rope_theta": 500000.0,
            "tie_word_embeddings": tied, "bos_token_id": 128000, "eos_token_id": 128001,
        });
        Ok(Config::from_hf_json(self.name(), json.to_string().as_bytes())?)
    }
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
    let engine = match arguments.random {
        None => arguments.model.load_engine_with(|loader| loader.prefill_chunk(arguments.chunk))?,
        Some(size) => {
            let (config, device) = (size.config()?, arguments.model.device.device()?);
            // As many as the tests fill, and no context of 131072.
            let tokens = (arguments.prompt + arguments.generate + 64) * arguments.batch.max(1);
            let loader = Model::loader().prefill_chunk(arguments.chunk).cache_tokens(tokens);
            let loader = loader.dtype(arguments.model.dtype.unwrap_or(DType::BF16));
            loader.activations(arguments.model.activations.unwrap_or(DType::BF16)).engine_of(
                &config,
                &InitialWeights::new(&config, 0),
                &device,
            )?
        }
    };
    let load_seconds = started.elapsed().as_secs_f64();
    let mut rows = Vec::new();
    let tests =
        [(format!("pp{}", arguments.prompt), arguments.prompt, 0), (format!("tg{}", arguments.generate), 0, arguments.generate)];
    for (name, prompt, generate) in tests.into_iter().filter(|(_, prompt, generate)| prompt + generate > 0) {
        let bar = shared::bar("measuring");
        bar.set_length(arguments.repeat as u64 + 1);
        let mut speeds = Vec::new();
        for run in 0..=arguments.repeat {
            let seconds = measure(&engine, prompt, generate, arguments.batch, run as u32)?;
            // The first run warms up.
            if run > 0 {
                speeds.push(((prompt + generate) * arguments.batch) as f64 / seconds);
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
fn measure(engine: &Engine, prompt: usize, generate: usize, sequences: usize, run: u32) -> shared::Result<f64> {
    let vocab = engine.llama.config.vocab_size as u32;
    let mut batch = engine.batch();
    // Reading ends with the first token drawn; writing begins there.
    let options = Options { max_tokens: Some(generate + 1), ignore_end: true, ..Options::default() };
    let mut ids = Vec::new();
    for sequence in 0..sequences as u32 {
        let token = |i: u32| (i.wrapping_mul(7919).wrapping_add(13 + run + 101 * sequence)) % vocab;
        let tokens: Vec<u32> = (0..prompt.max(1) as u32).map(token).collect();
        ids.push(batch.add(&tokens, options.clone())?);
    }
    let mut started = Instant::now();
    while ids.iter().any(|id| batch.pending(*id) > 0) {
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
    let name = match arguments.random {
        Some(size) => size.name(),
        None => arguments.model.name(),
    };
    let model = std::path::Path::new(name).file_name().map_or(name.to_owned(), |name| name.to_string_lossy().into());
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
