//! A pickle that can build nothing but tensors: the opcodes that PyTorch writes for state dicts, on a typed stack, with four
//! known constructors. No name in the file is ever looked up anywhere else.
//!
//! Protocol 2: Python's `pickletools` documents each opcode.

use std::collections::HashMap;

use puna_bytes::{Reader, Result};

/// The pickle of the largest Llama has 150 KB. A value on the stack takes 32 times its opcode's byte, so this bounds memory.
const MOST_BYTES: usize = 16 << 20;

/// A tensor of a state dict: a strided view of a storage.
#[derive(Debug, Clone)]
pub(super) struct PickledTensor<'a> {
    pub(super) name: &'a str,
    pub(super) storage: Storage<'a>,
    /// In elements, as strides are.
    pub(super) offset: u64,
    pub(super) shape: Vec<u64>,
    pub(super) strides: Vec<u64>,
}

/// Elements of one type, in an entry of the archive.
#[derive(Debug, Clone, Copy)]
pub(super) struct Storage<'a> {
    pub(super) kind: StorageKind,
    pub(super) key: &'a str,
    pub(super) elements: u64,
}

/// What a storage holds: the class's name without `Storage`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StorageKind {
    Double,
    Float,
    Half,
    BFloat16,
    Long,
    Int,
    Short,
    Char,
    Byte,
    Bool,
}

impl StorageKind {
    fn of_class(class: &str) -> Option<Self> {
        Some(match class {
            "DoubleStorage" => Self::Double,
            "FloatStorage" => Self::Float,
            "HalfStorage" => Self::Half,
            "BFloat16Storage" => Self::BFloat16,
            "LongStorage" => Self::Long,
            "IntStorage" => Self::Int,
            "ShortStorage" => Self::Short,
            "CharStorage" => Self::Char,
            "ByteStorage" => Self::Byte,
            "BoolStorage" => Self::Bool,
            _ => return None,
        })
    }

    pub(super) fn bytes(self) -> u64 {
        match self {
            Self::Double | Self::Long => 8,
            Self::Float | Self::Int => 4,
            Self::Half | Self::BFloat16 | Self::Short => 2,
            Self::Char | Self::Byte | Self::Bool => 1,
        }
    }
}

/// The tensors of a pickled state dict.
///
/// Errors: an opcode, a global or a use of either that a state dict does not need, with its offset.
pub(super) fn state_dict(bytes: &[u8]) -> Result<Vec<PickledTensor<'_>>> {
    let mut r = Reader::new(bytes);
    if bytes.len() > MOST_BYTES {
        return Err(r.invalid("pickle", format!("{} bytes; a state dict's has at most {MOST_BYTES}", bytes.len())));
    }
    let mut machine = Machine::default();
    loop {
        let before = r.clone();
        let opcode = r.u8("opcode")?;
        if opcode == b'.' {
            return machine.finish().map_err(|message| before.invalid("STOP", message));
        }
        machine.step(opcode, &mut r).map_err(|fault| match fault {
            Fault::Bytes(e) => e,
            Fault::Invalid(message) => before.invalid(&format!("opcode {}", name(opcode)), message),
        })?;
    }
}

enum Fault {
    Bytes(puna_bytes::Error),
    Invalid(String),
}

impl From<puna_bytes::Error> for Fault {
    fn from(e: puna_bytes::Error) -> Self {
        Self::Bytes(e)
    }
}

impl From<&str> for Fault {
    fn from(message: &str) -> Self {
        Self::Invalid(message.to_owned())
    }
}

/// A value. Containers are numbers of arenas, so that nothing nests and nothing is freed recursively.
#[derive(Debug, Clone, Copy)]
enum Value<'a> {
    None,
    Bool,
    Int(i64),
    Float,
    Str(&'a str),
    Tuple(usize),
    List,
    Dict(usize),
    Constructor(Constructor),
    Storage(usize),
    Tensor(usize),
}

#[derive(Debug, Clone, Copy)]
enum Constructor {
    OrderedDict,
    RebuildTensor,
    RebuildParameter,
    Storage(StorageKind),
}

#[derive(Default)]
struct Machine<'a> {
    stack: Vec<Value<'a>>,
    /// Heights of the stack.
    marks: Vec<usize>,
    memo: HashMap<u32, Value<'a>>,
    tuples: Vec<Vec<Value<'a>>>,
    dicts: Vec<Vec<(Value<'a>, Value<'a>)>>,
    storages: Vec<Storage<'a>>,
    tensors: Vec<View>,
}

