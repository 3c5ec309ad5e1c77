//! Which tensors a Llama of a config has.

use super::Config;

impl Config {
    /// Every tensor of the model, by Hugging Face's name, with its shape, in the order of the forward pass.
    pub fn tensors(&self) -> Vec<(String, Vec<usize>)> {
        let (hidden, intermediate) = (self.hidden_size, self.intermediate_size);
        let (q, kv) = (self.heads * self.head_dim, self.kv_heads * self.head_dim);
        let mut all = vec![("model.embed_tokens.weight".to_owned(), vec![self.vocab_size, hidden])];
        let linears = [
            ("self_attn.q_proj", q, hidden, self.attention_bias),
            ("self_attn.k_proj", kv, hidden, self.attention_bias),
            ("self_attn.v_proj", kv, hidden, self.attention_bias),
            ("self_attn.o_proj", hidden, q, self.attention_bias),
            ("mlp.gate_proj", intermediate, hidden, self.mlp_bias),
            ("mlp.up_proj", intermediate, hidden, self.mlp_bias),
            ("mlp.down_proj", hidden, intermediate, self.mlp_bias),
        ];
        for layer in 0..self.layers {
            let path = format!("model.layers.{layer}");
            for norm in ["input_layernorm", "post_attention_layernorm"] {
                all.push((format!("{path}.{norm}.weight"), vec![hidden]));
            }
            for (name, rows, columns, bias) in linears {
                all.push((format!("{path}.{name}.weight"), vec![rows, columns]));
                if bias {
                    all.push((format!("{path}.{name}.bias"), vec![rows]));
                }
            }
        }
        all.push(("model.norm.weight".to_owned(), vec![hidden]));
        if !self.tie_word_embeddings {
            all.push(("lm_head.weight".to_owned(), vec![self.vocab_size, hidden]));
        }
        all
    }
}

/// The values of the config that a tensor's shape follows from, in words.
pub(crate) fn because(config: &Config, name: &str) -> String {
    let Config { hidden_size, intermediate_size, heads, kv_heads, head_dim, vocab_size, .. } = config;
    let is = |part: &str| name.contains(part);
    if is("q_proj") || is("o_proj") {
        format!("heads {heads}, head_dim {head_dim}, hidden_size {hidden_size}")
    } else if is("k_proj") || is("v_proj") {
        format!("kv_heads {kv_heads}, head_dim {head_dim}, hidden_size {hidden_size}")
    } else if is("mlp.") {
        format!("intermediate_size {intermediate_size}, hidden_size {hidden_size}")
    } else if is("norm") {
        format!("hidden_size {hidden_size}")
    } else {
        format!("vocab_size {vocab_size}, hidden_size {hidden_size}")
    }
}
