//! Drawing tokens: what a sequence gives does not depend on what it shares its steps, its cache or its machine with.

use std::path::PathBuf;

use puna_llama::{Checkpoint, Engine, Finish, Kind, Model, Options, SamplingParameters};
use puna_tensor::Device;

fn golden(path: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../puna-conformance/goldens")).join(path)
}

fn device(threads: usize) -> Device {
    puna_cpu::device(puna_cpu::Options { threads: std::num::NonZeroUsize::new(threads) }).unwrap()
}

fn engine(cache_tokens: usize, chunk: usize, threads: usize) -> Engine {
    let checkpoint = Checkpoint::open(golden("models/bias")).unwrap();
    Model::loader().cache_tokens(cache_tokens).prefill_chunk(chunk).engine(&checkpoint, &device(threads)).unwrap()
}

fn prompt(seed: u32, length: usize) -> Vec<u32> {
    (0..length as u32).map(|i| (i.wrapping_mul(2654435761).wrapping_add(seed * 97) >> 7) % 320).collect()
}

fn sampled(seed: u64, max_tokens: usize) -> Options {
    let sampling =
        SamplingParameters { temperature: 4.0, top_k: 50, top_p: 0.98, repetition: 1.1, frequency: 0.1, ..Default::default() };
    Options { max_tokens: Some(max_tokens), sampling, seed, ignore_end: true, ..Options::default() }
}

/// The tokens, and the bits of their log-probabilities.
fn run(engine: &Engine, requests: &[(Vec<u32>, Options)]) -> Vec<Vec<(u32, u32)>> {
    let mut batch = engine.batch();
    for (prompt, options) in requests {
        batch.add(prompt, options.clone()).unwrap();
    }
    let mut drawn = vec![Vec::new(); requests.len()];
    while !batch.is_done() {
        for token in batch.step().unwrap() {
            drawn[token.sequence].push((token.id, token.log_probability.to_bits()));
        }
    }
    drawn
}

#[test]
fn neighbors_chunks_and_threads_change_no_bit() {
    let requests: Vec<_> = (0..44).map(|i| (prompt(i, 1 + i as usize * 5 % 97), sampled(i.into(), 4 + i as usize % 5))).collect();
    let alone: Vec<_> =
        requests[..7].iter().map(|request| run(&engine(4096, 256, 1), std::slice::from_ref(request)).remove(0)).collect();
    for (count, chunk, threads) in [(2, 7, 1), (7, 64, 2), (44, 33, 3)] {
        let together = run(&engine(16384, chunk, threads), &requests[..count]);
        let compared = count.min(alone.len());
        assert_eq!(together[..compared], alone[..compared], "{count} sequences, chunks of {chunk}, {threads} threads");
    }
}

#[test]
fn a_cached_beginning_changes_no_bit_even_when_pages_are_evicted() {
    let base = prompt(3, 200);
    let fresh = |length: usize| {
        let tokens = [&base[..length], &prompt(9, 13)[..]].concat();
        run(&engine(4096, 256, 1), &[(tokens, sampled(1, 6))]).remove(0)
    };
    // Room for four sequences of this length at most: pages are let go all the time.
    let shared = engine(512, 50, 2);
    for round in 0..12u32 {
        let length = [200, 64, 130, 199][round as usize % 4];
        let tokens = [&base[..length], &prompt(9, 13)[..]].concat();
        let mut batch = shared.batch();
        batch.add(&tokens, sampled(1, 6)).unwrap();
        if round == 4 {
            assert!(batch.pending(0) < tokens.len(), "what is cached is not computed again");
        }
        drop(batch);
        assert_eq!(run(&shared, &[(tokens, sampled(1, 6))]).remove(0), fresh(length), "round {round}");
        // A sequence of its own that pushes others out.
        run(&shared, &[(prompt(100 + round, 300), sampled(2, 3))]);
    }
    let (held, idle) = shared.cache().held_and_idle();
    assert_eq!(held, 0, "every sequence has let its pages go");
    assert!(idle <= 512);
}

#[test]
fn a_seed_says_what_is_drawn() {
    let engine = engine(4096, 256, 2);
    let draw = |seed| run(&engine, &[(prompt(1, 10), sampled(seed, 20))]).remove(0);
    assert_eq!(draw(5), draw(5));
    assert_ne!(draw(5), draw(6));
    // The upper half of a seed counts too.
    assert_ne!(draw(5), draw(5 | 1 << 40));
}

