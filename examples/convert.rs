//! Converts a model to a Hugging Face folder, or to a GGUF file.
//!
//!     cargo run --release --example convert -- --model FOLDER_OR_FILE --out MODEL.gguf --type Q4_K_M
//!     cargo run --release --example convert -- --model MODEL.gguf --out FOLDER --dtype bf16
//!
//! Prints what it wrote: files, tensors and bytes of each dtype, and whatever is not as asked for.

mod shared;

use std::io::Write;
use std::path::PathBuf;

use clap::Parser;
use puna::llama::Checkpoint;
use puna::llama::convert::{Existing, FileType, GgufOptions, HuggingFaceOptions, to_gguf, to_hugging_face};
use puna::prelude::*;

/// Converts a model (a folder of Hugging Face's or Meta's, a GGUF file) to a Hugging Face folder or a GGUF file.
#[derive(Parser)]
struct Arguments {
    /// A folder, a file (GGUF, safetensors), or `org/name` from the Hub's cache.
    #[arg(long)]
    model: String,
    /// Where to write: a path that ends in `.gguf` is a GGUF file, any other a Hugging Face folder.
    #[arg(long)]
    out: PathBuf,
    /// For a folder: f32, f16 or bf16; by default tensors keep their dtypes, and blocks become bf16.
    #[arg(long)]
    dtype: Option<DType>,
    /// For a GGUF file: F32, F16, BF16 or a block type for all matrices (Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K to Q6_K), or one of
    /// llama.cpp's mixes (Q2_K_S, Q3_K_S, Q3_K_M, Q3_K_L, Q4_K_S, Q4_K_M, Q5_K_S, Q5_K_M); by default matrices keep their dtypes.
    /// Where blocks of 256 do not divide rows, Q2_K and Q3_K become Q4_0, Q4_K Q5_0, Q5_K Q5_1, Q6_K Q8_0.
    #[arg(long = "type", value_name = "TYPE")]
    file_type: Option<FileType>,
    /// For a folder: how many bytes of tensors a file holds at most, as 5GB, 500MB or a number.
    #[arg(long, default_value = "5GB", value_parser = size)]
    shard_size: u64,
    /// For a GGUF file: the model's name in it; by default the checkpoint's.
    #[arg(long)]
    name: Option<String>,
    /// Replaces what is there.
    #[arg(long)]
    force: bool,
}

/// Bytes, with the units of ten that model files are measured in.
fn size(text: &str) -> Result<u64, String> {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let unit = match text[split..].to_ascii_uppercase().as_str() {
        "" | "B" => 1,
        "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        other => return Err(format!("{other:?} is no unit; KB, MB and GB are")),
    };
    let number: u64 = text[..split].parse().map_err(|_| "a number comes first, as in 5GB")?;
    number.checked_mul(unit).filter(|bytes| *bytes > 0).ok_or_else(|| format!("{text} is no size a file can have"))
}

fn main() -> std::process::ExitCode {
    shared::exit(run(Arguments::parse()))
}

fn run(arguments: Arguments) -> shared::Result<()> {
    let Arguments { model, out, dtype, file_type, shard_size, name, force } = arguments;
    let is_gguf = out.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gguf"));
    match (is_gguf, dtype, file_type) {
        (true, Some(dtype), _) => return Err(format!("--dtype {dtype} is for folders; a GGUF file takes --type").into()),
        (false, _, Some(file_type)) => {
            return Err(
                format!("--type {file_type} is for GGUF files; a path that ends in .gguf, or --dtype, would be right").into()
            );
        }
        _ => {}
    }
    let checkpoint = Checkpoint::open(puna::llama::hub::resolve(&model)?)?;
    let existing = if force { Existing::Replace } else { Existing::Refuse };
    let bar = shared::bar("converting");
    let progress = &mut |progress: puna::llama::Progress<'_>| {
        bar.set_length(progress.total as u64);
        bar.set_position(progress.done as u64);
    };
    let written = if is_gguf {
        let options = GgufOptions { file_type: file_type.unwrap_or_default(), name: name.as_deref(), existing, progress };
        to_gguf(&checkpoint, &out, options)
    } else {
        to_hugging_face(&checkpoint, &out, HuggingFaceOptions { dtype, shard_bytes: shard_size, existing, progress })
    };
    bar.finish_and_clear();
    let written = written.map_err(|error| match out.exists() && !force {
        true => format!("{error}; --force replaces it").into(),
        false => Box::<dyn std::error::Error>::from(error),
    })?;

    let mut text = std::io::stdout().lock();
    for path in &written.files {
        writeln!(text, "{} ({:.1} MB)", path.display(), std::fs::metadata(path)?.len() as f64 / 1e6)?;
    }
    for (dtype, count, bytes) in &written.dtypes {
        let tensors = if *count == 1 { "tensor" } else { "tensors" };
        writeln!(text, "  {count} {tensors} {dtype}, {:.1} MB", *bytes as f64 / 1e6)?;
    }
    for note in &written.notes {
        writeln!(text, "note: {note}")?;
    }
    Ok(())
}
