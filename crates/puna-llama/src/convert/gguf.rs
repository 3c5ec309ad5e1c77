//! To a GGUF file.

use std::path::Path;

use puna_tensor::DType;
use puna_tensor::op::RopePairs;

use super::elements::Converter;
use super::file_type::FileType;
use super::{Existing, Producer, Source, Step, Written, is_source, model_tensors, vocabulary};
use crate::error::{Error, Kind, Result};
use crate::load::Progress;
use crate::names::{Convention, translate};
use crate::rope;
use crate::weights::gguf::GgmlType;
use crate::weights::write::{self, MetadataValue, TensorPlan};
use crate::weights::{Checkpoint, TensorInfo};

/// How llama.cpp's block formats are numbered: the second, which all files since 2023 have.
const QUANTIZATION_VERSION: u32 = 2;

/// How a checkpoint is written as GGUF.
pub struct GgufOptions<'a> {
    /// What matrices are stored as.
    pub file_type: FileType,
    /// The model's name in the file; by default that of the GGUF it comes from, or of the checkpoint's folder.
    pub name: Option<&'a str>,
    /// What happens to a file that is there.
    pub existing: Existing,
    /// Told of each tensor that has been converted.
    pub progress: &'a mut dyn FnMut(Progress<'_>),
}

/// Writes a checkpoint as one GGUF file, version 3, with its tokenizer and chat template.
///
/// Errors: a checkpoint whose tensors are not the model's; a rope scaling, tokenizer or value that the format has no place for; a
/// file that is there, unless it may be replaced; what the operating system says.
pub fn to_gguf(checkpoint: &Checkpoint, path: &Path, options: GgufOptions<'_>) -> Result<Written> {
    let GgufOptions { file_type, name, existing, progress } = options;
    let refuse = |message: &str| Err(Error::new(Kind::Argument, path.display().to_string(), message));
    if is_source(checkpoint, path) {
        return refuse("the checkpoint that is read cannot be replaced; another path would be right");
    }
    if path.is_dir() {
        return refuse("it is a folder; the path of a file would be right");
    }
    if existing == Existing::Refuse && path.exists() {
        return refuse("it is there already");
    }

    let config = checkpoint.config();
    let mut written = Written { files: vec![path.to_owned()], ..Written::default() };
    let steps = steps(checkpoint, file_type, &mut written)?;
    let main = match file_type {
        FileType::Pure(dtype) => dtype,
        FileType::AsStored | FileType::Mix(_) => written.main_dtype(),
    };
    let mut metadata = config.to_gguf_metadata(&model_name(checkpoint, name), main)?;
    if let FileType::Mix(mix) = file_type {
        let entry = metadata.iter_mut().find(|(key, _)| key == "general.file_type");
        entry.expect("the config's metadata has a file type").1 = MetadataValue::U32(mix.number());
    }
    if written.dtypes.iter().any(|(dtype, ..)| dtype.block().is_some()) {
        metadata.push(("general.quantization_version".into(), MetadataValue::U32(QUANTIZATION_VERSION)));
    }
    metadata.extend(vocabulary::metadata(checkpoint, config.vocab_size, &mut written.notes)?);

    let (converter, total) = (Converter::new()?, steps.len());
    let mut producer = Producer { config, pairs: RopePairs::Interleaved, converter, progress, done: 0, total };
    let mut next = steps.iter();
    let plans: Vec<TensorPlan> = steps.iter().map(|step| step.plan.clone()).collect();
    write::gguf(path, &metadata, &plans, &mut |_| producer.produce(next.next().expect("one step for each plan")))?;
    Ok(written)
}

/// The tensors to be written, counted, with a note of those that are not as asked for.
fn steps<'a>(checkpoint: &'a Checkpoint, file_type: FileType, written: &mut Written) -> Result<Vec<Step<'a>>> {
    let config = checkpoint.config();
    let mut steps = Vec::new();
    let mut unfit: Vec<(DType, DType, usize, usize)> = Vec::new();
    let mut again = 0;
    for info in model_tensors(checkpoint)? {
        let stored = info.dtype()?;
        let (dtype, wanted) = file_type.dtype(config, &info.name, &info.shape, stored);
        if let Some(wanted) = wanted {
            let row = info.shape.last().copied().unwrap_or_default();
            match unfit.iter_mut().find(|(a, b, length, _)| (*a, *b, *length) == (wanted, dtype, row)) {
                Some((.., count)) => *count += 1,
                None => unfit.push((wanted, dtype, row, 1)),
            }
        }
        again += usize::from(stored.block().is_some() && dtype.block().is_some() && stored != dtype);
        steps.push(step(info, dtype)?);
    }
    if let Some(factors) = rope::factors(config) {
        let bytes = factors.iter().flat_map(|factor| factor.to_le_bytes()).collect();
        let plan = TensorPlan { name: "rope_freqs.weight".into(), dtype: DType::F32, shape: vec![factors.len()] };
        steps.push(Step { source: Source::Made(bytes), plan });
    }
    for (wanted, dtype, row, count) in unfit {
        let unit = wanted.unit();
        let tensors = if count == 1 { "tensor" } else { "tensors" };
        written.notes.push(format!("{count} {tensors} with rows of {row}, no multiple of {unit}: {dtype} in place of {wanted}"));
    }
    if again > 0 {
        let message = format!("{again} tensors went from blocks to other blocks, which loses more than going there from floats");
        written.notes.push(message);
    }
    for step in &steps {
        written.count(&step.plan)?;
    }
    Ok(steps)
}

fn step(info: &TensorInfo, dtype: DType) -> Result<Step<'_>> {
    if GgmlType::of(dtype).is_none() {
        let message =
            format!("{} would be {dtype}, which GGUF has no number for; a type of FileType::all() would be right", info.name);
        return Err(Error::unsupported(info.file(), message));
    }
    let name = translate(&info.name, Convention::HuggingFace, Convention::Gguf)
        .ok_or_else(|| Error::unsupported(info.file(), format!("{} has no name in GGUF", info.name)))?;
    Ok(Step { source: Source::Stored(info), plan: TensorPlan { name, dtype, shape: info.shape.clone() } })
}

fn model_name(checkpoint: &Checkpoint, name: Option<&str>) -> String {
    let path = checkpoint.path();
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let of_path =
        || path.file_stem().filter(|_| path.is_file()).or(path.file_name()).unwrap_or_default().to_string_lossy().into_owned();
    let of_file = || checkpoint.gguf().and_then(|gguf| gguf.string("general.name")).map(str::to_owned);
    name.map(str::to_owned).or_else(of_file).unwrap_or_else(of_path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn every_tensor_of_a_config_has_a_name_in_gguf() {
        let json = br#"{"model_type": "llama", "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2,
            "num_attention_heads": 4, "vocab_size": 8, "attention_bias": true, "mlp_bias": true}"#;
        let config = Config::from_hf_json("config.json", json).unwrap();
        for (name, _) in config.tensors() {
            assert!(translate(&name, Convention::HuggingFace, Convention::Gguf).is_some(), "{name}");
        }
    }
}
