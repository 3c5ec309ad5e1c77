//! Whole models on a card: how fast they write, read and learn beside what the card copies, and whether they let go of what they held.

use std::time::Instant;

use puna::llama::{Config, Engine, InitialWeights, Llama, LoadOptions, Module, Options, RotaryTable, Step};
use puna::prelude::*;
use puna_autograd::backward;
use puna_autograd::optim::{AdamW, AdamWOptions, Optimizer, clip};
use serde_json::{Value, json};

use crate::Result;

/// A model of random weights: its name, the shape of Llama 3.2 1B or 3.1 8B, and what its weights are kept in.
struct Shape {
    name: &'static str,
    hidden: usize,
    intermediate: usize,
    layers: usize,
    head_dim: usize,
    tied: bool,
    weights: &'static str,
}

const ONE_B: Shape =
    Shape { name: "1B bf16", hidden: 2048, intermediate: 8192, layers: 16, head_dim: 64, tied: true, weights: "bf16" };
const EIGHT_B: Shape =
    Shape { name: "8B bf16", hidden: 4096, intermediate: 14336, layers: 32, head_dim: 128, tied: false, weights: "bf16" };
const EIGHT_B_Q4: Shape = Shape { name: "8B Q4_K", weights: "Q4_K", ..EIGHT_B };

impl Shape {
    /// Much smaller, for a try without a card.
    fn small(self) -> Self {
        Self { hidden: 256, intermediate: 512, layers: 2, ..self }
    }

    fn config(&self) -> Result<Config> {
        let vocab = if self.hidden < 1024 { 1024 } else { 128_256 };
        let json = json!({
            "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": self.hidden,
            "intermediate_size": self.intermediate, "num_hidden_layers": self.layers, "head_dim": self.head_dim,
            "num_attention_heads": self.hidden / self.head_dim, "num_key_value_heads": (self.hidden / self.head_dim / 4).max(1),
            "vocab_size": vocab, "max_position_embeddings": 8192, "rms_norm_eps": 1e-5, "rope_theta": 500000.0,
            "tie_word_embeddings": self.tied,
        });
        Ok(Config::from_hf_json(self.name, json.to_string().as_bytes())?)
    }

    fn engine(&self, device: &Device) -> Result<Engine> {
        let config = self.config()?;
        let weights = self.weights.parse().map_err(|e: String| e)?;
        let loader = Model::loader().dtype(weights).activations(DType::BF16).cache_tokens(32_768);
        Ok(loader.engine_of(&config, &InitialWeights::new(&config, 0), device)?)
    }
}

/// What is measured of models. `copy`: bytes a second that the card copies, read and written together, over 1e9. `small`: of tiny ones.
pub(crate) fn measure(device: &Device, copy: f64, small: bool) -> Result<Value> {
    let of = |shape: Shape| if small { shape.small() } else { shape };
    let decoded = [ONE_B, EIGHT_B, EIGHT_B_Q4].map(|shape| decode(device, &of(shape), copy, small));
    let decoded = decoded.into_iter().collect::<Result<Vec<_>>>()?;
    Ok(json!({ "decode": decoded, "training": train(device, &of(ONE_B), small)?, "held": let_go(device, small)? }))
}

/// Seconds that a batch takes to read its prompts, then to write one token in each sequence.
fn times(engine: &Engine, sequences: usize, prompt: usize, written: usize) -> Result<(f64, f64)> {
    let vocab = engine.llama.config.vocab_size as u32;
    let mut batch = engine.batch();
    let warm = 4;
    let options = Options { max_tokens: Some(warm + written), ignore_end: true, ..Options::default() };
    for sequence in 0..sequences as u32 {
        let tokens: Vec<u32> = (0..prompt as u32).map(|i| (i * 7919 + sequence * 101) % vocab).collect();
        batch.add(&tokens, options.clone())?;
    }
    let started = Instant::now();
    while (0..sequences).any(|sequence| batch.pending(sequence) > 0) {
        batch.step()?;
    }
    let read = started.elapsed().as_secs_f64();
    // The first steps are recorded.
    (0..warm).try_for_each(|_| batch.step().map(drop))?;
    let (started, mut steps) = (Instant::now(), 0);
    while !batch.is_done() {
        batch.step()?;
        steps += 1;
    }
    Ok((read, started.elapsed().as_secs_f64() / f64::from(steps.max(1))))
}