/// A tensor without its name.
struct View {
    storage: usize,
    offset: u64,
    shape: Vec<u64>,
    strides: Vec<u64>,
}

impl<'a> Machine<'a> {
    fn step(&mut self, opcode: u8, r: &mut Reader<'a>) -> std::result::Result<(), Fault> {
        match opcode {
            0x80 => match r.u8("protocol")? {
                2 => {}
                other => return Err(Fault::Invalid(format!("protocol {other}; PyTorch writes 2"))),
            },
            b'(' => self.marks.push(self.stack.len()),
            b'}' => self.new_dict(),
            b']' => self.stack.push(Value::List),
            b')' => self.new_tuple(Vec::new()),
            b't' => {
                let items = self.pop_mark()?;
                self.new_tuple(items);
            }
            0x85..=0x87 => {
                let items = self.pop_many(usize::from(opcode - 0x84))?;
                self.new_tuple(items);
            }
            b'N' => self.stack.push(Value::None),
            0x88 | 0x89 => self.stack.push(Value::Bool),
            b'J' => self.push_int(r.i32_le("integer")?.into()),
            b'K' => self.push_int(r.u8("integer")?.into()),
            b'M' => self.push_int(r.u16_le("integer")?.into()),
            0x8a => self.long(r)?,
            b'G' => {
                r.skip("float", 8)?;
                self.stack.push(Value::Float);
            }
            b'X' => {
                let length = r.u32_le("text length")?;
                self.stack.push(Value::Str(r.str("text", length.into())?));
            }
            b'q' => self.put(r.u8("memo")?.into())?,
            b'r' => self.put(r.u32_le("memo")?)?,
            b'h' => self.get(r.u8("memo")?.into())?,
            b'j' => self.get(r.u32_le("memo")?)?,
            b'c' => self.global(r)?,
            b'Q' => self.persistent()?,
            b'R' => self.reduce()?,
            b's' => {
                let items = self.pop_many(2)?;
                self.set_items(&items)?;
            }
            b'u' => {
                let items = self.pop_mark()?;
                self.set_items(&items)?;
            }
            // Lists are never read: what they hold is dropped.
            b'a' => {
                self.pop_many(1)?;
                self.expect_list()?;
            }
            b'e' => {
                self.pop_mark()?;
                self.expect_list()?;
            }
            b'b' => self.build()?,
            _ => return Err("it is none that a state dict needs".into()),
        }
        Ok(())
    }

