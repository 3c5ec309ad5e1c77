//! How a kernel is started: its grid, and its parameters as words.

use puna_tensor::MAX_RANK;

/// The most workgroups along an axis of a grid.
pub(crate) const MOST_GROUPS: usize = 65535;

/// The invocations of most workgroups.
pub(crate) const THREADS: usize = 256;

/// Workgroups along each axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Grid(pub(crate) [u32; 3]);

impl Grid {
    /// An invocation for each of `n`, in workgroups of [`THREADS`].
    pub(crate) fn each(n: usize) -> Self {
        Self::groups(n.div_ceil(THREADS))
    }

    /// A workgroup for each of `n`, which fill two axes where they are more than fit one.
    pub(crate) fn groups(n: usize) -> Self {
        let x = n.min(MOST_GROUPS);
        Self([x as u32, if x == 0 { 0 } else { n.div_ceil(x) as u32 }, 1])
    }

    /// Workgroups on three axes.
    pub(crate) fn of(groups: [usize; 3]) -> Self {
        Self(groups.map(|n| u32::try_from(n).unwrap_or(u32::MAX)))
    }

    /// Whether there is nothing to do.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.contains(&0)
    }
}

/// A kernel's parameters, in its order: layouts first, then words.
#[derive(Debug, Clone, Default)]
pub(crate) struct Parameters(Vec<u32>);

/// What a parameter may be.
pub(crate) trait Parameter {
    fn push(&self, words: &mut Vec<u32>);
}

impl Parameter for u32 {
    fn push(&self, words: &mut Vec<u32>) {
        words.push(*self);
    }
}

/// # Panics
/// Where it does not fit a word: an index beyond what kernels count, which the one who launches has excluded.
impl Parameter for usize {
    fn push(&self, words: &mut Vec<u32>) {
        words.push(u32::try_from(*self).expect("a number that fits a word"));
    }
}

impl Parameter for f32 {
    fn push(&self, words: &mut Vec<u32>) {
        words.push(self.to_bits());
    }
}

impl Parameter for bool {
    fn push(&self, words: &mut Vec<u32>) {
        words.push(u32::from(*self));
    }
}

impl Parameters {
    pub(crate) fn push(&mut self, parameter: &dyn Parameter) {
        parameter.push(&mut self.0);
    }

    pub(crate) fn words(&self) -> &[u32] {
        &self.0
    }
}

/// The parameters of a kernel, in its order.
macro_rules! parameters {
    ($($parameter:expr),* $(,)?) => {{
        #[allow(unused_mut)] // Of no parameters.
        let mut parameters = $crate::launch::Parameters::default();
        $(parameters.push(&$parameter);)*
        parameters
    }};
}
pub(crate) use parameters;

/// `Layout` of `prelude.wgsl`: the axes merged where they form one run, the last first. Where the first element lies a binding knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Strides {
    rank: u32,
    /// Length and stride of each axis.
    axes: [[u32; 2]; MAX_RANK],
}

impl Strides {
    /// Axes of these lengths and strides, in their order.
    pub(crate) fn new(axes: impl DoubleEndedIterator<Item = (usize, usize)>) -> Self {
        let mut merged: Vec<(usize, usize)> = Vec::with_capacity(MAX_RANK);
        for (length, stride) in axes.rev().filter(|(length, _)| *length != 1) {
            match merged.last_mut() {
                Some(inner) if stride == inner.0.saturating_mul(inner.1) => inner.0 = inner.0.saturating_mul(length),
                _ => merged.push((length, stride)),
            }
        }
        let mut axes = [[1, 0]; MAX_RANK];
        // An axis that is too long for a word belongs to a view of more elements than an op gives or reads.
        merged.iter().zip(&mut axes).for_each(|(from, to)| *to = [from.0 as u32, from.1 as u32]);
        Self { rank: merged.len() as u32, axes }
    }

    /// Whether all elements lie side by side.
    pub(crate) fn is_one_run(&self) -> bool {
        self.rank == 0 || (self.rank == 1 && self.axes[0][1] == 1)
    }

    /// The stride of the last axis; 1 where there is none.
    pub(crate) fn last(&self) -> usize {
        if self.rank == 0 { 1 } else { self.axes[0][1] as usize }
    }
}

impl Parameter for Strides {
    fn push(&self, words: &mut Vec<u32>) {
        debug_assert!(words.len() % 4 == 0, "layouts come first");
        words.extend([self.rank, 0, 0, 0]);
        words.extend(self.axes.iter().flatten());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_that_form_one_run_are_merged() {
        let strides = Strides::new([(2, 12), (1, 7), (3, 4), (4, 1)].into_iter());
        assert_eq!((strides.rank, strides.axes[0]), (1, [24, 1]));
        let turned = Strides::new([(4, 1), (3, 4)].into_iter());
        assert_eq!((turned.rank, &turned.axes[..2]), (2, &[[3, 4], [4, 1]][..]));
        let repeated = Strides::new([(3, 0)].into_iter());
        assert!(repeated.rank == 1 && !repeated.is_one_run() && repeated.last() == 0);
    }

    #[test]
    fn more_groups_than_fit_an_axis_fill_two() {
        assert_eq!(Grid::groups(5).0, [5, 1, 1]);
        assert_eq!(Grid::groups(65536).0, [65535, 2, 1]);
        assert!(Grid::each(0).is_empty());
    }
}
