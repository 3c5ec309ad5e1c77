//! Downloads, against a small server on this machine that plays the Hub.
#![cfg(feature = "hub")]

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use puna_llama::hub::{Hub, HubError, ModelName, OfflineReason, Progress, Token, Want};
use sha2::{Digest, Sha256};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const SECRET: &str = "hf_very_secret";

#[derive(Clone, Debug)]
struct Request {
    method: String,
    path: String,
    headers: HashMap<String, String>,
}

impl Request {
    /// The first byte that is asked for.
    fn from(&self) -> usize {
        let range = self.headers.get("range").and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok());
        range.unwrap_or(0)
    }
}

#[derive(Default)]
struct Reply {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
    /// The body ends after so many bytes, whatever was announced.
    cut: Option<usize>,
}

impl Reply {
    fn new(status: u16) -> Self {
        Self { status, ..Self::default() }
    }

    fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// A file, or the part of it that is asked for.
    fn file(request: &Request, body: &[u8]) -> Self {
        match request.from() {
            0 => Self { body: body.to_vec(), ..Self::new(200) },
            from if from < body.len() => {
                let range = format!("bytes {from}-{}/{}", body.len() - 1, body.len());
                Self { body: body[from..].to_vec(), ..Self::new(206) }.with("Content-Range", range)
            }
            _ => Self::new(416),
        }
    }
}

type Handler = Box<dyn Fn(&Request) -> Reply + Send + Sync>;

struct Server {
    address: String,
    requests: Arc<Mutex<Vec<Request>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    fn start(handler: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let (requests, stop) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let handler: Handler = Box::new(handler);
        let thread = std::thread::spawn({
            let (requests, stop) = (requests.clone(), stop.clone());
            move || {
                for stream in listener.incoming() {
                    if stop.load(Ordering::SeqCst) {
                        return;
                    }
                    // A client that gives up is no failure of the server.
                    let _ = serve(stream.unwrap(), &requests, &handler);
                }
            }
        });
        Self { address, requests, stop, thread: Some(thread) }
    }

    fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address.trim_start_matches("http://"));
        self.thread.take().unwrap().join().unwrap();
    }
}

fn serve(mut stream: TcpStream, requests: &Mutex<Vec<Request>>, handler: &Handler) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut lines = BufReader::new(stream.try_clone()?.take(64 * 1024)).lines();
    let first = lines.next().unwrap_or_else(|| Ok(String::new()))?;
    let mut words = first.split(' ').map(str::to_owned);
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let mut headers = HashMap::new();
    for line in lines {
        let line = line?;
        let Some((name, value)) = line.split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let request = Request { method, path, headers };
    requests.lock().unwrap().push(request.clone());
    let reply = handler(&request);
    let mut head = format!("HTTP/1.1 {} X\r\nConnection: close\r\n", reply.status);
    for (name, value) in &reply.headers {
        head += &format!("{name}: {value}\r\n");
    }
    if !reply.headers.iter().any(|(name, _)| *name == "Content-Length") {
        head += &format!("Content-Length: {}\r\n", reply.body.len());
    }
    stream.write_all((head + "\r\n").as_bytes())?;
    if request.method != "HEAD" {
        stream.write_all(&reply.body[..reply.cut.unwrap_or(reply.body.len())])?;
    }
    Ok(())
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What the Hub says of `org/m`.
fn info(files: &[&str]) -> Reply {
    let siblings = files.iter().map(|name| serde_json::json!({ "rfilename": name })).collect::<Vec<_>>();
    let body = serde_json::json!({ "id": "org/m", "sha": COMMIT, "siblings": siblings }).to_string().into_bytes();
    Reply { body, ..Reply::new(200) }
}

/// A repository with these files, each under its hash, without redirects.
fn repository(files: Vec<(&'static str, Vec<u8>)>) -> impl Fn(&Request) -> Reply + Send + Sync {
    move |request| {
        if request.path.starts_with("/api/") {
            return info(&files.iter().map(|(name, _)| *name).collect::<Vec<_>>());
        }
        let name = request.path.strip_prefix(&format!("/org/m/resolve/{COMMIT}/"));
        match files.iter().find(|(file, _)| Some(*file) == name) {
            Some((_, body)) => {
                Reply::file(request, body).with("ETag", format!("\"{}\"", sha256(body))).with("X-Repo-Commit", COMMIT)
            }
            None => Reply::new(404).with("X-Error-Code", "EntryNotFound"),
        }
    }
}

struct Client {
    folder: tempfile::TempDir,
    hub: Hub,
}

impl Client {
    fn of(server: &Server) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (cache, token) = (folder.path().to_owned(), Token::new(SECRET, "the test"));
        Self { folder, hub: Hub { cache, endpoint: server.address.clone(), offline: false, token } }
    }

    fn repo(&self) -> PathBuf {
        self.folder.path().join("models--org--m")
    }

    fn snapshot(&self) -> PathBuf {
        self.repo().join("snapshots").join(COMMIT)
    }

    fn fetch(&self, model: &str) -> Result<PathBuf, HubError> {
        self.hub.fetch(model, &mut |_| {})
    }
}

fn weights() -> Vec<u8> {
    (0..300_000u32).flat_map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes()).collect()
}

