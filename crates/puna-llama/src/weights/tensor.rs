//! A tensor as a checkpoint stores it: its name, dtype and shape, and where its bytes lie.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use puna_tensor::op::RopePairs;
use puna_tensor::{DType, Device, Shape, Tensor};

use crate::error::{Error, Kind, Result};
use crate::weights::mmap::FileBytes;

/// What a file says its tensor's elements are.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum StoredType {
    /// One that puna computes with.
    DType(DType),
    /// One that it does not, by the file's name for it. No error until a model needs the tensor.
    Other(String),
}

impl fmt::Display for StoredType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DType(dtype) => f.write_str(dtype.name()),
            Self::Other(name) => f.write_str(name),
        }
    }
}

/// A tensor of a checkpoint. Nothing of it has been read.
#[derive(Debug, Clone)]
pub struct TensorInfo {
    /// Hugging Face's name for it; the stored one where the table has none.
    pub name: String,
    /// The name in the file.
    pub stored_name: String,
    /// What its elements are.
    pub dtype: StoredType,
    /// The length of each axis, slowest first.
    pub shape: Vec<usize>,
    /// Where its bytes lie: one part, or several to be joined along `axis`.
    pub parts: Vec<Part>,
    /// The axis along which parts are joined.
    pub axis: usize,
}

/// A part of a tensor in one file.
#[derive(Debug, Clone)]
pub struct Part {
    /// The bytes that hold it.
    pub bytes: FileBytes,
    /// The length of each of its axes.
    pub shape: Vec<usize>,
    /// Elements from one index to the next on each axis, where they do not lie row-major and without gaps.
    pub strides: Option<Vec<usize>>,
}

impl TensorInfo {
    /// The dtype.
    ///
    /// Errors: one that puna does not compute with.
    pub fn dtype(&self) -> Result<DType> {
        match &self.dtype {
            StoredType::DType(dtype) => Ok(*dtype),
            StoredType::Other(name) => {
                let known: Vec<_> = DType::all().map(DType::name).collect();
                let message =
                    format!("{} is {name}, which puna does not compute with; it does with {}", self.name, known.join(", "));
                Err(Error::unsupported(self.file(), message))
            }
        }
    }

    /// The name of the file that holds it, or the first part of it.
    pub fn file(&self) -> String {
        self.parts.first().map(|part| part.bytes.file().name()).unwrap_or_default()
    }

    /// How many elements it has.
    pub fn elements(&self) -> usize {
        // An axis of 0 makes it empty, however long the others claim to be.
        if self.shape.contains(&0) {
            0
        } else {
            self.shape.iter().fold(1, |product: usize, length| product.saturating_mul(*length))
        }
    }

    /// How many bytes it takes, as the files hold it.
    pub fn stored_bytes(&self) -> usize {
        self.parts.iter().map(|part| part.bytes.range().len()).sum()
    }

    /// Its bytes where they lie in one piece, row-major: a device may use them in place.
    pub fn contiguous(&self) -> Option<&FileBytes> {
        match self.parts.as_slice() {
            [Part { bytes, strides: None, .. }] => Some(bytes),
            _ => None,
        }
    }

    /// Its elements or blocks, little-endian, row-major: borrowed from the file where they lie so, else gathered.
    ///
    /// Errors: a dtype that puna does not compute with, in a tensor that has to be gathered.
    pub fn bytes(&self) -> Result<Cow<'_, [u8]>> {
        match self.contiguous() {
            Some(bytes) => Ok(Cow::Borrowed(bytes.as_ref())),
            None => {
                let mut gathered = Vec::new();
                self.read(&mut gathered)?;
                Ok(Cow::Owned(gathered))
            }
        }
    }

    /// As [`bytes`](Self::bytes), into a buffer that can serve again.
    pub fn read(&self, into: &mut Vec<u8>) -> Result<()> {
        into.clear();
        if let Some(bytes) = self.contiguous() {
            into.extend_from_slice(bytes.as_ref());
            return Ok(());
        }
        let size = self.dtype()?.unit_bytes();
        // Rows are what is in front of the axis; each part gives its run of every row.
        let rows: usize = self.shape[..self.axis].iter().product();
        let gathered: Vec<Cow<'_, [u8]>> = self.parts.iter().map(|part| part.gather(size)).collect();
        into.reserve(gathered.iter().map(|part| part.len()).sum());
        for row in 0..rows {
            for part in &gathered {
                let run = part.len() / rows;
                into.extend_from_slice(&part[row * run..][..run]);
            }
        }
        Ok(())
    }

    /// The tensor on a device: in place where the device can and the bytes lie in one piece.
    ///
    /// Errors: a dtype that puna does not compute with; what the device says.
    pub fn load(&self, device: &Device) -> Result<Tensor> {
        let dtype = self.dtype()?;
        let Some(shape) = Shape::new(&self.shape) else {
            let message = format!("{} has {} axes; tensors have at most {}", self.name, self.shape.len(), puna_tensor::MAX_RANK);
            return Err(Error::new(Kind::Misshapen, self.file(), message));
        };
        Ok(match self.contiguous() {
            Some(bytes) => Tensor::from_host(Arc::new(bytes.clone()), dtype, shape, device)?,
            None => Tensor::from_bytes(&self.bytes()?, dtype, shape, device)?,
        })
    }
}

impl Part {
    /// The elements in row-major order, of `size` bytes each.
    fn gather(&self, size: usize) -> Cow<'_, [u8]> {
        let bytes = self.bytes.as_ref();
        let Some(strides) = &self.strides else { return Cow::Borrowed(bytes) };
        let elements: usize = self.shape.iter().product();
        let mut gathered = Vec::with_capacity(elements * size);
        let mut index = vec![0usize; self.shape.len()];
        for _ in 0..elements {
            let at: usize = index.iter().zip(strides).map(|(i, stride)| i * stride).sum();
            gathered.extend_from_slice(&bytes[at * size..][..size]);
            for (i, length) in index.iter_mut().zip(&self.shape).rev() {
                *i += 1;
                if *i < *length {
                    break;
                }
                *i = 0;
            }
        }
        Cow::Owned(gathered)
    }
}

/// Rows of q or k (or the elements of their biases) from one rotary pairing to the other, within heads of `head_dim` rows.
///
/// Whole rows move, so blocks stay as they are. `bytes` is `[heads * head_dim, columns]` in any dtype.
///
/// # Panics
/// Where `bytes` is no whole number of heads.
pub fn reorder_pairs(bytes: &[u8], heads: usize, head_dim: usize, from: RopePairs, to: RopePairs) -> Vec<u8> {
    assert!(heads > 0 && head_dim > 0 && bytes.len() % (heads * head_dim) == 0, "bytes are a whole number of heads");
    let row = bytes.len() / (heads * head_dim);
    let half = head_dim / 2;
    let mut out = Vec::with_capacity(bytes.len());
    for head in 0..heads {
        for r in 0..head_dim {
            let source = match (from, to) {
                (RopePairs::Interleaved, RopePairs::Halves) => 2 * (r % half) + r / half,
                (RopePairs::Halves, RopePairs::Interleaved) => r / 2 + r % 2 * half,
                _ => r,
            };
            out.extend_from_slice(&bytes[(head * head_dim + source) * row..][..row]);
        }
    }
    out
}
