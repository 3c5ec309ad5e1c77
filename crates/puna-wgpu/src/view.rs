//! What kernels are given of a tensor: its buffer, where its elements lie in it, and of what dtype.

use puna_tensor::{DType, Layout, Shape, Tensor};

use crate::launch::Strides;
use crate::memory::Memory;

/// A tensor, or memory that an op needs on the way, seen as one.
#[derive(Debug, Clone)]
pub(crate) struct View {
    pub(crate) buffer: wgpu::Buffer,
    pub(crate) layout: Layout,
    pub(crate) dtype: DType,
}

impl View {
    pub(crate) fn of(tensor: &Tensor) -> Self {
        let buffer = Memory::of(tensor.buffer()).buffer().clone();
        Self { buffer, layout: *tensor.layout(), dtype: tensor.dtype() }
    }

    /// Memory in row-major order.
    pub(crate) fn contiguous(memory: &Memory, shape: impl Into<Shape>, dtype: DType) -> Self {
        let layout = Layout::contiguous(shape.into(), dtype).expect("scratch is of whole units");
        Self { buffer: memory.buffer().clone(), layout, dtype }
    }

    /// The same memory, seen otherwise.
    pub(crate) fn with(&self, layout: Layout) -> Self {
        Self { layout, ..self.clone() }
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

    /// Broadcast to a shape.
    pub(crate) fn to(&self, shape: &Shape) -> Self {
        self.with(self.layout.broadcast(shape).expect("inference has found the shape that all broadcast to"))
    }

    /// `length` entries of an axis from `start` on.
    pub(crate) fn part(&self, axis: usize, start: usize, length: usize) -> Self {
        self.with(self.layout.slice(axis, start, length).expect("a part of the axis"))
    }

    pub(crate) fn shape(&self) -> &Shape {
        self.layout.shape()
    }

    pub(crate) fn elements(&self) -> usize {
        self.shape().elements()
    }

    /// Lengths and strides of the axes, in elements.
    pub(crate) fn axes(&self) -> std::vec::IntoIter<(usize, usize)> {
        let axes: Vec<_> = self.shape().iter().copied().zip(self.layout.strides().iter().copied()).collect();
        axes.into_iter()
    }

    pub(crate) fn strides(&self) -> Strides {
        Strides::new(self.axes())
    }

    /// Where rows (all axes but the last) begin, and the stride of the last.
    pub(crate) fn rows(&self) -> (Strides, usize) {
        let rank = self.shape().rank();
        let last = if rank == 0 { 1 } else { self.layout.strides()[rank - 1] };
        (Strides::new(self.axes().take(rank.saturating_sub(1))), last)
    }

    /// Lengths and strides of the axes in bytes, the last of them side by side: how blocks are copied and read.
    pub(crate) fn byte_axes(&self) -> impl DoubleEndedIterator<Item = (usize, usize)> + ExactSizeIterator {
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

    /// The bytes of the buffer that its elements lie in: from the first to behind the last.
    pub(crate) fn extent(&self) -> std::ops::Range<usize> {
        let unit_bytes = |elements: usize| elements / self.dtype.unit() * self.dtype.unit_bytes();
        let begin = unit_bytes(self.layout.offset());
        if self.elements() == 0 {
            return begin..begin;
        }
        let last: usize = self.axes().map(|(length, stride)| (length - 1) * stride).sum();
        begin..begin + unit_bytes(last) + self.dtype.unit_bytes()
    }
}
