use half::{bf16, f16};

use super::*;

/// Values whose products and sums need rounding, from a seed.
fn values<T: Float>(n: usize, seed: u64) -> Vec<T>
where
    T::Wide: From<f32>,
{
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        ((state >> 40) as f32 / (1u32 << 23) as f32 - 1.0) * if state & 0xf00 == 0 { 40.0 } else { 1.0 }
    };
    (0..n).map(|_| T::round(next().into())).collect()
}

/// The definition.
fn naive<X, W, Y>(x: Matrix<'_, X>, w: Matrix<'_, W>, bias: Option<&[W::Wide]>) -> Vec<Y>
where
    X: Float<Wide = W::Wide>,
    W: Float,
    Y: Float<Wide = W::Wide>,
{
    let ([m, k], [n, _]) = (x.shape, w.shape);
    let mut y = Vec::with_capacity(m * n);
    for i in 0..m {
        for j in 0..n {
            let mut sum = W::Wide::ZERO;
            for l in 0..k {
                let x = x.data[i * x.strides[0] + l * x.strides[1]].widen();
                sum = x.fma(w.data[j * w.strides[0] + l * w.strides[1]].widen(), sum);
            }
            y.push(Y::round(bias.map_or(sum, |bias| sum + bias[j])));
        }
    }
    y
}

#[track_caller]
fn assert_same_bits<T: Float>(got: &[T], want: &[T], what: &dyn std::fmt::Debug) {
    let [got_bytes, want_bytes]: [&[u8]; 2] = [bytemuck::cast_slice(got), bytemuck::cast_slice(want)];
    if got_bytes != want_bytes {
        let i = (0..want.len()).find(|i| bytemuck::bytes_of(&got[*i]) != bytemuck::bytes_of(&want[*i])).unwrap();
        panic!("{what:?}: element {i} of {} is {:?}, not {:?}", want.len(), got[i].widen(), want[i].widen());
    }
}

/// `[m, n, k]`: tails of tiles, panels, blocks of k and groups of panels; and nothing.
const SHAPES: [[usize; 3]; 22] = [
    [1, 1, 1],
    [1, 33, 7],
    [1, 300, 130],
    [2, 64, 193],
    [3, 31, 64],
    [4, 129, 200],
    [5, 17, 385],
    [7, 160, 33],
    [11, 40, 20],
    [12, 32, 192],
    [13, 70, 191],
    [24, 65, 50],
    [25, 96, 200],
    [36, 128, 576],
    [37, 130, 194],
    [50, 1, 400],
    [385, 33, 17],
    [770, 40, 9],
    [4, 5, 0],
    [40, 37, 0],
    [0, 5, 3],
    [5, 0, 3],
];

fn packed_equals_definition<X, W, Y>()
where
    X: Float<Wide = W::Wide>,
    W: Kernels,
    Y: Float<Wide = W::Wide>,
    W::Wide: From<f32>,
{
    let pools = [1, 2, 3].map(|threads| Pool::new(threads).unwrap());
    for (seed, [m, n, k]) in SHAPES.into_iter().enumerate() {
        let seed = seed as u64;
        let gap = seed as usize % 3;
        let x: Vec<X> = values(m * (k + gap) + k, seed);
        let w: Vec<W> = values(n * k, seed + 100);
        let bias: Vec<W::Wide> = values(n, seed + 200);
        let bias = if seed % 2 == 0 { Some(&bias[..]) } else { None };
        let x = if seed % 5 == 4 { Matrix::new(&x, [k, m], [m, 1]).transposed() } else { Matrix::new(&x, [m, k], [k + gap, 1]) };
        // Weights as a linear layer holds them, or as a matrix product takes them.
        let w = if seed % 3 == 1 { Matrix::rows(&w, [k, n]).transposed() } else { Matrix::rows(&w, [n, k]) };
        let want: Vec<Y> = naive(x, w, bias);
        for (isa, pool) in Isa::available().into_iter().flat_map(|isa| pools.iter().map(move |pool| (isa, pool))) {
            let mut packed = vec![W::round(7.0.into()); packed_len::<W>(n, k)];
            pack(pool, w, &mut packed);
            let stride = n + gap;
            let poison = Y::round(f32::NAN.into());
            let mut y = vec![poison; m * stride];
            matmul_packed_on(isa, pool, x, &packed, n, bias, &mut y, stride);
            let rows: Vec<Y> = y.chunks(stride.max(1)).flat_map(|row| row[..n].to_vec()).collect();
            assert_same_bits(&rows, &want, &([m, n, k], isa, pool.threads()));
            let gaps = y.chunks(stride.max(1)).flat_map(|row| &row[n..]);
            gaps.for_each(|y| assert!(y.widen() != y.widen(), "written beside the result"));
        }
    }
}

