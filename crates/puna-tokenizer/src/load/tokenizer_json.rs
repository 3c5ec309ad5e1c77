//! Hugging Face's `tokenizer.json`, as far as the Llama family and its like use it.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

use super::components::{self, Cut};
use super::{byte_of, check_size};
use crate::added::{Added, AddedTokens};
use crate::byte_level;
use crate::hash::FastMap;
use crate::merge::Merges;
use crate::model::{Alphabet, Bpe, Characters, NO_TOKEN, byte_tokens};
use crate::tokenizer::{Limits, Template};
use crate::vocabulary::{Kind, Vocabulary};
use crate::{Error, Result, Tokenizer};

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct File<'a> {
    #[serde(rename = "version", default)]
    _version: IgnoredAny,
    // How many texts become one batch: no part of a text's ids.
    #[serde(rename = "truncation", default)]
    _truncation: IgnoredAny,
    #[serde(rename = "padding", default)]
    _padding: IgnoredAny,
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
    #[serde(borrow)]
    model: Model<'a>,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Model<'a> {
    #[serde(rename = "type", default)]
    _kind: IgnoredAny,
    #[serde(borrow)]
    vocab: Entries<'a>,
    #[serde(borrow)]
    merges: Vec<Merge<'a>>,
    #[serde(default)]
    unk_token: Option<String>,
    #[serde(default)]
    dropout: Option<f64>,
    #[serde(default)]
    continuing_subword_prefix: Option<String>,
    #[serde(default)]
    end_of_word_suffix: Option<String>,
    #[serde(default)]
    fuse_unk: Option<bool>,
    #[serde(default)]
    byte_fallback: Option<bool>,
    #[serde(default)]
    ignore_merges: Option<bool>,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct AddedToken {
    id: u32,
    content: String,
    #[serde(default)]
    single_word: bool,
    #[serde(default)]
    lstrip: bool,
    #[serde(default)]
    rstrip: bool,
    normalized: Option<bool>,
    #[serde(default)]
    special: bool,
}

/// What the file's model is, before the rest of it is read as one of ours.
#[derive(serde::Deserialize)]
struct Outline {
    model: OutlineModel,
}

#[derive(serde::Deserialize)]
struct OutlineModel {
    #[serde(rename = "type", default)]
    kind: Option<String>,
}

/// Text that lies in the file as it is, or was escaped there.
type Text<'a> = std::borrow::Cow<'a, str>;

/// A vocabulary in the file's order.
struct Entries<'a>(Vec<(Text<'a>, u32)>);

impl<'de: 'a, 'a> Deserialize<'de> for Entries<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct EntriesVisitor;
        impl<'de> Visitor<'de> for EntriesVisitor {
            type Value = Entries<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map from tokens to ids")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Self::Value, A::Error> {
                let mut entries = Vec::new();
                while let Some((Borrowed(token), id)) = map.next_entry()? {
                    entries.push((token, id));
                }
                Ok(Entries(entries))
            }
        }
        deserializer.deserialize_map(EntriesVisitor)
    }
}

/// Text that is borrowed from the file where it can be.
#[derive(serde::Deserialize)]
#[serde(transparent)]
struct Borrowed<'a>(#[serde(borrow)] Text<'a>);

/// Two tokens that merge, by name: a list of both, or both with a space between.
struct Merge<'a>(Text<'a>, Text<'a>);

impl<'de: 'a, 'a> Deserialize<'de> for Merge<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct MergeVisitor;

        fn both<E: de::Error>(line: &str) -> std::result::Result<(&str, &str), E> {
            // A token may hold a space only where merges are lists.
            match line.split_once(' ') {
                Some((left, right)) if !right.contains(' ') => Ok((left, right)),
                _ => Err(E::custom(format_args!("the merge {line:?} is not two tokens and a space between"))),
            }
        }

        impl<'de> Visitor<'de> for MergeVisitor {
            type Value = Merge<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("two tokens, as a list or with a space between")
            }

            fn visit_borrowed_str<E: de::Error>(self, line: &'de str) -> std::result::Result<Self::Value, E> {
                both(line).map(|(left, right)| Merge(left.into(), right.into()))
            }

            fn visit_str<E: de::Error>(self, line: &str) -> std::result::Result<Self::Value, E> {
                both(line).map(|(left, right)| Merge(left.to_owned().into(), right.to_owned().into()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> std::result::Result<Self::Value, A::Error> {
                let mut next = |at| seq.next_element()?.ok_or_else(|| de::Error::invalid_length(at, &"two tokens"));
                let (Borrowed(left), Borrowed(right)) = (next(0)?, next(1)?);
                match seq.next_element::<IgnoredAny>()? {
                    None => Ok(Merge(left, right)),
                    Some(_) => Err(de::Error::invalid_length(3, &"two tokens")),
                }
            }
        }
        deserializer.deserialize_any(MergeVisitor)
    }
}