    fn finish(mut self) -> std::result::Result<Vec<PickledTensor<'a>>, String> {
        let (Some(Value::Dict(dict)), true, true) = (self.stack.pop(), self.stack.is_empty(), self.marks.is_empty()) else {
            return Err("the pickle is no dict of tensors".into());
        };
        let mut tensors = Vec::with_capacity(self.dicts[dict].len());
        for (key, value) in &self.dicts[dict] {
            match (key, value) {
                (Value::Str(name), Value::Tensor(tensor)) => {
                    let View { storage, offset, shape, strides } = &self.tensors[*tensor];
                    let (storage, shape, strides) = (self.storages[*storage], shape.clone(), strides.clone());
                    tensors.push(PickledTensor { name, storage, offset: *offset, shape, strides });
                }
                (key, value) => return Err(format!("the dict maps {key:?} to {value:?}; a state dict maps names to tensors")),
            }
        }
        Ok(tensors)
    }

    fn push_int(&mut self, value: i64) {
        self.stack.push(Value::Int(value));
    }

    fn new_dict(&mut self) {
        self.stack.push(Value::Dict(self.dicts.len()));
        self.dicts.push(Vec::new());
    }

    fn new_tuple(&mut self, items: Vec<Value<'a>>) {
        self.stack.push(Value::Tuple(self.tuples.len()));
        self.tuples.push(items);
    }

    /// Values above a height that no mark lies above.
    fn pop_many(&mut self, n: usize) -> std::result::Result<Vec<Value<'a>>, Fault> {
        let floor = self.marks.last().copied().unwrap_or(0);
        match self.stack.len().checked_sub(n).filter(|height| *height >= floor) {
            Some(height) => Ok(self.stack.split_off(height)),
            None => Err("the stack holds too little".into()),
        }
    }

    fn pop_mark(&mut self) -> std::result::Result<Vec<Value<'a>>, Fault> {
        match self.marks.pop() {
            Some(height) => Ok(self.stack.split_off(height)),
            None => Err("there is no mark".into()),
        }
    }

    /// The value on top, left there.
    fn top(&self) -> std::result::Result<Value<'a>, Fault> {
        let floor = self.marks.last().copied().unwrap_or(0);
        self.stack.get(floor..).and_then(<[_]>::last).copied().ok_or_else(|| "the stack holds too little".into())
    }

    fn put(&mut self, at: u32) -> std::result::Result<(), Fault> {
        self.memo.insert(at, self.top()?);
        Ok(())
    }

    fn get(&mut self, at: u32) -> std::result::Result<(), Fault> {
        match self.memo.get(&at) {
            Some(value) => self.stack.push(*value),
            None => return Err(Fault::Invalid(format!("the memo has no {at}"))),
        }
        Ok(())
    }

    fn long(&mut self, r: &mut Reader<'a>) -> std::result::Result<(), Fault> {
        let length = r.u8("length of integer")?;
        let bytes = r.bytes("integer", length.into())?;
        if bytes.len() > 8 {
            return Err(Fault::Invalid(format!("an integer of {length} bytes; 8 are enough")));
        }
        // Two's complement: the last byte carries the sign.
        let fill = if bytes.last().is_some_and(|byte| byte & 0x80 != 0) { 0xff } else { 0 };
        let mut wide = [fill; 8];
        wide[..bytes.len()].copy_from_slice(bytes);
        self.push_int(i64::from_le_bytes(wide));
        Ok(())
    }

    fn global(&mut self, r: &mut Reader<'a>) -> std::result::Result<(), Fault> {
        let (module, class) = (line(r)?, line(r)?);
        let constructor = match (module, class) {
            ("collections", "OrderedDict") => Constructor::OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2") => Constructor::RebuildTensor,
            ("torch._utils", "_rebuild_parameter") => Constructor::RebuildParameter,
            ("torch", class) if StorageKind::of_class(class).is_some() => {
                Constructor::Storage(StorageKind::of_class(class).expect("the guard"))
            }
            _ => return Err(Fault::Invalid(format!("{module}.{class} is no constructor that a state dict needs"))),
        };
        self.stack.push(Value::Constructor(constructor));
        Ok(())
    }

    /// `("storage", class, key, location, elements)`.
    fn persistent(&mut self) -> std::result::Result<(), Fault> {
        let id = self.pop_many(1)?;
        let [Value::Tuple(id)] = id.as_slice() else { return Err("the persistent id is no tuple".into()) };
        match self.tuples[*id].as_slice() {
            [
                Value::Str("storage"),
                Value::Constructor(Constructor::Storage(kind)),
                Value::Str(key),
                Value::Str(_),
                Value::Int(elements),
            ] if *elements >= 0 => {
                let storage = Storage { kind: *kind, key, elements: *elements as u64 };
                self.stack.push(Value::Storage(self.storages.len()));
                self.storages.push(storage);
                Ok(())
            }
            _ => Err("the persistent id is not (\"storage\", class, key, location, elements)".into()),
        }
    }

    fn reduce(&mut self) -> std::result::Result<(), Fault> {
        let pair = self.pop_many(2)?;
        let [Value::Constructor(constructor), Value::Tuple(arguments)] = pair.as_slice() else {
            return Err("it calls something else than a constructor with a tuple".into());
        };
        let arguments = self.tuples[*arguments].as_slice();
        match (constructor, arguments) {
            (Constructor::OrderedDict, []) => self.new_dict(),
            // storage, offset, size, stride, requires_grad, backward_hooks and, in later versions, metadata
            (
                Constructor::RebuildTensor,
                [
                    Value::Storage(storage),
                    Value::Int(offset),
                    Value::Tuple(shape),
                    Value::Tuple(strides),
                    Value::Bool,
                    Value::Dict(_),
                    ..,
                ],
            ) if arguments.len() <= 7 => {
                let whole = |tuple: &usize| -> Option<Vec<u64>> {
                    let number = |value: &Value<'_>| match value {
                        Value::Int(n) => u64::try_from(*n).ok(),
                        _ => None,
                    };
                    self.tuples[*tuple].iter().map(number).collect()
                };
                let (Some(shape), Some(strides), Ok(offset)) = (whole(shape), whole(strides), u64::try_from(*offset)) else {
                    return Err("sizes, strides and offset of a tensor are whole numbers from 0 on".into());
                };
                if shape.len() != strides.len() {
                    return Err(Fault::Invalid(format!("a tensor of {} axes with {} strides", shape.len(), strides.len())));
                }
                let view = View { storage: *storage, offset, shape, strides };
                self.stack.push(Value::Tensor(self.tensors.len()));
                self.tensors.push(view);
            }
            // data, requires_grad, backward_hooks
            (Constructor::RebuildParameter, [Value::Tensor(tensor), Value::Bool, Value::Dict(_)]) => {
                let tensor = Value::Tensor(*tensor);
                self.stack.push(tensor);
            }
            (constructor, _) => return Err(Fault::Invalid(format!("{constructor:?} with arguments that it does not take"))),
        }
        Ok(())
    }

    fn set_items(&mut self, items: &[Value<'a>]) -> std::result::Result<(), Fault> {
        let Value::Dict(dict) = self.top()? else { return Err("items are set on something that is no dict".into()) };
        if items.len() % 2 != 0 {
            return Err("a key without a value".into());
        }
        self.dicts[dict].extend(items.chunks_exact(2).map(|pair| (pair[0], pair[1])));
        Ok(())
    }

    fn expect_list(&self) -> std::result::Result<(), Fault> {
        match self.top()? {
            Value::List => Ok(()),
            _ => Err("items are appended to something that is no list".into()),
        }
    }

    /// A state dict carries versions of its modules as an attribute: it is dropped.
    fn build(&mut self) -> std::result::Result<(), Fault> {
        let state = self.pop_many(1)?;
        match (self.top()?, state.as_slice()) {
            (Value::Dict(_), [Value::Dict(_)]) => Ok(()),
            _ => Err("attributes are set on something that is no dict".into()),
        }
    }
}

