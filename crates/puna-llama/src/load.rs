//! A checkpoint's weights as a model on a device: tensor by tensor, so that memory peaks at the model and one tensor more.

use puna_tensor::op::Activations;
use puna_tensor::{DType, Device, Tensor};

use crate::config::Config;
use crate::error::{Error, Kind, Result};
use crate::model::{Decoder, DecoderLayer, Embedding, Linear, Llama, Mlp, RmsNorm, SelfAttention};
use crate::weights::Checkpoint;

/// How a model is loaded.
pub struct LoadOptions<'a> {
    /// A float: what every weight becomes, and what is computed in. Blocks (`DType::Block(BlockType::Nf4)`): what the matrices of the layers
    /// become, while embedding, head and norms stay as they are stored. By default all do.
    pub dtype: Option<DType>,
    /// The dtype between ops, where `dtype` does not say: f32 by default.
    pub activations: Option<DType>,
    /// Whether weights are brought into the order that the device's kernels read, and the original dropped. Training keeps it.
    pub pack: bool,
    /// Told of each weight that has been loaded.
    pub progress: &'a mut dyn FnMut(Progress<'_>),
}

/// How far loading has come.
#[derive(Debug, Clone, Copy)]
pub struct Progress<'a> {
    /// The weight that has been loaded.
    pub name: &'a str,
    /// How many have been.
    pub done: usize,
    /// How many there are.
    pub total: usize,
}

/// Where a model's weights come from: "give me this tensor, on this device".
pub trait Weights {
    /// The tensor of this name, of this shape, as it is stored.
    ///
    /// Errors: there is none; it has another shape.
    fn tensor(&self, name: &str, shape: &[usize], device: &Device) -> Result<Tensor>;
}

impl Weights for Checkpoint {
    fn tensor(&self, name: &str, shape: &[usize], device: &Device) -> Result<Tensor> {
        self.load(name, shape, device)
    }
}

impl Llama {
    /// Loads a checkpoint's model onto a device.
    ///
    /// Errors: tensors that are missing, misshapen or not of the model, all by name; a dtype that the device does not compute in.
    pub fn load(checkpoint: &Checkpoint, device: &Device, options: LoadOptions<'_>) -> Result<Self> {
        checkpoint.check()?;
        Self::from_weights(checkpoint.config(), checkpoint, device, options)
    }

    /// Builds a model of this config from any source of weights.
    pub fn from_weights(config: &Config, weights: &dyn Weights, device: &Device, options: LoadOptions<'_>) -> Result<Self> {
        let LoadOptions { dtype, activations, pack, progress } = options;
        let total = config.tensors().len();
        let mut loader = Loader { config, weights, device, dtype, pack, progress, done: 0, total };
        let (hidden, vocab) = (config.hidden_size, config.vocab_size);
        let embed_tokens = loader.matrix("model.embed_tokens.weight", vocab, hidden, config.tie_word_embeddings)?;
        let layers = (0..config.layers).map(|i| loader.layer(&format!("model.layers.{i}"))).collect::<Result<Vec<_>>>()?;
        let norm = loader.norm("model.norm")?;
        let head = (!config.tie_word_embeddings).then(|| loader.linear("lm_head", vocab, hidden, false));
        // Rounding activations to 8 bits goes with weights that are quantised as they are stored; a dtype asked for is exact.
        let exact = if dtype.is_some_and(DType::is_float) { Activations::Exact } else { Activations::Int8 };
        Ok(Self {
            config: config.clone(),
            model: Decoder { embed_tokens: Embedding { weight: embed_tokens }, layers, norm },
            lm_head: head.transpose()?,
            dtype: dtype.or(activations).filter(|dtype| dtype.is_float()).unwrap_or(DType::F32),
            activations: exact,
        })
    }

