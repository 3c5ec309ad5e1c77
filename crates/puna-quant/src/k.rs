//! The K formats: 256 values in sub-blocks of 16 or 32 whose scales (and minima) are integers times one f16 scale.

mod search;

use half::f16;

use crate::{BlockType, Fields};
use search::{Fit, LANES, affine_fit, round_between, signed_fit};

/// What tells the K formats apart.
#[derive(Clone, Copy)]
struct Form {
    /// Values in a sub-block.
    sub: usize,
    /// Quants as numbers, lowest and highest; stored less the lowest.
    quants: (i32, i32),
    /// Scales as numbers, lowest and highest; stored as `scale + scale_offset` in one byte.
    scales: (i32, i32),
    scale_offset: i32,
    /// The highest minimum; 0 where there are none.
    mins: i32,
}

fn form(block: BlockType) -> Form {
    match block {
        BlockType::Q2K => Form { sub: 16, quants: (0, 3), scales: (0, 15), scale_offset: 0, mins: 15 },
        BlockType::Q3K => Form { sub: 16, quants: (-4, 3), scales: (-32, 31), scale_offset: 32, mins: 0 },
        BlockType::Q4K => Form { sub: 32, quants: (0, 15), scales: (0, 63), scale_offset: 0, mins: 63 },
        BlockType::Q5K => Form { sub: 32, quants: (0, 31), scales: (0, 63), scale_offset: 0, mins: 63 },
        BlockType::Q6K => Form { sub: 16, quants: (-32, 31), scales: (-128, 127), scale_offset: 0, mins: 0 },
        _ => unreachable!("{block} is no K format"),
    }
}

pub(crate) fn decode(block: BlockType, fields: &Fields, out: &mut [f32]) {
    let form = form(block);
    let (d, m) = (fields.d.to_f32(), fields.m.to_f32());
    for (s, (out, quants)) in out.chunks_exact_mut(form.sub).zip(fields.quants.chunks_exact(form.sub)).enumerate() {
        let scale = match block {
            BlockType::Q6K => i32::from(fields.scales[s] as i8),
            _ => i32::from(fields.scales[s]) - form.scale_offset,
        };
        let scale = d * scale as f32;
        let offset = form.quants.0 as f32;
        if form.mins == 0 {
            out.iter_mut().zip(quants).for_each(|(out, &q)| *out = scale * (f32::from(q) + offset));
        } else {
            let min = m * f32::from(fields.mins[s]);
            out.iter_mut().zip(quants).for_each(|(out, &q)| *out = scale * f32::from(q) - min);
        }
    }
}

/// A block under construction: `x` is about `d * scales[sub] * quants[i] - m * mins[sub]`.
#[derive(Clone)]
struct Draft {
    d: f16,
    m: f16,
    scales: [i32; 16],
    mins: [i32; 16],
    quants: [i32; 256],
    /// The sum of squared errors.
    error: f32,
}

/// Encodes 256 finite values, so that the squared error is small.
///
/// 1. Each sub-block finds its real scale and minimum: for a ladder of trial scales the values are rounded, and the best scale and
///    minimum for these quants follow by least squares.
/// 2. `d` and `m` are chosen so that the largest scale and minimum become the largest integers.
/// 3. Each sub-block takes the integers next to its real scale and minimum that leave the least error, values rounded anew.
/// 4. With all integers fixed, `d` and `m` follow by least squares; step 3 once more. The best draft wins.
pub(crate) fn encode(block: BlockType, x: &[f32]) -> Fields {
    let form = form(block);
    let fits: Vec<Fit> = x
        .chunks_exact(form.sub)
        .map(|x| if form.mins > 0 { affine_fit(x, form.quants.1) } else { signed_fit(x, form.quants) })
        .collect();
    let (d, m) = first_scales(form, &fits);
    let mut best = draft(form, x, &fits, d, m);
    for _ in 0..2 {
        let (d, m) = refit(form, x, &best);
        let next = draft(form, x, &fits, d, m);
        if next.error >= best.error {
            break;
        }
        best = next;
    }
    let mut fields = Fields { d: best.d, m: best.m, ..Fields::ZERO };
    for s in 0..256 / form.sub {
        fields.scales[s] = (best.scales[s] + form.scale_offset) as u8;
        fields.mins[s] = best.mins[s] as u8;
    }
    for (stored, q) in fields.quants.iter_mut().zip(best.quants) {
        *stored = (q - form.quants.0) as u8;
    }
    fields
}

