//! The Llama architecture: read top to bottom, it is the paper.
//!
//! One definition for every dtype, device and purpose: f32 and Q4_K, CPU and GPU, serving and training. A weight's path in these
//! structs is its key in a checkpoint: `llama.model.layers[3].self_attn.k_proj.weight`.
//!
//! Touvron and others 2023, arXiv 2302.13971 and 2307.09288; Grattafiori and others 2024, arXiv 2407.21783.

use puna_tensor::op::{Activations, Attention, Mask, PagedAttention, PagedInputs, RopeAndCacheInputs};
use puna_tensor::{DType, Result, Tensor};

use crate::adapter::Lora;
use crate::config::Config;
use crate::module::{Module, module};
use crate::step::{LayerFn, Past, Step};

/// A causal language model of the Llama family.
#[derive(Debug, Clone)]
pub struct Llama {
    /// What the checkpoint says of its shape.
    pub config: Config,
    /// The decoder: tokens to hidden states.
    pub model: Decoder,
    /// Hidden states to logits; absent where the embedding serves (`tie_word_embeddings`).
    pub lm_head: Option<Linear>,
    /// The dtype between ops.
    pub dtype: DType,
    /// How activations are read beside quantised weights.
    pub activations: Activations,
}

/// The embedding, the layers, the last norm.
#[derive(Debug, Clone)]
pub struct Decoder {
    /// One row a token.
    pub embed_tokens: Embedding,
    /// The decoder layers.
    pub layers: Vec<DecoderLayer>,
    /// The norm before the head.
    pub norm: RmsNorm,
}

/// Attention and a feed-forward block, each behind a norm and added to the residual stream.
#[derive(Debug, Clone)]
pub struct DecoderLayer {
    /// The norm before attention.
    pub input_layernorm: RmsNorm,
    /// Attention.
    pub self_attn: SelfAttention,
    /// The norm before the feed-forward block.
    pub post_attention_layernorm: RmsNorm,
    /// The feed-forward block.
    pub mlp: Mlp,
}

/// Grouped-query attention with rotary positions.
#[derive(Debug, Clone)]
pub struct SelfAttention {
    /// `[heads * head_dim, hidden_size]`.
    pub q_proj: Linear,
    /// `[kv_heads * head_dim, hidden_size]`.
    pub k_proj: Linear,
    /// `[kv_heads * head_dim, hidden_size]`.
    pub v_proj: Linear,
    /// `[hidden_size, heads * head_dim]`.
    pub o_proj: Linear,
    /// The length of a head.
    pub head_dim: usize,
}

/// The gated feed-forward block.
#[derive(Debug, Clone)]
pub struct Mlp {
    /// `[intermediate_size, hidden_size]`.
    pub gate_proj: Linear,
    /// `[intermediate_size, hidden_size]`.
    pub up_proj: Linear,
    /// `[hidden_size, intermediate_size]`.
    pub down_proj: Linear,
}

/// A weight `[out, in]`, with a bias and an adapter where there are such.
#[derive(Debug, Clone)]
pub struct Linear {
    /// `[out, in]`: floats or blocks, packed where it only multiplies.
    pub weight: Tensor,
    /// `[out]`.
    pub bias: Option<Tensor>,
    /// Low-rank adaptation.
    pub lora: Option<Lora>,
}

/// One row of `hidden_size` a token: `[vocab_size, hidden_size]`.
#[derive(Debug, Clone)]
pub struct Embedding {
    /// `[vocab_size, hidden_size]`.
    pub weight: Tensor,
}

/// The weight and constant of a root-mean-square norm.
#[derive(Debug, Clone)]
pub struct RmsNorm {
    /// `[hidden_size]`.
    pub weight: Tensor,
    /// What is added to the mean square.
    pub eps: f64,
}

module!(Llama { model, lm_head });
module!(Decoder { embed_tokens, layers, norm });
module!(DecoderLayer { input_layernorm, self_attn, post_attention_layernorm, mlp });
module!(SelfAttention { q_proj, k_proj, v_proj, o_proj });
module!(Mlp { gate_proj, up_proj, down_proj });
module!(Linear { weight, bias, ..lora });
module!(Embedding { weight });
module!(RmsNorm { weight });

impl Llama {
    /// Hidden states behind the last norm, `[tokens, hidden_size]`, of the step's tokens `ids` (`[tokens]` u32).
    ///
    /// Errors: a step that does not fit the model; what the device says.
    pub fn forward(&self, ids: &Tensor, step: &Step) -> Result<Tensor> {
        self.model.forward(ids, step, self.dtype)
    }

    /// The cross entropy of what hidden states predict, its sum and the count of the labels that count; `labels`: `[tokens]` u32, of
    /// `u32::MAX` where none counts. The logits are never held.
    ///
    /// Errors: labels that are not as many as hidden states.
    pub fn loss(&self, hidden: &Tensor, labels: &Tensor) -> Result<(Tensor, Tensor)> {
        match &self.lm_head {
            None => hidden.linear_cross_entropy(&self.model.embed_tokens.weight, labels),
            Some(Linear { weight, bias: None, lora: None }) => hidden.linear_cross_entropy(weight, labels),
            // A head that holds more than a weight forms them.
            Some(_) => self.logits(hidden)?.cross_entropy(labels),
        }
    }