#[test]
fn f32_equals_definition() {
    packed_equals_definition::<f32, f32, f32>();
}

#[test]
fn bf16_equals_definition() {
    packed_equals_definition::<bf16, bf16, bf16>();
    packed_equals_definition::<f32, bf16, f32>();
}

#[test]
fn f16_equals_definition() {
    packed_equals_definition::<f16, f16, f16>();
    packed_equals_definition::<bf16, f16, f32>();
}

#[test]
fn f64_equals_definition() {
    packed_equals_definition::<f64, f64, f64>();
}

#[test]
fn infinities_and_nans_come_through() {
    let pool = Pool::new(1).unwrap();
    let (n, k) = (40, 20);
    let mut w: Vec<f32> = values(n * k, 1);
    w[3 * k + 5] = f32::INFINITY;
    w[39 * k + 19] = f32::NAN;
    let x = vec![1.0f32; k];
    let mut packed = vec![0.0; packed_len::<f32>(n, k)];
    pack(&pool, Matrix::rows(&w, [n, k]), &mut packed);
    for isa in Isa::available() {
        let mut y = vec![0.0f32; n];
        matmul_packed_on(isa, &pool, Matrix::rows(&x, [1, k]), &packed, n, None, &mut y, n);
        for (j, y) in y.iter().enumerate() {
            assert_eq!((y.is_nan(), *y == f32::INFINITY), (j == 39, j == 3), "{isa:?} {j}");
        }
    }
}

#[test]
fn unpack_gives_back_what_was_packed() {
    let pool = Pool::new(2).unwrap();
    for (seed, [_, n, k]) in SHAPES.into_iter().enumerate() {
        let w: Vec<f16> = values(n * k, seed as u64);
        let mut packed = vec![f16::ONE; packed_len::<f16>(n, k)];
        pack(&pool, Matrix::rows(&w, [n, k]), &mut packed);
        let mut back = vec![f16::ONE; n * k];
        unpack(&pool, &packed, [n, k], &mut back);
        assert_same_bits(&back, &w, &[n, k]);
        for row in 0..n {
            let mut back = vec![f16::ONE; k];
            unpack_row(&packed, [n, k], row, &mut back);
            assert_same_bits(&back, &w[row * k..][..k], &(row, n, k));
        }
    }
}

#[test]
fn products_of_a_batch_equal_the_definition() {
    let pools = [1, 2, 3].map(|threads| Pool::new(threads).unwrap());
    for (seed, [m, n, k]) in SHAPES.into_iter().enumerate() {
        for items in [1, 2, 9] {
            let seed = seed as u64 * 31;
            // Items of `x` follow each other, rows of k of one then of the other; all share every second item's `w`, `[k, n]`.
            let x: Vec<f32> = values(m * items * k, seed);
            let w: Vec<bf16> = values(items.div_ceil(2) * n * k, seed + 1);
            let item = |i: usize| [i * k * usize::from(m > 0), i / 2 * n * k];
            let want: Vec<f32> = (0..items)
                .flat_map(|i| {
                    let x = Matrix::new(&x[item(i)[0]..], [m, k], [items * k, 1]);
                    let w = Matrix::new(&w[item(i)[1]..], [n, k], [1, n]);
                    naive(x, w, None)
                })
                .collect();
            for pool in &pools {
                let mut y = vec![f32::NAN; items * m * n];
                matmul_strided(pool, [m, n, k], items, &item, (&x, [items * k, 1]), (&w, [1, n]), &mut y);
                assert_same_bits(&y, &want, &([m, n, k], items, pool.threads()));
            }
        }
    }
}

