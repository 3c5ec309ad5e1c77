//! Typed access to the fields of a JSON object whose author is not trusted.

use std::path::Path;

use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::weights::mmap::MappedFile;

/// Reads a small JSON object.
///
/// Errors: no file, more than `most` bytes (a tree of values takes up to thirty times its text), no JSON, no object.
pub(crate) fn read_json(path: &Path, most: usize) -> Result<Map<String, Value>> {
    let file = MappedFile::open(path)?;
    parse_json(&file.name(), file.as_ref(), most)
}

pub(super) fn parse_json(place: &str, bytes: &[u8], most: usize) -> Result<Map<String, Value>> {
    if bytes.len() > most {
        return Err(Error::format(place, format!("{} bytes; a file of this kind has at most {most}", bytes.len())));
    }
    match serde_json::from_slice(bytes) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err(Error::format(place, "it is JSON, but no object")),
        Err(e) => Err(Error::format(place, format!("no JSON: {e}")).with_source(e)),
    }
}

/// An object's fields; `null` is as absent.
#[derive(Clone, Copy)]
pub(crate) struct Fields<'a> {
    pub(crate) place: &'a str,
    pub(crate) object: &'a Map<String, Value>,
}

impl<'a> Fields<'a> {
    pub(crate) fn get(&self, name: &str) -> Option<&'a Value> {
        self.object.get(name).filter(|value| !value.is_null())
    }

    /// The error of a field that is not what it should be.
    pub(crate) fn wrong<T>(&self, name: &str, wanted: &str) -> Result<T> {
        let shown = self.get(name).map(ToString::to_string).unwrap_or_default();
        let shown: String = shown.chars().take(60).collect();
        Err(Error::config(self.place, format!("{name} is {shown}; {wanted} would be right")))
    }

    /// A whole number from 0 on; `4096.0` is one too.
    pub(crate) fn count(&self, name: &str) -> Result<Option<usize>> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let whole = value.as_f64().filter(|v| v.fract() == 0.0 && (0.0..=9e15).contains(v)).map(|v| v as u64);
        match value.as_u64().or(whole).and_then(|n| usize::try_from(n).ok()) {
            Some(count) => Ok(Some(count)),
            None => self.wrong(name, "a whole number"),
        }
    }

    pub(super) fn required_count(&self, name: &str) -> Result<usize> {
        self.count(name)?.ok_or_else(|| self.missing(name))
    }

    pub(crate) fn number(&self, name: &str) -> Result<Option<f64>> {
        match self.get(name) {
            None => Ok(None),
            Some(value) => match value.as_f64().filter(|v| v.is_finite()) {
                Some(number) => Ok(Some(number)),
                None => self.wrong(name, "a number"),
            },
        }
    }

    pub(super) fn required_number(&self, name: &str) -> Result<f64> {
        self.number(name)?.ok_or_else(|| self.missing(name))
    }

    pub(crate) fn flag(&self, name: &str) -> Result<Option<bool>> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(_) => self.wrong(name, "true or false"),
        }
    }

    pub(crate) fn text(&self, name: &str) -> Result<Option<&'a str>> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => self.wrong(name, "a text"),
        }
    }

    pub(crate) fn object(&self, name: &str) -> Result<Option<Fields<'a>>> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::Object(object)) => Ok(Some(Fields { place: self.place, object })),
            Some(_) => self.wrong(name, "an object"),
        }
    }

    /// A token id; old converters wrote -1 for none.
    pub(super) fn id(&self, name: &str) -> Result<Option<u32>> {
        if self.get(name).and_then(Value::as_i64) == Some(-1) {
            return Ok(None);
        }
        match self.count(name)?.map(u32::try_from) {
            None => Ok(None),
            Some(Ok(id)) => Ok(Some(id)),
            Some(Err(_)) => self.wrong(name, "a token id"),
        }
    }

    /// One token id or a list of them.
    pub(super) fn ids(&self, name: &str) -> Result<Vec<u32>> {
        let Some(Value::Array(list)) = self.get(name) else { return Ok(self.id(name)?.into_iter().collect()) };
        let ids: Option<Vec<u32>> = list.iter().map(|id| id.as_u64().and_then(|id| u32::try_from(id).ok())).collect();
        match ids {
            Some(ids) => Ok(ids),
            None => self.wrong(name, "a token id or a list of them"),
        }
    }

    pub(super) fn missing(&self, name: &str) -> Error {
        Error::config(self.place, format!("{name} is missing; a Llama's config has it"))
    }

    /// Refuses every field that is not among those known.
    pub(super) fn refuse_others(&self, what: &str, known: &[&str]) -> Result<()> {
        let unknown = self.object.iter().find(|(name, value)| !value.is_null() && !known.contains(&name.as_str()));
        match unknown {
            None => Ok(()),
            Some((name, _)) => {
                let name: String = name.chars().take(80).collect();
                let message =
                    format!("{what} has the key {name:?}, which is not known to mean anything; known are {}", known.join(", "));
                Err(Error::unsupported(self.place, message))
            }
        }
    }
}
