use std::fmt;
use std::marker::PhantomData;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use crate::op::{Arange, Fill};
use crate::{Arrival, Buffer, DType, Device, Element, Error, HostBytes, Kind, Layout, Node, Op, Result, Shape};

/// A view of a buffer on a device, with a run-time dtype and shape.
///
/// Cloning copies a pointer. Views (`transpose`, `slice`, `reshape`, `broadcast`) share the buffer. Ops are methods, in the
/// files of [`op`](crate::op); all are fallible, and none changes its arguments unless its name says so.
#[derive(Clone)]
pub struct Tensor(Arc<Inner>);

struct Inner {
    id: TensorId,
    buffer: Buffer,
    layout: Layout,
    dtype: DType,
    device: Device,
    packed: bool,
    leaf: bool,
    source: Option<(Arc<Node>, usize)>,
}

/// A tensor's identity: clones share it, views and results have their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TensorId(u64);

impl TensorId {
    fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// # Making tensors
impl Tensor {
    /// A tensor from host values in row-major order.
    ///
    /// Errors: `values` are not as many as the shape has elements; the device has no memory.
    pub fn from_slice<T: Element>(values: &[T], shape: impl Into<Shape>, device: &Device) -> Result<Self> {
        Self::from_bytes(bytemuck::cast_slice(values), T::DTYPE, shape, device)
    }

    /// A tensor from host bytes: little-endian elements or blocks in row-major order.
    ///
    /// Errors: the bytes are not as many as dtype and shape take; a block dtype's last axis is no whole number of blocks.
    pub fn from_bytes(bytes: &[u8], dtype: DType, shape: impl Into<Shape>, device: &Device) -> Result<Self> {
        let layout = layout_for("from_bytes", shape.into(), dtype, Some(bytes.len()))?;
        Ok(Self::new(device.backend().upload(bytes)?, layout, dtype, device))
    }

    /// As [`from_bytes`](Self::from_bytes), but the device may use the bytes in place: a mapped file is not copied by the CPU.
    pub fn from_host(bytes: Arc<dyn HostBytes>, dtype: DType, shape: impl Into<Shape>, device: &Device) -> Result<Self> {
        let layout = layout_for("from_host", shape.into(), dtype, Some(bytes.bytes().len()))?;
        Ok(Self::new(device.backend().adopt(bytes)?, layout, dtype, device))
    }

    /// A tensor of zeros (for blocks: of zero bytes, which decode to zeros).
    pub fn zeros(shape: impl Into<Shape>, dtype: DType, device: &Device) -> Result<Self> {
        let shape = shape.into();
        if dtype.block().is_some() {
            let layout = layout_for("zeros", shape, dtype, None)?;
            let bytes = vec![0; dtype.bytes_for(shape.elements()).expect("checked with the layout")];
            return Ok(Self::new(device.backend().upload(&bytes)?, layout, dtype, device));
        }
        Self::full(0.0, shape, dtype, device)
    }

    /// A tensor of one value, rounded to the dtype.
    pub fn full(value: f64, shape: impl Into<Shape>, dtype: DType, device: &Device) -> Result<Self> {
        Op::Fill(Fill { shape: shape.into(), dtype, value }).apply_on(device, &[])?.one()
    }

    /// `0, 1, .., n - 1`, u32.
    pub fn arange(n: usize, device: &Device) -> Result<Self> {
        Op::Arange(Arange { length: n }).apply_on(device, &[])?.one()
    }

    /// Memory for an op's result, with any content.
    pub(crate) fn uninitialized(shape: Shape, dtype: DType, device: &Device, op: &'static str) -> Result<Self> {
        let layout = layout_for(op, shape, dtype, None)?;
        let bytes = dtype.bytes_for(shape.elements()).expect("checked with the layout");
        Ok(Self::new(device.backend().alloc(bytes)?, layout, dtype, device))
    }

    fn new(buffer: Buffer, layout: Layout, dtype: DType, device: &Device) -> Self {
        let (id, device) = (TensorId::next(), device.clone());
        Self(Arc::new(Inner { id, buffer, layout, dtype, device, packed: false, leaf: false, source: None }))
    }

    /// Another view of this tensor's buffer.
    pub(crate) fn view(&self, layout: Layout) -> Self {
        let Inner { buffer, dtype, device, packed, .. } = &*self.0;
        let (id, buffer, device) = (TensorId::next(), buffer.clone(), device.clone());
        Self(Arc::new(Inner { id, buffer, layout, dtype: *dtype, device, packed: *packed, leaf: false, source: None }))
    }

