//! What the same tensor is called in Hugging Face's, Meta's and GGUF's checkpoints: one table.
//!
//! Hugging Face's names are the ones that this crate uses; the others are mapped where a file is opened.

/// Tensors outside the layers: Hugging Face's name, Meta's, GGUF's.
const MODEL: [[&str; 3]; 3] = [
    ["model.embed_tokens", "tok_embeddings", "token_embd"],
    ["model.norm", "norm", "output_norm"],
    ["lm_head", "output", "output"],
];

/// Tensors of a layer, behind `model.layers.N.`, `layers.N.` and `blk.N.`.
const LAYER: [[&str; 3]; 9] = [
    ["input_layernorm", "attention_norm", "attn_norm"],
    ["self_attn.q_proj", "attention.wq", "attn_q"],
    ["self_attn.k_proj", "attention.wk", "attn_k"],
    ["self_attn.v_proj", "attention.wv", "attn_v"],
    ["self_attn.o_proj", "attention.wo", "attn_output"],
    ["post_attention_layernorm", "ffn_norm", "ffn_norm"],
    ["mlp.gate_proj", "feed_forward.w1", "ffn_gate"],
    ["mlp.up_proj", "feed_forward.w3", "ffn_up"],
    ["mlp.down_proj", "feed_forward.w2", "ffn_down"],
];

/// Who names a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Convention {
    /// `model.layers.0.self_attn.q_proj.weight`
    HuggingFace,
    /// `layers.0.attention.wq.weight`
    Meta,
    /// `blk.0.attn_q.weight`
    Gguf,
}

impl Convention {
    const fn column(self) -> usize {
        match self {
            Self::HuggingFace => 0,
            Self::Meta => 1,
            Self::Gguf => 2,
        }
    }

    const fn layers(self) -> &'static str {
        match self {
            Self::HuggingFace => "model.layers.",
            Self::Meta => "layers.",
            Self::Gguf => "blk.",
        }
    }
}

/// A tensor's name in another convention, or `None` where the table does not know it.
///
/// ```
/// use puna_llama::names::{Convention, translate};
///
/// let name = translate("blk.7.ffn_gate.weight", Convention::Gguf, Convention::HuggingFace);
/// assert_eq!(name.as_deref(), Some("model.layers.7.mlp.gate_proj.weight"));
/// ```
pub fn translate(name: &str, from: Convention, to: Convention) -> Option<String> {
    let (path, kind) = name.rsplit_once('.').filter(|(_, kind)| matches!(*kind, "weight" | "bias"))?;
    let find =
        |table: &[[&'static str; 3]], path: &str| table.iter().find(|row| row[from.column()] == path).map(|row| row[to.column()]);
    if let Some(known) = find(&MODEL, path) {
        return Some(format!("{known}.{kind}"));
    }
    let (layer, path) = path.strip_prefix(from.layers())?.split_once('.')?;
    let is_number = !layer.is_empty() && layer.bytes().all(|byte| byte.is_ascii_digit());
    let known = find(&LAYER, path).filter(|_| is_number)?;
    Some(format!("{}{layer}.{known}.{kind}", to.layers()))
}

/// Whether a checkpoint's tensor is none of the model's and yet no error: frequencies that the config gives as well.
pub(crate) fn is_ignored(name: &str) -> bool {
    name.ends_with(".rotary_emb.inv_freq") || matches!(name, "rope.freqs" | "rope_freqs.weight")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_goes_to_every_convention_and_back() {
        let conventions = [Convention::HuggingFace, Convention::Meta, Convention::Gguf];
        let layer = LAYER.iter().flat_map(|row| ["weight", "bias"].map(|kind| format!("model.layers.12.{}.{kind}", row[0])));
        let names = MODEL.iter().map(|row| format!("{}.weight", row[0])).chain(layer);
        for name in names {
            for to in conventions {
                let there = translate(&name, Convention::HuggingFace, to).unwrap();
                assert_eq!(translate(&there, to, Convention::HuggingFace).as_ref(), Some(&name));
            }
        }
    }

    #[test]
    fn what_the_table_does_not_hold_has_no_name() {
        let unknown = |name, from| assert_eq!(translate(name, from, Convention::HuggingFace), None, "{name}");
        unknown("rope_freqs.weight", Convention::Gguf);
        unknown("blk..attn_q.weight", Convention::Gguf);
        unknown("blk.x.attn_q.weight", Convention::Gguf);
        unknown("blk.0.attn_q", Convention::Gguf);
        unknown("blk.0.attn_q.scale", Convention::Gguf);
        unknown("layers.0.attn_q.weight", Convention::Meta);
        unknown("", Convention::Meta);
    }
}