    /// Logits `[rows, vocab_size]` of hidden states, in f32 (f64 for f64).
    pub fn logits(&self, hidden: &Tensor) -> Result<Tensor> {
        let hidden = hidden.cast(hidden.dtype().accumulator())?;
        match &self.lm_head {
            Some(head) => hidden.linear(head.read(None)?.projection(), self.activations),
            None => hidden.linear(&self.model.embed_tokens.weight, self.activations),
        }
    }
}

impl Decoder {
    fn forward(&self, ids: &Tensor, step: &Step, dtype: DType) -> Result<Tensor> {
        let mut stream = self.embed_tokens.weight.embedding(ids, dtype)?;
        // A layer ends with the norm that follows it: the next layer's first, or the last of all.
        let norms = self.layers.iter().map(|layer| &layer.input_layernorm).chain([&self.norm]);
        let mut norms = norms.collect::<Vec<_>>().into_iter();
        let first = norms.next().expect("there is the last norm at least");
        let mut x = stream.rms_norm(&first.weight, first.eps)?;
        for (i, (layer, next)) in self.layers.iter().zip(norms).enumerate() {
            [stream, x] = match &step.around {
                None => layer.forward(&stream, &x, step, i, next)?,
                Some(around) => around.run(layer.function(step, i, next), [&stream, &x])?,
            };
        }
        Ok(x)
    }
}

impl DecoderLayer {
    /// `stream`: the residual stream; `x`: its normed copy; both `[tokens, hidden_size]`. `next`: the norm that follows this layer.
    fn forward(&self, stream: &Tensor, x: &Tensor, step: &Step, layer: usize, next: &RmsNorm) -> Result<[Tensor; 2]> {
        let (stream, x) = self.post_attention_layernorm.add(stream, &self.self_attn.forward(x, step, layer)?)?;
        let (stream, x) = next.add(&stream, &self.mlp.forward(&x, step)?)?;
        Ok([stream, x])
    }

    /// [`forward`](Self::forward) as a function of its own, to be run again.
    fn function(&self, step: &Step, layer: usize, next: &RmsNorm) -> LayerFn {
        let (this, step, next) = (self.clone(), step.clone(), next.clone());
        Box::new(move |x| this.forward(&x[0], &x[1], &step, layer, &next).map(Vec::from_iter))
    }
}

impl SelfAttention {
    fn forward(&self, x: &Tensor, step: &Step, layer: usize) -> Result<Tensor> {
        let [q, k, v] = [&self.q_proj, &self.k_proj, &self.v_proj].map(|linear| linear.read(step.dropout.as_ref()));
        let [q, k, v] = x.linears([q?.projection(), k?.projection(), v?.projection()], step.activations)?;
        // [tokens, heads * head_dim] -> [tokens, heads, head_dim]
        let heads = |x: Tensor| x.reshape([x.dim(0), x.dim(1) / self.head_dim, self.head_dim]);
        let (q, k, v) = (heads(q)?, heads(k)?, heads(v)?);
        let Step { cos, sin, positions, starts, pairs, .. } = step;
        let (scale, mask) = (1.0 / (self.head_dim as f64).sqrt(), Mask::Causal);
        let y = match &step.past {
            Past::None => {
                let (q, k) = (q.rope(cos, sin, positions, *pairs)?, k.rope(cos, sin, positions, *pairs)?);
                q.attention(&k, &v, starts, starts, Attention { scale, mask })?
            }
            Past::Cache { pages, page_table, lengths, slots } => {
                let (k_pages, v_pages) = &pages[layer];
                let with = RopeAndCacheInputs { k: &k, v: &v, cos, sin, positions, k_pages, v_pages, slots };
                let q = q.rope_and_cache(with, *pairs)?;
                let over = PagedInputs { k_pages, v_pages, page_table, q_starts: starts, lengths };
                q.paged_attention(over, PagedAttention { scale, mask })?
            }
        };
        let y = y.reshape([y.dim(0), y.dim(1) * y.dim(2)])?;
        y.linear(self.o_proj.read(step.dropout.as_ref())?.projection(), step.activations)
    }
}

impl Mlp {
    fn forward(&self, x: &Tensor, step: &Step) -> Result<Tensor> {
        let [gate, up, down] = [&self.gate_proj, &self.up_proj, &self.down_proj].map(|linear| linear.read(step.dropout.as_ref()));
        x.gated_mlp([gate?.projection(), up?.projection(), down?.projection()], step.activations)
    }
}

impl RmsNorm {
    /// The stream with `x` added, and its normed copy.
    fn add(&self, stream: &Tensor, x: &Tensor) -> Result<(Tensor, Tensor)> {
        stream.add_rms_norm(x, &self.weight, self.eps)
    }
}