fn model_files() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("config.json", b"{}".to_vec()),
        ("model.safetensors", weights()),
        ("README.md", b"no".to_vec()),
        ("sub/x.bin", b"no".to_vec()),
    ]
}

#[test]
fn a_model_is_downloaded_once_into_pythons_layout() {
    let server = Server::start(repository(model_files()));
    let client = Client::of(&server);
    let mut seen = Vec::new();
    let mut progress = |p: Progress| seen.push((p.file.to_owned(), p.index, p.count, p.done, p.total));
    assert_eq!(client.hub.fetch("org/m", &mut progress).unwrap(), client.snapshot());
    let size = weights().len() as u64;
    assert!(seen.contains(&("model.safetensors".into(), 0, 2, size, Some(size))), "{seen:?}");
    assert!(seen.contains(&("config.json".into(), 1, 2, 2, Some(2))), "{seen:?}");

    assert_eq!(fs::read(client.snapshot().join("model.safetensors")).unwrap(), weights());
    assert_eq!(fs::read_to_string(client.repo().join("refs/main")).unwrap(), COMMIT);
    assert!(!client.snapshot().join("README.md").exists());
    let blob = client.repo().join("blobs").join(sha256(&weights()));
    assert!(blob.is_file());
    #[cfg(unix)]
    {
        let link = fs::read_link(client.snapshot().join("model.safetensors")).unwrap();
        assert_eq!(link, Path::new("../../blobs").join(sha256(&weights())));
    }
    assert!(fs::read_dir(client.repo().join("blobs")).unwrap().all(|e| e.unwrap().path().extension().is_none()));
    assert!(client.folder.path().join(".locks/models--org--m").join(format!("{}.lock", sha256(&weights()))).exists());

    let asked = server.requests().len();
    assert_eq!(client.fetch("org/m").unwrap(), client.snapshot());
    assert_eq!(server.requests().len(), asked, "what the cache has is not asked for again");
    let name: ModelName = "org/m".parse().unwrap();
    client.hub.download(&name, &mut |_| {}).unwrap();
    assert_eq!(server.requests().len(), asked + 1, "download asks for the revision, and for no file that is there");
}

#[test]
fn the_token_stays_with_its_server() {
    let body = weights();
    let cdn = Server::start({
        let body = body.clone();
        move |request| Reply::file(request, &body)
    });
    let location = format!("{}/blob?signature=1", cdn.address);
    let server = Server::start(move |request| {
        if request.path.starts_with("/api/") {
            return info(&["m.gguf"]);
        }
        if request.path.starts_with("/org/m/") {
            return Reply::new(307).with("Location", "/moved/m.gguf");
        }
        let reply = Reply::new(302).with("Location", location.clone()).with("X-Linked-Etag", format!("\"{}\"", sha256(&body)));
        reply.with("X-Linked-Size", body.len().to_string()).with("ETag", "\"not-this-one\"")
    });
    let client = Client::of(&server);
    let path = client.fetch("org/m").unwrap();
    assert_eq!(path, client.snapshot().join("m.gguf"));
    assert_eq!(fs::read(path).unwrap(), weights());
    let authorization = |request: &Request| request.headers.get("authorization").cloned();
    assert!(server.requests().iter().all(|request| authorization(request) == Some(format!("Bearer {SECRET}"))));
    assert_eq!(server.requests().iter().filter(|request| request.path == "/moved/m.gguf").count(), 2);
    assert_eq!(cdn.requests().len(), 1);
    assert!(cdn.requests().iter().all(|request| authorization(request).is_none()));
}

