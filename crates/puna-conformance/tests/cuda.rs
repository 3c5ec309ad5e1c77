//! The contract of every op on the CUDA back end, its kernels executed on the processor.

use std::process::Command;

use puna_conformance::{equal_bits, families, run_family};
use puna_cuda::{Completion, EmulatorOptions, Mode, emulated};
use puna_tensor::{BlockType, DType};

/// What tells a process that it is one of those below.
const CHILD: &str = "PUNA_CONFORMANCE_CHILD";
/// Those whose bits are compared: a float of each width that has kernels of its own, and blocks.
const DTYPES: [DType; 3] = [DType::F32, DType::BF16, DType::Block(BlockType::Q4K)];

/// Runs a family in a process of its own: the emulator has one current block a process, so that this is how families run side by side.
fn family(name: &str) {
    if std::env::var_os(CHILD).is_some() {
        return run_family(&emulated(EmulatorOptions::default()).expect("a C++ compiler"), name);
    }
    child(name, &[]);
}

/// Runs a test of this program in a process of its own.
fn child(name: &str, settings: &[(&str, &str)]) {
    let this = std::env::current_exe().expect("the path of this program");
    let mut command = Command::new(this);
    command.args(["--exact", name, "--nocapture"]).env(CHILD, "1").envs(settings.iter().copied());
    let output = command.output().expect("this program starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}\n{}{}", output.status, text(&output.stdout), text(&output.stderr));
}

families!(family);

/// Copies that land as late as they may or at any moment, threads and blocks in order or shuffled, every access looked at: the same bits.
#[test]
fn the_order_of_threads_and_copies_changes_no_bit() {
    let plain = EmulatorOptions::default();
    let shuffled = EmulatorOptions { seed: 5, completion: Completion::BySeed, ..plain };
    let checked = EmulatorOptions { seed: 8, mode: Mode::Check, ..plain };
    equal_bits(&[plain, shuffled, checked].map(|options| emulated(options).expect("a C++ compiler")), &DTYPES);
}

/// Memory as a card has it: what one tensor lets go is the next one's, a recording's its own.
#[test]
fn memory_that_is_used_again_changes_no_bit() {
    let pooled = EmulatorOptions { pooled: true, ..EmulatorOptions::default() };
    let devices = [EmulatorOptions::default(), pooled].map(|options| emulated(options).expect("a C++ compiler"));
    equal_bits(&devices, &DTYPES);
    run_family(&devices[1], "device");
    run_family(&devices[1], "tasks");
}

/// A set of ops under AddressSanitizer, which a process must be started with.
#[test]
fn the_address_sanitizer_finds_nothing() {
    let name = "the_address_sanitizer_finds_nothing";
    let options = EmulatorOptions { mode: Mode::Address, ..EmulatorOptions::default() };
    if std::env::var_os(CHILD).is_some() {
        return equal_bits(&[0, 3].map(|seed| emulated(EmulatorOptions { seed, ..options }).expect("a C++ compiler")), &DTYPES);
    }
    let library = Command::new("g++").arg("-print-file-name=libasan.so").output().expect("a C++ compiler");
    let library = String::from_utf8_lossy(&library.stdout).trim().to_owned();
    // Rust's own memory is never freed at the end, and the compiler is not to be looked at.
    let settings = [("LD_PRELOAD", library.as_str()), ("ASAN_OPTIONS", "detect_leaks=0:detect_stack_use_after_return=0")];
    child(name, &settings);
}
