//! Which layers an adapter belongs to, by their names.

use fancy_regex::{Regex, RegexBuilder};
use serde_json::Value;

use super::config::AdapterConfig;
use crate::config::Fields;
use crate::error::{Error, Result};

/// Linear layers, by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Targets {
    /// Every one but the head.
    AllLinear,
    /// Those of these names, whole (`model.layers.0.mlp.up_proj`) or their last segments (`up_proj`, `mlp.up_proj`).
    Names(Vec<String>),
    /// Those whose whole name this regular expression matches.
    Pattern(String),
}

/// What PEFT writes for every linear layer but the head.
const ALL_LINEAR: &str = "all-linear";
/// How long a regular expression is at most, and how many there are of one kind.
const MOST_PATTERN_BYTES: usize = 4096;
const MOST_PATTERNS: usize = 1024;

impl Targets {
    pub(super) fn read(fields: &Fields<'_>, name: &str) -> Result<Option<Self>> {
        match fields.get(name) {
            None => Ok(None),
            Some(Value::String(text)) if text.eq_ignore_ascii_case(ALL_LINEAR) => Ok(Some(Self::AllLinear)),
            Some(Value::String(text)) => Ok(Some(Self::Pattern(text.clone()))),
            Some(Value::Array(list)) => {
                let names: Option<Vec<String>> = list.iter().map(|name| name.as_str().map(Into::into)).collect();
                match names {
                    // A list of the shorthand alone means it too.
                    Some(names) if matches!(&names[..], [name] if name.eq_ignore_ascii_case(ALL_LINEAR)) => {
                        Ok(Some(Self::AllLinear))
                    }
                    Some(names) => Ok(Some(Self::Names(names))),
                    None => fields.wrong(name, "a list of names"),
                }
            }
            Some(_) => fields.wrong(name, "a list of names, or one regular expression"),
        }
    }
}

/// An [`AdapterConfig`] whose patterns have been compiled.
pub(super) struct Matcher<'a> {
    config: &'a AdapterConfig,
    targets: Compiled<'a>,
    exclude: Option<Compiled<'a>>,
    ranks: Vec<(Regex, usize)>,
    alphas: Vec<(Regex, f64)>,
}

enum Compiled<'a> {
    AllLinear,
    Names(&'a [String]),
    Pattern(Regex),
}

/// What stands beside a layer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Adapted {
    pub(super) rank: usize,
    pub(super) scale: f64,
}

impl<'a> Matcher<'a> {
    /// Errors: a pattern that is no regular expression, or too long; too many of them.
    pub(super) fn new(place: &str, config: &'a AdapterConfig) -> Result<Self> {
        let compiled = |targets: &'a Targets| match targets {
            Targets::AllLinear => Ok::<_, Error>(Compiled::AllLinear),
            Targets::Names(names) => Ok(Compiled::Names(names)),
            Targets::Pattern(pattern) => Ok(Compiled::Pattern(compile(place, pattern, &format!(r"\A(?:{pattern})\z"))?)),
        };
        Ok(Self {
            config,
            targets: compiled(&config.targets)?,
            exclude: config.exclude.as_ref().map(compiled).transpose()?,
            ranks: table(place, "rank_pattern", &config.rank_pattern)?,
            alphas: table(place, "alpha_pattern", &config.alpha_pattern)?,
        })
    }

    /// What stands beside the linear layer of this name, if anything.
    ///
    /// Errors: a regular expression that takes too long.
    pub(super) fn layer(&self, name: &str) -> Result<Option<Adapted>> {
        let excluded = self.exclude.as_ref().map(|exclude| exclude.has(name)).transpose()?.unwrap_or(false);
        let chosen = match (&self.config.layers, number_of(name)) {
            (None, _) => true,
            (Some(layers), Some(number)) => layers.contains(&number),
            (Some(_), None) => false,
        };
        if excluded || !chosen || !self.targets.has(name)? {
            return Ok(None);
        }
        let rank = find(&self.ranks, name)?.unwrap_or(self.config.rank);
        let alpha = find(&self.alphas, name)?.unwrap_or(self.config.alpha);
        let over = if self.config.rslora { (rank as f64).sqrt() } else { rank as f64 };
        Ok(Some(Adapted { rank, scale: alpha / over }))
    }
}

impl Compiled<'_> {
    fn has(&self, layer: &str) -> Result<bool> {
        match self {
            Self::AllLinear => Ok(layer != "lm_head"),
            Self::Names(names) => Ok(names.iter().any(|name| {
                let before = layer.strip_suffix(name.as_str());
                before.is_some_and(|before| before.is_empty() || before.ends_with('.')) && !name.is_empty()
            })),
            Self::Pattern(regex) => is_match(regex, layer),
        }
    }
}

/// `model.layers.3.mlp.up_proj`: 3.
fn number_of(layer: &str) -> Option<usize> {
    layer.strip_prefix("model.layers.")?.split('.').next()?.parse().ok()
}

/// A pattern's key says how a layer's name ends, behind a point or from its beginning.
fn table<T: Copy>(place: &str, name: &str, entries: &[(String, T)]) -> Result<Vec<(Regex, T)>> {
    if entries.len() > MOST_PATTERNS {
        return Err(Error::config(place, format!("{name} has {} entries; {MOST_PATTERNS} at most", entries.len())));
    }
    let compiled = |(key, value): &(String, T)| Ok((compile(place, key, &format!(r"\A(?:.*\.)?(?:{key})\z"))?, *value));
    entries.iter().map(compiled).collect()
}

/// The first that fits counts, as in PEFT.
fn find<T: Copy>(table: &[(Regex, T)], layer: &str) -> Result<Option<T>> {
    for (regex, value) in table {
        if is_match(regex, layer)? {
            return Ok(Some(*value));
        }
    }
    Ok(None)
}

/// A regular expression of a file that is not trusted: what it takes is bounded.
fn compile(place: &str, pattern: &str, anchored: &str) -> Result<Regex> {
    let shown = || -> String { pattern.chars().take(60).collect() };
    if pattern.len() > MOST_PATTERN_BYTES {
        let message = format!("the pattern {:?} has {} bytes; {MOST_PATTERN_BYTES} at most", shown(), pattern.len());
        return Err(Error::config(place, message));
    }
    let regex = RegexBuilder::new(anchored).backtrack_limit(100_000).delegate_size_limit(1 << 18).build();
    regex.map_err(|e| Error::config(place, format!("{:?} is no regular expression: {e}", shown())).with_source(e))
}

fn is_match(regex: &Regex, layer: &str) -> Result<bool> {
    regex.is_match(layer).map_err(|e| Error::config(layer, format!("a pattern takes too long: {e}")).with_source(e))
}
