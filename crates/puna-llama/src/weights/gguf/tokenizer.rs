//! The tokenizer in a GGUF file's metadata, as plain data.

use super::{Array, Gguf, Value};
use crate::error::{Error, Result};
use crate::weights::write::MetadataValue;

pub use puna_tokenizer::GgufTokenizer;

impl Gguf {
    /// The tokenizer, or `None` where the file has none.
    ///
    /// Errors: a key of another type than the format says; scores or types that are not as many as tokens.
    pub fn tokenizer(&self) -> Result<Option<GgufTokenizer>> {
        let Some(model) = self.tokenizer_key("model") else { return Ok(None) };
        let Value::String(model) = model else { return Err(self.tokenizer_fault("model", "is no text")) };
        let tokens = self.texts("tokens")?.ok_or_else(|| self.tokenizer_fault("tokens", "is missing; a tokenizer has them"))?;
        let floats = |array: Array<'_>| array.numbers().map(|v| v as f32).collect::<Vec<_>>();
        let integers = |array: Array<'_>| array.numbers().map(|v| v as i32).collect::<Vec<_>>();
        let tokenizer = GgufTokenizer {
            model: model.to_owned(),
            pre: match self.tokenizer_key("pre") {
                None => None,
                Some(Value::String(pre)) => Some(pre.to_owned()),
                Some(_) => return Err(self.tokenizer_fault("pre", "is no text")),
            },
            scores: self.numbers("scores", tokens.len())?.map(floats).unwrap_or_default(),
            token_types: self.numbers("token_type", tokens.len())?.map(integers).unwrap_or_default(),
            merges: self.texts("merges")?.unwrap_or_default(),
            bos: self.id("bos")?,
            eos: self.id("eos")?,
            unk: self.id("unknown")?,
            pad: self.id("padding")?,
            add_bos: self.flag("add_bos_token")?,
            add_eos: self.flag("add_eos_token")?,
            add_space_prefix: self.flag("add_space_prefix")?,
            tokens,
        };
        Ok(Some(tokenizer))
    }

    fn tokenizer_key(&self, key: &str) -> Option<Value<'_>> {
        self.get(&format!("tokenizer.ggml.{key}"))
    }

    fn tokenizer_fault(&self, key: &str, what: &str) -> Error {
        Error::format(self.file().name(), format!("tokenizer.ggml.{key} {what}"))
    }

    fn texts(&self, key: &str) -> Result<Option<Vec<Vec<u8>>>> {
        match self.tokenizer_key(key) {
            None => Ok(None),
            // An array of numbers gives no texts, so that the lengths differ.
            Some(Value::Array(array)) if array.length == 0 || array.strings().next().is_some() => {
                Ok(Some(array.strings().map(<[u8]>::to_vec).collect()))
            }
            Some(_) => Err(self.tokenizer_fault(key, "is no array of texts")),
        }
    }

    fn numbers(&self, key: &str, tokens: usize) -> Result<Option<Array<'_>>> {
        match self.tokenizer_key(key) {
            None => Ok(None),
            Some(Value::Array(array)) if array.length == tokens && array.numbers().count() == tokens => Ok(Some(array)),
            Some(Value::Array(array)) => {
                let message = format!(
                    "has {} {:?}, but there are {tokens} tokens; a number for each would be right",
                    array.length, array.kind
                );
                Err(self.tokenizer_fault(key, &message))
            }
            Some(_) => Err(self.tokenizer_fault(key, "is no array of numbers")),
        }
    }

    fn id(&self, name: &str) -> Result<Option<u32>> {
        let key = format!("{name}_token_id");
        match self.tokenizer_key(&key) {
            None => Ok(None),
            Some(Value::Integer(id)) if u32::try_from(id).is_ok() => Ok(u32::try_from(id).ok()),
            // Old converters wrote -1 for none.
            Some(Value::Integer(-1)) => Ok(None),
            Some(_) => Err(self.tokenizer_fault(&key, "is no token id")),
        }
    }

    fn flag(&self, key: &str) -> Result<Option<bool>> {
        match self.tokenizer_key(key) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(flag)),
            Some(_) => Err(self.tokenizer_fault(key, "is neither true nor false")),
        }
    }
}

/// The metadata that says what `tokenizer` does.
pub fn tokenizer_metadata(tokenizer: &GgufTokenizer) -> Vec<(String, MetadataValue)> {
    use MetadataValue::{Bool, F32s, I32s, Str, Strs, U32};
    let id = |name: &'static str, id: Option<u32>| id.map(|id| (name, U32(id)));
    let flag = |name: &'static str, flag: Option<bool>| flag.map(|flag| (name, Bool(flag)));
    let mut metadata = vec![("model", Str(tokenizer.model.clone()))];
    metadata.extend(tokenizer.pre.as_ref().map(|pre| ("pre", Str(pre.clone()))));
    metadata.push(("tokens", Strs(tokenizer.tokens.clone())));
    metadata.extend((!tokenizer.scores.is_empty()).then(|| ("scores", F32s(tokenizer.scores.clone()))));
    metadata.extend((!tokenizer.token_types.is_empty()).then(|| ("token_type", I32s(tokenizer.token_types.clone()))));
    metadata.extend((!tokenizer.merges.is_empty()).then(|| ("merges", Strs(tokenizer.merges.clone()))));
    metadata.extend(id("bos_token_id", tokenizer.bos));
    metadata.extend(id("eos_token_id", tokenizer.eos));
    metadata.extend(id("unknown_token_id", tokenizer.unk));
    metadata.extend(id("padding_token_id", tokenizer.pad));
    metadata.extend(flag("add_bos_token", tokenizer.add_bos));
    metadata.extend(flag("add_eos_token", tokenizer.add_eos));
    metadata.extend(flag("add_space_prefix", tokenizer.add_space_prefix));
    metadata.into_iter().map(|(key, value)| (format!("tokenizer.ggml.{key}"), value)).collect()
}
