//! PyTorch's files: a zip archive with a pickled state dict and an entry of bytes for each storage.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use puna_tensor::DType;

use super::pickle::{self, PickledTensor, StorageKind};
use super::zip;
use crate::error::{Error, Result};
use crate::weights::mmap::MappedFile;
use crate::weights::tensor::{Part, StoredType, TensorInfo};

/// Describes the tensors of a file. Names are as stored; nothing in the file is run.
///
/// Errors: no zip archive (PyTorch before 1.6 wrote another format), compressed entries, big-endian storages; a pickle that needs
/// more than tensors do; a storage that its entry does not hold; a view beyond its storage.
pub fn parse(file: &MappedFile) -> Result<Vec<TensorInfo>> {
    let place = file.name();
    let bytes = file.as_ref();
    // A pickle of protocol 2 from its first byte: the format before zip archives.
    if bytes.starts_with(&[0x80, 0x02]) {
        let message = "the format of PyTorch before 1.6, which is not supported; torch.load and torch.save write the later one";
        return Err(Error::unsupported(place, message));
    }
    let wrong = |e: puna_bytes::Error| Error::bytes(&place, e);
    let entries = zip::entries(bytes).map_err(wrong)?;
    let mut pickles = entries.keys().filter_map(|name| name.strip_suffix("data.pkl")).filter(|prefix| prefix.ends_with('/'));
    let (Some(prefix), None) = (pickles.next(), pickles.next()) else {
        return Err(Error::format(&place, "the archive has not exactly one data.pkl; torch.save writes one"));
    };
    if let Some(order) = entries.get(format!("{prefix}byteorder").as_str()).filter(|range| &bytes[(*range).clone()] != b"little")
    {
        let order = String::from_utf8_lossy(&bytes[order.start..order.end.min(order.start + 20)]).into_owned();
        return Err(Error::unsupported(&place, format!("its byte order is {order:?}; \"little\" is supported")));
    }
    let pickle = &entries[format!("{prefix}data.pkl").as_str()];
    // The pickle is a nested reader: its offsets are moved to those in the file.
    let tensors = pickle::state_dict(&bytes[pickle.clone()]).map_err(|mut e| {
        e.at += pickle.start as u64;
        wrong(e)
    })?;
    let mut names = HashSet::new();
    let mut described = Vec::with_capacity(tensors.len());
    for tensor in tensors {
        if !names.insert(tensor.name) {
            return Err(Error::format(&place, format!("{} comes twice", tensor.name)));
        }
        let info = describe(file, &entries, prefix, &tensor)
            .map_err(|message| Error::format(&place, format!("{}: {message}", tensor.name)))?;
        described.push(info);
    }
    Ok(described)
}

fn describe(
    file: &MappedFile,
    entries: &HashMap<&str, Range<usize>>,
    prefix: &str,
    tensor: &PickledTensor<'_>,
) -> std::result::Result<TensorInfo, String> {
    let PickledTensor { name, storage, offset, shape, strides } = tensor;
    let size = storage.kind.bytes();
    let key = storage.key;
    let range =
        entries.get(format!("{prefix}data/{key}").as_str()).ok_or_else(|| format!("storage {key:?} is not in the archive"))?;
    if storage.elements.checked_mul(size) != Some(range.len() as u64) {
        let elements = storage.elements;
        return Err(format!("storage {key:?} is to hold {elements} elements of {size} bytes, but its entry has {}", range.len()));
    }
    let elements = shape.iter().try_fold(1u64, |product, &length| product.checked_mul(length));
    // One past the last element, counted from the start of the storage. An empty tensor has no last element.
    let last = shape.iter().zip(strides).try_fold(*offset, |last, (&length, &stride)| {
        length.saturating_sub(1).checked_mul(stride).and_then(|reach| last.checked_add(reach))
    });
    let end = if elements == Some(0) { Some(*offset) } else { last.and_then(|last| last.checked_add(1)) };
    // A view with stride 0 repeats elements: it would take more memory than the file has bytes, and no weight is one.
    let fits = elements.is_some_and(|n| n <= storage.elements) && end.is_some_and(|end| end <= storage.elements);
    if !fits {
        return Err(format!(
            "shape {shape:?} with strides {strides:?} from {offset} on does not fit its storage of {}",
            storage.elements
        ));
    }
    let elements = elements.expect("it fits");
    let mut expected = 1;
    let is_contiguous = elements == 0
        || shape.iter().zip(strides).rev().all(|(&length, &stride)| {
            let follows = length == 1 || stride == expected;
            expected *= length;
            follows
        });
    let whole = |values: &[u64]| -> Vec<usize> { values.iter().map(|&v| v as usize).collect() };
    let end = if is_contiguous { offset + elements } else { end.expect("it fits") };
    let bytes = file
        .slice(range.start + (offset * size) as usize..range.start + (end * size) as usize)
        .ok_or("the storage lies beyond the file")?;
    let shape = whole(shape);
    let part = Part { bytes, shape: shape.clone(), strides: (!is_contiguous).then(|| whole(strides)) };
    let (name, stored_name) = ((*name).to_owned(), (*name).to_owned());
    Ok(TensorInfo { name, stored_name, dtype: dtype(storage.kind), shape, parts: vec![part], axis: 0 })
}

fn dtype(kind: StorageKind) -> StoredType {
    match kind {
        StorageKind::Double => StoredType::DType(DType::F64),
        StorageKind::Float => StoredType::DType(DType::F32),
        StorageKind::Half => StoredType::DType(DType::F16),
        StorageKind::BFloat16 => StoredType::DType(DType::BF16),
        StorageKind::Long => StoredType::DType(DType::I64),
        StorageKind::Byte => StoredType::DType(DType::U8),
        StorageKind::Int => StoredType::Other("i32".into()),
        StorageKind::Short => StoredType::Other("i16".into()),
        StorageKind::Char => StoredType::Other("i8".into()),
        StorageKind::Bool => StoredType::Other("bool".into()),
    }
}
