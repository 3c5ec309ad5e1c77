//! GGUF, versions 2 and 3: typed metadata, tensor descriptions, aligned bytes.
//!
//! <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>

mod tokenizer;
mod types;
mod value;

use std::collections::HashSet;
use std::ops::Range;
use std::path::{Path, PathBuf};

use puna_bytes::Reader;

use crate::error::{Error, Result};
use crate::weights::mmap::MappedFile;
use crate::weights::tensor::{Part, StoredType, TensorInfo};

pub use tokenizer::{GgufTokenizer, tokenizer_metadata};
pub use types::{GgmlType, TYPES};
use value::scalar;
pub use value::{Array, Value, ValueKind};

/// The bytes that a GGUF file begins with.
pub const MAGIC: [u8; 4] = *b"GGUF";
/// Where tensors begin if the metadata does not say otherwise.
pub const DEFAULT_ALIGNMENT: u64 = 32;
/// More than any file has; a power of two.
const MOST_ALIGNMENT: u64 = 1 << 16;
/// As many axes as the format's own library has.
const MOST_AXES: u32 = 4;

/// A GGUF file: its metadata, and its tensors described.
#[derive(Debug, Clone)]
pub struct Gguf {
    file: MappedFile,
    version: u32,
    entries: Vec<Entry>,
    tensors: Vec<TensorInfo>,
}

#[derive(Debug, Clone)]
struct Entry {
    key: String,
    kind: ValueKind,
    /// For arrays: the type of its elements and their number.
    array: Option<(ValueKind, usize)>,
    /// The value's bytes in the file; an array's elements.
    range: Range<usize>,
}

impl Gguf {
    /// Reads metadata and tensor descriptions.
    ///
    /// Errors: no GGUF, another version or byte order; a count that the file cannot back; a key or name twice; an alignment that is
    /// no power of two from 8 to 65536; tensors that overlap, are misaligned or reach beyond the file.
    pub fn parse(file: &MappedFile) -> Result<Self> {
        let place = file.name();
        parse(file).map_err(|e| Error::bytes(place, e))
    }

    /// Opens a file and, if it is one of a split model (`-00002-of-00003.gguf`), all the others, in order.
    ///
    /// Errors: as [`parse`](Self::parse); a file of the split that is not there or says another number.
    pub fn open_all(path: &Path) -> Result<Vec<Self>> {
        let mut all = Vec::new();
        for path in split_paths(path) {
            all.push(Self::parse(&MappedFile::open(&path)?)?);
        }
        for (i, part) in all.iter().enumerate() {
            let (count, number) = (part.integer("split.count"), part.integer("split.no"));
            let is_whole = all.len() == 1 && count.is_none_or(|count| count <= 1);
            if !is_whole && (count != Some(all.len() as u64) || number != Some(i as u64)) {
                let shown = |n: Option<u64>| n.map_or("not given".to_owned(), |n| n.to_string());
                let message = format!(
                    "by its name part {} of {}, but split.count is {} and split.no {} (counted from 0)",
                    i + 1,
                    all.len(),
                    shown(count),
                    shown(number)
                );
                return Err(Error::format(part.file.name(), message));
            }
        }
        Ok(all)
    }

    /// The file.
    pub fn file(&self) -> &MappedFile {
        &self.file
    }

    /// The version of the format: 2 or 3.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// The tensors, by the file's names.
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    /// Every key of the metadata with its value, in the file's order.
    pub fn metadata(&self) -> impl Iterator<Item = (&str, Value<'_>)> {
        self.entries.iter().map(|entry| (entry.key.as_str(), self.value(entry)))
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<Value<'_>> {
        self.entries.iter().find(|entry| entry.key == key).map(|entry| self.value(entry))
    }

    /// The type of a key's value.
    pub fn kind(&self, key: &str) -> Option<ValueKind> {
        self.entries.iter().find(|entry| entry.key == key).map(|entry| entry.kind)
    }

    /// The value of a key, if it is an integer from 0 to 2^64 - 1.
    pub fn integer(&self, key: &str) -> Option<u64> {
        match self.get(key)? {
            Value::Integer(value) => u64::try_from(value).ok(),
            _ => None,
        }
    }

    /// The value of a key, if it is a text.
    pub fn string(&self, key: &str) -> Option<&str> {
        match self.get(key)? {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    /// The value of a key, if it is an array.
    pub fn array(&self, key: &str) -> Option<Array<'_>> {
        match self.get(key)? {
            Value::Array(array) => Some(array),
            _ => None,
        }
    }

    fn value(&self, entry: &Entry) -> Value<'_> {
        let bytes = &self.file.as_ref()[entry.range.clone()];
        match (entry.kind, entry.array) {
            (_, Some((kind, length))) => Value::Array(Array { kind, length, bytes }),
            // Checked when the file was opened; a file that another process changes since may give an empty text.
            (ValueKind::String, _) => Value::String(std::str::from_utf8(bytes).unwrap_or_default()),
            (kind, None) => scalar(kind, bytes),
        }
    }
}

