//! Files mapped into memory: nothing is read before it is looked at. The only unsafe code of this crate.
#![allow(unsafe_code)]

use std::fmt;
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use memmap2::Mmap;

use crate::error::{Error, Result};

/// A file's bytes, mapped read-only. A handle: clones share the mapping, which lives as long as any of them.
#[derive(Clone)]
pub struct MappedFile(Arc<Source>);

struct Source {
    path: PathBuf,
    bytes: Bytes,
}

enum Bytes {
    Mapped(Mmap),
    Owned(Vec<u8>),
}

impl MappedFile {
    /// Maps a file.
    ///
    /// The file must not be cut short while it is mapped: a process that reads a page that is no longer there is ended by the
    /// operating system. A download should be written beside it and renamed.
    ///
    /// Errors: the file is not there, may not be read, or is no regular file.
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(|e| Error::io(path, "open", e))?;
        let metadata = file.metadata().map_err(|e| Error::io(path, "look at", e))?;
        if !metadata.is_file() {
            return Err(Error::format(path.display().to_string(), "it is no regular file, so it cannot be mapped"));
        }
        if metadata.len() == 0 {
            // The operating system maps no empty range.
            return Ok(Self::from_vec(path, Vec::new()));
        }
        // SAFETY: the mapping is private to `Source`, read-only, and unmapped only when the last handle is dropped; every slice
        // borrows a handle. What remains is that another process may change the file under us. Writes in place change weights
        // (all bit patterns of which are valid u8) and headers: parsers copy what they check out of the mapping, and all later
        // access is by ranges checked against its length, so a changed byte can give wrong numbers but no access out of bounds.
        // A file that is cut short ends the process with SIGBUS; the documentation above says so.
        let map = unsafe { Mmap::map(&file) }.map_err(|e| Error::io(path, "map", e))?;
        Ok(Self(Arc::new(Source { path: path.to_owned(), bytes: Bytes::Mapped(map) })))
    }

    /// Bytes that are in memory already, under a path that errors name.
    pub fn from_vec(path: impl Into<PathBuf>, bytes: Vec<u8>) -> Self {
        Self(Arc::new(Source { path: path.into(), bytes: Bytes::Owned(bytes) }))
    }

    /// The file's path.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// The file's name, as errors say it.
    pub fn name(&self) -> String {
        self.path().file_name().unwrap_or(self.path().as_os_str()).to_string_lossy().into_owned()
    }

    /// A range of the file, sharing the mapping, or `None` where it does not lie within the file.
    pub fn slice(&self, range: Range<usize>) -> Option<FileBytes> {
        let whole = self.as_ref();
        whole.get(range.clone()).map(|_| FileBytes { file: self.clone(), range })
    }
}

impl AsRef<[u8]> for MappedFile {
    fn as_ref(&self) -> &[u8] {
        match &self.0.bytes {
            Bytes::Mapped(map) => map,
            Bytes::Owned(bytes) => bytes,
        }
    }
}

impl fmt::Debug for MappedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MappedFile({}, {} bytes)", self.path().display(), self.as_ref().len())
    }
}

/// A range of a mapped file. Cheap to clone; a device may use it in place.
#[derive(Clone)]
pub struct FileBytes {
    file: MappedFile,
    range: Range<usize>,
}

impl FileBytes {
    /// The file that it is part of.
    pub fn file(&self) -> &MappedFile {
        &self.file
    }

    /// Where in the file it lies.
    pub fn range(&self) -> Range<usize> {
        self.range.clone()
    }
}

impl AsRef<[u8]> for FileBytes {
    fn as_ref(&self) -> &[u8] {
        &self.file.as_ref()[self.range.clone()]
    }
}

impl fmt::Debug for FileBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FileBytes({}, {:?})", self.file.path().display(), self.range)
    }
}
