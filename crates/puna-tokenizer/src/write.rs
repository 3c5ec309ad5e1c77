//! A tokenizer as the files that others read.

use serde_json::{Map, Value, json};

use crate::Tokenizer;
use crate::load::{GgufTokenizer, byte_level_alphabet};
use crate::merge::Merges;
use crate::normalize::Normalize;
use crate::split::{GPT2, LLAMA3, LLAMA4, Split};
use crate::tokenizer::{Model, Token, TokenKind};

impl Tokenizer {
    /// The tokenizer as a Hugging Face `tokenizer.json`.
    pub fn to_tokenizer_json(&self) -> Value {
        let names = self.names();
        let in_vocabulary =
            |id: usize| matches!(self.vocabulary[id].kind, TokenKind::Normal | TokenKind::Byte | TokenKind::Unknown);
        let mut vocabulary = Map::new();
        for (id, name) in names.iter().enumerate() {
            // SentencePiece's control pieces stand in the vocabulary too.
            if !name.is_empty() && (in_vocabulary(id) || !self.is_byte_level()) {
                vocabulary.entry(name.clone()).or_insert_with(|| id.into());
            }
        }
        let (whole, fuse_unknown, has_bytes) = match &self.model {
            Model::Bytes { whole, .. } => (*whole, false, false),
            Model::Characters { whole, fuse_unknown, bytes, .. } => (*whole, *fuse_unknown, bytes.is_some()),
        };
        let unknown = self.unk.and_then(|id| names.get(id as usize)).cloned();
        let mut added: Vec<_> = self.added.list.iter().collect();
        added.sort_by_key(|added| added.id);
        let mut added: Vec<Value> = added
            .into_iter()
            .map(|added| {
                json!({ "id": added.id, "content": added.text, "single_word": added.single_word, "lstrip": added.lstrip,
                    "rstrip": added.rstrip, "normalized": added.normalized, "special": added.special })
            })
            .collect();
        if let Some(id) = self.unk.filter(|id| self.added.by_id(*id).is_none()) {
            added.insert(0, json!({ "id": id, "content": unknown, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true }));
        }
        let (normalizer, decoder) = if self.is_byte_level() {
            (Value::Null, json!({ "type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true }))
        } else {
            (self.normalizer_json(), self.decoder_json())
        };
        json!({
            "version": "1.0",
            "truncation": null,
            "padding": null,
            "added_tokens": added,
            "normalizer": normalizer,
            "pre_tokenizer": self.pre_tokenizer_json(),
            "post_processor": self.post_processor_json(&names),
            "decoder": decoder,
            "model": {
                "type": "BPE",
                "dropout": null,
                "unk_token": unknown,
                "continuing_subword_prefix": null,
                "end_of_word_suffix": null,
                "fuse_unk": fuse_unknown,
                "byte_fallback": has_bytes,
                "ignore_merges": whole,
                "vocab": vocabulary,
                "merges": self.merges(&names).into_iter().map(|(left, right)| json!([left, right])).collect::<Vec<_>>(),
            },
        })
    }

    fn is_byte_level(&self) -> bool {
        matches!(self.model, Model::Bytes { .. })
    }

    /// Each token as a vocabulary writes it.
    fn names(&self) -> Vec<String> {
        let alphabet = byte_level_alphabet();
        let name = |token: &Token| match token.kind {
            TokenKind::Normal if self.is_byte_level() => token.bytes.iter().map(|byte| alphabet[usize::from(*byte)]).collect(),
            TokenKind::Byte => format!("<0x{:02X}>", token.bytes[0]),
            _ => String::from_utf8_lossy(&token.bytes).into_owned(),
        };
        self.vocabulary.iter().map(name).collect()
    }

    /// The merges as a list, best first.
    fn merges<'n>(&self, names: &'n [String]) -> Vec<(&'n str, &'n str)> {
        let (Model::Bytes { merges, .. } | Model::Characters { merges, .. }) = &self.model;
        let mut ranked: Vec<(u32, u32, u32)> = Vec::new();
        match merges {
            Merges::Pairs(pairs) => ranked.extend(pairs.iter().map(|((left, right), (rank, _))| (*rank, *left, *right))),
            // Every way to write a token as two others; of one rank in the order of their ids.
            Merges::Written(tokens) => {
                for (bytes, (rank, _)) in tokens {
                    for at in 1..bytes.len() {
                        let id = |bytes: &[u8]| self.ids.get(bytes).copied();
                        if let (Some(left), Some(right)) = (id(&bytes[..at]), id(&bytes[at..])) {
                            ranked.push((*rank, left, right));
                        }
                    }
                }
            }
        }
        // Tokens of one rank in the order of their ids too, so that the file is the same each time.
        ranked.sort_unstable();
        ranked.into_iter().map(|(_, left, right)| (names[left as usize].as_str(), names[right as usize].as_str())).collect()
    }

    fn normalizer_json(&self) -> Value {
        let space = self.decoder.space.as_deref();
        let one = |step: &Normalize| match step {
            // A prefix that is a space is written as what spaces become: Hugging Face's replace has no part in it then.
            Normalize::Prepend(prefix) => {
                json!({ "type": "Prepend", "prepend": if prefix == " " { space.unwrap_or(" ") } else { prefix.as_str() } })
            }
            Normalize::Replace(from, to) => json!({ "type": "Replace", "pattern": { "String": from }, "content": to }),
            Normalize::CollapseSpaces => json!({ "type": "Replace", "pattern": { "Regex": " {2,}" }, "content": " " }),
        };
        json!({ "type": "Sequence", "normalizers": self.normalizer.iter().map(one).collect::<Vec<_>>() })
    }

    fn decoder_json(&self) -> Value {
        let space = self.decoder.space.as_deref().unwrap_or(" ");
        let mut steps = vec![
            json!({ "type": "Replace", "pattern": { "String": space }, "content": " " }),
            json!({ "type": "ByteFallback" }),
            json!({ "type": "Fuse" }),
        ];
        if self.decoder.strip_first {
            steps.push(json!({ "type": "Strip", "content": " ", "start": 1, "stop": 0 }));
        }
        json!({ "type": "Sequence", "decoders": steps })
    }

    fn pre_tokenizer_json(&self) -> Value {
        let pattern =
            |pattern: &str| json!({ "type": "Split", "pattern": { "Regex": pattern }, "behavior": "Isolated", "invert": false });
        let one = |split: &Split| match split {
            Split::Gpt2 => pattern(GPT2),
            Split::Llama3 => pattern(LLAMA3),
            Split::Llama4 => pattern(LLAMA4),
            Split::Digits => json!({ "type": "Digits", "individual_digits": true }),
            Split::DigitRuns => json!({ "type": "Digits", "individual_digits": false }),
            Split::Pattern(regex) => pattern(regex.as_str()),
        };
        let mut steps: Vec<Value> = self.splits.iter().map(one).collect();
        if self.is_byte_level() {
            steps.push(json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false }));
        }
        if steps.is_empty() { Value::Null } else { json!({ "type": "Sequence", "pretokenizers": steps }) }
    }

