use std::num::NonZeroUsize;

use puna_tensor::Device;

/// Why a device is not to be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeviceError {
    /// No device has this name.
    #[error("device {0:?}: there is none of this name; there are auto, cpu, cuda:N and wgpu:N")]
    Unknown(String),
    /// The name is known, and this build cannot serve it.
    #[error("device {name}: {reason}")]
    NotBuilt {
        /// The name.
        name: String,
        /// What this build lacks, and how to have it.
        reason: String,
    },
    /// The device itself failed.
    #[error(transparent)]
    Failed(#[from] puna_tensor::Error),
}

/// A device by name.
///
/// * `auto`: the best that this build and this machine have;
/// * `cpu`: the processor, on as many threads as the system offers;
/// * `cuda:0`: an NVIDIA card by number; `cuda` is the first;
/// * `wgpu`: the fastest GPU that Vulkan, Metal or Direct3D reach; `wgpu:1`, `wgpu:low` and `wgpu:NAME` are others, by number, by power,
///   by a part of their name.
///
/// A name works or is an error with the reason: nothing slower is taken in silence.
pub fn device(name: &str) -> Result<Device, DeviceError> {
    device_with_threads(name, None)
}

/// As [`device`], with the number of threads for the CPU. Results do not depend on it.
pub fn device_with_threads(name: &str, threads: Option<NonZeroUsize>) -> Result<Device, DeviceError> {
    match name {
        "auto" | "cpu" => cpu(name, threads),
        "cuda" => cuda(name, 0),
        _ if let Some(index) = name.strip_prefix("cuda:").and_then(|n| n.parse().ok()) => cuda(name, index),
        _ if name == "wgpu" || name.starts_with("wgpu:") => wgpu(name),
        _ => Err(DeviceError::Unknown(name.into())),
    }
}

#[cfg(feature = "cuda")]
fn cuda(_: &str, index: usize) -> Result<Device, DeviceError> {
    Ok(puna_cuda::device(index, puna_cuda::Options::default())?)
}

#[cfg(not(feature = "cuda"))]
fn cuda(name: &str, _: usize) -> Result<Device, DeviceError> {
    let reason = "this build has no CUDA back end; the feature `cuda` adds it".into();
    Err(DeviceError::NotBuilt { name: name.into(), reason })
}

#[cfg(feature = "wgpu")]
fn wgpu(name: &str) -> Result<Device, DeviceError> {
    Ok(puna_wgpu::device(&name.parse()?, puna_wgpu::Options::default())?)
}

#[cfg(not(feature = "wgpu"))]
fn wgpu(name: &str) -> Result<Device, DeviceError> {
    let reason = "this build has no wgpu back end; the feature `wgpu` adds it".into();
    Err(DeviceError::NotBuilt { name: name.into(), reason })
}

#[cfg(feature = "cpu")]
fn cpu(_: &str, threads: Option<NonZeroUsize>) -> Result<Device, DeviceError> {
    Ok(puna_cpu::device(puna_cpu::Options { threads })?)
}

#[cfg(not(feature = "cpu"))]
fn cpu(name: &str, _: Option<NonZeroUsize>) -> Result<Device, DeviceError> {
    let reason = "this build has no CPU back end; the feature `cpu` adds it".into();
    Err(DeviceError::NotBuilt { name: name.into(), reason })
}
