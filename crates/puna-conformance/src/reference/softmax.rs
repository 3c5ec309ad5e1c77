use crate::Array;

/// `max + ln(sum exp(x - max))`; of nothing but `-inf`, `-inf`.
pub fn log_sum_exp(row: &[f64]) -> f64 {
    let max = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if row.iter().any(|v| v.is_nan()) {
        return f64::NAN;
    }
    if max == f64::NEG_INFINITY {
        return max;
    }
    max + row.iter().map(|v| (v - max).exp()).sum::<f64>().ln()
}

fn along_rows(x: &Array, f: impl Fn(&[f64]) -> Vec<f64>) -> Array {
    Array::new(&x.shape, (0..x.rows()).flat_map(|row| f(x.row(row))).collect())
}

/// The softmax along the last axis; of nothing but `-inf` zeros.
pub fn softmax(x: &Array) -> Array {
    along_rows(x, |row| {
        let max = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        if row.iter().all(|&v| v == f64::NEG_INFINITY) {
            return vec![0.0; row.len()];
        }
        let max = if row.iter().any(|v| v.is_nan()) { f64::NAN } else { max };
        let sum: f64 = row.iter().map(|v| (v - max).exp()).sum();
        row.iter().map(|v| (v - max).exp() / sum).collect()
    })
}

/// Its logarithm.
pub fn log_softmax(x: &Array) -> Array {
    along_rows(x, |row| {
        let max = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let max = if row.iter().any(|v| v.is_nan()) { f64::NAN } else { max };
        let log_sum = row.iter().map(|v| (v - max).exp()).sum::<f64>().ln();
        row.iter().map(|v| v - max - log_sum).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_softmax_of_known_values() {
        let x = Array::new(&[1, 2], vec![1000.0, 1000.0 + 3f64.ln()]);
        let y = softmax(&x);
        assert!((y.values[0] - 0.25).abs() < 1e-12 && (y.values[1] - 0.75).abs() < 1e-12);
        assert!((log_softmax(&x).values[0] - 0.25f64.ln()).abs() < 1e-12);
        assert_eq!(softmax(&Array::new(&[2], vec![f64::NEG_INFINITY; 2])).values, [0.0; 2]);
    }
}
