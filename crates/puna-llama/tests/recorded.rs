//! Steps that a device records: what is drawn is what a device that records nothing draws, whoever decodes beside it.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, ThreadId};

use puna_llama::{Checkpoint, Engine, Finish, Model, Options, SamplingParameters};
use puna_tensor::{Backend, Buffer, Device, Execution, Op, Recorder, Replay, Result, Tensor};

/// The CPU, and what it computes noted down while a step is recorded.
#[derive(Clone)]
struct Noting {
    cpu: Device,
    noted: Arc<Mutex<Option<Notes>>>,
    recording: Arc<Mutex<()>>,
    counts: Arc<Counts>,
}

/// Who records, and what.
type Notes = (ThreadId, Vec<Noted>);
type Noted = (Op, Vec<Tensor>, Vec<Tensor>);

#[derive(Debug, Default)]
struct Counts {
    recorded: AtomicUsize,
    replayed: AtomicUsize,
    /// Ops outside of replays.
    computed: AtomicUsize,
}

impl Backend for Noting {
    fn name(&self) -> &str {
        "noting"
    }

    fn alloc(&self, bytes: usize) -> Result<Buffer> {
        self.cpu.backend().alloc(bytes)
    }

    fn upload(&self, bytes: &[u8]) -> Result<Buffer> {
        let recorder = self.noted.lock().unwrap().as_ref().map(|(thread, _)| *thread);
        assert_ne!(recorder, Some(thread::current().id()), "a recorded step uploads nothing");
        self.cpu.backend().upload(bytes)
    }

    fn pack(&self, weight: &Tensor) -> Result<Option<Buffer>> {
        self.cpu.backend().pack(weight)
    }

    fn recorder(&self) -> Option<&dyn Recorder> {
        Some(self)
    }

    fn write(&self, to: &Buffer, at: usize, bytes: &[u8]) -> Result<()> {
        self.cpu.backend().write(to, at, bytes)
    }

    fn download(&self, from: &Buffer, range: Range<usize>, into: &mut [u8]) -> Result<()> {
        self.cpu.backend().download(from, range, into)
    }

    fn execute(&self, op: &Op, inputs: &[&Tensor], outputs: &[Tensor]) -> Result<Execution> {
        if let Some((recorder, noted)) = &mut *self.noted.lock().unwrap()
            && *recorder == thread::current().id()
        {
            noted.push((op.clone(), inputs.iter().copied().cloned().collect(), outputs.to_vec()));
            return Ok(Execution::Done);
        }
        self.counts.computed.fetch_add(1, Ordering::Relaxed);
        self.cpu.backend().execute(op, inputs, outputs)
    }

    fn synchronize(&self) -> Result<()> {
        Ok(())
    }
}

impl Recorder for Noting {
    fn record(&self, f: &mut dyn FnMut() -> Result<()>) -> Result<Box<dyn Replay>> {
        let _one_at_a_time = self.recording.lock().unwrap();
        *self.noted.lock().unwrap() = Some((thread::current().id(), Vec::new()));
        let ran = f();
        let (_, ops) = self.noted.lock().unwrap().take().unwrap();
        ran?;
        self.counts.recorded.fetch_add(1, Ordering::Relaxed);
        Ok(Box::new(Steps { ops, device: self.clone() }))
    }
}

struct Steps {
    ops: Vec<Noted>,
    device: Noting,
}

impl Replay for Steps {
    fn replay(&self) -> Result<()> {
        self.device.counts.replayed.fetch_add(1, Ordering::Relaxed);
        for (op, inputs, outputs) in &self.ops {
            let inputs: Vec<&Tensor> = inputs.iter().collect();
            assert_eq!(self.device.cpu.backend().execute(op, &inputs, outputs)?, Execution::Done);
        }
        Ok(())
    }
}

fn cpu() -> Device {
    puna_cpu::device(puna_cpu::Options { threads: std::num::NonZeroUsize::new(1) }).unwrap()
}

fn noting() -> (Device, Arc<Counts>) {
    let counts = Arc::new(Counts::default());
    (Device::new(Noting { cpu: cpu(), noted: Arc::default(), recording: Arc::default(), counts: counts.clone() }), counts)
}

fn engine(device: &Device, cache_tokens: usize) -> Engine {
    let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../puna-conformance/goldens/models/bias"));
    let checkpoint = Checkpoint::open(folder).unwrap();
    Model::loader().cache_tokens(cache_tokens).prefill_chunk(40).engine(&checkpoint, device).unwrap()
}

