//! Downloads into the cache, so that an interrupted one goes on where it stopped and Python's tools find the result.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use super::cache::RepoFolder;
use super::http::{Client, Failure, escape, header, server};
use super::select::{SelectError, select};
use super::{Hub, HubError, ModelName, OfflineReason, Progress, Want, io_error, name};

/// Why a search of the cache did not go on to the server.
pub(super) const NOT_ASKED: OfflineReason = OfflineReason::CacheOnly;

/// What the server may say about a repository, in bytes.
const MAX_INFO: u64 = 32 << 20;

/// Tries in a row that bring nothing, before a transfer is given up.
const TRIES: u32 = 5;

/// Tries of one transfer in all, each of which brought something.
const MAX_TRIES: u32 = 1000;

impl Hub {
    /// Where a model lies, downloaded where the cache lacks it. What the cache has is not asked for again; [`Self::download`]
    /// does that. Errors: as [`Self::resolve`] and [`Self::download`].
    pub fn fetch(&self, model: &str, progress: &mut dyn FnMut(Progress)) -> Result<PathBuf, HubError> {
        match self.resolve(model) {
            Err(HubError::Offline { reason: OfflineReason::CacheOnly, .. }) => self.download(&model.parse()?, progress),
            result => result,
        }
    }

    /// Asks the server which commit the revision is, and downloads of that commit what the cache lacks.
    ///
    /// Errors: [`HubError::Offline`] where the server does not answer or must not be asked, [`HubError::Gated`],
    /// [`HubError::Unauthorized`], [`HubError::NotFound`], [`HubError::Ambiguous`], [`HubError::Transfer`] after several
    /// tries, [`HubError::Corrupt`], [`HubError::Server`] for answers that make no sense, [`HubError::Io`].
    pub fn download(&self, model: &ModelName, progress: &mut dyn FnMut(Progress)) -> Result<PathBuf, HubError> {
        let offline = |reason| HubError::Offline { missing: model.to_string(), looked_in: self.cache.clone(), reason };
        if self.offline {
            return Err(offline(OfflineReason::Forbidden));
        }
        if !name::is_file(&model.revision) {
            return Err(HubError::NotFound { model: model.to_string(), detail: "no name of a revision".into() });
        }
        let folder = RepoFolder::new(self, &model.repo)?;
        let client = Client::new(self)?;
        let (commit, names) = self.info(&client, model).map_err(|failure| match failure.unreachable {
            Some(message) => offline(OfflineReason::Unreachable(message)),
            None => failure.error,
        })?;
        let selection = select(&names, &model.want).map_err(|error| match error {
            SelectError::Nothing(detail) => HubError::NotFound { model: model.to_string(), detail },
            SelectError::Several(choices) => HubError::Ambiguous { model: model.to_string(), choices },
        })?;
        let snapshot = folder.snapshot(&commit);
        for (index, file) in selection.files.iter().enumerate() {
            let url = format!("{}/{}/resolve/{commit}/{}", self.endpoint, model.repo, escape(file));
            let mut transfer =
                Transfer { client: &client, folder: &folder, url, file, index, count: selection.files.len(), progress };
            transfer.run(&snapshot.join(file))?;
        }
        if model.revision != commit {
            let path = folder.path.join("refs").join(&model.revision);
            write_whole(&path, commit.as_bytes()).map_err(io_error(&path))?;
        }
        Ok(selection.target.map_or(snapshot.clone(), |file| snapshot.join(file)))
    }

    /// The commit, and the names of the files in it that can be files here.
    fn info(&self, client: &Client, model: &ModelName) -> Result<(String, Vec<String>), Failure> {
        let url = format!("{}/api/models/{}/revision/{}", self.endpoint, model.repo, escape(&model.revision).replace('/', "%2F"));
        let bytes = with_tries(|| {
            let mut response = client.get(&url, 0)?;
            let bytes = response.body_mut().with_config().limit(MAX_INFO).read_to_vec();
            bytes.map_err(|error| Failure { again: true, ..server(&url, error.to_string()).into() })
        })?;
        let info: serde_json::Value =
            serde_json::from_slice(&bytes).map_err(|error| server(&url, format!("no JSON about a model: {error}")))?;
        let commit = info["sha"].as_str().filter(|sha| name::is_commit(sha));
        let commit = commit.ok_or_else(|| server(&url, "no commit in the answer; a Hub gives `sha`, 40 hexadecimal digits"))?;
        let names = info["siblings"].as_array().into_iter().flatten().filter_map(|file| file["rfilename"].as_str());
        Ok((commit.to_owned(), names.filter(|name| name::is_file(name)).map(str::to_owned).collect()))
    }
}

impl Want {
    /// A want for files by name or pattern, as [`Hub::download`] takes it.
    pub fn matching<'a>(patterns: impl IntoIterator<Item = &'a str>) -> Self {
        Want::Matching(patterns.into_iter().map(str::to_owned).collect())
    }
}

/// One file on its way into the cache.
struct Transfer<'a> {
    client: &'a Client,
    folder: &'a RepoFolder,
    url: String,
    file: &'a str,
    index: usize,
    count: usize,
    progress: &'a mut dyn FnMut(Progress),
}

