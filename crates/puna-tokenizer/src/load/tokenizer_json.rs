//! Hugging Face's `tokenizer.json`: the parts that the Llama family uses. What is not understood is an error by name, never left out.

use serde::Deserialize;
use serde_json::Value;

use super::{byte_of, byte_tokens, ids_of};
use crate::added::{Added, AddedTokens};
use crate::merge::{FastMap, Merges};
use crate::normalize::Normalize;
use crate::split::Split;
use crate::tokenizer::{Decoder, Model, Token, TokenKind};
use crate::{Error, Result, Tokenizer};

/// More ids than any vocabulary has: what a file may make us allocate is bounded.
const MOST_IDS: usize = 1 << 22;

#[derive(Deserialize)]
struct File {
    model: Bpe,
    #[serde(default)]
    added_tokens: Vec<AddedToken>,
    #[serde(default)]
    normalizer: Option<Value>,
    #[serde(default)]
    pre_tokenizer: Option<Value>,
    #[serde(default)]
    post_processor: Option<Value>,
    #[serde(default)]
    decoder: Option<Value>,
}

#[derive(Deserialize)]
struct Bpe {
    #[serde(rename = "type", default)]
    kind: Option<String>,
    vocab: FastMap<String, u32>,
    #[serde(default)]
    merges: Vec<Merge>,
    #[serde(default)]
    unk_token: Option<String>,
    #[serde(default)]
    dropout: Option<f64>,
    #[serde(default)]
    continuing_subword_prefix: Option<String>,
    #[serde(default)]
    end_of_word_suffix: Option<String>,
    #[serde(default)]
    fuse_unk: bool,
    #[serde(default)]
    byte_fallback: bool,
    #[serde(default)]
    ignore_merges: bool,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Merge {
    Pair(String, String),
    Line(String),
}

#[derive(Deserialize)]
struct AddedToken {
    id: u32,
    content: String,
    #[serde(default)]
    special: bool,
    #[serde(default)]
    lstrip: bool,
    #[serde(default)]
    rstrip: bool,
    #[serde(default)]
    single_word: bool,
    #[serde(default)]
    normalized: bool,
}

impl Tokenizer {
    /// Reads a `tokenizer.json`.
    ///
    /// Errors: no such JSON; a model, normalizer, pre-tokenizer, decoder or post-processor that is not understood, by name.
    pub fn from_tokenizer_json(json: &[u8]) -> Result<Self> {
        let file: File = serde_json::from_slice(json)?;
        let model = &file.model;
        if let Some(kind) = model.kind.as_deref().filter(|kind| *kind != "BPE") {
            return Err(Error::unsupported("model", kind, "BPE is"));
        }
        let affixes =
            [("continuing_subword_prefix", &model.continuing_subword_prefix), ("end_of_word_suffix", &model.end_of_word_suffix)];
        if let Some((name, _)) = affixes.iter().find(|(_, affix)| affix.as_ref().is_some_and(|affix| !affix.is_empty())) {
            return Err(Error::unsupported("model", *name, "Llama's tokenizers have none"));
        }
        if model.dropout.is_some_and(|dropout| dropout != 0.0) {
            return Err(Error::unsupported("model", "dropout", "the same text has the same ids here"));
        }
        let mut cuts = Cuts::default();
        if let Some(value) = &file.pre_tokenizer {
            cuts.read(value)?;
        }
        let names = names(&file)?;
        let bos = file.post_processor.as_ref().map(begins_with).transpose()?.flatten();
        let merges = file.model.merges.iter().map(|merge| match merge {
            Merge::Pair(left, right) => Ok((left.as_str(), right.as_str())),
            Merge::Line(line) => {
                line.split_once(' ').ok_or_else(|| Error::invalid("model.merges", format!("{line:?} names no two tokens")))
            }
        });
        let merges = merges.collect::<Result<Vec<_>>>()?;
        let id = |token: &str| names.iter().position(|name| name == token).map(|at| at as u32);
        let adds_bos = bos.is_some();
        // Where no post-processor adds one, texts have a beginning all the same if one of the usual names is there.
        let named = |names: &[&str]| names.iter().find_map(|name| id(name));
        let bos = match &bos {
            Some(token) => id(token),
            None => named(&["<|begin_of_text|>", "<s>", "<|im_start|>"]),
        };
        let eos = named(&["<|end_of_text|>", "</s>", "<|im_end|>", "<|endoftext|>"]);
        let added = |normalizes: bool| {
            let one = |token: &AddedToken| Added {
                text: token.content.clone(),
                id: token.id,
                special: token.special,
                lstrip: token.lstrip,
                rstrip: token.rstrip,
                single_word: token.single_word,
                normalized: token.normalized && normalizes,
            };
            AddedTokens::new(file.added_tokens.iter().map(one).collect())
        };
        let normalizer = file.normalizer.as_ref().map_or(Ok(Vec::new()), read_normalizer)?;
        if cuts.byte_level {
            if let Some(step) = normalizer.first() {
                return Err(Error::unsupported("normalizer", format!("{step:?} before byte-level BPE"), "none is"));
            }
            check_decoder(file.decoder.as_ref(), &["ByteLevel"])?;
            let kinds = kinds(&names, &file);
            let vocabulary = names.iter().zip(kinds).map(|(name, kind)| {
                let bytes = match kind {
                    TokenKind::Normal => byte_level_bytes(name).unwrap_or_else(|| name.clone().into_bytes()),
                    _ => name.clone().into_bytes(),
                };
                Token { bytes: bytes.into(), kind, score: 0.0 }
            });
            let (splits, whole) = (cuts.splits, file.model.ignore_merges);
            let level = ByteLevel {
                vocabulary: vocabulary.collect(),
                names: &names,
                merges,
                place: "model.merges",
                added: added(false),
                splits,
                whole,
                bos,
                eos,
                adds_bos,
            };
            return level.build();
        }
        let steps = normalizer.into_iter().chain(cuts.normalizer).collect::<Vec<_>>();
        characters(&file, names, merges, added(true), steps, cuts.splits, [bos, eos], adds_bos)
    }
}

/// Each id's token as it is written; empty where an id has none.
fn names(file: &File) -> Result<Vec<String>> {
    let ids = file.model.vocab.values().copied().chain(file.added_tokens.iter().map(|token| token.id));
    let count = ids.max().map_or(0, |id| id as usize + 1);
    let there = file.model.vocab.len() + file.added_tokens.len();
    if count > MOST_IDS || count > there.saturating_mul(4) + 4096 {
        return Err(Error::invalid(
            "model.vocab",
            format!("{there} tokens have ids up to {}; most ids would be empty", count - 1),
        ));
    }
    let mut names = vec![String::new(); count];
    for (token, &id) in &file.model.vocab {
        names[id as usize].clone_from(token);
    }
    for token in &file.added_tokens {
        names[token.id as usize].clone_from(&token.content);
    }
    Ok(names)
}

fn kinds(names: &[String], file: &File) -> Vec<TokenKind> {
    let mut kinds: Vec<_> =
        names.iter().map(|name| if name.is_empty() { TokenKind::Unused } else { TokenKind::Normal }).collect();
    for token in &file.added_tokens {
        kinds[token.id as usize] = if token.special { TokenKind::Control } else { TokenKind::UserDefined };
    }
    kinds
}

/// What a pre-tokenizer says.
#[derive(Default)]
struct Cuts {
    splits: Vec<Split>,
    byte_level: bool,
    /// Where white space is made visible by a pre-tokenizer, that is a step of normalization.
    normalizer: Vec<Normalize>,
}

impl Cuts {
    fn read(&mut self, value: &Value) -> Result<()> {
        let flag = |name: &str, default| value[name].as_bool().unwrap_or(default);
        if self.byte_level {
            return Err(Error::unsupported("pre_tokenizer", "a step behind ByteLevel", "ByteLevel is the last one"));
        }
        match kind(value) {
            "Sequence" => list(value, "pretokenizers")?.iter().try_for_each(|step| self.read(step))?,
            "ByteLevel" => {
                if flag("add_prefix_space", true) {
                    return Err(Error::unsupported("pre_tokenizer", "ByteLevel with add_prefix_space", "Llama's add none"));
                }
                if flag("use_regex", true) {
                    self.splits.push(Split::Gpt2);
                }
                self.byte_level = true;
            }
            "Digits" => self.splits.push(if flag("individual_digits", false) { Split::Digits } else { Split::DigitRuns }),
            "Split" => {
                let behavior = value["behavior"].as_str().unwrap_or("");
                if !behavior.eq_ignore_ascii_case("isolated") || flag("invert", false) {
                    let what = format!("Split with behavior {behavior:?}, invert {}", flag("invert", false));
                    return Err(Error::unsupported("pre_tokenizer", what, "Isolated is, not inverted"));
                }
                let pattern = match (&value["pattern"]["Regex"], &value["pattern"]["String"]) {
                    (Value::String(regex), _) => regex.clone(),
                    (_, Value::String(text)) => fancy_regex::escape(text).into_owned(),
                    _ => return Err(Error::invalid("pre_tokenizer", "a Split without a pattern")),
                };
                self.splits.push(Split::from_pattern(&pattern)?);
            }
            "Metaspace" => {
                let space = value["replacement"].as_str().unwrap_or("\u{2581}").to_owned();
                match value["prepend_scheme"].as_str().unwrap_or("always") {
                    "never" => {}
                    "always" if !flag("split", true) => self.normalizer.push(Normalize::Prepend(space.clone())),
                    scheme => {
                        let what = format!("Metaspace with prepend_scheme {scheme:?}, split {}", flag("split", true));
                        return Err(Error::unsupported("pre_tokenizer", what, "\"never\" is, and \"always\" without split"));
                    }
                }
                self.normalizer.push(Normalize::Replace(" ".into(), space));
            }
            other => {
                return Err(Error::unsupported("pre_tokenizer", other, "ByteLevel, Split, Digits, Metaspace and Sequence are"));
            }
        }
        Ok(())
    }
}

fn kind(value: &Value) -> &str {
    value["type"].as_str().unwrap_or("one without a type")
}

fn list<'a>(value: &'a Value, name: &str) -> Result<&'a [Value]> {
    value[name]
        .as_array()
        .map(Vec::as_slice)
        .ok_or_else(|| Error::invalid("tokenizer.json", format!("a Sequence without {name}")))
}

