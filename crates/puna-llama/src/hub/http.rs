//! Requests to the Hub: redirects followed here and not by the client, so that the token stays with its server, and
//! status codes turned into what a person can do.

use std::time::Duration;

use ureq::Body;
use ureq::http::Response;

use super::{Hub, HubError, Token};

const MAX_REDIRECTS: usize = 10;

pub(super) struct Client {
    agent: ureq::Agent,
    /// Where the token may go.
    origin: Origin,
    token: Option<Token>,
}

/// A failure, and whether asking again may help.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) error: HubError,
    pub(super) again: bool,
    /// The server did not answer at all.
    pub(super) unreachable: Option<String>,
}

impl From<HubError> for Failure {
    fn from(error: HubError) -> Self {
        Self { error, again: false, unreachable: None }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Follow {
    /// Follows every redirect: for the bytes themselves.
    All,
    /// Stops at a redirect to another server: what the Hub says about a file is in that answer's headers.
    SameOrigin,
}

impl Client {
    /// Errors: an endpoint that is no `http` or `https` address.
    pub(super) fn new(hub: &Hub) -> Result<Self, HubError> {
        let origin = Origin::of(&hub.endpoint)
            .ok_or_else(|| server(&hub.endpoint, "no server's address; HF_ENDPOINT is http:// or https://, a host and a path"))?;
        let mut config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent(concat!("puna/", env!("CARGO_PKG_VERSION")))
            .timeout_connect(Some(Duration::from_secs(15)))
            .timeout_recv_response(Some(Duration::from_secs(60)))
            // A transfer may take hours; that nothing arrives for a minute ends it.
            .timeout_per_read(Some(Duration::from_secs(60)));
        if origin.is_loopback() {
            config = config.proxy(None);
        }
        Ok(Self { agent: config.build().into(), origin, token: hub.token.clone() })
    }

    /// The answer's headers, from the Hub itself.
    pub(super) fn head(&self, url: &str) -> Result<Response<Body>, Failure> {
        self.send(url, Follow::SameOrigin, |url| self.agent.head(url))
    }

    /// The answer, from wherever it lies; from byte `from` on where the server can.
    pub(super) fn get(&self, url: &str, from: u64) -> Result<Response<Body>, Failure> {
        self.send(url, Follow::All, |url| match from {
            0 => self.agent.get(url),
            from => self.agent.get(url).header("range", format!("bytes={from}-")),
        })
    }

    fn send(
        &self,
        url: &str,
        follow: Follow,
        request: impl Fn(&str) -> ureq::RequestBuilder<ureq::typestate::WithoutBody>,
    ) -> Result<Response<Body>, Failure> {
        let mut at = url.to_owned();
        for _ in 0..=MAX_REDIRECTS {
            let origin = Origin::of(&at).ok_or_else(|| server(url, format!("a redirect to {at:?}, no address")))?;
            // Bodies are wanted byte for byte: their length and hash are known.
            let mut request = request(&at).header("accept-encoding", "identity");
            let token = self.token.as_ref().filter(|_| origin == self.origin);
            if let Some(token) = token {
                request = request.header("authorization", format!("Bearer {}", token.secret()));
            }
            let response = request.call().map_err(|error| failed(url, &error))?;
            let status = response.status().as_u16();
            if !(300..400).contains(&status) || status == 304 {
                return self.checked(url, response, token);
            }
            let location = header(&response, "location").unwrap_or_default();
            let next = join(&at, location).ok_or_else(|| server(url, format!("a redirect to {location:?}, no address")))?;
            let next_origin = Origin::of(&next).ok_or_else(|| server(url, format!("a redirect to {next:?}, no address")))?;
            if origin.scheme == "https" && next_origin.scheme != "https" {
                return Err(server(url, format!("a redirect from https to {next:?}, which anyone could read")).into());
            }
            if follow == Follow::SameOrigin && next_origin != self.origin {
                return Ok(response);
            }
            at = next;
        }
        Err(server(url, format!("more than {MAX_REDIRECTS} redirects")).into())
    }

    /// The answer, or the error that its status stands for.
    fn checked(&self, url: &str, response: Response<Body>, token: Option<&Token>) -> Result<Response<Body>, Failure> {
        let status = response.status().as_u16();
        let code = header(&response, "x-error-code").unwrap_or_default();
        let error = match (status, code) {
            (200..300 | 416, _) => return Ok(response),
            (401 | 403, "GatedRepo") => HubError::Gated { url: page_of(url) },
            (401 | 403, _) => {
                HubError::Unauthorized { url: url.to_owned(), token_from: token.map(|token| token.from().to_owned()) }
            }
            (404, _) => {
                let detail = match code {
                    "RevisionNotFound" => "the repository has no such revision",
                    "EntryNotFound" => "the repository has no such file",
                    _ => "the server has no such repository; check the name",
                };
                HubError::NotFound { model: url.to_owned(), detail: detail.to_owned() }
            }
            (408 | 429 | 500.., _) => {
                let error = server(url, format!("the server answers {status}; try again later"));
                return Err(Failure { error, again: true, unreachable: None });
            }
            _ => server(url, format!("the server answers {status}")),
        };
        Err(error.into())
    }
}

/// A request that got no answer.
fn failed(url: &str, error: &ureq::Error) -> Failure {
    use ureq::Error::{ConnectProxyFailed, ConnectionFailed, HostNotFound, Io, Rustls, Timeout, Tls};
    let no_answer =
        matches!(error, ConnectProxyFailed(_) | ConnectionFailed | HostNotFound | Io(_) | Rustls(_) | Timeout(_) | Tls(_));
    let unreachable = no_answer.then(|| error.to_string());
    Failure { error: server(url, error.to_string()), again: no_answer, unreachable }
}

/// A header's text, at most 4 KiB.
pub(super) fn header<'r>(response: &'r Response<Body>, name: &str) -> Option<&'r str> {
    response.headers().get(name)?.to_str().ok().filter(|text| text.len() <= 4096)
}

