//! `cargo xtask train-step`: steps of AdamW on given tokens, for comparison with other implementations.
//!
//! The data: `ids` and `labels`, `[sequences, length]` i64; the logits at `t` predict the label at `t + 1`, -100 does not count. The
//! loss is the mean over the labels that count; AdamW (lr 1e-3, betas 0.9 and 0.95, eps 1e-8, decay 0.1 on matrices), gradients
//! clipped to a norm of 1. Written: `losses` and `grad_norms` `[steps]` f64, `grad.NAME` of the first step before clipping,
//! `after1.NAME` and `afterN.NAME`, f32.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use puna::llama::{Checkpoint, Llama, LoadOptions, RotaryTable, Step};
use puna::prelude::*;
use puna_autograd::optim::{AdamW, AdamWOptions, Optimizer, clip};
use puna_autograd::{Gradients, backward};
use safetensors::SafeTensors;
use safetensors::tensor::TensorView;

use crate::Result;

/// What is asked for.
#[derive(Debug, Clone, clap::Args)]
pub struct Request {
    /// The checkpoint.
    #[arg(long)]
    pub model: PathBuf,
    /// The tokens: a safetensors file with `ids` and `labels`.
    #[arg(long)]
    pub data: PathBuf,
    /// An adapter: it alone is trained.
    #[arg(long)]
    pub adapter: Option<PathBuf>,
    /// How many steps.
    #[arg(long, default_value_t = 5)]
    pub steps: usize,
    /// The device.
    #[arg(long, default_value = "cpu")]
    pub device: String,
    /// Where the results go.
    #[arg(long)]
    pub out: PathBuf,
}

/// What the steps gave, as the file holds it.
#[derive(Debug, Default)]
pub struct Trained {
    /// The loss of each step.
    pub losses: Vec<f64>,
    /// The norm of each step's gradient, before clipping.
    pub grad_norms: Vec<f64>,
    /// `grad.NAME`, `after1.NAME`, `afterN.NAME`.
    pub tensors: BTreeMap<String, (Vec<usize>, Vec<f32>)>,
}

/// Trains as asked and writes the results.
pub fn run(request: &Request) -> Result<()> {
    let device = puna::device(&request.device)?;
    let data = fs::read(&request.data).map_err(|e| format!("{}: {e}", request.data.display()))?;
    let data = Data::read(&data).map_err(|e| format!("{}: {e}", request.data.display()))?;
    let trained = train(&request.model, request.adapter.as_deref(), &data, request.steps, &device)?;
    write(&trained, &request.out)
}

/// Sequences of tokens, each with the labels that its tokens predict.
pub struct Data {
    ids: Vec<u32>,
    labels: Vec<u32>,
    starts: Vec<u32>,
}

impl Data {
    /// Reads `ids` and `labels` of a safetensors file.
    pub fn read(bytes: &[u8]) -> Result<Self> {
        let file = SafeTensors::deserialize(bytes)?;
        let (shape, ids) = integers(&file, "ids")?;
        let (labels_shape, labels) = integers(&file, "labels")?;
        let &[sequences, length] = &shape[..] else {
            return Err(format!("ids are {shape:?}; they take [sequences, length]").into());
        };
        if labels_shape != shape {
            return Err(format!("labels are {labels_shape:?}, ids {shape:?}; they take one shape").into());
        }
        let id = |&id: &i64| u32::try_from(id).map_err(|_| format!("the id {id} is no token"));
        let ids = ids.iter().map(id).collect::<std::result::Result<Vec<_>, _>>()?;
        // The last token of a sequence predicts nothing; the first label is nobody's.
        let next = |at: usize| if (at + 1) % length == 0 { -100 } else { labels[at + 1] };
        let labels = (0..labels.len()).map(|at| u32::try_from(next(at)).unwrap_or(u32::MAX)).collect();
        Ok(Self { ids, labels, starts: (0..=sequences).map(|i| (i * length) as u32).collect() })
    }
}