type BytesResult<T> = puna_bytes::Result<T>;

fn parse(file: &MappedFile) -> BytesResult<Gguf> {
    let mut r = Reader::new(file.as_ref());
    let start = r.clone();
    if r.array::<4>("magic")? != MAGIC {
        return Err(start.invalid("magic", "not GGUF"));
    }
    let at_version = r.clone();
    let version = r.u32_le("version")?;
    match version {
        2 | 3 => {}
        0x0200_0000 | 0x0300_0000 => {
            return Err(at_version.invalid("version", "the file is big-endian; little-endian ones are read"));
        }
        1 => return Err(at_version.invalid("version", "1, which has no 64-bit lengths; 2 and 3 are read")),
        other => return Err(at_version.invalid("version", format!("{other}; 2 and 3 are read"))),
    }
    let tensor_count = r.u64_le("tensor count")?;
    let metadata_count = r.u64_le("metadata count")?;
    // The shortest entry: an empty key, a type, a byte.
    let metadata_count = r.count("metadata", metadata_count, 13)?;
    let mut entries = Vec::with_capacity(metadata_count);
    let mut keys = HashSet::new();
    for _ in 0..metadata_count {
        let before = r.clone();
        let (key, entry) = entry(&mut r)?;
        if !keys.insert(key) {
            return Err(before.invalid("metadata key", format!("{:?} comes twice", shorten(key))));
        }
        entries.push(entry);
    }
    drop(keys);
    let alignment = alignment(file, &entries, &r)?;
    // The shortest description: an empty name, one axis, its length, a type, an offset.
    let tensor_count = r.count("tensors", tensor_count, 32)?;
    let mut described = Vec::with_capacity(tensor_count);
    let mut names = HashSet::new();
    for _ in 0..tensor_count {
        let before = r.clone();
        let tensor = describe(&mut r, alignment)?;
        if !names.insert(tensor.name) {
            return Err(before.invalid("tensor name", format!("{:?} comes twice", shorten(tensor.name))));
        }
        described.push(tensor);
    }
    drop(names);
    if !described.is_empty() {
        r.align("padding before tensors", alignment as usize)?;
    }
    let data_start = r.position() as usize;
    let data_bytes = r.left() as u64;
    check_ranges(&r, &described, data_bytes)?;
    let tensors = described
        .into_iter()
        .map(|tensor| {
            let start = data_start + tensor.offset as usize;
            let bytes = file.slice(start..start + tensor.bytes as usize).expect("checked against the bytes there are");
            let parts = vec![Part { bytes, shape: tensor.shape.clone(), strides: None }];
            let (name, stored_name) = (tensor.name.to_owned(), tensor.name.to_owned());
            TensorInfo { name, stored_name, dtype: tensor.dtype, shape: tensor.shape, parts, axis: 0 }
        })
        .collect();
    Ok(Gguf { file: file.clone(), version, entries, tensors })
}

fn entry<'a>(r: &mut Reader<'a>) -> BytesResult<(&'a str, Entry)> {
    let length = r.u64_le("metadata key length")?;
    let key = r.str("metadata key", length)?;
    let kind = value_kind(r, "metadata type")?;
    let (start, array) = match kind {
        ValueKind::String => {
            let length = r.u64_le("text length")?;
            let start = r.position();
            r.str("text", length)?;
            (start, None)
        }
        ValueKind::Array => {
            let before = r.clone();
            let element = value_kind(r, "array type")?;
            if element == ValueKind::Array {
                return Err(before.invalid("array type", "an array of arrays, which no model uses"));
            }
            let length = r.u64_le("array length")?;
            let length = r.count("array", length, element.bytes())?;
            let start = r.position();
            if element == ValueKind::String {
                for _ in 0..length {
                    let length = r.u64_le("text length")?;
                    r.skip("text", length)?;
                }
            } else {
                r.skip("array", length as u64 * element.bytes())?;
            }
            (start, Some((element, length)))
        }
        scalar => {
            let start = r.position();
            r.skip("value", scalar.bytes())?;
            (start, None)
        }
    };
    Ok((key, Entry { key: key.to_owned(), kind, array, range: start as usize..r.position() as usize }))
}

fn value_kind(r: &mut Reader<'_>, what: &str) -> BytesResult<ValueKind> {
    let before = r.clone();
    let id = r.u32_le(what)?;
    ValueKind::ALL
        .into_iter()
        .find(|kind| *kind as u32 == id)
        .ok_or_else(|| before.invalid(what, format!("{id}; types are 0 to 12")))
}

fn alignment(file: &MappedFile, entries: &[Entry], at: &Reader<'_>) -> BytesResult<u64> {
    let Some(entry) = entries.iter().find(|entry| entry.key == "general.alignment") else { return Ok(DEFAULT_ALIGNMENT) };
    let invalid = |message: String| Err(at.invalid("general.alignment", message));
    if entry.kind != ValueKind::U32 {
        return invalid(format!("its type is {:?}; U32 would be right", entry.kind));
    }
    match scalar(entry.kind, &file.as_ref()[entry.range.clone()]) {
        Value::Integer(value) if (8..=MOST_ALIGNMENT.into()).contains(&value) && (value as u64).is_power_of_two() => {
            Ok(value as u64)
        }
        Value::Integer(value) => invalid(format!("{value}; a power of two from 8 to {MOST_ALIGNMENT} would be right")),
        _ => unreachable!("a U32 is an integer"),
    }
}

