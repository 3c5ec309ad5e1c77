//! A text file line by line.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// The longest line that is read into memory: whoever has a longer one has no lines.
pub(super) const MAX_LINE: usize = 64 << 20;

/// Reads a file's lines, each checked to be UTF-8, holding one at a time.
pub(super) struct Lines {
    path: PathBuf,
    from: BufReader<Box<dyn Read>>,
    /// The line that `next` gave, from 1.
    number: u64,
    /// Where in the file that line begins, and where what was read ends.
    start: u64,
    end: u64,
    line: Vec<u8>,
}

impl Lines {
    pub(super) fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(|e| Error::io(path, "open", e))?;
        Ok(Self::new(path, Box::new(file)))
    }

    pub(super) fn new(path: &Path, from: Box<dyn Read>) -> Self {
        let from = BufReader::with_capacity(1 << 18, from);
        Self { path: path.to_owned(), from, number: 0, start: 0, end: 0, line: Vec::new() }
    }

    /// The next piece of the file: a line with its end, or `limit` bytes of one (cut between characters) where `whole` is false.
    ///
    /// Errors: what the operating system says; bytes that are no UTF-8, by their place; a whole line beyond `limit`.
    pub(super) fn next(&mut self, limit: usize, whole: bool) -> Result<Option<&str>> {
        if self.number == 0 || self.line.ends_with(b"\n") {
            (self.number, self.start) = (self.number + 1, self.end);
        }
        self.line.clear();
        let n = (&mut self.from).take(limit as u64).read_until(b'\n', &mut self.line);
        let n = n.map_err(|e| Error::io(&self.path, "read", e))?;
        if n == 0 {
            return Ok(None);
        }
        self.end += n as u64;
        if n == limit && !self.line.ends_with(b"\n") {
            if whole && !self.at_end()? {
                return Err(Error::data(self.place(), format!("a line of more than {limit} bytes; this file has other lines")));
            }
            self.complete_character()?;
        }
        if self.end == self.line.len() as u64 && self.line.starts_with(b"\xef\xbb\xbf") {
            // A byte order mark is no text.
            self.line.drain(..3);
        }
        let begin = self.end - self.line.len() as u64;
        std::str::from_utf8(&self.line).map(Some).map_err(|e| {
            let (at, byte) = (e.valid_up_to(), self.line[e.valid_up_to()]);
            let at = begin + at as u64;
            let message = format!("not UTF-8: byte {byte:#04x} at {} of the line, {at} of the file", at - self.start);
            Error::data(self.place(), message).with_source(e)
        })
    }

    /// The file and the line that `next` gave, as errors say it.
    pub(super) fn place(&self) -> String {
        format!("{}:{}", self.path.display(), self.number)
    }

    /// How many bytes it has read.
    pub(super) fn bytes(&self) -> u64 {
        self.end
    }

    fn at_end(&mut self) -> Result<bool> {
        Ok(self.from.fill_buf().map_err(|e| Error::io(&self.path, "read", e))?.is_empty())
    }

    /// Reads on to the end of a character that the limit has cut.
    fn complete_character(&mut self) -> Result<()> {
        let first = self.line.iter().rposition(|byte| byte & 0xc0 != 0x80).unwrap_or(0);
        let needed = match self.line[first] {
            0xc0..=0xdf => 2,
            0xe0..=0xef => 3,
            0xf0..=0xf7 => 4,
            _ => 1,
        };
        let missing = (first + needed).saturating_sub(self.line.len()) as u64;
        let n = (&mut self.from).take(missing).read_to_end(&mut self.line).map_err(|e| Error::io(&self.path, "read", e))?;
        self.end += n as u64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(bytes: &[u8], limit: usize, whole: bool) -> Result<Vec<(String, String)>> {
        let mut lines = Lines::new(Path::new("f"), Box::new(std::io::Cursor::new(bytes.to_vec())));
        let mut all = Vec::new();
        while let Some(line) = lines.next(limit, whole)?.map(str::to_owned) {
            all.push((lines.place(), line));
        }
        assert_eq!(lines.bytes(), bytes.len() as u64);
        Ok(all)
    }

    fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
        expected.iter().map(|(place, line)| ((*place).to_owned(), (*line).to_owned())).collect()
    }

    #[test]
    fn lines_are_numbered_and_keep_their_ends() {
        let all = lines("\u{feff}a\r\n\nb\u{2028}c".as_bytes(), 100, true).unwrap();
        assert_eq!(all, pairs(&[("f:1", "a\r\n"), ("f:2", "\n"), ("f:3", "b\u{2028}c")]));
        assert_eq!(lines(b"", 100, true).unwrap(), pairs(&[]));
    }

    #[test]
    fn long_lines_come_in_pieces_between_characters_or_are_refused() {
        let all = lines("ab\u{20ac}\u{20ac}c\nd".as_bytes(), 3, false).unwrap();
        assert_eq!(all, pairs(&[("f:1", "ab\u{20ac}"), ("f:1", "\u{20ac}"), ("f:1", "c\n"), ("f:2", "d")]));
        let error = lines(b"abcd\n", 3, true).unwrap_err();
        assert_eq!(error.to_string(), "f:1: a line of more than 3 bytes; this file has other lines");
        assert_eq!(lines(b"abc", 3, true).unwrap(), pairs(&[("f:1", "abc")]));
    }

    #[test]
    fn what_is_not_utf8_is_named_by_its_place() {
        for (bytes, expected) in [
            (&b"abc\nd\xffe\n"[..], "f:2: not UTF-8: byte 0xff at 1 of the line, 5 of the file"),
            (b"a\xe2\x82", "f:1: not UTF-8: byte 0xe2 at 1 of the line, 1 of the file"),
            (b"\xef\xbb\xbfa\x80", "f:1: not UTF-8: byte 0x80 at 4 of the line, 4 of the file"),
        ] {
            assert_eq!(lines(bytes, 100, true).unwrap_err().to_string(), expected);
        }
        let error = lines(b"\nabc\xe2(\xa1", 4, false).unwrap_err();
        assert_eq!(error.to_string(), "f:2: not UTF-8: byte 0xe2 at 3 of the line, 4 of the file");
        let error = lines(b"\nabcdef\xff", 4, false).unwrap_err();
        assert_eq!(error.to_string(), "f:2: not UTF-8: byte 0xff at 6 of the line, 7 of the file");
    }
}
