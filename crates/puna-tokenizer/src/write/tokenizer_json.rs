use serde_json::{Map, Value, json};

use crate::added::Added;
use crate::decode::{Lead, Malformed};
use crate::model::Alphabet;
use crate::normalize::{Normalize, SUPERFLUOUS_SPACES, normalize};
use crate::split::{Behavior, GPT2, LLAMA3, LLAMA4, PatternSource, Prepend, Split};
use crate::vocabulary::Kind;
use crate::{Error, Result, Tokenizer};

impl Tokenizer {
    /// The tokenizer as a Hugging Face `tokenizer.json`, whatever it was read from.
    ///
    /// What that format cannot say is said as Hugging Face's own converters say it: ways to make one token that are of equal
    /// rank here are ranked one behind another there, and long texts are not cut as Meta's code does.
    ///
    /// Errors: a SentencePiece model that has pieces with characters that are no pieces themselves, or user-defined pieces that
    /// are found behind the space in front of a text.
    pub fn to_tokenizer_json(&self) -> Result<Value> {
        let names = self.names();
        let (mut byte_fallback, mut parts) = (false, false);
        if let Alphabet::Characters(characters) = &self.model.alphabet {
            byte_fallback = characters.bytes.is_some();
            parts = characters.has_parts();
        }
        if parts {
            let what = "a model whose pieces have characters that are no pieces";
            return Err(Error::unsupported("tokenizer.json", what, "those of models that SentencePiece trained are"));
        }
        // There, what is found in normalized text is normalized itself, and gets a space in front too.
        let moved = |added: &&Added| added.normalized && normalize(&self.normalizer, &added.text) != added.text;
        if let Some(added) = self.added.list.iter().filter(|_| !self.scores.is_empty()).find(moved) {
            let what = format!("the user-defined piece {:?} beside a space in front of texts", added.text);
            return Err(Error::unsupported("tokenizer.json", what, "either alone is; a GGUF says both"));
        }
        // Tokens behind the last that merging makes are added by their own list alone.
        let merged = |id: &u32| !matches!(self.vocabulary.kind(*id), Kind::Gap | Kind::Control | Kind::UserDefined);
        let end = self.vocabulary.ids().rev().find(merged).map_or(0, |id| id + 1);
        let mut vocabulary = Map::with_capacity(end as usize);
        for id in (0..end).filter(|id| !matches!(self.vocabulary.kind(*id), Kind::Gap)) {
            // Unused pieces may be written alike.
            vocabulary.entry(names[id as usize].clone()).or_insert_with(|| id.into());
        }
        let merges: Vec<Value> = self.merge_names(&names).into_iter().map(|(left, right)| json!([left, right])).collect();
        Ok(json!({
            "version": "1.0",
            "truncation": null,
            "padding": null,
            "added_tokens": self.added_json(),
            "normalizer": self.normalizer_json(),
            "pre_tokenizer": self.pre_tokenizer_json(),
            "post_processor": self.post_processor_json(&names),
            "decoder": self.decoder_json(),
            "model": {
                "type": "BPE",
                "dropout": null,
                "unk_token": self.model.unk.map(|id| &names[id as usize]),
                "continuing_subword_prefix": null,
                "end_of_word_suffix": null,
                "fuse_unk": self.model.fuse_unk,
                "byte_fallback": byte_fallback,
                "ignore_merges": self.model.takes_whole(),
                "vocab": vocabulary,
                "merges": merges,
            },
        }))
    }

    fn added_json(&self) -> Vec<Value> {
        let mut added: Vec<Added> = self.added.list.clone();
        added.sort_by_key(|added| added.id);
        let one = |added: &Added| {
            json!({
                "id": added.id,
                "content": added.text,
                "single_word": added.single_word,
                "lstrip": added.lstrip,
                "rstrip": added.rstrip,
                "normalized": added.normalized,
                "special": added.special,
            })
        };
        added.iter().map(one).collect()
    }

    fn normalizer_json(&self) -> Value {
        let one = |step: &Normalize| match step {
            Normalize::Prepend(prefix) => json!({ "type": "Prepend", "prepend": prefix }),
            Normalize::Replace(from, to) => json!({ "type": "Replace", "pattern": { "String": from }, "content": to }),
            Normalize::CollapseSpaces => {
                json!({ "type": "Replace", "pattern": { "Regex": SUPERFLUOUS_SPACES }, "content": "" })
            }
        };
        let steps: Vec<Value> = self.normalizer.iter().map(one).collect();
        if steps.is_empty() { Value::Null } else { json!({ "type": "Sequence", "normalizers": steps }) }
    }

