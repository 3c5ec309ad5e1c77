//! What the door costs: a one-token step of a model so small that its kernels take next to no time, per op.
//!
//!     cargo bench -p puna-benches --bench dispatch
//!
//! Roof: 3 us an op outside kernels. Measured here is an upper bound of it, the tiny kernels included.

use std::collections::HashMap;
use std::time::Instant;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use puna::llama::{Config, Llama, LoadOptions, Weights};
use puna::prelude::*;

/// Weights of ones: what they are does not matter here.
struct Ones;

impl Weights for Ones {
    fn tensor(&self, _: &str, shape: &[usize], device: &Device) -> puna::llama::Result<Tensor> {
        let shape = puna::tensor::Shape::new(shape).expect("a weight has few axes");
        Ok(Tensor::full(0.01, shape, DType::F32, device)?)
    }
}

fn config(json: &str) -> Config {
    Config::from_hf_json("config.json", json.as_bytes()).expect("the config is well formed")
}

fn dispatch(criterion: &mut Criterion) {
    // Six layers, as the 15M-parameter story models have, with hidden states of 16.
    let config = config(
        r#"{"architectures":["LlamaForCausalLM"],"model_type":"llama","hidden_act":"silu","hidden_size":16,"intermediate_size":32,
            "num_hidden_layers":6,"num_attention_heads":2,"num_key_value_heads":2,"max_position_embeddings":256,"rms_norm_eps":1e-5,
            "rope_theta":10000.0,"vocab_size":64,"tie_word_embeddings":true}"#,
    );
    let device = puna::device("cpu").expect("there is a CPU");
    let mut silent = |_: puna::llama::Progress<'_>| {};
    let options = LoadOptions { dtype: None, activations: None, pack: true, progress: &mut silent };
    let llama = Llama::from_weights(&config, &Ones, &device, options).expect("weights of ones fit");
    let cache_options = puna::llama::CacheOptions { tokens: 256, page_size: 64, dtype: DType::F32 };
    let rotary = puna::llama::RotaryTable::base(&config);
    // Embedding, the first norm, per layer: linears, 3 views, rope and cache, attention, view, linear, norm, mlp, norm; the last rows, cast, head, sample.
    let ops = 2 + 6 * 11 + 4;
    let mut group = criterion.benchmark_group("dispatch");
    group.throughput(Throughput::Elements(ops));
    group.bench_function("step/6 layers/1 token", |bencher| {
        bencher.iter_custom(|steps| {
            let mut total = std::time::Duration::ZERO;
            let mut left = steps;
            while left > 0 {
                let cache = puna::llama::Cache::new(&config, cache_options, &device).expect("the options are in range");
                let mut batch = puna::llama::Batch::new(&llama, &cache, &rotary, &[], 64);
                let count = left.min(200);
                batch
                    .add(&[1], Options { max_tokens: Some(count as usize + 1), ..Options::default() })
                    .expect("the prompt is in range");
                batch.step().expect("a step runs");
                let started = Instant::now();
                for _ in 0..count {
                    batch.step().expect("a step runs");
                }
                total += started.elapsed();
                left -= count;
            }
            total
        });
    });
    group.finish();
    let lowered: HashMap<_, _> = device.lowered().into_iter().map(|lowered| (lowered.op, lowered.times)).collect();
    assert!(lowered.is_empty(), "the CPU has kernels for all of a step: {lowered:?}");
}

criterion_group!(benches, dispatch);
criterion_main!(benches);
