//! Ops through WGSL of our own beside burn's wgpu back end (its fusion and its autotuning on), in pairs on the same adapter.
//!
//!     cargo run --release --manifest-path benches/burn/Cargo.toml -- [ROUNDS [OP]]
//!
//! In each round both run once, and which is first alternates. The ratio of a round is burn's time by ours. A result is waited for before the
//! clock stops, and is compared with the other's: what is not the same thing is no race.

use std::error::Error;
use std::time::{Duration, Instant};

use burn_tensor::module::attention;
use burn_tensor::ops::AttentionModuleOptions;
use burn_tensor::{Device as BurnDevice, DeviceKind, Tensor as Burn, TensorData};
use puna::prelude::*;
use puna::tensor::op::{Activations, Attention, Mask};

type Outcome<T> = Result<T, Box<dyn Error>>;

/// About uniform in [-1, 1).
fn values(n: usize, seed: usize) -> Vec<f32> {
    (0..n).map(|i| ((i.wrapping_mul(2654435761) + seed * 7919) % 1000) as f32 / 500.0 - 1.0).collect()
}

/// A device of each library, on the same adapter; and what is asked for.
struct Devices {
    rounds: usize,
    /// A part of the names of ops that are measured.
    only: String,
    ours: Device,
    burn: BurnDevice,
}

/// The same op in both libraries.
struct Pair<'a> {
    name: &'a str,
    ours: &'a dyn Fn() -> puna::tensor::Result<Tensor>,
    burn: &'a dyn Fn() -> Burn<2>,
    /// What a second of it is counted in, and how many of them one run has.
    unit: &'a str,
    count: f64,
}

impl Pair<'_> {
    fn run_ours(&self, devices: &Devices) -> Outcome<Duration> {
        let begin = Instant::now();
        let result = (self.ours)()?;
        devices.ours.synchronize()?;
        let time = begin.elapsed();
        drop(result);
        Ok(time)
    }

    fn run_burn(&self, devices: &Devices) -> Outcome<Duration> {
        let begin = Instant::now();
        let result = (self.burn)();
        devices.burn.sync()?;
        let time = begin.elapsed();
        drop(result);
        Ok(time)
    }

    fn measure(&self, devices: &Devices) -> Outcome<()> {
        if !self.name.contains(&devices.only) {
            return Ok(());
        }
        let rounds = devices.rounds;
        let ours = (self.ours)()?.to_vec::<f32>()?;
        let burn = (self.burn)().into_data().try_to_vec::<f32>().map_err(|error| format!("{error:?}"))?;
        let largest = burn.iter().fold(0f32, |most, e| most.max(e.abs()));
        let off = ours.iter().zip(&burn).fold(0f32, |most, (a, b)| most.max((a - b).abs())) / largest;
        if ours.len() != burn.len() || !(off < 1e-3) {
            return Err(format!("{}: {} and {} results, {off:e} apart", self.name, ours.len(), burn.len()).into());
        }
        // Kernels are compiled and chosen before the clock runs.
        for _ in 0..3 {
            self.run_ours(devices)?;
            self.run_burn(devices)?;
        }
        let mut times = Vec::with_capacity(rounds);
        for round in 0..rounds {
            times.push(if round % 2 == 0 {
                let first = self.run_ours(devices)?;
                (first, self.run_burn(devices)?)
            } else {
                let first = self.run_burn(devices)?;
                (self.run_ours(devices)?, first)
            });
        }
        let seconds = |pick: &dyn Fn(&(Duration, Duration)) -> f64| {
            let mut all: Vec<f64> = times.iter().map(pick).collect();
            all.sort_by(f64::total_cmp);
            (all[0], all[all.len() / 2], all[all.len() - 1])
        };
        let (_, mine, _) = seconds(&|(ours, _)| ours.as_secs_f64());
        let (_, theirs, _) = seconds(&|(_, burn)| burn.as_secs_f64());
        let (least, ratio, most) = seconds(&|(ours, burn)| burn.as_secs_f64() / ours.as_secs_f64());
        println!(
            "| {:<28} | {:>9.3} ms | {:>9.3} ms | {ratio:>5.2} ({least:.2}..{most:.2}) | {:>7.2} {} |",
            self.name,
            mine * 1e3,
            theirs * 1e3,
            self.count / mine / 1e9,
            self.unit
        );
        Ok(())
    }
}

