use super::{Sums, log_sum_exp};
use crate::Array;

/// The cross entropy of rows of logits, summed over the rows whose label is one of the vocabulary; how many those are; each row's log-sum-exp.
pub fn cross_entropy(logits: &Array, labels: &[u32]) -> (Sums, u32, Array) {
    let (mut sum, mut size, mut count, mut lse) = (0.0, 0.0, 0, Vec::new());
    for (row, &label) in labels.iter().enumerate() {
        let total = log_sum_exp(logits.row(row));
        lse.push(total);
        if let Some(chosen) = logits.row(row).get(label as usize) {
            sum += total - chosen;
            size += total.abs() + chosen.abs();
            count += 1;
        }
    }
    let lse = Array::new(&logits.shape[..logits.shape.len() - 1], lse);
    (Sums::from_fn(&[], |_| (sum, size)), count, lse)
}

/// `dsum (softmax(logits) - [label])`, zeros in rows that do not count.
pub fn cross_entropy_backward(dsum: f64, logits: &Array, labels: &[u32], lse: &Array) -> Sums {
    let n = logits.last();
    let mut at = 0;
    Sums::from_fn(&logits.shape, |_| {
        let (row, i) = (at / n, at % n);
        at += 1;
        let label = labels[row] as usize;
        if label >= n {
            return (0.0, 0.0);
        }
        let (x, total) = (logits.row(row)[i], lse.values[row]);
        let p = (x - total).exp();
        let chosen = f64::from(u8::from(label == i));
        (dsum * (p - chosen), dsum.abs() * (p * (1.0 + x.abs() + total.abs()) + chosen))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_that_do_not_count() {
        let logits = Array::new(&[3, 2], vec![0.0, 0.0, 1.0, 0.0, 5.0, 5.0]);
        let (sum, count, lse) = cross_entropy(&logits, &[1, u32::MAX, 2]);
        assert_eq!(count, 1);
        assert!((sum.value.values[0] - 2f64.ln()).abs() < 1e-15);
        let d = cross_entropy_backward(2.0, &logits, &[1, u32::MAX, 2], &lse).value.values;
        assert!((d[0] - 1.0).abs() < 1e-15 && (d[1] + 1.0).abs() < 1e-15);
        assert_eq!(d[2..], [0.0; 4]);
    }
}
