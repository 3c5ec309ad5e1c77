//! Where the cache is, which server to ask, and who asks.

use std::path::PathBuf;

const DEFAULT_ENDPOINT: &str = "https://huggingface.co";

/// The settings that a look into the cache, or a download, goes by.
#[derive(Clone, Debug)]
pub struct Hub {
    /// The cache folder, with its `models--org--name` folders.
    pub cache: PathBuf,
    /// The server, without a slash at the end.
    pub endpoint: String,
    /// Never asks the server.
    pub offline: bool,
    /// What authorizes; sent to `endpoint` alone.
    pub token: Option<Token>,
}

/// An access token. Neither `Debug` nor any error shows it.
#[derive(Clone)]
pub struct Token {
    secret: String,
    from: String,
}

impl Token {
    /// A token, and where it is from, in words that an error can use. `None` where it is empty or cannot be sent.
    pub fn new(secret: &str, from: impl Into<String>) -> Option<Self> {
        let secret = secret.trim().to_owned();
        (!secret.is_empty() && secret.bytes().all(|b| b.is_ascii_graphic())).then_some(Self { secret, from: from.into() })
    }

    /// Where the token is from.
    pub fn from(&self) -> &str {
        &self.from
    }

    #[cfg(feature = "hub")]
    pub(super) fn secret(&self) -> &str {
        &self.secret
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Token({} characters from {})", self.secret.len(), self.from)
    }
}

impl Hub {
    /// The settings of the environment, as Python's huggingface_hub reads them.
    pub fn from_env() -> Self {
        Self::from_vars(|name| std::env::var(name).ok())
    }

    /// The settings of an environment that `var` looks up.
    pub fn from_vars(var: impl Fn(&str) -> Option<String>) -> Self {
        let set = |name: &str| var(name).filter(|value| !value.is_empty());
        let is_true =
            |name: &str| set(name).is_some_and(|v| ["1", "ON", "YES", "TRUE"].contains(&v.to_ascii_uppercase().as_str()));
        let user = set("HOME").or_else(|| set("USERPROFILE")).unwrap_or_default();
        let path = |text: String| match text.strip_prefix('~') {
            Some("") => PathBuf::from(&user),
            Some(rest) if rest.starts_with(['/', '\\']) => PathBuf::from(&user).join(&rest[1..]),
            _ => PathBuf::from(text),
        };
        let home = match set("HF_HOME") {
            Some(home) => path(home),
            None => path(set("XDG_CACHE_HOME").unwrap_or_else(|| "~/.cache".into())).join("huggingface"),
        };
        let cache = set("HF_HUB_CACHE").or_else(|| set("HUGGINGFACE_HUB_CACHE"));
        let token = || {
            for name in ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"] {
                if let Some(token) = set(name).and_then(|text| Token::new(&text, name)) {
                    return Some(token);
                }
            }
            let file = set("HF_TOKEN_PATH").map_or_else(|| home.join("token"), path);
            Token::new(&std::fs::read_to_string(&file).ok()?, file.display().to_string())
        };
        Self {
            cache: cache.map_or_else(|| home.join("hub"), path),
            endpoint: set("HF_ENDPOINT").unwrap_or_else(|| DEFAULT_ENDPOINT.into()).trim_end_matches('/').to_owned(),
            offline: is_true("HF_HUB_OFFLINE") || (set("HF_HUB_OFFLINE").is_none() && is_true("TRANSFORMERS_OFFLINE")),
            token: if is_true("HF_HUB_DISABLE_IMPLICIT_TOKEN") { None } else { token() },
        }
    }
}
