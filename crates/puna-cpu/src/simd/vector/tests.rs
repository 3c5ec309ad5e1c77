use half::{bf16, f16};

use super::*;
use crate::simd::float::{Accumulator, Float};

/// Values of all magnitudes that models meet, from a seed.
fn values<T: Real>(n: usize, seed: u64) -> Vec<T> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let unit = (state >> 40) as f64 / f64::from(1 << 23) - 1.0;
        T::of(unit * if state & 0xf00 == 0 { 60.0 } else { 3.0 })
    };
    (0..n).map(next).collect()
}

/// The bits of a float; one for all NaNs.
fn bits<T: Real>(x: &T) -> Vec<u8> {
    if x.is_nan() { vec![] } else { bytemuck::bytes_of(x).to_vec() }
}

/// What a kernel makes of rows of every length, at every alignment, is the same for every [`Isa`].
fn same_on_all<T: Real>(name: &str, kernel: impl Fn(Isa, &[T], &[T], &mut [T]) -> T) {
    let (a, b, c) = (values::<T>(200, 1), values::<T>(200, 2), values::<T>(200, 3));
    for n in 0..68 {
        for shift in [0, 1, 3] {
            let mut want: Option<(Vec<T>, T)> = None;
            for isa in Isa::available() {
                let mut row = c[shift..][..n].to_vec();
                let result = kernel(isa, &a[shift..][..n], &b[2 * shift..][..n], &mut row);
                let (want_row, want_result) = want.get_or_insert_with(|| (row.clone(), result));
                assert_eq!(bits(&result), bits(want_result), "{name}, {n} elements, {isa:?}");
                for (i, (y, want)) in row.iter().zip(want_row).enumerate() {
                    assert_eq!(bits(y), bits(want), "{name}, element {i} of {n}, {isa:?}: {y:?}, {want:?}");
                }
            }
        }
    }
}

const FUNCTIONS: [Function; 11] = [
    Function::Exp,
    Function::Ln,
    Function::Tanh,
    Function::Sigmoid,
    Function::Silu,
    Function::Softplus,
    Function::Gelu,
    Function::GeluTanh,
    Function::Sqrt,
    Function::Rsqrt,
    Function::Reciprocal,
];

fn all_kernels<T: Real>() {
    same_on_all("sum", |isa, a: &[T], _, _| sum(isa, a));
    same_on_all("sum of squares", |isa, a: &[T], _, _| sum_of_squares(isa, a));
    same_on_all("dot", |isa, a: &[T], b, _| dot(isa, a, b));
    same_on_all("max", |isa, a: &[T], _, _| max(isa, a));
    same_on_all("reciprocal_rms", |isa, a: &[T], _, _| reciprocal_rms(isa, a, T::of(1e-5)));
    same_on_all("exp_sub_sum", |isa, _: &[T], _, row| exp_sub_sum(isa, row, T::of(0.7)));
    type Changes<T> = fn(Isa, &[T], &[T], &mut [T]);
    let changes: [(&str, Changes<T>); 8] = [
        ("softmax", |isa, _, _, row| softmax(isa, row)),
        ("scale_mul", |isa, a, b, row| scale_mul(isa, a, T::of(0.3), b, row)),
        ("scale", |isa, _, _, row| scale(isa, row, T::of(0.3))),
        ("add", |isa, a, _, row| add(isa, a, row)),
        ("mul", |isa, a, _, row| mul(isa, a, row)),
        ("swiglu", |isa, a, b, row| swiglu(isa, a, b, row)),
        ("rope_halves", |isa, a, b, row| {
            let h = row.len() / 2;
            rope_halves(isa, &mut row[..2 * h], &a[..h], &b[..h]);
        }),
        ("rope_interleaved", |isa, a, b, row| {
            let h = row.len() / 2;
            rope_interleaved(isa, &mut row[..2 * h], &a[..h], &b[..h]);
        }),
    ];
    for (name, change) in changes {
        same_on_all(name, |isa, a, b, row| {
            change(isa, a, b, row);
            T::ZERO
        });
    }
    for f in FUNCTIONS {
        same_on_all(&format!("{f:?}"), |isa, _, _, row| {
            map(isa, f, row);
            T::ZERO
        });
    }
}

#[test]
fn f32_kernels_give_the_same_bits_on_every_isa() {
    all_kernels::<f32>();
}

