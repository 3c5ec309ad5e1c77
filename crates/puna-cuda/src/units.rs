//! The units that checks compile for every architecture: each source with each dtype and format that it is meant for.

use puna_tensor::{BlockType, DType};

use crate::driver::Unit;
use crate::ops;

/// A source and its definitions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckedUnit {
    /// The name of the source.
    pub source: &'static str,
    /// What is defined before it: `T=bf16`.
    pub defines: Vec<String>,
    /// The least compute capability, times ten, that it is for.
    pub capability: u32,
}

/// What a card may be asked to compile, but for mixtures of dtypes that differ in a load and a rounding from those here.
pub fn units() -> Vec<CheckedUnit> {
    ops::units().iter().map(checked).collect()
}

/// Those, and the mixtures that models meet: what is compiled beforehand for cards without a compiler beside them.
#[cfg(feature = "cubins")]
pub fn release_units() -> Vec<CheckedUnit> {
    ops::units().iter().chain(&ops::mixtures()).map(checked).collect()
}

fn checked(unit: &Unit) -> CheckedUnit {
    let defines = unit.defines().map(|(name, value)| format!("{name}={value}")).collect();
    let capability = if unit.source.contains("_sm80") { 80 } else { 75 };
    CheckedUnit { source: unit.source, defines, capability }
}

/// Every format of blocks, as a dtype.
pub(crate) fn blocks() -> impl Iterator<Item = DType> {
    BlockType::ALL.into_iter().map(DType::Block)
}