/// Writing, alone and in a batch, as a share of what the card could read of the weights meanwhile; reading.
fn decode(device: &Device, shape: &Shape, copy: f64, small: bool) -> Result<Value> {
    let engine = shape.engine(device)?;
    let mut bytes = 0;
    engine.llama.visit("", &mut |path, tensor| {
        // Of an embedding that is no head, one row is read.
        if shape.tied || !path.contains("embed_tokens") {
            bytes += tensor.dtype().bytes_for(tensor.elements()).unwrap_or(0);
        }
    });
    let (prompt, written) = if small { (16, 6) } else { (512, 128) };
    // Once for what only the first time costs.
    times(&engine, 1, prompt, 2)?;
    let (read, alone) = times(&engine, 1, prompt, written)?;
    let (_, eight) = times(&engine, 8, prompt, written)?;
    let share = bytes as f64 / alone / 1e9 / copy;
    eprintln!(
        "{}: {:.1} tokens/s alone ({:.0}% of a copy's bandwidth), {:.1} of 8 sequences, {:.0} read",
        shape.name,
        1.0 / alone,
        100.0 * share,
        8.0 / eight,
        prompt as f64 / read
    );
    Ok(json!({
        "model": shape.name, "weight_bytes": bytes, "tokens_per_s": 1.0 / alone, "of_copy": share, "tokens_per_s_of_8": 8.0 / eight,
        "prompt": prompt, "prompt_tokens_per_s": prompt as f64 / read,
    }))
}

/// Steps of AdamW over rows of 2048 tokens, all in bf16: tokens a second, and the most memory held.
fn train(device: &Device, shape: &Shape, small: bool) -> Result<Value> {
    let (rows, length, steps) = if small { (2, 32, 2) } else { (4, 2048, 8) };
    let config = shape.config()?;
    let options = LoadOptions { dtype: Some(DType::BF16), activations: Some(DType::BF16), pack: false, progress: &mut |_| {} };
    let mut llama = Llama::from_weights(&config, &InitialWeights::new(&config, 0), device, options)?;
    let parameters = llama.track(|_, _| true)?;
    let mut adamw = AdamW::new(AdamWOptions::default());
    let numbers =
        |factor: u32| (0..(rows * length) as u32).map(|i| i % 4096 * factor % config.vocab_size as u32).collect::<Vec<_>>();
    let of = |factor| Tensor::from_slice(&numbers(factor), rows * length, device);
    let (ids, labels) = (of(7919)?, of(4409)?);
    let starts: Vec<u32> = (0..=rows).map(|row| (row * length) as u32).collect();
    let step = Step::packed(&llama, &RotaryTable::base(&config), &starts)?;
    let mut losses = Vec::new();
    let mut seconds = Vec::new();
    for _ in 0..steps {
        let started = Instant::now();
        let (sum, count) = llama.loss(&llama.forward(&ids, &step)?, &labels)?;
        let gradients = backward(&sum)?;
        let clipped = clip(&parameters, &gradients, 1.0 / f64::from(count.item::<u32>()?), 1.0)?;
        adamw.step(&parameters, &gradients, 1e-4, clipped.factor)?;
        drop(gradients);
        device.synchronize()?;
        seconds.push(started.elapsed().as_secs_f64());
        losses.push(sum.item::<f32>()? / (rows * length) as f32);
    }
    // The first two compile, and ask for memory.
    let mut warm = seconds.split_off(seconds.len().min(2));
    warm.sort_by(f64::total_cmp);
    let rate = warm.get(warm.len() / 2).map(|median| (rows * length) as f64 / median);
    let peak = puna_cuda::memory_use(device).map(|used| used.peak);
    eprintln!("training, {} {rows} x {length}: {rate:.0?} tokens/s, peak {peak:?} bytes, losses {losses:.3?}", shape.name);
    let falls = losses.first() > losses.last();
    Ok(
        json!({ "model": shape.name, "rows": rows, "length": length, "tokens_per_s": rate, "peak_bytes": peak, "loss_falls": falls }),
    )
}

/// Many generations, one after another: what the device holds at the end that it did not hold behind the first of them.
fn let_go(device: &Device, small: bool) -> Result<Value> {
    let engine = ONE_B.small().engine(device)?;
    let held = || puna_cuda::memory_use(device).map_or(0, |used| used.allocated);
    let generations = if small { 20 } else { 10_000 };
    let mut behind = 0;
    for i in 0..generations {
        let options = Options { max_tokens: Some(4), ignore_end: true, ..Options::default() };
        let mut batch = engine.batch();
        // The same few prompts: the cache has met them all behind the first hundred.
        batch.add(&(0..1 + i % 70).map(|token| token * 3 % 1024).collect::<Vec<u32>>(), options)?;
        while !batch.is_done() {
            batch.step()?;
        }
        if i == generations / 10 {
            behind = held();
        }
    }
    let more = held().saturating_sub(behind);
    eprintln!("{generations} generations: {more} bytes more are held");
    Ok(json!({ "generations": generations, "bytes_more": more }))
}
