//! Functions of one number, for f32 by polynomials of our own and for f64 by the standard library.
//!
//! In f32 they are straight lines of additions, products and selections, so that loops over them become vector code, and give the
//! same bits in every lane and on every processor. Coefficients are interpolations at Chebyshev nodes, rounded to f32. The largest
//! errors stated were measured against f64 over the whole range (`vector::tests`).

use std::ops::{Div, Mul, Neg, Sub};

use crate::simd::float::Accumulator;

/// A type that sums are formed in, with the functions that a model needs.
pub(crate) trait Real:
    Accumulator + Sub<Output = Self> + Mul<Output = Self> + Div<Output = Self> + Neg<Output = Self> + PartialOrd
{
    const ONE: Self;
    const NEG_INFINITY: Self;

    fn of(x: f64) -> Self;

    fn is_nan(self) -> bool;

    fn sqrt(self) -> Self;

    fn abs(self) -> Self;

    /// `e^x`. In f32 within 1 ulp; 0 at -inf, inf above 88.73, subnormal results rounded once more.
    fn exp(self) -> Self;

    /// The natural logarithm. In f32 within 1 ulp, of subnormal numbers too; -inf of 0, NaN below.
    fn ln(self) -> Self;

    /// `ln(1 + x)` for `x >= 0`. In f32 within 2 ulp.
    fn ln_1p(self) -> Self;

    /// In f32 within 2 ulp.
    fn tanh(self) -> Self;

    /// The error function. In f32 within 2 ulp.
    fn erf(self) -> Self;
}

impl Real for f32 {
    const ONE: Self = 1.0;
    const NEG_INFINITY: Self = f32::NEG_INFINITY;

    #[inline(always)]
    fn of(x: f64) -> Self {
        x as f32
    }

    #[inline(always)]
    fn is_nan(self) -> bool {
        self.is_nan()
    }

    #[inline(always)]
    fn sqrt(self) -> Self {
        self.sqrt()
    }

    #[inline(always)]
    fn abs(self) -> Self {
        self.abs()
    }

    #[inline(always)]
    fn exp(self) -> Self {
        // x = n ln 2 + r, |r| <= ln 2 / 2; comparisons that let NaN through.
        let x = if self > 89.0 { 89.0 } else { self };
        let x = if x < -104.0 { -104.0 } else { x };
        let shifted = x.mul_add(std::f32::consts::LOG2_E, ROUNDS);
        let n = shifted - ROUNDS;
        // x and n LN_2 are multiples of 2^-24, so this is exact.
        let exact = n.mul_add(-LN_2, x);
        let rest = n * -LN_2_REST;
        let r = exact + rest;
        let p = polynomial(r, [0.5, 0.166_665_78, 0.041_666_556, 0.008_363_173, 0.001_392_617_6]);
        let p = 1.0 + (exact + p.mul_add(r * r, rest));
        // 2^n in two factors, as one may be beyond what a float holds.
        let n = (shifted.to_bits() as i32).wrapping_sub(ROUNDS.to_bits() as i32);
        let half = n >> 1;
        p * power_of_2(half) * power_of_2(n.wrapping_sub(half))
    }

    #[inline(always)]
    fn ln(self) -> Self {
        // x = m 2^e, sqrt(1/2) <= m < sqrt(2). Subnormal numbers are scaled first.
        let small = self < f32::MIN_POSITIVE;
        let x = if small { self * 8_388_608.0 } else { self };
        let bits = x.to_bits().wrapping_sub(SQRT_HALF);
        let e = (bits as i32 >> 23) as f32 - if small { 23.0 } else { 0.0 };
        let f = f32::from_bits((bits & 0x7f_ffff).wrapping_add(SQRT_HALF)) - 1.0;
        let p = polynomial(
            f,
            [
                0.333_333_3,
                -0.249_999_97,
                0.200_007_16,
                -0.166_678_03,
                0.142_490_58,
                -0.124_256_87,
                0.116_854_2,
                -0.114_797_34,
                0.069_716_12,
            ],
        );
        let square = f * f;
        // ln 2 in two parts, the larger with so few bits that e times it is exact.
        let low = e.mul_add(-2.121_944_4e-4, p * (square * f));
        let y = e.mul_add(0.693_359_4, (-0.5f32).mul_add(square, low) + f);
        let y = if self == 0.0 { f32::NEG_INFINITY } else { y };
        let y = if self < 0.0 { f32::NAN } else { y };
        // Infinity and NaN.
        if self < f32::INFINITY { y } else { self }
    }