fn prompt(seed: u32, length: usize) -> Vec<u32> {
    (0..length as u32).map(|i| (i.wrapping_mul(2654435761).wrapping_add(seed * 97) >> 7) % 320).collect()
}

/// Requests of all kinds: greedy and drawn, with penalties, biases, end tokens and the most probable told.
fn request(i: u32) -> (Vec<u32>, Options) {
    let warm = SamplingParameters { temperature: 3.0, top_k: 60, top_p: 0.99, ..Default::default() };
    let sampling = match i % 4 {
        0 => Options::default().sampling,
        1 | 2 => warm,
        _ => SamplingParameters { repetition: 1.2, frequency: 0.2, ..warm },
    };
    let options = Options {
        max_tokens: Some(3 + (i as usize * 7) % 60),
        sampling,
        seed: u64::from(i) << 30,
        logit_bias: (0..i % 3).map(|id| (id * 11, 0.5)).collect(),
        ignore_end: i % 5 != 0,
        top_log_probabilities: if i % 6 == 1 { 3 } else { 0 },
        ..Options::default()
    };
    (prompt(i, 1 + i as usize * 13 % 90), options)
}

/// All that is told of each token.
type Told = (u32, u32, Vec<(u32, u32)>, Option<Finish>);

fn run(engine: &Engine, requests: &[(Vec<u32>, Options)]) -> Vec<Vec<Told>> {
    let mut batch = engine.batch();
    for (prompt, options) in requests {
        batch.add(prompt, options.clone()).unwrap();
    }
    let mut told = vec![Vec::new(); requests.len()];
    while !batch.is_done() {
        for drawn in batch.step().unwrap() {
            let top = drawn.top.iter().map(|(id, value)| (*id, value.to_bits())).collect();
            told[drawn.sequence].push((drawn.id, drawn.log_probability.to_bits(), top, drawn.finish));
        }
    }
    told
}

#[test]
fn recorded_steps_draw_what_steps_draw() {
    let (device, counts) = noting();
    let (plain, recorded) = (engine(&cpu(), 16384), engine(&device, 16384));
    for range in [0..1, 1..2, 2..3, 3..4, 0..4, 5..16, 0..37] {
        let requests: Vec<_> = range.clone().map(request).collect();
        assert_eq!(run(&recorded, &requests), run(&plain, &requests), "requests {range:?}");
    }
    assert!(counts.replayed.load(Ordering::Relaxed) > 100, "{counts:?}");
}

#[test]
fn one_recording_serves_many_steps_and_batches() {
    let (device, counts) = noting();
    let engine = engine(&device, 4096);
    let options = Options { max_tokens: Some(100), ignore_end: true, ..Options::default() };
    for i in 0..2 {
        run(&engine, &[(prompt(i, 10), options.clone())]);
    }
    // The first step of a prompt reads it, the first that decodes is computed, and all others are replayed; none is computed in vain,
    // since how long these are is known.
    let count = |n: &AtomicUsize| n.load(Ordering::Relaxed);
    assert_eq!((count(&counts.recorded), count(&counts.replayed)), (1, 2 * 99 - 1), "{counts:?}");
    // The cache had room for them from the beginning. A sequence that needs more has its pages moved.
    run(&engine, &[(prompt(9, 200), Options { max_tokens: Some(300), ..options.clone() })]);
    assert_eq!(count(&counts.recorded), 3, "pages that have moved, twice, are recorded anew");
    assert_eq!(run(&engine, &[(prompt(0, 10), options.clone())]), run(&self::engine(&cpu(), 4096), &[(prompt(0, 10), options)]));
}

