use half::f16;

use crate::BlockType;

/// What a block of any format holds, one number a byte: the formats differ in how these are squeezed together.
///
/// [`read`](Self::read) and [`write`](Self::write) are inverse to each other on every sequence of bytes, since each bit of a block
/// belongs to one field. Fields that a format lacks are zero, and so are the ends of the arrays that it does not fill.
///
/// The values, in f32, each operation rounded, with `sub = i / 16` (Q2_K, Q3_K, Q6_K) or `i / 32` (Q4_K, Q5_K):
///
/// | format | value `i` |
/// | --- | --- |
/// | Q8_0 | `d * quants[i]`, the quant read as i8 |
/// | Q4_0, Q5_0 | `d * (quants[i] - 8)`, `d * (quants[i] - 16)` |
/// | Q4_1, Q5_1 | `d * quants[i] + m` |
/// | Q2_K, Q4_K, Q5_K | `d * scales[sub] * quants[i] - m * mins[sub]` |
/// | Q3_K | `d * (scales[sub] - 32) * (quants[i] - 4)` |
/// | Q6_K | `d * scales[sub] * (quants[i] - 32)`, the scale read as i8 |
/// | NF4 | `absmax * LEVELS[quants[i]]` |
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Fields {
    /// The scale of the block.
    pub d: f16,
    /// The minimum (Q4_1, Q5_1), or the scale of the minima (Q2_K, Q4_K, Q5_K).
    pub m: f16,
    /// The largest magnitude of the block (NF4).
    pub absmax: f32,
    /// The scales of the sub-blocks, as stored.
    pub scales: [u8; 16],
    /// The minima of the sub-blocks, as stored.
    pub mins: [u8; 16],
    /// The quants, as stored, without offset.
    pub quants: [u8; 256],
}

impl Fields {
    /// Nothing but zeros.
    pub const ZERO: Self = Self { d: f16::ZERO, m: f16::ZERO, absmax: 0.0, scales: [0; 16], mins: [0; 16], quants: [0; 256] };

    /// Spreads out one block.
    ///
    /// # Panics
    /// If `bytes` is not one block long.
    pub fn read(block: BlockType, bytes: &[u8]) -> Self {
        assert_eq!(bytes.len(), block.bytes(), "one {block} block");
        let mut f = Self::ZERO;
        let half = |at: usize| f16::from_le_bytes([bytes[at], bytes[at + 1]]);
        match block {
            BlockType::Q8_0 => {
                f.d = half(0);
                f.quants[..32].copy_from_slice(&bytes[2..]);
            }
            BlockType::Q4_0 => {
                f.d = half(0);
                read_bits(&bytes[2..], 16, 4, 0, &mut f.quants[..32]);
            }
            BlockType::Q4_1 => {
                (f.d, f.m) = (half(0), half(2));
                read_bits(&bytes[4..], 16, 4, 0, &mut f.quants[..32]);
            }
            BlockType::Q5_0 => {
                f.d = half(0);
                read_bits(&bytes[6..], 16, 4, 0, &mut f.quants[..32]);
                read_word(&bytes[2..6], &mut f.quants[..32]);
            }
            BlockType::Q5_1 => {
                (f.d, f.m) = (half(0), half(2));
                read_bits(&bytes[8..], 16, 4, 0, &mut f.quants[..32]);
                read_word(&bytes[4..8], &mut f.quants[..32]);
            }
            BlockType::Q2K => {
                for (i, &byte) in bytes[..16].iter().enumerate() {
                    (f.scales[i], f.mins[i]) = (byte & 15, byte >> 4);
                }
                read_bits(&bytes[16..80], 32, 2, 0, &mut f.quants);
                (f.d, f.m) = (half(80), half(82));
            }
            BlockType::Q3K => {
                read_bits(&bytes[32..96], 32, 2, 0, &mut f.quants);
                read_bits(&bytes[..32], 32, 1, 2, &mut f.quants);
                let packed = &bytes[96..108];
                for (i, scale) in f.scales.iter_mut().enumerate() {
                    let low = if i < 8 { packed[i] & 15 } else { packed[i - 8] >> 4 };
                    *scale = low | (packed[8 + i % 4] >> (2 * (i / 4)) & 3) << 4;
                }
                f.d = half(108);
            }
            BlockType::Q4K => {
                (f.d, f.m) = (half(0), half(2));
                f.read_scales_and_mins(&bytes[4..16]);
                read_bits(&bytes[16..], 32, 4, 0, &mut f.quants);
            }
            BlockType::Q5K => {
                (f.d, f.m) = (half(0), half(2));
                f.read_scales_and_mins(&bytes[4..16]);
                read_bits(&bytes[48..], 32, 4, 0, &mut f.quants);
                read_bits(&bytes[16..48], 32, 1, 4, &mut f.quants);
            }
            BlockType::Q6K => {
                read_bits(&bytes[..128], 64, 4, 0, &mut f.quants);
                read_bits(&bytes[128..192], 32, 2, 4, &mut f.quants);
                f.scales.copy_from_slice(&bytes[192..208]);
                f.d = half(208);
            }
            BlockType::Nf4 => {
                f.absmax = f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
                for (pair, byte) in f.quants.chunks_exact_mut(2).zip(&bytes[4..]) {
                    (pair[0], pair[1]) = (byte >> 4, byte & 15);
                }
            }
        }
        f
    }