/// For the eye: `cargo test --release -p puna-cpu matmul_speed -- --ignored --nocapture`.
#[test]
#[ignore = "prints times"]
fn matmul_speed() {
    fn measure<W: Kernels<Wide = f32>>(name: &str, isa: Isa, pool: &Pool, [m, n, k]: [usize; 3]) {
        let x: Vec<f32> = values(m * k, 1);
        let w: Vec<W> = values(n * k, 2);
        let mut packed = vec![W::zeroed(); packed_len::<W>(n, k)];
        pack(pool, Matrix::rows(&w, [n, k]), &mut packed);
        let mut y = vec![0.0f32; m * n];
        let rounds = (2_000_000_000 / (m * n * k)).clamp(1, 2000);
        let mut best = f64::INFINITY;
        pool.hold(|| {
            for _ in 0..5 {
                let start = std::time::Instant::now();
                for _ in 0..rounds {
                    matmul_packed_on(isa, pool, Matrix::rows(&x, [m, k]), &packed, n, None, &mut y, n);
                }
                best = best.min(start.elapsed().as_secs_f64() / rounds as f64);
            }
        });
        let (flops, bytes) = (2.0 * (m * n * k) as f64, size_of_val(&packed[..]) as f64);
        let threads = pool.threads();
        println!(
            "{name} {isa:?} {threads}t {m}x{n}x{k}: {:.1} GFLOP/s, weights {:.1} GB/s",
            flops / best / 1e9,
            bytes / best / 1e9
        );
    }
    for pool in [1, 2].map(|threads| Pool::new(threads).unwrap()) {
        for isa in Isa::available().into_iter().filter(|isa| *isa != Isa::Portable) {
            for size in [512, 1024, 2048] {
                measure::<f32>("f32", isa, &pool, [size; 3]);
                measure::<bf16>("bf16", isa, &pool, [size; 3]);
            }
            for m in [1, 2, 4, 8, 16, 32] {
                measure::<bf16>("bf16", isa, &pool, [m, 4096, 4096]);
            }
            measure::<f32>("f32", isa, &pool, [1, 4096, 4096]);
            measure::<f16>("f16", isa, &pool, [1, 4096, 4096]);
            measure::<f32>("f32", isa, &pool, [1, 1024, 1024]);
            measure::<bf16>("bf16", isa, &pool, [1, 576, 576]);
        }
        for (items, [m, n, k], transposed) in
            [(1, [512; 3], false), (1, [512; 3], true), (64, [128, 128, 64], false), (64, [128, 64, 128], true)]
        {
            let (x, w): (Vec<f32>, Vec<f32>) = (values(items * m * k, 1), values(items * n * k, 2));
            let mut y = vec![0.0f32; items * m * n];
            let strides = if transposed { [1, n] } else { [k, 1] };
            let best = (0..10)
                .map(|_| {
                    let start = std::time::Instant::now();
                    matmul_strided(&pool, [m, n, k], items, &|i| [i * m * k, i * n * k], (&x, [k, 1]), (&w, strides), &mut y);
                    start.elapsed().as_secs_f64()
                })
                .fold(f64::INFINITY, f64::min);
            let flops = 2.0 * (items * m * n * k) as f64;
            println!(
                "strided {}t {items} x {m}x{n}x{k}, transposed {transposed}: {:.1} GFLOP/s",
                pool.threads(),
                flops / best / 1e9
            );
        }
    }
}
