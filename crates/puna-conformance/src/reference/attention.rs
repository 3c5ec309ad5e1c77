use puna_tensor::op::Mask;

use super::{Sums, add_up, log_sum_exp};
use crate::Array;

/// The number of the sequence that an entry of a packed axis belongs to, and its place there.
fn sequence_of(at: usize, starts: &[u32]) -> Option<(usize, usize)> {
    (0..starts.len() - 1)
        .find(|&s| (starts[s] as usize..starts[s + 1] as usize).contains(&at))
        .map(|s| (s, at - starts[s] as usize))
}

/// The keys that a token sees, as entries of the packed axis.
fn seen(token: usize, q_starts: &[u32], k_starts: &[u32], mask: Mask) -> Vec<usize> {
    let Some((s, i)) = sequence_of(token, q_starts) else { return Vec::new() };
    let (n, first, m) = (q_starts[s + 1] - q_starts[s], k_starts[s] as usize, (k_starts[s + 1] - k_starts[s]) as usize);
    let visible = |j: usize| mask == Mask::Full || j as i64 - i as i64 <= m as i64 - i64::from(n);
    (0..m).filter(|&j| visible(j)).map(|j| first + j).collect()
}

/// A score and the sum of its terms' absolute values.
fn score(q: &Array, k: &Array, token: usize, head: usize, key: usize, scale: f64) -> (f64, f64) {
    let group = q.shape[1] / k.shape[1];
    let (sum, size) = add_up((0..q.shape[2]).map(|d| q.at(&[token, head, d]) * k.at(&[key, head / group, d])));
    (scale * sum, scale.abs() * size)
}

/// Attention of packed sequences: the result and the log-sum-exp of each query's scores.
pub fn attention(q: &Array, k: &Array, v: &Array, q_starts: &[u32], k_starts: &[u32], scale: f64, mask: Mask) -> (Sums, Sums) {
    let (tokens, heads, v_dim) = (q.shape[0], q.shape[1], v.shape[2]);
    let group = heads / k.shape[1];
    let (mut rows, mut lse) = (Vec::new(), Vec::new());
    for token in 0..tokens {
        let keys = seen(token, q_starts, k_starts, mask);
        for head in 0..heads {
            let scores: Vec<_> = keys.iter().map(|&key| score(q, k, token, head, key, scale)).collect();
            let values: Vec<f64> = scores.iter().map(|s| s.0).collect();
            let total = log_sum_exp(&values);
            // An error of a score is a relative error of its probability.
            let counts = |s: &&(f64, f64)| (s.0 - total).exp() > 0.0;
            let size = scores.iter().filter(counts).fold(0.0f64, |m, s| m.max(s.1));
            lse.push((total, if keys.is_empty() { 0.0 } else { total.abs() + size }));
            rows.extend((0..v_dim).map(|d| {
                let terms = keys.iter().zip(&values).map(|(&key, s)| (s - total).exp() * v.at(&[key, head / group, d]));
                let (sum, magnitude) = add_up(terms);
                (sum, magnitude * (1.0 + 2.0 * size))
            }));
        }
    }
    let (mut rows, mut lse) = (rows.into_iter(), lse.into_iter());
    let y = Sums::from_fn(&[tokens, heads, v_dim], |_| rows.next().expect("one an element"));
    (y, Sums::from_fn(&[tokens, heads], |_| lse.next().expect("one an element")))
}

/// A cache's pages and who holds which.
#[derive(Debug, Clone)]
pub struct Pages {
    /// `[pages, page_size, kv_heads, head_dim]`.
    pub k: Array,
    /// As `k`.
    pub v: Array,
    /// `[sequences, n]`.
    pub table: Array<u32>,
    /// How many keys each sequence has.
    pub lengths: Vec<u32>,
}

impl Pages {
    /// The keys or values of all sequences, one behind the other, and where each begins. A page out of range is zeros.
    fn collect(&self, pages: &Array) -> (Array, Vec<u32>) {
        let (page_size, row) = (pages.shape[1], pages.shape[2] * pages.shape[3]);
        let (mut values, mut starts) = (Vec::new(), vec![0u32]);
        for (s, &length) in self.lengths.iter().enumerate() {
            for j in 0..length as usize {
                let page = self.table.at(&[s, j / page_size]) as usize;
                if page < pages.shape[0] {
                    values.extend_from_slice(&pages.values[(page * page_size + j % page_size) * row..][..row]);
                } else {
                    values.extend(std::iter::repeat_n(0.0, row));
                }
            }
            starts.push(starts[s] + length);
        }
        (Array::new(&[starts[self.lengths.len()] as usize, pages.shape[2], pages.shape[3]], values), starts)
    }
}

/// Attention over pages: collected, it is attention.
pub fn paged_attention(q: &Array, pages: &Pages, q_starts: &[u32], scale: f64, mask: Mask) -> Sums {
    let ((k, starts), (v, _)) = (pages.collect(&pages.k), pages.collect(&pages.v));
    attention(q, &k, &v, q_starts, &starts, scale, mask).0
}

/// The gradients of q, k and v.
#[derive(Debug, Clone)]
pub struct AttentionGrads {
    /// As q.
    pub dq: Sums,
    /// As k.
    pub dk: Sums,
    /// As v.
    pub dv: Sums,
}

/// What the derivative reads.
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs)] // The names are the op's inputs.
pub struct AttentionBackwardInputs<'a> {
    pub dy: &'a Array,
    pub q: &'a Array,
    pub k: &'a Array,
    pub v: &'a Array,
    pub y: &'a Array,
    pub lse: &'a Array,
}

