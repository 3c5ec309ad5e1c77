//! Finding models by path or by name in the Hub's cache, without a network.

use std::fs;
use std::path::{Path, PathBuf};

use puna_llama::hub::{Hub, HubError, ModelName, OfflineReason, Token, Want};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

struct Cache {
    folder: tempfile::TempDir,
    hub: Hub,
}

impl Cache {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let cache = folder.path().display().to_string();
        let hub = Hub::from_vars(|name| (name == "HF_HUB_CACHE").then(|| cache.clone()));
        Self { folder, hub }
    }

    /// A snapshot as Python's tools lay it out: links to blobs.
    fn put(&self, repo: &str, revision: &str, files: &[(&str, &str)]) -> PathBuf {
        let root = self.folder.path().join(format!("models--{}", repo.replace('/', "--")));
        let snapshot = root.join("snapshots").join(COMMIT);
        for (index, (name, text)) in files.iter().enumerate() {
            let (blob, pointer) = (root.join("blobs").join(format!("etag{index}")), snapshot.join(name));
            write(&blob, text);
            fs::create_dir_all(pointer.parent().unwrap()).unwrap();
            fs::copy(&blob, &pointer).unwrap();
        }
        write(&root.join("refs").join(revision), COMMIT);
        snapshot
    }

    #[track_caller]
    fn missing(&self, model: &str) -> String {
        match self.hub.resolve(model).unwrap_err() {
            HubError::Offline { missing, looked_in, reason } => {
                assert_eq!(looked_in, self.folder.path());
                let expected = if cfg!(feature = "hub") { OfflineReason::CacheOnly } else { OfflineReason::NoFeature };
                assert_eq!(reason, expected);
                missing
            }
            other => panic!("{other}"),
        }
    }
}

