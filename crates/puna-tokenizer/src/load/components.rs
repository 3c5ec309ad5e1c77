//! The parts of a `tokenizer.json` around its model: what is not understood is an error by name, never left out.

use serde_json::{Map, Value, json};

use crate::decode::{Decoder, Lead, Malformed};
use crate::normalize::{Normalize, SUPERFLUOUS_SPACES};
use crate::split::{Behavior, Metaspace, PatternSource, Prepend, Split};
use crate::{Error, Result};

/// How many times longer a normalizer may make a text: SentencePiece's space has three bytes.
const MOST_GROWTH: usize = 64;

/// How many bytes a normalizer may put before a text.
const MOST_PREFIX: usize = 64;

/// How many steps a pre-tokenizer may have, and bytes all their patterns together. Those of Llama 4 have 2 and 312.
const MOST_STEPS: usize = 32;
const MOST_PATTERN: usize = 4096;

/// A component: a map with a type.
struct Component<'v> {
    place: &'static str,
    kind: &'v str,
    map: &'v Map<String, Value>,
}

impl<'v> Component<'v> {
    fn new(place: &'static str, value: &'v Value) -> Result<Self> {
        let map = value.as_object().ok_or_else(|| Error::invalid(place, "no object; a map with a type would be right"))?;
        let kind = map.get("type").and_then(Value::as_str);
        Ok(Self { place, kind: kind.ok_or_else(|| Error::invalid(place, "no type"))?, map })
    }

    /// Errors: a field that is not one of these, by name.
    fn only(&self, fields: &[&str]) -> Result<()> {
        match self.map.keys().find(|key| *key != "type" && !fields.contains(&key.as_str())) {
            Some(key) => {
                let known = format!("its fields are {}", if fields.is_empty() { "none".into() } else { fields.join(", ") });
                Err(Error::unsupported(self.place, format!("{}'s field {key:?}", self.kind), known))
            }
            None => Ok(()),
        }
    }

    fn refuse(&self, known: &str) -> Error {
        Error::unsupported(self.place, self.kind, known)
    }

    fn wrong(&self, field: &str, expected: &str) -> Error {
        let found = self.map.get(field).unwrap_or(&Value::Null);
        let found = if found.is_array() || found.is_object() { "something else".into() } else { found.to_string() };
        Error::invalid(self.place, format!("{}'s {field} is {found}; {expected} would be right", self.kind))
    }

