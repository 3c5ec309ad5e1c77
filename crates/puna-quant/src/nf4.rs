//! NF4: 16 levels, which hold equal shares of a normal distribution. Dettmers and others 2023, arXiv 2305.14314, appendix E.

use crate::Fields;

/// The levels of the paper, ascending: quantiles of the standard normal distribution, divided by the largest, with an exact 0.
pub(crate) const LEVELS: [f32; 16] = [
    -1.0,
    -0.696_192_8,
    -0.525_073_05,
    -0.394_917_5,
    -0.284_441_38,
    -0.184_773_43,
    -0.091_050_036,
    0.0,
    0.079_580_3,
    0.160_930_2,
    0.246_112_3,
    0.337_915_24,
    0.440_709_83,
    0.562_617,
    0.722_956_84,
    1.0,
];

pub(crate) fn decode(fields: &Fields, out: &mut [f32]) {
    for (out, &q) in out.iter_mut().zip(&fields.quants) {
        *out = fields.absmax * LEVELS[usize::from(q & 15)];
    }
}

/// As [`decode`] of the fields of `bytes`, without spreading them out: a base is decoded in each step of a training.
pub(crate) fn decode_bytes(bytes: &[u8], out: &mut [f32]) {
    let (absmax, quants) = bytes.split_first_chunk::<4>().expect("one block");
    let absmax = f32::from_le_bytes(*absmax);
    let levels = LEVELS.map(|level| absmax * level);
    for (out, byte) in out.chunks_exact_mut(2).zip(quants) {
        out[0] = levels[usize::from(byte >> 4)];
        out[1] = levels[usize::from(byte & 15)];
    }
}

/// The nearest level to each of 64 finite values over the largest of their magnitudes, the lower one of two that are as near. All are 0 where
/// that magnitude is so small that its reciprocal is infinite.
pub(crate) fn encode(x: &[f32]) -> Fields {
    let absmax = x.iter().fold(0.0f32, |most, x| most.max(x.abs()));
    let inverse = 1.0 / absmax;
    let mut fields = Fields { absmax, ..Fields::ZERO };
    for (q, x) in fields.quants.iter_mut().zip(x) {
        let x = if inverse.is_finite() { x * inverse } else { 0.0 };
        *q = LEVELS.windows(2).filter(|pair| x > (pair[0] + pair[1]) / 2.0).count() as u8;
    }
    fields
}