impl Transfer<'_> {
    /// Makes `pointer`, a file of a snapshot, be there.
    fn run(&mut self, pointer: &Path) -> Result<(), HubError> {
        if let Ok(metadata) = pointer.metadata() {
            self.report(metadata.len(), Some(metadata.len()));
            return Ok(());
        }
        let (etag, size) = with_tries(|| self.about()).map_err(|failure| match failure.unreachable {
            Some(message) => self.failed(pointer, message),
            None => failure.error,
        })?;
        let blobs = self.folder.path.join("blobs");
        for folder in [&blobs, &self.folder.locks] {
            fs::create_dir_all(folder).map_err(io_error(folder))?;
        }
        let blob = blobs.join(&etag);
        let _lock = lock(&self.folder.locks.join(format!("{etag}.lock")))?;
        let fresh = !blob.exists() && !pointer.exists();
        if fresh {
            let partial = blobs.join(format!("{etag}.incomplete"));
            self.receive(&partial, &etag, size)?;
            fs::rename(&partial, &blob).map_err(io_error(&blob))?;
        } else {
            self.report(size.unwrap_or(0), size);
        }
        if !pointer.exists() {
            link(&blob, pointer, self.file, fresh).map_err(io_error(pointer))?;
        }
        Ok(())
    }

    /// What the Hub says of the file: the name of its blob, and its size.
    fn about(&self) -> Result<(String, Option<u64>), Failure> {
        let response = self.client.head(&self.url)?;
        let etag = header(&response, "x-linked-etag").or_else(|| header(&response, "etag"));
        let etag = etag.map(|etag| etag.strip_prefix("W/").unwrap_or(etag).trim_matches('"'));
        let Some(etag) = etag.filter(|etag| name::is_etag(etag)) else {
            return Err(server(&self.url, format!("an ETag of {etag:?}; a Hub names each file's content by its hash")).into());
        };
        let length = || header(&response, "content-length").filter(|_| !response.status().is_redirection());
        let size = header(&response, "x-linked-size").or_else(length).and_then(|size| size.parse().ok());
        Ok((etag.to_owned(), size))
    }

    /// Fills `partial`, from where an earlier run stopped, and checks it.
    fn receive(&mut self, partial: &Path, etag: &str, size: Option<u64>) -> Result<(), HubError> {
        let io = || io_error(partial);
        let mut out = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(partial).map_err(io())?;
        let is_sha256 = etag.len() == 64 && etag.bytes().all(|b| b.is_ascii_hexdigit());
        let mut hash = is_sha256.then(Sha256::new);
        let mut done = copy_hash(&mut out, hash.as_mut()).map_err(io())?;
        let mut idle = 0;
        for tried in 1.. {
            if size.is_some_and(|size| done > size) {
                done = restart(&mut out, hash.as_mut()).map_err(io())?;
            }
            if size == Some(done) {
                break;
            }
            let before = done;
            match self.receive_some(&mut out, hash.as_mut(), &mut done, size) {
                Ok(()) if size.is_none() => break,
                Ok(()) => {}
                Err(failure) if !failure.again => return Err(failure.error),
                Err(failure) => {
                    idle = if done > before { 1 } else { idle + 1 };
                    tracing::debug!(url = self.url, done, "transfer interrupted: {}", failure.error);
                    if idle >= TRIES || tried >= MAX_TRIES {
                        let message = match failure.error {
                            HubError::Server { message, .. } => message,
                            error => error.to_string(),
                        };
                        return Err(self.failed(partial, message));
                    }
                    std::thread::sleep(pause(idle));
                }
            }
        }
        self.report(done, Some(done));
        if let Some(hash) = hash {
            let found = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect::<String>();
            if !found.eq_ignore_ascii_case(etag) {
                drop(out);
                fs::remove_file(partial).map_err(io())?;
                return Err(HubError::Corrupt { url: self.url.clone(), expected: etag.to_owned(), found });
            }
        }
        out.sync_all().map_err(io())
    }

    /// One request's worth of bytes.
    fn receive_some(
        &mut self,
        out: &mut File,
        mut hash: Option<&mut Sha256>,
        done: &mut u64,
        size: Option<u64>,
    ) -> Result<(), Failure> {
        let again = |message: String| Failure { again: true, ..server(&self.url, message).into() };
        let local = |error: std::io::Error| Failure::from(HubError::Io { path: self.folder.path.clone(), source: error });
        let response = self.client.get(&self.url, *done)?;
        let status = response.status().as_u16();
        let resumed = header(&response, "content-range").is_some_and(|range| range.starts_with(&format!("bytes {done}-")));
        if *done > 0 && !(status == 206 && resumed) {
            *done = restart(out, hash.as_deref_mut()).map_err(local)?;
            if status != 200 {
                return Err(again(format!("the server answers {status} to a request for a part")));
            }
        }
        let expected = size.or_else(|| response.body().content_length().map(|length| *done + length));
        let mut body = response.into_body().into_with_config().limit(u64::MAX).reader();
        let mut buffer = vec![0; 1 << 16];
        let mut reported: Option<Instant> = None;
        loop {
            let count = match body.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(again(format!("{done} bytes arrived, then: {error}"))),
            };
            if expected.is_some_and(|expected| *done + count as u64 > expected) {
                *done = restart(out, hash).map_err(local)?;
                return Err(again(format!("more bytes than the {} that the server announced", expected.unwrap_or(0))));
            }
            out.write_all(&buffer[..count]).map_err(local)?;
            if let Some(hash) = hash.as_deref_mut() {
                hash.update(&buffer[..count]);
            }
            *done += count as u64;
            if reported.is_none_or(|reported| reported.elapsed() >= Duration::from_millis(200)) {
                (self.progress)(Progress { file: self.file, index: self.index, count: self.count, done: *done, total: expected });
                reported = Some(Instant::now());
            }
        }
        match expected {
            Some(expected) if *done < expected => Err(again(format!("{done} of {expected} bytes arrived"))),
            _ => Ok(()),
        }
    }

    fn report(&mut self, done: u64, total: Option<u64>) {
        (self.progress)(Progress { file: self.file, index: self.index, count: self.count, done, total });
    }

    fn failed(&self, target: &Path, message: String) -> HubError {
        HubError::Transfer { url: self.url.clone(), target: target.to_owned(), message }
    }
}