#[test]
fn f64_kernels_give_the_same_bits_on_every_isa() {
    all_kernels::<f64>();
}

/// The sums by their definition.
#[test]
fn sums_have_sixteen_lanes_and_one_tree() {
    for n in 0..68 {
        let (a, b) = (values::<f32>(n, 4), values::<f32>(n, 5));
        let mut lanes = [[0.0f32; 16]; 2];
        for i in 0..n {
            lanes[0][i % 16] += a[i];
            lanes[1][i % 16] = a[i].mul_add(b[i], lanes[1][i % 16]);
        }
        let [s, d] = lanes.map(|l| {
            let l: Vec<f32> = (0..8).map(|i| l[i] + l[i + 8]).collect();
            let l: Vec<f32> = (0..4).map(|i| l[i] + l[i + 4]).collect();
            (l[0] + l[2]) + (l[1] + l[3])
        });
        for isa in Isa::available() {
            assert_eq!(sum(isa, &a).to_bits(), s.to_bits(), "{n} {isa:?}");
            assert_eq!(dot(isa, &a, &b).to_bits(), d.to_bits(), "{n} {isa:?}");
        }
    }
}

#[test]
fn max_passes_nan_on() {
    for isa in Isa::available() {
        assert_eq!(max::<f32>(isa, &[]), f32::NEG_INFINITY);
        for n in 1..50 {
            for at in 0..n {
                let mut x = values::<f32>(n, n as u64);
                x[at] = 1e9;
                assert_eq!(max(isa, &x), 1e9);
                x[at] = f32::NAN;
                assert!(max(isa, &x).is_nan(), "{at} of {n}");
            }
        }
    }
}

/// The distance from `want` in units of the last place of the f32 nearest to it.
fn ulps(got: f32, want: f64) -> f64 {
    let nearest = want as f32;
    if got == nearest || (got.is_nan() && nearest.is_nan()) {
        return 0.0;
    }
    let ulp = f64::from(f32::from_bits((nearest.abs().to_bits() + 1).min(0x7f80_0000))) - f64::from(nearest.abs());
    let ulp = if nearest.is_infinite() || ulp.is_infinite() { 2f64.powi(104) } else { ulp };
    (f64::from(got) - want).abs() / ulp
}

/// Every 97th f32 between two, and their negatives.
fn sweep(from: f32, to: f32) -> impl Iterator<Item = f32> {
    (from.to_bits()..=to.to_bits()).step_by(97).map(f32::from_bits)
}

#[track_caller]
fn error_is_below(limit: f64, f: Function, exact: impl Fn(f64) -> f64, inputs: impl Iterator<Item = f32>) {
    let isa = Isa::detect();
    let inputs: Vec<f32> = inputs.collect();
    let mut results = inputs.clone();
    map(isa, f, &mut results);
    let errors = inputs.iter().zip(&results).map(|(x, y)| (ulps(*y, exact(f64::from(*x))), x, y));
    let (worst, x, y) = errors.max_by(|a, b| a.0.total_cmp(&b.0)).unwrap();
    println!("{f:?}: {worst:.3} ulp at {x:e}: {y:e}, exactly {:e}", exact(f64::from(*x)));
    assert!(worst < limit, "{f:?} is off by {worst} ulp at {x:e}: {y:e}, exactly {:e}", exact(f64::from(*x)));
}

#[test]
fn functions_are_as_exact_as_stated() {
    error_is_below(1.0, Function::Exp, f64::exp, sweep(0.0, 90.0).chain(sweep(0.0, 105.0).map(|x| -x)));
    error_is_below(1.0, Function::Ln, f64::ln, sweep(0.0, f32::MAX));
    error_is_below(2.0, Function::Tanh, f64::tanh, sweep(0.0, 20.0).chain(sweep(0.0, 20.0).map(|x| -x)));
    let softplus = |x: f64| x.max(0.0) + (-x.abs()).exp().ln_1p();
    error_is_below(3.0, Function::Softplus, softplus, sweep(0.0, 100.0).chain(sweep(0.0, 80.0).map(|x| -x)));
    error_is_below(3.0, Function::Sigmoid, |x| 1.0 / (1.0 + (-x).exp()), sweep(0.0, 100.0).chain(sweep(0.0, 80.0).map(|x| -x)));
    error_is_below(3.0, Function::Silu, |x| x / (1.0 + (-x).exp()), sweep(0.0, 100.0).chain(sweep(0.0, 80.0).map(|x| -x)));
}

