//! The real scale and minimum of one sub-block: a ladder of trial scales, each followed by least squares.

/// `x` is about `scale * q - min`.
#[derive(Clone, Copy)]
pub(super) struct Fit {
    pub(super) scale: f32,
    /// Not negative; 0 where the format has none.
    pub(super) min: f32,
    /// The mean of the quants.
    pub(super) mean_quant: f32,
}

const ZERO: Fit = Fit { scale: 0.0, min: 0.0, mean_quant: 0.0 };

/// How many sums run beside each other, so that the compiler can use vectors; each sub-block is a multiple.
pub(super) const LANES: usize = 8;

/// `x` between `low` and `high`, rounded to an integer, ties to even; NaN gives `low`. Both ends are integers below 2^22.
///
/// 1.5 * 2^23 has no fraction bits: the sum is rounded to an integer, on every processor without a call.
#[inline(always)]
pub(super) fn round_between(x: f32, low: f32, high: f32) -> f32 {
    const MAGIC: f32 = 12_582_912.0;
    let x = if x > low { x } else { low };
    let x = if x < high { x } else { high };
    (x + MAGIC) - MAGIC
}

/// What least squares needs to know of quants beside values.
struct Sums {
    q: f32,
    qq: f32,
    qx: f32,
}

/// Rounds `(x + shift) * inv` to quants and sums them up.
#[inline(always)]
fn sums(x: &[f32], shift: f32, inv: f32, low: f32, high: f32) -> Sums {
    let (mut q1, mut qq, mut qx) = ([0.0; LANES], [0.0; LANES], [0.0; LANES]);
    for x in x.as_chunks::<LANES>().0 {
        for lane in 0..LANES {
            let q = round_between((x[lane] + shift) * inv, low, high);
            q1[lane] += q;
            qq[lane] += q * q;
            qx[lane] += q * x[lane];
        }
    }
    Sums { q: q1.iter().sum(), qq: qq.iter().sum(), qx: qx.iter().sum() }
}

/// Quants from 0 to `high`, scale and minimum not negative.
pub(super) fn affine_fit(x: &[f32], high: i32) -> Fit {
    let n = x.len() as f32;
    let (low, top) = x.iter().fold((0.0f32, f32::MIN), |(low, top), &x| (low.min(x), top.max(x)));
    if top <= low {
        // All values are one, and negative or zero: a minimum alone.
        return Fit { min: -low, ..ZERO };
    }
    let (sum_x, square_x) = x.iter().fold((0.0f32, 0.0f32), |(s, ss), &x| (s + x, ss + x * x));
    let steps = high as f32;
    let mut best = Fit { scale: (top - low) / steps, min: -low, mean_quant: 0.0 };
    let mut least = f32::INFINITY;
    // Few quants need the wider ladder: their best scale often clips the ends.
    let (rungs, rung_size) = if high <= 3 { (-12..=6, 0.08) } else { (-12..=10, 0.1) };
    for rung in rungs {
        let inv = (steps + rung as f32 * rung_size) / (top - low);
        if !inv.is_finite() {
            continue;
        }
        let mut min = -low;
        // The second round rounds again from the minimum that the first found.
        for _ in 0..2 {
            let s = sums(x, min, inv, 0.0, steps);
            let determinant = n * s.qq - s.q * s.q;
            if determinant <= 0.0 {
                break;
            }
            let mut scale = (n * s.qx - sum_x * s.q) / determinant;
            min = (s.q * s.qx - s.qq * sum_x) / determinant;
            if min < 0.0 {
                (scale, min) = (s.qx / s.qq, 0.0);
            }
            let error = square_x + scale * scale * s.qq + n * min * min - 2.0 * (scale * s.qx - min * sum_x + scale * min * s.q);
            if error < least && scale > 0.0 {
                least = error;
                best = Fit { scale, min, mean_quant: s.q / n };
            }
        }
    }
    best
}

/// Quants from `low` to `high` around zero, a scale of either sign, no minimum.
pub(super) fn signed_fit(x: &[f32], (low, high): (i32, i32)) -> Fit {
    let largest = x.iter().fold(0.0f32, |most, &x| if x.abs() > most.abs() { x } else { most });
    if largest == 0.0 {
        return ZERO;
    }
    let (low, high) = (low as f32, high as f32);
    let mut best = Fit { scale: largest / low, ..ZERO };
    let mut most = 0.0;
    // Both signs: the largest value on the longer side, and on the shorter.
    for (end, rungs) in [(low, -12..=12), (high, -8..=8)] {
        for rung in rungs {
            let inv = (end + end.signum() * rung as f32 * 0.1) / largest;
            if !inv.is_finite() {
                continue;
            }
            let s = sums(x, 0.0, inv, low, high);
            // The error is sum x^2 - qx^2 / qq.
            if s.qq > 0.0 && s.qx * s.qx > most * s.qq {
                most = s.qx * s.qx / s.qq;
                best.scale = s.qx / s.qq;
            }
        }
    }
    best
}