    #[inline(always)]
    fn ln_1p(self) -> Self {
        // What 1 + x loses is added to first order.
        let sum = 1.0 + self;
        let lost = self - (sum - 1.0);
        let y = Real::ln(sum) + lost / sum;
        if self < f32::INFINITY { y } else { self }
    }

    #[inline(always)]
    fn tanh(self) -> Self {
        let x = self.abs();
        let square = x * x;
        let p = polynomial(square, [-0.333_333_34, 0.133_333_04, -0.053_959_258, 0.021_768_918, -0.008_343_945, 0.002_292_744_8]);
        let near = (p * square).mul_add(x, x);
        let far = 1.0 - 2.0 / (Real::exp(2.0 * x) + 1.0);
        let y = if x < 0.625 { near } else { far };
        y.copysign(self)
    }

    #[inline(always)]
    fn erf(self) -> Self {
        let x = self.abs();
        let square = x * x;
        let p = polynomial(
            square,
            [0.128_379_17, -0.376_126_35, 0.112_837_01, -0.026_859_691, 0.005_201_715, -8.150_05e-4, 8.399_778e-5],
        );
        let near = p.mul_add(x, x);
        // The logarithm of what is missing to 1.
        let clamped = if x > 4.0 { 4.0 } else { x };
        let q = polynomial(
            clamped,
            [
                3.204_415_3e-4,
                -1.130_237_6,
                -0.631_814_54,
                -0.110_094_48,
                0.026_431_018,
                -0.004_763_575_5,
                5.977_435e-4,
                -4.617_791_4e-5,
                1.643_569_7e-6,
            ],
        );
        let far = 1.0 - Real::exp(q);
        let y = if x < 0.92 { near } else { far };
        y.copysign(self)
    }
}

/// Added and taken away again, it rounds to a whole number.
const ROUNDS: f32 = 12_582_912.0;
const LN_2: f32 = std::f32::consts::LN_2;
/// `ln 2 - LN_2`.
const LN_2_REST: f32 = -1.904_654_2e-9;
/// The bits of `sqrt(1/2)`.
const SQRT_HALF: u32 = std::f32::consts::FRAC_1_SQRT_2.to_bits();

/// `2^n` for `-126 <= n <= 127`.
#[inline(always)]
fn power_of_2(n: i32) -> f32 {
    f32::from_bits((n.wrapping_add(127) as u32) << 23)
}

/// `c[0] + c[1] x + ..`, from the last to the first.
#[inline(always)]
fn polynomial<const N: usize>(x: f32, c: [f32; N]) -> f32 {
    let mut sum = c[N - 1];
    for i in (0..N - 1).rev() {
        sum = sum.mul_add(x, c[i]);
    }
    sum
}

impl Real for f64 {
    const ONE: Self = 1.0;
    const NEG_INFINITY: Self = f64::NEG_INFINITY;

    #[inline(always)]
    fn of(x: f64) -> Self {
        x
    }

    #[inline(always)]
    fn is_nan(self) -> bool {
        self.is_nan()
    }

    #[inline(always)]
    fn sqrt(self) -> Self {
        self.sqrt()
    }

    #[inline(always)]
    fn abs(self) -> Self {
        self.abs()
    }

    #[inline(always)]
    fn exp(self) -> Self {
        self.exp()
    }

    #[inline(always)]
    fn ln(self) -> Self {
        self.ln()
    }

    #[inline(always)]
    fn ln_1p(self) -> Self {
        self.ln_1p()
    }

    #[inline(always)]
    fn tanh(self) -> Self {
        self.tanh()
    }

    /// By its series below 3, and by the continued fraction of `1 - erf` above; within about 4e-16.
    fn erf(self) -> Self {
        let x = self.abs();
        let y = if x < 3.0 {
            // erf x = 2 / sqrt(pi) e^(-x^2) (x + 2/3 x^3 + 4/15 x^5 + ..): no signs alternate.
            let (mut term, mut sum, mut n) = (x, x, 1.0);
            while term > sum * 1e-17 {
                term *= 2.0 * x * x / (2.0 * n + 1.0);
                sum += term;
                n += 1.0;
            }
            std::f64::consts::FRAC_2_SQRT_PI * (-x * x).exp() * sum
        } else if x < 6.0 {
            let fraction = (1..60).rev().fold(x, |tail, n| x + f64::from(n) / 2.0 / tail);
            1.0 - (-x * x).exp() / std::f64::consts::PI.sqrt() / fraction
        } else if x.is_nan() {
            x
        } else {
            1.0
        };
        y.copysign(self)
    }
}
