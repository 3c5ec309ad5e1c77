//! What an adapter adds to which weights: PEFT's `adapter_config.json`, read and written.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::targets::{Matcher, Targets};
use crate::config::{Fields, read_json};
use crate::error::{Error, Result};

/// How many bytes an `adapter_config.json` has at most.
const MOST_BYTES: usize = 1 << 20;

/// What low-rank adaptation adds to which of a model's weights.
///
/// ```
/// use puna_llama::adapter::{AdapterConfig, Targets};
///
/// let targets = Targets::Names(vec!["q_proj".into(), "v_proj".into()]);
/// let config = AdapterConfig { rank: 8, alpha: 16.0, targets, ..AdapterConfig::default() };
/// assert!(!config.dora && config.dropout == 0.0);
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct AdapterConfig {
    /// The rank of each pair (PEFT: `r`).
    pub rank: usize,
    /// What the pair's scale follows from: `alpha / rank`, or with `rslora` `alpha / sqrt(rank)` (PEFT: `lora_alpha`).
    pub alpha: f64,
    /// The probability that an element of the pair's input is dropped while it is trained (PEFT: `lora_dropout`).
    pub dropout: f64,
    /// Which linear layers are adapted (PEFT: `target_modules`).
    pub targets: Targets,
    /// Which of them are not (PEFT: `exclude_modules`).
    pub exclude: Option<Targets>,
    /// In which decoder layers; by default in all (PEFT: `layers_to_transform`).
    pub layers: Option<Vec<usize>>,
    /// Rank-stabilised scales: Kalajdzievski 2023, arXiv 2312.03732 (PEFT: `use_rslora`).
    pub rslora: bool,
    /// Weight-decomposed adaptation: Liu and others 2024, arXiv 2402.09353 (PEFT: `use_dora`).
    pub dora: bool,
    /// Ranks of layers whose names end as these regular expressions say; the first that fits counts.
    pub rank_pattern: Vec<(String, usize)>,
    /// As `rank_pattern`, of alpha.
    pub alpha_pattern: Vec<(String, f64)>,
    /// The model that it belongs to, as far as is known (PEFT: `base_model_name_or_path`).
    pub base_model: Option<String>,
}

impl Default for AdapterConfig {
    /// Rank 16 and alpha 32 beside every linear layer but the head, without dropout.
    fn default() -> Self {
        Self {
            rank: 16,
            alpha: 32.0,
            dropout: 0.0,
            targets: Targets::AllLinear,
            exclude: None,
            layers: None,
            rslora: false,
            dora: false,
            rank_pattern: Vec::new(),
            alpha_pattern: Vec::new(),
            base_model: None,
        }
    }
}

/// Keys that say nothing of what is computed: where an adapter came from, how its training began.
const NEUTRAL: [&str; 10] = [
    "auto_mapping",
    "eva_config",
    "inference_mode",
    "loftq_config",
    "megatron_core",
    "peft_version",
    "qalora_group_size",
    "revision",
    "runtime_config",
    "task_type",
];
/// Ways to begin that leave the base's weights as they are.
const NEUTRAL_BEGINNINGS: [&str; 3] = ["gaussian", "eva", "orthogonal"];
/// Keys that are read.
const READ: [&str; 16] = [
    "alpha_pattern",
    "base_model_name_or_path",
    "bias",
    "exclude_modules",
    "init_lora_weights",
    "layers_pattern",
    "layers_to_transform",
    "lora_alpha",
    "lora_dropout",
    "modules_to_save",
    "peft_type",
    "r",
    "rank_pattern",
    "target_modules",
    "use_dora",
    "use_rslora",
];

impl AdapterConfig {
    /// Reads an `adapter_config.json`.
    ///
    /// Errors: no JSON; values out of their range; another kind of adapter than LoRA, or a setting that changes what is computed and is
    /// not known here, by name.
    pub fn read(path: &Path) -> Result<Self> {
        let object = read_json(path, MOST_BYTES)?;
        Self::from_json(&path.display().to_string(), &object)
    }

