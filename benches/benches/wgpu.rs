//! Ops through WGSL, on the adapter that `PUNA_WGPU_ADAPTER` names, or the fastest.
//!
//!     cargo bench -p puna-benches --bench wgpu
//!
//! Beside burn: `benches/burn`.
//!
//! Roof: for products the multiply-adds (2 M N K of them), for one row the weight's bytes; for attention four operations a query, key and
//! dimension; for norms the bytes read and written.

use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use puna::prelude::*;
use puna::tensor::BlockType;
use puna::tensor::op::{Activations, Attention, Mask};

/// About uniform in [-1, 1).
fn values(shape: [usize; 2], dtype: DType, device: &Device) -> Tensor {
    let n = shape[0] * shape[1];
    let values: Vec<f32> = (0..n).map(|i| ((i * 2654435761) % 1000) as f32 / 500.0 - 1.0).collect();
    Tensor::from_slice(&values, shape, device).and_then(|x| x.cast(dtype)).expect("there is memory")
}

/// Runs of an op, each waited for.
fn runs(device: &Device, count: u64, op: &dyn Fn() -> Tensor) -> Duration {
    device.synchronize().expect("the device works");
    let begin = Instant::now();
    for _ in 0..count {
        let result = op();
        device.synchronize().expect("the device works");
        drop(result);
    }
    begin.elapsed()
}

fn wgpu(criterion: &mut Criterion) {
    let device = match puna_wgpu::device(&puna_wgpu::Choice::Any, puna_wgpu::Options::default()) {
        Ok(device) => device,
        Err(error) => {
            eprintln!("SKIPPED: {error}");
            return;
        }
    };
    let mut group = criterion.benchmark_group("wgpu");
    group.sample_size(10);
    let n = 1024;
    let (a, b) = (values([n, n], DType::F32, &device), values([n, n], DType::F32, &device));
    group.throughput(Throughput::Elements(2 * (n * n * n) as u64));
    group.bench_function(BenchmarkId::new("matmul", format!("{n}x{n}x{n} f32")), |bencher| {
        bencher.iter_custom(|count| runs(&device, count, &|| a.matmul(&b).expect("the shapes fit")));
    });
    let (n, k) = (4096, 4096);
    let x = values([1, k], DType::F32, &device);
    for dtype in [DType::F32, DType::Block(BlockType::Q8_0), DType::Block(BlockType::Q4K)] {
        let weight = values([n, k], dtype, &device);
        group.throughput(Throughput::Bytes(dtype.bytes_for(n * k).expect("whole blocks") as u64));
        group.bench_function(BenchmarkId::new("linear", format!("1x{n}x{k} {dtype}")), |bencher| {
            bencher.iter_custom(|count| runs(&device, count, &|| x.linear(&weight, Activations::Exact).expect("the shapes fit")));
        });
    }
    let (seq, heads, dim) = (1024, 8, 64);
    let q = values([seq, heads * dim], DType::F32, &device).reshape([seq, heads, dim]).expect("as many elements");
    let starts = Tensor::from_slice(&[0, seq as u32], 2, &device).expect("there is memory");
    let op = Attention { scale: 0.125, mask: Mask::Full };
    group.throughput(Throughput::Elements((4 * heads * seq * seq * dim) as u64));
    group.bench_function(BenchmarkId::new("attention", format!("1x{heads}x{seq}x{dim} f32")), |bencher| {
        bencher.iter_custom(|count| runs(&device, count, &|| q.attention(&q, &q, &starts, &starts, op).expect("the shapes fit")));
    });
    let (rows, n) = (512, 4096);
    let x = values([rows, n], DType::F32, &device);
    let weight = values([1, n], DType::F32, &device).reshape(n).expect("as many elements");
    group.throughput(Throughput::Bytes((2 * rows * n * 4) as u64));
    group.bench_function(BenchmarkId::new("rms_norm", format!("{rows}x{n} f32")), |bencher| {
        bencher.iter_custom(|count| runs(&device, count, &|| x.rms_norm(&weight, 1e-5).expect("the shapes fit")));
    });
    group.finish();
}

criterion_group!(benches, wgpu);
criterion_main!(benches);
