use puna_tensor::DType;

use crate::Array;

/// The precision of a float dtype in bits, the leading one included; the exponent of its smallest normal number; its largest.
pub fn format(dtype: DType) -> (i32, i32, f64) {
    match dtype {
        DType::F64 => (53, -1022, f64::MAX),
        DType::F32 => (24, -126, f64::from(f32::MAX)),
        DType::F16 => (11, -14, 65504.0),
        DType::BF16 => (8, -126, 2f64.powi(127) * (2.0 - 2f64.powi(-7))),
        other => panic!("{other} is no float"),
    }
}

/// The largest relative error of rounding to nearest: half a unit in the last place.
pub fn unit(dtype: DType) -> f64 {
    2f64.powi(-format(dtype).0)
}

/// The distance between subnormal numbers.
pub fn smallest(dtype: DType) -> f64 {
    let (precision, exponent, _) = format(dtype);
    // In two steps: 2^-1074 is no normal number.
    2f64.powi(exponent) * 2f64.powi(1 - precision)
}

/// A value rounded to a float dtype, to nearest, ties to even.
pub fn round(dtype: DType, x: f64) -> f64 {
    if dtype == DType::F64 || x == 0.0 || !x.is_finite() {
        return x;
    }
    let (precision, least, largest) = format(dtype);
    // The exponent of x; subnormal f64 lie far below every other dtype's smallest.
    let exponent = ((x.to_bits() >> 52) & 0x7ff) as i32 - 1023;
    let step = 2f64.powi(exponent.max(least) - precision + 1);
    // The quotient is exact, being by a power of two, and below 2^24.
    let rounded = (x / step).round_ties_even() * step;
    if rounded.abs() > largest { f64::INFINITY.copysign(x) } else { rounded }
}

/// All of an array, rounded.
pub fn round_all(dtype: DType, x: &Array) -> Array {
    x.map(|v| round(dtype, v))
}

/// An integer as an integer dtype holds it: modulo 2 to its bits.
pub fn wrap(dtype: DType, x: i128) -> i128 {
    match dtype {
        DType::I64 => i128::from(x as i64),
        DType::U32 => i128::from(x as u32),
        DType::U8 => i128::from(x as u8),
        other => panic!("{other} is no integer"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_knows_ties_subnormals_and_overflow() {
        let f16 = |x| round(DType::F16, x);
        assert_eq!(f16(1.0 + 2f64.powi(-11)), 1.0);
        assert_eq!(f16(1.0 + 3.0 * 2f64.powi(-11)), 1.0 + 2f64.powi(-9));
        assert_eq!(f16(1.0 + 2f64.powi(-11) + 2f64.powi(-45)), 1.0 + 2f64.powi(-10));
        assert_eq!(f16(65519.9), 65504.0);
        assert_eq!(f16(65520.0), f64::INFINITY);
        assert_eq!(f16(2f64.powi(-25)), 0.0);
        assert_eq!(f16(1.5 * 2f64.powi(-25)), 2f64.powi(-24));
        assert_eq!(f16(-2f64.powi(-25)).to_bits(), (-0.0f64).to_bits());
        assert_eq!(smallest(DType::F32), f64::from(f32::from_bits(1)));
        assert_eq!(smallest(DType::F64), f64::from_bits(1));
    }

    #[test]
    fn rounding_to_f32_is_the_processors() {
        let mut bits = 0x9e37_79b9_7f4a_7c15u64;
        for _ in 0..100_000 {
            bits = bits.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let x = f64::from_bits(bits);
            // Most f64 lie outside the range of f32, so the exponent is folded into it.
            let x = if x.is_finite() { x.signum() * (x.abs().log2() % 160.0).exp2() } else { x };
            assert!(round(DType::F32, x) == f64::from(x as f32) || x.is_nan(), "{x:e}");
        }
    }
}