fn integers(file: &SafeTensors<'_>, name: &str) -> Result<(Vec<usize>, Vec<i64>)> {
    let tensor = file.tensor(name).map_err(|e| format!("{name}: {e}"))?;
    if tensor.dtype() != safetensors::Dtype::I64 {
        return Err(format!("{name} is {:?}; it takes I64", tensor.dtype()).into());
    }
    let values = tensor.data().chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().expect("eight bytes")));
    Ok((tensor.shape().to_vec(), values.collect()))
}

/// The steps' losses, norms, gradients and parameters.
pub fn train(model: &Path, adapter: Option<&Path>, data: &Data, steps: usize, device: &Device) -> Result<Trained> {
    let options = LoadOptions { dtype: Some(DType::F32), activations: None, pack: false, progress: &mut |_| {} };
    let mut llama = Llama::load(&Checkpoint::open(model)?, device, options)?;
    if let Some(folder) = adapter {
        llama.load_adapter(&puna::llama::Adapter::open(folder)?)?;
    }
    let parameters = llama.track(|path, _| adapter.is_none() || path.contains("lora_"))?;
    let (ids, labels) =
        (Tensor::from_slice(&data.ids, data.ids.len(), device)?, Tensor::from_slice(&data.labels, data.labels.len(), device)?);
    let step = Step::packed(&llama, &RotaryTable::base(&llama.config), &data.starts)?;
    let options = AdamWOptions { betas: [0.9, 0.95], eps: 1e-8, decay: 0.1 };
    let mut optimizer = AdamW::new(options);
    let mut trained = Trained::default();
    for number in 1..=steps {
        let (sum, count) = llama.loss(&llama.forward(&ids, &step)?, &labels)?;
        let count = f64::from(count.item::<u32>()?);
        let gradients: Gradients = backward(&sum)?;
        gradients.check(parameters.iter().map(|(name, tensor)| (name, tensor)))?;
        trained.losses.push(f64::from(sum.item::<f32>()?) / count);
        let clipped = clip(&parameters, &gradients, 1.0 / count, 1.0)?;
        trained.grad_norms.push(clipped.norm);
        if number == 1 {
            for (name, tensor) in &parameters {
                let gradient = gradients.get(tensor).expect("all were checked").affine(1.0 / count, 0.0)?;
                trained.keep("grad", name, &gradient)?;
            }
        }
        optimizer.step(&parameters, &gradients, 1e-3, clipped.factor)?;
        if number == 1 || number == steps {
            for (name, tensor) in &parameters {
                trained.keep(&format!("after{number}"), name, tensor)?;
            }
        }
    }
    Ok(trained)
}

impl Trained {
    fn keep(&mut self, what: &str, name: &str, tensor: &Tensor) -> Result<()> {
        self.tensors.insert(format!("{what}.{name}"), (tensor.shape().to_vec(), tensor.detach().to_vec::<f32>()?));
        Ok(())
    }
}

fn write(trained: &Trained, out: &Path) -> Result<()> {
    let bytes_of = |values: &[f32]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
    let doubles = |values: &[f64]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
    let mut all: Vec<(String, safetensors::Dtype, Vec<usize>, Vec<u8>)> = Vec::new();
    for (name, (shape, values)) in &trained.tensors {
        all.push((name.clone(), safetensors::Dtype::F32, shape.clone(), bytes_of(values)));
    }
    for (name, values) in [("losses", &trained.losses), ("grad_norms", &trained.grad_norms)] {
        all.push((name.into(), safetensors::Dtype::F64, vec![values.len()], doubles(values)));
    }
    let views = all.iter().map(|(name, dtype, shape, bytes)| Ok((name, TensorView::new(*dtype, shape.clone(), bytes)?)));
    let views = views.collect::<Result<Vec<_>>>()?;
    let bytes = safetensors::serialize(views, None)?;
    let folder = out.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    std::io::Write::write_all(&mut file, &bytes)?;
    file.persist(out).map_err(|e| format!("{}: {e}", out.display()))?;
    Ok(())
}