#[test]
fn erf_is_as_exact_as_stated() {
    let worst = sweep(0.0, 5.0).map(|x| ulps(Real::erf(x), Real::erf(f64::from(x)))).fold(0.0, f64::max);
    println!("erf: {worst:.3} ulp");
    assert!(worst < 2.0, "{worst} ulp");
    // Abramowitz and Stegun, table 7.1, and the same to more digits.
    let known = [
        (0.5, 0.520_499_877_813_046_5),
        (1.0, 0.842_700_792_949_714_9),
        (2.0, 0.995_322_265_018_952_7),
        (4.0, 0.999_999_984_582_742_1),
    ];
    for (x, y) in known {
        assert!((Real::erf(x) - y).abs() < 4e-16, "erf {x} = {:e}", Real::erf(x));
        assert_eq!(Real::erf(-x), -Real::erf(x));
    }
}

#[test]
fn functions_hold_at_the_edges() {
    let (inf, nan) = (f32::INFINITY, f32::NAN);
    let edges = [
        (Function::Exp, vec![(-inf, 0.0), (inf, inf), (0.0, 1.0), (-0.0, 1.0), (88.8, inf), (-200.0, 0.0), (nan, nan)]),
        (Function::Ln, vec![(0.0, -inf), (-0.0, -inf), (-1.0, nan), (1.0, 0.0), (inf, inf), (-inf, nan), (nan, nan)]),
        (Function::Tanh, vec![(inf, 1.0), (-inf, -1.0), (-0.0, -0.0), (nan, nan), (1e-30, 1e-30)]),
        (Function::Sigmoid, vec![(-inf, 0.0), (inf, 1.0), (0.0, 0.5), (nan, nan), (-200.0, 0.0)]),
        (Function::Silu, vec![(inf, inf), (0.0, 0.0), (-200.0, -0.0), (nan, nan)]),
        (Function::Softplus, vec![(-inf, 0.0), (inf, inf), (100.0, 100.0), (nan, nan)]),
        (Function::Gelu, vec![(inf, inf), (0.0, 0.0), (-20.0, -0.0), (nan, nan)]),
        (Function::GeluTanh, vec![(inf, inf), (0.0, 0.0), (-20.0, -0.0), (nan, nan)]),
        (Function::Rsqrt, vec![(4.0, 0.5), (0.0, inf), (inf, 0.0), (-1.0, nan)]),
    ];
    for isa in Isa::available() {
        for (f, pairs) in &edges {
            for (x, want) in pairs {
                let mut y = [*x; 17];
                map(isa, *f, &mut y);
                y.iter().for_each(|y| assert_eq!(bits(y), bits(want), "{f:?} of {x} on {isa:?} is {y}, not {want}"));
            }
        }
    }
}

#[test]
fn softmax_is_what_it_says() {
    for n in 1..68 {
        let x = values::<f32>(n, 9);
        let sum: f64 = x.iter().map(|x| f64::from(*x).exp()).sum();
        let largest = max(Isa::detect(), &x);
        let mut y = x.clone();
        softmax(Isa::detect(), &mut y);
        for (x, y) in x.iter().zip(&y) {
            let exact = f64::from(*x).exp() / sum;
            // The difference to the largest is rounded; then come an exponential, a sum of such and a quotient.
            let roundings = f64::from(largest - x) + 2.0 + (2.0 + 5.0 + n as f64 / 16.0) + 1.0;
            assert!((f64::from(*y) - exact).abs() <= exact * roundings / f64::from(1 << 24), "{y} {exact}");
        }
    }
}

#[test]
fn both_ropes_rotate_the_same_pairs() {
    let (h, isa) = (24, Isa::detect());
    let head = values::<f32>(2 * h, 1);
    let angles: Vec<f32> = values(h, 2);
    let (cos, sin): (Vec<f32>, Vec<f32>) = angles.iter().map(|a| (a.cos(), a.sin())).unzip();
    let mut halves = head.clone();
    rope_halves(isa, &mut halves, &cos, &sin);
    let mut interleaved: Vec<f32> = (0..2 * h).map(|i| head[i / 2 + i % 2 * h]).collect();
    rope_interleaved(isa, &mut interleaved, &cos, &sin);
    for i in 0..h {
        assert_eq!((halves[i], halves[i + h]), (interleaved[2 * i], interleaved[2 * i + 1]));
        let (c, s) = (f64::from(cos[i]), f64::from(sin[i]));
        let exact = f64::from(head[i]) * c - f64::from(head[i + h]) * s;
        assert!((f64::from(halves[i]) - exact).abs() < 1e-5);
    }
}