#[test]
fn a_cut_transfer_goes_on_where_it_stopped() {
    let tries = Arc::new(AtomicUsize::new(0));
    let whole = repository(model_files());
    let server = Server::start({
        let tries = tries.clone();
        move |request| {
            let mut reply = whole(request);
            if request.method == "GET" && request.path.ends_with(".safetensors") && tries.fetch_add(1, Ordering::SeqCst) < 2 {
                reply.cut = Some(400_000);
            }
            reply
        }
    });
    let client = Client::of(&server);
    client.fetch("org/m").unwrap();
    assert_eq!(fs::read(client.snapshot().join("model.safetensors")).unwrap(), weights());
    let starts = server
        .requests()
        .iter()
        .filter(|r| r.method == "GET" && r.path.ends_with(".safetensors"))
        .map(Request::from)
        .collect::<Vec<_>>();
    assert_eq!(starts, [0, 400_000, 800_000]);
}

#[test]
fn a_partial_file_of_an_earlier_run_is_used() {
    let server = Server::start(repository(model_files()));
    let client = Client::of(&server);
    let partial = client.repo().join("blobs").join(format!("{}.incomplete", sha256(&weights())));
    fs::create_dir_all(partial.parent().unwrap()).unwrap();
    fs::write(&partial, &weights()[..1_000_000]).unwrap();
    client.fetch("org/m").unwrap();
    assert_eq!(fs::read(client.snapshot().join("model.safetensors")).unwrap(), weights());
    let asked = server.requests();
    assert_eq!(asked.iter().find(|r| r.method == "GET" && r.path.ends_with(".safetensors")).unwrap().from(), 1_000_000);
    assert!(!partial.exists());
}

#[test]
fn a_server_without_ranges_starts_again() {
    let whole = repository(model_files());
    let server = Server::start(move |request| {
        let mut request = request.clone();
        request.headers.remove("range");
        whole(&request)
    });
    let client = Client::of(&server);
    let partial = client.repo().join("blobs").join(format!("{}.incomplete", sha256(&weights())));
    fs::create_dir_all(partial.parent().unwrap()).unwrap();
    fs::write(&partial, b"something else").unwrap();
    client.fetch("org/m").unwrap();
    assert_eq!(fs::read(client.snapshot().join("model.safetensors")).unwrap(), weights());
}

#[test]
fn a_partial_file_that_is_too_long_is_dropped() {
    let server = Server::start(repository(model_files()));
    let client = Client::of(&server);
    let partial = client.repo().join("blobs").join(format!("{}.incomplete", sha256(&weights())));
    fs::create_dir_all(partial.parent().unwrap()).unwrap();
    fs::write(&partial, [&weights()[..], b"more"].concat()).unwrap();
    client.fetch("org/m").unwrap();
    assert_eq!(fs::read(client.snapshot().join("model.safetensors")).unwrap(), weights());
}

#[test]
fn wrong_bytes_are_refused_and_deleted() {
    let whole = repository(model_files());
    let server = Server::start(move |request| {
        let mut reply = whole(request);
        if request.path.ends_with(".safetensors") && request.method == "GET" {
            reply.body[77] ^= 1;
        }
        reply
    });
    let client = Client::of(&server);
    let error = client.fetch("org/m").unwrap_err();
    let HubError::Corrupt { expected, found, .. } = &error else { panic!("{error}") };
    assert_eq!(*expected, sha256(&weights()));
    assert_ne!(found, expected);
    assert_eq!(fs::read_dir(client.repo().join("blobs")).unwrap().count(), 0);
    assert!(!client.repo().join("refs/main").exists(), "an incomplete snapshot is not what the revision stands for");
    // The same for bytes that an earlier run left behind.
    let server = Server::start(repository(model_files()));
    let hub = Hub { endpoint: server.address.clone(), ..client.hub.clone() };
    fs::write(client.repo().join("blobs").join(format!("{expected}.incomplete")), b"wrong").unwrap();
    assert!(matches!(hub.fetch("org/m", &mut |_| {}), Err(HubError::Corrupt { .. })));
    hub.fetch("org/m", &mut |_| {}).unwrap();
}

