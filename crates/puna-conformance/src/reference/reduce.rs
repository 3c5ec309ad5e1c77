use puna_tensor::DType;
use puna_tensor::op::ReduceKind;

use super::{Sums, add_up, wrap};
use crate::Array;
use crate::array::indices;

/// The shape that is left when axes are reduced.
pub fn reduced_shape(shape: &[usize], axes: &[usize], keep: bool) -> Vec<usize> {
    let kept = shape.iter().enumerate().filter(|(i, _)| keep || !axes.contains(i));
    kept.map(|(i, &length)| if axes.contains(&i) { 1 } else { length }).collect()
}

/// All values that fall on each element of the result, in row-major order.
fn groups<T: Copy>(x: &Array<T>, axes: &[usize]) -> (Vec<usize>, Vec<Vec<T>>) {
    let kept = reduced_shape(&x.shape, axes, true);
    let mut groups = Array::from_fn(&kept, |_| 0usize).map(|_| ()).values.iter().map(|_| Vec::new()).collect::<Vec<_>>();
    let places = Array::<usize>::new(&kept, (0..groups.len()).collect());
    for (index, &value) in indices(&x.shape).zip(&x.values) {
        let to: Vec<usize> = index.iter().enumerate().map(|(i, &at)| if axes.contains(&i) { 0 } else { at }).collect();
        groups[places.at(&to)].push(value);
    }
    (kept, groups)
}

/// Sums, means, largest, smallest values over axes.
pub fn reduce(kind: ReduceKind, x: &Array, axes: &[usize], keep: bool) -> Sums {
    let (_, groups) = groups(x, axes);
    let shape = reduced_shape(&x.shape, axes, keep);
    let mut groups = groups.into_iter();
    Sums::from_fn(&shape, |_| {
        let group = groups.next().expect("one group an element");
        let nan = group.iter().any(|v| v.is_nan());
        let n = group.len() as f64;
        match kind {
            ReduceKind::Sum => add_up(group),
            ReduceKind::Mean => {
                let (sum, size) = add_up(group);
                (sum / n, size / n)
            }
            ReduceKind::Max | ReduceKind::Min if nan => (f64::NAN, f64::NAN),
            ReduceKind::Max => add_up([group.into_iter().fold(f64::NEG_INFINITY, f64::max)]),
            ReduceKind::Min => add_up([group.into_iter().fold(f64::INFINITY, f64::min)]),
        }
    })
}

/// The same of integers; a sum of u8 is u32.
pub fn reduce_integers(kind: ReduceKind, x: &Array<i128>, axes: &[usize], keep: bool, dtype: DType) -> Array<i128> {
    let (least, greatest) = match dtype {
        DType::I64 => (i128::from(i64::MIN), i128::from(i64::MAX)),
        DType::U32 => (0, i128::from(u32::MAX)),
        _ => (0, 255),
    };
    let (_, groups) = groups(x, axes);
    let values = groups.into_iter().map(|group| match kind {
        ReduceKind::Sum => wrap(if dtype == DType::U8 { DType::U32 } else { dtype }, group.into_iter().sum()),
        ReduceKind::Max => group.into_iter().fold(least, i128::max),
        ReduceKind::Min => group.into_iter().fold(greatest, i128::min),
        ReduceKind::Mean => panic!("no mean of integers"),
    });
    Array::new(&reduced_shape(&x.shape, axes, keep), values.collect())
}

/// Whether `a` comes before `b` where the largest is sought first; of unordered ones NaN.
fn larger<T: PartialOrd>(a: T, b: T) -> bool {
    let nan = |x: &T| x.partial_cmp(x).is_none();
    if nan(&a) || nan(&b) { nan(&a) && !nan(&b) } else { a > b }
}

/// The place of the largest or smallest along an axis.
pub fn arg_reduce<T: Copy + PartialOrd>(largest: bool, x: &Array<T>, axis: usize, keep: bool) -> Array<u32> {
    let (_, groups) = groups(x, &[axis]);
    let places = groups.into_iter().map(|group| {
        let mut best = 0;
        for i in 1..group.len() {
            let (a, b) = (group[i], group[best]);
            let nan = |x: T| x.partial_cmp(&x).is_none();
            let before = if nan(a) || nan(b) {
                nan(a) && !nan(b)
            } else if largest {
                a > b
            } else {
                a < b
            };
            if before {
                best = i;
            }
        }
        best as u32
    });
    Array::new(&reduced_shape(&x.shape, &[axis], keep), places.collect())
}

/// Running sums along the last axis.
pub fn cum_sum(x: &Array) -> Sums {
    Sums::from_fn(&x.shape, |index| {
        let (last, before) = index.split_last().expect("an axis");
        add_up((0..=*last).map(|i| x.at(&[before, &[i]].concat())))
    })
}

/// Sorted along the last axis, and the former places: insertion, which is stable.
pub fn sort<T: Copy + PartialOrd>(descending: bool, x: &Array<T>) -> (Array<T>, Array<u32>) {
    let (mut values, mut places) = (Vec::new(), Vec::new());
    for row in 0..x.rows() {
        let mut sorted: Vec<(T, u32)> = Vec::new();
        for (i, &v) in x.row(row).iter().enumerate() {
            // Behind all that come before it or are equal.
            let at =
                sorted.iter().position(|&(w, _)| if descending { larger(v, w) } else { larger(w, v) }).unwrap_or(sorted.len());
            sorted.insert(at, (v, i as u32));
        }
        values.extend(sorted.iter().map(|s| s.0));
        places.extend(sorted.iter().map(|s| s.1));
    }
    (Array::new(&x.shape, values), Array::new(&x.shape, places))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reductions_of_known_values() {
        let x = Array::new(&[2, 3], vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        assert_eq!(reduce(ReduceKind::Sum, &x, &[0], false).value, Array::new(&[3], vec![5.0, 7.0, 9.0]));
        assert_eq!(reduce(ReduceKind::Mean, &x, &[1], true).value, Array::new(&[2, 1], vec![2.0, 5.0]));
        assert_eq!(reduce(ReduceKind::Max, &x, &[0, 1], false).value, Array::new(&[], vec![6.0]));
        assert_eq!(reduce(ReduceKind::Sum, &x, &[], false).value, x);
        let none = Array::new(&[0, 2], vec![]);
        assert_eq!(reduce(ReduceKind::Min, &none, &[0], false).value, Array::new(&[2], vec![f64::INFINITY; 2]));
        assert_eq!(cum_sum(&x).value.values, [1.0, 3.0, 6.0, 4.0, 9.0, 15.0]);
    }

    #[test]
    fn sorting_is_stable_and_nan_is_largest() {
        let x = Array::new(&[5], vec![1.0, f64::NAN, -0.0, 0.0, 1.0]);
        assert_eq!(sort(true, &x).1.values, [1, 0, 4, 2, 3]);
        assert_eq!(sort(false, &x).1.values, [2, 3, 0, 4, 1]);
        assert_eq!(arg_reduce(false, &x, 0, false).values, [1]);
        assert_eq!(arg_reduce(true, &x.map(|v| if v.is_nan() { 0.5 } else { v }), 0, false).values, [0]);
    }
}
