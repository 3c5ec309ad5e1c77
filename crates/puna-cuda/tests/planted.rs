//! What the emulator is worth: mistakes planted in right kernels, each of which some way of running them finds.

use puna_cuda::{Completion, Edit, EmulatorOptions, Mode, emulated, emulated_with};
use puna_tensor::op::{Activations, Attention, Mask};
use puna_tensor::{DType, Device, Result, Tensor};

/// Numbers in [-1, 1), the same for everyone.
fn numbers(n: usize, seed: u32) -> Vec<f32> {
    (0..n as u32)
        .map(|i| ((i.wrapping_mul(2_654_435_761).wrapping_add(seed * 97_531)) >> 8) as f32 / (1 << 23) as f32 - 1.0)
        .collect()
}

fn draw(shape: &[usize], dtype: DType, seed: u32, device: &Device) -> Result<Tensor> {
    let shape = puna_tensor::Shape::new(shape).expect("a rank");
    Tensor::from_slice(&numbers(shape.elements(), seed), shape, device)?.cast(dtype)
}

fn matmul([m, n, k]: [usize; 3], dtype: DType) -> impl Fn(&Device) -> Result<Tensor> {
    move |device| draw(&[m, k], dtype, 1, device)?.linear(&draw(&[n, k], dtype, 2, device)?, Activations::Exact)
}

fn attention(queries: u32, keys: u32, mask: Mask) -> impl Fn(&Device) -> Result<Tensor> {
    move |device| {
        let [q, k, v] = [(queries, 2, 3), (keys, 1, 4), (keys, 1, 5)]
            .map(|(n, heads, seed)| draw(&[n as usize, heads, 64], DType::BF16, seed, device));
        let starts = |n: u32| Tensor::from_slice(&[0, n], 2, device);
        q?.attention(&k?, &v?, &starts(queries)?, &starts(keys)?, Attention { scale: 0.125, mask })
    }
}

fn norm(rows: usize, columns: usize) -> impl Fn(&Device) -> Result<Tensor> {
    move |device| draw(&[rows, columns], DType::F32, 6, device)?.rms_norm(&draw(&[columns], DType::F32, 7, device)?, 1e-5)
}

fn sum(rows: usize, columns: usize) -> impl Fn(&Device) -> Result<Tensor> {
    move |device| draw(&[rows, columns], DType::F32, 8, device)?.sum(1)
}