#[test]
fn a_transfer_that_never_ends_well_says_how_to_do_it_by_hand() {
    let whole = repository(model_files());
    let server = Server::start(move |request| {
        let mut reply = whole(request);
        if request.path.ends_with(".safetensors") && request.method == "GET" {
            (reply.status, reply.body) = (503, Vec::new());
        }
        reply
    });
    let client = Client::of(&server);
    let error = client.fetch("org/m").unwrap_err();
    let HubError::Transfer { url, target, .. } = &error else { panic!("{error}") };
    assert_eq!(*url, format!("{}/org/m/resolve/{COMMIT}/model.safetensors", server.address));
    assert!(target.starts_with(client.repo()));
    assert!(error.to_string().contains("by hand: fetch that address to"), "{error}");
}

#[track_caller]
fn refused(status: u16, code: &'static str, token: bool) -> HubError {
    let server = Server::start(move |_| Reply::new(status).with("X-Error-Code", code));
    let mut client = Client::of(&server);
    client.hub.token = client.hub.token.filter(|_| token);
    let error = client.fetch("org/m").unwrap_err();
    assert_eq!(server.requests().len(), 1, "a refusal is not asked again");
    assert!(!error.to_string().contains(SECRET) && !format!("{error:?}").contains(SECRET));
    error
}

#[test]
fn refusals_say_what_to_do() {
    for status in [401, 403] {
        let error = refused(status, "GatedRepo", true);
        let HubError::Gated { url } = &error else { panic!("{error}") };
        assert!(url.ends_with("/org/m"), "{url}");
        assert!(
            error
                .to_string()
                .ends_with("access is gated; accept the license there, then set HF_TOKEN to a token of that account")
        );
    }
    let error = refused(401, "", true);
    assert!(matches!(&error, HubError::Unauthorized { token_from: Some(from), .. } if from == "the test"), "{error}");
    let error = refused(401, "RepoNotFound", false);
    assert!(matches!(&error, HubError::Unauthorized { token_from: None, .. }), "{error}");
    assert!(error.to_string().contains("with no token"), "{error}");
    let error = refused(404, "RevisionNotFound", true);
    assert!(matches!(&error, HubError::NotFound { detail, .. } if detail == "the repository has no such revision"), "{error}");
    assert!(matches!(refused(404, "", true), HubError::NotFound { .. }));
    assert!(matches!(refused(400, "", true), HubError::Server { .. }));
}

#[test]
fn a_gated_file_is_gated_too() {
    let server = Server::start(|request| match request.path.starts_with("/api/") {
        true => info(&["config.json", "model.safetensors"]),
        false => Reply::new(403).with("X-Error-Code", "GatedRepo"),
    });
    let error = Client::of(&server).fetch("org/m").unwrap_err();
    assert!(matches!(&error, HubError::Gated { url } if *url == format!("{}/org/m", server.address)), "{error}");
}

#[test]
fn a_server_that_is_not_there_is_offline() {
    let server = Server::start(|_| Reply::new(200));
    let client = Client::of(&server);
    drop(server);
    let error = client.fetch("org/m").unwrap_err();
    assert!(matches!(&error, HubError::Offline { reason: OfflineReason::Unreachable(_), .. }), "{error}");
    let offline = Hub { offline: true, ..client.hub.clone() };
    let name: ModelName = "org/m".parse().unwrap();
    assert!(matches!(offline.download(&name, &mut |_| {}), Err(HubError::Offline { reason: OfflineReason::Forbidden, .. })));
}

#[test]
fn hostile_answers_write_nothing_outside_the_cache() {
    let evil = ["../../evil.safetensors", "/evil.safetensors", "a\\..\\evil.safetensors", "model.safetensors"];
    for etag in ["../../../evil", "..", "", "a/b", "a\\b", ".hidden", "nul", &"x".repeat(200)] {
        let etag = etag.to_owned();
        let server = Server::start(move |request| match request.path.starts_with("/api/") {
            true => info(&evil),
            false => Reply { body: b"x".to_vec(), ..Reply::new(200) }.with("ETag", format!("\"{etag}\"")),
        });
        let client = Client::of(&server);
        let error = client.fetch("org/m").unwrap_err();
        assert!(matches!(error, HubError::Server { .. }), "{error}");
        assert!(!client.folder.path().join("evil").exists() && !client.repo().join("evil").exists());
    }
    for sha in ["../../x", "main", "", &"g".repeat(40), &"A".repeat(40)] {
        let body = serde_json::json!({ "sha": sha, "siblings": [] }).to_string();
        let server = Server::start(move |_| Reply { body: body.clone().into_bytes(), ..Reply::new(200) });
        let error = Client::of(&server).fetch("org/m").unwrap_err();
        assert!(matches!(error, HubError::Server { .. }), "{error}");
    }
    for body in ["", "[]", "{", "null", r#"{"sha": 1}"#] {
        let server = Server::start(move |_| Reply { body: body.into(), ..Reply::new(200) });
        assert!(matches!(Client::of(&server).fetch("org/m"), Err(HubError::Server { .. })), "{body}");
    }
}

