//! Every vector unit against the definition in the module's table, read from the blocks themselves.

use puna_quant::{BlockType, Fields, decode, quantize_activations};

use super::*;

/// Those that the kernels read.
fn formats() -> impl Iterator<Item = BlockType> {
    BlockType::ALL.into_iter().filter(|block| *block != BlockType::Nf4)
}

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn bytes(&mut self, n: usize) -> Vec<u8> {
        (0..n).map(|_| self.next() as u8).collect()
    }

    /// Between -1 and 1.
    fn unit(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    /// Random blocks whose halves `d` and `m` are ordinary numbers.
    fn blocks(&mut self, block: BlockType, n: usize, k: usize) -> Vec<u8> {
        let mut bytes = self.bytes(n * k / block.values() * block.bytes());
        for bytes in bytes.chunks_exact_mut(block.bytes()) {
            let mut fields = Fields::read(block, bytes);
            fields.d = half::f16::from_f32(self.unit() * 0.1);
            fields.m = half::f16::from_f32(self.unit() * 0.1);
            fields.write(block, bytes);
        }
        bytes
    }

    /// Rows of different sizes, one block of zeros and one of a single value among them.
    fn activations(&mut self, m: usize, k: usize) -> Vec<f32> {
        let mut x: Vec<f32> = (0..m * k).map(|i| self.unit() * (1 + i / k) as f32).collect();
        if x.len() >= 64 {
            x[..32].fill(0.0);
            x[32..63].fill(0.0);
        }
        x
    }
}

/// The definition of one output: the chain of the module's table, and the sum of its terms in f64 with that of their magnitudes.
fn chain(block: BlockType, row: &[u8], x: &[f32]) -> (f32, f64, f64) {
    let mut q = vec![0; x.len()];
    let (mut d_x, mut sums) = (vec![0.0; x.len() / 32], vec![[0; 2]; x.len() / 32]);
    quantize_activations(x, &mut q, &mut d_x, &mut sums).unwrap();
    let (mut acc, mut exact, mut magnitude) = (0.0f32, 0.0f64, 0.0f64);
    for (b, bytes) in row.chunks_exact(block.bytes()).enumerate() {
        let f = Fields::read(block, bytes);
        let (d, m) = (f.d.to_f32(), f.m.to_f32());
        for run in 0..block.values() / 32 {
            let at = b * (block.values() / 32) + run;
            let (q, d_x, s) = (&q[32 * at..][..32], d_x[at], sums[at].map(i32::from));
            let half = |h: usize, value: &dyn Fn(u8) -> i32| -> i32 {
                (16 * h..16 * h + 16).map(|i| value(f.quants[32 * run + i]) * i32::from(q[i])).sum()
            };
            let whole = |value: &dyn Fn(u8) -> i32| half(0, value) + half(1, value);
            let scale = |h: usize| i32::from(f.scales[2 * run + h]);
            // Each step: an integer, the factors of its scale, and how the scale is rounded.
            let steps: Vec<(i32, [f32; 3])> = match block {
                BlockType::Q8_0 => vec![(whole(&|q| i32::from(q as i8)), [d, 1.0, d_x])],
                BlockType::Q4_0 => vec![(whole(&|q| i32::from(q) - 8), [d, 1.0, d_x])],
                BlockType::Q5_0 => vec![(whole(&|q| i32::from(q) - 16), [d, 1.0, d_x])],
                BlockType::Q4_1 | BlockType::Q5_1 => {
                    vec![(whole(&|q| i32::from(q)), [d, 1.0, d_x]), (s[0] + s[1], [m, 1.0, d_x])]
                }
                BlockType::Q4K | BlockType::Q5K => vec![
                    (whole(&|q| i32::from(q)), [d, f32::from(f.scales[run]), d_x]),
                    (s[0] + s[1], [-m, f32::from(f.mins[run]), d_x]),
                ],
                BlockType::Q3K => {
                    let value = |q| i32::from(q) - 4;
                    vec![((scale(0) - 32) * half(0, &value) + (scale(1) - 32) * half(1, &value), [d, 1.0, d_x])]
                }
                BlockType::Q6K => {
                    let value = |q| i32::from(q) - 32;
                    let scale = |h: usize| i32::from(f.scales[2 * run + h] as i8);
                    vec![(scale(0) * half(0, &value) + scale(1) * half(1, &value), [d, 1.0, d_x])]
                }
                _ => {
                    let value = |q| i32::from(q);
                    let min = |h: usize| i32::from(f.mins[2 * run + h]);
                    vec![
                        (scale(0) * half(0, &value) + scale(1) * half(1, &value), [d, 1.0, d_x]),
                        (min(0) * s[0] + min(1) * s[1], [-m, 1.0, d_x]),
                    ]
                }
            };
            for (i, (isum, [d, scale, d_x])) in steps.into_iter().enumerate() {
                acc = match (block, i) {
                    (BlockType::Q4_1 | BlockType::Q5_1 | BlockType::Q4K | BlockType::Q5K, 1) => {
                        (d * scale).mul_add(d_x * isum as f32, acc)
                    }
                    _ => (isum as f32).mul_add((d * scale) * d_x, acc),
                };
                let term = f64::from(isum) * f64::from(d) * f64::from(scale) * f64::from(d_x);
                exact += term;
                magnitude += term.abs();
            }
        }
    }
    (acc, exact, magnitude)
}