pub(super) fn server(url: &str, message: impl Into<String>) -> HubError {
    HubError::Server { url: url.to_owned(), message: message.into() }
}

/// The repository's page, from an address below it.
fn page_of(url: &str) -> String {
    let page = url.split("/resolve/").next().unwrap_or(url).split("/revision/").next().unwrap_or(url);
    page.replacen("/api/models/", "/", 1)
}

/// A path's parts, escaped for an address.
pub(super) fn escape(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for byte in path.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' | b'/' => out.push(byte.into()),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// Scheme, host and port: who is spoken to.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Origin {
    scheme: &'static str,
    host: String,
    port: u16,
}

impl Origin {
    /// `None` for what is no `http` or `https` address, or one with a user name in it.
    fn of(url: &str) -> Option<Self> {
        let (scheme, rest) = split_scheme(url)?;
        let authority = &rest[..rest.find(['/', '?', '#']).unwrap_or(rest.len())];
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, port.parse().ok()?),
            _ => (authority, if scheme == "https" { 443 } else { 80 }),
        };
        let valid = |c: char| c.is_ascii_alphanumeric() || "-._[]:".contains(c);
        let valid = !host.is_empty()
            && host.chars().all(valid)
            && !url.contains(|c: char| c.is_whitespace() || c.is_control() || c == '\\');
        valid.then(|| Self { scheme, host: host.to_ascii_lowercase(), port })
    }

    fn is_loopback(&self) -> bool {
        let host = self.host.trim_matches(['[', ']']);
        host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
    }
}

fn split_scheme(url: &str) -> Option<(&'static str, &str)> {
    ["http", "https"].into_iter().find_map(|scheme| {
        let start = url.get(..scheme.len() + 3)?;
        let same = start[..scheme.len()].eq_ignore_ascii_case(scheme) && start.ends_with("://");
        same.then(|| (scheme, &url[scheme.len() + 3..]))
    })
}

/// The address that a `Location` header means.
fn join(base: &str, location: &str) -> Option<String> {
    if location.is_empty() {
        return None;
    }
    if split_scheme(location).is_some() {
        return Some(location.to_owned());
    }
    let (scheme, rest) = split_scheme(base)?;
    if location.starts_with("//") {
        return Some(format!("{scheme}:{location}"));
    }
    let authority = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    if location.starts_with('/') {
        return Some(format!("{scheme}://{}{location}", &rest[..authority]));
    }
    let path = &rest[..rest.find(['?', '#']).unwrap_or(rest.len())];
    let folder = path.rfind('/').map_or(format!("{path}/"), |at| path[..=at].to_owned());
    (!location.contains(':')).then(|| format!("{scheme}://{folder}{location}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_scheme_host_and_port() {
        let same = |a: &str, b: &str| Origin::of(a).unwrap() == Origin::of(b).unwrap();
        assert!(same("https://hub.example/a", "HTTPS://HUB.example:443?x"));
        assert!(!same("https://hub.example", "http://hub.example"));
        assert!(!same("http://hub.example", "http://hub.example:81"));
        assert!(!same("https://hub.example", "https://hub.example.evil.example"));
        for wrong in
            ["ftp://a", "https://", "https://user@hub.example/", "https://a\\b/", "https://a b", "https://a:x/", "//a", "a"]
        {
            assert_eq!(Origin::of(wrong), None, "{wrong}");
        }
        assert!(Origin::of("http://127.0.0.1:8000/").unwrap().is_loopback());
        assert!(Origin::of("http://[::1]:8000/").unwrap().is_loopback());
        assert!(!Origin::of("http://127.0.0.1.example/").unwrap().is_loopback());
    }

    #[test]
    fn locations_are_joined_to_their_base() {
        let base = "https://hub.example/a/b?c=/d";
        for (location, expected) in [
            ("https://cdn.example/x", Some("https://cdn.example/x")),
            ("//cdn.example/x", Some("https://cdn.example/x")),
            ("/x?y", Some("https://hub.example/x?y")),
            ("x", Some("https://hub.example/a/x")),
            ("", None),
            ("file:x", None),
        ] {
            assert_eq!(join(base, location).as_deref(), expected, "{location}");
        }
    }

    #[test]
    fn pages_and_escapes() {
        assert_eq!(page_of("https://h/api/models/o/n/revision/main"), "https://h/o/n");
        assert_eq!(page_of("https://h/o/n/resolve/main/f"), "https://h/o/n");
        assert_eq!(escape("a b/ü#?%.gguf"), "a%20b/%C3%BC%23%3F%25.gguf");
    }
}
