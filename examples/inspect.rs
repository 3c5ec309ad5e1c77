//! Says what a checkpoint holds, without loading it.
//!
//!     cargo run --release --example inspect -- FOLDER_OR_FILE --tensors --metadata
//!
//! Prints format, config, parameters, dtypes, tokenizer and chat template; the tensors summarised, or each with `--tensors`; of a
//! GGUF file also its metadata, with `--metadata`.

mod shared;

use std::collections::BTreeMap;
use std::io::{StdoutLock, Write};

use clap::Parser;
use puna::llama::weights::TokenizerSource;
use puna::llama::weights::gguf::{Array, Value, ValueKind};
use puna::llama::{Checkpoint, Config};
use puna::tokenizer::Tokenizer;

/// Says what a checkpoint holds: its format, config, tensors, tokenizer. Nothing is loaded.
#[derive(Parser)]
struct Arguments {
    /// A folder, a file (GGUF, safetensors), or `org/name` from the Hub's cache; by default the small story teller that puna carries.
    path: Option<String>,
    /// The same, as the other examples call it.
    #[arg(long, conflicts_with = "path")]
    model: Option<String>,
    /// Lists every tensor: name, dtype, shape, bytes, file.
    #[arg(long)]
    tensors: bool,
    /// Lists the metadata of a GGUF file.
    #[arg(long)]
    metadata: bool,
}

/// How many elements of an array, and how many characters of a text, the metadata shows.
const SHOWN: (usize, usize) = (6, 120);

fn main() -> std::process::ExitCode {
    shared::exit(run(Arguments::parse()))
}

fn run(arguments: Arguments) -> shared::Result<()> {
    let checkpoint = shared::open(arguments.path.or(arguments.model).as_deref())?;
    let mut out = std::io::stdout().lock();
    row(&mut out, "path", checkpoint.path().display())?;
    row(&mut out, "format", format_args!("{:?}", checkpoint.format()))?;
    config(&mut out, checkpoint.config())?;
    sizes(&mut out, &checkpoint)?;
    tokenizer(&mut out, &checkpoint)?;
    if arguments.tensors {
        writeln!(out)?;
        tensors(&mut out, &checkpoint)?;
    } else {
        kinds(&mut out, &checkpoint)?;
    }
    if arguments.metadata {
        writeln!(out)?;
        metadata(&mut out, &checkpoint)?;
    }
    match checkpoint.check() {
        Ok(()) => row(&mut out, "complete", "yes: the tensors are the config's")?,
        Err(error) => row(&mut out, "complete", format_args!("no: {error}"))?,
    }
    Ok(())
}

fn row(out: &mut StdoutLock<'_>, name: &str, value: impl std::fmt::Display) -> std::io::Result<()> {
    writeln!(out, "{name:<20} {value}")
}

fn config(out: &mut StdoutLock<'_>, config: &Config) -> std::io::Result<()> {
    // Each field by name: one that is new is not forgotten.
    let Config {
        hidden_size,
        intermediate_size,
        layers,
        heads,
        kv_heads,
        head_dim,
        vocab_size,
        max_seq,
        rms_norm_eps,
        rope_theta,
        rope,
        rope_pairs,
        tie_word_embeddings,
        attention_bias,
        mlp_bias,
        bos,
        eos,
        pad,
        dtype,
    } = config;
    row(out, "hidden_size", hidden_size)?;
    row(out, "intermediate_size", intermediate_size)?;
    row(out, "layers", layers)?;
    row(out, "heads", heads)?;
    row(out, "kv_heads", kv_heads)?;
    row(out, "head_dim", head_dim)?;
    row(out, "vocab_size", vocab_size)?;
    row(out, "max_seq", max_seq)?;
    row(out, "rms_norm_eps", rms_norm_eps)?;
    row(out, "rope_theta", rope_theta)?;
    row(out, "rope", format_args!("{rope:?}"))?;
    row(out, "rope_pairs", format_args!("{rope_pairs:?}"))?;
    row(out, "tie_word_embeddings", tie_word_embeddings)?;
    row(out, "attention_bias", attention_bias)?;
    row(out, "mlp_bias", mlp_bias)?;
    row(out, "bos", optional(bos))?;
    row(out, "eos", format_args!("{eos:?}"))?;
    row(out, "pad", optional(pad))?;
    row(out, "dtype", optional(dtype))
}