fn quantized(kernels: Kernels, x: &[f32]) -> Vec<ActivationBlock> {
    let mut out = vec![ActivationBlock::ZERO; x.len() / 32];
    quantize(kernels, x, &mut out);
    out
}

fn packed(kernels: Kernels, block: BlockType, bytes: &[u8], n: usize, k: usize) -> Vec<u8> {
    let mut out = vec![0xff; kernels.packed_len(block, n, k)];
    pack(kernels, block, bytes, k, &mut out);
    out
}

/// Equal bits, where one NaN is as good as another.
#[track_caller]
fn check_bits(what: &str, found: &[f32], expected: &[f32]) {
    for (i, (a, b)) in found.iter().zip(expected).enumerate() {
        assert!(a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan(), "{what}: element {i} is {a}, not {b}");
    }
}

#[test]
fn every_unit_and_shape_gives_the_bits_of_the_definition() {
    let mut random = Random(1);
    let (most_m, most_n) = if cfg!(miri) { (2, 9) } else { (17, 33) };
    for block in formats() {
        for k in [1, 2, 3].map(|blocks| blocks * block.values()).into_iter().take(if cfg!(miri) { 1 } else { 3 }) {
            let bytes = random.blocks(block, most_n, k);
            let x = random.activations(most_m, k);
            let row_bytes = bytes.len() / most_n;
            let mut expected = vec![0.0; most_m * most_n];
            for (m, x) in x.chunks_exact(k).enumerate() {
                for (n, row) in bytes.chunks_exact(row_bytes).enumerate() {
                    let (y, exact, magnitude) = chain(block, row, x);
                    let steps = (2 * k / 32 + 2) as f64;
                    let bound = steps * 2f64.powi(-24) * magnitude;
                    assert!((f64::from(y) - exact).abs() <= bound, "{block} k {k}: {y} is not {exact} (bound {bound})");
                    expected[m * most_n + n] = y;
                }
            }
            for kernels in Kernels::available() {
                for n in [1, 7, 8, 9, 16, 33].into_iter().filter(|&n| n <= most_n) {
                    let packed = packed(kernels, block, &bytes[..n * row_bytes], n, k);
                    for m in [1, 2, 3, 4, 5, 8, 17].into_iter().filter(|&m| m <= most_m) {
                        let expected: Vec<f32> =
                            expected.chunks_exact(most_n).take(m).flat_map(|row| &row[..n]).copied().collect();
                        let what = format!("{kernels:?} {block} m {m} n {n} k {k}");
                        let x = quantized(kernels, &x[..m * k]);
                        let mut y = vec![f32::NAN; m * n];
                        matmul(kernels, block, &packed, k, &x, &mut Columns::new(&mut y, m, n));
                        check_bits(&what, &y, &expected);

                        let mut y = vec![f32::NAN; m * n];
                        let bytes = &bytes[..n * row_bytes];
                        matmul_unpacked(kernels, block, bytes, k, &x, Columns::new(&mut y, m, n), &mut Vec::new());
                        check_bits(&format!("{what}, not packed"), &y, &expected);
                    }
                }
            }
        }
    }
}

#[test]
fn a_product_split_by_groups_has_the_bits_of_the_whole() {
    let mut random = Random(2);
    let (block, n, k, m) = (BlockType::Q4_1, 45, 64, 3);
    let bytes = random.blocks(block, n, k);
    let x = random.activations(m, k);
    for kernels in Kernels::available() {
        let (packed, x) = (packed(kernels, block, &bytes, n, k), quantized(kernels, &x));
        let mut whole = vec![0.0; m * n];
        matmul(kernels, block, &packed, k, &x, &mut Columns::new(&mut whole, m, n));
        let mut parts = vec![f32::NAN; m * n];
        let group = kernels.group_bytes(block, k);
        for (i, part) in Columns::new(&mut parts, m, n).split(kernels.rows()).iter_mut().enumerate() {
            matmul(kernels, block, &packed[i * group..][..group], k, &x, part);
        }
        check_bits("parts", &parts, &whole);
    }
}

