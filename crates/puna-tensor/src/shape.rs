use std::fmt;
use std::ops::Deref;

/// The most axes that a tensor has.
pub const MAX_RANK: usize = 6;

/// The length of each axis. Stored in place: a shape is copied, never allocated.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Shape {
    rank: u8,
    // Entries beyond the rank are zero, so that the derived comparison is right.
    axes: [usize; MAX_RANK],
}

impl Shape {
    /// The shape of a single element: no axes.
    pub const SCALAR: Shape = Shape { rank: 0, axes: [0; MAX_RANK] };

    /// A shape from lengths, or `None` where there are more than [`MAX_RANK`].
    pub fn new(axes: &[usize]) -> Option<Self> {
        let mut shape = Self { rank: axes.len() as u8, axes: [0; MAX_RANK] };
        shape.axes.get_mut(..axes.len())?.copy_from_slice(axes);
        Some(shape)
    }

    /// How many axes.
    pub fn rank(&self) -> usize {
        self.rank.into()
    }

    /// How many elements, or `None` where that overflows.
    pub fn checked_elements(&self) -> Option<usize> {
        // A zero anywhere makes the tensor empty, however large the other axes are.
        if self.contains(&0) {
            return Some(0);
        }
        self.iter().try_fold(1usize, |n, &axis| n.checked_mul(axis))
    }

    /// How many elements a tensor of this shape has.
    ///
    /// # Panics
    /// On overflow, which no existing tensor's shape does.
    pub fn elements(&self) -> usize {
        self.checked_elements().expect("a tensor's elements were counted when it was made")
    }

    /// The length of the last axis; 1 for a scalar.
    pub fn last(&self) -> usize {
        self[..].last().copied().unwrap_or(1)
    }

    /// The number of rows: the product of all axes but the last; 1 for a scalar.
    pub fn rows(&self) -> usize {
        // Of no elements the other axes may be as long as they like.
        self[..self.rank().saturating_sub(1)].iter().fold(1, |rows: usize, &axis| rows.saturating_mul(axis))
    }

    /// The shape with its last axis replaced, of rank 1 at least.
    pub fn with_last(&self, last: usize) -> Self {
        let mut shape = *self;
        shape.rank = shape.rank.max(1);
        shape.axes[shape.rank() - 1] = last;
        shape
    }

    /// The shape without an axis.
    pub(crate) fn without(&self, axis: usize) -> Self {
        let mut shape = Self { rank: self.rank - 1, axes: [0; MAX_RANK] };
        let kept = self.iter().enumerate().filter(|&(i, _)| i != axis);
        for (to, (_, &from)) in shape.axes.iter_mut().zip(kept) {
            *to = from;
        }
        shape
    }

    /// The shape with one axis' length replaced.
    ///
    /// # Panics
    /// Where there is no such axis.
    pub fn with(&self, axis: usize, length: usize) -> Self {
        let mut shape = *self;
        shape.axes[axis] = length;
        shape
    }

    /// This shape's axes followed by `more`, or `None` where they are too many.
    pub(crate) fn join(&self, more: &[usize]) -> Option<Self> {
        let mut shape = *self;
        let rank = self.rank() + more.len();
        shape.axes.get_mut(self.rank()..rank)?.copy_from_slice(more);
        shape.rank = rank as u8;
        Some(shape)
    }

    /// The shape that both broadcast to, aligned at the last axis: equal lengths, or 1.
    pub fn broadcast(&self, other: &Shape) -> Option<Shape> {
        let (long, short) = if self.rank >= other.rank { (self, other) } else { (other, self) };
        let mut shape = *long;
        let shift = long.rank() - short.rank();
        for (i, &b) in short.iter().enumerate() {
            let a = &mut shape.axes[shift + i];
            match (*a, b) {
                (x, y) if x == y => {}
                (1, y) => *a = y,
                (_, 1) => {}
                _ => return None,
            }
        }
        Some(shape)
    }
}

impl Deref for Shape {
    type Target = [usize];

    fn deref(&self) -> &[usize] {
        &self.axes[..self.rank()]
    }
}

impl<const N: usize> From<[usize; N]> for Shape {
    fn from(axes: [usize; N]) -> Self {
        const { assert!(N <= MAX_RANK, "a tensor has at most MAX_RANK axes") };
        Self::new(&axes).expect("the rank was checked at compile time")
    }
}

impl From<usize> for Shape {
    fn from(length: usize) -> Self {
        [length].into()
    }
}

impl From<&Shape> for Shape {
    fn from(shape: &Shape) -> Self {
        *shape
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self[..], f)
    }
}

impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self[..], f)
    }
}

/// A set of axes, as reductions take it; or an order of them, as permutations do.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Axes(Shape);

impl Axes {
    /// Axes from their numbers, or `None` where there are more than [`MAX_RANK`].
    pub fn new(axes: &[usize]) -> Option<Self> {
        Shape::new(axes).map(Self)
    }

    /// All axes of a tensor of this rank, in order.
    pub fn all(rank: usize) -> Self {
        let mut axes = [0; MAX_RANK];
        axes.iter_mut().enumerate().for_each(|(i, axis)| *axis = i);
        Self(Shape::new(&axes[..rank.min(MAX_RANK)]).expect("at most MAX_RANK"))
    }

    /// Whether each number is below `rank` and none stands twice.
    pub(crate) fn are_distinct(&self, rank: usize) -> bool {
        self.iter().enumerate().all(|(i, &axis)| axis < rank && !self[..i].contains(&axis))
    }
}

impl Deref for Axes {
    type Target = [usize];

    fn deref(&self) -> &[usize] {
        &self.0
    }
}

impl<const N: usize> From<[usize; N]> for Axes {
    fn from(axes: [usize; N]) -> Self {
        Self(axes.into())
    }
}

impl From<usize> for Axes {
    fn from(axis: usize) -> Self {
        [axis].into()
    }
}

impl fmt::Debug for Axes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self[..], f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broadcasting_aligns_at_the_last_axis() {
        let b = |a: &[usize], b: &[usize]| Shape::new(a).unwrap().broadcast(&Shape::new(b).unwrap()).map(|s| s.to_vec());
        assert_eq!(b(&[2, 1, 4], &[3, 1]), Some(vec![2, 3, 4]));
        assert_eq!(b(&[], &[5]), Some(vec![5]));
        assert_eq!(b(&[0], &[1]), Some(vec![0]));
        assert_eq!(b(&[2], &[3]), None);
        assert_eq!(b(&[2], &[0]), None);
    }

    #[test]
    fn elements_do_not_overflow() {
        assert_eq!(Shape::from([1 << 40, 1 << 40]).checked_elements(), None);
        assert_eq!(Shape::from([1 << 40, 1 << 40, 0]).checked_elements(), Some(0));
        assert_eq!(Shape::SCALAR.elements(), 1);
        assert!(Shape::new(&[1; MAX_RANK + 1]).is_none());
    }
}