fn optional(value: &Option<impl ToString>) -> String {
    value.as_ref().map_or("not given".into(), ToString::to_string)
}

/// Parameters are counted as the config has them; bytes and dtypes as the files do.
fn sizes(out: &mut StdoutLock<'_>, checkpoint: &Checkpoint) -> std::io::Result<()> {
    let product = |shape: &[usize]| shape.iter().map(|length| *length as f64).product::<f64>();
    let parameters: f64 = checkpoint.config().tensors().iter().map(|(_, shape)| product(shape)).sum();
    row(out, "parameters", format_args!("{parameters} ({:.2} M)", parameters / 1e6))?;
    let mut dtypes: BTreeMap<String, (usize, usize)> = BTreeMap::new();
    for info in checkpoint.tensors() {
        let (count, bytes) = dtypes.entry(info.dtype.to_string()).or_default();
        *count += 1;
        *bytes += info.stored_bytes();
    }
    let total = dtypes.values().map(|(_, bytes)| bytes).sum();
    row(out, "bytes", format_args!("{total} ({})", megabytes(total)))?;
    for (dtype, (count, bytes)) in &dtypes {
        let tensors = if *count == 1 { "tensor" } else { "tensors" };
        row(out, "", format_args!("{dtype}: {count} {tensors}, {}", megabytes(*bytes)))?;
    }
    Ok(())
}

fn megabytes(bytes: usize) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

fn tokenizer(out: &mut StdoutLock<'_>, checkpoint: &Checkpoint) -> std::io::Result<()> {
    let kind = match checkpoint.tokenizer_source() {
        TokenizerSource::File(path) => path.display().to_string(),
        TokenizerSource::Gguf => {
            let text = |key| checkpoint.gguf().and_then(|gguf| gguf.string(key)).unwrap_or("no text");
            let (model, pre) =
                (text("tokenizer.ggml.model"), checkpoint.gguf().and_then(|gguf| gguf.string("tokenizer.ggml.pre")));
            format!("in the file: model {model:?}, pre {}", pre.map_or("not given".into(), |pre| format!("{pre:?}")))
        }
        TokenizerSource::Missing => "none".into(),
    };
    row(out, "tokenizer", kind)?;
    let is_without = checkpoint.gguf().and_then(|gguf| gguf.string("tokenizer.ggml.model")) == Some("none");
    let read = match checkpoint.tokenizer_source() {
        TokenizerSource::Missing => None,
        TokenizerSource::Gguf if is_without => None,
        _ => match checkpoint.read_tokenizer() {
            Ok(tokenizer) => Some(tokenizer),
            Err(error) => {
                row(out, "", format_args!("it cannot be read: {error}"))?;
                None
            }
        },
    };
    let name =
        |id: u32| read.as_ref().and_then(|tokenizer| tokenizer.token(id)).map_or(String::new(), |text| format!(" {text:?}"));
    if let Some(tokenizer) = &read {
        vocabulary(out, tokenizer)?;
        for (what, id) in [("bos", tokenizer.bos()), ("eos", tokenizer.eos()), ("pad", tokenizer.pad()), ("unk", tokenizer.unk())]
        {
            let shown = id.map_or("not given".into(), |id| format!("{id}{}", name(id)));
            row(out, "", format_args!("{what} {shown}"))?;
        }
        row(out, "", format_args!("begins a text with bos: {}", tokenizer.adds_bos()))?;
    }
    let ends: Vec<String> = checkpoint.end_tokens().into_iter().map(|id| format!("{id}{}", name(id))).collect();
    row(out, "end tokens", if ends.is_empty() { "not given".into() } else { ends.join(", ") })?;
    match checkpoint.chat_template_source() {
        Some(source) => row(out, "chat template", format_args!("{} characters", source.chars().count())),
        None => row(out, "chat template", "none"),
    }
}