fn read_normalizer(value: &Value) -> Result<Vec<Normalize>> {
    let text = |name: &str| value[name].as_str().map(String::from);
    Ok(match kind(value) {
        "Sequence" => list(value, "normalizers")?.iter().map(read_normalizer).collect::<Result<Vec<_>>>()?.concat(),
        "Prepend" => {
            vec![Normalize::Prepend(text("prepend").ok_or_else(|| Error::invalid("normalizer", "a Prepend without prepend"))?)]
        }
        "Replace" => match (value["pattern"]["String"].as_str(), text("content")) {
            (Some(from), Some(to)) if !from.is_empty() => vec![Normalize::Replace(from.into(), to)],
            _ => return Err(Error::unsupported("normalizer", "Replace by a pattern", "Replace of a String is")),
        },
        other => return Err(Error::unsupported("normalizer", other, "Prepend, Replace and Sequence are")),
    })
}

/// The token that a post-processor puts before every text, if it does.
fn begins_with(value: &Value) -> Result<Option<String>> {
    match kind(value) {
        "ByteLevel" => Ok(None),
        "Sequence" => {
            let each = list(value, "processors")?.iter().map(begins_with).collect::<Result<Vec<_>>>()?;
            Ok(each.into_iter().flatten().next())
        }
        "TemplateProcessing" => {
            let single = value["single"]
                .as_array()
                .ok_or_else(|| Error::invalid("post_processor", "a TemplateProcessing without single"))?;
            let special = |item: &Value| item["SpecialToken"]["id"].as_str().map(String::from);
            match single.as_slice() {
                [text] if !text["Sequence"].is_null() => Ok(None),
                [first, text] if !text["Sequence"].is_null() => Ok(special(first)),
                _ => Err(Error::unsupported(
                    "post_processor",
                    "a template other than one token before the text",
                    "Llama's have one",
                )),
            }
        }
        other => Err(Error::unsupported("post_processor", other, "TemplateProcessing, ByteLevel and Sequence are")),
    }
}