    fn pre_tokenizer_json(&self) -> Value {
        let split = |pattern: Value, behavior: &str, invert: bool| json!({ "type": "Split", "pattern": pattern, "behavior": behavior, "invert": invert });
        let isolated = |pattern: &str| split(json!({ "Regex": pattern }), "Isolated", false);
        let byte_level = |prefix: bool, regex: bool| json!({ "type": "ByteLevel", "add_prefix_space": prefix, "trim_offsets": true, "use_regex": regex });
        let mut prefix = false;
        let mut steps = Vec::new();
        for step in &self.splits {
            steps.push(match step {
                Split::Gpt2 => isolated(GPT2),
                Split::Llama3 => isolated(LLAMA3),
                Split::Llama4 => isolated(LLAMA4),
                Split::Digits => json!({ "type": "Digits", "individual_digits": true }),
                Split::DigitRuns => json!({ "type": "Digits", "individual_digits": false }),
                Split::PrefixSpace => {
                    prefix = true;
                    continue;
                }
                Split::Pattern(pattern) => {
                    let behavior = match pattern.behavior {
                        Behavior::Removed => "Removed",
                        Behavior::Isolated => "Isolated",
                        Behavior::MergedWithPrevious => "MergedWithPrevious",
                        Behavior::MergedWithNext => "MergedWithNext",
                        Behavior::Contiguous => "Contiguous",
                    };
                    let source = match &pattern.source {
                        PatternSource::Regex(regex) => json!({ "Regex": regex }),
                        PatternSource::Text(text) => json!({ "String": text }),
                    };
                    split(source, behavior, pattern.invert)
                }
                Split::Metaspace(metaspace) => {
                    let scheme = match metaspace.prepend {
                        Prepend::Always => "always",
                        Prepend::First => "first",
                        Prepend::Never => "never",
                    };
                    json!({
                        "type": "Metaspace",
                        "replacement": metaspace.replacement,
                        "prepend_scheme": scheme,
                        "split": metaspace.split,
                    })
                }
            });
        }
        if self.is_byte_level() {
            // GPT-2's pattern is what ByteLevel cuts by itself, behind the space that it puts before.
            let by_itself = matches!(self.splits.last(), Some(Split::Gpt2));
            if by_itself {
                steps.pop();
            }
            steps.push(byte_level(prefix, by_itself));
        }
        match steps.len() {
            0 => Value::Null,
            1 => steps.remove(0),
            _ => json!({ "type": "Sequence", "pretokenizers": steps }),
        }
    }

    fn post_processor_json(&self, names: &[String]) -> Value {
        let template = &self.template;
        if template.before.is_empty() && template.behind.is_empty() {
            return Value::Null;
        }
        let tokens = |ids: &[u32], type_id: u32| -> Vec<Value> {
            ids.iter().map(|id| json!({ "SpecialToken": { "id": names[*id as usize], "type_id": type_id } })).collect()
        };
        let text = |name: &str, type_id: u32| {
            let text = json!({ "Sequence": { "id": name, "type_id": type_id } });
            [tokens(&template.before, type_id), vec![text], tokens(&template.behind, type_id)].concat()
        };
        let mut special = Map::new();
        for &id in template.before.iter().chain(&template.behind) {
            let name = &names[id as usize];
            special.insert(name.clone(), json!({ "id": name, "ids": [id], "tokens": [name] }));
        }
        let pair = [text("A", 0), text("B", 1)].concat();
        json!({
            "type": "TemplateProcessing",
            "single": text("A", 0),
            "pair": pair,
            "special_tokens": special,
        })
    }

    fn decoder_json(&self) -> Value {
        if self.is_byte_level() {
            return json!({ "type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true });
        }
        let decoder = &self.decoder;
        let mut steps = Vec::new();
        match (decoder.space, decoder.lead) {
            (Some(space), Lead::FirstToken) => steps.push(json!({ "type": "Metaspace", "replacement": space })),
            (Some(space), _) => {
                steps.push(json!({ "type": "Replace", "pattern": { "String": space }, "content": " " }));
            }
            (None, _) => {}
        }
        if decoder.malformed != Malformed::Subparts {
            steps.push(json!({ "type": "ByteFallback" }));
        }
        steps.push(json!({ "type": "Fuse" }));
        let spaces = match decoder.lead {
            Lead::FirstPiece | Lead::Pieces => 1,
            Lead::Spaces(spaces) => spaces,
            Lead::Keep | Lead::FirstToken => 0,
        };
        if spaces > 0 {
            steps.push(json!({ "type": "Strip", "content": " ", "start": spaces, "stop": 0 }));
        }
        json!({ "type": "Sequence", "decoders": steps })
    }
}