#[test]
fn a_sequence_says_why_it_ended() {
    let mut engine = engine(4096, 256, 1);
    let greedy = |max_tokens| Options { max_tokens: Some(max_tokens), ..Options::default() };
    let first = |engine: &Engine, options: Options| {
        let mut batch = engine.batch();
        batch.add(&prompt(1, 5), options).unwrap();
        let mut finish = None;
        while !batch.is_done() {
            finish = batch.step().unwrap().pop().unwrap().finish;
        }
        (finish, batch.tokens(0)[5..].to_vec())
    };
    let (finish, tokens) = first(&engine, greedy(4));
    assert_eq!((finish, tokens.len()), (Some(Finish::MaxTokens), 4));
    engine.set_end_tokens(vec![tokens[2]]);
    assert_eq!(first(&engine, greedy(10)), (Some(Finish::EndToken(tokens[2])), tokens[..3].to_vec()));
    assert_eq!(first(&engine, Options { ignore_end: true, ..greedy(4) }).1, tokens);
    assert_eq!(first(&engine, greedy(0)), (None, vec![]));
    // The context holds 512 tokens.
    let mut batch = engine.batch();
    batch.add(&prompt(1, 510), Options { ignore_end: true, ..Options::default() }).unwrap();
    let mut last = None;
    while !batch.is_done() {
        last = batch.step().unwrap().pop().or(last);
    }
    assert_eq!(last.unwrap().finish, Some(Finish::ContextFull));
    assert_eq!(batch.tokens(0).len(), 513, "the token after the last that fits is drawn, not computed");
}

#[test]
fn biases_and_log_probabilities_are_told() {
    let engine = engine(4096, 256, 1);
    let mut batch = engine.batch();
    let options = Options { max_tokens: Some(1), logit_bias: vec![(123, 1e4)], top_log_probabilities: 5, ..Options::default() };
    batch.add(&prompt(2, 9), options).unwrap();
    let drawn = batch.step().unwrap().remove(0);
    assert_eq!(drawn.id, 123, "the bias decides");
    assert_eq!(drawn.top.len(), 5);
    assert!(drawn.top.windows(2).all(|pair| pair[0].1 >= pair[1].1), "the most probable first: {:?}", drawn.top);
    let logits = engine.llama.sequence_logits(&prompt(2, 9)).unwrap().to_vec::<f32>().unwrap();
    let last = &logits[logits.len() - 320..];
    let sum: f64 = last.iter().map(|x| f64::from(*x).exp()).sum();
    let expected = f64::from(last[123]) - sum.ln();
    assert!(
        (f64::from(drawn.log_probability) - expected).abs() < 1e-4,
        "{} for {expected}: without the bias",
        drawn.log_probability
    );
}

#[test]
fn what_cannot_be_is_an_error_that_says_so() {
    let engine = engine(128, 256, 1);
    let add = |prompt: &[u32], options: Options| engine.batch().add(prompt, options).unwrap_err();
    let is = |error: puna_llama::Error, kind: Kind, words: &[&str]| {
        let text = error.to_string();
        assert_eq!(error.kind(), kind, "{text}");
        words.iter().for_each(|word| assert!(text.contains(word), "{text:?} lacks {word:?}"));
    };
    is(add(&[], Options::default()), Kind::Argument, &["prompt", "no tokens"]);
    is(add(&[1, 320], Options::default()), Kind::TokenOutOfRange, &["320", "at 1"]);
    is(add(&prompt(1, 513), Options::default()), Kind::ContextFull, &["513", "512"]);
    let with = |change: &dyn Fn(&mut SamplingParameters)| {
        let mut options = Options::default();
        change(&mut options.sampling);
        add(&[1], options)
    };
    is(with(&|s| s.temperature = -1.0), Kind::SamplingOption, &["temperature", "-1"]);
    is(with(&|s| s.temperature = f32::NAN), Kind::SamplingOption, &["temperature", "NaN"]);
    is(with(&|s| s.top_p = 0.0), Kind::SamplingOption, &["top_p", "(0, 1]"]);
    is(with(&|s| s.min_p = 1.5), Kind::SamplingOption, &["min_p", "1.5"]);
    is(with(&|s| s.repetition = 0.0), Kind::SamplingOption, &["repetition"]);
    is(add(&[1], Options { logit_bias: vec![(320, 1.0)], ..Options::default() }), Kind::SamplingOption, &["logit_bias", "320"]);
    is(engine.llama.sequence_logits(&[]).unwrap_err(), Kind::Argument, &["tokens"]);
    // More than the cache holds: said when it is computed, and the batch can go on without it.
    let mut batch = engine.batch();
    batch.add(&prompt(1, 300), Options::default()).unwrap();
    is(batch.step().unwrap_err(), Kind::CacheFull, &["256", "128"]);
    batch.stop(0);
    batch.add(&prompt(1, 20), Options { max_tokens: Some(2), ..Options::default() }).unwrap();
    assert_eq!(batch.step().unwrap().len(), 1);
}