    /// The value of a field; `None` where it is missing or null.
    fn get(&self, field: &str) -> Option<&'v Value> {
        self.map.get(field).filter(|value| !value.is_null())
    }

    fn is(&self, field: &str, value: &Value) -> bool {
        self.get(field) == Some(value)
    }

    fn flag(&self, field: &str, default: bool) -> Result<bool> {
        self.get(field).map_or(Ok(default), |value| value.as_bool().ok_or_else(|| self.wrong(field, "true or false")))
    }

    fn text(&self, field: &str) -> Result<&'v str> {
        self.get(field).and_then(Value::as_str).ok_or_else(|| self.wrong(field, "a string"))
    }

    fn character(&self, field: &str) -> Result<char> {
        let mut chars = self.text(field)?.chars();
        match (chars.next(), chars.next()) {
            (Some(c), None) => Ok(c),
            _ => Err(self.wrong(field, "one character")),
        }
    }

    fn count(&self, field: &str) -> Result<usize> {
        let count = self.get(field).and_then(Value::as_u64).and_then(|count| usize::try_from(count).ok());
        count.ok_or_else(|| self.wrong(field, "a number"))
    }

    fn list(&self, field: &str) -> Result<&'v [Value]> {
        self.get(field).and_then(Value::as_array).map(Vec::as_slice).ok_or_else(|| self.wrong(field, "a list"))
    }

    /// `{"String": ..}` or `{"Regex": ..}`.
    fn pattern(&self) -> Result<PatternSource> {
        let pattern = self.get("pattern").and_then(Value::as_object).filter(|pattern| pattern.len() == 1);
        let pattern = pattern.and_then(|pattern| match pattern.iter().next() {
            Some((kind, Value::String(text))) if kind == "String" => Some(PatternSource::Text(text.clone())),
            Some((kind, Value::String(text))) if kind == "Regex" => Some(PatternSource::Regex(text.clone())),
            _ => None,
        });
        pattern.ok_or_else(|| self.wrong("pattern", "{\"String\": ..} or {\"Regex\": ..}"))
    }

    /// The text that is replaced, and what by.
    fn replacement(&self) -> Result<(String, &'v str)> {
        self.only(&["pattern", "content"])?;
        match self.pattern()? {
            PatternSource::Text(from) if !from.is_empty() => Ok((from, self.text("content")?)),
            PatternSource::Text(_) => Err(self.wrong("pattern", "text that is not empty")),
            PatternSource::Regex(_) => Err(Error::unsupported(self.place, "Replace of a Regex", "Replace of a String is")),
        }
    }

    fn metaspace(&self) -> Result<Metaspace> {
        self.only(&["replacement", "add_prefix_space", "prepend_scheme", "split", "str_rep"])?;
        let prepend = match (self.get("prepend_scheme"), self.flag("add_prefix_space", true)?) {
            (None, true) => Prepend::Always,
            (None, false) => Prepend::Never,
            (Some(Value::String(scheme)), adds) => match (scheme.as_str(), adds) {
                ("always", true) => Prepend::Always,
                ("first", true) => Prepend::First,
                ("never", _) => Prepend::Never,
                _ => return Err(self.wrong("prepend_scheme", "always, first or never, as add_prefix_space says,")),
            },
            _ => return Err(self.wrong("prepend_scheme", "always, first or never")),
        };
        Ok(Metaspace { replacement: self.character("replacement")?, prepend, split: self.flag("split", true)? })
    }
}

/// A normalizer's steps.
///
/// Errors: steps that are not understood; such as would make texts longer without measure.
pub(super) fn normalizer(value: &Value) -> Result<Vec<Normalize>> {
    let steps = normalizer_steps(value)?;
    let mut growth = 1usize;
    for step in &steps {
        match step {
            Normalize::Replace(from, to) => growth = growth.saturating_mul(to.len().div_ceil(from.len()).max(1)),
            Normalize::Prepend(prefix) if prefix.len() > MOST_PREFIX => {
                let message = format!("Prepend's prepend has {} bytes; at most {MOST_PREFIX} would be right", prefix.len());
                return Err(Error::invalid("normalizer", message));
            }
            Normalize::Prepend(_) | Normalize::CollapseSpaces => {}
        }
    }
    if growth > MOST_GROWTH {
        let message = format!("it could make a text {growth} times as long; at most {MOST_GROWTH} times would be right");
        return Err(Error::invalid("normalizer", message));
    }
    Ok(steps)
}

fn normalizer_steps(value: &Value) -> Result<Vec<Normalize>> {
    let component = Component::new("normalizer", value)?;
    Ok(match component.kind {
        "Sequence" => {
            component.only(&["normalizers"])?;
            flat("normalizer", component.list("normalizers")?, normalizer_steps)?
        }
        "Prepend" => {
            component.only(&["prepend"])?;
            vec![Normalize::Prepend(component.text("prepend")?.to_owned())]
        }
        "Replace" => {
            let collapses =
                component.is("pattern", &json!({ "Regex": SUPERFLUOUS_SPACES })) && component.is("content", &json!(""));
            vec![if collapses {
                Normalize::CollapseSpaces
            } else {
                let (from, to) = component.replacement()?;
                Normalize::Replace(from, to.to_owned())
            }]
        }
        _ => return Err(component.refuse("Prepend, Replace and Sequence are")),
    })
}

/// A component's parts, of which none is a list of parts again: nothing nests without end.
fn flat<T>(place: &'static str, parts: &[Value], read: impl Fn(&Value) -> Result<Vec<T>>) -> Result<Vec<T>> {
    let mut all = Vec::new();
    for part in parts {
        if part.get("type").and_then(Value::as_str) == Some("Sequence") {
            return Err(Error::unsupported(place, "a Sequence in a Sequence", "one of other parts is"));
        }
        all.extend(read(part)?);
    }
    Ok(all)
}