    /// As [`read`](Self::read), of what has been read; errors name `place`.
    pub fn from_json(place: &str, object: &Map<String, Value>) -> Result<Self> {
        let fields = Fields { place, object };
        let wrong = |message: String| Err(Error::config(place, message));
        match fields.text("peft_type")? {
            Some("LORA") => {}
            Some(other) => {
                let other: String = other.chars().take(40).collect();
                return Err(Error::unsupported(place, format!("peft_type {other:?} is not supported; LORA is")));
            }
            None => return wrong("peft_type is missing, so it is no adapter's config; LORA is supported".into()),
        }
        refuse_what_is_not_known(&fields)?;
        let targets = match Targets::read(&fields, "target_modules")? {
            Some(targets) => targets,
            None => return wrong("target_modules is missing; names of linear layers would be right".into()),
        };
        let default = Self::default();
        let config = Self {
            // What PEFT has where a file says nothing.
            rank: fields.count("r")?.unwrap_or(8),
            alpha: fields.number("lora_alpha")?.unwrap_or(8.0),
            dropout: fields.number("lora_dropout")?.unwrap_or(0.0),
            layers: layers(&fields, &targets)?,
            targets,
            exclude: Targets::read(&fields, "exclude_modules")?,
            rslora: fields.flag("use_rslora")?.unwrap_or(default.rslora),
            dora: fields.flag("use_dora")?.unwrap_or(default.dora),
            rank_pattern: table(&fields, "rank_pattern", |fields, key| fields.count(key))?,
            alpha_pattern: table(&fields, "alpha_pattern", |fields, key| fields.number(key))?,
            base_model: fields.text("base_model_name_or_path")?.map(Into::into),
        };
        config.check(place)?;
        Ok(config)
    }

    /// As PEFT writes it, for a model whose adapted layers have these names.
    pub(super) fn to_json(&self, adapted: &[&str]) -> Value {
        // PEFT writes the names that the shorthand stands for, and other readers know no shorthand.
        let all = || {
            let mut names: Vec<&str> = adapted.iter().filter_map(|path| path.rsplit('.').next()).collect();
            names.sort_unstable();
            names.dedup();
            json!(names)
        };
        let targets = |targets: &Targets| match targets {
            Targets::AllLinear => all(),
            Targets::Names(names) => json!(names),
            Targets::Pattern(pattern) => json!(pattern),
        };
        let number = |x: f64| if x.fract() == 0.0 && x.abs() < 9e15 { json!(x as i64) } else { json!(x) };
        let ranks: Map<String, Value> = self.rank_pattern.iter().map(|(key, rank)| (key.clone(), json!(rank))).collect();
        let alphas: Map<String, Value> = self.alpha_pattern.iter().map(|(key, alpha)| (key.clone(), number(*alpha))).collect();
        json!({
            "alpha_pattern": alphas,
            "base_model_name_or_path": self.base_model,
            "bias": "none",
            "exclude_modules": self.exclude.as_ref().map(targets),
            "fan_in_fan_out": false,
            "inference_mode": true,
            "init_lora_weights": true,
            "layers_pattern": null,
            "layers_to_transform": self.layers,
            "lora_alpha": number(self.alpha),
            "lora_dropout": self.dropout,
            "modules_to_save": null,
            "peft_type": "LORA",
            "r": self.rank,
            "rank_pattern": ranks,
            "target_modules": targets(&self.targets),
            "task_type": "CAUSAL_LM",
            "use_dora": self.dora,
            "use_rslora": self.rslora,
        })
    }

    /// Errors: a value out of its range, by name; a pattern that is no regular expression.
    pub(super) fn check(&self, place: &str) -> Result<()> {
        let fail = |message: String| Err(Error::config(place, message));
        let ranks = self.rank_pattern.iter().map(|(key, rank)| (key.as_str(), *rank));
        for (name, rank) in std::iter::once(("r", self.rank)).chain(ranks) {
            if rank == 0 {
                return fail(format!("{name} is 0; a rank of 1 at least would be right"));
            }
        }
        let alphas = self.alpha_pattern.iter().map(|(key, alpha)| (key.as_str(), *alpha));
        for (name, alpha) in std::iter::once(("lora_alpha", self.alpha)).chain(alphas) {
            if !alpha.is_finite() {
                return fail(format!("{name} is {alpha}; a number would be right"));
            }
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return fail(format!("lora_dropout is {}; a probability in [0, 1) would be right", self.dropout));
        }
        Matcher::new(place, self).map(drop)
    }
}