    /// Squeezes the fields into one block. Bits beyond a field's width are dropped.
    ///
    /// # Panics
    /// If `bytes` is not one block long.
    pub fn write(&self, block: BlockType, bytes: &mut [u8]) {
        assert_eq!(bytes.len(), block.bytes(), "one {block} block");
        let (d, m) = (self.d.to_le_bytes(), self.m.to_le_bytes());
        match block {
            BlockType::Q8_0 => {
                bytes[..2].copy_from_slice(&d);
                bytes[2..].copy_from_slice(&self.quants[..32]);
            }
            BlockType::Q4_0 => {
                bytes[..2].copy_from_slice(&d);
                write_bits(&self.quants[..32], 16, 4, 0, &mut bytes[2..]);
            }
            BlockType::Q4_1 => {
                bytes[..2].copy_from_slice(&d);
                bytes[2..4].copy_from_slice(&m);
                write_bits(&self.quants[..32], 16, 4, 0, &mut bytes[4..]);
            }
            BlockType::Q5_0 => {
                bytes[..2].copy_from_slice(&d);
                write_word(&self.quants[..32], &mut bytes[2..6]);
                write_bits(&self.quants[..32], 16, 4, 0, &mut bytes[6..]);
            }
            BlockType::Q5_1 => {
                bytes[..2].copy_from_slice(&d);
                bytes[2..4].copy_from_slice(&m);
                write_word(&self.quants[..32], &mut bytes[4..8]);
                write_bits(&self.quants[..32], 16, 4, 0, &mut bytes[8..]);
            }
            BlockType::Q2K => {
                for (i, byte) in bytes[..16].iter_mut().enumerate() {
                    *byte = self.scales[i] & 15 | self.mins[i] << 4;
                }
                write_bits(&self.quants, 32, 2, 0, &mut bytes[16..80]);
                bytes[80..82].copy_from_slice(&d);
                bytes[82..].copy_from_slice(&m);
            }
            BlockType::Q3K => {
                write_bits(&self.quants, 32, 1, 2, &mut bytes[..32]);
                write_bits(&self.quants, 32, 2, 0, &mut bytes[32..96]);
                let packed = &mut bytes[96..108];
                packed.fill(0);
                for (i, &scale) in self.scales.iter().enumerate() {
                    packed[i % 8] |= (scale & 15) << (4 * (i / 8));
                    packed[8 + i % 4] |= (scale >> 4 & 3) << (2 * (i / 4));
                }
                bytes[108..].copy_from_slice(&d);
            }
            BlockType::Q4K => {
                bytes[..2].copy_from_slice(&d);
                bytes[2..4].copy_from_slice(&m);
                self.write_scales_and_mins(&mut bytes[4..16]);
                write_bits(&self.quants, 32, 4, 0, &mut bytes[16..]);
            }
            BlockType::Q5K => {
                bytes[..2].copy_from_slice(&d);
                bytes[2..4].copy_from_slice(&m);
                self.write_scales_and_mins(&mut bytes[4..16]);
                write_bits(&self.quants, 32, 1, 4, &mut bytes[16..48]);
                write_bits(&self.quants, 32, 4, 0, &mut bytes[48..]);
            }
            BlockType::Q6K => {
                write_bits(&self.quants, 64, 4, 0, &mut bytes[..128]);
                write_bits(&self.quants, 32, 2, 4, &mut bytes[128..192]);
                bytes[192..208].copy_from_slice(&self.scales);
                bytes[208..].copy_from_slice(&d);
            }
            BlockType::Nf4 => {
                bytes[..4].copy_from_slice(&self.absmax.to_le_bytes());
                for (pair, byte) in self.quants.chunks_exact(2).zip(&mut bytes[4..]) {
                    *byte = pair[0] << 4 | pair[1] & 15;
                }
            }
        }
    }

