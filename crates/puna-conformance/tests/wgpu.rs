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

/// One device for all families: kernels are compiled once. It has no more than every WebGPU device allows.
fn family(name: &str) {
    static DEVICE: OnceLock<Option<Device>> = OnceLock::new();
    if let Some(device) = DEVICE.get_or_init(|| open(Limits::WebGpu)) {
        run_family(device, name);
    }
}

families!(family);

/// What hangs on how much a kernel sees at once, as the adapter has it.
#[test]
fn the_adapters_own_limits_serve() {
    if let Some(device) = open(Limits::Adapter) {
        ["device", "copy", "index", "tasks"].iter().for_each(|name| run_family(&device, name));
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
