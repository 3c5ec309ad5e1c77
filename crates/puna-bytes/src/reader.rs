use crate::{Error, Kind, Result};

/// A cursor over untrusted bytes.
///
/// Every method names the field it reads, so that an error can. A method that fails leaves the cursor where it was.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    /// The offset of `bytes[0]` in the outermost bytes, so that a nested reader reports absolute offsets.
    base: u64,
}

macro_rules! number {
    ($($name:ident $type:ty),*) => {$(
        #[doc = concat!("Reads a little-endian `", stringify!($type), "`.")]
        pub fn $name(&mut self, what: &str) -> Result<$type> {
            Ok(<$type>::from_le_bytes(self.array(what)?))
        }
    )*};
}

impl<'a> Reader<'a> {
    /// A reader at the start of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0, base: 0 }
    }

    /// The offset of the next byte in the outermost bytes.
    pub fn position(&self) -> u64 {
        self.base + self.at as u64
    }

    /// How many bytes are left.
    pub fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// Whether no byte is left.
    pub fn is_empty(&self) -> bool {
        self.left() == 0
    }

    /// An error of kind [`Kind::Invalid`] at the current position.
    pub fn invalid(&self, what: &str, message: impl Into<String>) -> Error {
        Error { at: self.position(), what: what.into(), kind: Kind::Invalid(message.into()) }
    }

    /// Reads `n` bytes without copying them.
    pub fn bytes(&mut self, what: &str, n: u64) -> Result<&'a [u8]> {
        let left = self.left();
        match usize::try_from(n) {
            Ok(n) if n <= left => {
                let taken = &self.bytes[self.at..self.at + n];
                self.at += n;
                Ok(taken)
            }
            _ => Err(Error { at: self.position(), what: what.into(), kind: Kind::Truncated { asked: n, left: left as u64 } }),
        }
    }

    /// The next `n` bytes, left where they are.
    pub fn peek(&self, what: &str, n: u64) -> Result<&'a [u8]> {
        self.clone().bytes(what, n)
    }

    /// Reads `n` bytes as a reader of their own, whose errors name offsets in the outermost bytes.
    pub fn nested(&mut self, what: &str, n: u64) -> Result<Reader<'a>> {
        let base = self.position();
        Ok(Reader { bytes: self.bytes(what, n)?, at: 0, base })
    }

    /// All that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        let rest = &self.bytes[self.at..];
        self.at = self.bytes.len();
        rest
    }

    /// Passes over `n` bytes.
    pub fn skip(&mut self, what: &str, n: u64) -> Result<()> {
        self.bytes(what, n).map(drop)
    }

    /// Moves to `offset` from the start of this reader's bytes.
    pub fn seek(&mut self, what: &str, offset: u64) -> Result<()> {
        match usize::try_from(offset) {
            Ok(offset) if offset <= self.bytes.len() => {
                self.at = offset;
                Ok(())
            }
            _ => Err(self.invalid(what, format!("offset {offset} lies beyond the {} bytes there are", self.bytes.len()))),
        }
    }

    /// Passes over padding up to the next multiple of `alignment` (counted from the start of this reader's bytes).
    pub fn align(&mut self, what: &str, alignment: usize) -> Result<()> {
        let padding = (alignment - self.at % alignment) % alignment;
        self.skip(what, padding as u64)
    }

    /// Checks a table's claimed number of entries, each of at least `entry_bytes`, against the bytes left; only then is it a
    /// number to allocate by. Entries of zero bytes are refused: nothing would bound their number.
    pub fn count(&self, what: &str, claimed: u64, entry_bytes: u64) -> Result<usize> {
        let left = self.left() as u64;
        match claimed.checked_mul(entry_bytes) {
            Some(bytes) if bytes <= left && (entry_bytes > 0 || claimed == 0) => Ok(claimed as usize),
            _ => Err(Error { at: self.position(), what: what.into(), kind: Kind::Count { claimed, entry_bytes, left } }),
        }
    }

    /// Reads `N` bytes as an array.
    pub fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N]> {
        let bytes = self.bytes(what, N as u64)?;
        Ok(bytes.try_into().expect("bytes() gives exactly what was asked"))
    }

    /// Reads `n` bytes of UTF-8.
    pub fn str(&mut self, what: &str, n: u64) -> Result<&'a str> {
        let start = self.clone();
        let bytes = self.bytes(what, n)?;
        std::str::from_utf8(bytes).map_err(|_| {
            *self = start;
            Error { at: self.position(), what: what.into(), kind: Kind::NotUtf8 }
        })
    }

    number!(u8 u8, i8 i8, u16_le u16, i16_le i16, u32_le u32, i32_le i32, u64_le u64, i64_le i64, f32_le f32, f64_le f64);

    /// Reads a base-128 varint of at most 64 bits, as Protocol Buffers write it.
    pub fn varint(&mut self, what: &str) -> Result<u64> {
        let start = self.clone();
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = match self.u8(what) {
                Ok(byte) => byte,
                Err(e) => {
                    *self = start;
                    return Err(e);
                }
            };
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        *self = start;
        Err(self.invalid(what, "a varint of more than 64 bits"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_read_leaves_the_cursor() {
        let mut r = Reader::new(&[1, 2, 3]);
        assert!(r.u32_le("x").is_err());
        assert!(r.str("x", 4).is_err());
        assert!(r.bytes("x", u64::MAX).is_err());
        assert_eq!((r.position(), r.left()), (0, 3));
        let mut r = Reader::new(&[0xff, 0xfe]);
        assert_eq!(r.str("x", 2).unwrap_err().kind, Kind::NotUtf8);
        assert_eq!(r.varint("x").unwrap_err().kind, Kind::Truncated { asked: 1, left: 0 });
        assert_eq!(r.position(), 0);
    }

    #[test]
    fn counts_are_checked_without_overflow() {
        let r = Reader::new(&[0; 16]);
        assert_eq!(r.count("x", 2, 8).unwrap(), 2);
        assert!(r.count("x", 3, 8).is_err());
        assert!(r.count("x", 1 << 63, 2).is_err());
        assert!(r.count("x", u64::MAX, 0).is_err());
        assert_eq!(r.count("x", 0, 0).unwrap(), 0);
    }

    #[test]
    fn varints_end_at_64_bits() {
        let max = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
        assert_eq!(Reader::new(&max).varint("x").unwrap(), u64::MAX);
        let mut more = max;
        more[9] = 0x02;
        assert!(Reader::new(&more).varint("x").is_err());
        assert!(Reader::new(&[0x80; 12]).varint("x").is_err());
        assert_eq!(Reader::new(&[0xac, 0x02]).varint("x").unwrap(), 300);
    }

    #[test]
    fn a_nested_reader_reports_outer_offsets() {
        let mut r = Reader::new(&[0; 10]);
        r.skip("head", 4).unwrap();
        let mut inner = r.nested("body", 4).unwrap();
        inner.skip("a", 3).unwrap();
        assert_eq!(inner.u16_le("b").unwrap_err().at, 7);
        assert_eq!(r.position(), 8);
        r.align("pad", 16).unwrap_err();
        r.align("pad", 5).unwrap();
        assert_eq!(r.left(), 0);
        assert!(r.seek("x", 11).is_err());
        r.seek("x", 2).unwrap();
        assert_eq!(r.peek("x", 8).unwrap().len(), 8);
        assert_eq!(r.rest().len(), 8);
        assert!(r.is_empty());
    }
}