fn attention_equals_definition<K: Float<Wide: Real>>() {
    for (rows, n, dim) in [(1, 1, 1), (1, 64, 64), (4, 17, 80), (9, 33, 128), (3, 5, 37), (2, 3, 0), (2, 0, 64)] {
        let (stride, out_stride) = (dim + 5, n + 3);
        let p: Vec<K::Wide> = values(rows * out_stride, 2);
        let held: Vec<K> = values(n * stride + dim, 4).into_iter().map(K::round).collect();
        for isa in Isa::available() {
            let first: Vec<K::Wide> = values(rows * dim, 5);
            let mut sums = first.clone();
            accumulate(isa, &p, out_stride, n, &held, stride, dim, &mut sums);
            for i in 0..rows {
                for d in 0..dim {
                    let want =
                        (0..n).fold(first[i * dim + d], |sum, j| p[i * out_stride + j].fma(held[j * stride + d].widen(), sum));
                    assert_eq!(bits(&sums[i * dim + d]), bits(&want), "sum {i} {d} of {rows} {n} {dim}, {isa:?}");
                }
            }
        }
    }
}

#[test]
fn attention_of_every_dtype_equals_its_definition() {
    attention_equals_definition::<f32>();
    attention_equals_definition::<f64>();
    attention_equals_definition::<bf16>();
    attention_equals_definition::<f16>();
}

/// For the eye: `cargo test --release -p puna-cpu row_speed -- --ignored --nocapture`.
#[test]
#[ignore = "prints times"]
fn row_speed() {
    let time = |name: &str, isa: Isa, per: usize, f: &mut dyn FnMut()| {
        let best = (0..5)
            .map(|_| {
                let start = std::time::Instant::now();
                (0..2000).for_each(|_| f());
                start.elapsed().as_secs_f64() / 2000.0
            })
            .fold(f64::INFINITY, f64::min);
        println!("{isa:?} {name}: {:.3} ns each", best / per as f64 * 1e9);
    };
    let n = 4096;
    let (a, b) = (values::<f32>(n, 1), values::<f32>(n, 2));
    for isa in Isa::available().into_iter().filter(|isa| *isa != Isa::Portable) {
        let mut y = a.clone();
        let mut kept = 0.0f32;
        time("dot", isa, n, &mut || kept += std::hint::black_box(dot(isa, &a, &b)));
        time("max", isa, n, &mut || kept += std::hint::black_box(max(isa, &a)));
        for f in FUNCTIONS {
            time(&format!("{f:?}"), isa, n, &mut || {
                y.copy_from_slice(&a);
                map(isa, f, std::hint::black_box(&mut y));
            });
        }
        time("swiglu", isa, n, &mut || swiglu(isa, &a, &b, std::hint::black_box(&mut y)));
        time("rope_halves", isa, 128, &mut || rope_halves(isa, std::hint::black_box(&mut y[..128]), &a[..64], &b[..64]));
        time("rope_interleaved", isa, 128, &mut || {
            rope_interleaved(isa, std::hint::black_box(&mut y[..128]), &a[..64], &b[..64])
        });
        for dim in [64, 128] {
            let (rows, n) = (4, 64);
            let keys = values::<f32>(n * dim, 3);
            let out = values::<f32>(rows * n, 4);
            let half: Vec<f16> = keys.iter().map(|x| f16::from_f32(*x)).collect();
            let multiplications = rows * n * dim;
            time(&format!("accumulate {dim}"), isa, multiplications, &mut || {
                accumulate(isa, &out, n, n, &keys, dim, dim, std::hint::black_box(&mut y[..rows * dim]));
            });
            time(&format!("accumulate {dim} f16"), isa, multiplications, &mut || {
                accumulate(isa, &out, n, n, &half, dim, dim, std::hint::black_box(&mut y[..rows * dim]));
            });
        }
    }
}
