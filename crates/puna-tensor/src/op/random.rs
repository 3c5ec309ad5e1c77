use super::{Args, Inferred, Op};
use crate::{DType, Result, Tensor};

/// Random numbers as a function of where they stand: the same on every device, for any order of evaluation.
///
/// `y[row, i]` comes from word `i % 4` of Philox4x32-10 with key `seeds[row]` and counter `(i / 4, positions[row], 0, 0)`. A word `w`
/// becomes `u = ((w >> 9) + 0.5) * 2^-23`, in `(0, 1)` and exact in f32 (of one bit more the half would be rounded away, and `u` be 1), and
/// that, by the distribution, the value, in f32.
///
/// `seeds: [rows, 2]` u32, `positions: [rows]` u32; result `[rows, columns]` f32.
///
/// Salmon and others 2011, "Parallel random numbers: as easy as 1, 2, 3".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Random {
    /// What the numbers are.
    pub distribution: Distribution,
    /// How many of each row.
    pub columns: usize,
}

/// A distribution of random numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Distribution {
    /// `u`: uniform in `(0, 1)`.
    Uniform,
    /// Standard normal, by Box and Muller: words `2 j` and `2 j + 1` give `sqrt(-2 ln u0) * cos(2 pi u1)` and `.. * sin(2 pi u1)`.
    Normal,
    /// `-ln(-ln u)`: the largest of `logit + Gumbel` is a draw from the softmax.
    Gumbel,
}

impl Random {
    pub(super) fn infer(&self, args: &Args) -> Result<Inferred> {
        let [seeds, positions] = args.named(["seeds", "positions"])?;
        args.dtype("seeds", seeds, DType::U32)?;
        args.dtype("positions", positions, DType::U32)?;
        let [rows] = args.axes("positions", positions, "[rows]")?;
        args.shape("seeds", seeds, [rows, 2], &format!("positions {}", positions.shape()))?;
        Ok(Inferred::one([rows, self.columns].into(), DType::F32))
    }

    /// Draws the numbers: see [`Random`].
    pub fn draw(&self, seeds: &Tensor, positions: &Tensor) -> Result<Tensor> {
        Op::Random(*self).apply(&[seeds, positions])?.one()
    }
}
