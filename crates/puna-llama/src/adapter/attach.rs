//! Adapters on a model: begun, loaded, taken off, merged.

use std::hash::{DefaultHasher, Hash, Hasher};

use puna_tensor::op::{Distribution, Random};
use puna_tensor::{DType, Tensor, no_grad};

use super::config::AdapterConfig;
use super::lora::{Lora, Magnitude};
use super::targets::{Adapted, Matcher};
use crate::error::{Error, Result};
use crate::model::{DecoderLayer, Linear, Llama, Mlp, SelfAttention};
use crate::module::Module;

/// The layers of a model as they were before their adapters were merged: what brings them back.
#[derive(Debug)]
pub struct Unmerged(Vec<(String, Linear)>);

impl Llama {
    /// The linear layers, each with its name: `model.layers.0.self_attn.q_proj`.
    pub fn linears(&self) -> Vec<(String, &Linear)> {
        let mut linears = Vec::with_capacity(7 * self.model.layers.len() + 1);
        for (i, layer) in self.model.layers.iter().enumerate() {
            let DecoderLayer { self_attn, mlp, .. } = layer;
            let SelfAttention { q_proj, k_proj, v_proj, o_proj, .. } = self_attn;
            let Mlp { gate_proj, up_proj, down_proj } = mlp;
            let all = [q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj];
            linears.extend(NAMES.iter().zip(all).map(|(name, linear)| (format!("model.layers.{i}.{name}"), linear)));
        }
        linears.extend(self.lm_head.as_ref().map(|head| ("lm_head".into(), head)));
        linears
    }

    /// As [`linears`](Self::linears), to change them.
    pub fn linears_mut(&mut self) -> Vec<(String, &mut Linear)> {
        let mut linears = Vec::with_capacity(7 * self.model.layers.len() + 1);
        for (i, layer) in self.model.layers.iter_mut().enumerate() {
            let DecoderLayer { self_attn, mlp, .. } = layer;
            let SelfAttention { q_proj, k_proj, v_proj, o_proj, .. } = self_attn;
            let Mlp { gate_proj, up_proj, down_proj } = mlp;
            let all = [q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj];
            linears.extend(NAMES.iter().zip(all).map(|(name, linear)| (format!("model.layers.{i}.{name}"), linear)));
        }
        linears.extend(self.lm_head.as_mut().map(|head| ("lm_head".into(), head)));
        linears
    }

    /// Whether any layer has an adapter.
    pub fn is_adapted(&self) -> bool {
        self.linears().iter().any(|(_, linear)| linear.lora.is_some())
    }

    /// Puts a fresh adapter on the model: `A` uniform in `(-1 / sqrt(in), 1 / sqrt(in))` (He and others 2015 with slope `sqrt(5)`, as PEFT),
    /// `B` zeros, magnitudes the norms of the weights' rows, all f32. It changes nothing until it is trained. The same seed gives the same
    /// numbers on every device.
    ///
    /// Errors: there is an adapter already; a config out of its range, or that fits no layer.
    pub fn add_adapter(&mut self, config: &AdapterConfig, seed: u64) -> Result<()> {
        config.check("adapter")?;
        self.check_free()?;
        let device = self.model.norm.weight.device().clone();
        let plan = self.plan("adapter", config)?;
        let mut rows = 0;
        let mut begin = |linear: &Linear, number: usize, adapted: Adapted| {
            let Adapted { rank, scale } = adapted;
            let (n, k) = (linear.weight.dim(0), linear.weight.dim(1));
            let seeds = [seed as u32, (seed >> 32) as u32];
            let seeds = Tensor::from_slice(&seeds, [1, 2], &device)?.broadcast([rank, 2])?;
            let positions: Vec<u32> = (rows..rows + rank as u32).collect();
            rows += rank as u32;
            let u = Random { distribution: Distribution::Uniform, columns: k };
            let u = u.draw(&seeds, &Tensor::from_slice(&positions, rank, &device)?)?;
            let bound = 1.0 / (k as f64).sqrt();
            let mut lora = Lora {
                lora_a: u.affine(2.0 * bound, -bound)?,
                lora_b: Tensor::zeros([n, rank], DType::F32, &device)?,
                scale,
                dropout: config.dropout,
                number,
                magnitude: None,
            };
            if config.dora {
                lora.magnitude = Some(Magnitude::of(&linear.weight, &lora)?);
            }
            Ok::<_, Error>(lora)
        };
        let loras = no_grad(|| {
            let layers = self.linears();
            let begun = plan.iter().enumerate().map(|(number, (name, adapted))| {
                let (_, linear) = layers.iter().find(|(other, _)| other == name).expect("planned from the model's layers");
                Ok((name.clone(), begin(linear, number, *adapted)?))
            });
            begun.collect::<Result<Vec<_>>>()
        })?;
        self.attach(loras);
        Ok(())
    }

    /// Takes the adapter off. Whether there was one.
    pub fn remove_adapter(&mut self) -> bool {
        let mut layers = self.linears_mut();
        layers.iter_mut().fold(false, |any, (_, linear)| linear.lora.take().is_some() | any)
    }

