use std::fmt;

use half::{bf16, f16};
use puna_quant::BlockType;

/// What a tensor's elements are. Quantised blocks are dtypes as bf16 is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DType {
    /// IEEE 754 binary64.
    F64,
    /// IEEE 754 binary32.
    F32,
    /// IEEE 754 binary16.
    F16,
    /// The upper half of a binary32.
    BF16,
    /// Signed 64-bit integers: for files; ops take indices as [`DType::U32`].
    I64,
    /// Unsigned 32-bit integers: token ids, positions, pages, labels.
    U32,
    /// Bytes; as a condition, 0 is false.
    U8,
    /// Quantised blocks along the last axis.
    Block(BlockType),
}

impl DType {
    /// The float dtypes, widest first.
    pub const FLOATS: [DType; 4] = [DType::F64, DType::F32, DType::F16, DType::BF16];

    /// Whether an element is a floating-point number (blocks are not).
    pub const fn is_float(self) -> bool {
        matches!(self, Self::F64 | Self::F32 | Self::F16 | Self::BF16)
    }

    /// Whether an element is an integer.
    pub const fn is_integer(self) -> bool {
        matches!(self, Self::I64 | Self::U32 | Self::U8)
    }

    /// The block format, if the dtype is one.
    pub const fn block(self) -> Option<BlockType> {
        match self {
            Self::Block(block) => Some(block),
            _ => None,
        }
    }

    /// How many elements are stored together: 1, or the length of a block.
    pub const fn unit(self) -> usize {
        match self {
            Self::Block(block) => block.values(),
            _ => 1,
        }
    }

    /// How many bytes a unit takes: an element, or a block.
    pub const fn unit_bytes(self) -> usize {
        match self {
            Self::F64 | Self::I64 => 8,
            Self::F32 | Self::U32 => 4,
            Self::F16 | Self::BF16 => 2,
            Self::U8 => 1,
            Self::Block(block) => block.bytes(),
        }
    }

    /// How many bytes `elements` take, or `None` where they are no whole number of units or overflow.
    pub const fn bytes_for(self, elements: usize) -> Option<usize> {
        if elements % self.unit() != 0 { None } else { (elements / self.unit()).checked_mul(self.unit_bytes()) }
    }

    /// The dtype in which sums over elements of this one are formed: f64 for f64, else f32.
    pub const fn accumulator(self) -> DType {
        match self {
            Self::F64 => Self::F64,
            _ => Self::F32,
        }
    }

    /// The name: `f32`, `bf16`, `u32`, `Q4_K`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F64 => "f64",
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::BF16 => "bf16",
            Self::I64 => "i64",
            Self::U32 => "u32",
            Self::U8 => "u8",
            Self::Block(block) => block.name(),
        }
    }

    /// Every dtype.
    pub fn all() -> impl Iterator<Item = DType> {
        [Self::F64, Self::F32, Self::F16, Self::BF16, Self::I64, Self::U32, Self::U8]
            .into_iter()
            .chain(BlockType::ALL.into_iter().map(Self::Block))
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for DType {
    type Err = String;

    /// Reads a name as [`DType::name`] writes it, in any case; `float32`, `bfloat16` and their like are understood too.
    fn from_str(name: &str) -> Result<Self, String> {
        let lower = name.to_ascii_lowercase();
        let plain = match lower.as_str() {
            "float64" | "double" => "f64",
            "float32" | "float" => "f32",
            "float16" | "half" => "f16",
            "bfloat16" => "bf16",
            other => other,
        };
        Self::all().find(|dtype| dtype.name().eq_ignore_ascii_case(plain)).ok_or_else(|| {
            let known: Vec<_> = Self::all().map(Self::name).collect();
            format!("no dtype is called {name:?}; there are {}", known.join(", "))
        })
    }
}

/// A Rust type that a dtype stands for.
pub trait Element: bytemuck::Pod + Send + Sync + PartialEq + PartialOrd + fmt::Debug + 'static {
    /// The dtype.
    const DTYPE: DType;
}

macro_rules! element {
    ($($type:ty => $dtype:ident),*) => {$(
        impl Element for $type {
            const DTYPE: DType = DType::$dtype;
        }
    )*};
}
element!(f64 => F64, f32 => F32, f16 => F16, bf16 => BF16, i64 => I64, u32 => U32, u8 => U8);
