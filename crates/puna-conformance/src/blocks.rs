use puna_tensor::{BlockType, DType, Device, Tensor};

use crate::Array;
use crate::draw::{Draw, shape_of};

/// Blocks of a tensor of this shape, of random quants and inner scales (also ones that no encoder would write), and the values that they
/// stand for, some units large.
pub(crate) fn random_blocks(block: BlockType, shape: &[usize], seed: u64) -> (Vec<u8>, Array) {
    // What the float fields are multiplied with at most is made to be about 3: the scale's, then the minimum's factor.
    let (scale, minimum) = match block {
        BlockType::Q8_0 => (3.0 / 127.0, 0.0),
        BlockType::Q4_0 => (3.0 / 8.0, 0.0),
        BlockType::Q4_1 => (6.0 / 15.0, -3.0),
        BlockType::Q5_0 => (3.0 / 16.0, 0.0),
        BlockType::Q5_1 => (6.0 / 31.0, -3.0),
        BlockType::Q2K => (6.0 / (15.0 * 3.0), 3.0 / 15.0),
        BlockType::Q3K => (3.0 / (32.0 * 4.0), 0.0),
        BlockType::Q4K => (6.0 / (63.0 * 15.0), 3.0 / 63.0),
        BlockType::Q5K => (6.0 / (63.0 * 31.0), 3.0 / 63.0),
        BlockType::Q6K => (3.0 / (128.0 * 32.0), 0.0),
        BlockType::Nf4 => (3.0, 0.0),
        other => panic!("{other} has no scale here"),
    };
    let mut draw = Draw::new(seed);
    let count = shape.iter().product::<usize>() / block.values();
    let mut bytes: Vec<u8> = (0..count * block.bytes()).map(|_| draw.bits() as u8).collect();
    for bytes in bytes.chunks_exact_mut(block.bytes()) {
        for (&at, factor) in scales(block).iter().zip([scale, minimum]) {
            let sign = if draw.below(8) == 0 { -1.0 } else { 1.0 };
            let value = sign * factor * (0.5 + draw.uniform());
            match block {
                BlockType::Nf4 => bytes[at..at + 4].copy_from_slice(&(value as f32).to_le_bytes()),
                _ => bytes[at..at + 2].copy_from_slice(&half::f16::from_f64(value).to_le_bytes()),
            }
        }
    }
    let values = decoded(block, &bytes, shape);
    (bytes, values)
}

/// Where a block's float fields are: its scale, and its minimum's, if it has one; f16, NF4's f32.
pub(crate) fn scales(block: BlockType) -> &'static [usize] {
    match block {
        BlockType::Q4_1 | BlockType::Q5_1 | BlockType::Q4K | BlockType::Q5K => &[0, 2],
        BlockType::Q2K => &[80, 82],
        BlockType::Q3K => &[108],
        BlockType::Q6K => &[208],
        _ => &[0],
    }
}

/// The values that blocks stand for.
pub(crate) fn decoded(block: BlockType, bytes: &[u8], shape: &[usize]) -> Array {
    let mut values = vec![0.0f32; shape.iter().product()];
    puna_quant::decode(block, bytes, &mut values).expect("whole blocks");
    Array::new(shape, values.into_iter().map(f64::from).collect())
}

/// A weight `[N, K]` of any dtype, and its values; `K` is a number of blocks where the dtype is one.
pub(crate) fn weight(device: &Device, shape: [usize; 2], dtype: DType, seed: u64) -> (Array, Tensor) {
    match dtype {
        DType::Block(block) => {
            let (bytes, values) = random_blocks(block, &shape, seed);
            (values, Tensor::from_bytes(&bytes, dtype, shape_of(&shape), device).expect("blocks"))
        }
        _ => Draw::new(seed).input(device, &shape, dtype),
    }
}

/// Every dtype that a weight may have on a device.
pub(crate) fn weight_dtypes(device: &Device) -> impl Iterator<Item = DType> + use<> {
    device.floats().chain(BlockType::ALL.into_iter().map(DType::Block))
}

/// The length of K to test a weight's dtype with: odd for floats, some blocks else.
pub(crate) fn inner_length(dtype: DType, blocks: usize) -> usize {
    match dtype {
        DType::Block(block) => blocks * block.values(),
        _ => 32 * blocks + 3,
    }
}
