//! What is formed of an adapter: fresh pairs, scales, norms, masks; beside weights of every kind.

use puna_llama::adapter::{AdapterConfig, Lora, Magnitude, Targets};
use puna_llama::model::Linear;
use puna_llama::{Llama, Module, RotaryTable, Step};
use puna_tensor::op::Activations;
use puna_tensor::{BlockType, DType, Device, Tensor};

use super::{adapter, base, bytes, cpu, expected, relative};

/// Numbers about normal, the same ones each time.
fn draw(seed: u64, count: usize, scale: f64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut uniform = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as f64 * 2f64.powi(-53)
    };
    (0..count).map(|_| (((0..6).map(|_| uniform()).sum::<f64>() - 3.0) * scale) as f32).collect()
}

fn tensor(device: &Device, seed: u64, shape: &[usize], scale: f64) -> Tensor {
    let shape = puna_tensor::Shape::new(shape).unwrap();
    Tensor::from_slice(&draw(seed, shape.elements(), scale), shape, device).unwrap()
}

fn values(tensor: &Tensor) -> Vec<f64> {
    tensor.unpack().unwrap().cast(DType::F64).unwrap().to_vec().unwrap()
}

const N: usize = 24;
const K: usize = 256;
const R: usize = 4;
const SCALE: f64 = 1.75;

/// A layer of a weight of this dtype, with all that can stand beside it.
fn layer(device: &Device, dtype: DType, packed: bool) -> Linear {
    let weight = tensor(device, 1, &[N, K], 0.05);
    let weight = match dtype {
        DType::Block(block) => {
            let mut encoded = vec![0; dtype.bytes_for(N * K).unwrap()];
            puna_quant::encode(block, &weight.to_vec::<f32>().unwrap(), &mut encoded).unwrap();
            Tensor::from_bytes(&encoded, dtype, [N, K], device).unwrap()
        }
        _ => weight.cast(dtype).unwrap(),
    };
    let lora = Lora {
        lora_a: tensor(device, 2, &[R, K], 0.1),
        lora_b: tensor(device, 3, &[N, R], 0.2),
        scale: SCALE,
        dropout: 0.0,
        number: 0,
        magnitude: Some(Magnitude::new(tensor(device, 4, &[N], 1.0))),
    };
    Linear {
        weight: if packed { weight.pack().unwrap() } else { weight },
        bias: Some(tensor(device, 5, &[N], 0.3)),
        lora: Some(lora),
    }
}

/// `m / ||W + s B A|| (W + s B A)`, row by row, in f64.
fn decomposed(linear: &Linear) -> Vec<f64> {
    let lora = linear.lora.as_ref().unwrap();
    let (w, a, b) = (values(&linear.weight), values(&lora.lora_a), values(&lora.lora_b));
    let m = lora.magnitude.as_ref().map(|magnitude| values(&magnitude.weight));
    let mut out = Vec::with_capacity(N * K);
    for n in 0..N {
        let row: Vec<f64> =
            (0..K).map(|k| w[n * K + k] + lora.scale * (0..R).map(|r| b[n * R + r] * a[r * K + k]).sum::<f64>()).collect();
        let norm = row.iter().map(|x| x * x).sum::<f64>().sqrt();
        let factor = m.as_ref().map_or(1.0, |m| m[n] / norm);
        out.extend(row.iter().map(|x| x * factor));
    }
    out
}

fn dtypes() -> impl Iterator<Item = (DType, bool)> {
    let dtypes = [DType::F32, DType::BF16, DType::F16, DType::F64].into_iter().chain(BlockType::ALL.map(DType::Block));
    // The CPU has no order of its own for NF4.
    let packs = |dtype: DType| dtype != DType::Block(BlockType::Nf4);
    dtypes.flat_map(move |dtype| [false, true].map(|packed| (dtype, packed && packs(dtype))))
}