    pub(crate) fn recorded(self, node: &Arc<Node>, output: usize) -> Self {
        let mut tensor = self.detach();
        let inner = Arc::get_mut(&mut tensor.0).expect("just made");
        inner.source = Some((node.clone(), output));
        tensor
    }
}

fn layout_for(place: &'static str, shape: Shape, dtype: DType, bytes: Option<usize>) -> Result<Layout> {
    let fail = |message| Err(Error::new(Kind::Shape, place, message));
    let Some(elements) = shape.checked_elements() else {
        return fail(format!("{shape} has more elements than fit the address space"));
    };
    let Some(layout) = Layout::contiguous(shape, dtype) else {
        return fail(format!(
            "{dtype} stores blocks of {} values along the last axis; {shape} does not divide into them",
            dtype.unit()
        ));
    };
    let Some(needed) = dtype.bytes_for(elements).filter(|&n| n <= isize::MAX as usize) else {
        return fail(format!("{shape} {dtype} takes more bytes than fit the address space"));
    };
    match bytes {
        Some(given) if given != needed => fail(format!("{shape} {dtype} takes {needed} bytes, {given} given")),
        _ => Ok(layout),
    }
}

/// # What a tensor is
impl Tensor {
    /// Its identity.
    pub fn id(&self) -> TensorId {
        self.0.id
    }

    /// The length of each axis.
    pub fn shape(&self) -> &Shape {
        self.0.layout.shape()
    }

    /// The length of one axis, counted from the first.
    ///
    /// # Panics
    /// Where there is no such axis.
    pub fn dim(&self, axis: usize) -> usize {
        self.shape()[axis]
    }

    /// The number of axes.
    pub fn rank(&self) -> usize {
        self.shape().rank()
    }

    /// The number of elements.
    pub fn elements(&self) -> usize {
        self.shape().elements()
    }

    /// The dtype.
    pub fn dtype(&self) -> DType {
        self.0.dtype
    }

    /// The device.
    pub fn device(&self) -> &Device {
        &self.0.device
    }

    /// Where its elements lie in the buffer.
    pub fn layout(&self) -> &Layout {
        &self.0.layout
    }

    /// The memory behind it.
    pub fn buffer(&self) -> &Buffer {
        &self.0.buffer
    }

    /// Whether it is a weight in the device's own order: see [`pack`](Self::pack).
    pub fn is_packed(&self) -> bool {
        self.0.packed
    }

    /// The range of the buffer that a contiguous tensor occupies, in bytes.
    ///
    /// # Panics
    /// Where the tensor is not contiguous.
    pub fn byte_range(&self) -> Range<usize> {
        assert!(self.layout().is_contiguous(), "a strided view has no one range");
        let (unit, unit_bytes) = (self.dtype().unit(), self.dtype().unit_bytes());
        let start = self.layout().offset() / unit * unit_bytes;
        start..start + self.elements() / unit * unit_bytes
    }
}

/// # Autograd
impl Tensor {
    /// The same values as a leaf that gradients are formed for: a parameter.
    pub fn tracked(&self) -> Self {
        let mut tensor = self.detach();
        Arc::get_mut(&mut tensor.0).expect("just made").leaf = true;
        tensor
    }

    /// The same values, without history.
    pub fn detach(&self) -> Self {
        self.view(*self.layout())
    }

    /// Whether a gradient flows to it: a tracked leaf, or computed from one.
    pub fn is_tracked(&self) -> bool {
        self.0.leaf || self.0.source.is_some()
    }

    /// The node whose result it is, and which result; `None` for leaves.
    pub fn source(&self) -> Option<(&Arc<Node>, usize)> {
        self.0.source.as_ref().map(|(node, output)| (node, *output))
    }
}

/// # Weights
impl Tensor {
    /// A weight `[N, K]` in the order in which the device's kernels read it, or itself where there is no other.
    ///
    /// The result is opaque: only `linear` and its kin, `gather_rows` and [`unpack`](Self::unpack) take it. Drop the original,
    /// and nothing is held twice.
    pub fn pack(&self) -> Result<Self> {
        if self.is_packed() {
            return Ok(self.clone());
        }
        if self.rank() != 2 || !(self.dtype().is_float() || self.dtype().block().is_some()) {
            let message = format!("weights are [N, K] of floats or blocks; this is {} {}", self.shape(), self.dtype());
            return Err(Error::new(Kind::Shape, "pack", message).with_arguments(&[self]));
        }
        let Some(buffer) = self.device().backend().pack(self)? else { return Ok(self.clone()) };
        let layout = layout_for("pack", *self.shape(), self.dtype(), None)?;
        let mut packed = Self::new(buffer, layout, self.dtype(), self.device());
        Arc::get_mut(&mut packed.0).expect("just made").packed = true;
        Ok(packed)
    }
}

/// # Writing
impl Tensor {
    /// Overwrites the elements from `at` on, in row-major order, after all that was enqueued before.
    ///
    /// Errors: `T` is not the dtype; a view that is not contiguous; more values than there are behind `at`; the result of a recorded op.
    pub fn write<T: Element>(&self, at: usize, values: &[T]) -> Result<()> {
        self.check_element::<T>("write")?;
        let fail = |kind, message: String| Err(Error::new(kind, "write", message).with_arguments(&[self]));
        if !self.layout().is_contiguous() {
            return fail(Kind::Argument, "a strided view is not written; contiguous() or another view would be right".into());
        }
        if self.source().is_some() {
            return fail(Kind::InPlace, "the result of a recorded op may not be changed; detach() first".into());
        }
        if at > self.elements() || values.len() > self.elements() - at {
            return fail(Kind::Shape, format!("{} values from place {at} on of {}", values.len(), self.elements()));
        }
        let at = self.byte_range().start + at * size_of::<T>();
        self.device().backend().write(self.buffer(), at, bytemuck::cast_slice(values))?;
        self.buffer().changed();
        Ok(())
    }
}

/// Elements on their way to the host: [`Tensor::fetch`].
pub struct Fetch<T> {
    arrival: Box<dyn Arrival>,
    element: PhantomData<T>,
}

impl<T: Element> Fetch<T> {
    /// Waits for them, in row-major order, and for nothing that was enqueued later.
    pub fn wait(self) -> Result<Vec<T>> {
        Ok(bytemuck::pod_collect_to_vec(&self.arrival.wait()?))
    }

