//! Properties of the block formats that hold whatever the bytes and values.

use proptest::prelude::*;
use puna_quant::{ACTIVATION_BLOCK, BlockType, Error, Fields, decode, decode_fields, encode, quantize_activations};

fn any_block() -> impl Strategy<Value = BlockType> {
    prop::sample::select(BlockType::ALL.to_vec())
}

fn block_and_bytes() -> impl Strategy<Value = (BlockType, Vec<u8>)> {
    any_block().prop_flat_map(|block| (Just(block), prop::collection::vec(any::<u8>(), block.bytes())))
}

fn decoded(block: BlockType, bytes: &[u8]) -> Vec<f32> {
    let mut out = vec![0.0; bytes.len() / block.bytes() * block.values()];
    decode(block, bytes, &mut out).unwrap();
    out
}

fn encoded(block: BlockType, values: &[f32]) -> Vec<u8> {
    let mut out = vec![0; values.len() / block.values() * block.bytes()];
    encode(block, values, &mut out).unwrap();
    out
}

/// Standard normal values: Box-Muller over splitmix64.
fn normal(n: usize, seed: u64) -> Vec<f32> {
    let mut state = seed;
    let mut uniform = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    };
    (0..n).map(|_| ((-2.0 * (1.0 - uniform()).ln()).sqrt() * (std::f64::consts::TAU * uniform()).cos()) as f32).collect()
}

fn rms(a: impl IntoIterator<Item = f32>) -> f64 {
    let (n, sum) = a.into_iter().fold((0, 0.0), |(n, sum), x| (n + 1, sum + f64::from(x) * f64::from(x)));
    (sum / f64::from(n)).sqrt()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: if cfg!(miri) { 2 } else { 256 }, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_bit_of_a_block_is_in_its_fields((block, bytes) in block_and_bytes()) {
        let mut again = vec![0xff; bytes.len()];
        Fields::read(block, &bytes).write(block, &mut again);
        prop_assert_eq!(again, bytes);
    }

    #[test]
    fn decoding_never_panics_and_depends_on_the_fields_alone((block, bytes) in block_and_bytes()) {
        let mut out = vec![0.0; block.values()];
        decode_fields(block, &Fields::read(block, &bytes), &mut out);
        let bits = |x: &[f32]| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        prop_assert_eq!(bits(&decoded(block, &bytes)), bits(&out));
    }

    #[test]
    fn encoding_any_bits_is_deterministic_and_poisons_what_is_not_finite(block in any_block(), bits in prop::collection::vec(any::<u32>(), 256)) {
        let values: Vec<f32> = bits.iter().map(|&bits| f32::from_bits(bits)).collect();
        let bytes = encoded(block, &values);
        prop_assert_eq!(&bytes, &encoded(block, &values));
        for (values, out) in values.chunks(block.values()).zip(decoded(block, &bytes).chunks(block.values())) {
            if values.iter().any(|x| !x.is_finite()) {
                prop_assert!(out.iter().all(|x| x.is_nan()));
            }
        }
    }

    #[test]
    fn encoding_is_off_by_little_of_the_range(block in any_block(), seed in any::<u64>(), exponent in -6i32..7, shift in -2.0f32..2.0) {
        let scale = 2f32.powi(exponent);
        let values: Vec<f32> = normal(256, seed).iter().map(|x| (x + shift) * scale).collect();
        let error = rms(values.iter().zip(decoded(block, &encoded(block, &values))).map(|(a, b)| a - b));
        // Half a step of the widest range that a sub-block of these values can have, zero included.
        let widest = values.iter().fold(0.0f32, |most, x| most.max(x.abs())) * 2.0;
        let steps = match block {
            BlockType::Q8_0 => 254.0,
            BlockType::Q6K => 62.0,
            BlockType::Q5_0 | BlockType::Q5_1 | BlockType::Q5K => 30.0,
            BlockType::Q4_0 | BlockType::Q4_1 | BlockType::Q4K => 14.0,
            // Of the 15 gaps between levels the widest, at the lower end, is 0.304 of a range of 2.
            BlockType::Q3K | BlockType::Nf4 => 6.0,
            _ => 3.0,
        };
        prop_assert!(error <= f64::from(widest / steps / 2.0), "{} {}", error, widest);
    }

    #[test]
    fn activations_follow_the_formula(x in prop::collection::vec(prop_oneof![any::<f32>(), -10f32..10.0, Just(0.0f32)], 0..100)) {
        let blocks = x.len().div_ceil(ACTIVATION_BLOCK);
        let (mut q, mut d, mut sums) = (vec![1; blocks * 32], vec![1.0; blocks], vec![[1; 2]; blocks]);
        quantize_activations(&x, &mut q, &mut d, &mut sums).unwrap();
        for (b, x) in x.chunks(32).enumerate() {
            let q = &q[32 * b..][..32];
            prop_assert_eq!(i32::from(sums[b][0]), q[..16].iter().map(|&q| i32::from(q)).sum::<i32>());
            prop_assert_eq!(i32::from(sums[b][1]), q[16..].iter().map(|&q| i32::from(q)).sum::<i32>());
            prop_assert!(q[x.len()..].iter().all(|&q| q == 0));
            if x.iter().any(|x| !x.is_finite()) {
                prop_assert!(d[b].is_nan() && q.iter().all(|&q| q == 0));
                continue;
            }
            let largest = x.iter().fold(0f32, |most, x| most.max(x.abs()));
            if largest / 127.0 < f32::MIN_POSITIVE {
                prop_assert!(d[b] == 0.0 && q.iter().all(|&q| q == 0));
                continue;
            }
            prop_assert_eq!(d[b], largest / 127.0);
            prop_assert_eq!(q.iter().map(|q| q.unsigned_abs()).max(), Some(127));
            for (x, &q) in x.iter().zip(q) {
                // A rounding of d, one of its reciprocal, one of the product, each of relative size 2^-24.
                let exact = f64::from(*x) / f64::from(d[b]);
                prop_assert!((exact - f64::from(q)).abs() <= 0.5 + 127.0 * 3.0 * 2f64.powi(-24), "{} {}", exact, q);
            }
        }
    }
}