fn main() -> Outcome<()> {
    let rounds = std::env::args().nth(1).map_or(Ok(15), |text| text.parse::<usize>())?.max(1);
    let ours = puna_wgpu::device(&puna_wgpu::Choice::Any, puna_wgpu::Options::default())?;
    let burn = BurnDevice::wgpu(DeviceKind::DefaultDevice);
    let only = std::env::args().nth(2).unwrap_or_default();
    let devices = Devices { rounds, only, ours, burn };
    println!("{}, {rounds} rounds; ratio: burn's time by ours, median (least..most)", devices.ours.name());
    println!("| op | puna | burn | ratio | puna's rate |\n| --- | --- | --- | --- | --- |");
    let both = |shape: [usize; 2], seed: usize| -> Outcome<(Tensor, Burn<2>)> {
        let values = values(shape[0] * shape[1], seed);
        let ours = Tensor::from_slice(&values, shape, &devices.ours)?;
        Ok((ours, Burn::from_data(TensorData::new(values, shape), &devices.burn)))
    };

    let n = 1024;
    let (a, burn_a) = both([n, n], 1)?;
    let (b, burn_b) = both([n, n], 2)?;
    Pair {
        name: "matmul 1024x1024x1024 f32",
        ours: &|| a.matmul(&b),
        burn: &|| burn_a.clone().matmul(burn_b.clone()),
        unit: "GFLOP/s",
        count: 2.0 * (n * n * n) as f64,
    }
    .measure(&devices)?;

    let (n, k) = (4096, 4096);
    let (x, burn_x) = both([1, k], 3)?;
    let (w, burn_w) = both([n, k], 4)?;
    Pair {
        name: "matmul 1x4096x4096 f32",
        ours: &|| x.linear(&w, Activations::Exact),
        burn: &|| burn_x.clone().matmul(burn_w.clone().transpose()),
        unit: "GB/s",
        count: (4 * n * k) as f64,
    }
    .measure(&devices)?;

    let (heads, seq, dim) = (8, 1024, 64);
    let (q, burn_q) = both([seq, heads * dim], 5)?;
    let q = q.reshape([seq, heads, dim])?;
    // As burn wants them: heads before tokens, made before the clock runs.
    let burn_q = burn_q.reshape([1, seq, heads, dim]).swap_dims(1, 2) * 1.0;
    let starts = Tensor::from_slice(&[0, seq as u32], 2, &devices.ours)?;
    for (name, mask) in [("attention 1x8x1024x64 f32", Mask::Full), ("attention 1x8x1024x64 causal", Mask::Causal)] {
        let op = Attention { scale: 0.125, mask };
        let options = AttentionModuleOptions { is_causal: mask == Mask::Causal, ..AttentionModuleOptions::default() };
        Pair {
            name,
            ours: &|| q.attention(&q, &q, &starts, &starts, op),
            burn: &|| {
                let y = attention(burn_q.clone(), burn_q.clone(), burn_q.clone(), None, None, options);
                y.swap_dims(1, 2).reshape([seq, heads * dim])
            },
            unit: "GFLOP/s",
            count: (4 * heads * seq * seq * dim) as f64 * if mask == Mask::Causal { 0.5 } else { 1.0 },
        }
        .measure(&devices)?;
    }

    let (rows, n) = (512, 4096);
    let (x, burn_x) = both([rows, n], 6)?;
    let (weight, burn_weight) = both([1, n], 7)?;
    let weight = weight.reshape(n)?;
    Pair {
        name: "RMSNorm 512x4096 f32",
        ours: &|| x.rms_norm(&weight, 1e-5),
        // As burn's own layer does it.
        burn: &|| {
            let rms = (burn_x.clone().square().mean_dim(1) + 1e-5).sqrt();
            (burn_x.clone() / rms) * burn_weight.clone()
        },
        unit: "GB/s",
        count: (2 * rows * n * 4) as f64,
    }
    .measure(&devices)?;
    Ok(())
}
