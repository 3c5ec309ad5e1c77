//! The dialog formats of Meta's own code, for checkpoints in Meta's folders.
//!
//! Llama 3 and 4 put each message between header tokens; Llama 2 writes turns, each with its BOS and EOS.
//! What a user wrote is always plain text here: it cannot open a header or end a turn.

use std::fmt::Write;

use minijinja::value::Serde;
use serde_json::Value;

use super::python::{self, JsonStyle};
use super::{ChatError, Message, Segment};

/// Which generation's format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetaFormat {
    /// `[INST] <<SYS>> ... <</SYS>> user [/INST] assistant`, a BOS and an EOS a turn.
    Llama2,
    /// `<|start_header_id|>user<|end_header_id|>`, two line ends, the content, `<|eot_id|>`; Llama 3 to 3.3.
    Llama3,
    /// `<|header_start|>user<|header_end|>`, two line ends, the content, `<|eot|>`.
    Llama4,
}

/// How the assistant's earlier tool calls are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ToolCallFormat {
    /// `{"type": "function", "name": ..., "parameters": {...}}`
    #[default]
    Json,
    /// `<function=name>{...}</function>`
    FunctionTag,
    /// `[name(key=value, ...)]`
    PythonList,
}

/// Renders conversations as Meta's `ChatFormat.encode_dialog_prompt` does, or for Llama 2 its `chat_completion`.
#[derive(Clone, Copy, Debug)]
pub struct MetaDialog {
    format: MetaFormat,
    tool_calls: ToolCallFormat,
}

/// Content in pieces: each is encoded apart, as Meta's code does with lists of items.
type Parts = Vec<String>;

impl MetaDialog {
    /// The format, with tool calls as JSON.
    pub fn new(format: MetaFormat) -> Self {
        Self { format, tool_calls: ToolCallFormat::default() }
    }

    /// With tool calls in another format.
    pub fn with_tool_calls(self, tool_calls: ToolCallFormat) -> Self {
        Self { tool_calls, ..self }
    }

    /// The conversation in pieces for the tokenizer. With `add_generation_prompt`, it ends where the assistant's next
    /// message starts. Errors: a role or content that the format has no form for; for Llama 2 roles that do not take turns.
    pub fn segments(&self, messages: &[Message], add_generation_prompt: bool) -> Result<Vec<Segment>, ChatError> {
        match self.format {
            MetaFormat::Llama2 => llama2(messages, add_generation_prompt),
            MetaFormat::Llama3 => self.headers(messages, add_generation_prompt, &LLAMA3),
            MetaFormat::Llama4 => self.headers(messages, add_generation_prompt, &LLAMA4),
        }
    }

    fn headers(&self, messages: &[Message], add_generation_prompt: bool, tokens: &Tokens) -> Result<Vec<Segment>, ChatError> {
        let mut out = vec![special("<|begin_of_text|>")];
        for message in messages {
            let role = message.role();
            let assistant = role == "assistant";
            let shown = match role {
                "system" | "user" | "assistant" => role,
                "tool" | "ipython" => "ipython",
                _ => return Err(input(format!("role {role:?}; Meta's format has system, user, assistant and tool"))),
            };
            tokens.header(shown, &mut out);
            let calls = if assistant { tool_calls(message)? } else { Vec::new() };
            if let (Some(token), Some(("code_interpreter", _))) =
                (tokens.python, calls.first().map(|(name, args)| (name.as_str(), args)))
            {
                out.push(special(token));
            }
            out.extend(content(message.get("content"))?.into_iter().map(Segment::Text));
            if let ("user", Some(context)) = (role, message.get("context").filter(|context| !context.is_null())) {
                out.push(Segment::Text("\n\n".into()));
                out.extend(content(Some(context))?.into_iter().map(Segment::Text));
            }
            for (name, arguments) in &calls {
                out.push(Segment::Text(self.tool_call(name, arguments)?));
            }
            let unfinished = message.get("stop_reason").and_then(Value::as_str) == Some("end_of_message");
            let calls_end_messages = tokens.calls_end_messages && (!calls.is_empty() || shown == "ipython");
            let end_of_message = calls_end_messages || (assistant && unfinished);
            out.push(special(if end_of_message { tokens.end_of_message } else { tokens.end_of_turn }));
        }
        if add_generation_prompt {
            tokens.header("assistant", &mut out);
        }
        Ok(out)
    }

