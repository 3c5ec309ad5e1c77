//! The contract of every op on the wgpu back end: on the adapter that `PUNA_WGPU_ADAPTER` names, or the fastest; without a GPU, Mesa's software
//! Vulkan.

use std::sync::OnceLock;

use puna_conformance::{equal_bits, families, run_family};
use puna_tensor::{BlockType, DType, Device};
use puna_wgpu::{Choice, Limits, Options};

/// Those whose bits are compared.
const DTYPES: [DType; 4] = [DType::F32, DType::F16, DType::BF16, DType::Block(BlockType::Q4K)];

/// A device of its own; `None`, said aloud, where there is no adapter and `PUNA_REQUIRE_WGPU` does not ask for one.
fn open(limits: Limits) -> Option<Device> {
    match puna_wgpu::device(&Choice::Any, Options { limits, ..Options::default() }) {
        Ok(device) => Some(device),
        Err(error) if std::env::var_os("PUNA_REQUIRE_WGPU").is_none() => {
            eprintln!(
                "SKIPPED: {error}; Debian's mesa-vulkan-drivers is a software one, and PUNA_REQUIRE_WGPU=1 makes this a failure"
            );
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// One device for all families: kernels are compiled once.
fn family(name: &str) {
    static DEVICE: OnceLock<Option<Device>> = OnceLock::new();
    if let Some(device) = DEVICE.get_or_init(|| open(Limits::Adapter)) {
        run_family(device, name);
    }
}

families!(family);

/// With no more than every WebGPU device allows.
#[test]
fn the_limits_of_webgpu_are_enough() {
    if let Some(device) = open(Limits::WebGpu) {
        for (name, _) in puna_conformance::FAMILIES {
            run_family(&device, name);
        }
    }
}

/// The same bits again, on a device that has compiled nothing yet, and with other limits.
#[test]
fn bits_are_those_of_the_first_time() {
    let devices: Option<Vec<Device>> = [Limits::Adapter, Limits::Adapter, Limits::WebGpu].map(open).into_iter().collect();
    if let Some(devices) = devices {
        equal_bits(&devices, &DTYPES);
    }
}
