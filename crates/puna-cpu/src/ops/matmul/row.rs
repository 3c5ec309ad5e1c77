//! Functions of rows in the types that sums are formed in. Sums have 16 lanes and one order of joining them, whatever the machine.

/// What kernels written once for f32 and f64 do to rows.
pub(crate) trait Row: Copy {
    /// `sum x^2`.
    fn sum_of_squares(x: &[Self]) -> Self;

    /// `sum a * b`.
    fn dot(a: &[Self], b: &[Self]) -> Self;

    /// `exp`.
    fn exp(self) -> Self;

    /// The largest value; `-inf` of none, NaN where there is one.
    fn largest(x: &[Self]) -> Self;

    /// `x *= by`.
    fn scale(x: &mut [Self], by: Self);

    /// `x = exp(x - shift)`; the sum.
    fn exp_minus(x: &mut [Self], shift: Self) -> Self;

    /// `y = silu(gate) * up`.
    fn swiglu(gate: &[Self], up: &[Self], y: &mut [Self]);

    /// `y = 1 / (1 + exp(-x))`.
    fn sigmoid(x: &[Self], y: &mut [Self]);

    /// `out[r * out_stride + j] = q[r] . keys[j]`, for the rows `q [rows, dim]` and `n` keys, the `j`-th at `keys[j * stride ..]`.
    fn scores(q: &[Self], dim: usize, keys: &[Self], stride: usize, n: usize, out: &mut [Self], out_stride: usize);

    /// `sum += sum_j p[j] * values[j]`, one chain in order of `j`, the `j`-th row at `values[j * stride ..]`.
    fn accumulate(p: &[Self], values: &[Self], stride: usize, sum: &mut [Self]);
}

const LANES: usize = 16;

macro_rules! plain {
    ($type:ident) => {
        impl Row for $type {
            fn sum_of_squares(x: &[Self]) -> Self {
                Self::dot(x, x)
            }

            fn dot(a: &[Self], b: &[Self]) -> Self {
                let mut lanes = [0.0; LANES];
                let (a, b) = (a.chunks(LANES), b.chunks(LANES));
                a.zip(b).for_each(|(a, b)| lanes.iter_mut().zip(a.iter().zip(b)).for_each(|(lane, (a, b))| *lane += a * b));
                join(lanes)
            }

            fn exp(self) -> Self {
                self.exp()
            }

            fn largest(x: &[Self]) -> Self {
                x.iter().fold(Self::NEG_INFINITY, |m, &x| if x > m || x.is_nan() { x } else { m })
            }

            fn scale(x: &mut [Self], by: Self) {
                x.iter_mut().for_each(|x| *x *= by);
            }

            fn exp_minus(x: &mut [Self], shift: Self) -> Self {
                let mut lanes = [0.0; LANES];
                for x in x.chunks_mut(LANES) {
                    for (lane, x) in lanes.iter_mut().zip(x) {
                        *x = (*x - shift).exp();
                        *lane += *x;
                    }
                }
                join(lanes)
            }

            fn swiglu(gate: &[Self], up: &[Self], y: &mut [Self]) {
                y.iter_mut().zip(gate.iter().zip(up)).for_each(|(y, (g, u))| *y = g / (1.0 + (-g).exp()) * u);
            }

            fn sigmoid(x: &[Self], y: &mut [Self]) {
                y.iter_mut().zip(x).for_each(|(y, x)| *y = 1.0 / (1.0 + (-x).exp()));
            }

            fn scores(q: &[Self], dim: usize, keys: &[Self], stride: usize, n: usize, out: &mut [Self], out_stride: usize) {
                for (r, out) in out.chunks_mut(out_stride).take(rows(q, dim)).enumerate() {
                    for (j, out) in out[..n].iter_mut().enumerate() {
                        *out = Self::dot(&q[r * dim..][..dim], &keys[j * stride..][..dim]);
                    }
                }
            }

            fn accumulate(p: &[Self], values: &[Self], stride: usize, sum: &mut [Self]) {
                for (j, p) in p.iter().enumerate() {
                    sum.iter_mut().zip(&values[j * stride..]).for_each(|(sum, v)| *sum += p * v);
                }
            }
        }
    };
}
plain!(f32);
plain!(f64);

fn rows<T>(q: &[T], dim: usize) -> usize {
    q.len().checked_div(dim).unwrap_or(usize::MAX)
}

/// Pairs of halves.
fn join<T: Copy + std::ops::Add<Output = T>>(lanes: [T; LANES]) -> T {
    let eight: [T; 8] = std::array::from_fn(|i| lanes[i] + lanes[i + 8]);
    let four: [T; 4] = std::array::from_fn(|i| eight[i] + eight[i + 4]);
    (four[0] + four[2]) + (four[1] + four[3])
}
