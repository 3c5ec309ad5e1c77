use crate::{Axes, DType, MAX_RANK, Shape};

/// Where a view's elements lie in its buffer: element `i` at `offset + sum(i[axis] * strides[axis])`, counted in elements.
///
/// A block dtype's last axis is contiguous and is cut at block edges only. That rule is held here, so no op asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    shape: Shape,
    strides: [usize; MAX_RANK],
    offset: usize,
    /// The length of a block; 1 for ordinary dtypes.
    unit: usize,
}

impl Layout {
    /// Row-major order, from the buffer's start. `None` where a block dtype's last axis is no whole number of blocks.
    pub fn contiguous(shape: Shape, dtype: DType) -> Option<Self> {
        let unit = dtype.unit();
        if unit > 1 && (shape.rank() == 0 || shape.last() % unit != 0) {
            return None;
        }
        Some(Self { shape, strides: row_major(&shape), offset: 0, unit })
    }

    /// The shape.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// The strides, in elements. A broadcast axis has stride 0.
    pub fn strides(&self) -> &[usize] {
        &self.strides[..self.shape.rank()]
    }

    /// The first element's place in the buffer, in elements.
    pub fn offset(&self) -> usize {
        self.offset
    }

    /// Whether the elements lie in row-major order without gaps (from any offset).
    pub fn is_contiguous(&self) -> bool {
        let mut expected = 1;
        self.shape.contains(&0)
            || self.shape.iter().zip(self.strides()).rev().all(|(&length, &stride)| {
                let fits = length == 1 || stride == expected;
                expected *= length;
                fits
            })
    }

    /// Whether the last axis' elements lie side by side.
    pub fn rows_are_contiguous(&self) -> bool {
        self.shape.rank() == 0 || self.shape.last() <= 1 || self.strides()[self.shape.rank() - 1] == 1
    }

    /// The offset of each row (all axes but the last), in row-major order, in elements.
    pub fn row_offsets(&self) -> RowOffsets {
        let rank = self.shape.rank().saturating_sub(1);
        RowOffsets { layout: *self, rank, at: [0; MAX_RANK], offset: self.offset, left: self.shape.rows() }
    }

    /// The offset of row `row` (counted row-major over all axes but the last), in elements.
    pub fn row_offset(&self, mut row: usize) -> usize {
        let mut offset = self.offset;
        for axis in (0..self.shape.rank().saturating_sub(1)).rev() {
            offset += row % self.shape[axis] * self.strides[axis];
            row /= self.shape[axis];
        }
        offset
    }

    /// The view with its axes in another order. `None`: not an order of the axes, or one that moves a block dtype's last axis.
    pub fn permute(&self, axes: &Axes) -> Option<Self> {
        let rank = self.shape.rank();
        if axes.len() != rank || !axes.are_distinct(rank) || (self.unit > 1 && axes[rank - 1] != rank - 1) {
            return None;
        }
        let mut lengths = [0; MAX_RANK];
        let mut strides = [0; MAX_RANK];
        for (to, &from) in axes.iter().enumerate() {
            (lengths[to], strides[to]) = (self.shape[from], self.strides[from]);
        }
        Some(Self { shape: Shape::new(&lengths[..rank])?, strides, ..*self })
    }

    /// The view of `length` entries of an axis from `start` on. `None`: outside, or not at block edges.
    pub fn slice(&self, axis: usize, start: usize, length: usize) -> Option<Self> {
        let end = start.checked_add(length)?;
        if axis >= self.shape.rank() || end > self.shape[axis] {
            return None;
        }
        if axis + 1 == self.shape.rank() && (start % self.unit != 0 || length % self.unit != 0) {
            return None;
        }
        let shape = self.shape.with(axis, length);
        // An empty view keeps its offset inside the buffer.
        let offset = if shape.contains(&0) { self.offset } else { self.offset + start * self.strides[axis] };
        Some(Self { shape, offset, ..*self })
    }

