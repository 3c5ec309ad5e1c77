//! Tokenizations: ids of texts, texts of ids, streams, ill-formed text, chats.
//!
//! A file's lines say by their fields what they hold. Its tokenizers are found by name: beside it, in a folder `files` on the way
//! up, or among the fixtures that are fetched; `NAME-hf` is the tokenizer `NAME` by way of Hugging Face's format.

mod chat;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use puna::tokenizer::{Bos, Special, Tokenizer};
use serde_json::Value;

use super::{Outcome, Report};
use crate::{Result, fixtures};

/// What is off in a line, if anything is.
type Checked = std::result::Result<(), String>;

pub(super) fn check(label: &str, path: &Path, report: &mut Report<'_>) {
    let lines = match read(path) {
        Ok(lines) => lines,
        Err(error) => return report.tell(label, Err(error)),
    };
    let mut tokenizers = Tokenizers { from: path, found: BTreeMap::new() };
    let mut goldens = Goldens { label, report, tokenizers: &mut tokenizers };
    let has = |field: &'static str| lines.iter().filter(move |line| line.value.get(field).is_some_and(|value| !value.is_null()));
    if has("template").next().is_some() {
        chat::check_templates(&mut goldens, path, &lines);
    } else if has("format").next().is_some() {
        chat::check_dialogs(&mut goldens, &lines);
    } else if has("steps").next().is_some() {
        goldens.by_tokenizer("streams", &lines, |line| line.name("tokenizer"), check_stream);
        let hf = |line: &Line| line.value["decoded_hf"].as_str().and(line.name("tokenizer")).map(|name| name + "-hf");
        goldens.by_tokenizer("texts", &lines, hf, |tokenizer, line| {
            same("text", &decode(tokenizer, &line.ids("ids")?)?, &line.text("decoded_hf")?)
        });
    } else if has("hex").chain(has("utf16")).next().is_some() {
        goldens.by_tokenizer("ill-formed texts", &lines, |line| line.name("tokenizer"), check_ill_formed);
    } else if has("text").next().is_some() {
        goldens.by_tokenizer("texts", &lines, |line| line.name("tokenizer"), check_text);
    } else {
        let what = "lines without template, format, steps, hex, utf16 or text; no golden that is known here";
        report.tell(label, Ok(Outcome::Skipped(what.into())));
    }
}

/// A line of a file.
struct Line {
    /// From 1.
    number: usize,
    value: Value,
}

/// Errors: a line that is no JSON object.
fn read(path: &Path) -> Result<Vec<Line>> {
    let text = fs::read_to_string(path)?;
    // Strings hold raw U+2028, U+0085 and so on: lines end with a line feed only.
    let lines = text.split('\n').enumerate().filter(|(_, line)| !line.is_empty()).map(|(at, line)| {
        let value: Value = serde_json::from_str(line).map_err(|e| format!("line {}: {e}", at + 1))?;
        if value.is_object() { Ok(Line { number: at + 1, value }) } else { Err(format!("line {}: no object", at + 1).into()) }
    });
    lines.collect()
}

impl Line {
    fn name(&self, field: &str) -> Option<String> {
        self.value[field].as_str().map(str::to_owned)
    }

    fn text(&self, field: &str) -> std::result::Result<String, String> {
        self.name(field).ok_or_else(|| format!("{field} is no text"))
    }

    fn ids(&self, field: &str) -> std::result::Result<Vec<u32>, String> {
        let ids = self.value[field].as_array().ok_or_else(|| format!("{field} is no list"))?;
        let id = |id: &Value| id.as_u64().and_then(|id| u32::try_from(id).ok()).ok_or_else(|| format!("{id} is no id"));
        ids.iter().map(id).collect()
    }
}

/// What checks of a file have in common.
struct Goldens<'a, 'r> {
    label: &'a str,
    report: &'a mut Report<'r>,
    tokenizers: &'a mut Tokenizers<'a>,
}

impl Goldens<'_, '_> {
    /// Checks lines by the tokenizer that each names; lines that name none are not meant.
    fn by_tokenizer(
        &mut self,
        what: &str,
        lines: &[Line],
        name: impl Fn(&Line) -> Option<String>,
        check: impl Fn(&Tokenizer, &Line) -> Checked,
    ) {
        let mut groups: BTreeMap<String, Vec<&Line>> = BTreeMap::new();
        for line in lines {
            if let Some(name) = name(line) {
                groups.entry(name).or_default().push(line);
            }
        }
        for (name, lines) in groups {
            let golden = format!("{} {name}", self.label);
            let outcome = match self.tokenizers.get(&name) {
                Ok(Some(tokenizer)) => Ok(tally(what, &lines, |line| check(tokenizer, line))),
                Ok(None) => Ok(Outcome::Skipped(format!("the tokenizer {name} is not there; run cargo xtask fixtures"))),
                Err(message) => Err(message.clone().into()),
            };
            self.report.tell(golden, outcome);
        }
    }
}

/// Checks lines, counts, and tells of the first that is off.
fn tally(what: &str, lines: &[&Line], check: impl Fn(&Line) -> Checked) -> Outcome {
    let mut off = lines.iter().filter_map(|line| check(line).err().map(|message| (line.number, message)));
    match off.next() {
        None => Outcome::exact(0, lines.len(), what),
        Some((number, message)) => {
            let (wrong, total) = (1 + off.count(), lines.len());
            Outcome::Off(format!("{wrong} of {total} {what} off, first line {number}: {message}"))
        }
    }
}