    /// Until they are there, without blocking; [`wait`](Self::wait) gives them then at once. Where no thread can wait (in a browser), this comes
    /// first.
    pub async fn arrived(&mut self) -> Result<()> {
        std::future::poll_fn(|context| self.poll_arrived(context)).await
    }

    /// Whether they are there, as a future says it.
    pub fn poll_arrived(&mut self, context: &mut Context<'_>) -> Poll<Result<()>> {
        self.arrival.poll_arrived(context)
    }
}

impl<T> fmt::Debug for Fetch<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fetch")
    }
}

/// # Reading
impl Tensor {
    /// The elements in row-major order. Waits for the device.
    ///
    /// Errors: `T` is not the dtype (use [`cast`](Self::cast)).
    pub fn to_vec<T: Element>(&self) -> Result<Vec<T>> {
        self.check_element::<T>("to_vec")?;
        let mut values = vec![T::zeroed(); self.elements()];
        self.read_into(bytemuck::cast_slice_mut(&mut values))?;
        Ok(values)
    }

    /// The only element of a tensor that has one.
    ///
    /// Errors: more or fewer elements; `T` is not the dtype.
    pub fn item<T: Element>(&self) -> Result<T> {
        if self.elements() != 1 {
            let message = format!("{} has {} elements; item takes one", self.shape(), self.elements());
            return Err(Error::new(Kind::Shape, "item", message).with_arguments(&[self]));
        }
        Ok(self.to_vec()?[0])
    }

    /// The bytes of the elements or blocks in row-major order; of a packed weight, those it was packed from.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let tensor = self.unpack()?;
        let bytes = tensor.dtype().bytes_for(tensor.elements()).expect("checked when the tensor was made");
        let mut into = vec![0; bytes];
        tensor.read_into(&mut into)?;
        Ok(into)
    }

    fn read_into(&self, into: &mut [u8]) -> Result<()> {
        let tensor = crate::no_grad(|| self.contiguous())?;
        tensor.device().backend().download(tensor.buffer(), tensor.byte_range(), into)
    }

    /// Begins to copy the elements to the host; what is enqueued later does not change what arrives.
    ///
    /// Errors: `T` is not the dtype.
    pub fn fetch<T: Element>(&self) -> Result<Fetch<T>> {
        self.check_element::<T>("fetch")?;
        let tensor = crate::no_grad(|| self.contiguous())?;
        let arrival = tensor.device().backend().fetch(tensor.buffer(), tensor.byte_range())?;
        Ok(Fetch { arrival, element: PhantomData })
    }

    fn check_element<T: Element>(&self, place: &'static str) -> Result<()> {
        if T::DTYPE == self.dtype() {
            return Ok(());
        }
        let message = format!("the tensor is {}, not {}; cast(DType::{:?}) would fit", self.dtype(), T::DTYPE, T::DTYPE);
        Err(Error::new(Kind::DType, place, message).with_arguments(&[self]))
    }

    /// A copy on another device; itself if it is there. History does not cross.
    pub fn to_device(&self, device: &Device) -> Result<Self> {
        if self.device() == device {
            return Ok(self.clone());
        }
        Self::from_bytes(&self.to_bytes()?, self.dtype(), *self.shape(), device)
    }
}

impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let packed = if self.is_packed() { ", packed" } else { "" };
        write!(f, "Tensor({} {} on {}{packed})", self.shape(), self.dtype(), self.device().name())
    }
}