struct Described<'a> {
    name: &'a str,
    shape: Vec<usize>,
    dtype: StoredType,
    /// From the start of the tensors' bytes.
    offset: u64,
    bytes: u64,
}

fn describe<'a>(r: &mut Reader<'a>, alignment: u64) -> BytesResult<Described<'a>> {
    let length = r.u64_le("tensor name length")?;
    let name = r.str("tensor name", length)?;
    let invalid = |r: &Reader<'_>, message: String| Err(r.invalid(&format!("tensor {:?}", shorten(name)), message));
    let before = r.clone();
    let axes = r.u32_le("number of axes")?;
    if !(1..=MOST_AXES).contains(&axes) {
        return invalid(&before, format!("{axes} axes; 1 to {MOST_AXES} would be right"));
    }
    // The file gives the fastest axis first.
    let mut lengths = Vec::with_capacity(axes as usize);
    for _ in 0..axes {
        lengths.push(r.u64_le("axis length")?);
    }
    let at_type = r.clone();
    let id = r.u32_le("tensor type")?;
    let at_offset = r.clone();
    let offset = r.u64_le("tensor offset")?;
    let Some(kind) = TYPES.into_iter().find(|kind| kind.id == id) else {
        return invalid(&at_type, format!("type {id}, which has no meaning that is known, so neither its size"));
    };
    let elements = lengths.iter().try_fold(1u64, |product, &length| product.checked_mul(length));
    let shape: Option<Vec<usize>> = lengths.iter().rev().map(|&length| usize::try_from(length).ok()).collect();
    let (Some(elements), Some(shape)) = (elements, shape) else {
        return invalid(&before, format!("axes {lengths:?} have more elements than 64 bits count"));
    };
    if lengths[0] % kind.values != 0 {
        let message = format!("rows of {} are no whole number of {} blocks of {}", lengths[0], kind.name, kind.values);
        return invalid(&before, message);
    }
    let Some(bytes) = (elements / kind.values).checked_mul(kind.bytes) else {
        return invalid(&before, format!("axes {lengths:?} of {} take more bytes than 64 bits count", kind.name));
    };
    if offset % alignment != 0 {
        return invalid(&at_offset, format!("offset {offset} is no multiple of the alignment {alignment}"));
    }
    let dtype = kind.dtype.map_or_else(|| StoredType::Other(kind.name.to_owned()), StoredType::DType);
    Ok(Described { name, shape, dtype, offset, bytes })
}

/// Every tensor lies within the bytes there are, and none shares any with another.
fn check_ranges(at: &Reader<'_>, tensors: &[Described<'_>], data_bytes: u64) -> BytesResult<()> {
    let mut ordered: Vec<&Described<'_>> = tensors.iter().collect();
    ordered.sort_by_key(|tensor| (tensor.offset, tensor.bytes));
    let mut end = 0;
    for tensor in ordered {
        let name = || format!("tensor {:?}", shorten(tensor.name));
        if tensor.offset < end {
            let message = format!(
                "it begins at {} within the tensors' bytes, where the one before ends at {end}: they overlap",
                tensor.offset
            );
            return Err(at.invalid(&name(), message));
        }
        match tensor.offset.checked_add(tensor.bytes).filter(|end| *end <= data_bytes) {
            Some(next) => end = next,
            None => {
                let message =
                    format!("{} bytes from {} on, but the tensors' bytes are {data_bytes}", tensor.bytes, tensor.offset);
                return Err(at.invalid(&name(), message));
            }
        }
    }
    Ok(())
}

/// A name short enough for a message.
fn shorten(name: &str) -> String {
    name.chars().take(80).collect()
}

/// The paths of a split model's files, from the path of any; a path that is none of a split is alone.
fn split_paths(path: &Path) -> Vec<PathBuf> {
    let alone = || vec![path.to_owned()];
    let Some(name) = path.file_name().and_then(|name| name.to_str()) else { return alone() };
    // PREFIX-00001-of-00003.gguf
    let number = |text: &str| text.parse::<u32>().ok().filter(|_| text.len() == 5 && text.bytes().all(|b| b.is_ascii_digit()));
    let Some((rest, count)) = name.strip_suffix(".gguf").and_then(|stem| stem.rsplit_once("-of-")) else { return alone() };
    let Some((prefix, part)) = rest.rsplit_once('-') else { return alone() };
    match (number(part), number(count)) {
        (Some(part), Some(count)) if part >= 1 && part <= count => (1..=count)
            .map(|i| path.with_file_name(format!("{prefix}-{i:05}-of-{count}.gguf", count = format_args!("{count:05}"))))
            .collect(),
        _ => alone(),
    }
}
