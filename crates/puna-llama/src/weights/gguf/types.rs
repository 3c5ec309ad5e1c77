//! The tensor types of GGUF, one table.

use puna_tensor::{BlockType, DType};

/// A type of a tensor in a GGUF file.
#[derive(Debug, Clone, Copy)]
pub struct GgmlType {
    /// Its number in the file.
    pub id: u32,
    /// Its name.
    pub name: &'static str,
    /// How many values are stored together.
    pub values: u64,
    /// In how many bytes.
    pub bytes: u64,
    /// The dtype, where puna computes with it.
    pub dtype: Option<DType>,
}

/// Every type that the format has given a number to and not taken back.
pub const TYPES: [GgmlType; 33] = {
    const fn known(id: u32, dtype: DType) -> GgmlType {
        let (values, bytes) = (dtype.unit() as u64, dtype.unit_bytes() as u64);
        GgmlType { id, name: dtype.name(), values, bytes, dtype: Some(dtype) }
    }
    const fn other(id: u32, name: &'static str, values: u64, bytes: u64) -> GgmlType {
        GgmlType { id, name, values, bytes, dtype: None }
    }
    use BlockType as B;
    [
        known(0, DType::F32),
        known(1, DType::F16),
        known(2, DType::Block(B::Q4_0)),
        known(3, DType::Block(B::Q4_1)),
        known(6, DType::Block(B::Q5_0)),
        known(7, DType::Block(B::Q5_1)),
        known(8, DType::Block(B::Q8_0)),
        other(9, "Q8_1", 32, 36),
        known(10, DType::Block(B::Q2K)),
        known(11, DType::Block(B::Q3K)),
        known(12, DType::Block(B::Q4K)),
        known(13, DType::Block(B::Q5K)),
        known(14, DType::Block(B::Q6K)),
        other(15, "Q8_K", 256, 292),
        other(16, "IQ2_XXS", 256, 66),
        other(17, "IQ2_XS", 256, 74),
        other(18, "IQ3_XXS", 256, 98),
        other(19, "IQ1_S", 256, 50),
        other(20, "IQ4_NL", 32, 18),
        other(21, "IQ3_S", 256, 110),
        other(22, "IQ2_S", 256, 82),
        other(23, "IQ4_XS", 256, 136),
        other(24, "I8", 1, 1),
        other(25, "I16", 1, 2),
        other(26, "I32", 1, 4),
        known(27, DType::I64),
        known(28, DType::F64),
        other(29, "IQ1_M", 256, 56),
        known(30, DType::BF16),
        other(34, "TQ1_0", 256, 54),
        other(35, "TQ2_0", 256, 66),
        other(39, "MXFP4", 32, 17),
        other(40, "NVFP4", 64, 36),
    ]
};

impl GgmlType {
    /// The type that stores a dtype, if there is one.
    pub fn of(dtype: DType) -> Option<Self> {
        TYPES.into_iter().find(|known| known.dtype == Some(dtype))
    }
}