/// The text up to a line feed.
fn line<'a>(r: &mut Reader<'a>) -> Result<&'a str> {
    // Names of modules and classes that we know are shorter; the rest is an error either way.
    let ahead = r.peek("global", r.left().min(256) as u64)?;
    match ahead.iter().position(|byte| *byte == b'\n') {
        Some(length) => {
            let text = r.str("global", length as u64)?;
            r.skip("line feed", 1)?;
            Ok(text)
        }
        None => Err(r.invalid("global", "no line feed within 256 bytes")),
    }
}

/// An opcode's name, for errors: the ones that attacks and newer protocols use are named too.
fn name(opcode: u8) -> String {
    let known = match opcode {
        b'c' => "GLOBAL",
        b'i' => "INST",
        b'o' => "OBJ",
        b'R' => "REDUCE",
        b'b' => "BUILD",
        b'Q' => "BINPERSID",
        b'P' => "PERSID",
        b's' => "SETITEM",
        b'u' => "SETITEMS",
        b'a' => "APPEND",
        b'e' => "APPENDS",
        b't' => "TUPLE",
        b'q' => "BINPUT",
        b'r' => "LONG_BINPUT",
        b'h' => "BINGET",
        b'j' => "LONG_BINGET",
        b'X' => "BINUNICODE",
        b'0' => "POP",
        b'1' => "POP_MARK",
        b'2' => "DUP",
        b'S' => "STRING",
        b'I' => "INT",
        b'L' => "LONG",
        b'V' => "UNICODE",
        b'd' => "DICT",
        b'l' => "LIST",
        b'g' => "GET",
        b'p' => "PUT",
        0x80 => "PROTO",
        0x81 => "NEWOBJ",
        0x82..=0x84 => "EXT",
        0x85..=0x87 => "TUPLE1-3",
        0x8a => "LONG1",
        0x8b => "LONG4",
        0x8c => "SHORT_BINUNICODE",
        0x8f => "EMPTY_SET",
        0x92 => "NEWOBJ_EX",
        0x93 => "STACK_GLOBAL",
        0x94 => "MEMOIZE",
        0x95 => "FRAME",
        _ => return format!("0x{opcode:02x}"),
    };
    format!("{known} (0x{opcode:02x})")
}
