use puna_tensor::{BlockType, DType, Device, Tensor};

use crate::Array;
use crate::draw::{Draw, shape_of};

/// Blocks of a tensor of this shape with every kind of quant and scale, and the values they stand for: most encoded from about normal values,
/// some of random bytes with the f16 scales kept finite.
pub(crate) fn random_blocks(block: BlockType, shape: &[usize], seed: u64) -> (Vec<u8>, Array) {
    let mut draw = Draw::new(seed);
    let count = shape.iter().product::<usize>() / block.values();
    let mut bytes = vec![0; count * block.bytes()];
    for bytes in bytes.chunks_exact_mut(block.bytes()) {
        let values: Vec<f32> = (0..block.values()).map(|_| draw.normal() as f32).collect();
        puna_quant::encode(block, &values, bytes).expect("one block");
        if draw.below(3) == 0 {
            // Bytes that no encoder would write: all quants, all inner scales; the f16 fields stay as they are.
            let original = bytes.to_vec();
            let halves = scales(block);
            bytes.iter_mut().for_each(|byte| *byte = draw.bits() as u8);
            halves.iter().for_each(|&at| bytes[at..at + 2].copy_from_slice(&original[at..at + 2]));
        }
    }
    let values = decoded(block, &bytes, shape);
    (bytes, values)
}

/// Where a block's f16 fields are: its scale, and its minimum's, if it has one.
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

/// Every dtype that a weight may have.
pub(crate) fn weight_dtypes() -> impl Iterator<Item = DType> {
    DType::FLOATS.into_iter().chain(BlockType::ALL.into_iter().map(DType::Block))
}

/// The length of K to test a weight's dtype with: odd for floats, some blocks else.
pub(crate) fn inner_length(dtype: DType, blocks: usize) -> usize {
    match dtype {
        DType::Block(block) => blocks * block.values(),
        _ => 32 * blocks + 3,
    }
}