#[test]
fn batches_that_take_turns_do_not_read_each_others_tokens() {
    let (device, _) = noting();
    let (plain, recorded) = (engine(&cpu(), 4096), engine(&device, 4096));
    let requests: Vec<_> = [2, 6].map(|i| (request(i).0, Options { max_tokens: Some(40), ..request(i).1 })).into();
    let alone: Vec<_> = requests.iter().map(|request| run(&plain, std::slice::from_ref(request)).remove(0)).collect();
    let mut batches: Vec<_> = requests.iter().map(|_| recorded.batch()).collect();
    for (batch, (prompt, options)) in batches.iter_mut().zip(&requests) {
        batch.add(prompt, options.clone()).unwrap();
    }
    let mut told = [Vec::new(), Vec::new()];
    // Now one has a few turns, now the other, now both one each.
    for turn in 0.. {
        if batches.iter().all(|batch| batch.is_done()) {
            break;
        }
        let which = [0, 0, 1, 0, 1, 1, 1][turn % 7];
        told[which].extend(batches[which].step().unwrap().into_iter().map(|drawn| (drawn.id, drawn.log_probability.to_bits())));
    }
    for (told, alone) in told.iter().zip(&alone) {
        assert_eq!(told, &alone.iter().map(|(id, probability, ..)| (*id, *probability)).collect::<Vec<_>>());
    }
    // Side by side as well.
    thread::scope(|scope| {
        let (engine, requests) = (&recorded, &requests);
        let threads: Vec<_> = (0..4).map(|i| scope.spawn(move || run(engine, &requests[i % 2..][..1]).remove(0))).collect();
        for (i, thread) in threads.into_iter().enumerate() {
            assert_eq!(thread.join().unwrap(), alone[i % 2]);
        }
    });
}

#[test]
fn what_was_computed_ahead_stays_right_where_a_sequence_ends() {
    let (device, _) = noting();
    let (plain, mut recorded) = (engine(&cpu(), 4096), engine(&device, 4096));
    let options = Options { max_tokens: Some(80), ..request(2).1 };
    let all = run(&plain, &[(prompt(4, 60), Options { ignore_end: true, ..options.clone() })]).remove(0);
    let tokens = |told: &[Told]| told.iter().map(|told| told.0).collect::<Vec<_>>();
    // An end that comes as a surprise, while the next step is under way; what was cached goes on as if it had never been.
    let end = tokens(&all)[70];
    let at = tokens(&all).iter().position(|id| *id == end).unwrap();
    recorded.set_end_tokens(vec![end]);
    let mut batch = recorded.batch();
    batch.add(&prompt(4, 60), Options { ignore_end: false, ..options.clone() }).unwrap();
    while !batch.is_done() {
        batch.step().unwrap();
    }
    assert_eq!(batch.tokens(0)[60..], tokens(&all)[..=at]);
    let cached = batch.take_cached(0);
    assert!(batch.tokens(0).starts_with(cached.tokens()), "the cache holds known tokens alone");
    let next = [batch.tokens(0), &prompt(8, 9)].concat();
    let mut batch = recorded.batch();
    let more = Options { max_tokens: Some(10), ignore_end: true, ..options };
    batch.add_cached(cached, &next, more.clone()).unwrap();
    let mut told = Vec::new();
    while !batch.is_done() {
        told.extend(batch.step().unwrap().iter().map(|drawn| drawn.id));
    }
    assert_eq!(told, tokens(&run(&plain, &[(next, more)])[0]));
}

#[test]
fn a_full_cache_is_told_when_its_turn_comes() {
    let (device, _) = noting();
    let engine = engine(&device, 128);
    let mut batch = engine.batch();
    batch.add(&prompt(1, 100), Options { ignore_end: true, ..Options::default() }).unwrap();
    let mut drawn = 0;
    let error = loop {
        match batch.step() {
            Ok(tokens) => drawn += tokens.len(),
            Err(error) => break error,
        }
    };
    // 128 tokens are computed, and each of the last 29 draws one.
    assert_eq!((drawn, error.kind()), (29, puna_llama::Kind::CacheFull), "{error}");
    assert!(batch.step().is_err(), "and again");
    batch.stop(0);
    let kept = batch.take_cached(0);
    assert!(batch.tokens(0).starts_with(kept.tokens()));
    drop(kept);
    batch.add(&prompt(2, 20), Options { max_tokens: Some(2), ignore_end: true, ..Options::default() }).unwrap();
    assert!(batch.step().unwrap().len() == 1 && batch.step().unwrap().len() == 1 && batch.is_done());
}

#[test]
fn logits_of_a_step_that_was_enqueued_are_its_own() {
    let (device, _) = noting();
    let (plain, recorded) = (engine(&cpu(), 4096), engine(&device, 4096));
    let logits = |engine: &Engine| {
        let mut batch = engine.batch();
        batch.add(&prompt(3, 50), Options { max_tokens: Some(6), ignore_end: true, ..Options::default() }).unwrap();
        let mut all: Vec<Tensor> = Vec::new();
        while !batch.is_done() {
            batch.enqueue().unwrap();
            all.extend(batch.enqueued_logits().cloned());
            batch.read().unwrap();
        }
        // Read when all steps are over.
        all.iter().map(|logits| logits.to_vec::<f32>().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(logits(&recorded), logits(&plain));
}
