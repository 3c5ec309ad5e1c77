use puna_tensor::DType;

use super::{Sums, add_up, round};
use crate::Array;

/// `round(x rsqrt(mean(x^2) + eps)) weight`, and the reciprocal norms. `dtype`: that of `x`, which the norm is rounded to before the weight.
pub fn rms_norm(x: &Array, weight: Option<&Array>, eps: f64, dtype: DType) -> (Array, Array) {
    let n = x.last();
    let (mut values, mut norms) = (Vec::new(), Vec::new());
    for row in 0..x.rows() {
        let row = x.row(row);
        let r = 1.0 / (row.iter().map(|v| v * v).sum::<f64>() / n as f64 + eps).sqrt();
        norms.push(r);
        values.extend((0..n).map(|i| match weight {
            Some(weight) => round(dtype, row[i] * r) * weight.values[i],
            None => row[i] * r,
        }));
    }
    (Array::new(&x.shape, values), Array::new(&x.shape[..x.shape.len() - 1], norms))
}

/// `dx = r (g - x r^2 mean(g x))` with `g = dy weight`, and `dweight[i] = sum over rows of dy x r`.
pub fn rms_norm_backward(dy: &Array, x: &Array, r: &Array, weight: Option<&Array>) -> (Sums, Option<Sums>) {
    let n = x.last();
    let g = |row: usize, i: usize| dy.row(row)[i] * weight.map_or(1.0, |w| w.values[i]);
    let along: Vec<_> = (0..x.rows()).map(|row| add_up((0..n).map(|i| g(row, i) * x.row(row)[i] / n as f64))).collect();
    let mut at = 0;
    let dx = Sums::from_fn(&x.shape, |_| {
        let (row, i) = (at / n, at % n);
        at += 1;
        let (r, x, (mean, size)) = (r.values[row], x.row(row)[i], along[row]);
        (r * (g(row, i) - x * r * r * mean), r * (g(row, i).abs() + x.abs() * r * r * size))
    });
    let dweight = weight.map(|weight| {
        Sums::from_fn(&weight.shape, |i| add_up((0..x.rows()).map(|row| dy.row(row)[i[0]] * x.row(row)[i[0]] * r.values[row])))
    });
    (dx, dweight)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_norm_of_known_values() {
        let (y, r) = rms_norm(&Array::new(&[2], vec![3.0, 4.0]), Some(&Array::new(&[2], vec![1.0, 2.0])), 0.0, DType::F64);
        assert!((r.values[0] - (2.0f64 / 25.0).sqrt()).abs() < 1e-16);
        assert!((y.values[1] - 8.0 * (2.0f64 / 25.0).sqrt()).abs() < 1e-15);
    }

    #[test]
    fn the_derivative_is_the_slope() {
        let x = Array::new(&[1, 3], vec![0.5, -1.5, 2.0]);
        let weight = Array::new(&[3], vec![1.0, 0.3, -2.0]);
        let dy = Array::new(&[1, 3], vec![0.7, 1.1, -0.4]);
        let loss = |x: &Array, w: &Array| -> f64 {
            rms_norm(x, Some(w), 1e-3, DType::F64).0.values.iter().zip(&dy.values).map(|(y, d)| y * d).sum()
        };
        let (dx, dweight) = rms_norm_backward(&dy, &x, &rms_norm(&x, None, 1e-3, DType::F64).1, Some(&weight));
        for i in 0..3 {
            let moved = |a: &Array, h: f64| Array {
                values: (0..3).map(|j| a.values[j] + if i == j { h } else { 0.0 }).collect(),
                ..a.clone()
            };
            let h = 1e-6;
            let slope = (loss(&moved(&x, h), &weight) - loss(&moved(&x, -h), &weight)) / (2.0 * h);
            assert!((slope - dx.value.values[i]).abs() < 1e-8, "{slope} {}", dx.value.values[i]);
            let slope = (loss(&x, &moved(&weight, h)) - loss(&x, &moved(&weight, -h))) / (2.0 * h);
            assert!((slope - dweight.as_ref().unwrap().value.values[i]).abs() < 1e-8);
        }
    }
}