    /// Eight 6-bit scales and minima in 12 bytes: the first four whole, the others in four low and two high bits.
    fn read_scales_and_mins(&mut self, packed: &[u8]) {
        for i in 0..4 {
            let (scale, min, low) = (packed[i], packed[i + 4], packed[i + 8]);
            (self.scales[i], self.mins[i]) = (scale & 63, min & 63);
            (self.scales[i + 4], self.mins[i + 4]) = (low & 15 | (scale >> 6) << 4, low >> 4 | (min >> 6) << 4);
        }
    }

    fn write_scales_and_mins(&self, packed: &mut [u8]) {
        for i in 0..4 {
            let (scale, min) = (self.scales[i + 4], self.mins[i + 4]);
            packed[i] = self.scales[i] & 63 | scale >> 4 << 6;
            packed[i + 4] = self.mins[i] & 63 | min >> 4 << 6;
            packed[i + 8] = scale & 15 | min << 4;
        }
    }
}

/// Reads numbers of `bits` bits and ors them into `out`, shifted to the left by `to`. Runs of `stride` bytes hold `8 / bits` runs of
/// `stride` numbers, the first in the lowest bits.
fn read_bits(bytes: &[u8], stride: usize, bits: u32, to: u32, out: &mut [u8]) {
    let mask = (1u8 << bits) - 1;
    let levels = 8 / bits as usize;
    for (bytes, out) in bytes.chunks_exact(stride).zip(out.chunks_exact_mut(stride * levels)) {
        for (level, out) in out.chunks_exact_mut(stride).enumerate() {
            for (out, byte) in out.iter_mut().zip(bytes) {
                *out |= (byte >> (level as u32 * bits) & mask) << to;
            }
        }
    }
}

/// The inverse of [`read_bits`]; overwrites `bytes`.
fn write_bits(quants: &[u8], stride: usize, bits: u32, from: u32, bytes: &mut [u8]) {
    let mask = (1u8 << bits) - 1;
    let levels = 8 / bits as usize;
    bytes.fill(0);
    for (bytes, quants) in bytes.chunks_exact_mut(stride).zip(quants.chunks_exact(stride * levels)) {
        for (level, quants) in quants.chunks_exact(stride).enumerate() {
            for (byte, quant) in bytes.iter_mut().zip(quants) {
                *byte |= (quant >> from & mask) << (level as u32 * bits);
            }
        }
    }
}

/// The fifth bits of 32 quants, as one little-endian word.
fn read_word(bytes: &[u8], quants: &mut [u8]) {
    for (i, quant) in quants.iter_mut().enumerate() {
        *quant |= (bytes[i / 8] >> (i % 8) & 1) << 4;
    }
}

fn write_word(quants: &[u8], bytes: &mut [u8]) {
    bytes.fill(0);
    for (i, quant) in quants.iter().enumerate() {
        bytes[i / 8] |= (quant >> 4 & 1) << (i % 8);
    }
}