    /// The view broadcast to `shape`, aligned at the last axis. `None`: axes that are neither equal nor 1, or a block axis.
    pub fn broadcast(&self, shape: &Shape) -> Option<Self> {
        let shift = shape.rank().checked_sub(self.shape.rank())?;
        let mut strides = [0; MAX_RANK];
        for (axis, (&from, &stride)) in self.shape.iter().zip(self.strides()).enumerate() {
            match (from, shape[shift + axis]) {
                (a, b) if a == b => strides[shift + axis] = stride,
                (1, _) => {}
                _ => return None,
            }
        }
        (self.unit == 1 || shape.last() == self.shape.last()).then_some(Self { shape: *shape, strides, ..*self })
    }

    /// The view with other axes over the same elements in row-major order. `None`: the strides do not allow it without a copy
    /// (or the number of elements differs, which inference has excluded).
    pub fn reshape(&self, shape: &Shape) -> Option<Self> {
        if self.unit > 1 && (shape.rank() == 0 || shape.last() % self.unit != 0) {
            return None;
        }
        if self.is_contiguous() {
            return Some(Self { shape: *shape, strides: row_major(shape), ..*self });
        }
        // Match runs of old and new axes of equal products; within a run the old axes must lie as one.
        let old = self.without_ones();
        let (lengths, old_strides) = (&old.shape, old.strides());
        let mut strides = [0; MAX_RANK];
        let (mut o, mut n) = (0, 0);
        while o < lengths.rank() && n < shape.rank() {
            let (mut o_end, mut n_end) = (o + 1, n + 1);
            let (mut o_product, mut n_product) = (lengths[o], shape[n]);
            while o_product != n_product {
                if n_product < o_product {
                    n_product *= *shape.get(n_end)?;
                    n_end += 1;
                } else {
                    o_product *= *lengths.get(o_end)?;
                    o_end += 1;
                }
            }
            if (o..o_end - 1).any(|i| old_strides[i] != lengths[i + 1] * old_strides[i + 1]) {
                return None;
            }
            let mut stride = old_strides[o_end - 1];
            for axis in (n..n_end).rev() {
                strides[axis] = stride;
                stride *= shape[axis];
            }
            (o, n) = (o_end, n_end);
        }
        Some(Self { shape: *shape, strides, ..*self })
    }

    fn without_ones(&self) -> Self {
        let mut lengths = [0; MAX_RANK];
        let mut strides = [0; MAX_RANK];
        let mut rank = 0;
        for (&length, &stride) in self.shape.iter().zip(self.strides()).filter(|(length, _)| **length != 1) {
            (lengths[rank], strides[rank]) = (length, stride);
            rank += 1;
        }
        Self { shape: Shape::new(&lengths[..rank]).expect("no more axes than before"), strides, ..*self }
    }

    /// The same elements with axes merged where they form one run and axes of length 1 dropped: what a kernel loops over.
    pub fn collapsed(&self) -> Self {
        let old = self.without_ones();
        let mut lengths = [0; MAX_RANK];
        let mut strides = [0; MAX_RANK];
        let mut rank = 0;
        for (&length, &stride) in old.shape.iter().zip(old.strides()) {
            if rank > 0 && strides[rank - 1] == stride * length {
                lengths[rank - 1] *= length;
                strides[rank - 1] = stride;
            } else {
                (lengths[rank], strides[rank]) = (length, stride);
                rank += 1;
            }
        }
        Self { shape: Shape::new(&lengths[..rank]).expect("no more axes than before"), strides, ..*self }
    }
}

fn row_major(shape: &Shape) -> [usize; MAX_RANK] {
    let mut strides = [0; MAX_RANK];
    let mut stride = 1usize;
    for axis in (0..shape.rank()).rev() {
        strides[axis] = stride;
        // Where this wraps some axis is 0, and the strides are never used.
        stride = stride.wrapping_mul(shape[axis]);
    }
    strides
}

