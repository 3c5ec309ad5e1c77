//! Reading and writing speed of a whole model, beside candle in the same run.
//!
//!     cargo bench -p puna-benches --features peers --bench generate -- MODEL.gguf [THREADS]
//!
//! Runs are interleaved, one of ours, one of theirs, so that a machine whose speed drifts slows both. Printed: medians with the smallest and
//! the largest, tokens a second, and the ratio of the medians. candle takes its threads from RAYON_NUM_THREADS: set it to the same number.
//!
//! Roof: writing reads every weight once a token, so bytes of the model times tokens a second is the memory's speed at best.

use std::num::NonZeroUsize;
use std::time::Instant;

use puna::llama::{Checkpoint, Engine};
use puna::prelude::*;

type Error = Box<dyn std::error::Error>;

const PROMPT: usize = 512;
const BEFORE: usize = 128;
const WRITE: usize = 64;
const ROUNDS: usize = 5;

fn main() -> Result<(), Error> {
    let mut arguments = std::env::args().skip(1).filter(|argument| !argument.starts_with("--"));
    let Some(path) = arguments.next() else {
        println!("SKIPPED: no model given; cargo bench --bench generate -- MODEL.gguf [THREADS]");
        return Ok(());
    };
    let threads = arguments.next().map_or(Ok(2), |n| n.parse())?;
    let device = puna::device_with_threads("cpu", NonZeroUsize::new(threads))?;
    let engine = Model::loader().prefill_chunk(PROMPT).engine(&Checkpoint::open(&path)?, &device)?;
    let mut peer = peer::Peer::open(&path, threads)?;
    let (mut ours, mut theirs) = (Speeds::default(), Speeds::default());
    for round in 0..=ROUNDS {
        let measured = (measure(&engine, round as u32)?, peer.measure()?);
        // The first round warms up.
        if round > 0 {
            ours.push(measured.0);
            measured.1.into_iter().for_each(|speed| theirs.push(speed));
        }
    }
    println!("{path}, {threads} threads, {ROUNDS} rounds");
    for (test, pick) in [(format!("pp{PROMPT}"), 0), (format!("tg{WRITE}"), 1)] {
        let (own, other) = (Spread::of(&ours.0, pick), Spread::of(&theirs.0, pick));
        match other {
            Some(other) => println!(
                "{test}: puna {}, {} {other}, ratio {:.2}",
                own.as_ref().unwrap(),
                peer::NAME,
                own.as_ref().unwrap().median / other.median
            ),
            None => println!("{test}: puna {} (no peer: build with --features peers)", own.unwrap()),
        }
    }
    Ok(())
}

/// Tokens a second: reading, writing.
type Speed = [f64; 2];

#[derive(Default)]
struct Speeds(Vec<Speed>);

impl Speeds {
    fn push(&mut self, speed: Speed) {
        self.0.push(speed);
    }
}

struct Spread {
    least: f64,
    median: f64,
    most: f64,
}

impl Spread {
    fn of(speeds: &[Speed], pick: usize) -> Option<Self> {
        let mut values: Vec<f64> = speeds.iter().map(|speed| speed[pick]).collect();
        values.sort_by(f64::total_cmp);
        Some(Self { least: *values.first()?, median: values[values.len() / 2], most: *values.last()? })
    }
}

impl std::fmt::Display for Spread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.1} t/s ({:.1} to {:.1})", self.median, self.least, self.most)
    }
}

/// The same tokens for both sides.
fn token(i: usize) -> u32 {
    ((i * 7919 + 13) % 49000) as u32
}

fn measure(engine: &Engine, round: u32) -> Result<Speed, Error> {
    // Each round has a first token of its own, so that nothing is cached.
    let tokens = |n: usize| -> Vec<u32> { std::iter::once(round + 1).chain((1..n).map(token)).collect() };
    let read = |n: usize, write: usize| -> Result<(f64, f64), Error> {
        let mut batch = engine.batch();
        let options = Options { max_tokens: Some(write + 1), ignore_end: true, ..Options::default() };
        let sequence = batch.add(&tokens(n), options)?;
        let started = Instant::now();
        while batch.pending(sequence) > 0 {
            batch.step()?;
        }
        let reading = started.elapsed().as_secs_f64();
        let started = Instant::now();
        while !batch.is_done() {
            batch.step()?;
        }
        Ok((reading, started.elapsed().as_secs_f64()))
    };
    let (reading, _) = read(PROMPT, 0)?;
    let (_, writing) = read(BEFORE, WRITE)?;
    Ok([PROMPT as f64 / reading, WRITE as f64 / writing])
}

#[cfg(feature = "peers")]
mod peer {
    use std::time::Instant;

    use candle_core::quantized::gguf_file;
    use candle_core::{Device, Tensor};
    use candle_transformers::models::quantized_llama::ModelWeights;

    use super::{BEFORE, Error, PROMPT, Speed, WRITE, token};

    pub(super) const NAME: &str = "candle";

    pub(super) struct Peer(ModelWeights);

    impl Peer {
        pub(super) fn open(path: &str, threads: usize) -> Result<Self, Error> {
            // Read by rayon's global pool when it is first used, which is below.
            rayon_threads(threads);
            let mut file = std::fs::File::open(path)?;
            let content = gguf_file::Content::read(&mut file)?;
            Ok(Self(ModelWeights::from_gguf(content, &mut file, &Device::Cpu)?))
        }

        pub(super) fn measure(&mut self) -> Result<Option<Speed>, Error> {
            let tokens: Vec<u32> = (0..PROMPT).map(token).collect();
            let mut read = |n: usize| -> Result<(Tensor, f64), Error> {
                let started = Instant::now();
                let logits = self.0.forward(&Tensor::new(&tokens[..n], &Device::Cpu)?.unsqueeze(0)?, 0)?;
                let logits = logits.flatten_all()?;
                logits.to_vec1::<f32>()?;
                Ok((logits, started.elapsed().as_secs_f64()))
            };
            let (_, reading) = read(PROMPT)?;
            let (mut logits, _) = read(BEFORE)?;
            let started = Instant::now();
            for i in 0..WRITE {
                let id = logits.flatten_all()?.argmax(0)?.to_scalar::<u32>()?;
                logits = self.0.forward(&Tensor::new(&[id], &Device::Cpu)?.unsqueeze(0)?, BEFORE + i)?;
            }
            logits.flatten_all()?.to_vec1::<f32>()?;
            Ok(Some([PROMPT as f64 / reading, WRITE as f64 / started.elapsed().as_secs_f64()]))
        }
    }

    fn rayon_threads(threads: usize) {
        if std::env::var("RAYON_NUM_THREADS").ok().as_deref() != Some(&threads.to_string()) {
            eprintln!("note: start with RAYON_NUM_THREADS={threads} for candle to use as many threads");
        }
    }
}

#[cfg(not(feature = "peers"))]
mod peer {
    use super::{Error, Speed};

    pub(super) const NAME: &str = "none";

    pub(super) struct Peer;

    impl Peer {
        pub(super) fn open(_: &str, _: usize) -> Result<Self, Error> {
            Ok(Self)
        }

        pub(super) fn measure(&mut self) -> Result<Option<Speed>, Error> {
            Ok(None)
        }
    }
}