    fn tool_call(&self, name: &str, arguments: &Value) -> Result<String, ChatError> {
        let field = |field: &str| {
            let value = arguments.get(field).and_then(Value::as_str);
            value.ok_or_else(|| input(format!("the built-in tool {name} needs a string argument {field:?}")))
        };
        match (name, self.tool_calls) {
            ("brave_search" | "wolfram_alpha" | "photogen", _) => Ok(format!("{name}.call(query=\"{}\")", field("query")?)),
            ("code_interpreter", _) => Ok(field("code")?.to_owned()),
            (_, ToolCallFormat::Json) => {
                json(&serde_json::json!({ "type": "function", "name": name, "parameters": arguments }), true)
            }
            (_, ToolCallFormat::FunctionTag) => Ok(format!("<function={name}>{}</function>", json(arguments, true)?)),
            (_, ToolCallFormat::PythonList) => {
                let mut out = format!("[{name}(");
                keyword_arguments(arguments, 0, &mut out)?;
                out.push_str(")]");
                Ok(out)
            }
        }
    }
}

struct Tokens {
    start_header: &'static str,
    end_header: &'static str,
    end_of_turn: &'static str,
    end_of_message: &'static str,
    /// What introduces code for the interpreter.
    python: Option<&'static str>,
    /// Tool calls and tool results end with `end_of_message`.
    calls_end_messages: bool,
}

const LLAMA3: Tokens = Tokens {
    start_header: "<|start_header_id|>",
    end_header: "<|end_header_id|>",
    end_of_turn: "<|eot_id|>",
    end_of_message: "<|eom_id|>",
    python: Some("<|python_tag|>"),
    calls_end_messages: false,
};

const LLAMA4: Tokens = Tokens {
    start_header: "<|header_start|>",
    end_header: "<|header_end|>",
    end_of_turn: "<|eot|>",
    end_of_message: "<|eom|>",
    python: None,
    calls_end_messages: true,
};

impl Tokens {
    fn header(&self, role: &str, out: &mut Vec<Segment>) {
        out.push(special(self.start_header));
        out.push(Segment::Text(role.to_owned()));
        out.push(special(self.end_header));
        out.push(Segment::Text("\n\n".to_owned()));
    }
}

fn llama2(messages: &[Message], add_generation_prompt: bool) -> Result<Vec<Segment>, ChatError> {
    let text = |message: &Message| Ok::<_, ChatError>(content(message.get("content"))?.concat());
    let mut turns = messages.iter().map(|message| Ok((message.role(), text(message)?))).collect::<Result<Vec<_>, ChatError>>()?;
    if turns.first().is_some_and(|(role, _)| *role == "system") {
        let (_, system) = turns.remove(0);
        let Some((_, user)) = turns.first_mut() else {
            return Err(input("a system message alone; Llama 2 writes it into the first user message"));
        };
        *user = format!("<<SYS>>\n{system}\n<</SYS>>\n\n{user}");
    }
    for (index, (role, _)) in turns.iter().enumerate() {
        let expected = ["user", "assistant"][index % 2];
        if *role != expected {
            return Err(input(format!(
                "message {} is from {role:?} where {expected:?} speaks; Llama 2 has an optional system message, then user and assistant in turn",
                index + messages.len() - turns.len()
            )));
        }
    }
    if turns.is_empty() || (add_generation_prompt && turns.len() % 2 == 0) {
        return Err(input("the last message must be from \"user\" for Llama 2 to answer"));
    }
    let mut out = Vec::new();
    for turn in turns.chunks(2) {
        let user = turn[0].1.trim_matches(python::is_space);
        out.push(special("<s>"));
        match turn.get(1) {
            Some((_, answer)) => {
                out.push(Segment::Text(format!("[INST] {user} [/INST] {} ", answer.trim_matches(python::is_space))));
                out.push(special("</s>"));
            }
            None => out.push(Segment::Text(format!("[INST] {user} [/INST]"))),
        }
    }
    Ok(out)
}

