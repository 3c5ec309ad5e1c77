//! The contract of every op on the wgpu back end: on the adapter that `PUNA_WGPU_ADAPTER` names, or the fastest; without a GPU, Mesa's software
//! Vulkan.

use std::pin::pin;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use puna_conformance::{equal_bits, families, run_family};
use puna_llama::{Checkpoint, Model, SamplingParameters};
use puna_tensor::op::{Attention, AttentionBackward, Mask};
use puna_tensor::{BlockType, DType, Device, Op, Tensor};
use puna_wgpu::{Choice, Limits, Options};

/// Those whose bits are compared.
const DTYPES: [DType; 4] = [DType::F32, DType::F16, DType::BF16, DType::Block(BlockType::Q4K)];

/// A device of its own; `None`, said aloud, where there is no adapter and `PUNA_REQUIRE_WGPU` does not ask for one.
fn open(limits: Limits) -> Option<Device> {
    open_with(Options { limits, ..Options::default() })
}

fn open_with(options: Options) -> Option<Device> {
    match puna_wgpu::device(&Choice::Any, options) {
        Ok(device) => Some(device),
        Err(error) if std::env::var_os("PUNA_REQUIRE_WGPU").is_none() => {
            eprintln!(
                "SKIPPED: {error}; Debian's mesa-vulkan-drivers is a software one, and PUNA_REQUIRE_WGPU=1 makes this a failure"
            );
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// No more than every WebGPU device allows, and of a buffer so little that many of the suite's tensors are worked on in parts.
fn small(binding_limit: usize) -> Options {
    Options { limits: Limits::WebGpu, binding_limit: Some(binding_limit), ..Options::default() }
}

/// Families share devices, since kernels are compiled once for each; those that run at once have one each, since each compiles one kernel at a time.
fn family(name: &str) {
    static FREE: Mutex<Vec<Device>> = Mutex::new(Vec::new());
    let free = || FREE.lock().unwrap_or_else(PoisonError::into_inner);
    let kept = free().pop();
    if let Some(device) = kept.or_else(|| open_with(small(160 << 10))) {
        run_family(&device, name);
        free().push(device);
    }
}

families!(family);

/// What hangs on how much a kernel sees at once, as the adapter has it; and norms, of which a processor has another kernel. (Its products and
/// attention give the bits that others give: see below.)
#[test]
fn the_adapters_own_limits_serve() {
    if let Some(device) = open(Limits::Adapter) {
        ["device", "copy", "index", "tasks", "norm"].iter().for_each(|name| run_family(&device, name));
    }
}

/// The same bits again, on a device that has compiled nothing yet, and with other limits, and so with other kernels.
#[test]
fn bits_are_those_of_the_first_time() {
    let devices: Option<Vec<Device>> =
        [open(Limits::Adapter), open(Limits::Adapter), open_with(small(160 << 10))].into_iter().collect();
    if let Some(devices) = devices {
        equal_bits(&devices, &DTYPES);
    }
}

/// Many rows of attention, which a processor takes together, and heads that no binding shows all of.
#[test]
fn many_rows_of_attention_have_the_bits_of_few() {
    let devices = [open(Limits::Adapter), open(Limits::WebGpu), open_with(small(100 << 10))];
    let devices: Option<Vec<Device>> = devices.into_iter().collect();
    let Some(devices) = devices else { return };
    let (tokens, heads, kv_heads, dim) = (270, 4, 2, 32);
    let values = |n: usize| (0..n).map(|i| (i * 2654435761 % 1000) as f32 / 500.0 - 1.0).collect::<Vec<_>>();
    let results: Vec<Vec<Vec<u8>>> = devices
        .iter()
        .map(|device| {
            let q = Tensor::from_slice(&values(tokens * heads * dim), [tokens, heads, dim], device).unwrap();
            let k = Tensor::from_slice(&values(tokens * kv_heads * dim), [tokens, kv_heads, dim], device).unwrap();
            // The second sequence begins within the rows of a workgroup.
            let starts = Tensor::from_slice(&[0u32, 101, tokens as u32], 3, device).unwrap();
            let op = Attention { scale: 0.2, mask: Mask::Causal };
            let tracked = q.tracked().attention(&k, &k, &starts, &starts, op).unwrap();
            let lse = tracked.source().unwrap().0.output(1).unwrap().clone();
            let y = tracked.detach();
            let backward = Op::AttentionBackward(AttentionBackward { scale: 0.2, mask: Mask::Causal });
            let gradients = backward.apply(&[&q, &q, &k, &k, &y, &lse, &starts, &starts]).unwrap().all();
            [y, lse].into_iter().chain(gradients).map(|tensor| tensor.to_bytes().unwrap()).collect()
        })
        .collect();
    assert!(results[0] == results[1]);
    assert!(results[1] == results[2]);
}

/// Without blocking, as a browser must: the same tokens.
#[test]
fn steps_that_do_not_block_draw_the_same() {
    let Some(device) = open(Limits::Adapter) else { return };
    let checkpoint = Checkpoint::open(concat!(env!("CARGO_MANIFEST_DIR"), "/goldens/models/bias")).unwrap();
    let engine = Model::loader().engine(&checkpoint, &device).unwrap();
    let begun = || {
        let mut batch = engine.batch();
        for top_log_probabilities in [0, 3] {
            let options = puna_llama::Options { max_tokens: Some(9), top_log_probabilities, ..Default::default() };
            batch.add(&[1, 20, 300], options).unwrap();
        }
        batch
    };
    let (mut blocking, mut other) = (begun(), begun());
    let mut pauses = 0;
    while !blocking.is_done() {
        let expected = blocking.step().unwrap();
        let mut step = pin!(other.step_async());
        let drawn = loop {
            match step.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(drawn) => break drawn.unwrap(),
                Poll::Pending => pauses += 1,
            }
        };
        assert_eq!(drawn, expected);
    }
    assert!(other.is_done() && pauses > 0);
}

/// Of each step's work the host reads what was drawn alone, a token and its probability, and the driver is given one batch.
#[test]
fn a_step_is_one_submit_and_reads_what_was_drawn() {
    const TOKENS: usize = 24;
    let Some(device) = open(Limits::Adapter) else { return };
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/goldens/models/bias");
    let checkpoint = Checkpoint::open(folder).unwrap();
    let engine = Model::loader().engine(&checkpoint, &device).unwrap();
    let mut batch = engine.batch();
    for i in 0..3 {
        let sampling = SamplingParameters { temperature: i as f32, top_k: 40, ..SamplingParameters::default() };
        let options = puna_llama::Options { max_tokens: Some(TOKENS), ignore_end: true, sampling, ..Default::default() };
        batch.add(&[1 + i, 20, 300], options).unwrap();
    }
    // The prompt, and pipelines and room that the first steps make.
    for _ in 0..4 {
        batch.step().unwrap();
    }
    while !batch.is_done() {
        let before = puna_wgpu::work(&device).unwrap();
        assert_eq!(batch.step().unwrap().len(), 3);
        let after = puna_wgpu::work(&device).unwrap();
        let (submits, reads, bytes) =
            (after.submits - before.submits, after.reads - before.reads, after.bytes_read - before.bytes_read);
        assert!(submits <= 1 && reads <= 2, "{submits} submits and {reads} reads for a step");
        assert!(bytes <= 3 * 8, "{bytes} bytes are read for three tokens");
    }
    let work = puna_wgpu::work(&device).unwrap();
    assert!(work.submits >= TOKENS as u64 && work.kernels > 10 * work.submits, "{work:?}");
}
