//! A training step of a model of SmolLM2-135M's shape (4 rows of 256 tokens, f32, AdamW, gradients clipped), beside PyTorch in the same run.
//!
//!     PUNA_TORCH=python3 cargo bench -p puna-benches --bench training -- [THREADS]
//!
//! `PUNA_TORCH` names a Python that has PyTorch. Steps are interleaved, one of ours, one of theirs, so that a machine whose speed drifts slows
//! both; while one works, the other waits for a line. Printed: medians with the smallest and the largest, in seconds, the ratio of the medians,
//! and the largest memory that each process had.
//!
//! Roof: 6 multiply-adds' worth of operations a parameter and token, 0.83 TFLOP a step, at what the matrix kernel reaches (`--bench matmul`).

use std::io::{BufRead, BufReader, Write};
use std::num::NonZeroUsize;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Instant;

use puna::llama::{Config, InitialWeights, Llama, LoadOptions, RotaryTable, Step};
use puna::prelude::*;
use puna_autograd::backward;
use puna_autograd::optim::{AdamW, AdamWOptions, Optimizer, clip};

type Error = Box<dyn std::error::Error>;

const ROWS: usize = 4;
const LENGTH: usize = 256;
const ROUNDS: usize = 9;
/// The first steps ask the system for memory.
const WARM: usize = 3;

const CONFIG: &str = r#"{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 576, "intermediate_size": 1536,
    "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3, "vocab_size": 49152, "rms_norm_eps": 1e-5,
    "max_position_embeddings": 2048, "rope_theta": 100000.0, "tie_word_embeddings": true}"#;

fn main() -> Result<(), Error> {
    let threads = std::env::args().skip(1).find(|argument| !argument.starts_with("--")).map_or(Ok(2), |n| n.parse())?;
    let device = puna::device_with_threads("cpu", NonZeroUsize::new(threads))?;
    let config = Config::from_hf_json("config.json", CONFIG.as_bytes())?;
    let options = LoadOptions { dtype: Some(DType::F32), activations: None, pack: false, progress: &mut |_| {} };
    let mut llama = Llama::from_weights(&config, &InitialWeights::new(&config, 0), &device, options)?;
    let parameters = llama.track(|_, _| true)?;
    let mut adamw = AdamW::new(AdamWOptions::default());
    let numbers = |factor: u32| (0..(ROWS * LENGTH) as u32).map(|i| i * factor % 49152).collect::<Vec<u32>>();
    let (ids, labels) = (numbers(7919), numbers(4409));
    let ids = Tensor::from_slice(&ids, ids.len(), &device)?;
    let labels = Tensor::from_slice(&labels, labels.len(), &device)?;
    let starts: Vec<u32> = (0..=ROWS).map(|row| (row * LENGTH) as u32).collect();
    let step = Step::packed(&llama, &RotaryTable::base(&config), &starts)?;

    let mut peer = Peer::start(threads)?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for round in 0..WARM + ROUNDS {
        let begin = Instant::now();
        let (sum, count) = llama.loss(&llama.forward(&ids, &step)?, &labels)?;
        let gradients = backward(&sum)?;
        let clipped = clip(&parameters, &gradients, 1.0 / f64::from(count.item::<u32>()?), 1.0)?;
        adamw.step(&parameters, &gradients, 1e-4, clipped.factor)?;
        drop(gradients);
        let own = begin.elapsed().as_secs_f64();
        let other = peer.as_mut().map(Peer::step).transpose()?;
        if round >= WARM {
            ours.push(own);
            theirs.extend(other);
        }
    }
    println!("{ROWS} x {LENGTH} tokens, f32, {threads} threads, {ROUNDS} rounds");
    let own = spread(&mut ours);
    println!("puna: {} s, peak {:.2} GiB", own.1, peak() / f64::from(1 << 30));
    match peer {
        Some(peer) => {
            let other = spread(&mut theirs);
            println!("PyTorch: {} s, peak {:.2} GiB", other.1, peer.peak / f64::from(1 << 30));
            println!("ratio of the medians {:.3}", own.0 / other.0);
        }
        None => println!("no peer: PUNA_TORCH names no Python"),
    }
    Ok(())
}

/// The median, and a text of it with the smallest and the largest.
fn spread(seconds: &mut [f64]) -> (f64, String) {
    seconds.sort_by(f64::total_cmp);
    let median = seconds[seconds.len() / 2];
    (median, format!("{median:.3} ({:.3}-{:.3})", seconds[0], seconds[seconds.len() - 1]))
}

/// The largest memory that this process had, in bytes.
fn peak() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).and_then(|line| line.split_whitespace().next());
    line.and_then(|kib| kib.parse::<f64>().ok()).map_or(f64::NAN, |kib| kib * 1024.0)
}

struct Peer {
    process: Child,
    answers: BufReader<ChildStdout>,
    peak: f64,
}

impl Peer {
    fn start(threads: usize) -> Result<Option<Self>, Error> {
        let Ok(python) = std::env::var("PUNA_TORCH") else { return Ok(None) };
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/training.py");
        let arguments = [threads, ROWS, LENGTH].map(|number| number.to_string());
        let mut process = Command::new(&python)
            .arg(script)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| format!("PUNA_TORCH: {python}: {e}"))?;
        let answers = BufReader::new(process.stdout.take().expect("it is piped"));
        Ok(Some(Self { process, answers, peak: 0.0 }))
    }

    /// One step; its seconds.
    fn step(&mut self) -> Result<f64, Error> {
        writeln!(self.process.stdin.as_mut().expect("it is piped"))?;
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        let mut numbers = line.split_whitespace().map(str::parse::<f64>);
        let (Some(Ok(seconds)), Some(Ok(peak))) = (numbers.next(), numbers.next()) else {
            return Err(format!("PUNA_TORCH: {line:?} is no answer; a Python with torch would be right").into());
        };
        self.peak = peak;
        Ok(seconds)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        let _ = self.process.wait();
    }
}
