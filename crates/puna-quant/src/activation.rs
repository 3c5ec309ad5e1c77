use crate::Result;
use crate::error::check_length;

/// How many activations share a scale.
pub const ACTIVATION_BLOCK: usize = 32;

/// Rounds one row of activations to 8-bit integers with a scale per block of 32: the definition that every device meets to the bit.
///
/// A row of `K` values has `B = ceil(K / 32)` blocks; the last may be shorter and is filled up with zeros. `x: [K]`, `q: [32 B]`,
/// `d: [B]`, `sums: [B]`. In f32, each operation rounded to nearest, ties to even:
///
/// ```text
/// d    = max|x| / 127            in the block
/// inv  = 1 / d
/// q    = round_ties_even(x * inv)     so -127 <= q <= 127, and x is about d * q
/// sums = [q[0] + .. + q[15], q[16] + .. + q[31]]
/// ```
///
/// * Where `d` would be zero or less than `f32::MIN_POSITIVE` (the block's largest magnitude is below 1.5e-36), `d = 0` and `q = 0`: so
///   devices that flush subnormal numbers agree.
/// * A block that holds a NaN or an infinity has `d = NaN` and `q = 0`: every product with it is NaN.
///
/// Errors: a slice whose length is not as above.
pub fn quantize_activations(x: &[f32], q: &mut [i8], d: &mut [f32], sums: &mut [[i16; 2]]) -> Result<()> {
    const CALL: &str = "quantize_activations";
    let blocks = x.len().div_ceil(ACTIVATION_BLOCK);
    check_length(CALL, "q", q.len(), blocks * ACTIVATION_BLOCK)?;
    check_length(CALL, "d", d.len(), blocks)?;
    check_length(CALL, "sums", sums.len(), blocks)?;
    let blocks = x.chunks(ACTIVATION_BLOCK).zip(q.chunks_exact_mut(ACTIVATION_BLOCK));
    for ((x, q), (d, sums)) in blocks.zip(d.iter_mut().zip(sums)) {
        (*d, *sums) = quantize_block(x, q);
    }
    Ok(())
}

/// One block; `x` may be shorter than `q`, which has 32 values.
fn quantize_block(x: &[f32], q: &mut [i8]) -> (f32, [i16; 2]) {
    // The order of magnitudes is that of their bits, with infinities and NaNs above all numbers.
    let largest = x.iter().fold(0, |largest: u32, x| largest.max(x.abs().to_bits()));
    q.fill(0);
    if largest >= f32::INFINITY.to_bits() {
        return (f32::NAN, [0; 2]);
    }
    let d = f32::from_bits(largest) / 127.0;
    if d < f32::MIN_POSITIVE {
        return (0.0, [0; 2]);
    }
    let inv = 1.0 / d;
    for (q, x) in q.iter_mut().zip(x) {
        *q = (x * inv).round_ties_even() as i8;
    }
    let sum = |half: &[i8]| half.iter().map(|&q| i16::from(q)).sum();
    (d, [sum(&q[..16]), sum(&q[16..])])
}