fn first_scales(form: Form, fits: &[Fit]) -> (f16, f16) {
    let largest = fits.iter().fold(0.0f32, |most, fit| if fit.scale.abs() > most.abs() { fit.scale } else { most });
    // A signed scale has one more step on its negative side: the largest goes there.
    let end = if form.scales.0 < 0 { form.scales.0 } else { form.scales.1 };
    let d = f16::from_f32(largest / end as f32);
    let min = fits.iter().fold(0.0f32, |most, fit| most.max(fit.min));
    let m = if form.mins > 0 { f16::from_f32(min / form.mins as f32) } else { f16::ZERO };
    (d, m)
}

fn draft(form: Form, x: &[f32], fits: &[Fit], d: f16, m: f16) -> Draft {
    let mut draft = Draft { d, m, scales: [0; 16], mins: [0; 16], quants: [0; 256], error: 0.0 };
    let (d, m) = (d.to_f32(), m.to_f32());
    for (s, ((x, quants), fit)) in x.chunks_exact(form.sub).zip(draft.quants.chunks_exact_mut(form.sub)).zip(fits).enumerate() {
        let mut best = f32::INFINITY;
        let scale_center = nearest(fit.scale, d).clamp(form.scales.0, form.scales.1);
        // With few steps a scale, the next but one may still be the best.
        let reach = if form.scales.1 <= 15 { 2 } else { 1 };
        for scale in (scale_center - reach).max(form.scales.0)..=(scale_center + reach).min(form.scales.1) {
            let real = d * scale as f32;
            // The minimum that fits best moves with the scale: the values' middle stays where it is.
            let shifted = fit.min + (real - fit.scale) * fit.mean_quant;
            let min_center = if form.mins > 0 { nearest(shifted, m).clamp(0, form.mins) } else { 0 };
            for min in (min_center - 1).max(0)..=(min_center + 1).min(form.mins) {
                let error = error(x, real, m * min as f32, form.quants);
                if error < best {
                    best = error;
                    (draft.scales[s], draft.mins[s]) = (scale, min);
                }
            }
        }
        round_all(x, d * draft.scales[s] as f32, m * draft.mins[s] as f32, form.quants, quants);
        draft.error += best;
    }
    draft
}

fn nearest(x: f32, unit: f32) -> i32 {
    if unit == 0.0 { 0 } else { (x / unit).round_ties_even() as i32 }
}

/// The squared error that is left with a scale and a minimum.
fn error(x: &[f32], scale: f32, min: f32, (low, high): (i32, i32)) -> f32 {
    let inv = if scale == 0.0 { 0.0 } else { 1.0 / scale };
    let (low, high) = (low as f32, high as f32);
    let mut errors = [0.0; LANES];
    for x in x.as_chunks::<LANES>().0 {
        for lane in 0..LANES {
            let miss = x[lane] - (scale * round_between((x[lane] + min) * inv, low, high) - min);
            errors[lane] += miss * miss;
        }
    }
    errors.iter().sum()
}

/// The quants to which that error belongs.
fn round_all(x: &[f32], scale: f32, min: f32, (low, high): (i32, i32), quants: &mut [i32]) {
    let inv = if scale == 0.0 { 0.0 } else { 1.0 / scale };
    for (x, quant) in x.iter().zip(quants) {
        *quant = round_between((x + min) * inv, low as f32, high as f32) as i32;
    }
}

/// The `d` and `m` of least squared error for the integers of a draft.
fn refit(form: Form, x: &[f32], draft: &Draft) -> (f16, f16) {
    // Minimises sum (x - d a + m b)^2, in f64 since the determinant cancels.
    let (mut aa, mut ab, mut bb, mut ax, mut bx) = (0.0, 0.0, 0.0, 0.0, 0.0);
    for (i, &x) in x.iter().enumerate() {
        let x = f64::from(x);
        let a = f64::from(draft.scales[i / form.sub] * draft.quants[i]);
        let b = f64::from(draft.mins[i / form.sub]);
        aa += a * a;
        ab += a * b;
        bb += b * b;
        ax += a * x;
        bx += b * x;
    }
    if form.mins == 0 || bb == 0.0 {
        return if aa > 0.0 { (f16::from_f64(ax / aa), draft.m) } else { (draft.d, draft.m) };
    }
    let determinant = aa * bb - ab * ab;
    if determinant <= 1e-9 * aa * bb {
        return (draft.d, draft.m);
    }
    let d = (ax * bb - bx * ab) / determinant;
    let m = (ax * ab - bx * aa) / determinant;
    if d <= 0.0 || m < 0.0 { (draft.d, draft.m) } else { (f16::from_f64(d), f16::from_f64(m)) }
}
