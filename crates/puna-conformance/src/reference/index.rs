use super::{Sums, add_up};
use crate::Array;

/// The number of elements that one entry of the first axis holds.
fn row_length<T>(x: &Array<T>) -> usize {
    x.shape[1..].iter().product()
}

/// Rows by number; one out of range is zeros.
pub fn gather_rows<T: Copy + Default>(table: &Array<T>, index: &Array<u32>) -> Array<T> {
    let n = row_length(table);
    let mut values = Vec::new();
    for &i in &index.values {
        match (i as usize) < table.shape[0] {
            true => values.extend_from_slice(&table.values[i as usize * n..][..n]),
            false => values.extend(std::iter::repeat_n(T::default(), n)),
        }
    }
    Array::new(&[&index.shape[..], &table.shape[1..]].concat(), values)
}

/// `destination` with rows replaced; the last of equal numbers wins, one out of range is not written.
pub fn scatter_rows<T: Copy>(destination: &Array<T>, index: &[u32], source: &Array<T>) -> Array<T> {
    let n = row_length(destination);
    let mut result = destination.clone();
    for (from, &to) in index.iter().enumerate() {
        if (to as usize) < destination.shape[0] {
            for j in 0..n {
                result.values[to as usize * n + j] = source.values[from * n + j];
            }
        }
    }
    result
}

/// Rows summed by number.
pub fn scatter_add_rows(source: &Array, index: &Array<u32>, rows: usize) -> Sums {
    let row = &source.shape[index.shape.len()..];
    let n: usize = row.iter().product();
    let places = Array::<usize>::new(row, (0..n).collect());
    Sums::from_fn(&[&[rows], row].concat(), |to| {
        let hits = index.values.iter().enumerate().filter(|&(_, &i)| i as usize == to[0]);
        add_up(hits.map(|(i, _)| source.values[i * n + places.at(&to[1..])]))
    })
}

/// Entries of the last axis by number; one out of range is zero.
pub fn take<T: Copy + Default>(x: &Array<T>, index: &Array<u32>) -> Array<T> {
    let values = (0..index.rows()).flat_map(|row| {
        let from = x.row(row);
        index.row(row).iter().map(|&i| from.get(i as usize).copied().unwrap_or_default()).collect::<Vec<_>>()
    });
    Array::new(&index.shape, values.collect())
}

/// Entries summed into the places of a last axis.
pub fn take_backward(source: &Array, index: &Array<u32>, length: usize) -> Sums {
    let mut shape = source.shape.clone();
    *shape.last_mut().expect("an axis") = length;
    let places = Array::<usize>::new(&shape, (0..shape.iter().product()).collect());
    Sums::from_fn(&shape, |at| {
        let (row, i) = (places.at(at) / length, at[at.len() - 1]);
        let pairs = source.row(row).iter().zip(index.row(row));
        add_up(pairs.filter(|&(_, &j)| j as usize == i).map(|(&v, _)| v))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_go_and_come_by_number() {
        let table = Array::new(&[3, 2], vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        let index = Array::new(&[3], vec![2, 3, 0]);
        let rows = gather_rows(&table, &index);
        assert_eq!(rows.values, [5.0, 6.0, 0.0, 0.0, 1.0, 2.0]);
        assert_eq!(scatter_add_rows(&rows, &Array::new(&[3], vec![1, 1, 9]), 2).value.values, [0.0, 0.0, 5.0, 6.0]);
        assert_eq!(scatter_rows(&table, &[1, 1, 7], &rows).values, [1.0, 2.0, 0.0, 0.0, 5.0, 6.0]);
        let taken = take(&table, &Array::new(&[3, 1], vec![1, 2, 0]));
        assert_eq!(taken.values, [2.0, 0.0, 5.0]);
        assert_eq!(take_backward(&taken, &Array::new(&[3, 1], vec![1, 2, 0]), 2).value.values, [0.0, 2.0, 0.0, 0.0, 5.0, 0.0]);
    }
}