    /// The model that has `count` of the layers alone, chosen evenly, the first and the last among them: where a student begins that is
    /// to be taught by this one. It shares the weights' memory.
    ///
    /// Errors: no layer, or more than there are.
    pub fn with_layers(&self, count: usize) -> Result<Self> {
        let layers = &self.model.layers;
        if count == 0 || count > layers.len() {
            let message = format!("{count} layers of {}; from 1 to all of them would be right", layers.len());
            return Err(Error::new(Kind::Argument, "layers", message));
        }
        let mut fewer = self.clone();
        let gaps = (count - 1).max(1);
        // To the nearest, so that no two are the same.
        fewer.model.layers = (0..count).map(|i| layers[(2 * i * (layers.len() - 1) + gaps) / (2 * gaps)].clone()).collect();
        fewer.config.layers = count;
        Ok(fewer)
    }
}

struct Loader<'a> {
    config: &'a Config,
    weights: &'a dyn Weights,
    device: &'a Device,
    dtype: Option<DType>,
    pack: bool,
    progress: &'a mut dyn FnMut(Progress<'_>),
    done: usize,
    total: usize,
}

impl Loader<'_> {
    fn tensor(&mut self, name: &str, shape: &[usize]) -> Result<Tensor> {
        let stored = self.weights.tensor(name, shape, self.device)?;
        let tensor = match self.dtype {
            Some(dtype) if dtype.is_float() || in_blocks(name, &stored) => stored.cast(dtype).map_err(|error| {
                Error::new(Kind::Misshapen, name, format!("it cannot be loaded as {dtype}")).with_source(error)
            })?,
            _ => stored,
        };
        self.done += 1;
        (self.progress)(Progress { name, done: self.done, total: self.total });
        Ok(tensor)
    }

    fn matrix(&mut self, name: &str, rows: usize, columns: usize, multiplies: bool) -> Result<Tensor> {
        let tensor = self.tensor(name, &[rows, columns])?;
        if self.pack && multiplies { Ok(tensor.pack()?) } else { Ok(tensor) }
    }

    fn linear(&mut self, path: &str, rows: usize, columns: usize, bias: bool) -> Result<Linear> {
        let weight = self.matrix(&format!("{path}.weight"), rows, columns, true)?;
        let bias = bias.then(|| self.tensor(&format!("{path}.bias"), &[rows])).transpose()?;
        Ok(Linear { weight, bias, lora: None })
    }

    fn norm(&mut self, path: &str) -> Result<RmsNorm> {
        let weight = self.tensor(&format!("{path}.weight"), &[self.config.hidden_size])?;
        Ok(RmsNorm { weight, eps: self.config.rms_norm_eps })
    }

    fn layer(&mut self, path: &str) -> Result<DecoderLayer> {
        let Config { hidden_size, intermediate_size, heads, kv_heads, head_dim, attention_bias, mlp_bias, .. } = *self.config;
        let (q_size, kv_size) = (heads * head_dim, kv_heads * head_dim);
        Ok(DecoderLayer {
            input_layernorm: self.norm(&format!("{path}.input_layernorm"))?,
            self_attn: SelfAttention {
                q_proj: self.linear(&format!("{path}.self_attn.q_proj"), q_size, hidden_size, attention_bias)?,
                k_proj: self.linear(&format!("{path}.self_attn.k_proj"), kv_size, hidden_size, attention_bias)?,
                v_proj: self.linear(&format!("{path}.self_attn.v_proj"), kv_size, hidden_size, attention_bias)?,
                o_proj: self.linear(&format!("{path}.self_attn.o_proj"), hidden_size, q_size, attention_bias)?,
                head_dim,
            },
            post_attention_layernorm: self.norm(&format!("{path}.post_attention_layernorm"))?,
            mlp: Mlp {
                gate_proj: self.linear(&format!("{path}.mlp.gate_proj"), intermediate_size, hidden_size, mlp_bias)?,
                up_proj: self.linear(&format!("{path}.mlp.up_proj"), intermediate_size, hidden_size, mlp_bias)?,
                down_proj: self.linear(&format!("{path}.mlp.down_proj"), hidden_size, intermediate_size, mlp_bias)?,
            },
        })
    }
}

/// Whether a weight becomes blocks, where those are asked for: a matrix of a layer.
fn in_blocks(name: &str, stored: &Tensor) -> bool {
    name.starts_with("model.layers.") && stored.rank() == 2
}
