//! How a kernel is started: its grid, and its arguments as bytes.

use bytemuck::{NoUninit, Pod, Zeroable};
use puna_tensor::MAX_RANK;

use crate::driver::Address;

/// The most blocks along a grid's first axis, and along each of the others.
const MOST_BLOCKS: u64 = i32::MAX as u64;
pub(crate) const MOST_BLOCKS_ACROSS: usize = 65535;

/// The number of threads of most blocks.
pub(crate) const THREADS: u32 = 256;

/// Blocks, threads of a block, and bytes of dynamic shared memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Grid {
    pub(crate) blocks: [u32; 3],
    pub(crate) threads: u32,
    pub(crate) shared: u32,
}

impl Grid {
    /// A thread for each of `n`, in blocks of [`THREADS`].
    pub(crate) fn each(n: usize) -> Self {
        Self::blocks((n as u64).div_ceil(THREADS.into()))
    }

    /// A block for each of `n`, which fill two axes where they are more than fit one.
    pub(crate) fn blocks(n: u64) -> Self {
        let x = n.min(MOST_BLOCKS);
        Self { blocks: [x as u32, if x == 0 { 0 } else { n.div_ceil(x) as u32 }, 1], threads: THREADS, shared: 0 }
    }

    /// Blocks on three axes.
    pub(crate) fn of(blocks: [usize; 3]) -> Self {
        Self { blocks: blocks.map(|n| n as u32), threads: THREADS, shared: 0 }
    }

    pub(crate) fn threads(self, threads: u32) -> Self {
        Self { threads, ..self }
    }

    pub(crate) fn shared(self, shared: usize) -> Self {
        Self { shared: shared as u32, ..self }
    }

    /// Whether there is nothing to do.
    pub(crate) fn is_empty(&self) -> bool {
        self.blocks.contains(&0)
    }
}

/// How many words the arguments of a kernel take at most, and how many there are.
const WORDS: usize = 96;
const COUNT: usize = 32;

/// A kernel's arguments, each at a place aligned to 8 bytes.
#[derive(Clone)]
pub(crate) struct Arguments {
    words: [u64; WORDS],
    used: usize,
    places: [(u8, u16); COUNT],
    count: usize,
}

impl Arguments {
    pub(crate) fn new() -> Self {
        Self { words: [0; WORDS], used: 0, places: [(0, 0); COUNT], count: 0 }
    }

    /// One more argument. What is passed has no padding, so that its bytes are its value.
    ///
    /// # Panics
    /// Where there are more than any kernel of ours takes.
    pub(crate) fn push(&mut self, argument: &impl NoUninit) {
        let bytes = bytemuck::bytes_of(argument);
        bytemuck::cast_slice_mut(&mut self.words[self.used..])[..bytes.len()].copy_from_slice(bytes);
        self.places[self.count] = (self.used as u8, bytes.len() as u16);
        self.count += 1;
        self.used += bytes.len().div_ceil(8);
    }

    /// The bytes of each argument.
    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        let bytes: &[u8] = bytemuck::cast_slice(&self.words);
        self.places[..self.count].iter().map(move |&(word, length)| &bytes[usize::from(word) * 8..][..usize::from(length)])
    }
}

/// The arguments of a kernel, in its order.
macro_rules! arguments {
    // Behind those that there are.
    (+ $arguments:ident, $($argument:expr),* $(,)?) => {
        $($arguments.push(&$argument);)*
    };
    ($($argument:expr),* $(,)?) => {{
        let mut arguments = $crate::launch::Arguments::new();
        $(arguments.push(&$argument);)*
        arguments
    }};
}
pub(crate) use arguments;

/// A pointer argument; null where there is nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
#[repr(transparent)]
pub(crate) struct Pointer(pub(crate) Address);

impl Pointer {
    pub(crate) const NONE: Self = Self(0);
}

/// `Layout` of `common.cuh`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct Strides {
    rank: u32,
    wide: u32,
    shape: [u64; MAX_RANK],
    strides: [i64; MAX_RANK],
}

impl Strides {
    /// Axes of these lengths and strides, merged where they form one run.
    pub(crate) fn new(axes: impl IntoIterator<Item = (usize, usize)>) -> Self {
        let mut this = Self { rank: 0, wide: 0, shape: [1; MAX_RANK], strides: [0; MAX_RANK] };
        let (mut rank, mut elements) = (0, 1u64);
        for (length, stride) in axes.into_iter().filter(|(length, _)| *length != 1) {
            let (length, stride) = (length as u64, stride as i64);
            elements = elements.saturating_mul(length);
            if rank > 0 && this.strides[rank - 1] == stride * length as i64 {
                this.shape[rank - 1] *= length;
                this.strides[rank - 1] = stride;
            } else {
                (this.shape[rank], this.strides[rank]) = (length, stride);
                rank += 1;
            }
        }
        this.rank = rank as u32;
        this.wide = u32::from(elements > u64::from(u32::MAX));
        this
    }

    /// Whether all elements lie side by side.
    pub(crate) fn is_one_run(&self) -> bool {
        self.rank == 0 || (self.rank == 1 && self.strides[0] == 1)
    }

    /// The stride of the last axis; 1 where there is none.
    pub(crate) fn last(&self) -> i64 {
        if self.rank == 0 { 1 } else { self.strides[self.rank as usize - 1] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_that_form_one_run_are_merged() {
        let strides = Strides::new([(2, 12), (1, 7), (3, 4), (4, 1)]);
        assert_eq!((strides.rank, strides.shape[0], strides.strides[0]), (1, 24, 1));
        let turned = Strides::new([(4, 1), (3, 4)]);
        assert_eq!((turned.rank, &turned.shape[..2], &turned.strides[..2]), (2, &[4, 3][..], &[1, 4][..]));
        assert!(Strides::new([(3, 0)]).rank == 1 && !Strides::new([(3, 0)]).is_one_run());
    }

    #[test]
    fn arguments_are_their_bytes() {
        let arguments = arguments![7u32, Pointer(9), 1.5f64];
        let bytes: Vec<&[u8]> = arguments.iter().collect();
        assert_eq!(bytes, [&7u32.to_ne_bytes()[..], &9u64.to_ne_bytes(), &1.5f64.to_ne_bytes()]);
    }

    #[test]
    fn more_blocks_than_fit_an_axis_fill_two() {
        assert_eq!(Grid::blocks(5).blocks, [5, 1, 1]);
        assert_eq!(Grid::blocks(1 << 32).blocks, [i32::MAX as u32, 3, 1]);
        assert!(Grid::each(0).is_empty());
    }
}