#[test]
fn weight_decomposition_is_its_formula_beside_every_weight() {
    let device = cpu();
    let x = tensor(&device, 6, &[5, K], 1.0);
    let xs = values(&x);
    for (dtype, packed) in dtypes() {
        let linear = layer(&device, dtype, packed);
        let (w, bias) = (decomposed(&linear), values(linear.bias.as_ref().unwrap()));
        let right: Vec<f32> = (0..5 * N)
            .map(|i| {
                let (row, n) = (i / N, i % N);
                ((0..K).map(|k| xs[row * K + k] * w[n * K + k]).sum::<f64>() + bias[n]) as f32
            })
            .collect();
        let reading = linear.read(None).unwrap();
        let got = x.linear(reading.projection(), Activations::Exact).unwrap();
        let off = relative(&got.to_vec().unwrap(), &right);
        assert!(off < 2e-6, "{dtype} packed {packed}: off by {off:.2e}");
    }
}

#[test]
fn merged_weights_are_formed_wide_and_rounded_once() {
    let device = cpu();
    for ((dtype, packed), decompose) in dtypes().flat_map(|d| [false, true].map(|m| (d, m))) {
        let mut linear = layer(&device, dtype, packed);
        if !decompose {
            linear.lora.as_mut().unwrap().magnitude = None;
        }
        let right = decomposed(&linear);
        let own = if dtype.is_float() { dtype } else { DType::BF16 };
        for (asked, becomes) in [(None, own), (Some(DType::F32), DType::F32), (Some(DType::BF16), DType::BF16)] {
            let merged = linear.merged(asked).unwrap();
            assert!(
                merged.lora.is_none() && merged.weight.dtype() == becomes && merged.weight.is_packed() == packed,
                "{dtype} {asked:?}"
            );
            let unit = match becomes {
                DType::BF16 => 2f64.powi(-8),
                DType::F16 => 2f64.powi(-11),
                _ => 2f64.powi(-22),
            };
            for (i, (got, right)) in values(&merged.weight).iter().zip(&right).enumerate() {
                // Half a unit for the rounding, and what f32 is off by before.
                let within = unit * right.abs() + 4e-7;
                assert!((got - right).abs() <= within, "{dtype} as {becomes}, element {i}: {got}, not {right}");
            }
        }
    }
}

/// Large weights are worked on a run of rows at a time.
#[test]
fn rows_of_a_large_weight_are_those_of_a_small_one() {
    let device = cpu();
    let (n, k, start, count) = (700, 4096, 230, 60);
    let (w, a, b) = (tensor(&device, 1, &[n, k], 0.02), tensor(&device, 2, &[R, k], 0.1), tensor(&device, 3, &[n, R], 0.2));
    let m = tensor(&device, 4, &[n], 1.0);
    let layer = |w: Tensor, b: Tensor, m: Tensor| {
        let magnitude = Some(Magnitude::new(m));
        let lora = Lora { lora_a: a.clone(), lora_b: b, scale: SCALE, dropout: 0.0, number: 0, magnitude };
        Linear { weight: w, bias: None, lora: Some(lora) }
    };
    let some = |x: &Tensor| x.slice(0, start, count).unwrap();
    let few = layer(some(&w), some(&b), some(&m)).merged(None).unwrap();
    let all = layer(w, b, m).merged(None).unwrap();
    assert_eq!(all.weight.shape()[..], [n, k]);
    assert!(some(&all.weight).to_bytes().unwrap() == few.weight.to_bytes().unwrap());
}

#[test]
fn what_was_formed_follows_the_parameters() {
    let device = cpu();
    let mut linear = layer(&device, DType::F32, true);
    let x = tensor(&device, 6, &[3, K], 1.0);
    let run =
        |linear: &Linear| x.linear(linear.read(None).unwrap().projection(), Activations::Exact).unwrap().to_vec::<f32>().unwrap();
    let first = run(&linear);
    assert_eq!(run(&linear), first);
    // In place, as an optimiser does.
    let lora = linear.lora.as_ref().unwrap();
    lora.lora_b.assign(&tensor(&device, 9, &[N, R], 0.4)).unwrap();
    let second = run(&linear);
    let fresh = layer(&device, DType::F32, true);
    let fresh_lora = Lora { lora_b: tensor(&device, 9, &[N, R], 0.4), ..fresh.lora.clone().unwrap() };
    assert_eq!(second, run(&Linear { lora: Some(fresh_lora), ..fresh }), "the norm is that of the new values");
    // Another scale, and back.
    linear.lora.as_mut().unwrap().scale = 0.5;
    assert_ne!(run(&linear), second);
    linear.lora.as_mut().unwrap().scale = SCALE;
    assert_eq!(run(&linear), second);
    // Replaced.
    let magnitude = linear.lora.as_mut().unwrap().magnitude.as_mut().unwrap();
    magnitude.weight = magnitude.weight.affine(2.0, 0.0).unwrap();
    let bias = values(linear.bias.as_ref().unwrap());
    for (i, (twice, once)) in run(&linear).iter().zip(&second).enumerate() {
        let bias = bias[i % N];
        let (twice, once) = (f64::from(*twice) - bias, f64::from(*once) - bias);
        assert!((twice - 2.0 * once).abs() < 1e-5 * (1.0 + once.abs()), "{i}: {twice} for {once}");
    }
}