    /// Works the adapter into the weights: those of adapted layers become `dtype`, by default their own (bf16 where they are in blocks).
    /// What comes back restores the layers to the bit ([`unmerge_adapter`](Self::unmerge_adapter)); dropped, it frees their memory.
    ///
    /// Errors: there is no adapter; a dtype that is no float; what the device says, with nothing changed.
    pub fn merge_adapter(&mut self, dtype: Option<DType>) -> Result<Unmerged> {
        if let Some(dtype) = dtype.filter(|dtype| !dtype.is_float()) {
            return Err(Error::unsupported("merge_adapter", format!("{dtype} is no float; f32, f16 and bf16 are")));
        }
        let mut former = Vec::new();
        for (name, linear) in self.linears_mut().into_iter().filter(|(_, linear)| linear.lora.is_some()) {
            match linear.merged(dtype) {
                Ok(merged) => former.push((name, std::mem::replace(linear, merged))),
                Err(error) => {
                    self.unmerge_adapter(Unmerged(former)).expect("the layers are this model's");
                    return Err(error.into());
                }
            }
        }
        if former.is_empty() {
            return Err(Error::argument("merge_adapter", "the model has no adapter; load_adapter or add_adapter gives it one"));
        }
        Ok(Unmerged(former))
    }

    /// Brings back the layers that a merge has changed, with their adapters, to the bit.
    ///
    /// Errors: layers of another model, by name, with nothing changed.
    pub fn unmerge_adapter(&mut self, former: Unmerged) -> Result<()> {
        let mut layers = self.linears_mut();
        let place = |layers: &[(String, &mut Linear)], name: &str, former: &Linear| {
            layers.iter().position(|(other, linear)| other == name && linear.weight.shape() == former.weight.shape())
        };
        if let Some((name, linear)) = former.0.iter().find(|(name, linear)| place(&layers, name, linear).is_none()) {
            let message =
                format!("{name} {} is no layer of this model; the one that was merged would be right", linear.weight.shape());
            return Err(Error::argument("unmerge_adapter", message));
        }
        for (name, linear) in former.0 {
            let at = place(&layers, &name, &linear).expect("all have been found");
            *layers[at].1 = linear;
        }
        Ok(())
    }

    /// The seeds of a step's dropout, u32 `[pairs, 2]`, a function of these numbers: what goes into [`Step::dropout`](crate::Step::dropout). `None`
    /// where no layer's adapter drops.
    pub fn dropout_seeds(&self, seed: u64, step: u64) -> Result<Option<Tensor>> {
        let loras = self.linears().into_iter().filter_map(|(_, linear)| linear.lora.as_ref());
        let (pairs, drops) =
            loras.fold((0, false), |(pairs, drops), lora| (pairs.max(lora.number + 1), drops | (lora.dropout > 0.0)));
        if !drops {
            return Ok(None);
        }
        let words: Vec<u32> = (0..pairs as u64)
            .flat_map(|pair| {
                let word = mixed(mixed(mixed(seed) ^ step) ^ pair);
                [word as u32, (word >> 32) as u32]
            })
            .collect();
        Ok(Some(Tensor::from_slice(&words, [pairs, 2], self.model.norm.weight.device())?))
    }

    /// What the model's keys and values follow from beside the tokens: a number that is another one once any weight is another, or has
    /// been changed in place. What a cache knows its pages by.
    pub fn identity(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.visit("", &mut |_, tensor| (tensor.id(), tensor.buffer().version()).hash(&mut hasher));
        hasher.finish()
    }

    pub(super) fn check_free(&self) -> Result<()> {
        if self.is_adapted() {
            let message = "the model has an adapter already; merge_adapter or remove_adapter first would be right";
            return Err(Error::argument("adapter", message));
        }
        Ok(())
    }

    /// Which layers an adapter of this config stands beside, in the order of the model's.
    ///
    /// Errors: none; layers that cannot be adapted.
    pub(super) fn plan(&self, place: &str, config: &AdapterConfig) -> Result<Vec<(String, Adapted)>> {
        let matcher = Matcher::new(place, config)?;
        let mut plan = Vec::new();
        for (name, _) in self.linears() {
            if let Some(adapted) = matcher.layer(&name)? {
                plan.push((name, adapted));
            }
        }
        if !matches!(config.targets, super::Targets::AllLinear) {
            let tied = self.lm_head.is_none().then_some("lm_head");
            for name in ["model.embed_tokens"].into_iter().chain(tied) {
                if matcher.layer(name)?.is_some() {
                    let message = format!("target_modules has {name}, which is the embedding here; linear layers can be adapted");
                    return Err(Error::unsupported(place, message));
                }
            }
        }
        if plan.is_empty() {
            let message = format!(
                "target_modules {:?} fit none of the model's {} layers; {} are their names",
                config.targets,
                self.model.layers.len(),
                NAMES.join(", ")
            );
            return Err(Error::config(place, message.chars().take(600).collect::<String>()));
        }
        Ok(plan)
    }

    /// Puts pairs beside the layers of these names.
    pub(super) fn attach(&mut self, loras: Vec<(String, Lora)>) {
        let mut layers = self.linears_mut();
        for (name, lora) in loras {
            let (_, linear) = layers.iter_mut().find(|(other, _)| *other == name).expect("planned from the model's layers");
            linear.lora = Some(lora);
        }
    }
}

/// The linear layers of a decoder layer.
const NAMES: [&str; 7] = [
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.o_proj",
    "mlp.gate_proj",
    "mlp.up_proj",
    "mlp.down_proj",
];

/// SplitMix64's finish: Steele, Lea and Flood 2014.
fn mixed(x: u64) -> u64 {
    let mut z = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