#[test]
fn any_bytes_come_back_from_the_packed_order() {
    let mut random = Random(3);
    for block in formats() {
        for (n, blocks) in [(1, 1), (8, 2), (9, 1), (33, 2)] {
            let k = blocks * block.values();
            let bytes = random.bytes(n * blocks * block.bytes());
            for kernels in Kernels::available() {
                let packed = packed(kernels, block, &bytes, n, k);
                let full = n.div_ceil(kernels.rows()) * kernels.rows();
                let overhead = packed.len() as f64 / (full * blocks * block.bytes()) as f64;
                assert!(overhead < 1.037, "{block}: {overhead}");
                let mut again = vec![0; bytes.len()];
                unpack(kernels, block, &packed, k, &mut again);
                assert_eq!(again, bytes, "{kernels:?} {block} n {n}");
            }
        }
    }
}

#[test]
fn any_bytes_give_one_result_on_every_unit() {
    let mut random = Random(4);
    for block in formats() {
        let (n, k, m) = (19, 2 * block.values(), 5);
        let bytes = random.bytes(n * 2 * block.bytes());
        let mut x = random.activations(m, k);
        (x[k], x[2 * k], x[3 * k]) = (f32::NAN, f32::INFINITY, 1e-40);
        let mut expected = vec![0.0; m * n];
        for (i, y) in expected.iter_mut().enumerate() {
            *y = chain(block, &bytes[i % n * 2 * block.bytes()..][..2 * block.bytes()], &x[i / n * k..][..k]).0;
        }
        for kernels in Kernels::available() {
            let packed = packed(kernels, block, &bytes, n, k);
            let mut y = vec![0.0; m * n];
            matmul(kernels, block, &packed, k, &quantized(kernels, &x), &mut Columns::new(&mut y, m, n));
            check_bits(&format!("{kernels:?} {block}"), &y, &expected);
            assert!(y[n..3 * n].iter().all(|y| y.is_nan()), "{block}: NaN and infinity poison their rows");
        }
    }
}

#[test]
fn packed_rows_decode_as_blocks_do() {
    let mut random = Random(5);
    for block in formats() {
        let (n, k) = (21, 2 * block.values());
        let bytes = random.bytes(n * 2 * block.bytes());
        let mut expected = vec![0.0; n * k];
        decode(block, &bytes, &mut expected).unwrap();
        for kernels in Kernels::available() {
            let packed = packed(kernels, block, &bytes, n, k);
            for (row, expected) in expected.chunks_exact(k).enumerate() {
                let mut found = vec![0.0; k];
                decode_packed_row(kernels, block, &packed, row, &mut found);
                check_bits(&format!("{kernels:?} {block} row {row}"), &found, expected);
            }
        }
    }
}

#[test]
fn activations_are_the_same_on_every_unit() {
    let mut random = Random(6);
    let mut x: Vec<f32> = (0..32 * 300).map(|_| f32::from_bits(random.next() as u32)).collect();
    // Blocks of ordinary numbers, of ties, and of the smallest scale.
    x.extend((0..32 * 200).map(|_| random.unit()));
    x.extend((0..32 * 8).map(|i| if i % 32 == 0 { 127.0 } else { i as f32 / 2.0 - 64.0 }));
    x.extend((0..32 * 64).map(|i| f32::from_bits((127.0 * f32::MIN_POSITIVE).to_bits() - 32 + i as u32 / 32)));
    let expected = quantized(Kernels::PORTABLE, &x);
    for kernels in Kernels::available() {
        for (i, (a, b)) in quantized(kernels, &x).iter().zip(&expected).enumerate() {
            assert!(
                a == b || a.d.is_nan() && b.d.is_nan() && a.q == b.q && a.sums == b.sums,
                "{kernels:?} block {i}: {a:?}, not {b:?}"
            );
        }
    }
}

#[test]
fn empty_products_are_empty_or_zero() {
    for kernels in Kernels::available() {
        matmul(kernels, BlockType::Q4_0, &[], 64, &[], &mut Columns::new(&mut [], 0, 0));
        matmul(kernels, BlockType::Q4_0, &[], 64, &[ActivationBlock::ZERO; 6], &mut Columns::new(&mut [], 3, 0));
        matmul(
            kernels,
            BlockType::Q4_0,
            &vec![0; kernels.packed_len(BlockType::Q4_0, 5, 64)],
            64,
            &[],
            &mut Columns::new(&mut [], 0, 5),
        );
        let mut y = [1.0; 6];
        matmul(kernels, BlockType::Q4_0, &[], 0, &[], &mut Columns::new(&mut y, 2, 3));
        assert_eq!(y, [0.0; 6]);
    }
}