#[test]
fn hostile_redirects_end() {
    for location in ["/again", "ftp://127.0.0.1/x", "http://user@127.0.0.1/", "http://[bad", "", "mailto:x"] {
        let server = Server::start(move |_| Reply::new(302).with("Location", location));
        let error = Client::of(&server).fetch("org/m").unwrap_err();
        assert!(matches!(error, HubError::Server { .. }), "{location}: {error}");
        assert!(server.requests().len() <= 11, "{location}");
    }
}

#[test]
fn more_bytes_than_announced_are_not_kept() {
    let body = b"{}".to_vec();
    let server = Server::start(move |request| match request.path.starts_with("/api/") {
        true => info(&["config.json"]),
        false if request.method == "HEAD" => {
            Reply::new(200).with("ETag", format!("\"{}\"", sha256(&body))).with("Content-Length", "2")
        }
        false => Reply { body: vec![b'x'; 1 << 20], ..Reply::new(200) },
    });
    let client = Client::of(&server);
    let want = ModelName { repo: "org/m".into(), revision: "main".into(), want: Want::matching(["config.json"]) };
    let error = client.hub.download(&want, &mut |_| {}).unwrap_err();
    assert!(matches!(error, HubError::Transfer { .. }), "{error}");
    let left = fs::read_dir(client.repo().join("blobs")).unwrap().map(|e| e.unwrap().metadata().unwrap().len()).sum::<u64>();
    assert!(left <= 2, "{left}");
}

#[test]
fn files_and_types_are_fetched_by_name() {
    let files = vec![
        ("m-Q4_K_M.gguf", b"four".to_vec()),
        ("m-Q8_0-00001-of-00002.gguf", b"eight one".to_vec()),
        ("m-Q8_0-00002-of-00002.gguf", b"eight two".to_vec()),
        ("deep/er/x.json", b"{}".to_vec()),
    ];
    let server = Server::start(repository(files));
    let client = Client::of(&server);
    assert_eq!(client.fetch("org/m:Q8_0").unwrap(), client.snapshot().join("m-Q8_0-00001-of-00002.gguf"));
    assert_eq!(fs::read(client.snapshot().join("m-Q8_0-00002-of-00002.gguf")).unwrap(), b"eight two");
    assert!(!client.snapshot().join("m-Q4_K_M.gguf").exists());
    assert_eq!(client.fetch("org/m/m-Q4_K_M.gguf").unwrap(), client.snapshot().join("m-Q4_K_M.gguf"));
    assert_eq!(fs::read(client.fetch("org/m/deep/er/x.json@main").unwrap()).unwrap(), b"{}");
    let error = client.fetch("org/m:Q2_K").unwrap_err();
    assert!(matches!(&error, HubError::NotFound { detail, .. } if detail.contains("m-Q4_K_M.gguf")), "{error}");
    assert!(matches!(client.fetch("org/m"), Err(HubError::Ambiguous { .. })));
}

#[test]
fn two_downloads_at_once_share_one_transfer() {
    let whole = repository(model_files());
    let server = Server::start(move |request| {
        if request.method == "GET" && request.path.ends_with(".safetensors") {
            std::thread::sleep(Duration::from_millis(100));
        }
        whole(request)
    });
    let client = Client::of(&server);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| client.fetch("org/m").unwrap());
        }
    });
    let gets = server.requests().iter().filter(|r| r.method == "GET" && r.path.ends_with(".safetensors")).count();
    assert_eq!(gets, 1);
    assert_eq!(fs::read(client.snapshot().join("model.safetensors")).unwrap(), weights());
}
