//! The formats of 32 values: a scale, perhaps a minimum, and quants.

use half::f16;

use crate::{BlockType, Fields};

pub(crate) fn decode(block: BlockType, fields: &Fields, out: &mut [f32]) {
    let (d, m) = (fields.d.to_f32(), fields.m.to_f32());
    let quants = out.iter_mut().zip(&fields.quants);
    match block {
        BlockType::Q8_0 => quants.for_each(|(out, &q)| *out = d * f32::from(q as i8)),
        BlockType::Q4_0 => quants.for_each(|(out, &q)| *out = d * (f32::from(q) - 8.0)),
        BlockType::Q5_0 => quants.for_each(|(out, &q)| *out = d * (f32::from(q) - 16.0)),
        _ => quants.for_each(|(out, &q)| *out = d * f32::from(q) + m),
    }
}

/// Encodes 32 finite values. Casts saturate, so what the reference leaves undefined (a scale so small that its reciprocal is
/// infinite) is defined here.
pub(crate) fn encode(block: BlockType, x: &[f32]) -> Fields {
    let mut fields = Fields::ZERO;
    let quants = fields.quants.iter_mut().zip(x);
    match block {
        BlockType::Q8_0 => {
            let d = x.iter().fold(0.0f32, |most, x| most.max(x.abs())) / 127.0;
            let inv = reciprocal(d);
            fields.d = f16::from_f32(d);
            // Halves away from zero, unlike everywhere else.
            quants.for_each(|(q, x)| *q = (x * inv).round() as i8 as u8);
        }
        BlockType::Q4_0 => {
            let d = first_largest(x) / -8.0;
            let inv = reciprocal(d);
            fields.d = f16::from_f32(d);
            quants.for_each(|(q, x)| *q = ((x * inv + 8.5) as u8).min(15));
        }
        BlockType::Q5_0 => {
            let d = first_largest(x) / -16.0;
            let inv = reciprocal(d);
            fields.d = f16::from_f32(d);
            quants.for_each(|(q, x)| *q = ((x * inv + 16.5) as u8).min(31));
        }
        _ => {
            let most: u8 = if block == BlockType::Q4_1 { 15 } else { 31 };
            let (min, max) = x.iter().fold((x[0], x[0]), |(min, max), &x| (min.min(x), max.max(x)));
            let d = (max - min) / f32::from(most);
            let inv = reciprocal(d);
            (fields.d, fields.m) = (f16::from_f32(d), f16::from_f32(min));
            quants.for_each(|(q, x)| *q = (((x - min) * inv + 0.5) as u8).min(most));
        }
    }
    fields
}

fn reciprocal(d: f32) -> f32 {
    if d == 0.0 { 0.0 } else { 1.0 / d }
}

/// The value of the largest magnitude, the first of equals, with its sign.
fn first_largest(x: &[f32]) -> f32 {
    x.iter().fold(x[0], |best, &x| if x.abs() > best.abs() { x } else { best })
}
