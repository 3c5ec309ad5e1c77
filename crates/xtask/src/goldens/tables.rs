//! Tables in safetensors files: quantised blocks, rotary settings, sampling.

use std::fs;
use std::path::Path;

use puna::llama::Config;
use puna::prelude::*;
use puna::tensor::op::SampleInputs;
use puna_quant::BlockType;
use safetensors::SafeTensors;

use super::{Outcome, Report, doubles, floats, ids, relative};
use crate::Result;

pub(super) fn check(label: &str, path: &Path, device: &Device, report: &mut Report<'_>) {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) => return report.tell(label, Err(error.into())),
    };
    let Ok(file) = SafeTensors::deserialize(&bytes) else { return };
    let names: Vec<String> = file.names().into_iter().map(String::from).collect();
    let holds = |name: &str| names.iter().any(|other| other == name);
    if names.iter().any(|name| name.ends_with(".bytes")) {
        blocks(label, &file, &names, report);
    } else if names.iter().any(|name| name.ends_with(".inv_freq")) && holds("positions") {
        rotary(label, path, &file, &names, report);
    } else if holds("history") && holds("top_p") {
        sampling(label, &file, device, report);
    } else if holds("losses") && holds("grad_norms") {
        super::training::check(label, path, &bytes, &names, device, report);
    } else if holds("kl_t2") && holds("dpo_b01") {
        super::losses::check(label, &file, device, report);
    }
}

fn blocks(label: &str, file: &SafeTensors<'_>, names: &[String], report: &mut Report<'_>) {
    let mut types: Vec<&str> =
        names.iter().filter_map(|name| name.strip_suffix(".bytes")).filter(|name| !name.contains('.')).collect();
    types.sort_unstable();
    for name in types {
        let golden = format!("{label} {name}");
        let Some(block) = BlockType::ALL.into_iter().find(|block| block.name() == name) else {
            report.tell(golden, Ok(Outcome::Skipped("puna has no blocks of this type".into())));
            continue;
        };
        report.tell(&golden, decode(file, block, &format!("{name}.bytes"), &format!("{name}.values")));
        if names.contains(&format!("{name}.encode.bytes")) {
            report.tell(format!("{golden} encoding"), encode(file, block, name));
        }
    }
}

fn decode(file: &SafeTensors<'_>, block: BlockType, bytes: &str, values: &str) -> Result<Outcome> {
    let expected = floats(file, values)?;
    let mut got = vec![0.0; expected.len()];
    puna_quant::decode(block, file.tensor(bytes)?.data(), &mut got)?;
    let wrong = got.iter().zip(&expected).filter(|(a, b)| a.to_bits() != b.to_bits()).count();
    Ok(Outcome::exact(wrong, expected.len(), "values"))
}

fn encode(file: &SafeTensors<'_>, block: BlockType, name: &str) -> Result<Outcome> {
    let input = floats(file, &format!("{name}.encode.input"))?;
    let tensor = file.tensor(&format!("{name}.encode.bytes"))?;
    let mut got = vec![0; tensor.data().len()];
    puna_quant::encode(block, &input, &mut got)?;
    let wrong = got.iter().zip(tensor.data()).filter(|(a, b)| a != b).count();
    Ok(Outcome::exact(wrong, got.len(), "bytes"))
}

fn rotary(label: &str, path: &Path, file: &SafeTensors<'_>, names: &[String], report: &mut Report<'_>) {
    let settings = path.with_extension("json");
    let settings: serde_json::Value =
        match fs::read(&settings).map_err(Into::into).and_then(|text| Ok(serde_json::from_slice(&text)?)) {
            Ok(settings) => settings,
            Err(error) => return report.tell(label, Err(error)),
        };
    let mut sets: Vec<&str> = names.iter().filter_map(|name| name.strip_suffix(".inv_freq")).collect();
    sets.sort_unstable();
    for set in sets {
        report.tell(format!("{label} {set}"), rotary_set(file, set, &settings[set]));
    }
}

