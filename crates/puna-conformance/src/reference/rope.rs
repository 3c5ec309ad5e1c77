use puna_tensor::op::RopePairs;

use super::scatter_rows;
use crate::Array;

/// Each pair of a head turned by the angle of its position; `cos` and `sin` of a position out of range are zero.
pub fn rope(x: &Array, cos: &Array, sin: &Array, positions: &[u32], pairs: RopePairs, inverse: bool) -> Array {
    let half = x.shape[2] / 2;
    let entry = |table: &Array, token: usize, i: usize| {
        let row = positions[token] as usize;
        if row < table.shape[0] { table.at(&[row, i]) } else { 0.0 }
    };
    Array::from_fn(&x.shape, |index| {
        let &[token, head, d] = index else { panic!("three axes") };
        let (i, first, other) = match pairs {
            RopePairs::Halves => (d % half, d < half, if d < half { d + half } else { d - half }),
            RopePairs::Interleaved => (d / 2, d % 2 == 0, d ^ 1),
        };
        let sign = if first == inverse { 1.0 } else { -1.0 };
        x.at(index) * entry(cos, token, i) + sign * x.at(&[token, head, other]) * entry(sin, token, i)
    })
}

/// Pages `[pages, page_size, ..]` with rows written at slots.
pub fn rope_and_cache(pages: &Array, slots: &[u32], rows: &Array) -> Array {
    let flat = [&[pages.shape[0] * pages.shape[1]], &pages.shape[2..]].concat();
    scatter_rows(&pages.reshape(&flat), slots, rows).reshape(&pages.shape)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quarter_turn_exchanges_a_pair() {
        let x = Array::new(&[1, 1, 4], vec![1.0, 2.0, 3.0, 4.0]);
        let (cos, sin) = (Array::new(&[1, 2], vec![0.0, 1.0]), Array::new(&[1, 2], vec![1.0, 0.0]));
        let turn = |pairs, inverse| rope(&x, &cos, &sin, &[0], pairs, inverse).values;
        assert_eq!(turn(RopePairs::Interleaved, false), [-2.0, 1.0, 3.0, 4.0]);
        assert_eq!(turn(RopePairs::Halves, false), [-3.0, 2.0, 1.0, 4.0]);
        assert_eq!(turn(RopePairs::Halves, true), [3.0, 2.0, -1.0, 4.0]);
        assert_eq!(rope(&x, &cos, &sin, &[1], RopePairs::Halves, false).values, [0.0; 4]);
    }
}