/// The tokenizers that a file names, each read once.
struct Tokenizers<'a> {
    from: &'a Path,
    found: BTreeMap<String, std::result::Result<Option<Tokenizer>, String>>,
}

impl Tokenizers<'_> {
    /// `None` where it is not there.
    fn get(&mut self, name: &str) -> std::result::Result<Option<&Tokenizer>, &String> {
        if !self.found.contains_key(name) {
            let tokenizer = self.load(name).map_err(|e| e.to_string());
            self.found.insert(name.to_owned(), tokenizer);
        }
        self.found[name].as_ref().map(Option::as_ref)
    }

    fn load(&self, name: &str) -> Result<Option<Tokenizer>> {
        if let Some(path) = find(self.from, name) {
            return Ok(Some(Tokenizer::from_file(path)?));
        }
        let Some(path) = name.strip_suffix("-hf").and_then(|name| find(self.from, name)) else { return Ok(None) };
        let json = serde_json::to_vec(&Tokenizer::from_file(path)?.to_tokenizer_json()?)?;
        Ok(Some(Tokenizer::from_tokenizer_json(&json)?))
    }
}

/// A tokenizer by its name, for the goldens in a file.
fn find(from: &Path, name: &str) -> Option<PathBuf> {
    let beside = ["json", "model"].map(|extension| from.with_file_name(format!("{name}.{extension}")));
    if let Some(file) = beside.into_iter().find(|file| file.is_file()) {
        return Some(file);
    }
    let above = from.ancestors().skip(1).map(|folder| folder.join("files"));
    let folders = above.chain([fixtures::folder().join("tokenizers")]).map(|folder| folder.join(name));
    folders.flat_map(|folder| ["tokenizer.json", "tokenizer.model"].map(|file| folder.join(file))).find(|file| file.is_file())
}

/// Errors: another value, with both.
fn same<T: PartialEq + std::fmt::Debug>(what: &str, got: &T, right: &T) -> Checked {
    if got == right { Ok(()) } else { Err(format!("{what} {got:?}; {right:?} would be right")) }
}

fn encode(tokenizer: &Tokenizer, text: &str, special: Special) -> std::result::Result<Vec<u32>, String> {
    tokenizer.encode(text, special, Bos::AsWritten).map_err(|e| e.to_string())
}

fn decode(tokenizer: &Tokenizer, ids: &[u32]) -> std::result::Result<String, String> {
    tokenizer.decode(ids).map_err(|e| e.to_string())
}

/// `text`, `special_handling`, `ids`, and `decoded` where it differs from `text`.
fn check_text(tokenizer: &Tokenizer, line: &Line) -> Checked {
    let (text, ids) = (line.text("text")?, line.ids("ids")?);
    let got = match line.text("special_handling")?.as_str() {
        "none" => encode(tokenizer, &text, Special::Text)?,
        "all" => encode(tokenizer, &text, Special::Parse)?,
        "none+bos+eos" => {
            let mut got = tokenizer.encode(&text, Special::Text, Bos::Add).map_err(|e| e.to_string())?;
            got.extend(tokenizer.eos());
            got
        }
        other => return Err(format!("special_handling {other:?} is not known; none, all and none+bos+eos are")),
    };
    same("ids", &got, &ids)?;
    same("text", &decode(tokenizer, &ids)?, &line.name("decoded").unwrap_or(text))
}

/// `utf16`, units with lone surrogates, or `hex`, bytes that are no UTF-8; `ids` and `decoded`.
fn check_ill_formed(tokenizer: &Tokenizer, line: &Line) -> Checked {
    let got = match &line.value["hex"] {
        Value::String(hex) => {
            let byte = |at: usize| hex.get(at..at + 2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
            let bytes: Option<Vec<u8>> = (0..hex.len()).step_by(2).map(byte).collect();
            let bytes = bytes.ok_or_else(|| format!("{hex:?} is no hex"))?;
            let got = tokenizer.encode_bytes(&bytes, Special::Text, Bos::AsWritten).map_err(|e| e.to_string())?;
            // Ids of bytes that are no text are normative for those only that read them as text: byte-level ones give them back.
            if line.text("kind")?.contains("only the round trip is normative") {
                let back = got.iter().flat_map(|id| tokenizer.token_bytes(*id).unwrap_or_default()).copied();
                same("bytes", &back.collect::<Vec<u8>>(), &bytes)?;
            } else {
                same("ids", &got, &line.ids("ids")?)?;
            }
            got
        }
        _ => {
            let units = line.ids("utf16")?.into_iter().map(|unit| u16::try_from(unit).map_err(|_| format!("{unit} is no unit")));
            let text = String::from_utf16_lossy(&units.collect::<std::result::Result<Vec<u16>, _>>()?);
            let got = encode(tokenizer, &text, Special::Text)?;
            same("ids", &got, &line.ids("ids")?)?;
            got
        }
    };
    same("text", &decode(tokenizer, &got)?, &line.text("decoded")?)
}

/// `ids`, the text that each adds (`steps`), what is left (`flush`) and the text of all (`decoded`).
fn check_stream(tokenizer: &Tokenizer, line: &Line) -> Checked {
    let ids = line.ids("ids")?;
    let mut stream = tokenizer.decode_stream();
    let steps: std::result::Result<Vec<String>, _> = ids.iter().map(|id| stream.push(*id)).collect();
    let steps = steps.map_err(|e| e.to_string())?;
    same("steps", &Value::from(steps), &line.value["steps"])?;
    same("left", &stream.flush(), &line.text("flush")?)?;
    same("text", &decode(tokenizer, &ids)?, &line.text("decoded")?)
}