fn rotary_set(file: &SafeTensors<'_>, set: &str, settings: &serde_json::Value) -> Result<Outcome> {
    let config = config_of(settings)?;
    let frequencies = puna::llama::rope::frequencies(&config, 0);
    let expected = doubles(file, &format!("{set}.inv_freq"))?;
    let relative_error = |got: f64, right: f64| ((got - right) / right).abs();
    let mut worst =
        expected.iter().zip(&frequencies.inv_freq).map(|(&right, &got)| relative_error(got.into(), right)).fold(0.0, f64::max);
    let scaling = doubles(file, &format!("{set}.attention_scaling"))?[0];
    worst = worst.max(relative_error(frequencies.scaling, scaling));
    // From the file's own frequencies, so that their last digit does not turn into an angle far out.
    let own = puna::llama::rope::Frequencies { inv_freq: expected.iter().map(|&f| f as f32).collect(), scaling: 1.0 };
    let (cos, sin) = (doubles(file, &format!("{set}.cos"))?, doubles(file, &format!("{set}.sin"))?);
    for (row, position) in ids(file, "positions")?.into_iter().enumerate() {
        let position = position as usize;
        let (c, s) = own.table(position..position + 1);
        let at = row * expected.len();
        for i in 0..expected.len() {
            worst = worst.max((f64::from(c[i]) - cos[at + i]).abs()).max((f64::from(s[i]) - sin[at + i]).abs());
        }
    }
    Ok(Outcome::within(worst, 1e-6, "frequencies, scaling, cosines and sines"))
}

/// A config with these rotary settings; the rest does not matter here.
fn config_of(settings: &serde_json::Value) -> Result<Config> {
    let mut scaling = settings.as_object().ok_or("rope.json holds no such setting")?.clone();
    let mut take = |name: &str| scaling.remove(name).ok_or_else(|| format!("rope.json: {name} is missing"));
    let (head_dim, theta, max) = (take("head_dim")?, take("rope_theta")?, take("max_position_embeddings")?);
    let hidden = head_dim.as_u64().ok_or("head_dim is no number")? * 2;
    let config = serde_json::json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", "vocab_size": 32, "hidden_size": hidden,
        "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": head_dim,
        "rms_norm_eps": 1e-5, "max_position_embeddings": max, "rope_theta": theta,
        "rope_scaling": if scaling.is_empty() { serde_json::Value::Null } else { scaling.into() },
    });
    Ok(Config::from_hf_json("rope.json", config.to_string().as_bytes())?)
}

fn sampling(label: &str, file: &SafeTensors<'_>, device: &Device, report: &mut Report<'_>) {
    let off = SamplingParameters::default();
    let (repetition, temperature, top_k, top_p, min_p) = (1.3, 0.7, 10, 0.8, 0.1);
    let settings = [
        ("repetition", SamplingParameters { repetition, ..off }),
        ("temperature", SamplingParameters { temperature, ..off }),
        ("top_k", SamplingParameters { top_k, ..off }),
        ("top_p", SamplingParameters { top_p, ..off }),
        ("min_p", SamplingParameters { min_p, ..off }),
        ("all", SamplingParameters { repetition, temperature, top_k, top_p, min_p, ..off }),
    ];
    for (name, parameters) in settings {
        report.tell(format!("{label} {name}"), probabilities(file, name, parameters, device));
    }
}

fn probabilities(file: &SafeTensors<'_>, name: &str, parameters: SamplingParameters, device: &Device) -> Result<Outcome> {
    let shape = file.tensor("logits")?.shape().to_vec();
    let history_shape = file.tensor("history")?.shape().to_vec();
    let (rows, columns) = (shape[0], history_shape[1]);
    let logits = Tensor::from_slice(&floats(file, "logits")?, [rows, shape[1]], device)?;
    let parameters: Vec<f32> = (0..rows).flat_map(|_| parameters.row()).collect();
    let zeros = vec![0u32; 2 * rows];
    let (_, _, filtered) = logits.sample_filtered(SampleInputs {
        parameters: &Tensor::from_slice(&parameters, [rows, SamplingParameters::COLUMNS], device)?,
        history: &Tensor::from_slice(&ids(file, "history")?, [rows, columns], device)?,
        generated_from: &Tensor::from_slice(&zeros[..rows], rows, device)?,
        bias_ids: &Tensor::from_slice(&[0u32; 0], [rows, 0], device)?,
        bias: &Tensor::from_slice(&[0f32; 0], [rows, 0], device)?,
        seeds: &Tensor::from_slice(&zeros, [rows, 2], device)?,
        positions: &Tensor::from_slice(&zeros[..rows], rows, device)?,
    })?;
    let error = relative(&filtered.softmax()?.to_vec::<f32>()?, &floats(file, name)?);
    Ok(Outcome::within(error, 1e-6, "probabilities"))
}