/// A pre-tokenizer's step.
pub(super) enum Cut {
    Split(Split),
    /// What is cut becomes characters that stand for bytes.
    ByteLevel,
}

/// A pre-tokenizer's steps.
///
/// Errors: steps that are not understood; patterns so many and long that compiling them could take all memory.
pub(super) fn pre_tokenizer(value: &Value) -> Result<Vec<Cut>> {
    let parts = value.get("pretokenizers").and_then(Value::as_array).map_or(std::slice::from_ref(value), Vec::as_slice);
    let pattern = |part: &Value| part["pattern"]["Regex"].as_str().or(part["pattern"]["String"].as_str()).map_or(0, str::len);
    let bytes: usize = parts.iter().map(pattern).sum();
    if parts.len() > MOST_STEPS || bytes > MOST_PATTERN {
        let message = format!(
            "{} steps, whose patterns have {bytes} bytes; at most {MOST_STEPS} and {MOST_PATTERN} would be right",
            parts.len()
        );
        return Err(Error::invalid("pre_tokenizer", message));
    }
    pre_tokenizer_steps(value)
}

fn pre_tokenizer_steps(value: &Value) -> Result<Vec<Cut>> {
    let component = Component::new("pre_tokenizer", value)?;
    Ok(match component.kind {
        "Sequence" => {
            component.only(&["pretokenizers"])?;
            flat("pre_tokenizer", component.list("pretokenizers")?, pre_tokenizer_steps)?
        }
        "ByteLevel" => {
            // What offsets are given has no part in ids.
            component.only(&["add_prefix_space", "trim_offsets", "use_regex"])?;
            let mut steps = Vec::new();
            if component.flag("add_prefix_space", true)? {
                steps.push(Cut::Split(Split::PrefixSpace));
            }
            if component.flag("use_regex", true)? {
                steps.push(Cut::Split(Split::Gpt2));
            }
            steps.push(Cut::ByteLevel);
            steps
        }
        "Digits" => {
            component.only(&["individual_digits"])?;
            let each = component.flag("individual_digits", false)?;
            vec![Cut::Split(if each { Split::Digits } else { Split::DigitRuns })]
        }
        "Split" => {
            component.only(&["pattern", "behavior", "invert"])?;
            let behavior = match component.text("behavior")? {
                "Removed" => Behavior::Removed,
                "Isolated" => Behavior::Isolated,
                "MergedWithPrevious" => Behavior::MergedWithPrevious,
                "MergedWithNext" => Behavior::MergedWithNext,
                "Contiguous" => Behavior::Contiguous,
                _ => {
                    return Err(
                        component.wrong("behavior", "Removed, Isolated, MergedWithPrevious, MergedWithNext or Contiguous")
                    );
                }
            };
            vec![Cut::Split(Split::from_pattern(component.pattern()?, behavior, component.flag("invert", false)?)?)]
        }
        "Metaspace" => vec![Cut::Split(Split::Metaspace(component.metaspace()?))],
        _ => return Err(component.refuse("ByteLevel, Split, Digits, Metaspace and Sequence are")),
    })
}

