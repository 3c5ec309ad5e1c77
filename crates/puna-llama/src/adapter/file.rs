//! An adapter's folder, in PEFT's layout: `adapter_config.json` beside `adapter_model.safetensors`.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use puna_tensor::op::RopePairs;
use puna_tensor::{DType, Device, Shape, Tensor, no_grad};

use super::config::AdapterConfig;
use super::lora::{Lora, Magnitude};
use crate::convert::turned_heads;
use crate::error::{Error, Kind, Result};
use crate::model::Llama;
use crate::weights::mmap::MappedFile;
use crate::weights::write::{self, TensorPlan};
use crate::weights::{TensorInfo, reorder_pairs, safetensors};

const CONFIG: &str = "adapter_config.json";
const WEIGHTS: &str = "adapter_model.safetensors";
/// What PEFT wraps a model in.
const PREFIX: &str = "base_model.model.";
/// How many of a kind an error names.
const NAMED: usize = 3;

/// An adapter on disk: described, not loaded.
#[derive(Debug, Clone)]
pub struct Adapter {
    path: PathBuf,
    config: AdapterConfig,
    /// Their names are those of the model's layers: `model.layers.0.self_attn.q_proj.lora_A.weight`.
    tensors: Vec<TensorInfo>,
}

impl Adapter {
    /// Describes the adapter in a folder. Headers are read; tensors are not.
    ///
    /// Errors: files that are not there, not what their format allows, or ask for what is not supported.
    pub fn open(folder: impl AsRef<Path>) -> Result<Self> {
        let folder = folder.as_ref();
        let (config, weights) = (folder.join(CONFIG), folder.join(WEIGHTS));
        if !config.is_file() {
            let message = format!("there is no {CONFIG}; a folder that PEFT or this library has written would be right");
            return Err(Error::new(Kind::Io, folder.display().to_string(), message));
        }
        let config = AdapterConfig::read(&config)?;
        if !weights.is_file() && folder.join("adapter_model.bin").is_file() {
            let message = format!("adapter_model.bin is not supported; {WEIGHTS}, which PEFT writes by default, is");
            return Err(Error::unsupported(folder.display().to_string(), message));
        }
        let file = MappedFile::open(&weights)?;
        let mut tensors = safetensors::parse(&file)?;
        for tensor in &mut tensors {
            let name = tensor.stored_name.strip_prefix(PREFIX).ok_or_else(|| {
                let name: String = tensor.stored_name.chars().take(80).collect();
                Error::new(
                    Kind::ExtraTensor,
                    file.name(),
                    format!("{name} is no tensor of an adapter; {PREFIX}{name} would be right"),
                )
            })?;
            // Where the magnitude is a module of its own it has a weight; both spellings are in use.
            tensor.name = match name.strip_suffix(".lora_magnitude_vector") {
                Some(layer) => format!("{layer}.lora_magnitude_vector.weight"),
                None => name.into(),
            };
        }
        let adapter = Self { path: folder.into(), config, tensors };
        let index = adapter.index();
        if index.len() < adapter.tensors.len() {
            let twice = adapter.tensors.iter().enumerate().find(|(at, tensor)| index[tensor.name.as_str()] != *at);
            let name = twice.map(|(_, tensor)| tensor.name.clone()).unwrap_or_default();
            return Err(Error::format(file.name(), format!("{name} is there in both spellings; one would be right")));
        }
        Ok(adapter)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What it adds to which weights.
    pub fn config(&self) -> &AdapterConfig {
        &self.config
    }

    /// Its tensors, named as the layers that they belong to.
    pub fn tensors(&self) -> impl ExactSizeIterator<Item = &TensorInfo> {
        self.tensors.iter()
    }

    fn index(&self) -> HashMap<&str, usize> {
        self.tensors.iter().enumerate().map(|(at, tensor)| (tensor.name.as_str(), at)).collect()
    }
}

impl Llama {
    /// Puts an adapter on the model, in f32.
    ///
    /// Errors: there is an adapter already; one of another base: tensors that are missing, misshapen or of layers that the model does not
    /// have, by name.
    pub fn load_adapter(&mut self, adapter: &Adapter) -> Result<()> {
        self.check_free()?;
        let place = adapter.path.display().to_string();
        let plan = self.plan(&place, &adapter.config)?;
        let index = adapter.index();
        let layers: HashMap<String, [usize; 2]> =
            self.linears().into_iter().map(|(name, linear)| (name, [linear.weight.dim(0), linear.weight.dim(1)])).collect();
        let mut faults = Faults::default();
        let mut used = vec![false; adapter.tensors.len()];
        let mut expected = Vec::new();
        for (layer, adapted) in &plan {
            let [n, k] = layers[layer];
            let mut parts = vec![("lora_A.weight", vec![adapted.rank, k]), ("lora_B.weight", vec![n, adapted.rank])];
            if adapter.config.dora {
                parts.push(("lora_magnitude_vector.weight", vec![n]));
            }
            for (part, shape) in parts {
                let name = format!("{layer}.{part}");
                match index.get(name.as_str()) {
                    None => faults.missing.push(name),
                    Some(&at) => {
                        used[at] = true;
                        let info = &adapter.tensors[at];
                        if info.shape != shape {
                            faults.misshapen.push(format!(
                                "{name} is {:?}, but this model (with r {}) needs {shape:?}",
                                info.shape, adapted.rank
                            ));
                        }
                        expected.push(info);
                    }
                }
            }
        }
        for (info, _) in adapter.tensors.iter().zip(used).filter(|(_, used)| !used) {
            // PEFT saves the whole head or embedding with an adapter of it.
            match info.name.strip_suffix(".base_layer.weight") {
                Some(layer) if layers.contains_key(layer) => self.check_base(layer, info)?,
                _ => faults.extra.push(info.name.clone()),
            }
        }
        faults.report(&place, &adapter.config)?;
        for info in expected {
            let dtype = info.dtype()?;
            if !dtype.is_float() {
                return Err(Error::unsupported(info.file(), format!("{} is {dtype}; floats would be right", info.name)));
            }
        }
        let device = self.model.norm.weight.device().clone();
        let load = |name: String| {
            let tensor =
                self.turned(&adapter.tensors[index[name.as_str()]], RopePairs::Halves, self.config.rope_pairs, &device)?;
            Ok::<_, Error>(tensor.cast(DType::F32)?)
        };
        let loras = no_grad(|| {
            let loras = plan.iter().enumerate().map(|(number, (layer, adapted))| {
                let magnitude = adapter.config.dora.then(|| load(format!("{layer}.lora_magnitude_vector.weight")));
                let lora = Lora {
                    lora_a: load(format!("{layer}.lora_A.weight"))?,
                    lora_b: load(format!("{layer}.lora_B.weight"))?,
                    scale: adapted.scale,
                    dropout: adapter.config.dropout,
                    number,
                    magnitude: magnitude.transpose()?.map(Magnitude::new),
                };
                Ok((layer.clone(), lora))
            });
            loras.collect::<Result<Vec<_>>>()
        })?;
        self.attach(loras);
        Ok(())
    }