fn write(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

#[test]
fn paths_are_taken_as_they_are() {
    let cache = Cache::new();
    let file = cache.folder.path().join("m.gguf");
    fs::write(&file, "x").unwrap();
    for path in [file.as_path(), cache.folder.path()] {
        assert_eq!(cache.hub.resolve(path.to_str().unwrap()).unwrap(), path);
    }
}

#[test]
fn a_cached_model_is_its_snapshot() {
    let cache = Cache::new();
    let snapshot = cache.put("org/m", "main", &[("config.json", "{}"), ("model.safetensors", "x"), ("tokenizer.json", "{}")]);
    assert_eq!(cache.hub.resolve("org/m").unwrap(), snapshot);
    assert_eq!(cache.hub.resolve("org/m@main").unwrap(), snapshot);
    assert_eq!(cache.hub.resolve(&format!("org/m@{COMMIT}")).unwrap(), snapshot);
    assert_eq!(cache.hub.resolve("org/m/tokenizer.json").unwrap(), snapshot.join("tokenizer.json"));
    assert_eq!(cache.missing("org/m@v2"), "org/m@v2");
    assert_eq!(cache.missing("org/other"), "org/other");
    cache.put("org/pr", "refs/pr/1", &[("config.json", "{}"), ("pytorch_model.bin", "x")]);
    assert!(cache.hub.resolve("org/pr@refs/pr/1").is_ok());
}

#[test]
fn a_part_that_is_missing_is_named() {
    let cache = Cache::new();
    let index = r#"{"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}"#;
    cache.put(
        "org/m",
        "main",
        &[("config.json", "{}"), ("model.safetensors.index.json", index), ("model-00001-of-00002.safetensors", "x")],
    );
    assert_eq!(cache.missing("org/m"), "org/m: model-00002-of-00002.safetensors");
    cache.put("org/n", "main", &[("model.safetensors", "x")]);
    assert_eq!(cache.missing("org/n"), "org/n: config.json");
    cache.put("org/o", "main", &[("config.json", "{}")]);
    assert_eq!(cache.missing("org/o"), "org/o");
    cache.put("org/p", "main", &[("m-Q8_0-00001-of-00002.gguf", "x")]);
    assert_eq!(cache.missing("org/p:Q8_0"), "org/p:Q8_0: m-Q8_0-00002-of-00002.gguf");
}

#[test]
fn a_link_whose_blob_is_gone_is_missing() {
    let cache = Cache::new();
    let snapshot = cache.put("org/m", "main", &[("config.json", "{}"), ("model.safetensors", "x")]);
    fs::remove_file(snapshot.join("model.safetensors")).unwrap();
    #[cfg(unix)]
    std::os::unix::fs::symlink("../../blobs/gone", snapshot.join("model.safetensors")).unwrap();
    assert_eq!(cache.missing("org/m"), "org/m");
}

#[test]
fn gguf_repositories_give_a_file() {
    let cache = Cache::new();
    let snapshot = cache.put("org/one-GGUF", "main", &[("m-Q4_K_M.gguf", "x"), ("README.md", "")]);
    assert_eq!(cache.hub.resolve("org/one-GGUF").unwrap(), snapshot.join("m-Q4_K_M.gguf"));
    let snapshot = cache.put("org/two-GGUF", "main", &[("m-Q4_K_M.gguf", "x"), ("m-Q8_0.gguf", "x")]);
    assert_eq!(cache.hub.resolve("org/two-GGUF:q8_0").unwrap(), snapshot.join("m-Q8_0.gguf"));
    assert_eq!(cache.hub.resolve("org/two-GGUF@main:Q4_K_M").unwrap(), snapshot.join("m-Q4_K_M.gguf"));
    assert_eq!(cache.hub.resolve("org/two-GGUF/m-Q8_0.gguf").unwrap(), snapshot.join("m-Q8_0.gguf"));
    let error = cache.hub.resolve("org/two-GGUF").unwrap_err();
    assert_eq!(
        error.to_string(),
        "org/two-GGUF: several models: m-Q4_K_M.gguf, m-Q8_0.gguf; name one, as in org/name:Q4_K_M or org/name/file.gguf"
    );
}

#[test]
fn hostile_names_are_no_models() {
    let cache = Cache::new();
    write(&cache.folder.path().join("secret/config.json"), "{}");
    let names = [
        "",
        "/",
        "//",
        "org",
        "org/",
        "/name",
        "../x",
        "org/..",
        "../../secret",
        "org/../secret",
        "org/name/../../secret",
        "org//name",
        "org/na me",
        "org\\name",
        "org/name\\..\\x",
        "C:/x",
        "C:\\x",
        "org/name:",
        "org/name:../x",
        "org/name@",
        "org/name@../../x",
        "org/name@/etc",
        "org/name@a//b",
        "org/name@a\\b",
        "org/na--me",
        "org/name.git",
        ".org/name",
        "org/name.",
        "org/-name",
        "org/\u{e9}",
        "org/name/",
        "org/name/a//b",
        "org/name/./b",
        "org/name/con",
        "org/name/NUL.gguf",
        "aux/name",
        "org/name/a\0b",
        "org/name/a:b",
        "org/name:Q4@main:Q8",
        "org/name/f.gguf:Q4",
        "./missing/file.gguf",
        "~/missing",
    ];
    for name in names {
        match name.parse::<ModelName>() {
            Err(HubError::NotFound { model, .. }) => assert_eq!(model, name),
            other => panic!("{name:?}: {other:?}"),
        }
    }
    let long = format!("org/{}", "x".repeat(97));
    assert!(matches!(long.parse::<ModelName>(), Err(HubError::NotFound { .. })));
    assert!(matches!(cache.hub.resolve("./missing/file.gguf"), Err(HubError::NotFound { .. })));
    // Fields can be filled by hand: they are checked again where they become paths.
    let by_hand = |repo: &str, revision: &str| ModelName { repo: repo.into(), revision: revision.into(), want: Want::Model };
    assert!(cache.hub.cached(&by_hand("../secret", "main")).is_err());
    assert!(cache.hub.cached(&by_hand("org/name", "../../../secret")).is_err());
}

#[test]
fn a_hostile_reference_leads_nowhere() {
    let cache = Cache::new();
    cache.put("org/m", "main", &[("config.json", "{}"), ("model.safetensors", "x")]);
    write(&cache.folder.path().join("secret/config.json"), "{}");
    for text in ["../../secret", "..", ".", "", "a/b", "\u{0}", &"x".repeat(1000)] {
        write(&cache.folder.path().join("models--org--m/refs/main"), text);
        assert_eq!(cache.missing("org/m"), "org/m", "{text:?}");
    }
}

#[test]
fn names_print_as_they_are_written() {
    for text in
        ["org/name", "org/name@v1.0", "org/name:Q4_K_M", "org/name@refs/pr/1:Q8_0", "org/name/a/b.gguf", "org/name/f.gguf@dev"]
    {
        assert_eq!(text.parse::<ModelName>().unwrap().to_string(), text);
    }
    let name: ModelName = "org/name/f.gguf@dev".parse().unwrap();
    assert_eq!(name, ModelName { repo: "org/name".into(), revision: "dev".into(), want: Want::File("f.gguf".into()) });
}

fn hub(vars: &[(&str, &str)]) -> Hub {
    Hub::from_vars(|name| vars.iter().find(|(var, _)| *var == name).map(|(_, value)| value.to_string()))
}

#[test]
fn the_cache_is_where_python_looks() {
    let home = ("HOME", "/home/u");
    let check = |vars: &[(&str, &str)], expected: &str| assert_eq!(hub(vars).cache, Path::new(expected));
    check(&[home], "/home/u/.cache/huggingface/hub");
    check(&[home, ("XDG_CACHE_HOME", "/x")], "/x/huggingface/hub");
    check(&[home, ("XDG_CACHE_HOME", "/x"), ("HF_HOME", "~/hf")], "/home/u/hf/hub");
    check(&[home, ("HF_HOME", "/hf"), ("HUGGINGFACE_HUB_CACHE", "/old")], "/old");
    check(&[home, ("HUGGINGFACE_HUB_CACHE", "/old"), ("HF_HUB_CACHE", "~")], "/home/u");
    check(&[home, ("HF_HUB_CACHE", ""), ("HF_HOME", "/hf")], "/hf/hub");
}

#[test]
fn endpoint_and_offline_come_from_the_environment() {
    assert_eq!(hub(&[("HF_ENDPOINT", "https://mirror.example/hf/")]).endpoint, "https://mirror.example/hf");
    for (vars, offline) in [
        (&[("HF_HUB_OFFLINE", "1")][..], true),
        (&[("HF_HUB_OFFLINE", "yes")], true),
        (&[("HF_HUB_OFFLINE", "0")], false),
        (&[("TRANSFORMERS_OFFLINE", "True")], true),
        (&[("HF_HUB_OFFLINE", "0"), ("TRANSFORMERS_OFFLINE", "1")], false),
        (&[], false),
    ] {
        assert_eq!(hub(vars).offline, offline, "{vars:?}");
    }
    let forbidden = hub(&[("HF_HUB_OFFLINE", "1"), ("HF_HUB_CACHE", "/none")]);
    let error = forbidden.fetch("org/name", &mut |_| {}).unwrap_err();
    assert!(matches!(&error, HubError::Offline { reason: OfflineReason::Forbidden, .. }), "{error}");
}

#[test]
fn the_token_is_found_and_never_shown() {
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path().to_str().unwrap();
    let from = |vars: &[(&str, &str)]| hub(vars).token.map(|token| token.from().to_owned());
    assert_eq!(from(&[("HF_HOME", home)]), None);
    fs::write(folder.path().join("token"), "hf_file\n").unwrap();
    fs::write(folder.path().join("other"), "hf_other\n").unwrap();
    let other = folder.path().join("other").display().to_string();
    assert_eq!(from(&[("HF_HOME", home)]), Some(folder.path().join("token").display().to_string()));
    assert_eq!(from(&[("HF_HOME", home), ("HF_TOKEN_PATH", &other)]), Some(other.clone()));
    assert_eq!(from(&[("HF_HOME", home), ("HF_TOKEN", " hf_env\n")]).as_deref(), Some("HF_TOKEN"));
    assert_eq!(from(&[("HF_HOME", home), ("HF_TOKEN", "hf_env"), ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")]), None);
    let shown = format!("{:?}", hub(&[("HF_TOKEN", "hf_secret")]));
    assert!(shown.contains("HF_TOKEN") && !shown.contains("hf_secret"), "{shown}");
    assert!(
        Token::new("two words", "x").is_none() && Token::new("line\r\nbreak: y", "x").is_none() && Token::new(" ", "x").is_none()
    );
}

#[cfg(not(feature = "hub"))]
#[test]
fn a_build_without_the_feature_names_it() {
    let cache = Cache::new();
    let error = cache.hub.fetch("org/name", &mut |_| {}).unwrap_err().to_string();
    let expected = format!(
        "org/name: not in {}; this build cannot download; build with `--features hub`, or fetch it with another tool",
        cache.folder.path().display()
    );
    assert_eq!(error, expected);
}