#[test]
fn a_fresh_adapter_changes_nothing_and_follows_its_seed() {
    let ids = &expected("plain")[1].ids;
    let plain: Vec<f32> = base().llama.sequence_logits(ids).unwrap().to_vec().unwrap();
    for dora in [false, true] {
        let config = AdapterConfig { dora, ..AdapterConfig::default() };
        let fresh = |seed: u64| {
            let mut llama = base().llama;
            llama.add_adapter(&config, seed).unwrap();
            llama
        };
        let llama = fresh(7);
        let off = relative(&llama.sequence_logits(ids).unwrap().to_vec().unwrap(), &plain);
        assert!(off < 1e-6, "dora {dora}: off by {off:.2e}");
        assert!(bytes(&llama) == bytes(&fresh(7)) && bytes(&llama) != bytes(&fresh(8)));
        let mut seen: Vec<Vec<f32>> = Vec::new();
        for (path, linear) in llama.linears() {
            let Some(lora) = &linear.lora else {
                assert_eq!(path, "lm_head", "every linear layer but the head");
                continue;
            };
            let (k, a) = (linear.weight.dim(1), lora.lora_a.to_vec::<f32>().unwrap());
            assert_eq!(
                (lora.lora_a.shape().to_vec(), lora.lora_b.shape().to_vec()),
                (vec![16, k], vec![linear.weight.dim(0), 16])
            );
            assert!(lora.scale == 2.0 && lora.lora_a.dtype() == DType::F32 && lora.number == seen.len(), "{path}");
            let bound = 1.0 / (k as f64).sqrt();
            let mean = a.iter().map(|x| f64::from(*x)).sum::<f64>() / a.len() as f64;
            let variance = a.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / a.len() as f64;
            assert!(a.iter().all(|x| f64::from(x.abs()) < bound), "{path} is within its bound");
            // Of a uniform one the variance is a third of the bound's square; 512 numbers and more, four standard deviations.
            assert!(
                (variance * 3.0 / (bound * bound) - 1.0).abs() < 0.16 && mean.abs() < 0.11 * bound,
                "{path}: {variance}, {mean}"
            );
            assert!(lora.lora_b.to_vec::<f32>().unwrap().iter().all(|x| *x == 0.0));
            assert!(seen.iter().all(|other| other[..32] != a[..32]), "{path} has numbers of its own");
            seen.push(a);
            assert_eq!(lora.magnitude.is_some(), dora);
        }
        assert_eq!(seen.len(), 14);
    }
}

