//! Compiled kernels on disk, so that a program compiles for a card once.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};

/// What a file begins with.
const MAGIC: &[u8; 8] = b"punacub1";

/// Files of compiled kernels in a folder. What cannot be read, is cut short, or is of another key counts as not there; what cannot be
/// written is compiled again next time.
pub(crate) struct Cache {
    folder: Option<PathBuf>,
}

/// What a compiled kernel follows from, as two numbers of 64 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Key([u64; 2]);

impl Key {
    pub(crate) fn new(of: &impl Hash) -> Self {
        Self([0u8, 1].map(|salt| {
            let mut hasher = DefaultHasher::new();
            salt.hash(&mut hasher);
            of.hash(&mut hasher);
            hasher.finish()
        }))
    }
}

fn checksum(bytes: &[u8]) -> u64 {
    Key::new(&bytes).0[0]
}

impl Cache {
    /// In the user's cache folder, or where `PUNA_CACHE` says.
    pub(crate) fn of_user() -> Self {
        let variable = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let folder = variable("PUNA_CACHE")
            .or_else(|| variable("XDG_CACHE_HOME").map(|folder| folder.join("puna")))
            .or_else(|| variable("HOME").map(|home| home.join(".cache/puna")))
            .or_else(|| variable("LOCALAPPDATA").map(|home| home.join("puna")));
        Self { folder: folder.map(|folder| folder.join("cuda")) }
    }

    #[cfg(test)]
    fn at(folder: &Path) -> Self {
        Self { folder: Some(folder.to_owned()) }
    }

    fn path(&self, name: &str, key: Key) -> Option<PathBuf> {
        let [a, b] = key.0;
        Some(self.folder.as_ref()?.join(format!("{name}-{a:016x}{b:016x}.cubin")))
    }

    /// What is kept under a key.
    pub(crate) fn get(&self, name: &str, key: Key) -> Option<Vec<u8>> {
        let bytes = std::fs::read(self.path(name, key)?).ok()?;
        let (magic, rest) = bytes.split_first_chunk::<8>()?;
        let (sum, cubin) = rest.split_first_chunk::<8>()?;
        (magic == MAGIC && u64::from_le_bytes(*sum) == checksum(cubin) && !cubin.is_empty()).then(|| cubin.to_vec())
    }

    /// Keeps it, whole or not at all: two programs at once do each other no harm.
    pub(crate) fn put(&self, name: &str, key: Key, cubin: &[u8]) {
        let Some(path) = self.path(name, key) else { return };
        let mut bytes = MAGIC.to_vec();
        bytes.extend(checksum(cubin).to_le_bytes());
        bytes.extend(cubin);
        // A folder that cannot be written is no reason to fail.
        let _ = write_whole(&path, &bytes);
    }
}

fn write_whole(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let mut hasher = DefaultHasher::new();
    std::thread::current().id().hash(&mut hasher);
    let part = path.with_extension(format!("{}-{:x}.part", std::process::id(), hasher.finish()));
    std::fs::write(&part, bytes)?;
    std::fs::rename(&part, path).inspect_err(|_| drop(std::fs::remove_file(&part)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_put_is_got_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::at(&folder.path().join("deep/er"));
        let (key, other) = (Key::new(&"source"), Key::new(&"another"));
        assert_eq!(cache.get("norm", key), None);
        cache.put("norm", key, b"machine code");
        assert_eq!(cache.get("norm", key).unwrap(), b"machine code");
        assert_eq!((cache.get("norm", other), cache.get("rope", key)), (None, None));
        assert_eq!(std::fs::read_dir(folder.path().join("deep/er")).unwrap().count(), 1, "no litter");
    }

    #[test]
    fn damaged_entries_count_as_missing() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::at(folder.path());
        let key = Key::new(&1);
        cache.put("norm", key, b"machine code");
        let path = cache.path("norm", key).unwrap();
        let whole = std::fs::read(&path).unwrap();
        for cut in 0..whole.len() {
            std::fs::write(&path, &whole[..cut]).unwrap();
            assert_eq!(cache.get("norm", key), None, "cut to {cut}");
            let mut flipped = whole.clone();
            flipped[cut] ^= 1;
            std::fs::write(&path, &flipped).unwrap();
            assert_eq!(cache.get("norm", key), None, "byte {cut} is another");
        }
        cache.put("norm", key, b"machine code");
        assert_eq!(cache.get("norm", key).unwrap(), b"machine code", "and is written again");
    }

    #[test]
    fn writers_at_once_leave_a_whole_entry() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::at(folder.path());
        let (key, code) = (Key::new(&2), vec![7; 1 << 16]);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..20 {
                        cache.put("norm", key, &code);
                        assert_eq!(cache.get("norm", key).as_ref(), Some(&code));
                    }
                });
            }
        });
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_no_failure() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let cache = Cache::at(&file.path().join("below a file"));
        cache.put("norm", Key::new(&3), b"code");
        assert_eq!(cache.get("norm", Key::new(&3)), None);
    }
}
