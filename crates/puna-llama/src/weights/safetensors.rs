//! safetensors: a JSON header that describes tensors, then their bytes without gaps.
//!
//! <https://github.com/huggingface/safetensors>

use std::collections::HashSet;
use std::fmt;

use puna_bytes::Reader;
use puna_tensor::DType;
use serde::Deserialize;
use serde::de::{Error as _, IgnoredAny, MapAccess, Visitor};

use crate::error::{Error, Result};
use crate::weights::mmap::MappedFile;
use crate::weights::tensor::{Part, StoredType, TensorInfo};

/// The format's own limit on the header's length.
const MOST_HEADER_BYTES: u64 = 100_000_000;

/// Describes the tensors of a file. Names are as stored.
///
/// Errors: a header that is cut, too large, no JSON or has a name twice; a tensor whose bytes are not as many as dtype and shape
/// take; tensors that overlap, leave gaps or reach beyond the file.
pub fn parse(file: &MappedFile) -> Result<Vec<TensorInfo>> {
    let place = file.name();
    let mut reader = Reader::new(file.as_ref());
    let wrong = |e: puna_bytes::Error| Error::bytes(&place, e);
    let length = reader.u64_le("header length").map_err(wrong)?;
    if length > MOST_HEADER_BYTES {
        return Err(Error::format(&place, format!("a header of {length} bytes; the format allows {MOST_HEADER_BYTES}")));
    }
    let header = reader.bytes("header", length).map_err(wrong)?;
    let data_start = 8 + length as usize;
    let data_bytes = reader.left() as u64;
    let Header(entries) = serde_json::from_slice(header)
        .map_err(|e| Error::format(&place, format!("the header is not what the format allows: {e}")).with_source(e))?;

    check_offsets(&place, &entries, data_bytes)?;
    entries.into_iter().map(|(name, entry)| describe(file, &place, data_start, name, entry)).collect()
}

/// One tensor, whose offsets are known to lie in the file.
fn describe(file: &MappedFile, place: &str, data_start: usize, name: String, entry: Entry) -> Result<TensorInfo> {
    let [start, end] = entry.data_offsets;
    let (dtype, size) = dtype(&entry.dtype);
    let elements = entry.shape.iter().try_fold(1u64, |product, &length| product.checked_mul(length));
    if let Some(size) = size {
        let bits = elements.and_then(|n| n.checked_mul(size));
        if bits.is_none_or(|bits| bits % 8 != 0 || bits / 8 != end - start) {
            let takes = bits.map_or("more than 2^64 bits".to_owned(), |bits| format!("{} bytes", bits.div_ceil(8)));
            let (shape, dtype) = (&entry.shape, &entry.dtype);
            let message =
                format!("{name} is {shape:?} {dtype}, which takes {takes}, but its bytes {start} to {end} are {}", end - start);
            return Err(Error::format(place, message));
        }
    }
    let shape: Option<Vec<usize>> = entry.shape.iter().map(|&length| usize::try_from(length).ok()).collect();
    let bytes = file.slice(data_start + start as usize..data_start + end as usize);
    let (Some(shape), Some(bytes)) = (shape, bytes) else {
        return Err(Error::format(place, format!("{name}: shape {:?} does not fit the address space", entry.shape)));
    };
    let parts = vec![Part { bytes, shape: shape.clone(), strides: None }];
    Ok(TensorInfo { stored_name: name.clone(), name, dtype, shape, parts, axis: 0 })
}

/// The tensors' bytes are the whole rest of the file, each byte once.
fn check_offsets(place: &str, entries: &[(String, Entry)], data_bytes: u64) -> Result<()> {
    let mut ordered: Vec<(&str, [u64; 2])> = entries.iter().map(|(name, entry)| (name.as_str(), entry.data_offsets)).collect();
    ordered.sort_by_key(|(_, offsets)| *offsets);
    let mut expected = 0;
    for (name, [start, end]) in ordered {
        let fault = if end < start {
            "its end lies before its start"
        } else if end > data_bytes {
            "that is beyond the end"
        } else if start < expected {
            "that overlaps the tensor before"
        } else if start > expected {
            "that leaves a gap behind the tensor before"
        } else {
            expected = end;
            continue;
        };
        let message = format!("{name} has bytes {start} to {end} of {data_bytes}: {fault}, which ends at {expected}");
        return Err(Error::format(place, message));
    }
    if expected != data_bytes {
        let message = format!("the tensors take {expected} bytes, but {data_bytes} follow the header");
        return Err(Error::format(place, message));
    }
    Ok(())
}

/// A dtype by the format's name for it, and its bits an element where they are known.
fn dtype(name: &str) -> (StoredType, Option<u64>) {
    let known = |dtype: DType| (StoredType::DType(dtype), Some(8 * dtype.unit_bytes() as u64));
    let other = |bits| (StoredType::Other(name.to_owned()), Some(bits));
    match name {
        "F64" => known(DType::F64),
        "F32" => known(DType::F32),
        "F16" => known(DType::F16),
        "BF16" => known(DType::BF16),
        "I64" => known(DType::I64),
        "U32" => known(DType::U32),
        "U8" => known(DType::U8),
        "U64" | "C64" => other(64),
        "I32" => other(32),
        "I16" | "U16" => other(16),
        "I8" | "BOOL" | "F8_E4M3" | "F8_E5M2" | "F8_E8M0" | "F8_E4M3FNUZ" | "F8_E5M2FNUZ" => other(8),
        "F6_E2M3" | "F6_E3M2" => other(6),
        "F4" => other(4),
        // A dtype of a later version of the format: its size is unknown, so only its offsets are checked.
        _ => (StoredType::Other(name.chars().take(40).collect()), None),
    }
}

#[derive(Deserialize)]
struct Entry {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: [u64; 2],
}

/// The entries in the file's order. A name that comes twice is an error: a map would keep the last silently.
struct Header(Vec<(String, Entry)>);

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Header;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of tensors")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Header, A::Error> {
                let (mut entries, mut names) = (Vec::new(), HashSet::new());
                while let Some(name) = map.next_key::<String>()? {
                    if !names.insert(name.clone()) {
                        return Err(A::Error::custom(format!("{name:?} comes twice")));
                    }
                    if name == "__metadata__" {
                        map.next_value::<IgnoredAny>()?;
                    } else {
                        let entry = map.next_value::<Entry>()?;
                        entries.push((name, entry));
                    }
                }
                Ok(Header(entries))
            }
        }
        deserializer.deserialize_map(Entries)
    }
}