impl Tokenizer {
    /// Reads a `tokenizer.json`.
    ///
    /// The file does not say which tokens begin and end a text: [`bos`](Self::bos) is what its post-processor puts first, and
    /// [`eos`](Self::eos) what it puts last; [`from_file`](Self::from_file) also heeds the `tokenizer_config.json` beside it.
    ///
    /// Errors: no such JSON, with line and column; a model, normalizer, pre-tokenizer, decoder, post-processor or field of these
    /// that is not understood, by name; merges of tokens that are not there.
    pub fn from_tokenizer_json(json: &[u8]) -> Result<Self> {
        check_size("tokenizer.json", json.len() as u64)?;
        let outline: Outline = serde_json::from_slice(json)?;
        if let Some(kind) = outline.model.kind.filter(|kind| kind != "BPE") {
            return Err(Error::unsupported("model", kind, "BPE is"));
        }
        let file: File<'_> = serde_json::from_slice(json)?;
        check_model(&file.model)?;

        let normalizer = file.normalizer.as_ref().map_or(Ok(Vec::new()), components::normalizer)?;
        let (mut splits, mut byte_level) = (Vec::new(), false);
        for cut in file.pre_tokenizer.as_ref().map_or(Ok(Vec::new()), components::pre_tokenizer)? {
            match cut {
                _ if byte_level => return Err(Error::unsupported("pre_tokenizer", "a step behind ByteLevel", "it is the last")),
                Cut::Split(split) => splits.push(split),
                Cut::ByteLevel => byte_level = true,
            }
        }
        let decoder = file.decoder.as_ref().ok_or_else(|| Error::unsupported("decoder", "null", "ByteLevel or a Sequence is"))?;
        let decoder = components::decoder(decoder, byte_level)?;
        let [before, behind] = file.post_processor.as_ref().map_or(Ok(Default::default()), components::post_processor)?;

        let Tokens { vocabulary, ids, added } = tokens(&file, byte_level, json.len())?;
        if let Some(id) = before.iter().chain(&behind).find(|id| vocabulary.kind(**id) == Kind::Gap) {
            return Err(Error::invalid("post_processor", format!("token id {id} names no token")));
        }
        let added = AddedTokens::new(added, &normalizer)?;
        let model = &file.model;
        let unk = model.unk_token.as_ref().map(|unk| {
            let missing = || Error::invalid("model", format!("unk_token {unk:?} is no token of the vocabulary"));
            ids.get(unk.as_str()).copied().ok_or_else(missing)
        });
        let unk = unk.transpose()?;
        let merges = merges(&model.merges, &ids)?;
        let fallback = model.byte_fallback.unwrap_or(false);
        let alphabet = if byte_level {
            let mut bytes = Box::new([NO_TOKEN; 256]);
            (0..=255u8).for_each(|byte| bytes[usize::from(byte)] = vocabulary.id(&[byte]).unwrap_or(NO_TOKEN));
            if fallback && bytes.contains(&NO_TOKEN) {
                return Err(Error::unsupported("model", "byte_fallback of bytes without a token", "all 256 have one elsewhere"));
            }
            Alphabet::Bytes(bytes)
        } else {
            let bytes = byte_tokens(&vocabulary, "model.vocab")?.filter(|_| fallback);
            Alphabet::Characters(Characters::new(&vocabulary, bytes, Vec::new()))
        };
        let (whole, fuse) = (model.ignore_merges.unwrap_or(false), model.fuse_unk.unwrap_or(false));
        Ok(Self {
            model: Bpe::new(&vocabulary, alphabet, merges, whole, unk, fuse),
            vocabulary,
            scores: Vec::new(),
            bos: before.first().copied().filter(|id| added.by_id(*id).is_some_and(|added| added.special)),
            eos: behind.last().copied().filter(|id| added.by_id(*id).is_some_and(|added| added.special)),
            pad: None,
            added,
            normalizer,
            splits,
            decoder,
            template: Template { before, behind },
            limits: Limits::None,
        })
    }
}

/// Errors: what only other models have.
fn check_model(model: &Model<'_>) -> Result<()> {
    let affixes =
        [("continuing_subword_prefix", &model.continuing_subword_prefix), ("end_of_word_suffix", &model.end_of_word_suffix)];
    if let Some((name, _)) = affixes.iter().find(|(_, affix)| affix.as_ref().is_some_and(|affix| !affix.is_empty())) {
        return Err(Error::unsupported("model", *name, "Llama's tokenizers have none"));
    }
    match model.dropout {
        Some(dropout) if dropout != 0.0 => {
            Err(Error::unsupported("model", format!("dropout {dropout}"), "0 is: the same text has the same ids"))
        }
        _ => Ok(()),
    }
}

