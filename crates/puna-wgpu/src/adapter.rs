//! Which GPU: found by number, by name, or by what the system says of its power.

use std::str::FromStr;

use puna_tensor::{Error, Kind, Result};

/// Which adapter is asked for. Read from `wgpu` (the fastest there is, or what `PUNA_WGPU_ADAPTER` says), `wgpu:1` (by its place in
/// [`adapters`]), `wgpu:low` and `wgpu:high` (by power), `wgpu:radeon` (by a part of its name, in any case).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Choice {
    /// The fastest: a card of its own before one beside the processor, that before software; or what `PUNA_WGPU_ADAPTER` says.
    #[default]
    Any,
    /// By place.
    Index(usize),
    /// The one that takes the least power.
    LowPower,
    /// The fastest, whatever the environment says.
    HighPower,
    /// By a part of its name.
    Name(String),
}

impl FromStr for Choice {
    type Err = Error;

    /// Errors: text that does not begin with `wgpu`.
    fn from_str(text: &str) -> Result<Self> {
        let rest = match text.strip_prefix("wgpu") {
            Some("") => return Ok(Self::Any),
            Some(rest) => rest.strip_prefix(':'),
            None => None,
        };
        let rest = rest.filter(|rest| !rest.is_empty()).ok_or_else(|| {
            let message = format!("{text:?} names no device; wgpu, wgpu:1, wgpu:high, wgpu:low and wgpu:NAME do");
            Error::new(Kind::Device, "wgpu", message)
        })?;
        Ok(Self::of(rest))
    }
}

impl Choice {
    fn of(text: &str) -> Self {
        match text {
            "low" => Self::LowPower,
            "high" => Self::HighPower,
            _ => text.parse().map_or_else(|_| Self::Name(text.to_owned()), Self::Index),
        }
    }

    /// With what the environment says, where nothing else was said.
    fn or_environment(&self) -> Self {
        match (self, std::env::var("PUNA_WGPU_ADAPTER")) {
            (Self::Any, Ok(text)) if !text.is_empty() => Self::of(&text),
            _ => self.clone(),
        }
    }
}

/// What is known of an adapter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdapterInfo {
    /// As the driver says it.
    pub name: String,
    /// Through what it is driven: `vulkan`, `metal`, `dx12`, `webgpu`.
    pub through: String,
    /// Its driver, with the version.
    pub driver: String,
    /// Whether a processor does its work.
    pub is_software: bool,
}

impl AdapterInfo {
    pub(crate) fn of(adapter: &wgpu::Adapter) -> Self {
        let info = adapter.get_info();
        Self {
            // A browser may not say what it has.
            name: if info.name.is_empty() { "a GPU".into() } else { info.name },
            through: info.backend.to_str().to_owned(),
            driver: format!("{} {}", info.driver, info.driver_info).trim().to_owned(),
            is_software: info.device_type == wgpu::DeviceType::Cpu,
        }
    }
}

/// The adapters that there are, in the order of their numbers.
pub async fn adapters() -> Vec<AdapterInfo> {
    all().await.iter().map(AdapterInfo::of).collect()
}

async fn all() -> Vec<wgpu::Adapter> {
    let instance = instance();
    let mut adapters = instance.enumerate_adapters(wgpu::Backends::all()).await;
    // A browser lists none, and gives one when asked.
    if adapters.is_empty()
        && let Ok(adapter) = instance.request_adapter(&wgpu::RequestAdapterOptions::default()).await
    {
        adapters.push(adapter);
    }
    adapters.retain(|adapter| adapter.get_downlevel_capabilities().flags.contains(wgpu::DownlevelFlags::COMPUTE_SHADERS));
    adapters
}

fn instance() -> wgpu::Instance {
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
    descriptor.backends = wgpu::Backends::PRIMARY;
    // Layers that check every call are for those who ask for them.
    descriptor.flags = wgpu::InstanceFlags::empty().with_env();
    wgpu::Instance::new(descriptor)
}

/// The adapter that is asked for, and its place among all.
///
/// Errors: there is none, or none like it: with those that there are.
pub(crate) async fn choose(choice: &Choice) -> Result<(usize, wgpu::Adapter)> {
    let choice = choice.or_environment();
    let adapters = all().await;
    let names = || adapters.iter().map(|adapter| adapter.get_info().name).collect::<Vec<_>>().join(", ");
    let least = |key: &dyn Fn(&wgpu::Adapter) -> u8| (0..adapters.len()).min_by_key(|&i| key(&adapters[i]));
    let found = match &choice {
        Choice::Any | Choice::HighPower => least(&|adapter| speed(adapter.get_info().device_type)),
        Choice::LowPower => least(&|adapter| power(adapter.get_info().device_type)),
        Choice::Index(index) => Some(*index).filter(|&index| index < adapters.len()),
        Choice::Name(name) => {
            let name = name.to_lowercase();
            adapters.iter().position(|adapter| adapter.get_info().name.to_lowercase().contains(&name))
        }
    };
    let Some(index) = found else {
        let message = match &choice {
            _ if adapters.is_empty() => "no adapter: no driver for Vulkan, Metal or DX12 was found".to_owned(),
            Choice::Index(index) => format!("no adapter has the number {index}; there are {}: {}", adapters.len(), names()),
            Choice::Name(name) => format!("no adapter has {name:?} in its name; there are {}: {}", adapters.len(), names()),
            Choice::Any | Choice::HighPower | Choice::LowPower => unreachable!("where there is one, it is the fastest"),
        };
        return Err(Error::new(Kind::Device, "wgpu", message));
    };
    Ok((index, adapters.into_iter().nth(index).expect("a place among them")))
}

fn speed(kind: wgpu::DeviceType) -> u8 {
    match kind {
        wgpu::DeviceType::DiscreteGpu => 0,
        wgpu::DeviceType::IntegratedGpu => 1,
        wgpu::DeviceType::VirtualGpu => 2,
        wgpu::DeviceType::Other => 3,
        wgpu::DeviceType::Cpu => 4,
    }
}

fn power(kind: wgpu::DeviceType) -> u8 {
    match kind {
        wgpu::DeviceType::IntegratedGpu => 0,
        wgpu::DeviceType::DiscreteGpu => 1,
        other => speed(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_named_by_number_power_or_name() {
        let choice = |text: &str| text.parse::<Choice>();
        assert_eq!(choice("wgpu").unwrap(), Choice::Any);
        assert_eq!(choice("wgpu:1").unwrap(), Choice::Index(1));
        assert_eq!(choice("wgpu:low").unwrap(), Choice::LowPower);
        assert_eq!(choice("wgpu:llvmpipe").unwrap(), Choice::Name("llvmpipe".into()));
        for wrong in ["cuda", "wgpu:", "wgpux"] {
            assert_eq!(choice(wrong).unwrap_err().kind(), Kind::Device, "{wrong}");
        }
    }
}
