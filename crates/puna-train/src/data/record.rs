//! A line of a JSON-lines file.

use puna_llama::Message;
use serde_json::{Map, Value};

use crate::error::{Error, Result};

/// What a line holds. Fields that are none of these are left alone: data sets carry labels of their own.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Record {
    /// `{"text": ".."}`
    Text(String),
    /// `{"prompt": .., "completion": ..}`
    Completion { prompt: Speech, completion: Speech },
    /// `{"messages": [..]}`, with `tools` where the template shows them.
    Chat { messages: Vec<Message>, tools: Option<Value> },
    /// `{"chosen": .., "rejected": .., "prompt": ..}`, with `tools` where the template shows them.
    Preference { prompt: Option<Speech>, chosen: Speech, rejected: Speech, tools: Option<Value> },
}

/// Text, or messages of a conversation.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Speech {
    Text(String),
    Messages(Vec<Message>),
}

impl Record {
    /// Reads a line. Errors: no JSON, another shape; they name the field.
    pub(super) fn parse(line: &str, place: &dyn Fn() -> String) -> Result<Self> {
        let wrong = |message: String| Error::data(place(), message);
        let value: Value = serde_json::from_str(line).map_err(|e| {
            // Serde's own words end with a line, which is always 1 here.
            let text = e.to_string();
            let text = text.split(" at line ").next().unwrap_or(&text).to_owned();
            wrong(format!("no JSON: {text}, column {}", e.column())).with_source(e)
        })?;
        let Value::Object(mut fields) = value else {
            return Err(wrong(format!("{} where an object belongs: {KINDS}", kind_of(&value))));
        };
        let has = |name: &str| fields.contains_key(name);
        let kinds = [has("text"), has("completion"), has("messages"), has("chosen") || has("rejected")];
        match kinds.iter().filter(|has| **has).count() {
            0 => {
                let names: Vec<String> = fields.keys().take(8).map(|name| name.chars().take(32).collect()).collect();
                return Err(wrong(format!("fields {names:?}; {KINDS}")));
            }
            1 => {}
            _ => return Err(wrong(format!("fields of two kinds at once; {KINDS}"))),
        }
        let tools = fields.remove("tools").filter(|tools| !tools.is_null());
        if tools.as_ref().is_some_and(|tools| !tools.is_array()) {
            return Err(wrong("\"tools\" that are no list".to_owned()));
        }
        let mut field = |name: &str| speech(&mut fields, name).map_err(&wrong);
        match kinds {
            [true, ..] => match field("text")? {
                Speech::Text(text) => Ok(Self::Text(text)),
                Speech::Messages(_) => Err(wrong("\"text\" is a list where a string belongs".to_owned())),
            },
            [_, true, ..] => Ok(Self::Completion { prompt: field("prompt")?, completion: field("completion")? }),
            [_, _, true, _] => match field("messages")? {
                Speech::Messages(messages) => Ok(Self::Chat { messages, tools }),
                Speech::Text(_) => Err(wrong("\"messages\" is a string where a list of messages belongs".to_owned())),
            },
            _ => {
                let (chosen, rejected) = (field("chosen")?, field("rejected")?);
                let prompt =
                    if has_value(&fields, "prompt") { Some(speech(&mut fields, "prompt").map_err(&wrong)?) } else { None };
                Ok(Self::Preference { prompt, chosen, rejected, tools })
            }
        }
    }

    /// What it is, as errors say it.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Text(_) => "text",
            Self::Completion { .. } => "prompt and completion",
            Self::Chat { .. } => "messages",
            Self::Preference { .. } => "chosen and rejected",
        }
    }
}

const KINDS: &str = "a line has \"text\", or \"prompt\" and \"completion\", or \"messages\", or \"chosen\" and \"rejected\"";

fn has_value(fields: &Map<String, Value>, name: &str) -> bool {
    fields.get(name).is_some_and(|value| !value.is_null())
}

/// Takes a field out.
fn speech(fields: &mut Map<String, Value>, name: &str) -> std::result::Result<Speech, String> {
    match fields.get_mut(name).map(Value::take) {
        None => Err(format!("no {name:?}")),
        Some(Value::String(text)) => Ok(Speech::Text(text)),
        Some(Value::Array(list)) => {
            let message = |(index, value): (usize, Value)| {
                Message::from_json(value).map_err(|e| {
                    let text = e.to_string();
                    format!("{name:?}, item {index}: {}", text.strip_prefix("chat: ").unwrap_or(&text))
                })
            };
            Ok(Speech::Messages(list.into_iter().enumerate().map(message).collect::<std::result::Result<_, _>>()?))
        }
        Some(other) => Err(format!("{name:?} is {} where a string or a list of messages belongs", kind_of(&other))),
    }
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a truth value",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Record> {
        Record::parse(line, &|| "f:3".to_owned())
    }

    #[test]
    fn each_kind_is_read() {
        assert_eq!(parse(r#"{"text": "a", "id": 5}"#).unwrap(), Record::Text("a".into()));
        let completion = Record::Completion { prompt: Speech::Text("a".into()), completion: Speech::Text("b".into()) };
        assert_eq!(parse(r#"{"completion": "b", "prompt": "a"}"#).unwrap(), completion);
        let messages = vec![Message::user("a"), Message::assistant("b")];
        let line = r#"{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], "tools": null}"#;
        assert_eq!(parse(line).unwrap(), Record::Chat { messages, tools: None });
        let (chosen, rejected) = (Speech::Text("b".into()), Speech::Text("c".into()));
        let preference = Record::Preference { prompt: None, chosen, rejected, tools: None };
        assert_eq!(parse(r#"{"chosen": "b", "rejected": "c", "prompt": null}"#).unwrap(), preference);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (line, expected) in [
            ("{\"text\": \"a", "no JSON: EOF while parsing a string, column 11"),
            ("[1]", "a list where an object belongs"),
            (r#"{"txt": "a"}"#, "fields [\"txt\"]; a line has"),
            (r#"{"text": "a", "messages": []}"#, "two kinds"),
            (r#"{"text": 1}"#, "\"text\" is a number"),
            (r#"{"text": []}"#, "\"text\" is a list where a string belongs"),
            (r#"{"completion": "a"}"#, "no \"prompt\""),
            (r#"{"chosen": "a"}"#, "no \"rejected\""),
            (r#"{"messages": "a"}"#, "\"messages\" is a string"),
            (r#"{"messages": [{"role": "user"}, {"content": "a"}]}"#, "\"messages\", item 1: a message without a role"),
            (r#"{"messages": [], "tools": 5}"#, "\"tools\" that are no list"),
        ] {
            let error = parse(line).unwrap_err();
            assert_eq!(error.place(), "f:3");
            assert!(error.message().contains(expected), "{error}");
        }
    }
}
