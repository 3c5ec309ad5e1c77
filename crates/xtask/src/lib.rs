//! What the chores do, for the tests to call too.
#![forbid(unsafe_code)]

pub mod cubins;
pub mod fixtures;
pub mod goldens;
pub mod gpu_check;
mod gpu_models;
pub mod kernels;
pub mod stories;
pub mod tidy;
pub mod train_step;

/// What a chore ends with.
pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// The workspace's root.
pub fn root() -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .canonicalize()
        .expect("the crate lies two folders below the root")
}
