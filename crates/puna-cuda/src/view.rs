//! What kernels are given of a tensor: where it lies, how, and of what dtype.

use puna_tensor::{DType, Layout, Shape, Tensor};

use crate::blocks::Blocks;
use crate::driver::Address;
use crate::launch::{Pointer, Strides};
use crate::memory::Memory;

/// A tensor, or memory that an op needs on the way, seen as one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct View {
    /// Where the memory begins; the layout's offset counts from here.
    base: Address,
    pub(crate) layout: Layout,
    pub(crate) dtype: DType,
    /// Whether its blocks lie in planes.
    pub(crate) packed: bool,
}

impl View {
    pub(crate) fn of(tensor: &Tensor) -> Self {
        let base = Memory::of(tensor.buffer()).address();
        Self { base, layout: *tensor.layout(), dtype: tensor.dtype(), packed: tensor.is_packed() }
    }

    /// Memory in row-major order.
    pub(crate) fn contiguous(address: Address, shape: impl Into<Shape>, dtype: DType) -> Self {
        let layout = Layout::contiguous(shape.into(), dtype).expect("scratch is of whole units");
        Self { base: address, layout, dtype, packed: false }
    }

    /// The same memory, seen otherwise.
    pub(crate) fn with(&self, layout: Layout) -> Self {
        Self { layout, ..*self }
    }

    /// With these axes, in place; nothing where the strides do not allow it.
    pub(crate) fn reshape(&self, shape: &Shape) -> Option<Self> {
        self.layout.reshape(shape).map(|layout| self.with(layout))
    }

    /// The same of a view in row-major order, as results are.
    ///
    /// # Panics
    /// Where it is none, or has not as many elements.
    pub(crate) fn in_shape(&self, shape: impl Into<Shape>) -> Self {
        self.reshape(&shape.into()).expect("what lies in order takes any shape of as many elements")
    }

    pub(crate) fn shape(&self) -> &Shape {
        self.layout.shape()
    }

    pub(crate) fn elements(&self) -> usize {
        self.shape().elements()
    }

    /// Where the first element lies.
    pub(crate) fn pointer(&self) -> Pointer {
        Pointer(self.base + (self.layout.offset() / self.dtype.unit() * self.dtype.unit_bytes()) as u64)
    }

    /// The same of a view that may be absent: null then.
    pub(crate) fn pointer_of(view: Option<&Self>) -> Pointer {
        view.map_or(Pointer::NONE, Self::pointer)
    }

    /// Lengths and strides of the axes, in elements.
    pub(crate) fn axes(&self) -> impl DoubleEndedIterator<Item = (usize, usize)> + Clone {
        let Self { layout, .. } = *self;
        (0..layout.shape().rank()).map(move |axis| (layout.shape()[axis], layout.strides()[axis]))
    }

    pub(crate) fn strides(&self) -> Strides {
        Strides::new(self.axes())
    }

    /// Where rows (all axes but the last) begin, and the stride of the last.
    pub(crate) fn rows(&self) -> (Strides, i64) {
        let rank = self.shape().rank();
        let last = if rank == 0 { 1 } else { self.layout.strides()[rank - 1] as i64 };
        (Strides::new(self.axes().take(rank.saturating_sub(1))), last)
    }

    /// Where its blocks lie, if it is of blocks.
    pub(crate) fn blocks(&self) -> Option<Blocks> {
        let block = self.dtype.block()?;
        let rank = self.shape().rank();
        let row = if rank < 2 { self.shape().last() } else { self.layout.strides()[0] } / block.values();
        if self.packed {
            return Some(Blocks::packed(block, Pointer(self.base), self.elements() / block.values(), row));
        }
        Some(Blocks::plain(block, self.pointer(), row))
    }

    /// The axes but the last, in blocks.
    pub(crate) fn block_rows(&self) -> impl Iterator<Item = (usize, usize)> + Clone {
        let (unit, rank) = (self.dtype.unit(), self.shape().rank());
        self.axes().take(rank.saturating_sub(1)).map(move |(length, stride)| (length, stride / unit))
    }

    /// As bytes: the last axis in bytes, which lie side by side.
    pub(crate) fn byte_axes(&self) -> impl Iterator<Item = (usize, usize)> + Clone {
        let (unit, bytes, rank) = (self.dtype.unit(), self.dtype.unit_bytes(), self.shape().rank());
        self.axes().enumerate().map(
            move |(axis, (length, stride))| {
                if axis + 1 == rank { (length / unit * bytes, 1) } else { (length, stride / unit * bytes) }
            },
        )
    }

    /// How many bytes the elements take.
    pub(crate) fn bytes(&self) -> usize {
        self.elements() / self.dtype.unit() * self.dtype.unit_bytes()
    }
}
