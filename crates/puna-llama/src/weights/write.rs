//! Writing checkpoints: tensors are streamed, files appear whole or not at all.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use puna_tensor::DType;
use serde_json::{Map, Value, json};
use tempfile::NamedTempFile;

use super::gguf::{DEFAULT_ALIGNMENT, GgmlType, MAGIC, ValueKind};
use crate::error::{Error, Kind, Result};

/// A tensor that is to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorPlan {
    /// Its name in the file.
    pub name: String,
    /// What its elements are.
    pub dtype: DType,
    /// The length of each axis, slowest first.
    pub shape: Vec<usize>,
}

/// Gives a planned tensor's bytes: little-endian, row-major. It is called once for each, in order.
pub type Produce<'a> = dyn FnMut(&TensorPlan) -> Result<Vec<u8>> + 'a;

impl TensorPlan {
    /// How many bytes it takes.
    ///
    /// Errors: rows that are no whole number of blocks, a size beyond the address space.
    pub fn bytes(&self) -> Result<usize> {
        let row_fits = self.shape.last().copied().unwrap_or(1) % self.dtype.unit() == 0;
        let elements = self.shape.iter().try_fold(1usize, |product, &length| product.checked_mul(length));
        elements.filter(|_| row_fits).and_then(|n| self.dtype.bytes_for(n)).ok_or_else(|| {
            let message = format!("{:?} does not divide into {} of {}", self.shape, self.dtype, self.dtype.unit());
            Error::new(Kind::Misshapen, &self.name, message)
        })
    }

    fn produce(&self, produce: &mut Produce<'_>) -> Result<Vec<u8>> {
        let (bytes, expected) = (produce(self)?, self.bytes()?);
        if bytes.len() == expected {
            return Ok(bytes);
        }
        let message = format!("{} bytes produced, but {:?} {} takes {expected}", bytes.len(), self.shape, self.dtype);
        Err(Error::new(Kind::Misshapen, &self.name, message))
    }
}

/// Writes a file beside its place and moves it there when it is whole and on the disk.
///
/// Errors: what the operating system says; what `write` says.
pub fn atomically(path: &Path, write: impl FnOnce(&mut BufWriter<&File>) -> Result<()>) -> Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let temporary = NamedTempFile::new_in(folder).map_err(|e| Error::io(folder, "write into", e))?;
    let failed = |e: std::io::Error| Error::io(path, "write", e);
    let mut writer = BufWriter::with_capacity(1 << 20, temporary.as_file());
    write(&mut writer)?;
    writer.flush().map_err(failed)?;
    drop(writer);
    temporary.as_file().sync_all().map_err(failed)?;
    // A temporary file is its owner's alone; a checkpoint is for whoever may read the folder.
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        temporary.as_file().set_permissions(std::fs::Permissions::from_mode(0o644)).map_err(failed)?;
    }
    temporary.persist(path).map_err(|e| failed(e.error))?;
    Ok(())
}

/// Writes tensors as `model.safetensors` into a folder or, where they take more than `shard_bytes`, as shards with an index. Gives
/// the paths of what was written.
///
/// Errors: a dtype that the format does not have; a tensor of other bytes than planned; what the operating system says.
pub fn safetensors(folder: &Path, tensors: &[TensorPlan], shard_bytes: u64, produce: &mut Produce<'_>) -> Result<Vec<PathBuf>> {
    let mut shards: Vec<&[TensorPlan]> = Vec::new();
    let (mut start, mut filled, mut total) = (0, 0u64, 0u64);
    for (i, tensor) in tensors.iter().enumerate() {
        let bytes = tensor.bytes()? as u64;
        if i > start && filled + bytes > shard_bytes {
            shards.push(&tensors[start..i]);
            (start, filled) = (i, 0);
        }
        filled += bytes;
        total += bytes;
    }
    shards.push(&tensors[start..]);

    let mut written = Vec::new();
    let mut weight_map = Map::new();
    let count = shards.len();
    for (i, shard) in shards.into_iter().enumerate() {
        let name =
            if count == 1 { "model.safetensors".to_owned() } else { format!("model-{:05}-of-{count:05}.safetensors", i + 1) };
        let path = folder.join(&name);
        safetensors_file(&path, shard, produce)?;
        weight_map.extend(shard.iter().map(|tensor| (tensor.name.clone(), json!(name))));
        written.push(path);
    }
    if count > 1 {
        let path = folder.join("model.safetensors.index.json");
        json_file(&path, &json!({"metadata": {"total_size": total}, "weight_map": weight_map}))?;
        written.push(path);
    }
    Ok(written)
}

/// Writes JSON with indentation.
///
/// Errors: what the operating system says.
pub fn json_file(path: &Path, value: &Value) -> Result<()> {
    atomically(path, |writer| {
        serde_json::to_writer_pretty(&mut *writer, value).map_err(|e| Error::io(path, "write", e.into()))?;
        writer.write_all(b"\n").map_err(|e| Error::io(path, "write", e))
    })
}