/// A message's content in pieces of text. Errors: images and other media, which need a processor and not a tokenizer.
fn content(content: Option<&Value>) -> Result<Parts, ChatError> {
    match content {
        None | Some(Value::Null) => Ok(Parts::new()),
        Some(Value::String(text)) => Ok(vec![text.clone()]),
        Some(Value::Array(items)) if items.iter().all(|item| item.is_string() || item.get("type").is_some()) => {
            let text = |item: &Value| match item.as_str().or_else(|| item.get("text")?.as_str()) {
                Some(text) if item.is_string() || item["type"] == "text" => Ok(text.to_owned()),
                _ => Err(input(format!("content of type {}; Meta's dialog format writes text only", item["type"]))),
            };
            items.iter().map(text).collect()
        }
        Some(value) => Ok(vec![json(value, false)?]), // what a tool answered
    }
}

/// Names and arguments of a message's `tool_calls`, in OpenAI's form (`{"function": {..}}`) or bare.
fn tool_calls(message: &Message) -> Result<Vec<(String, Value)>, ChatError> {
    let calls = match message.get("tool_calls") {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Array(calls)) => calls,
        Some(_) => return Err(input("tool_calls that are no list")),
    };
    let call = |call: &Value| {
        let function = call.get("function").unwrap_or(call);
        let name = function.get("name").or_else(|| function.get("tool_name")).and_then(Value::as_str);
        let arguments = function.get("arguments").cloned().unwrap_or_else(|| Value::Object(Default::default()));
        let arguments = match arguments.as_str() {
            Some(text) => serde_json::from_str(text).map_err(|error| input(format!("arguments of a tool call: {error}")))?,
            None => arguments,
        };
        match name {
            Some(name) if arguments.is_object() => Ok((name.to_owned(), arguments)),
            Some(name) => Err(input(format!("the call of tool {name} has arguments that are no object"))),
            None => Err(input("a tool call without a name")),
        }
    };
    calls.iter().map(call).collect()
}

fn keyword_arguments(arguments: &Value, depth: usize, out: &mut String) -> Result<(), ChatError> {
    for (index, (key, value)) in arguments.as_object().into_iter().flatten().enumerate() {
        write!(out, "{}{key}=", if index == 0 { "" } else { ", " }).expect("writing to a String cannot fail");
        python_value(value, depth + 1, out)?;
    }
    Ok(())
}

/// A value as Meta's code writes it into a call: nearly Python, but strings are not escaped.
fn python_value(value: &Value, depth: usize, out: &mut String) -> Result<(), ChatError> {
    if depth > super::template::MAX_DEPTH {
        return Err(input("a tool call's arguments are nested more than 128 levels deep"));
    }
    match value {
        Value::String(text) => write!(out, "\"{text}\"").expect("writing to a String cannot fail"),
        Value::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                out.push_str(if index == 0 { "" } else { ", " });
                python_value(item, depth + 1, out)?;
            }
            out.push(']');
        }
        Value::Object(_) => {
            out.push('{');
            keyword_arguments(value, depth, out)?;
            out.push('}');
        }
        scalar => out.push_str(&python::str(None, &minijinja::Value::from(Serde(scalar))).map_err(|e| input(e.to_string()))?),
    }
    Ok(())
}

fn json(value: &Value, ensure_ascii: bool) -> Result<String, ChatError> {
    let style = JsonStyle { ensure_ascii, ..JsonStyle::default() };
    python::json(None, &minijinja::Value::from(Serde(value)), &style).map_err(|error| input(error.to_string()))
}

fn special(text: &str) -> Segment {
    Segment::Special(text.to_owned())
}

fn input(message: impl Into<String>) -> ChatError {
    ChatError::Input(message.into())
}
