//! Models by name: a path, or `org/name` in the Hub's cache, which Python's tools share.
//!
//! Finding what is in the cache needs no feature and no network ([`resolve`]). Downloading ([`fetch`]) is behind the
//! feature `hub`; a build without it says so.
//!
//! | name | what it gives |
//! | --- | --- |
//! | `./folder`, `file.gguf` | the path itself |
//! | `org/name` | the folder of its snapshot; where the repository holds one GGUF and no other weights, that file |
//! | `org/name@revision` | the same of a branch, tag or commit |
//! | `org/name:Q4_K_M` | the GGUF of that type; the first part where it is split |
//! | `org/name/file.gguf` | that file |
//!
//! The cache is `$HF_HUB_CACHE`, else `$HF_HOME/hub`, else `$XDG_CACHE_HOME/huggingface/hub`, else
//! `~/.cache/huggingface/hub`. The token is `$HF_TOKEN`, else the file `$HF_TOKEN_PATH`, else `$HF_HOME/token`, unless
//! `HF_HUB_DISABLE_IMPLICIT_TOKEN` is set. `HF_ENDPOINT` names another server, `HF_HUB_OFFLINE` forbids asking any.
//! `ALL_PROXY`, `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY` are honored for every server but one on this machine.

mod cache;
#[cfg(feature = "hub")]
mod download;
#[cfg(not(feature = "hub"))]
#[path = "no_download.rs"]
mod download;
#[cfg(feature = "hub")]
mod http;
mod name;
mod select;
mod settings;

use std::path::{Path, PathBuf};

pub use name::{ModelName, Want};
pub use settings::{Hub, Token};

/// Where a model lies: a path as it is, or `org/name` found in the Hub's cache, with the settings of the environment.
/// Never asks the network. Errors: [`HubError`], by what to do.
pub fn resolve(model: &str) -> Result<PathBuf, HubError> {
    Hub::from_env().resolve(model)
}

/// As [`resolve`], but downloads what the cache lacks. `progress` is called at least once a file and a few times a second.
/// Errors: [`HubError`]; without the feature `hub`, those of [`resolve`].
pub fn fetch(model: &str, progress: &mut dyn FnMut(Progress)) -> Result<PathBuf, HubError> {
    Hub::from_env().fetch(model, progress)
}

/// How far a download is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress<'a> {
    /// The file's name in its repository.
    pub file: &'a str,
    /// Which of the files, from 0.
    pub index: usize,
    /// How many files in all.
    pub count: usize,
    /// Bytes that are there, of which a part may be from an earlier run.
    pub done: u64,
    /// Bytes that the server says there are.
    pub total: Option<u64>,
}

/// Why a model is not there, by what to do about it. No error, and no `Debug` output, holds the token.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HubError {
    /// No such path, repository, revision or file.
    #[error("{model}: {detail}")]
    NotFound {
        /// What was asked for.
        model: String,
        /// What there is instead.
        detail: String,
    },
    /// Several models answer to the name.
    #[error("{model}: several models: {}; name one, as in org/name:Q4_K_M or org/name/file.gguf", choices.join(", "))]
    Ambiguous {
        /// What was asked for.
        model: String,
        /// The names that would fit.
        choices: Vec<String>,
    },
    /// Not in the cache, and the network was not, or could not be, asked.
    #[error("{missing}: not in {}; {reason}", looked_in.display())]
    Offline {
        /// The model or file that is missing.
        missing: String,
        /// The cache folder that was searched.
        looked_in: PathBuf,
        /// Why it was not downloaded.
        reason: OfflineReason,
    },
    /// The repository's owner wants its licence accepted first.
    #[error("{url}: access is gated; accept the license there, then set HF_TOKEN to a token of that account")]
    Gated {
        /// The page to accept the license on.
        url: String,
    },
    /// The server wants a token, or another one; the repository is private, or has another name.
    #[error("{url}: not authorized, with {}; check the name, then set HF_TOKEN to a token that may read it", token_from.as_deref().map_or("no token".to_owned(), |from| format!("the token from {from}")))]
    Unauthorized {
        /// What was asked for.
        url: String,
        /// Where the token that was sent came from; `None` where none was sent.
        token_from: Option<String>,
    },
    /// A transfer failed; by hand it may still work.
    #[error("{url}: {message}; by hand: fetch that address to {}", target.display())]
    Transfer {
        /// The address.
        url: String,
        /// The file to write it to.
        target: PathBuf,
        /// What went wrong.
        message: String,
    },
    /// What arrived is not what the repository holds. It was deleted.
    #[error("{url}: the SHA-256 of what arrived is {found}, the repository says {expected}; try again, or another server")]
    Corrupt {
        /// The address.
        url: String,
        /// The hash that the repository states.
        expected: String,
        /// The hash of the bytes that arrived.
        found: String,
    },
    /// The server answers what no Hub would.
    #[error("{url}: {message}")]
    Server {
        /// The address.
        url: String,
        /// What is wrong with the answer.
        message: String,
    },
    /// The cache cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
}

/// Why the network was of no help.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OfflineReason {
    /// The feature `hub` is off.
    #[error("this build cannot download; build with `--features hub`, or fetch it with another tool")]
    NoFeature,
    /// Only the cache was asked.
    #[error("only the cache was searched; hub::fetch downloads")]
    CacheOnly,
    /// `HF_HUB_OFFLINE` forbids it.
    #[error("HF_HUB_OFFLINE is set, so nothing is downloaded; unset it, or fetch it with another tool")]
    Forbidden,
    /// The server does not answer.
    #[error("the server cannot be reached: {0}")]
    Unreachable(String),
}

fn io_error(path: &Path) -> impl FnOnce(std::io::Error) -> HubError + '_ {
    |source| HubError::Io { path: path.to_owned(), source }
}

impl From<HubError> for crate::Error {
    fn from(source: HubError) -> Self {
        use crate::Kind;
        let kind = match &source {
            HubError::NotFound { .. } => Kind::NotFound,
            HubError::Ambiguous { .. } => Kind::Argument,
            HubError::Offline { .. } => Kind::Offline,
            HubError::Gated { .. } => Kind::Gated,
            HubError::Unauthorized { .. } => Kind::Unauthorized,
            HubError::Transfer { .. } | HubError::Corrupt { .. } | HubError::Server { .. } => Kind::Download,
            HubError::Io { .. } => Kind::Io,
        };
        let text = source.to_string();
        let (place, message) = text.split_once(": ").unwrap_or(("hub", &text));
        Self::new(kind, place, message).with_source(source)
    }
}
