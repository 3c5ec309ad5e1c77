//! Against GGUF's reference Python package, and bitsandbytes.

use puna_quant::{BlockType, decode, encode};
use safetensors::SafeTensors;

fn with_goldens(folder: &str, check: impl Fn(&SafeTensors)) {
    let path = format!("{}/../puna-conformance/goldens/{folder}/blocks.safetensors", env!("CARGO_MANIFEST_DIR"));
    let bytes = std::fs::read(path).unwrap();
    check(&SafeTensors::deserialize(&bytes).unwrap());
}

/// The formats whose encoding is laid down too.
const ENCODED: [BlockType; 6] =
    [BlockType::Q8_0, BlockType::Q4_0, BlockType::Q4_1, BlockType::Q5_0, BlockType::Q5_1, BlockType::Nf4];

fn folder(block: BlockType) -> &'static str {
    if block == BlockType::Nf4 { "nf4" } else { "gguf" }
}

fn floats(file: &SafeTensors, name: &str) -> Vec<f32> {
    file.tensor(name).unwrap().data().as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect()
}

#[track_caller]
fn check_bits(block: BlockType, found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len());
    for (i, (a, b)) in found.iter().zip(expected).enumerate() {
        assert_eq!(a.to_bits(), b.to_bits(), "{block} value {i}: {a} for {b}");
    }
}

#[test]
fn blocks_decode_bit_by_bit_as_the_reference() {
    for block in BlockType::ALL {
        with_goldens(folder(block), |file| {
            let bytes = file.tensor(&format!("{block}.bytes")).unwrap();
            let expected = floats(file, &format!("{block}.values"));
            let mut found = vec![0.0; expected.len()];
            decode(block, bytes.data(), &mut found).unwrap();
            check_bits(block, &found, &expected);
        });
    }
}

#[test]
fn formats_without_a_search_encode_byte_by_byte_as_the_reference() {
    for block in ENCODED {
        with_goldens(folder(block), |file| {
            let input = floats(file, &format!("{block}.encode.input"));
            let expected = file.tensor(&format!("{block}.encode.bytes")).unwrap();
            let mut found = vec![0; expected.data().len()];
            encode(block, &input, &mut found).unwrap();
            for (i, (a, b)) in found.iter().zip(expected.data()).enumerate() {
                assert_eq!(a, b, "{block} byte {i}");
            }
            let mut decoded = vec![0.0; input.len()];
            decode(block, &found, &mut decoded).unwrap();
            check_bits(block, &decoded, &floats(file, &format!("{block}.encode.values")));
        });
    }
}
