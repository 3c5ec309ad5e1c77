use crate::{BlockType, Error, Fields, Result, error::check_length, k, nf4, simple};

/// Decodes blocks into values, bit by bit as GGUF defines them (see [`Fields`]).
///
/// Errors: `out` is no whole number of blocks, `bytes` not that number of blocks.
pub fn decode(block: BlockType, bytes: &[u8], out: &mut [f32]) -> Result<()> {
    check("decode", block, ("bytes", bytes.len()), out.len())?;
    let blocks = bytes.chunks_exact(block.bytes()).zip(out.chunks_exact_mut(block.values()));
    if block == BlockType::Nf4 {
        blocks.for_each(|(bytes, out)| nf4::decode_bytes(bytes, out));
    } else {
        blocks.for_each(|(bytes, out)| decode_fields(block, &Fields::read(block, bytes), out));
    }
    Ok(())
}

/// Encodes values into blocks.
///
/// Q8_0, Q4_0, Q4_1, Q5_0 and Q5_1 come out byte for byte as from GGUF's reference encoder, NF4 as from bitsandbytes. The K formats leave the choice of scales to
/// the encoder; ours minimises the squared error by a search.
///
/// A block that holds a NaN or an infinity decodes to NaN throughout: its scale is a NaN, all else zero. A scale beyond the
/// range of f16 (values of about 65504 times the largest quant) becomes an infinity, as the reference encoder has it.
///
/// Errors: `values` is no whole number of blocks, `out` not that number of blocks.
pub fn encode(block: BlockType, values: &[f32], out: &mut [u8]) -> Result<()> {
    check("encode", block, ("out", out.len()), values.len())?;
    for (values, out) in values.chunks_exact(block.values()).zip(out.chunks_exact_mut(block.bytes())) {
        let fields = if values.iter().any(|x| !x.is_finite()) {
            Fields { d: half::f16::NAN, absmax: f32::NAN, ..Fields::ZERO }
        } else {
            match block.values() {
                32 => simple::encode(block, values),
                64 => nf4::encode(values),
                _ => k::encode(block, values),
            }
        };
        fields.write(block, out);
    }
    Ok(())
}

/// The values of one block that has been spread out.
///
/// # Panics
/// If `out` is not one block long.
pub fn decode_fields(block: BlockType, fields: &Fields, out: &mut [f32]) {
    assert_eq!(out.len(), block.values(), "one {block} block");
    match block.values() {
        32 => simple::decode(block, fields, out),
        64 => nf4::decode(fields, out),
        _ => k::decode(block, fields, out),
    }
}

fn check(call: &'static str, block: BlockType, (argument, bytes): (&'static str, usize), values: usize) -> Result<()> {
    if values % block.values() != 0 {
        return Err(Error::PartOfBlock { call, block, values });
    }
    let needed = (values / block.values()).saturating_mul(block.bytes());
    check_length(call, argument, bytes, needed)
}
