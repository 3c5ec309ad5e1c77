//! Walking several layouts of one shape together.

use std::ops::Range;

use puna_tensor::{Layout, MAX_RANK, Shape};

/// The elements of `N` arguments in row-major order of their common axes. Axes along which all of them go on as before are walked as
/// one; the innermost is the run that loops are made of.
pub(crate) struct Walk<const N: usize> {
    elements: usize,
    /// The length of a run.
    inner: usize,
    /// From one element of a run to the next, for each argument.
    steps: [usize; N],
    /// The other axes, outermost first.
    rank: usize,
    lengths: [usize; MAX_RANK],
    strides: [[usize; N]; MAX_RANK],
    offsets: [usize; N],
}

impl<const N: usize> Walk<N> {
    /// The axes `lengths`, along which argument `i` moves by `strides[i]` from `offsets[i]` on.
    pub(crate) fn new(axes: &[usize], along: [&[usize]; N], offsets: [usize; N]) -> Self {
        let (mut rank, mut lengths, mut strides) = (0, [0; MAX_RANK], [[0; N]; MAX_RANK]);
        for (axis, &length) in axes.iter().enumerate().filter(|(_, length)| **length != 1) {
            let stride = along.map(|strides| strides[axis]);
            let before = strides[rank.max(1) - 1];
            if rank > 0 && before.iter().zip(&stride).all(|(&before, &stride)| before == stride * length) {
                lengths[rank - 1] *= length;
                strides[rank - 1] = stride;
            } else {
                (lengths[rank], strides[rank]) = (length, stride);
                rank += 1;
            }
        }
        let elements = lengths[..rank].iter().product();
        let (inner, steps) = if rank == 0 { (1, [1; N]) } else { (lengths[rank - 1], strides[rank - 1]) };
        Self { elements, inner, steps, rank: rank.saturating_sub(1), lengths, strides, offsets }
    }

    /// Layouts that are all broadcast to one shape.
    pub(crate) fn broadcast(shape: &Shape, layouts: [&Layout; N]) -> Self {
        let layouts = layouts.map(|layout| layout.broadcast(shape).expect("inference has found the shape that all broadcast to"));
        let mut along: [&[usize]; N] = [&[]; N];
        along.iter_mut().zip(&layouts).for_each(|(along, layout)| *along = layout.strides());
        Self::new(shape, along, layouts.map(|layout| layout.offset()))
    }

    /// How many elements each argument has.
    pub(crate) fn elements(&self) -> usize {
        self.elements
    }

    /// The length of a run that is not cut.
    pub(crate) fn inner(&self) -> usize {
        self.inner
    }

    /// From one element of a run to the next, for each argument.
    pub(crate) fn steps(&self) -> [usize; N] {
        self.steps
    }

    /// The runs that make up a range of the elements.
    pub(crate) fn runs(&self, range: Range<usize>) -> Runs<'_, N> {
        let mut runs = Runs { walk: self, at: [0; MAX_RANK], offsets: self.offsets, column: 0, left: range.len() };
        if range.is_empty() {
            return runs;
        }
        runs.column = range.start % self.inner;
        let mut row = range.start / self.inner;
        for axis in (0..self.rank).rev() {
            runs.at[axis] = row % self.lengths[axis];
            row /= self.lengths[axis];
            runs.go(axis, runs.at[axis]);
        }
        runs
    }
}

/// A run: where each argument's first element lies, and how many there are.
pub(crate) struct Run<const N: usize> {
    pub(crate) offsets: [usize; N],
    pub(crate) length: usize,
}

/// See [`Walk::runs`].
pub(crate) struct Runs<'a, const N: usize> {
    walk: &'a Walk<N>,
    at: [usize; MAX_RANK],
    offsets: [usize; N],
    column: usize,
    left: usize,
}

impl<const N: usize> Runs<'_, N> {
    fn go(&mut self, axis: usize, by: usize) {
        let strides = &self.walk.strides[axis];
        self.offsets.iter_mut().zip(strides).for_each(|(offset, stride)| *offset += by * stride);
    }

    fn next_row(&mut self) {
        for axis in (0..self.walk.rank).rev() {
            self.at[axis] += 1;
            self.go(axis, 1);
            if self.at[axis] < self.walk.lengths[axis] {
                return;
            }
            let strides = &self.walk.strides[axis];
            self.offsets.iter_mut().zip(strides).for_each(|(offset, stride)| *offset -= self.walk.lengths[axis] * stride);
            self.at[axis] = 0;
        }
    }
}

impl<const N: usize> Iterator for Runs<'_, N> {
    type Item = Run<N>;

    fn next(&mut self) -> Option<Run<N>> {
        if self.left == 0 {
            return None;
        }
        let (column, steps) = (self.column, &self.walk.steps);
        let length = (self.walk.inner - column).min(self.left);
        let offsets = std::array::from_fn(|i| self.offsets[i] + column * steps[i]);
        self.left -= length;
        self.column = 0;
        if self.left > 0 {
            self.next_row();
        }
        Some(Run { offsets, length })
    }
}

#[cfg(test)]
mod tests {
    use puna_tensor::DType;

    use super::*;

    #[test]
    fn runs_of_any_range_are_its_elements() {
        let base = Layout::contiguous([4, 3, 5].into(), DType::F32).unwrap();
        let turned = base.permute(&[1, 0, 2].into()).unwrap().slice(2, 1, 3).unwrap();
        let row = Layout::contiguous([3].into(), DType::F32).unwrap();
        let shape = *turned.shape();
        let walk = Walk::broadcast(&shape, [&turned, &row]);
        assert_eq!((walk.elements(), walk.inner(), walk.steps()), (36, 3, [1, 1]));
        let expected: Vec<[usize; 2]> = (0..36).map(|i| [i / 12 * 5 + i / 3 % 4 * 15 + i % 3 + 1, i % 3]).collect();
        for start in 0..=36 {
            for end in start..=36 {
                let runs = walk.runs(start..end);
                let all: Vec<_> =
                    runs.flat_map(|run| (0..run.length).map(move |i| run.offsets.map(|offset| offset + i))).collect();
                assert_eq!(all, expected[start..end], "{start}..{end}");
            }
        }
    }

    #[test]
    fn axes_that_lie_as_one_are_walked_as_one() {
        let a = Layout::contiguous([4, 1, 3, 5].into(), DType::F32).unwrap();
        assert_eq!(Walk::broadcast(a.shape(), [&a, &a]).inner(), 60);
        let scalar = Layout::contiguous(Shape::SCALAR, DType::F32).unwrap();
        let walk = Walk::broadcast(a.shape(), [&a, &scalar]);
        assert_eq!((walk.inner(), walk.steps()), (60, [1, 0]));
        assert_eq!(Walk::broadcast(scalar.shape(), [&scalar]).runs(0..1).count(), 1);
        assert_eq!(Walk::broadcast(&[3, 0].into(), [&scalar]).elements(), 0);
    }
}