fn vocabulary(out: &mut StdoutLock<'_>, tokenizer: &Tokenizer) -> std::io::Result<()> {
    row(out, "", format_args!("{} tokens", tokenizer.vocab_size()))?;
    let special: Vec<String> = tokenizer.special_tokens().map(|(id, text)| format!("{id} {text:?}")).collect();
    let shown = special.iter().take(SHOWN.0).cloned().collect::<Vec<_>>().join(", ");
    let more = if special.len() > SHOWN.0 { ", .." } else { "" };
    row(out, "", format_args!("{} special: {shown}{more}", special.len()))
}

/// The tensors of one name, but for the layer's number, and of one dtype and shape, in a line.
fn kinds(out: &mut StdoutLock<'_>, checkpoint: &Checkpoint) -> std::io::Result<()> {
    let mut kinds: Vec<(String, String, &[usize], usize, usize)> = Vec::new();
    for info in checkpoint.tensors() {
        let is_number = |segment: &&str| segment.bytes().all(|byte| byte.is_ascii_digit());
        let segments: Vec<&str> = info.name.split('.').map(|s| Some(s).filter(is_number).map_or(s, |_| "*")).collect();
        let (name, dtype) = (segments.join("."), info.dtype.to_string());
        match kinds.iter_mut().find(|kind| kind.0 == name && kind.1 == dtype && kind.2 == info.shape) {
            Some(kind) => {
                kind.3 += 1;
                kind.4 += info.stored_bytes();
            }
            None => kinds.push((name, dtype, &info.shape, 1, info.stored_bytes())),
        }
    }
    row(out, "tensors", checkpoint.tensors().len())?;
    for (name, dtype, shape, count, bytes) in kinds {
        row(out, "", format_args!("{count:>4} {} {dtype} {shape:?} {}", name.escape_debug(), megabytes(bytes)))?;
    }
    Ok(())
}

fn tensors(out: &mut StdoutLock<'_>, checkpoint: &Checkpoint) -> std::io::Result<()> {
    let width = checkpoint.tensors().map(|info| info.name.len()).max().unwrap_or(0).clamp(4, 60);
    writeln!(out, "{:<width$} {:<5} {:<16} {:>12} file", "name", "dtype", "shape", "bytes")?;
    for info in checkpoint.tensors() {
        let (name, shape) = (info.name.escape_debug().to_string(), format!("{:?}", info.shape));
        let parts = if info.parts.len() > 1 { format!(" and {} more", info.parts.len() - 1) } else { String::new() };
        let (dtype, bytes) = (info.dtype.to_string(), info.stored_bytes());
        writeln!(out, "{name:<width$} {dtype:<5} {shape:<16} {bytes:>12} {}{parts}", info.file())?;
    }
    Ok(())
}

fn metadata(out: &mut StdoutLock<'_>, checkpoint: &Checkpoint) -> std::io::Result<()> {
    let Some(gguf) = checkpoint.gguf() else { return row(out, "metadata", "none: it is no GGUF file") };
    row(out, "metadata", format_args!("of {}, version {}", gguf.file().name(), gguf.version()))?;
    for (key, value) in gguf.metadata() {
        writeln!(out, "  {}: {}", key.escape_debug(), shown(value))?;
    }
    Ok(())
}

fn shown(value: Value<'_>) -> String {
    match value {
        Value::Integer(value) => value.to_string(),
        // The shortest decimal that a binary32 is the rounding of.
        Value::Float(value) if f64::from(value as f32) == value => (value as f32).to_string(),
        Value::Float(value) => value.to_string(),
        Value::Bool(value) => value.to_string(),
        Value::String(text) => quoted(text),
        Value::Array(array) => elements(array),
    }
}

fn elements(array: Array<'_>) -> String {
    let shown: Vec<String> = if array.kind == ValueKind::String {
        array.strings().take(SHOWN.0).map(|text| quoted(&String::from_utf8_lossy(text))).collect()
    } else {
        array.numbers().take(SHOWN.0).map(|number| number.to_string()).collect()
    };
    let more = if array.length > SHOWN.0 { ", .." } else { "" };
    format!("{} of {:?}: [{}{more}]", array.length, array.kind, shown.join(", "))
}

fn quoted(text: &str) -> String {
    let cut: String = text.chars().take(SHOWN.1).collect();
    if cut.len() == text.len() { format!("{text:?}") } else { format!("{cut:?} .. ({} characters)", text.chars().count()) }
}