#[test]
fn scales_follow_rank_alpha_and_patterns() {
    let scales = |config: AdapterConfig| {
        let mut llama = base().llama;
        llama.add_adapter(&config, 0).unwrap();
        let found = llama.linears().into_iter().filter_map(|(path, linear)| {
            let lora = linear.lora.as_ref()?;
            Some((path, lora.lora_a.dim(0), lora.scale))
        });
        found.collect::<Vec<_>>()
    };
    let targets = Targets::Names(vec!["q_proj".into(), "mlp.up_proj".into()]);
    let config = AdapterConfig { rank: 4, alpha: 6.0, targets, ..AdapterConfig::default() };
    let all = scales(AdapterConfig { rslora: true, ..config.clone() });
    assert_eq!(all.iter().map(|x| (x.1, x.2)).collect::<Vec<_>>(), [(4, 3.0); 4]);
    let patterns = AdapterConfig {
        rank_pattern: vec![("q_proj".into(), 2), ("model.layers.0.self_attn.q_proj".into(), 3)],
        alpha_pattern: vec![("^model.layers.1.*".into(), 10.0), ("proj".into(), 1.0)],
        layers: Some(vec![0, 1]),
        ..config
    };
    // The first that fits counts; a pattern that does not reach back to a point fits nothing.
    let expected = [
        ("model.layers.0.self_attn.q_proj", 2, 3.0),
        ("model.layers.0.mlp.up_proj", 4, 1.5),
        ("model.layers.1.self_attn.q_proj", 2, 5.0),
        ("model.layers.1.mlp.up_proj", 4, 2.5),
    ];
    assert_eq!(scales(patterns), expected.map(|(path, rank, scale)| (path.to_owned(), rank, scale)));
}

fn hidden(llama: &Llama, dropout: Option<Tensor>) -> Vec<f32> {
    let ids = [5u32, 6, 7, 8, 9, 10];
    let table = RotaryTable::base(&llama.config);
    let step = Step { dropout, ..Step::packed(llama, &table, &[0, 6]).unwrap() };
    let ids = Tensor::from_slice(&ids, 6, llama.model.norm.weight.device());
    llama.forward(&ids.unwrap(), &step).unwrap().to_vec().unwrap()
}

#[test]
fn dropout_is_of_steps_that_bring_seeds_and_every_pair_has_its_own() {
    let mut llama = base().llama;
    llama.load_adapter(&adapter("dora")).unwrap();
    assert!(llama.dropout_seeds(1, 2).unwrap().is_none(), "nothing drops");
    let without = hidden(&llama, None);
    let mut dropping = llama.clone();
    dropping.linears_mut().into_iter().filter_map(|(_, linear)| linear.lora.as_mut()).for_each(|lora| lora.dropout = 0.25);
    assert_eq!(hidden(&dropping, None), without, "a step without seeds drops nothing");
    let seeds = |seed, step| dropping.dropout_seeds(seed, step).unwrap().unwrap();
    let rows: Vec<u64> = bytemuck::pod_collect_to_vec(&seeds(1, 2).to_vec::<u32>().unwrap());
    assert_eq!(rows.len(), 14);
    assert_eq!(rows.iter().collect::<std::collections::HashSet<_>>().len(), 14, "each pair has a seed of its own");
    let one = hidden(&dropping, Some(seeds(1, 2)));
    assert_eq!(one, hidden(&dropping, Some(seeds(1, 2))));
    assert!(one != without && one != hidden(&dropping, Some(seeds(1, 3))) && one != hidden(&dropping, Some(seeds(2, 2))));
    // The mean over many masks is what no mask gives, as far as the layers above are linear: here of one layer alone.
    let (_, linear) = dropping.linears().into_iter().next().unwrap();
    let x = tensor(&cpu(), 11, &[1, 32], 1.0).to_device(linear.weight.device()).unwrap();
    let right: Vec<f32> = x.linear(linear.read(None).unwrap().projection(), Activations::Exact).unwrap().to_vec().unwrap();
    let mut mean = vec![0f64; right.len()];
    const MASKS: u64 = 2000;
    for step in 0..MASKS {
        let seeds = seeds(3, step);
        let y = x.linear(linear.read(Some(&seeds)).unwrap().projection(), Activations::Exact).unwrap();
        mean.iter_mut().zip(y.to_vec::<f32>().unwrap()).for_each(|(m, y)| *m += f64::from(y) / MASKS as f64);
    }
    let mean: Vec<f32> = mean.into_iter().map(|m| m as f32).collect();
    let off = relative(&mean, &right);
    assert!(off < 0.02, "off by {off}");
}

#[test]
fn parameters_count_the_pairs() {
    let mut llama = base().llama;
    let before = llama.parameters();
    llama.load_adapter(&adapter("plain")).unwrap();
    // q: 4 (32 + 32), v: 4 (32 + 16), down: 4 (40 + 32), in two layers.
    assert_eq!(llama.parameters() - before, 2 * 4 * (64 + 48 + 72));
}
