use super::random::{uniform, word};
use super::{Sums, add_up, broadcast_shape};
use crate::Array;

/// The product over the last two axes, leading ones broadcast.
pub fn matmul(lhs: &Array, rhs: &Array) -> Sums {
    let (batch_l, [m, k]) = lhs.shape.split_last_chunk().expect("two axes");
    let (batch_r, [_, n]) = rhs.shape.split_last_chunk().expect("two axes");
    let batch = broadcast_shape(batch_l, batch_r);
    let part = |shape: &[usize], index: &[usize]| -> Vec<usize> {
        let own = &index[index.len() - shape.len()..];
        own.iter().zip(shape).map(|(&i, &length)| if length == 1 { 0 } else { i }).collect()
    };
    Sums::from_fn(&[&batch[..], &[*m, *n]].concat(), |index| {
        let (batch, [row, column]) = index.split_last_chunk().expect("two axes");
        let (l, r) = (part(batch_l, batch), part(batch_r, batch));
        add_up((0..*k).map(|i| lhs.at(&[&l[..], &[*row, i]].concat()) * rhs.at(&[&r[..], &[i, *column]].concat())))
    })
}

/// A low-rank pair.
#[derive(Debug, Clone)]
pub struct Adapter {
    /// `[R, K]`.
    pub a: Array,
    /// `[N, R]`.
    pub b: Array,
    /// What it is multiplied by.
    pub scale: f64,
    /// The probability that an element of its input is dropped, and the seed of which are.
    pub dropout: Option<(f64, [u32; 2])>,
}

impl Adapter {
    /// Element `k` of row `r` of its input, `x` before dropout.
    fn read(&self, x: f64, r: usize, k: usize) -> f64 {
        let Some((p, seed)) = self.dropout else { return x };
        if uniform(word(seed, r as u32, k)) >= f64::from(p as f32) { x / (1.0 - p) } else { 0.0 }
    }
}

/// What a linear layer holds, its blocks decoded.
#[derive(Debug, Clone)]
pub struct Layer {
    /// `[N, K]`.
    pub weight: Array,
    /// `[N]`.
    pub bias: Option<Array>,
    /// The low-rank pair.
    pub adapter: Option<Adapter>,
    /// `[N]`.
    pub factor: Option<Array>,
}

/// `y[.., n] = factor[n] (sum_k read[.., k] weight[n, k] + scale sum_r b[n, r] (sum_k a[r, k] drop(x)[.., k])) + bias[n]`, `read` being `x` or
/// its 8-bit blocks.
pub fn linear(x: &Array, read: &Array, layer: &Layer) -> Sums {
    let [n, k] = layer.weight.shape[..] else { panic!("a weight has two axes") };
    let mut shape = x.shape.clone();
    *shape.last_mut().expect("an axis") = n;
    let mut pairs = Vec::new();
    for row in 0..x.rows() {
        let (x, read) = (x.row(row), read.row(row));
        for i in 0..n {
            let (mut sum, mut size) = add_up((0..k).map(|j| read[j] * layer.weight.values[i * k + j]));
            if let Some(adapter @ Adapter { a, b, scale, .. }) = &layer.adapter {
                for r in 0..a.shape[0] {
                    let (inner, inner_size) = add_up((0..k).map(|j| a.values[r * k + j] * adapter.read(x[j], row, j)));
                    let factor = scale * b.values[i * a.shape[0] + r];
                    sum += factor * inner;
                    size += factor.abs() * inner_size;
                }
            }
            if let Some(factor) = &layer.factor {
                sum *= factor.values[i];
                size *= factor.values[i].abs();
            }
            if let Some(bias) = &layer.bias {
                sum += bias.values[i];
                size += bias.values[i].abs();
            }
            pairs.push((sum, size));
        }
    }
    let mut pairs = pairs.into_iter();
    Sums::from_fn(&shape, |_| pairs.next().expect("one an element"))
}

/// `dx[.., k] = sum_n dy[.., n] weight[n, k]`.
pub fn linear_input_grad(dy: &Array, weight: &Array) -> Sums {
    let [n, k] = weight.shape[..] else { panic!("a weight has two axes") };
    let mut shape = dy.shape.clone();
    *shape.last_mut().expect("an axis") = k;
    let mut at = 0;
    Sums::from_fn(&shape, |_| {
        let (row, column) = (at / k, at % k);
        at += 1;
        add_up((0..n).map(|i| dy.row(row)[i] * weight.values[i * k + column]))
    })
}

/// `d * q` with `d = max|x| / 127` and `q = round(x * (1 / d))`, ties to even, over blocks of 32 along the last axis, every step in f32. A block
/// whose `d` is no normal number is zeros; one that holds NaN or an infinity is NaN.
pub fn int8_blocks(x: &Array) -> Array {
    let mut values = Vec::new();
    for row in 0..x.rows() {
        for block in x.row(row).chunks(32) {
            let block: Vec<f32> = block.iter().map(|&v| v as f32).collect();
            if block.iter().any(|v| !v.is_finite()) {
                values.extend(block.iter().map(|_| f64::NAN));
                continue;
            }
            let d = block.iter().fold(0.0f32, |m, v| m.max(v.abs())) / 127.0;
            if d < f32::MIN_POSITIVE {
                values.extend(block.iter().map(|_| 0.0));
                continue;
            }
            let inverse = 1.0 / d;
            values.extend(block.iter().map(|v| f64::from(d * (v * inverse).round_ties_even())));
        }
    }
    Array::new(&x.shape, values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_of_known_values() {
        let a = Array::new(&[2, 3], vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        let b = Array::new(&[3, 1], vec![1.0, 0.0, -1.0]);
        assert_eq!(matmul(&a, &b).value, Array::new(&[2, 1], vec![-2.0, -2.0]));
        let batched = matmul(&a.reshape(&[1, 2, 3]), &Array::new(&[2, 3, 1], vec![1.0, 0.0, 0.0, 0.0, 0.0, 1.0]));
        assert_eq!(batched.value, Array::new(&[2, 2, 1], vec![1.0, 4.0, 3.0, 6.0]));
        let adapter =
            Adapter { a: Array::new(&[1, 3], vec![1.0, 1.0, 1.0]), b: Array::new(&[1, 1], vec![2.0]), scale: 0.5, dropout: None };
        let mut layer = Layer {
            weight: Array::new(&[1, 3], vec![1.0, 0.0, 0.0]),
            bias: Some(Array::new(&[1], vec![10.0])),
            adapter: Some(adapter),
            factor: None,
        };
        assert_eq!(linear(&a, &a, &layer).value, Array::new(&[2, 1], vec![1.0 + 10.0 + 6.0, 4.0 + 10.0 + 15.0]));
        layer.factor = Some(Array::new(&[1], vec![3.0]));
        assert_eq!(linear(&a, &a, &layer).value, Array::new(&[2, 1], vec![3.0 * 7.0 + 10.0, 3.0 * 19.0 + 10.0]));
        assert_eq!(linear_input_grad(&Array::new(&[1], vec![2.0]), &layer.weight).value, Array::new(&[3], vec![2.0, 0.0, 0.0]));
    }

    #[test]
    fn int8_blocks_of_known_values() {
        let mut x = vec![0.0; 33];
        (x[0], x[1], x[2], x[32]) = (127.0, 3.4, -3.6, 0.5);
        let y = int8_blocks(&Array::new(&[33], x));
        assert_eq!(y.values[..3], [127.0, 3.0, -4.0]);
        assert!((y.values[32] - 0.5).abs() < 1e-7);
    }
}