#[test]
fn ties_of_activations_go_to_even() {
    let mut x = [0.0; 32];
    (x[0], x[1], x[2], x[3]) = (127.0, 0.5, 1.5, -2.5);
    let (mut q, mut d, mut sums) = ([0; 32], [0.0], [[0; 2]]);
    quantize_activations(&x, &mut q, &mut d, &mut sums).unwrap();
    assert_eq!((d[0], &q[..4]), (1.0, &[127, 0, 2, -2][..]));
    assert_eq!(sums[0], [127, 0]);
}

#[test]
fn constant_and_zero_blocks_encode_exactly() {
    for block in BlockType::ALL {
        for value in [0.0f32, 1.0, -1.0, 0.25] {
            let values = vec![value; block.values()];
            let found = decoded(block, &encoded(block, &values));
            let worst = found.iter().map(|x| (x - value).abs()).fold(0.0, f32::max);
            // An f16 scale times an integer of up to 7 bits: 2^-11 relative, twice where a minimum joins.
            assert!(worst <= value.abs() / 1024.0, "{block} {value}: {worst}");
        }
    }
}

/// [`REFERENCE`]: the figures of llama.cpp's encoder on these very values.
#[test]
fn k_formats_lose_no_more_than_the_reference_encoder_on_normal_rows() {
    let values = normal(if cfg!(miri) { 512 } else { 1 << 16 }, 7);
    for (block, reference) in REFERENCE {
        let error = rms(values.iter().zip(decoded(block, &encoded(block, &values))).map(|(a, b)| a - b));
        println!("{block}: {error:.5}, llama.cpp {reference:.5}");
        if !cfg!(miri) {
            assert!(error <= 1.05 * reference, "{block}: {error} where llama.cpp has {reference}");
        }
    }
}

const REFERENCE: [(BlockType, f64); 5] = [
    (BlockType::Q2K, 0.29686),
    (BlockType::Q3K, 0.15122),
    (BlockType::Q4K, 0.07158),
    (BlockType::Q5K, 0.03606),
    (BlockType::Q6K, 0.01784),
];

#[test]
fn wrong_lengths_are_errors_that_say_what_would_be_right() {
    let error = decode(BlockType::Q4K, &[0; 143], &mut [0.0; 256]).unwrap_err();
    assert_eq!(error, Error::Length { call: "decode", argument: "bytes", found: 143, needed: 144 });
    assert_eq!(error.to_string(), "decode: bytes has length 143; 144 would be right");
    let error = encode(BlockType::Q8_0, &[0.0; 33], &mut [0; 34]).unwrap_err();
    assert_eq!(error.to_string(), "encode: 33 values are no whole number of Q8_0 blocks; a multiple of 32 is");
    let error = quantize_activations(&[0.0; 33], &mut [0; 33], &mut [0.0; 2], &mut [[0; 2]; 2]).unwrap_err();
    assert_eq!(error.to_string(), "quantize_activations: q has length 33; 64 would be right");
}