    fn post_processor_json(&self, names: &[String]) -> Value {
        let Some(bos) = self.bos.filter(|_| self.adds_bos) else { return Value::Null };
        let name = &names[bos as usize];
        let token = json!({ "SpecialToken": { "id": name, "type_id": 0 } });
        let text = |id: &str, type_id: u32| json!({ "Sequence": { "id": id, "type_id": type_id } });
        json!({
            "type": "TemplateProcessing",
            "single": [token, text("A", 0)],
            "pair": [token, text("A", 0), { "SpecialToken": { "id": name, "type_id": 1 } }, text("B", 1)],
            "special_tokens": { name: { "id": name, "ids": [bos], "tokens": [name] } },
        })
    }

    /// The tokenizer as a GGUF holds it; `None` where its pre-tokenizer has no name there.
    pub fn to_gguf(&self) -> Option<GgufTokenizer> {
        let pre = match self.splits.as_slice() {
            [] if !self.is_byte_level() => "default",
            [Split::Gpt2] => "gpt-2",
            [Split::Llama3] => "llama-bpe",
            [Split::Llama4] => "llama4",
            [Split::Digits, Split::Gpt2] => "smollm",
            _ => return None,
        };
        let names = self.names();
        let kind = |token: &Token| match token.kind {
            TokenKind::Normal => 1,
            TokenKind::Unknown => 2,
            TokenKind::Control => 3,
            TokenKind::UserDefined => 4,
            TokenKind::Unused => 5,
            TokenKind::Byte => 6,
        };
        let merges = self
            .is_byte_level()
            .then(|| self.merges(&names).into_iter().map(|(left, right)| format!("{left} {right}").into_bytes()).collect());
        let scores = match &self.model {
            Model::Bytes { .. } => Vec::new(),
            // SentencePiece merges by scores: where there is a list instead, the best merge of a token has its place.
            Model::Characters { merges: Merges::Pairs(pairs), .. } => {
                let mut scores = vec![-1e9f32; names.len()];
                for (rank, id) in pairs.values() {
                    let score = &mut scores[*id as usize];
                    *score = score.max(-(*rank as f32));
                }
                scores
            }
            Model::Characters { .. } => self.vocabulary.iter().map(|token| token.score).collect(),
        };
        Some(GgufTokenizer {
            model: if self.is_byte_level() { "gpt2" } else { "llama" }.into(),
            pre: Some(pre.into()),
            token_types: self.vocabulary.iter().map(kind).collect(),
            tokens: names.into_iter().map(String::into_bytes).collect(),
            scores,
            merges: merges.unwrap_or_default(),
            bos: self.bos,
            eos: self.eos,
            unk: self.unk,
            pad: None,
            add_eos: None,
            add_bos: Some(self.adds_bos),
            add_space_prefix: (!self.is_byte_level()).then_some(self.decoder.strip_first),
        })
    }
}