/// All tokens, those of the model by name, and those that are added.
struct Tokens<'f> {
    vocabulary: Vocabulary,
    ids: FastMap<&'f str, u32>,
    added: Vec<Added>,
}

fn tokens<'f>(file: &'f File<'_>, byte_level: bool, file_bytes: usize) -> Result<Tokens<'f>> {
    let entries = &file.model.vocab.0;
    let all = entries.iter().map(|(_, id)| *id).chain(file.added_tokens.iter().map(|token| token.id));
    let count = all.max().map_or(0, |id| id as usize + 1);
    // Gaps take memory that nothing in the file answers for.
    let most = 2 * (entries.len() + file.added_tokens.len()) + 1024;
    if count > most {
        let message = format!("the largest id is {}, of {} tokens; below {most} would be right", count - 1, entries.len());
        return Err(Error::invalid("model.vocab", message));
    }
    let mut ids = FastMap::with_capacity_and_hasher(entries.len(), Default::default());
    let mut texts: Vec<Option<(&str, Kind)>> = vec![None; count];
    for (text, id) in entries {
        // Of a token that is there twice the last counts.
        if let Some(before) = ids.insert(&**text, *id) {
            texts[before as usize] = None;
        }
        if let Some((other, _)) = texts[*id as usize].replace((text, Kind::Normal)) {
            return Err(Error::invalid("model.vocab", format!("{other:?} and {text:?} have the same id, {id}")));
        }
    }
    let mut added = Vec::with_capacity(file.added_tokens.len());
    for token in &file.added_tokens {
        if let Some(id) = ids.get(token.content.as_str()).filter(|id| **id != token.id) {
            let message = format!("{:?} has the id {}, but {id} in model.vocab", token.content, token.id);
            return Err(Error::invalid("added_tokens", message));
        }
        match texts[token.id as usize] {
            Some((other, _)) if other != token.content => {
                let message = format!("{:?} and {other:?} have the same id, {}", token.content, token.id);
                return Err(Error::invalid("added_tokens", message));
            }
            _ => texts[token.id as usize] = Some((&token.content, if token.special { Kind::Control } else { Kind::UserDefined })),
        }
        added.push(Added {
            text: token.content.clone(),
            id: token.id,
            special: token.special,
            lstrip: token.lstrip,
            rstrip: token.rstrip,
            single_word: token.single_word,
            normalized: token.normalized.unwrap_or(!token.special),
        });
    }
    let fallback = file.model.byte_fallback.unwrap_or(false);
    let mut vocabulary = Vocabulary::with_capacity(count, file_bytes / 4);
    for text in texts {
        let Some((text, kind)) = text else {
            vocabulary.push(&[], Kind::Gap);
            continue;
        };
        let id = if byte_level {
            // Whatever is written in the alphabet of bytes decodes as bytes, added tokens too.
            match (byte_level::bytes(text), kind) {
                (Some(bytes), kind) => vocabulary.push(&bytes, kind),
                (None, Kind::Normal) => vocabulary.push(text.as_bytes(), Kind::Literal),
                (None, kind) => vocabulary.push(text.as_bytes(), kind),
            }
        } else {
            match byte_of(text).filter(|_| fallback && kind == Kind::Normal) {
                Some(byte) => vocabulary.push(&[byte], Kind::Byte),
                None if Some(text) == file.model.unk_token.as_deref() && kind == Kind::Normal => {
                    vocabulary.push(text.as_bytes(), Kind::Unknown)
                }
                None => vocabulary.push(text.as_bytes(), kind),
            }
        };
        // Merging may make an added token too, where the model's vocabulary has it.
        let is_mergeable = !byte_level || byte_level::bytes(text).is_some();
        if matches!(kind, Kind::Control | Kind::UserDefined) && ids.contains_key(text) && is_mergeable {
            vocabulary.list(id);
        }
    }
    Ok(Tokens { vocabulary, ids, added })
}

/// A list of merges by the ids of its tokens.
fn merges(list: &[Merge<'_>], ids: &FastMap<&str, u32>) -> Result<Merges> {
    let id = |token: &str, rank: u32| {
        let missing = || Error::invalid(format!("model.merges[{rank}]"), format!("{token:?} is no token of the vocabulary"));
        ids.get(token).copied().ok_or_else(missing)
    };
    let mut merges = Merges::with_capacity(list.len());
    let mut merged = String::new();
    for (rank, Merge(left, right)) in (0..).zip(list) {
        merged.clear();
        merged.push_str(left);
        merged.push_str(right);
        merges.insert(id(left, rank)?, id(right, rank)?, rank, id(&merged, rank)?);
    }
    Ok(merges)
}