/// The offsets of a layout's rows: see [`Layout::row_offsets`].
#[derive(Debug, Clone)]
pub struct RowOffsets {
    layout: Layout,
    rank: usize,
    at: [usize; MAX_RANK],
    offset: usize,
    left: usize,
}

impl Iterator for RowOffsets {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        self.left = self.left.checked_sub(1)?;
        let offset = self.offset;
        for axis in (0..self.rank).rev() {
            self.at[axis] += 1;
            self.offset += self.layout.strides[axis];
            if self.at[axis] < self.layout.shape[axis] {
                break;
            }
            self.offset -= self.at[axis] * self.layout.strides[axis];
            self.at[axis] = 0;
        }
        Some(offset)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for RowOffsets {}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout<const N: usize>(shape: [usize; N]) -> Layout {
        Layout::contiguous(shape.into(), DType::F32).unwrap()
    }

    /// The offsets of all elements in row-major order, the slow way.
    fn offsets(l: &Layout) -> Vec<usize> {
        (0..l.shape().elements())
            .map(|mut i| {
                let mut offset = l.offset();
                for axis in (0..l.shape().rank()).rev() {
                    offset += i % l.shape()[axis] * l.strides()[axis];
                    i /= l.shape()[axis];
                }
                offset
            })
            .collect()
    }

    #[test]
    fn reshape_keeps_the_elements_or_declines() {
        let base = layout([4, 6, 5]).slice(1, 2, 4).unwrap();
        let split = base.reshape(&[2, 2, 2, 2, 5].into()).unwrap();
        assert_eq!(offsets(&base), offsets(&split));
        assert!(base.reshape(&[16, 5].into()).is_none());
        let ones = base.reshape(&[1, 4, 1, 20, 1].into()).unwrap();
        assert_eq!(offsets(&base), offsets(&ones));
        let t = layout([3, 4]).permute(&[1, 0].into()).unwrap();
        assert!(t.reshape(&[12].into()).is_none());
        assert_eq!(offsets(&t.reshape(&[2, 2, 3].into()).unwrap()), offsets(&t));
        assert_eq!(offsets(&layout([1]).reshape(&Shape::SCALAR).unwrap()), [0]);
    }

    #[test]
    fn row_offsets_are_the_first_elements_of_rows() {
        let l = layout([3, 4, 5]).permute(&[1, 0, 2].into()).unwrap().slice(0, 1, 2).unwrap();
        let rows: Vec<_> = l.row_offsets().collect();
        assert_eq!(rows, offsets(&l).into_iter().step_by(5).collect::<Vec<_>>());
        assert_eq!(rows, (0..6).map(|r| l.row_offset(r)).collect::<Vec<_>>());
        assert_eq!(layout([7]).row_offsets().len(), 1);
        assert_eq!(layout([0, 3]).row_offsets().count(), 0);
    }

    #[test]
    fn blocks_are_cut_at_their_edges_only() {
        let q = DType::Block(crate::BlockType::Q4_0);
        assert!(Layout::contiguous([2, 33].into(), q).is_none());
        let l = Layout::contiguous([2, 96].into(), q).unwrap();
        assert!(l.slice(1, 32, 64).is_some());
        assert!(l.slice(1, 16, 32).is_none());
        assert!(l.permute(&[1, 0].into()).is_none());
        assert!(l.reshape(&[6, 32].into()).is_some());
        assert!(l.reshape(&[12, 16].into()).is_none());
    }

    #[test]
    fn collapsing_keeps_the_elements() {
        for l in [
            layout([2, 1, 3, 4]),
            layout([4, 6, 5]).slice(1, 2, 4).unwrap(),
            layout([3, 1]).broadcast(&[2, 3, 4].into()).unwrap(),
        ] {
            assert_eq!(offsets(&l), offsets(&l.collapsed()));
        }
        assert_eq!(layout([2, 1, 3, 4]).collapsed().shape().to_vec(), [24]);
    }
}