fn check_decoder(value: Option<&Value>, known: &[&str]) -> Result<()> {
    match value.map(kind) {
        None => Ok(()),
        Some(kind) if known.contains(&kind) => Ok(()),
        Some(other) => Err(Error::unsupported("decoder", other, format!("here {} is", known.join(", ")))),
    }
}

/// Byte-level BPE from tokens and a list of merges.
pub(super) struct ByteLevel<'a> {
    pub(super) vocabulary: Vec<Token>,
    /// Tokens as they are written in the file, where each byte is a character.
    pub(super) names: &'a [String],
    pub(super) merges: Vec<(&'a str, &'a str)>,
    pub(super) place: &'static str,
    pub(super) added: AddedTokens,
    pub(super) splits: Vec<Split>,
    pub(super) whole: bool,
    pub(super) bos: Option<u32>,
    pub(super) eos: Option<u32>,
    pub(super) adds_bos: bool,
}

impl ByteLevel<'_> {
    pub(super) fn build(self) -> Result<Tokenizer> {
        let ids = ids_of(&self.vocabulary);
        let merges = pairs(self.names, &self.merges, self.place)?;
        let mut bytes = Box::new([u32::MAX; 256]);
        for byte in 0..=255u8 {
            bytes[usize::from(byte)] = ids.get(&[byte][..]).copied().unwrap_or(u32::MAX);
        }
        let there = |id: &u32| (*id as usize) < self.vocabulary.len();
        Ok(Tokenizer {
            bos: self.bos.filter(there),
            eos: self.eos.filter(there),
            ids,
            vocabulary: self.vocabulary,
            added: self.added,
            normalizer: Vec::new(),
            splits: self.splits,
            model: Model::Bytes { bytes, merges, whole: self.whole },
            decoder: Decoder { space: None, strip_first: false, shows_special: true, unknown: String::new() },
            unk: None,
            adds_bos: self.adds_bos,
        })
    }
}