/// `p = exp(scale q.k - lse)`: `dv = p^T dy`, `ds = p (dy.v - sum(dy y))`, `dq = scale ds k`, `dk = scale ds^T q`.
pub fn attention_backward(
    inputs: AttentionBackwardInputs<'_>,
    q_starts: &[u32],
    k_starts: &[u32],
    scale: f64,
    mask: Mask,
) -> AttentionGrads {
    let AttentionBackwardInputs { dy, q, k, v, y, lse } = inputs;
    let zeros = |x: &Array| Sums { value: x.map(|_| 0.0), magnitude: x.map(|_| 0.0) };
    let (mut dq, mut dk, mut dv) = (zeros(q), zeros(k), zeros(v));
    let group = q.shape[1] / k.shape[1];
    let add = |to: &mut Sums, at: &[usize], value: f64, size: f64| {
        let place = to.value.place(at);
        to.value.values[place] += value;
        to.magnitude.values[place] += size;
    };
    for token in 0..q.shape[0] {
        for head in 0..q.shape[1] {
            let (delta, delta_size) = add_up((0..v.shape[2]).map(|d| dy.at(&[token, head, d]) * y.at(&[token, head, d])));
            for key in seen(token, q_starts, k_starts, mask) {
                let total = lse.at(&[token, head]);
                let (s, s_size) = score(q, k, token, head, key, scale);
                let (p, p_size) = ((s - total).exp(), 1.0 + 2.0 * (s_size + total.abs()));
                let kv = head / group;
                let (dp, dp_size) = add_up((0..v.shape[2]).map(|d| dy.at(&[token, head, d]) * v.at(&[key, kv, d])));
                let (ds, ds_size) = (scale * p * (dp - delta), scale.abs() * p * p_size * (dp_size + delta_size));
                for d in 0..v.shape[2] {
                    let g = dy.at(&[token, head, d]);
                    add(&mut dv, &[key, kv, d], p * g, p * p_size * g.abs());
                }
                for d in 0..q.shape[2] {
                    let (qd, kd) = (q.at(&[token, head, d]), k.at(&[key, kv, d]));
                    add(&mut dq, &[token, head, d], ds * kd, ds_size * kd.abs());
                    add(&mut dk, &[key, kv, d], ds * qd, ds_size * qd.abs());
                }
            }
        }
    }
    AttentionGrads { dq, dk, dv }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_query_stands_at_the_last_key() {
        let sees = |token| seen(token, &[0, 2, 3], &[0, 3, 3], Mask::Causal);
        assert_eq!((sees(0), sees(1), sees(2), sees(3)), (vec![0, 1], vec![0, 1, 2], vec![], vec![]));
        assert_eq!(seen(0, &[0, 3], &[0, 1], Mask::Causal), Vec::<usize>::new());
        assert_eq!(seen(2, &[0, 3], &[0, 1], Mask::Causal), [0]);
        assert_eq!(seen(2, &[0, 2, 3], &[0, 3, 5], Mask::Full), [3, 4]);
    }

    #[test]
    fn equal_scores_give_the_mean() {
        let q = Array::new(&[1, 2, 1], vec![0.0, 0.0]);
        let k = Array::new(&[2, 1, 1], vec![5.0, -5.0]);
        let v = Array::new(&[2, 1, 1], vec![1.0, 3.0]);
        let (y, lse) = attention(&q, &k, &v, &[0, 1], &[0, 2], 1.0, Mask::Full);
        assert_eq!(y.value.values, [2.0, 2.0]);
        assert!((lse.value.values[0] - 2f64.ln()).abs() < 1e-15);
    }

    #[test]
    fn the_derivative_is_the_slope() {
        let wave = |shape: &[usize], f: f64| {
            let mut i = 0.0;
            Array::from_fn(shape, |_| {
                i += 1.0;
                (i * f).sin()
            })
        };
        let (q, k, v) = (wave(&[3, 2, 3], 1.3), wave(&[4, 1, 3], 0.7), wave(&[4, 1, 2], 2.1));
        let dy = wave(&[3, 2, 2], 0.9);
        let (q_starts, k_starts) = ([0, 1, 3], [0, 2, 4]);
        let run = |q: &Array, k: &Array, v: &Array| attention(q, k, v, &q_starts, &k_starts, 0.6, Mask::Causal);
        let loss = |q: &Array, k: &Array, v: &Array| -> f64 {
            run(q, k, v).0.value.values.iter().zip(&dy.values).map(|(y, d)| y * d).sum()
        };
        let (y, lse) = run(&q, &k, &v);
        let inputs = AttentionBackwardInputs { dy: &dy, q: &q, k: &k, v: &v, y: &y.value, lse: &lse.value };
        let grads = attention_backward(inputs, &q_starts, &k_starts, 0.6, Mask::Causal);
        let moved = |a: &Array, i: usize, h: f64| {
            let mut a = a.clone();
            a.values[i] += h;
            a
        };
        let h = 1e-6;
        for (i, d) in grads.dq.value.values.iter().enumerate() {
            assert!((d - (loss(&moved(&q, i, h), &k, &v) - loss(&moved(&q, i, -h), &k, &v)) / (2.0 * h)).abs() < 1e-8);
        }
        for (i, d) in grads.dk.value.values.iter().enumerate() {
            assert!((d - (loss(&q, &moved(&k, i, h), &v) - loss(&q, &moved(&k, i, -h), &v)) / (2.0 * h)).abs() < 1e-8);
        }
        for (i, d) in grads.dv.value.values.iter().enumerate() {
            assert!((d - (loss(&q, &k, &moved(&v, i, h)) - loss(&q, &k, &moved(&v, i, -h))) / (2.0 * h)).abs() < 1e-8);
        }
    }
}