/// Calls until it works, cannot work, or has failed too often.
fn with_tries<T>(mut call: impl FnMut() -> Result<T, Failure>) -> Result<T, Failure> {
    for tried in 1.. {
        match call() {
            // Without an answer at all, the network is likely to be missing: that is worth knowing at once.
            Err(failure) if failure.again && tried < if failure.unreachable.is_some() { 2 } else { TRIES } => {
                std::thread::sleep(pause(tried));
            }
            result => return result,
        }
    }
    unreachable!("the last try returns")
}

/// 0.2 s, then twice as long each time.
fn pause(tried: u32) -> Duration {
    Duration::from_millis(100 << tried.min(6))
}

/// Reads the whole file into the hash; the file stands at its end.
fn copy_hash(file: &mut File, hash: Option<&mut Sha256>) -> std::io::Result<u64> {
    let Some(hash) = hash else { return file.seek(SeekFrom::End(0)) };
    let mut buffer = vec![0; 1 << 16];
    let mut done = 0;
    loop {
        let count = file.read(&mut buffer)?;
        if count == 0 {
            return Ok(done);
        }
        hash.update(&buffer[..count]);
        done += count as u64;
    }
}

fn restart(file: &mut File, hash: Option<&mut Sha256>) -> std::io::Result<u64> {
    file.set_len(0)?;
    file.seek(SeekFrom::Start(0))?;
    if let Some(hash) = hash {
        *hash = Sha256::new();
    }
    Ok(0)
}

/// Keeps other processes, ours and Python's, from the same blob until dropped.
fn lock(path: &Path) -> Result<File, HubError> {
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).map_err(io_error(path))?;
    match file.lock() {
        Err(error) if error.kind() == std::io::ErrorKind::Unsupported => {
            tracing::warn!(
                "{}: this file system has no locks; two downloads of one file at once would disturb each other",
                path.display()
            );
            Ok(file)
        }
        result => result.map(|()| file).map_err(io_error(path)),
    }
}

/// Makes the snapshot's file: a link to the blob, else the blob itself where it is new, else a copy of it.
fn link(blob: &Path, pointer: &Path, file: &str, fresh: bool) -> std::io::Result<()> {
    let folder = pointer.parent().unwrap_or(pointer);
    fs::create_dir_all(folder)?;
    // A link whose blob is gone is in the way.
    if pointer.symlink_metadata().is_ok() {
        fs::remove_file(pointer)?;
    }
    let up = "../".repeat(2 + file.matches('/').count());
    let name = blob.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    if symlink(&PathBuf::from(format!("{up}blobs/{name}")), pointer).is_ok() {
        return Ok(());
    }
    if fresh {
        return fs::rename(blob, pointer);
    }
    let partial = pointer.with_extension("incomplete");
    fs::copy(blob, &partial)?;
    fs::rename(&partial, pointer)
}

#[cfg(unix)]
fn symlink(target: &Path, link: &Path) -> std::io::Result<()> {
    std::os::unix::fs::symlink(target, link)
}

#[cfg(windows)]
fn symlink(target: &Path, link: &Path) -> std::io::Result<()> {
    std::os::windows::fs::symlink_file(target, link)
}

#[cfg(not(any(unix, windows)))]
fn symlink(_: &Path, _: &Path) -> std::io::Result<()> {
    Err(std::io::ErrorKind::Unsupported.into())
}

/// Writes a small file so that a reader sees the old content or the new, never a part.
fn write_whole(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let unique = format!("{}.{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    let folder = path.parent().unwrap_or(path);
    fs::create_dir_all(folder)?;
    let partial = folder.join(format!(".{}.{unique}", path.file_name().unwrap_or_default().to_string_lossy()));
    fs::write(&partial, bytes)?;
    fs::rename(&partial, path)
}
