//! Metadata values, borrowed from the file.

use std::fmt;

use puna_bytes::Reader;

/// The type of a metadata value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum ValueKind {
    /// An 8-bit unsigned integer.
    U8 = 0,
    /// An 8-bit signed integer.
    I8 = 1,
    /// A 16-bit unsigned integer.
    U16 = 2,
    /// A 16-bit signed integer.
    I16 = 3,
    /// A 32-bit unsigned integer.
    U32 = 4,
    /// A 32-bit signed integer.
    I32 = 5,
    /// A binary32.
    F32 = 6,
    /// One byte, 0 or 1.
    Bool = 7,
    /// A length in 64 bits and UTF-8.
    String = 8,
    /// A type, a length in 64 bits, elements.
    Array = 9,
    /// A 64-bit unsigned integer.
    U64 = 10,
    /// A 64-bit signed integer.
    I64 = 11,
    /// A binary64.
    F64 = 12,
}

impl ValueKind {
    pub(super) const ALL: [ValueKind; 13] = [
        Self::U8,
        Self::I8,
        Self::U16,
        Self::I16,
        Self::U32,
        Self::I32,
        Self::F32,
        Self::Bool,
        Self::String,
        Self::Array,
        Self::U64,
        Self::I64,
        Self::F64,
    ];

    /// The bytes of a value; of strings and arrays, the fewest.
    pub(super) const fn bytes(self) -> u64 {
        match self {
            Self::U8 | Self::I8 | Self::Bool => 1,
            Self::U16 | Self::I16 => 2,
            Self::U32 | Self::I32 | Self::F32 => 4,
            Self::U64 | Self::I64 | Self::F64 | Self::String => 8,
            Self::Array => 12,
        }
    }
}

/// A metadata value, borrowed from the file.
#[derive(Debug, Clone, Copy)]
pub enum Value<'a> {
    /// An integer of any width and sign.
    Integer(i128),
    /// A float of either width.
    Float(f64),
    /// A truth value.
    Bool(bool),
    /// A text; bytes that are no UTF-8 are refused when the file is opened.
    String(&'a str),
    /// An array, read when asked.
    Array(Array<'a>),
}

/// A metadata array, borrowed from the file.
#[derive(Clone, Copy)]
pub struct Array<'a> {
    /// The type of its elements.
    pub kind: ValueKind,
    /// How many there are.
    pub length: usize,
    pub(super) bytes: &'a [u8],
}

impl fmt::Debug for Array<'_> {
    /// Without the elements: a vocabulary has a hundred thousand.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{:?}; {}]", self.kind, self.length)
    }
}

impl<'a> Array<'a> {
    /// The elements of an array of strings, which need not be UTF-8; none where it is of another type.
    pub fn strings(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let mut reader = Reader::new(self.bytes);
        let length = if self.kind == ValueKind::String { self.length } else { 0 };
        (0..length).map_while(move |_| {
            let n = reader.u64_le("length").ok()?;
            reader.bytes("text", n).ok()
        })
    }

    /// The elements of an array of numbers or truth values; none where it is one of strings.
    pub fn numbers(&self) -> impl Iterator<Item = f64> + use<'a> {
        let (kind, bytes) = (self.kind, self.bytes);
        let size = if kind == ValueKind::String { usize::MAX } else { kind.bytes() as usize };
        bytes.chunks_exact(size).map(move |bytes| match scalar(kind, bytes) {
            Value::Integer(v) => v as f64,
            Value::Float(v) => v,
            Value::Bool(v) => f64::from(u8::from(v)),
            Value::String(_) | Value::Array(_) => unreachable!("an array holds scalars or strings"),
        })
    }
}

/// A value of fixed size from its bytes.
pub(super) fn scalar(kind: ValueKind, bytes: &[u8]) -> Value<'static> {
    let mut wide = [0u8; 8];
    wide[..bytes.len()].copy_from_slice(bytes);
    let unsigned = u64::from_le_bytes(wide);
    match kind {
        ValueKind::U8 | ValueKind::U16 | ValueKind::U32 | ValueKind::U64 => Value::Integer(unsigned.into()),
        ValueKind::I8 => Value::Integer((unsigned as i8).into()),
        ValueKind::I16 => Value::Integer((unsigned as i16).into()),
        ValueKind::I32 => Value::Integer((unsigned as i32).into()),
        ValueKind::I64 => Value::Integer((unsigned as i64).into()),
        ValueKind::F32 => Value::Float(f32::from_bits(unsigned as u32).into()),
        ValueKind::F64 => Value::Float(f64::from_bits(unsigned)),
        ValueKind::Bool => Value::Bool(unsigned != 0),
        ValueKind::String | ValueKind::Array => unreachable!("not of fixed size"),
    }
}