/// Writes tensors as one file.
///
/// Errors: as [`safetensors`](fn@safetensors).
pub fn safetensors_file(path: &Path, tensors: &[TensorPlan], produce: &mut Produce<'_>) -> Result<()> {
    let mut header = Map::new();
    // transformers refuses files that do not say so.
    header.insert("__metadata__".into(), json!({"format": "pt"}));
    let mut end = 0;
    for tensor in tensors {
        let start = end;
        end += tensor.bytes()?;
        let entry = json!({"dtype": safetensors_dtype(tensor)?, "shape": tensor.shape, "data_offsets": [start, end]});
        if header.insert(tensor.name.clone(), entry).is_some() {
            return Err(Error::argument(&tensor.name, "the name is planned twice"));
        }
    }
    let mut header = Value::Object(header).to_string().into_bytes();
    // Tensors begin on a multiple of 8, so that a mapped file serves in place.
    header.resize(header.len().next_multiple_of(8), b' ');
    atomically(path, |writer| {
        let failed = |e: std::io::Error| Error::io(path, "write", e);
        writer.write_all(&(header.len() as u64).to_le_bytes()).map_err(failed)?;
        writer.write_all(&header).map_err(failed)?;
        for tensor in tensors {
            writer.write_all(&tensor.produce(produce)?).map_err(failed)?;
        }
        Ok(())
    })
}

fn safetensors_dtype(tensor: &TensorPlan) -> Result<&'static str> {
    Ok(match tensor.dtype {
        DType::F64 => "F64",
        DType::F32 => "F32",
        DType::F16 => "F16",
        DType::BF16 => "BF16",
        DType::I64 => "I64",
        DType::U32 => "U32",
        DType::U8 => "U8",
        DType::Block(block) => {
            let message = format!("safetensors has no {block}; a float dtype would be right");
            return Err(Error::unsupported(&tensor.name, message));
        }
    })
}

/// A metadata value to be written.
#[derive(Debug, Clone, PartialEq)]
pub enum MetadataValue {
    /// A 32-bit unsigned integer.
    U32(u32),
    /// A 64-bit unsigned integer.
    U64(u64),
    /// A binary32.
    F32(f32),
    /// A truth value.
    Bool(bool),
    /// A text.
    Str(String),
    /// An array of texts, which need not be UTF-8.
    Strs(Vec<Vec<u8>>),
    /// An array of 32-bit signed integers.
    I32s(Vec<i32>),
    /// An array of binary32.
    F32s(Vec<f32>),
}

impl MetadataValue {
    fn append(&self, out: &mut Vec<u8>) {
        let kind = |out: &mut Vec<u8>, kind: ValueKind| out.extend((kind as u32).to_le_bytes());
        let array = |out: &mut Vec<u8>, element: ValueKind, length: usize| {
            kind(out, ValueKind::Array);
            kind(out, element);
            out.extend((length as u64).to_le_bytes());
        };
        match self {
            Self::U32(value) => {
                kind(out, ValueKind::U32);
                out.extend(value.to_le_bytes());
            }
            Self::U64(value) => {
                kind(out, ValueKind::U64);
                out.extend(value.to_le_bytes());
            }
            Self::F32(value) => {
                kind(out, ValueKind::F32);
                out.extend(value.to_le_bytes());
            }
            Self::Bool(value) => {
                kind(out, ValueKind::Bool);
                out.push(u8::from(*value));
            }
            Self::Str(text) => {
                kind(out, ValueKind::String);
                append_text(out, text.as_bytes());
            }
            Self::Strs(texts) => {
                array(out, ValueKind::String, texts.len());
                texts.iter().for_each(|text| append_text(out, text));
            }
            Self::I32s(values) => {
                array(out, ValueKind::I32, values.len());
                values.iter().for_each(|value| out.extend(value.to_le_bytes()));
            }
            Self::F32s(values) => {
                array(out, ValueKind::F32, values.len());
                values.iter().for_each(|value| out.extend(value.to_le_bytes()));
            }
        }
    }
}

fn append_text(out: &mut Vec<u8>, text: &[u8]) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text);
}

/// Writes a GGUF file, version 3, with the default alignment.
///
/// Errors: a dtype that the format does not have; a tensor of other bytes than planned; what the operating system says.
pub fn gguf(path: &Path, metadata: &[(String, MetadataValue)], tensors: &[TensorPlan], produce: &mut Produce<'_>) -> Result<()> {
    let mut header = Vec::new();
    header.extend(MAGIC);
    header.extend(3u32.to_le_bytes());
    header.extend((tensors.len() as u64).to_le_bytes());
    header.extend((metadata.len() as u64).to_le_bytes());
    for (key, value) in metadata {
        append_text(&mut header, key.as_bytes());
        value.append(&mut header);
    }
    let padded = |bytes: u64| bytes.next_multiple_of(DEFAULT_ALIGNMENT);
    let mut offset = 0u64;
    for tensor in tensors {
        let kind = GgmlType::of(tensor.dtype).ok_or_else(|| {
            Error::unsupported(&tensor.name, format!("GGUF has no {}; a float dtype or blocks would be right", tensor.dtype))
        })?;
        append_text(&mut header, tensor.name.as_bytes());
        header.extend((tensor.shape.len() as u32).to_le_bytes());
        tensor.shape.iter().rev().for_each(|length| header.extend((*length as u64).to_le_bytes()));
        header.extend(kind.id.to_le_bytes());
        header.extend(offset.to_le_bytes());
        offset = padded(offset + tensor.bytes()? as u64);
    }
    header.resize(padded(header.len() as u64) as usize, 0);
    atomically(path, |writer| {
        let failed = |e: std::io::Error| Error::io(path, "write", e);
        writer.write_all(&header).map_err(failed)?;
        for tensor in tensors {
            let mut bytes = tensor.produce(produce)?;
            bytes.resize(padded(bytes.len() as u64) as usize, 0);
            writer.write_all(&bytes).map_err(failed)?;
        }
        Ok(())
    })
}