/// A list of merges by the ids of its tokens.
fn pairs(names: &[String], merges: &[(&str, &str)], place: &str) -> Result<Merges> {
    let ids: FastMap<&str, u32> = names.iter().map(String::as_str).zip(0..).collect();
    let id = |token: &str| {
        ids.get(token).copied().ok_or_else(|| Error::invalid(place, format!("{token:?} is no token of the vocabulary")))
    };
    let mut pairs = FastMap::default();
    let mut merged = String::new();
    for (rank, (left, right)) in (0..).zip(merges) {
        merged.clear();
        merged.push_str(left);
        merged.push_str(right);
        // Of a merge that is listed twice the last one counts.
        pairs.insert((id(left)?, id(right)?), (rank, id(&merged)?));
    }
    Ok(Merges::Pairs(pairs))
}

/// SentencePiece's kind of tokenizer in Hugging Face's clothes.
#[allow(clippy::too_many_arguments)]
fn characters(
    file: &File,
    names: Vec<String>,
    merges: Vec<(&str, &str)>,
    added: AddedTokens,
    normalizer: Vec<Normalize>,
    splits: Vec<Split>,
    [bos, eos]: [Option<u32>; 2],
    adds_bos: bool,
) -> Result<Tokenizer> {
    let mut kinds = kinds(&names, file);
    let mut vocabulary = Vec::with_capacity(names.len());
    let unk = file.model.unk_token.as_ref().and_then(|unk| names.iter().position(|name| name == unk));
    for (name, kind) in names.iter().zip(&mut kinds) {
        let byte = byte_of(name).filter(|_| file.model.byte_fallback && *kind == TokenKind::Normal);
        let bytes = match byte {
            Some(byte) => {
                *kind = TokenKind::Byte;
                vec![byte]
            }
            None => name.clone().into_bytes(),
        };
        vocabulary.push(Token { bytes: bytes.into(), kind: *kind, score: 0.0 });
    }
    let merges = pairs(&names, &merges, "model.merges")?;
    let space = normalizer.iter().find_map(|step| match step {
        Normalize::Replace(from, to) if from == " " => Some(to.clone()),
        _ => None,
    });
    let strip_first = reads_spaces(file.decoder.as_ref())?;
    Ok(Tokenizer {
        ids: ids_of(&vocabulary),
        added,
        normalizer,
        splits,
        model: Model::Characters {
            bytes: byte_tokens(&vocabulary),
            merges,
            whole: file.model.ignore_merges,
            fuse_unknown: file.model.fuse_unk,
        },
        decoder: Decoder { space, strip_first, shows_special: true, unknown: file.model.unk_token.clone().unwrap_or_default() },
        bos,
        eos,
        unk: unk.map(|id| id as u32),
        adds_bos,
        vocabulary,
    })
}

/// Whether a decoder drops the space before the first token.
fn reads_spaces(decoder: Option<&Value>) -> Result<bool> {
    let Some(decoder) = decoder else { return Ok(false) };
    match kind(decoder) {
        "Sequence" => {
            let mut strips = false;
            for step in list(decoder, "decoders")? {
                match kind(step) {
                    "Replace" | "ByteFallback" | "Fuse" => {}
                    "Strip" => strips = step["content"] == " " && step["start"] == 1 && step["stop"] == 0,
                    other => return Err(Error::unsupported("decoder", other, "Replace, ByteFallback, Fuse and Strip are")),
                }
            }
            Ok(strips)
        }
        "Metaspace" => Ok(decoder["prepend_scheme"] != "never"),
        other => Err(Error::unsupported("decoder", other, "Sequence and Metaspace are")),
    }
}

/// The character that stands for each byte in byte-level vocabularies: itself where it is visible, else one behind U+0100.
pub(crate) fn byte_level_alphabet() -> [char; 256] {
    let mut alphabet = ['\0'; 256];
    let mut next = 256;
    for byte in 0..=255u8 {
        let visible = matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
        alphabet[usize::from(byte)] = if visible {
            char::from(byte)
        } else {
            next += 1;
            char::from_u32(next - 1).expect("just behind U+0100 are characters")
        };
    }
    alphabet
}

/// The bytes that a token of a byte-level vocabulary stands for; `None` where a character stands for none.
pub(super) fn byte_level_bytes(token: &str) -> Option<Vec<u8>> {
    static BYTES: std::sync::OnceLock<FastMap<u32, u8>> = std::sync::OnceLock::new();
    let bytes = BYTES.get_or_init(|| byte_level_alphabet().into_iter().map(u32::from).zip(0..=255).collect());
    token.chars().map(|c| bytes.get(&u32::from(c)).copied()).collect()
}
