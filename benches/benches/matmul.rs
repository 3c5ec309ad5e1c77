//! Products, beside the crate `gemm` in the same group.
//!
//!     cargo bench -p puna-benches --features peers --bench matmul
//!
//! Roof: for many rows the multiply-adds (2 M N K of them), for one row the weight's bytes.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use puna::prelude::*;
use puna::tensor::BlockType;
use puna::tensor::op::Activations;

fn values(n: usize) -> Vec<f32> {
    (0..n).map(|i| ((i * 2654435761) % 1000) as f32 / 500.0 - 1.0).collect()
}

fn dense(criterion: &mut Criterion) {
    let device = puna::device("cpu").expect("there is a CPU");
    let mut group = criterion.benchmark_group("matmul");
    for n in [512, 1024] {
        let shape = format!("{n}x{n}x{n}");
        group.throughput(Throughput::Elements(2 * (n * n * n) as u64));
        for dtype in [DType::F32, DType::BF16] {
            let a = Tensor::from_slice(&values(n * n), [n, n], &device).and_then(|a| a.cast(dtype)).expect("there is memory");
            let w = a.pack().expect("there is memory");
            group.bench_function(BenchmarkId::new(dtype.name(), &shape), |bencher| {
                bencher.iter(|| a.linear(&w, Activations::Exact).expect("the shapes fit"));
            });
        }
        #[cfg(feature = "peers")]
        {
            let (a, b, mut c) = (values(n * n), values(n * n), vec![0f32; n * n]);
            group
                .bench_function(BenchmarkId::new("f32 (gemm)", &shape), |bencher| bencher.iter(|| peer::gemm(n, &a, &b, &mut c)));
        }
    }
    group.finish();
}

fn vector(criterion: &mut Criterion) {
    let device = puna::device("cpu").expect("there is a CPU");
    let mut group = criterion.benchmark_group("matmul vector");
    let (n, k) = (4096, 4096);
    let x = Tensor::from_slice(&values(k), [1, k], &device).expect("there is memory");
    let w = Tensor::from_slice(&values(n * k), [n, k], &device).expect("there is memory");
    let blocks = [BlockType::Q8_0, BlockType::Q4_0, BlockType::Q4_1, BlockType::Q4K, BlockType::Q5K, BlockType::Q6K];
    for dtype in [DType::F32, DType::BF16].into_iter().chain(blocks.map(DType::Block)) {
        let packed = w.cast(dtype).and_then(|w| w.pack()).expect("there is memory");
        group.throughput(Throughput::Bytes(dtype.bytes_for(n * k).expect("whole blocks") as u64));
        group.bench_function(BenchmarkId::new(dtype.name(), format!("1x{n}x{k}")), |bencher| {
            bencher.iter(|| x.linear(&packed, Activations::Int8).expect("the shapes fit"));
        });
    }
    group.finish();
}

#[cfg(feature = "peers")]
mod peer {
    /// `c = a b`, on two threads.
    #[allow(unsafe_code)]
    pub(super) fn gemm(n: usize, a: &[f32], b: &[f32], c: &mut [f32]) {
        let (row, column) = (n as isize, 1);
        // SAFETY: all three are n by n, row-major, and c is borrowed mutably.
        unsafe {
            gemm::gemm(
                n,
                n,
                n,
                c.as_mut_ptr(),
                column,
                row,
                false,
                a.as_ptr(),
                column,
                row,
                b.as_ptr(),
                column,
                row,
                0.0,
                1.0,
                false,
                false,
                false,
                gemm::Parallelism::Rayon(2),
            );
        }
    }
}

criterion_group!(benches, dense, vector);
criterion_main!(benches);
