use crate::hash::ByteIndex;

/// What a token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Text that merging makes.
    Normal,
    /// A single byte where no other token is written so (`<0x0A>`).
    Byte,
    /// What an unknown character becomes.
    Unknown,
    /// A special token: it is no text.
    Control,
    /// Found in text as it is written.
    UserDefined,
    /// Text that nothing becomes and that becomes nothing.
    Unused,
    /// Text that merging cannot make, in a byte-level vocabulary: it is not written in the alphabet of bytes.
    Literal,
    /// An id without a token.
    Gap,
}

/// The tokens by id.
pub(crate) struct Vocabulary {
    /// All tokens' bytes, one behind another.
    bytes: Vec<u8>,
    ends: Vec<u32>,
    kinds: Vec<Kind>,
    index: ByteIndex,
    /// The longest token that the index holds, in bytes: longer texts need not be looked up.
    longest: usize,
}

impl Vocabulary {
    pub(crate) fn with_capacity(tokens: usize, bytes: usize) -> Self {
        Self {
            bytes: Vec::with_capacity(bytes),
            ends: Vec::with_capacity(tokens),
            kinds: Vec::with_capacity(tokens),
            index: ByteIndex::with_capacity(tokens),
            longest: 0,
        }
    }

    /// Enters the next id's token. Normal ones can be looked up; of those that are written alike the first.
    pub(crate) fn push(&mut self, token: &[u8], kind: Kind) -> u32 {
        let id = u32::try_from(self.ends.len()).expect("files of at most 1 GiB hold fewer than 2^32 tokens");
        self.bytes.extend_from_slice(token);
        self.ends.push(u32::try_from(self.bytes.len()).expect("files of at most 1 GiB hold less than 4 GiB of text"));
        self.kinds.push(kind);
        if kind == Kind::Normal {
            self.list(id);
        }
        id
    }

    /// Lets a token be looked up, whatever its kind.
    pub(crate) fn list(&mut self, id: u32) {
        let (bytes, ends) = (&self.bytes, &self.ends);
        self.index.insert(id, |id| slice(bytes, ends, id));
        self.longest = self.longest.max(self.bytes(id).len());
    }

    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    /// The bytes of a token that is there.
    #[inline]
    pub(crate) fn bytes(&self, id: u32) -> &[u8] {
        slice(&self.bytes, &self.ends, id)
    }

    /// What a token is; an id beyond the last has none.
    pub(crate) fn kind(&self, id: u32) -> Kind {
        self.kinds.get(id as usize).copied().unwrap_or(Kind::Gap)
    }

    /// The token that is written so, of those that can be looked up.
    #[inline]
    pub(crate) fn id(&self, bytes: &[u8]) -> Option<u32> {
        if bytes.len() > self.longest {
            return None;
        }
        self.index.get(bytes, |id| self.bytes(id))
    }

    /// All ids.
    pub(crate) fn ids(&self) -> std::ops::Range<u32> {
        0..self.ends.len() as u32
    }
}

#[inline]
fn slice<'v>(bytes: &'v [u8], ends: &[u32], id: u32) -> &'v [u8] {
    let id = id as usize;
    let start = if id == 0 { 0 } else { ends[id - 1] as usize };
    &bytes[start..ends[id] as usize]
}
