//! Lays the kernels that the feature `prebuilt` builds in where the compiler finds them. It calls no compiler, and does nothing else.

use std::env::var_os;
use std::path::{Path, PathBuf};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=PUNA_CUBINS");
    if var_os("CARGO_FEATURE_PREBUILT").is_none() {
        return;
    }
    let Some(file) = var_os("PUNA_CUBINS").map(PathBuf::from) else {
        println!(
            "cargo::error=the feature prebuilt builds in the file that PUNA_CUBINS names, and PUNA_CUBINS is not set; `cargo xtask cubins DIR` makes one"
        );
        return;
    };
    let shown = file.display();
    println!("cargo::rerun-if-changed={shown}");
    let into = Path::new(&var_os("OUT_DIR").expect("cargo says where")).join("cubins");
    if !file.is_absolute() {
        println!("cargo::error=PUNA_CUBINS is {shown}; an absolute path is needed, since a build runs in many folders");
    } else if let Err(error) = std::fs::copy(&file, into) {
        println!("cargo::error=PUNA_CUBINS {shown}: {error}");
    }
}