    /// Writes the adapter in PEFT's layout, in f32. `config` is what it was made with; the folder is made where it is not there, and files
    /// appear whole: the config last.
    ///
    /// Errors: there is no adapter; a config that is not that of the adapter; what the operating system says.
    pub fn save_adapter(&self, folder: impl AsRef<Path>, config: &AdapterConfig) -> Result<()> {
        let folder = folder.as_ref();
        config.check("adapter")?;
        let plan = self.plan("adapter", config)?;
        self.check_is_made_with(config)?;
        let mut tensors = Vec::new();
        for (layer, linear) in self.linears() {
            let Some(lora) = &linear.lora else { continue };
            let parts = [("lora_A.weight", Some(&lora.lora_a)), ("lora_B.weight", Some(&lora.lora_b))];
            let magnitude = ("lora_magnitude_vector", lora.magnitude.as_ref().map(|magnitude| &magnitude.weight));
            for (part, tensor) in parts.into_iter().chain([magnitude]) {
                let Some(tensor) = tensor else { continue };
                tensors.push((format!("{layer}.{part}"), tensor));
            }
        }
        fs::create_dir_all(folder).map_err(|e| Error::io(folder, "create", e))?;
        let plans = tensors.iter().map(|(name, tensor)| TensorPlan {
            name: format!("{PREFIX}{name}"),
            dtype: DType::F32,
            shape: tensor.shape().to_vec(),
        });
        let plans: Vec<TensorPlan> = plans.collect();
        let mut next = tensors.iter();
        write::safetensors_file(&folder.join(WEIGHTS), &plans, &mut |_| {
            let (name, tensor) = next.next().expect("one tensor for each plan");
            let bytes = no_grad(|| tensor.cast(DType::F32))?.to_bytes()?;
            Ok(self.turned_bytes(name, &bytes, self.config.rope_pairs, RopePairs::Halves))
        })?;
        let adapted: Vec<&str> = plan.iter().map(|(layer, _)| layer.as_str()).collect();
        write::json_file(&folder.join(CONFIG), &config.to_json(&adapted))
    }

