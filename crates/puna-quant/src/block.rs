use std::fmt;

/// A block format: a fixed number of values stored together in a fixed number of bytes, as GGUF defines it (NF4: as bitsandbytes does).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum BlockType {
    /// 32 values of 8 bits and an f16 scale: `d * q`.
    Q8_0,
    /// 32 values of 4 bits and an f16 scale: `d * (q - 8)`.
    Q4_0,
    /// 32 values of 4 bits, an f16 scale and an f16 minimum: `d * q + m`.
    Q4_1,
    /// 32 values of 5 bits and an f16 scale: `d * (q - 16)`.
    Q5_0,
    /// 32 values of 5 bits, an f16 scale and an f16 minimum: `d * q + m`.
    Q5_1,
    /// 256 values of 2 bits; 16 sub-blocks with 4-bit scales and minima.
    Q2K,
    /// 256 values of 3 bits; 16 sub-blocks with 6-bit scales.
    Q3K,
    /// 256 values of 4 bits; 8 sub-blocks with 6-bit scales and minima.
    Q4K,
    /// 256 values of 5 bits; 8 sub-blocks with 6-bit scales and minima.
    Q5K,
    /// 256 values of 6 bits; 16 sub-blocks with 8-bit scales.
    Q6K,
    /// 64 values of 4 bits, each one of 16 levels, and the largest magnitude in f32: `absmax * LEVELS[q]`. What QLoRA trains beside; GGUF
    /// has no number for it. Dettmers and others 2023, arXiv 2305.14314.
    Nf4,
}

impl BlockType {
    /// Every block type.
    pub const ALL: [BlockType; 11] = [
        BlockType::Q8_0,
        BlockType::Q4_0,
        BlockType::Q4_1,
        BlockType::Q5_0,
        BlockType::Q5_1,
        BlockType::Q2K,
        BlockType::Q3K,
        BlockType::Q4K,
        BlockType::Q5K,
        BlockType::Q6K,
        BlockType::Nf4,
    ];

    /// How many values a block holds.
    pub const fn values(self) -> usize {
        match self {
            Self::Q8_0 | Self::Q4_0 | Self::Q4_1 | Self::Q5_0 | Self::Q5_1 => 32,
            Self::Nf4 => 64,
            Self::Q2K | Self::Q3K | Self::Q4K | Self::Q5K | Self::Q6K => 256,
        }
    }

    /// How many bytes a block takes.
    pub const fn bytes(self) -> usize {
        match self {
            Self::Q8_0 => 34,
            Self::Q4_0 => 18,
            Self::Q4_1 => 20,
            Self::Q5_0 => 22,
            Self::Q5_1 => 24,
            Self::Q2K => 84,
            Self::Q3K => 110,
            Self::Q4K => 144,
            Self::Q5K => 176,
            Self::Q6K => 210,
            Self::Nf4 => 36,
        }
    }

    /// The format's name, as llama.cpp, GGUF and bitsandbytes spell it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Q8_0 => "Q8_0",
            Self::Q4_0 => "Q4_0",
            Self::Q4_1 => "Q4_1",
            Self::Q5_0 => "Q5_0",
            Self::Q5_1 => "Q5_1",
            Self::Q2K => "Q2_K",
            Self::Q3K => "Q3_K",
            Self::Q4K => "Q4_K",
            Self::Q5K => "Q5_K",
            Self::Q6K => "Q6_K",
            Self::Nf4 => "NF4",
        }
    }
}

impl fmt::Display for BlockType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
