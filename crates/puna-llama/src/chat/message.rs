//! One message of a conversation, and the pieces that a conversation becomes on its way to the tokenizer.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::ChatError;

/// One message: a JSON object with a `role`, usually a `content`, and whatever else the template reads (`tool_calls`,
/// `name`, ...). Keys keep their order, because templates print whole objects.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Value", into = "Value")]
pub struct Message(Map<String, Value>);

impl Message {
    /// A message of any role.
    pub fn new(role: &str, content: impl Into<Value>) -> Self {
        Self(Map::from_iter([("role".to_owned(), role.into()), ("content".to_owned(), content.into())]))
    }

    /// What the model should be: `role: system`.
    pub fn system(content: impl Into<Value>) -> Self {
        Self::new("system", content)
    }

    /// What the user said.
    pub fn user(content: impl Into<Value>) -> Self {
        Self::new("user", content)
    }

    /// What the model said.
    pub fn assistant(content: impl Into<Value>) -> Self {
        Self::new("assistant", content)
    }

    /// What a tool answered.
    pub fn tool(content: impl Into<Value>) -> Self {
        Self::new("tool", content)
    }

    /// Any JSON object that has a `role`. Errors: no object, no role, a role that is no string.
    pub fn from_json(value: Value) -> Result<Self, ChatError> {
        match value {
            Value::Object(fields) if fields.get("role").is_some_and(Value::is_string) => Ok(Self(fields)),
            Value::Object(_) => {
                Err(ChatError::Input("a message without a role; a message is an object with a string `role`".into()))
            }
            _ => Err(ChatError::Input("a message that is no object; a message is an object with a string `role`".into())),
        }
    }

    /// The same message with one more field, such as `tool_calls`.
    pub fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.0.insert(key.to_owned(), value.into());
        self
    }

    /// `system`, `user`, `assistant`, `tool`, or what else the template knows.
    pub fn role(&self) -> &str {
        self.get("role").and_then(Value::as_str).unwrap_or_default()
    }

    /// The content where it is plain text.
    pub fn text(&self) -> Option<&str> {
        self.get("content").and_then(Value::as_str)
    }

    /// A field by name.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.0.get(key)
    }

    /// All fields, in their order.
    pub fn fields(&self) -> &Map<String, Value> {
        &self.0
    }
}

impl TryFrom<Value> for Message {
    type Error = ChatError;

    fn try_from(value: Value) -> Result<Self, ChatError> {
        Self::from_json(value)
    }
}

impl From<Message> for Value {
    fn from(message: Message) -> Value {
        Value::Object(message.0)
    }
}

/// A piece of a rendered conversation, by what it may hold. Neighboring pieces are encoded apart and never merged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Segment {
    /// Plain text: what looks like a special token in it stays text. SentencePiece's dummy prefix applies to each piece.
    Text(String),
    /// One special token, by its text.
    Special(String),
    /// A template's output: special tokens written in it are special tokens, and it brings its own BOS.
    Markup(String),
}

impl Segment {
    /// The text of the piece.
    pub fn text(&self) -> &str {
        match self {
            Segment::Text(text) | Segment::Special(text) | Segment::Markup(text) => text,
        }
    }
}

/// The token ids of a rendered conversation. `encode(text, special)` encodes a piece without adding BOS or EOS, parsing
/// special tokens where `special` is true; `special(text)` gives the id of one special token. Errors: theirs.
pub fn encode_segments<E>(
    segments: &[Segment],
    mut encode: impl FnMut(&str, bool) -> Result<Vec<u32>, E>,
    mut special: impl FnMut(&str) -> Result<u32, E>,
) -> Result<Vec<u32>, E> {
    let mut ids = Vec::new();
    for segment in segments {
        match segment {
            Segment::Text(text) if text.is_empty() => {}
            Segment::Text(text) => ids.extend(encode(text, false)?),
            Segment::Special(text) => ids.push(special(text)?),
            Segment::Markup(text) => ids.extend(encode(text, true)?),
        }
    }
    Ok(ids)
}