type Case = Box<dyn Fn(&Device) -> Result<Tensor>>;
/// A name, a source, its edits, and a case that meets them.
type Planted = (&'static str, &'static str, &'static [(&'static str, &'static str)], Case);

fn planted() -> Vec<Planted> {
    let (plain, fast, few, flash) = ("matmul.cu", "matmul_sm80.cu", "linear_sm80.cu", "attention_sm80.cu");
    let small: fn() -> Case = || Box::new(matmul([64, 64, 40], DType::F32));
    let tiles: fn() -> Case = || Box::new(matmul([70, 72, 264], DType::BF16));
    let one: fn() -> Case = || Box::new(matmul([3, 72, 264 * 4], DType::BF16));
    let whole: fn() -> Case = || Box::new(attention(64, 256, Mask::Full));
    vec![
        (
            "no barrier before a tile is read",
            plain,
            &[(
                "            __syncthreads();\n#pragma unroll\n            for (int kk",
                "#pragma unroll\n            for (int kk",
            )],
            small(),
        ),
        (
            "no barrier before a tile is filled again",
            plain,
            &[(
                "            __syncthreads();\n        }\n#pragma unroll\n        for (int i",
                "        }\n#pragma unroll\n        for (int i",
            )],
            small(),
        ),
        (
            "a row too many",
            plain,
            &[("if (row >= m || column >= n) continue;", "if (row > m || column >= n) continue;")],
            Box::new(matmul([65, 64, 16], DType::F32)),
        ),
        (
            "a step of k too many",
            plain,
            &[("k0 + kk < k ? widen(az", "k0 + kk <= k ? widen(az")],
            Box::new(matmul([64, 64, 17], DType::F32)),
        ),
        (
            "no barrier between stages",
            fast,
            &[("            __syncthreads();  // the stage is there", "            // the stage is there")],
            tiles(),
        ),
        ("no wait for a stage", fast, &[("            ptx::cp_async_wait<STAGES - 2>();\n", "")], tiles()),
        ("a wait that leaves one stage too many", fast, &[("cp_async_wait<STAGES - 2>", "cp_async_wait<STAGES - 1>")], tiles()),
        (
            "fragments in another order",
            fast,
            &[("fb[j / 2][j % 2 * 2], fb[j / 2][j % 2 * 2 + 1]", "fb[j / 2][j % 2], fb[j / 2][j % 2 + 2]")],
            tiles(),
        ),
        ("pairs read beyond k", few, &[("row < m && column < k)", "row < m)")], Box::new(matmul([3, 40, 40], DType::BF16))),
        ("a warp that does not wait for itself", few, &[("        __syncwarp();  // the stage", "        // the stage")], one()),
        (
            "places of pieces on one side only",
            few,
            &[(
                "ptx::ldmatrix_x4(fb, stage + offset(lane / 16 * 8 + lane % 8, i * 2 + lane / 8 % 2));",
                "ptx::ldmatrix_x4(fb, stage + (lane / 16 * 8 + lane % 8) * (DEPTH * 2) + (i * 2 + lane / 8 % 2) * 16);",
            )],
            one(),
        ),
        (
            "a stage of the ring too late",
            few,
            &[(
                "const u32 stage = ring + step % STAGES * STAGE;",
                "const u32 stage = ring + (step + STAGES - 1) % STAGES * STAGE;",
            )],
            one(),
        ),
        (
            "no barrier before keys are filled again",
            flash,
            &[("        __syncthreads();  // values are there", "        // values are there")],
            whole(),
        ),
        (
            "no barrier before keys are read",
            flash,
            &[("        __syncthreads();  // keys are there", "        // keys are there")],
            whole(),
        ),
        ("values not turned", "head_tiles.cuh", &[("ldmatrix_x4_trans", "ldmatrix_x4")], whole()),
        (
            "a mask off by one",
            flash,
            &[("t * 2 + e < seen[h] ?", "t * 2 + e <= seen[h] ?")],
            Box::new(attention(67, 67, Mask::Causal)),
        ),
        (
            "keys beyond the sequence",
            flash,
            &[
                ("key < (i64)span.keys ? row_of", "key <= (i64)span.keys ? row_of"),
                ("t * 2 + e < seen[h] ?", "t * 2 + e < seen[h] + 1 ?"),
            ],
            Box::new(attention(4, 67, Mask::Full)),
        ),
        (
            "a barrier in a branch",
            "norm.cu",
            &[("    squares = block_reduce", "    if (threadIdx.x < 32) __syncthreads();\n    squares = block_reduce")],
            Box::new(norm(3, 300)),
        ),
        (
            "two blocks write one row",
            "norm.cu",
            &[("    y += row * n;\n    if (stream)", "    y += (row & ~1ull) * n;\n    if (stream)")],
            Box::new(norm(4, 300)),
        ),
        (
            "shared memory that nobody has written",
            "block_reduce.cuh",
            &[("if ((threadIdx.x & 31) == 0) room[threadIdx.x >> 5] = v;", "if (threadIdx.x == 0) room[threadIdx.x >> 5] = v;")],
            Box::new(sum(3, 700)),
        ),
    ]
}

#[test]
fn planted_mistakes_are_found() {
    let late = EmulatorOptions::default();
    let shuffled = EmulatorOptions { seed: 7, completion: Completion::BySeed, ..late };
    let checked = EmulatorOptions { mode: Mode::Check, ..late };
    let ways = [("late", late), ("shuffled", shuffled), ("checked", checked)];
    let right = emulated(late).expect("a C++ compiler");
    let (mut table, mut missed) = (String::new(), Vec::new());
    for (name, source, edits, case) in planted() {
        let expected = case(&right).and_then(|y| y.to_bytes()).expect("the kernel is right before it is changed");
        let mut found = false;
        table += &format!("| {name} |");
        for (_, options) in ways {
            let edits = edits.iter().map(|&(from, to)| Edit { source, from, to }).collect();
            let device = emulated_with(options, edits).expect("a C++ compiler");
            let outcome = match case(&device).and_then(|y| y.to_bytes()) {
                Ok(bytes) if bytes == expected => "passes".to_owned(),
                Ok(_) => "wrong".to_owned(),
                Err(error) => {
                    let text = error.to_string();
                    assert!(!text.contains("does not compile") && !text.contains("g++"), "{name}: {text}");
                    text.lines().next().unwrap_or_default().rsplit(": ").next().unwrap_or_default().chars().take(60).collect()
                }
            };
            found |= outcome != "passes";
            table += &format!(" {outcome} |");
        }
        table += "\n";
        if !found {
            missed.push(name);
        }
    }
    println!("{table}");
    assert!(missed.is_empty(), "not found: {missed:?}\n{table}");
}
