//! The cache's layout, and finding a model in it with the standard library alone.
//!
//! `models--org--name/refs/<revision>` holds a commit, `snapshots/<commit>/<file>` is a link to `blobs/<etag>`,
//! `.no_exist/<commit>/<file>` marks what a repository does not have, `.locks/` keeps two processes from one blob.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::select::{SelectError, Selection, part_of, select};
use super::{Hub, HubError, ModelName, OfflineReason, Want, io_error, name};

/// An index of shards that is larger than this is no index of shards.
const MAX_INDEX: u64 = 64 << 20;

/// Files and folders looked at in one snapshot.
const MAX_ENTRIES: usize = 20_000;

impl Hub {
    /// Where a model lies: a path as it is, or a name found in the cache. Never asks the network.
    /// Errors: [`HubError::NotFound`], [`HubError::Offline`], [`HubError::Ambiguous`], [`HubError::Io`].
    pub fn resolve(&self, model: &str) -> Result<PathBuf, HubError> {
        if Path::new(model).exists() {
            return Ok(PathBuf::from(model));
        }
        self.cached(&model.parse()?)
    }

    /// Where a model of the Hub lies in the cache, with all its files. Errors: as [`Self::resolve`].
    pub fn cached(&self, model: &ModelName) -> Result<PathBuf, HubError> {
        let missing = |missing: String| {
            let reason = if self.offline { OfflineReason::Forbidden } else { super::download::NOT_ASKED };
            HubError::Offline { missing, looked_in: self.cache.clone(), reason }
        };
        let repo = RepoFolder::new(self, &model.repo)?;
        let Some(snapshot) = repo.commit(&model.revision).map(|commit| repo.snapshot(&commit)).filter(|path| path.is_dir())
        else {
            return Err(missing(model.to_string()));
        };
        let names = files_in(&snapshot)?;
        let selection = select(&names, &model.want).map_err(|error| match error {
            // A snapshot may hold a part of the repository, so what is not in it may still exist.
            SelectError::Nothing(_) => missing(model.to_string()),
            SelectError::Several(choices) => HubError::Ambiguous { model: model.to_string(), choices },
        })?;
        if let Some(part) = missing_part(&snapshot, &selection, model)? {
            return Err(missing(format!("{model}: {part}")));
        }
        Ok(selection.target.map_or(snapshot.clone(), |file| snapshot.join(file)))
    }
}

/// A repository's folder in the cache.
pub(super) struct RepoFolder {
    pub(super) path: PathBuf,
    #[cfg_attr(not(feature = "hub"), expect(dead_code, reason = "only downloads lock"))]
    pub(super) locks: PathBuf,
}

impl RepoFolder {
    /// Errors: a name that no repository can have.
    pub(super) fn new(hub: &Hub, repo: &str) -> Result<Self, HubError> {
        if !name::is_repo(repo) {
            return Err(HubError::NotFound { model: repo.into(), detail: "no name of a repository; that is org/name".into() });
        }
        let folder = format!("models--{}", repo.replace('/', "--"));
        Ok(Self { path: hub.cache.join(&folder), locks: hub.cache.join(".locks").join(&folder) })
    }

    /// The commit that a revision stands for, as far as the cache knows.
    pub(super) fn commit(&self, revision: &str) -> Option<String> {
        if name::is_commit(revision) {
            return Some(revision.to_owned());
        }
        if !name::is_file(revision) {
            return None;
        }
        let text = read_bounded(&self.path.join("refs").join(revision), 256).ok()?;
        let commit = String::from_utf8(text).ok()?.trim().to_owned();
        // Commits are hexadecimal; any single file name is taken, so that caches made for tests work too.
        (name::is_file(&commit) && !commit.contains('/')).then_some(commit)
    }

    pub(super) fn snapshot(&self, commit: &str) -> PathBuf {
        self.path.join("snapshots").join(commit)
    }
}

/// The files in a snapshot, with `/` between the parts of a name, sorted. A link to a blob that is gone is no file.
fn files_in(snapshot: &Path) -> Result<Vec<String>, HubError> {
    let mut names = Vec::new();
    let mut folders = vec![(snapshot.to_owned(), String::new())];
    let mut entries = 0;
    while let Some((folder, prefix)) = folders.pop() {
        for entry in fs::read_dir(&folder).map_err(io_error(&folder))? {
            let entry = entry.map_err(io_error(&folder))?;
            entries += 1;
            if entries > MAX_ENTRIES {
                let source = std::io::Error::other(format!("more than {MAX_ENTRIES} files; no model has so many"));
                return Err(HubError::Io { path: snapshot.to_owned(), source });
            }
            let Ok(name) = entry.file_name().into_string() else { continue };
            let name = format!("{prefix}{name}");
            // A linked folder could lead in a circle, and the Hub makes none.
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                folders.push((entry.path(), format!("{name}/")));
            } else if entry.path().is_file() {
                names.push(name);
            }
        }
    }
    names.sort();
    Ok(names)
}

/// A file that the selected ones say should be there, but is not: shards of an index, parts of a set, the config.
fn missing_part(snapshot: &Path, selection: &Selection, model: &ModelName) -> Result<Option<String>, HubError> {
    let have = selection.files.iter().map(String::as_str).collect::<BTreeSet<_>>();
    if selection.target.is_none() && model.want == Want::Model && !have.contains("config.json") && !have.contains("params.json") {
        return Ok(Some("config.json".into()));
    }
    for file in &selection.files {
        if let Some((_, count)) = part_of(file) {
            let numbers = |n: u32| {
                let (start, end) = file.rsplit_once("-of-")?;
                let (start, _) = start.rsplit_once('-')?;
                let digits = file.len() - start.len() - "--of-".len() - end.len();
                Some(format!("{start}-{n:0digits$}-of-{end}"))
            };
            if let Some(part) = (1..=count).filter_map(numbers).find(|part| !have.contains(part.as_str())) {
                return Ok(Some(part));
            }
        }
        if file.ends_with(".index.json") {
            let path = snapshot.join(file);
            let text = read_bounded(&path, MAX_INDEX).map_err(io_error(&path))?;
            let index = serde_json::from_slice::<serde_json::Value>(&text);
            let index = index.map_err(|error| HubError::Io { path: path.clone(), source: error.into() })?;
            let shards = index["weight_map"].as_object().into_iter().flatten().filter_map(|(_, shard)| shard.as_str());
            if let Some(shard) = shards.into_iter().find(|shard| !have.contains(shard)) {
                return Ok(Some(shard.to_owned()));
            }
        }
    }
    Ok(None)
}

fn read_bounded(path: &Path, limit: u64) -> std::io::Result<Vec<u8>> {
    use std::io::Read;
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(std::io::Error::other(format!("more than {limit} bytes")));
    }
    Ok(bytes)
}
