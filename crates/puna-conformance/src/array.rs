use half::{bf16, f16};
use puna_tensor::{DType, Tensor};

/// Values in row-major order on the host: what the reference computes on. `f64` for floats, `i128` for integers, `u32` for indices.
#[derive(Debug, Clone, PartialEq)]
pub struct Array<T = f64> {
    /// The length of each axis.
    pub shape: Vec<usize>,
    /// The elements.
    pub values: Vec<T>,
}

impl<T: Copy> Array<T> {
    /// An array of these values.
    ///
    /// # Panics
    /// Where the values are not as many as the shape says.
    pub fn new(shape: &[usize], values: Vec<T>) -> Self {
        assert_eq!(shape.iter().product::<usize>(), values.len(), "an array of {shape:?}");
        Self { shape: shape.to_vec(), values }
    }

    /// An array whose element at each index is given by a function.
    pub fn from_fn(shape: &[usize], mut f: impl FnMut(&[usize]) -> T) -> Self {
        Self::new(shape, indices(shape).map(|index| f(&index)).collect())
    }

    /// The element at an index.
    pub fn at(&self, index: &[usize]) -> T {
        self.values[self.place(index)]
    }

    /// Where the element at an index lies among the values.
    pub fn place(&self, index: &[usize]) -> usize {
        assert_eq!(index.len(), self.shape.len(), "index {index:?} of {:?}", self.shape);
        index.iter().zip(&self.shape).fold(0, |place, (&i, &length)| place * length + i)
    }

    /// The element at an index of a shape that this one broadcasts to, aligned at the last axis.
    pub fn broadcast_at(&self, index: &[usize]) -> T {
        let own = &index[index.len() - self.shape.len()..];
        let own: Vec<usize> = own.iter().zip(&self.shape).map(|(&i, &length)| if length == 1 { 0 } else { i }).collect();
        self.at(&own)
    }

    /// The same values, each through a function.
    pub fn map<U: Copy>(&self, f: impl FnMut(T) -> U) -> Array<U> {
        Array { shape: self.shape.clone(), values: self.values.iter().copied().map(f).collect() }
    }

    /// The same values with other axes.
    pub fn reshape(&self, shape: &[usize]) -> Self {
        Self::new(shape, self.values.clone())
    }

    /// Repeated to a shape, as broadcasting does.
    pub fn broadcast(&self, shape: &[usize]) -> Self {
        Self::from_fn(shape, |index| self.broadcast_at(index))
    }

    /// With the axes in another order.
    pub fn permute(&self, axes: &[usize]) -> Self {
        let shape: Vec<usize> = axes.iter().map(|&axis| self.shape[axis]).collect();
        let mut from = vec![0; axes.len()];
        Self::from_fn(&shape, |index| {
            axes.iter().zip(index).for_each(|(&axis, &i)| from[axis] = i);
            self.at(&from)
        })
    }

    /// The length of the last axis; 1 for a scalar.
    pub fn last(&self) -> usize {
        self.shape.last().copied().unwrap_or(1)
    }

    /// The product of all axes but the last.
    pub fn rows(&self) -> usize {
        self.shape[..self.shape.len().saturating_sub(1)].iter().product()
    }

    /// A row of the last axis.
    pub fn row(&self, row: usize) -> &[T] {
        let n = self.last();
        &self.values[row * n..(row + 1) * n]
    }
}

/// Every index of a shape, in row-major order.
pub fn indices(shape: &[usize]) -> impl Iterator<Item = Vec<usize>> + use<> {
    let shape = shape.to_vec();
    (0..shape.iter().product()).map(move |place| index_of(place, &shape))
}

/// The index of the element that lies at a place among the values.
pub fn index_of(mut place: usize, shape: &[usize]) -> Vec<usize> {
    let mut index = vec![0; shape.len()];
    for (i, &length) in index.iter_mut().zip(shape).rev() {
        (*i, place) = (place % length, place / length);
    }
    index
}

/// The elements of a float tensor, read on the host, exactly.
///
/// # Panics
/// Where the tensor is of no floats, or cannot be read.
#[track_caller]
pub fn floats(tensor: &Tensor) -> Array {
    let values = match tensor.dtype() {
        DType::F64 => tensor.to_vec::<f64>(),
        DType::F32 => tensor.to_vec::<f32>().map(|v| v.into_iter().map(f64::from).collect()),
        DType::F16 => tensor.to_vec::<f16>().map(|v| v.into_iter().map(f64::from).collect()),
        DType::BF16 => tensor.to_vec::<bf16>().map(|v| v.into_iter().map(f64::from).collect()),
        other => panic!("{other} was to be read as floats"),
    };
    Array::new(tensor.shape(), values.expect("a tensor is readable"))
}

/// The elements of an integer tensor, read on the host.
///
/// # Panics
/// Where the tensor is of no integers, or cannot be read.
#[track_caller]
pub fn integers(tensor: &Tensor) -> Array<i128> {
    let values = match tensor.dtype() {
        DType::I64 => tensor.to_vec::<i64>().map(|v| v.into_iter().map(i128::from).collect()),
        DType::U32 => tensor.to_vec::<u32>().map(|v| v.into_iter().map(i128::from).collect()),
        DType::U8 => tensor.to_vec::<u8>().map(|v| v.into_iter().map(i128::from).collect()),
        other => panic!("{other} was to be read as integers"),
    };
    Array::new(tensor.shape(), values.expect("a tensor is readable"))
}

/// The bytes of float values in a dtype that represents them exactly.
pub(crate) fn float_bytes(dtype: DType, values: &[f64]) -> Vec<u8> {
    let each = |f: &dyn Fn(f64) -> Vec<u8>| values.iter().flat_map(|&v| f(v)).collect();
    match dtype {
        DType::F64 => each(&|v| v.to_le_bytes().to_vec()),
        DType::F32 => each(&|v| (v as f32).to_le_bytes().to_vec()),
        DType::F16 => each(&|v| f16::from_f64(v).to_le_bytes().to_vec()),
        DType::BF16 => each(&|v| bf16::from_f64(v).to_le_bytes().to_vec()),
        other => panic!("{other} is no float"),
    }
}

/// The bytes of integers, wrapped to a dtype.
pub(crate) fn integer_bytes(dtype: DType, values: &[i128]) -> Vec<u8> {
    let each = |f: &dyn Fn(i128) -> Vec<u8>| values.iter().flat_map(|&v| f(v)).collect();
    match dtype {
        DType::I64 => each(&|v| (v as i64).to_le_bytes().to_vec()),
        DType::U32 => each(&|v| (v as u32).to_le_bytes().to_vec()),
        DType::U8 => each(&|v| vec![v as u8]),
        other => panic!("{other} is no integer"),
    }
}
