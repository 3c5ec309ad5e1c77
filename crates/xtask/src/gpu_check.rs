//! A card, checked: every op's contract, goldens of models and training, and speeds as shares of what the card itself can do. One program
//! that needs a driver and, for what is not built in, NVRTC: `cargo xtask gpu-check` builds it, with what it reads, into a folder to carry.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use puna::prelude::*;
use puna::tensor::op::{Activations, Attention, Mask, PagedAttention, PagedInputs};
use serde_json::{Value, json};

use crate::{Result, cubins, goldens, gpu_models, root};

/// Where the kernels for all cards are kept between builds.
const CUBINS: &str = "target/cubins";

/// What to build.
#[derive(clap::Args)]
pub struct Bundle {
    /// The folder; new, or overwritten.
    #[arg(long, default_value = "target/gpu-check")]
    out: PathBuf,
    /// A folder of more goldens, copied beside those of the repository.
    #[arg(long)]
    goldens: Option<PathBuf>,
    /// The cards whose kernels are built in (sm_90a: Hopper's); by default all. Other cards' are compiled there, by NVRTC.
    #[arg(long, value_delimiter = ',', default_value = "sm_75,sm_80,sm_90a,sm_100,sm_120")]
    architectures: Vec<String>,
}

/// Builds the program, kernels for all cards in it, and lays down beside it what it reads.
pub fn bundle(request: &Bundle) -> Result<bool> {
    // Cards of 8.6 and 8.9 run the code of sm_80.
    let architecture = |name: &str| request.architectures.iter().any(|wanted| wanted == name);
    let kernels = cubins::make(&root().join(CUBINS), &|_| true, &architecture, &mut |line| println!("{line}"))?;
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args(["build", "--release", "--package", "xtask", "--bin", "gpu-check", "--features", "prebuilt"])
        .args(["--message-format", "json-render-diagnostics"])
        .env("PUNA_CUBINS", kernels)
        .current_dir(root())
        .stderr(std::process::Stdio::inherit())
        .output()?;
    if !status.status.success() {
        return Err("the program does not build".into());
    }
    let messages = String::from_utf8_lossy(&status.stdout);
    let built = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let program = built
        .filter(|message| message["target"]["name"] == "gpu-check")
        .find_map(|message| message["executable"].as_str().map(PathBuf::from));
    let program = program.ok_or("cargo built no program")?;
    let out = root().join(&request.out);
    std::fs::create_dir_all(&out)?;
    std::fs::copy(program, out.join("gpu-check"))?;
    copy_tree(&root().join("crates/puna-conformance/goldens/models"), &out.join("goldens"))?;
    if let Some(folder) = &request.goldens {
        copy_tree(folder, &out.join("goldens/more"))?;
    }
    let size = size_of_tree(&out)?;
    println!(
        "{}: {:.1} MB; on the machine with the card: ./gpu-check --goldens goldens --out results.json",
        out.display(),
        size as f64 / 1e6
    );
    Ok(size < 60_000_000)
}

fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_tree(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

fn size_of_tree(folder: &Path) -> Result<u64> {
    std::fs::read_dir(folder)?.try_fold(0, |sum, entry| {
        let entry = entry?;
        Ok(sum + if entry.file_type()?.is_dir() { size_of_tree(&entry.path())? } else { entry.metadata()?.len() })
    })
}

/// What to check.
#[derive(clap::Parser)]
pub struct Check {
    /// The device.
    #[arg(long, default_value = "cuda:0")]
    device: String,
    /// The goldens, beside the program.
    #[arg(long)]
    goldens: Option<PathBuf>,
    /// Which parts: conformance, goldens, speed, models (with speed); by default all.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// The sizes of what is measured: 1 is for a card, smaller shares for a try without one.
    #[arg(long, default_value_t = 1.0)]
    size: f64,
    /// Where the results go, as JSON; by default to standard output.
    #[arg(long)]
    out: Option<PathBuf>,
}

/// Checks a card; false where something is off.
pub fn check(request: &Check) -> Result<bool> {
    let device = goldens::device_of(&request.device, None)?;
    let wanted = |part: &str| request.only.is_empty() || request.only.iter().any(|only| only == part);
    let (mut results, mut fine) = (serde_json::Map::new(), true);
    results.insert("device".into(), json!(device.name()));
    if wanted("conformance") {
        let families: Vec<Value> = puna_conformance::FAMILIES.iter().map(|(name, _)| family(&device, name)).collect();
        fine &= families.iter().all(|family| family["right"] == true);
        results.insert("conformance".into(), families.into());
    }
    if let Some(folder) = request.goldens.as_ref().filter(|_| wanted("goldens")) {
        let mut lines = Vec::new();
        let right = goldens::run(folder, &request.device, &mut |line| {
            eprintln!("{line}");
            lines.push(line.to_owned());
        })?;
        fine &= right;
        results.insert("goldens".into(), json!({ "right": right, "lines": lines }));
    }
    if wanted("speed") || wanted("models") {
        let mut speed = speed(&device, request.size)?;
        if wanted("models") {
            let copy = speed["copy_gb_per_s"].as_f64().unwrap_or(f64::NAN);
            let models = gpu_models::measure(&device, copy, request.size < 1.0)?;
            fine &= models["held"]["bytes_more"] == 0 && models["training"]["loss_falls"] == true;
            speed["models"] = models;
        }
        results.insert("speed".into(), speed);
    }
    if let Some(used) = puna_cuda::memory_use(&device) {
        let (allocated, reserved, peak) = (used.allocated, used.reserved, used.peak);
        results.insert("memory".into(), json!({ "allocated": allocated, "reserved": reserved, "peak": peak }));
    }
    let text = serde_json::to_string_pretty(&Value::Object(results))?;
    match &request.out {
        Some(path) => std::fs::write(path, text)?,
        None => println!("{text}"),
    }
    Ok(fine)
}

fn family(device: &Device, name: &str) -> Value {
    let started = Instant::now();
    let outcome = catch_unwind(AssertUnwindSafe(|| puna_conformance::run_family(device, name)));
    let said = outcome.err().map(|panic| panic.downcast_ref::<String>().cloned().unwrap_or_default());
    let seconds = started.elapsed().as_secs_f64();
    eprintln!("{name}: {} in {seconds:.1} s", if said.is_none() { "right" } else { "OFF" });
    json!({ "family": name, "right": said.is_none(), "seconds": seconds, "said": said })
}

/// The median of some runs, in seconds, after one to warm up.
fn median<T>(device: &Device, mut run: impl FnMut() -> puna::tensor::Result<T>) -> Result<f64> {
    let mut times = Vec::new();
    for i in 0..12 {
        device.synchronize()?;
        let started = Instant::now();
        let result = run()?;
        device.synchronize()?;
        if i > 0 {
            times.push(started.elapsed().as_secs_f64());
        }
        drop(result);
    }
    times.sort_by(f64::total_cmp);
    Ok(times[times.len() / 2])
}

/// Speeds, each beside what the card did in the same run: copies for what waits for memory, the largest product for what computes.
fn speed(device: &Device, size: f64) -> Result<Value> {
    let scaled = |n: usize, unit: usize| ((n as f64 * size) as usize).next_multiple_of(unit).max(unit);
    let draw = |shape: &[usize]| -> Result<Tensor> {
        let shape = puna::tensor::Shape::new(shape).ok_or("too many axes")?;
        let rows = shape.rows();
        let seeds = Tensor::from_slice(&[1u32, 2], [1, 2], device)?.broadcast([rows, 2])?;
        let normal = puna::tensor::op::Random { distribution: puna::tensor::op::Distribution::Normal, columns: shape.last() };
        Ok(normal.draw(&seeds, &Tensor::arange(rows, device)?)?.cast(DType::BF16)?.reshape(shape)?)
    };
    let mut rows = Vec::new();
    let n = scaled(512 << 20, 256);
    let (from, to) = (Tensor::zeros(n, DType::BF16, device)?, Tensor::zeros(n, DType::BF16, device)?);
    let seconds = median(device, || to.assign(&from))?;
    let copy = 4.0 * n as f64 / seconds / 1e9;
    drop((from, to));
    let k = scaled(8192, 64);
    let (x, w) = (draw(&[k, k])?, draw(&[k, k])?);
    let seconds = median(device, || x.linear(&w, Activations::Exact))?;
    let matrix = 2.0 * (k as f64).powi(3) / seconds / 1e12;
    drop((x, w));
    let mut by_memory = |what: &str, bytes: f64, seconds: f64| {
        let rate = bytes / seconds / 1e9;
        eprintln!("{what}: {rate:.0} GB/s, {:.0}% of a copy's {copy:.0}", 100.0 * rate / copy);
        rows.push(json!({ "what": what, "gb_per_s": rate, "of_copy": rate / copy, "us": seconds * 1e6 }));
    };
    let (tokens, hidden) = (scaled(16384, 16), scaled(4096, 256));
    let (x, y, weight) = (draw(&[tokens, hidden])?, draw(&[tokens, hidden])?, draw(&[hidden])?);
    let one = 2.0 * (tokens * hidden) as f64;
    by_memory("rms_norm", 2.0 * one, median(device, || x.rms_norm(&weight, 1e-5))?);
    by_memory("add_rms_norm", 4.0 * one, median(device, || x.add_rms_norm(&y, &weight, 1e-5))?);
    by_memory("swiglu", 3.0 * one, median(device, || x.swiglu(&y))?);
    by_memory("add", 3.0 * one, median(device, || x.add(&y))?);
    by_memory("softmax", 2.0 * one, median(device, || x.softmax())?);
    let (n, k) = (scaled(14336, 256), scaled(4096, 256));
    let weights: Vec<Tensor> = (0..4).map(|_| draw(&[n, k])).collect::<Result<_>>()?;
    for rows in [1, 8] {
        let x = draw(&[rows, k])?;
        let bytes = 2.0 * (n * k * weights.len()) as f64;
        let run = || weights.iter().try_for_each(|w| x.linear(w, Activations::Exact).map(drop));
        by_memory(&format!("linear of {rows} rows, bf16"), bytes, median(device, run)?);
    }
    for block in ["Q4_K", "Q8_0"] {
        let dtype: DType = block.parse().map_err(|e: String| e)?;
        let packed = weights.iter().map(|w| Ok(w.cast(dtype)?.pack()?)).collect::<Result<Vec<_>>>()?;
        let bytes = (dtype.bytes_for(n * k).unwrap_or(0) * packed.len()) as f64;
        let x = draw(&[1, k])?;
        let run = || packed.iter().try_for_each(|w| x.linear(w, Activations::Int8).map(drop));
        by_memory(&format!("linear of 1 row, {block}"), bytes, median(device, run)?);
    }
    let (past, sequences) = (scaled(8192, 64), 8);
    let pages = past / 64 * sequences;
    let (k_pages, v_pages) = (draw(&[pages, 64, 8, 128])?, draw(&[pages, 64, 8, 128])?);
    let table = Tensor::arange(pages, device)?.reshape([sequences, past / 64])?;
    let lengths = Tensor::full(past as f64, sequences, DType::U32, device)?;
    let over = |q_starts| PagedInputs { k_pages: &k_pages, v_pages: &v_pages, page_table: &table, q_starts, lengths: &lengths };
    let (q, starts) = (draw(&[sequences, 32, 128])?, Tensor::arange(sequences + 1, device)?);
    let op = PagedAttention { scale: 0.088, mask: Mask::Causal };
    let seconds = median(device, || q.paged_attention(over(&starts), op))?;
    by_memory("paged_attention, a token of 8 sequences", 4.0 * (pages * 64 * 8 * 128) as f64, seconds);
    let length = scaled(4096, 64);
    let (q, k, v) = (draw(&[length, 32, 128])?, draw(&[length, 8, 128])?, draw(&[length, 8, 128])?);
    let starts = Tensor::from_slice(&[0, length as u32], 2, device)?;
    let op = Attention { scale: 0.088, mask: Mask::Causal };
    let seconds = median(device, || q.attention(&k, &v, &starts, &starts, op))?;
    let attention = 2.0 * (length * length * 32 * 128) as f64 / seconds / 1e12;
    Ok(json!({
        "copy_gb_per_s": copy,
        "linear_bf16_tflops": matrix,
        "attention_causal_tflops": attention,
        "by_memory": rows,
    }))
}