    /// Whether the model's pairs are those that a config gives it.
    fn check_is_made_with(&self, config: &AdapterConfig) -> Result<()> {
        let plan: HashMap<String, _> = self.plan("adapter", config)?.into_iter().collect();
        for (layer, linear) in self.linears() {
            let made = linear.lora.as_ref().map(|lora| (lora.lora_a.dim(0), lora.scale, lora.magnitude.is_some()));
            let said = plan.get(&layer).map(|adapted| (adapted.rank, adapted.scale, config.dora));
            if made != said {
                let words = |pair: Option<(usize, f64, bool)>| match pair {
                    None => "no pair".to_owned(),
                    Some((rank, scale, dora)) => format!("rank {rank}, scale {scale}{}", if dora { ", magnitudes" } else { "" }),
                };
                let message = format!(
                    "{layer} has {}, but the config says {}; the config that it was made with would be right",
                    words(made),
                    words(said)
                );
                return Err(Error::argument("adapter", message));
            }
        }
        Ok(())
    }

    /// The whole weight that an adapter brings along is the model's own.
    fn check_base(&self, layer: &str, info: &TensorInfo) -> Result<()> {
        let (_, linear) = self.linears().into_iter().find(|(name, _)| name == layer).expect("a layer of the model");
        let weight = linear.weight.unpack()?;
        let same = info.shape == weight.shape()[..] && {
            let device = weight.device();
            let theirs = self.turned(info, RopePairs::Halves, self.config.rope_pairs, device)?;
            no_grad(|| theirs.cast(weight.dtype()))?.to_bytes()? == weight.to_bytes()?
        };
        if same {
            return Ok(());
        }
        let message = format!("it brings {} along, which is not the model's; pairs alone can be loaded", info.name);
        Err(Error::unsupported(info.file(), message))
    }

    /// A tensor of an adapter, rows of q and k from one rotary pairing to the other.
    fn turned(&self, info: &TensorInfo, from: RopePairs, to: RopePairs, device: &Device) -> Result<Tensor> {
        let shape = Shape::new(&info.shape).expect("its shape has been checked");
        // A copy: the parameters may be trained, and the file be replaced.
        Ok(Tensor::from_bytes(&self.turned_bytes(&info.name, &info.bytes()?, from, to), info.dtype()?, shape, device)?)
    }

    fn turned_bytes(&self, name: &str, bytes: &[u8], from: RopePairs, to: RopePairs) -> Vec<u8> {
        // The rows of A are ranks, not heads.
        match turned_heads(&self.config, name).filter(|_| from != to && !name.ends_with(".lora_A.weight")) {
            Some(heads) => reorder_pairs(bytes, heads, self.config.head_dim, from, to),
            None => bytes.to_vec(),
        }
    }
}

/// What is wrong with an adapter's tensors.
#[derive(Default)]
struct Faults {
    missing: Vec<String>,
    misshapen: Vec<String>,
    extra: Vec<String>,
}

impl Faults {
    fn report(&self, place: &str, config: &AdapterConfig) -> Result<()> {
        let Self { missing, misshapen, extra } = self;
        let kinds = [(missing, Kind::MissingTensor), (misshapen, Kind::Misshapen), (extra, Kind::ExtraTensor)];
        let Some((_, kind)) = kinds.into_iter().find(|(names, _)| !names.is_empty()) else { return Ok(()) };
        let section = |(what, names): (&str, &Vec<String>)| {
            let named: Vec<String> = names.iter().take(NAMED).map(|name| name.chars().take(160).collect()).collect();
            let more = if names.len() > NAMED { format!(" and {} more", names.len() - NAMED) } else { String::new() };
            let tensors = if names.len() == 1 { "tensor" } else { "tensors" };
            (!names.is_empty()).then(|| format!("{} {tensors} {what}: {}{more}", names.len(), named.join(", ")))
        };
        let sections = [("missing", missing), ("misshapen", misshapen), ("that its config does not name in this model", extra)];
        let sections: Vec<String> = sections.into_iter().filter_map(section).collect();
        let base = config.base_model.as_ref().map(|base| base.chars().take(120).collect::<String>());
        let base = base.map_or("another base".into(), |base| format!("its base {base:?}"));
        Err(Error::new(kind, place, format!("{}; {base} would be right", sections.join("; "))))
    }
}