/// A decoder. `byte_level`: whether the pre-tokenizer is ByteLevel.
pub(super) fn decoder(value: &Value, byte_level: bool) -> Result<Decoder> {
    let component = Component::new("decoder", value)?;
    let steps = match component.kind {
        "Sequence" => {
            component.only(&["decoders"])?;
            component.list("decoders")?
        }
        _ => std::slice::from_ref(value),
    };
    let mut decoder =
        Decoder { space: None, lead: Lead::Keep, malformed: Malformed::Subparts, shows_special: true, unknown: None };
    // What each may follow: steps do what is written here in this order only.
    let order = ["ByteLevel", "Replace", "Metaspace", "ByteFallback", "Fuse", "Strip"];
    let (mut reached, mut has_bytes, mut fused) = (0, false, false);
    for step in steps {
        let step = Component::new("decoder", step)?;
        let place = order.iter().position(|kind| *kind == step.kind);
        let place =
            place.ok_or_else(|| step.refuse("ByteLevel, Replace, Metaspace, ByteFallback, Fuse, Strip and a Sequence are"))?;
        if place < reached || (reached == 1 && byte_level) {
            return Err(step.refuse("not behind these steps; the order Replace, ByteFallback, Fuse, Strip is"));
        }
        reached = place + 1;
        match step.kind {
            "ByteLevel" => {
                step.only(&["add_prefix_space", "trim_offsets", "use_regex"])?;
                has_bytes = true;
            }
            "Replace" => {
                let (from, to) = step.replacement()?;
                let mut chars = from.chars();
                match (chars.next(), chars.next(), to) {
                    (Some(space), None, " ") => decoder.space = Some(space),
                    _ => return Err(step.refuse("of one character by a space it is")),
                }
            }
            "Metaspace" => {
                let metaspace = step.metaspace()?;
                decoder.space = Some(metaspace.replacement);
                decoder.lead = if metaspace.prepend == Prepend::Never { Lead::Keep } else { Lead::FirstToken };
            }
            "ByteFallback" => {
                step.only(&[])?;
                decoder.malformed = Malformed::Runs;
            }
            "Fuse" => {
                step.only(&[])?;
                fused = true;
            }
            _ => {
                step.only(&["content", "start", "stop"])?;
                if !fused || step.text("content")? != " " || step.count("stop")? != 0 || decoder.lead != Lead::Keep {
                    return Err(step.refuse("of spaces at the beginning, behind Fuse, it is"));
                }
                decoder.lead = Lead::Spaces(step.count("start")?);
            }
        }
    }
    if has_bytes != byte_level {
        return Err(component.refuse("ByteLevel goes with a ByteLevel pre_tokenizer, and only with that"));
    }
    Ok(decoder)
}

/// What a post-processor puts before and behind a text.
pub(super) fn post_processor(value: &Value) -> Result<[Vec<u32>; 2]> {
    let component = Component::new("post_processor", value)?;
    match component.kind {
        // Offsets only.
        "ByteLevel" => component.only(&["add_prefix_space", "trim_offsets", "use_regex"]).map(|()| Default::default()),
        "Sequence" => {
            component.only(&["processors"])?;
            let mut around: [Vec<u32>; 2] = Default::default();
            for part in flat("post_processor", component.list("processors")?, |part| Ok(vec![post_processor(part)?]))? {
                let [mut before, behind] = part;
                before.append(&mut around[0]);
                around[0] = before;
                around[1].extend(behind);
            }
            Ok(around)
        }
        "TemplateProcessing" => {
            // Pairs of texts are not encoded here.
            component.only(&["single", "pair", "special_tokens"])?;
            template(&component)
        }
        _ => Err(component.refuse("TemplateProcessing, ByteLevel and Sequence are")),
    }
}

fn template(component: &Component<'_>) -> Result<[Vec<u32>; 2]> {
    let special = component.get("special_tokens").and_then(Value::as_object);
    let mut around: [Vec<u32>; 2] = Default::default();
    let mut texts = 0;
    for item in component.list("single")? {
        let wrong = || component.wrong("single", "tokens around one Sequence \"A\"");
        let map = item.as_object().filter(|map| map.len() == 1).ok_or_else(wrong)?;
        match map.iter().next() {
            Some((kind, text)) if kind == "Sequence" && text["id"] == "A" => texts += 1,
            Some((kind, token)) if kind == "SpecialToken" => {
                let name = token["id"].as_str().ok_or_else(wrong)?;
                let ids = special.and_then(|special| special.get(name)).and_then(|token| token["ids"].as_array());
                let ids: Option<Vec<u32>> =
                    ids.and_then(|ids| ids.iter().map(|id| id.as_u64().and_then(|id| u32::try_from(id).ok())).collect());
                around[usize::from(texts > 0)]
                    .extend(ids.ok_or_else(|| component.wrong("special_tokens", "ids for each name in single"))?);
            }
            _ => return Err(wrong()),
        }
    }
    if texts == 1 { Ok(around) } else { Err(component.wrong("single", "tokens around one Sequence \"A\"")) }
}