/// An object of values, in the file's order.
fn table<T>(fields: &Fields<'_>, name: &str, read: impl Fn(&Fields<'_>, &str) -> Result<Option<T>>) -> Result<Vec<(String, T)>> {
    let Some(object) = fields.object(name)? else { return Ok(Vec::new()) };
    let entry = |key: &String| match read(&object, key)? {
        Some(value) => Ok((key.clone(), value)),
        None => Err(Error::config(fields.place, format!("{name} says nothing of {key:?}; a number would be right"))),
    };
    object.object.keys().map(entry).collect()
}

fn layers(fields: &Fields<'_>, targets: &Targets) -> Result<Option<Vec<usize>>> {
    let layers = match fields.get("layers_to_transform") {
        Some(Value::Array(list)) => {
            let layers: Option<Vec<usize>> = list.iter().map(|x| x.as_u64().and_then(|x| usize::try_from(x).ok())).collect();
            match layers {
                Some(layers) if layers.is_empty() => None,
                Some(layers) => Some(layers),
                None => return fields.wrong("layers_to_transform", "a layer's number or a list of them"),
            }
        }
        _ => fields.count("layers_to_transform")?.map(|layer| vec![layer]),
    };
    if layers.is_some() && matches!(targets, Targets::Pattern(_)) {
        let message = "layers_to_transform stands beside a pattern as target_modules, which names layers itself; one of them would be right";
        return Err(Error::config(fields.place, message));
    }
    let known = |pattern: &str| pattern == "layers";
    let names_layers = match fields.get("layers_pattern") {
        None => true,
        Some(Value::String(text)) => text.is_empty() || known(text),
        Some(Value::Array(list)) => list.is_empty() || list.iter().any(|x| x.as_str().is_some_and(known)),
        Some(_) => return fields.wrong("layers_pattern", "a text"),
    };
    if layers.is_some() && !names_layers {
        return fields.wrong("layers_pattern", "\"layers\", as a Llama's are called,");
    }
    Ok(layers)
}

/// Everything that is set and would change what is computed, but for what is read.
fn refuse_what_is_not_known(fields: &Fields<'_>) -> Result<()> {
    let refuse = |message: String| Err(Error::unsupported(fields.place, message));
    if let Some(saved) = fields.get("modules_to_save").filter(|value| !is_nothing(value)) {
        return refuse(format!("modules_to_save is {}: whole modules beside the pairs are not supported", shown(saved)));
    }
    match fields.text("bias")? {
        None | Some("none") => {}
        Some(bias) => return refuse(format!("bias is {bias:?}: adapted biases are not supported; \"none\" is")),
    }
    match fields.get("init_lora_weights") {
        None | Some(Value::Bool(_)) => {}
        Some(Value::String(way)) if NEUTRAL_BEGINNINGS.contains(&way.as_str()) => {}
        Some(way) => {
            let message = format!(
                "init_lora_weights is {}: the pairs belong to a base whose weights were changed to begin with; PEFT converts them to plain ones",
                shown(way)
            );
            return refuse(message);
        }
    }
    for (key, value) in fields.object {
        if READ.contains(&key.as_str()) || NEUTRAL.contains(&key.as_str()) || is_nothing(value) {
            continue;
        }
        let key: String = key.chars().take(60).collect();
        return refuse(format!("{key} is {}, which is not supported", shown(value)));
    }
    Ok(())
}

/// Whether a value sets nothing: null, false, an empty text, list or object.
fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(object) => object.is_empty(),
        Value::Bool(true) | Value::Number(_) => false,
    }
}

fn shown(value: &Value) -> String {
    value.to_string().chars().take(60).collect()
}
