//! The checkpoint's own template: Jinja, run as transformers runs it.

use std::borrow::Cow;
use std::sync::Arc;

use minijinja::value::{Kwargs, Rest, Serde, ValueKind};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, State, UndefinedBehavior, Value};
use serde_json::{Map, Value as Json};

use super::{ChatError, DateTime, Message, MetaDialog, MetaFormat, Segment, python, rewrite};

/// Templates beyond this many bytes are refused; the largest known have about 30,000.
const MAX_SOURCE: usize = 256 * 1024;

/// Levels of lists and maps that a value may have: as many as JSON parsers take.
pub(super) const MAX_DEPTH: usize = 128;

/// Lists, maps and scalars that a variable may hold in all, a shared part counted as often as it is reached.
const MAX_NODES: usize = 1 << 20;

/// Steps of a macro, loop or block within another. The engine's stack use was validated for 500.
const MAX_RECURSION: usize = 200;

/// How a conversation becomes text: a compiled Jinja template, or one of Meta's dialog formats.
///
/// Templates are data from strangers: they see the messages and a clock, no file, no network, no environment; their work
/// is bounded (see [`ChatTemplate::with_fuel`]), and so are the nesting and the size of what they build.
///
/// Compatible means: the same bytes as transformers' `apply_chat_template` (Jinja2 with `trim_blocks`, `lstrip_blocks`,
/// loop controls, `raise_exception`, `strftime_now`, `tojson` as `json.dumps` writes, `{% generation %}`). Template
/// inheritance and includes are not supported, nor does transformers offer a loader for them. Where the engine differs:
/// `~` writes `true` and `none` in lower case, `"..." % x` is no formatting, rare filters of Jinja2 are missing.
#[derive(Clone)]
pub struct ChatTemplate {
    kind: Kind,
}

#[derive(Clone)]
enum Kind {
    Jinja { source: Arc<str>, environment: Box<Environment<'static>>, fuel: Option<u64> },
    Meta(MetaDialog),
}

/// What a template is given.
#[derive(Clone, Debug)]
pub struct ChatInput<'a> {
    /// The conversation, oldest first.
    pub messages: &'a [Message],
    /// A list of tool definitions (JSON schema functions); `None` is Python's `None`.
    pub tools: Option<&'a Json>,
    /// Ends with the header of the assistant's next message. True by default.
    pub add_generation_prompt: bool,
    /// The tokenizer's BOS as text; templates usually print it first. Undefined, thus empty, where `None`.
    pub bos_token: Option<&'a str>,
    /// The tokenizer's EOS as text.
    pub eos_token: Option<&'a str>,
    /// Further variables, such as `date_string` or `builtin_tools`. They win over `bos_token` and `eos_token`.
    pub extra: Map<String, Json>,
}

impl<'a> ChatInput<'a> {
    /// The messages, with a generation prompt and nothing else.
    pub fn new(messages: &'a [Message]) -> Self {
        Self { messages, tools: None, add_generation_prompt: true, bos_token: None, eos_token: None, extra: Map::new() }
    }

    /// With the header of the assistant's next message at the end, or without.
    pub fn generation_prompt(self, add: bool) -> Self {
        Self { add_generation_prompt: add, ..self }
    }

    /// With the tokenizer's BOS, as text.
    pub fn bos(self, token: &'a str) -> Self {
        Self { bos_token: Some(token), ..self }
    }

    /// With the tokenizer's EOS, as text.
    pub fn eos(self, token: &'a str) -> Self {
        Self { eos_token: Some(token), ..self }
    }

    /// With tool definitions.
    pub fn tools(self, tools: &'a Json) -> Self {
        Self { tools: Some(tools), ..self }
    }

    /// With one more variable, such as `date_string`.
    pub fn with(mut self, name: &str, value: impl Into<Json>) -> Self {
        self.extra.insert(name.to_owned(), value.into());
        self
    }
}

impl ChatTemplate {
    /// Compiles a template. Errors: what is no Jinja (with the line), a source beyond 256 KiB.
    pub fn new(source: &str) -> Result<Self, ChatError> {
        if source.len() > MAX_SOURCE {
            return Err(ChatError::TooLarge { bytes: source.len(), limit: MAX_SOURCE });
        }
        let mut environment = Box::new(environment());
        environment.add_template_owned("chat", rewrite::rewrite(source)?).map_err(|error| {
            let message = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
            ChatError::Syntax { line: error.line().unwrap_or(0), message }
        })?;
        let template = Self { kind: Kind::Jinja { source: source.into(), environment, fuel: None } };
        Ok(if DateTime::now_utc().is_some() {
            template.with_clock(|| DateTime::now_utc().unwrap_or(DateTime::from_unix(0)))
        } else {
            template
        })
    }

    /// Meta's own dialog format, for checkpoints in Meta's folders, which hold no template.
    pub fn for_meta(format: MetaFormat) -> Self {
        Self { kind: Kind::Meta(MetaDialog::new(format)) }
    }

    /// The template's source in a `tokenizer_config.json`'s `chat_template`: a string, or a list of `{name, template}` (or a
    /// map) of which `tool_use` is taken for conversations with tools, else `default`. `None` where there is none such.
    pub fn source_in(chat_template: &Json, with_tools: bool) -> Option<&str> {
        let named = |name: &str| match chat_template {
            Json::Array(list) => list.iter().find(|entry| entry["name"] == name)?["template"].as_str(),
            Json::Object(map) => map.get(name)?.as_str(),
            _ => None,
        };
        let tool_use = || named("tool_use").filter(|_| with_tools);
        chat_template.as_str().or_else(tool_use).or_else(|| named("default"))
    }

    /// The same template with another clock for `strftime_now`. Python templates see local time; the default clock here is
    /// [`DateTime::now_utc`], since the standard library knows no time zones. Where the platform has no clock,
    /// `strftime_now` is undefined unless given here, and templates fall back to a date of their own.
    pub fn with_clock(mut self, clock: impl Fn() -> DateTime + Send + Sync + 'static) -> Self {
        if let Kind::Jinja { environment, .. } = &mut self.kind {
            environment.add_function("strftime_now", move |format: &str| clock().strftime(format));
        }
        self
    }

    /// The same template with another budget. A step is one instruction of the engine, or about 64 bytes made, so the
    /// budget bounds time and memory. The default grows with the input: 2,000,000 steps, 5,000 a message, 8 a byte.
    pub fn with_fuel(mut self, steps: u64) -> Self {
        if let Kind::Jinja { fuel, .. } = &mut self.kind {
            *fuel = Some(steps);
        }
        self
    }

    /// The Jinja source; `None` for Meta's formats.
    pub fn source(&self) -> Option<&str> {
        match &self.kind {
            Kind::Jinja { source, .. } => Some(source),
            Kind::Meta(_) => None,
        }
    }

    /// The conversation as text. Errors: [`ChatError::Raised`] with the template's own words, no budget left, values that
    /// the template needs and the input lacks.
    pub fn render(&self, input: &ChatInput) -> Result<String, ChatError> {
        match &self.kind {
            Kind::Jinja { environment, fuel, .. } => render(environment, *fuel, input),
            Kind::Meta(_) => Ok(self.segments(input)?.iter().map(Segment::text).collect()),
        }
    }

    /// The conversation in the pieces that the tokenizer encodes; see [`super::encode_segments`]. Errors: as [`Self::render`].
    pub fn segments(&self, input: &ChatInput) -> Result<Vec<Segment>, ChatError> {
        match &self.kind {
            Kind::Jinja { .. } => Ok(vec![Segment::Markup(self.render(input)?)]),
            Kind::Meta(dialog) => {
                if input.tools.is_some() {
                    let message = "Meta's dialog format has no place for tool definitions; a system message would be";
                    return Err(ChatError::Input(message.into()));
                }
                dialog.segments(input.messages, input.add_generation_prompt)
            }
        }
    }
}

impl std::fmt::Debug for ChatTemplate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.kind {
            Kind::Jinja { source, .. } => f.debug_tuple("ChatTemplate::Jinja").field(source).finish(),
            Kind::Meta(dialog) => f.debug_tuple("ChatTemplate::Meta").field(dialog).finish(),
        }
    }
}

fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    let syntax = minijinja::syntax::SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
    environment.set_syntax(syntax.expect("the default delimiters are valid"));
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_undefined_behavior(UndefinedBehavior::Lenient);
    environment.set_recursion_limit(MAX_RECURSION);
    environment.set_formatter(|out, state, value| {
        if !matches!(state.auto_escape(), AutoEscape::None) {
            return minijinja::escape_formatter(out, state, value);
        }
        let text = python::str(Some(state), value)?;
        out.write_str(&text).map_err(|_| Error::new(ErrorKind::WriteFailure, "cannot write the output"))
    });
    environment.add_filter("tojson", |state: &State, value: Value, args: Rest<Value>, kwargs: Kwargs| {
        python::tojson(state, &value, args, kwargs)
    });
    environment.add_filter("string", |state: &State, value: Value| python::str(Some(state), &value));
    environment.add_filter("join", join);
    environment.add_filter("trim", |text: Cow<'_, str>, chars: Option<Cow<'_, str>>| match chars {
        Some(chars) => text.trim_matches(|c| chars.contains(c)).to_owned(),
        None => text.trim_matches(python::is_space).to_owned(),
    });
    environment.add_function("raise_exception", raise_exception);
    environment.add_function(rewrite::GUARD, bounded);
    environment.set_unknown_method_callback(method);
    environment
}

fn render(environment: &Environment<'static>, fuel: Option<u64>, input: &ChatInput) -> Result<String, ChatError> {
    let mut context = Map::new();
    let mut set = |name: &str, value: Json| context.insert(name.to_owned(), value);
    for (name, token) in [("bos_token", input.bos_token), ("eos_token", input.eos_token)] {
        if let Some(token) = token {
            set(name, token.into());
        }
    }
    for (name, value) in &input.extra {
        if ["messages", "tools", "documents", "add_generation_prompt"].contains(&name.as_str()) && name != "documents" {
            return Err(ChatError::Input(format!("`{name}` among the further variables; ChatInput has a field for it")));
        }
        set(name, value.clone());
    }
    set("messages", input.messages.iter().cloned().map(Json::from).collect());
    set("tools", input.tools.cloned().unwrap_or(Json::Null));
    set("add_generation_prompt", input.add_generation_prompt.into());
    context.entry("documents").or_insert(Json::Null);

    let mut bytes = 0;
    for value in context.values() {
        bytes += json_size(value, 0)?;
    }
    let fuel = fuel.unwrap_or(2_000_000 + 5_000 * input.messages.len() as u64 + 8 * bytes);
    let mut environment = environment.clone();
    environment.set_fuel(Some(fuel));
    let template = environment.get_template("chat").expect("the constructor added it");
    template.render(Value::from(Serde(&context))).map_err(|error| render_error(&error, fuel))
}

fn render_error(error: &Error, fuel: u64) -> ChatError {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(Raised(message)) = error.downcast_ref() {
            return ChatError::Raised { message: message.clone() };
        }
        if error.downcast_ref::<Error>().is_some_and(|error| error.kind() == ErrorKind::OutOfFuel) {
            return ChatError::OutOfFuel { fuel };
        }
        cause = error.source();
    }
    let detail = error.detail().map(|detail| format!(": {detail}")).unwrap_or_default();
    ChatError::Render { line: error.line().unwrap_or(0), message: format!("{}{detail}", error.kind()) }
}

/// About how many bytes a value takes. Errors: nesting that the template could not handle either.
fn json_size(value: &Json, depth: usize) -> Result<u64, ChatError> {
    if depth > MAX_DEPTH {
        return Err(ChatError::Input(format!("a value nested more than {MAX_DEPTH} levels deep")));
    }
    let items = |sizes: &mut dyn Iterator<Item = Result<u64, ChatError>>| sizes.sum::<Result<u64, _>>();
    Ok(8 + match value {
        Json::String(text) => text.len() as u64,
        Json::Array(list) => items(&mut list.iter().map(|value| json_size(value, depth + 1)))?,
        Json::Object(map) => items(&mut map.iter().map(|(key, value)| Ok(key.len() as u64 + json_size(value, depth + 1)?)))?,
        _ => 0,
    })
}

/// What `raise_exception` puts under the engine's error, to be found there again.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Raised(String);

fn raise_exception(message: Value) -> Result<Value, Error> {
    let message = python::str(None, &message)?;
    Err(Error::new(ErrorKind::InvalidOperation, "raised by the template").with_source(Raised(message)))
}

/// Refuses values that are nested too deeply or too large for the engine to free, compare or print.
fn bounded(state: &State, values: Rest<Value>) -> Result<(), Error> {
    fn walk(state: &State, value: &Value, depth: usize, nodes: &mut usize) -> Result<(), Error> {
        *nodes += 1;
        if nodes.is_multiple_of(256) {
            state.consume_fuel(16)?;
        }
        let container = matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable | ValueKind::Map);
        if !container {
            return Ok(());
        }
        if depth >= MAX_DEPTH || *nodes > MAX_NODES {
            return Err(python::invalid(format!("a value of more than {MAX_DEPTH} levels or {MAX_NODES} items")));
        }
        let map = value.kind() == ValueKind::Map;
        for item in value.try_iter()?.checked() {
            let item = item?;
            if map {
                walk(state, &value.get_item(&item)?, depth + 1, nodes)?;
            }
            walk(state, &item, depth + 1, nodes)?;
        }
        Ok(())
    }
    let mut nodes = 0;
    values.iter().try_for_each(|value| walk(state, value, 0, &mut nodes))
}

/// Jinja2's `join(value, d="", attribute=None)`, with items as Python's `str` writes them.
fn join(state: &State, value: Value, args: Rest<Value>, kwargs: Kwargs) -> Result<String, Error> {
    let text = |index: usize, name: &str| -> Result<Option<String>, Error> {
        let value = args.get(index).cloned().map_or_else(|| kwargs.get::<Option<Value>>(name), |value| Ok(Some(value)))?;
        value.filter(|value| !value.is_none()).map(|value| python::str(Some(state), &value)).transpose()
    };
    let (joiner, attribute) = (text(0, "d")?, text(1, "attribute")?);
    kwargs.assert_all_used()?;
    let mut out = String::new();
    if value.is_undefined() {
        return Ok(out);
    }
    let joiner = joiner.unwrap_or_default();
    let characters = value.as_str().map(|text| text.chars().map(Value::from).collect::<Value>());
    for (index, item) in characters.unwrap_or(value).try_iter()?.checked().enumerate() {
        let mut item = item?;
        for part in attribute.as_deref().into_iter().flat_map(|path| path.split('.')) {
            item = item.get_item(&part.parse::<usize>().map_or_else(|_| Value::from(part), Value::from))?;
        }
        let text = python::str(Some(state), &item)?;
        state.consume_fuel(((joiner.len() + text.len()) / 64) as u64)?;
        out.push_str(if index == 0 { "" } else { &joiner });
        out.push_str(&text);
    }
    Ok(out)
}

/// Python's methods on strings, lists and maps: the compatibility crate's, and what it lacks or does otherwise.
fn method(state: &mut State, value: &Value, name: &str, args: &[Value]) -> Result<Value, Error> {
    if let Some(text) = value.as_str() {
        let affix = || args.first().filter(|_| args.len() == 1).and_then(|arg| arg.as_str());
        let result = match (name, args) {
            ("strip", []) => Some(text.trim_matches(python::is_space)),
            ("lstrip", []) => Some(text.trim_start_matches(python::is_space)),
            ("rstrip", []) => Some(text.trim_end_matches(python::is_space)),
            ("removeprefix", _) => affix().map(|prefix| text.strip_prefix(prefix).unwrap_or(text)),
            ("removesuffix", _) => affix().map(|suffix| text.strip_suffix(suffix).unwrap_or(text)),
            _ => None,
        };
        if let Some(result) = result {
            return Ok(result.into());
        }
        if name == "format" {
            charge_format(state, text)?;
        }
        if let Some(result) = string_method(text, name, args) {
            return Ok(result);
        }
    }
    minijinja_contrib::pycompat::unknown_method_callback(state, value, name, args)
}

/// Methods of Python's `str` whose result is no part of the text.
fn string_method(text: &str, name: &str, args: &[Value]) -> Option<Value> {
    match (name, args) {
        ("split" | "rsplit", []) => Some(text.split(python::is_space).filter(|part| !part.is_empty()).map(Value::from).collect()),
        ("rsplit", [separator] | [separator, _]) => {
            let separator = separator.as_str().filter(|separator| !separator.is_empty())?;
            let limit = args.get(1).map_or(Some(-1), Value::as_i64)?;
            let count = usize::try_from(limit).map_or(usize::MAX, |limit| limit.saturating_add(1));
            let mut parts = text.rsplitn(count, separator).map(Value::from).collect::<Vec<_>>();
            parts.reverse();
            Some(parts.into())
        }
        ("index", [part]) => {
            let at = text.find(part.as_str()?)?;
            Some(text[..at].chars().count().into())
        }
        ("title", []) => {
            let mut inner = false;
            let title = |c: char| {
                let cased = if inner { c.to_lowercase().collect::<String>() } else { c.to_uppercase().collect() };
                inner = c.is_alphabetic();
                cased
            };
            Some(text.chars().map(title).collect::<String>().into())
        }
        _ => None,
    }
}

/// Pays for the widths and precisions in a format string before anything of that size is made.
fn charge_format(state: &State, format: &str) -> Result<(), Error> {
    for field in format.split('{').skip(1) {
        let field = field.split('}').next().unwrap_or_default();
        for digits in field.split(|c: char| !c.is_ascii_digit()).filter(|digits| !digits.is_empty()) {
            match digits.parse::<u64>() {
                Ok(width) if width <= 65_535 => state.consume_fuel(width / 64)?,
                _ => return Err(python::invalid(format!("str.format: a width of {digits}; at most 65535"))),
            }
        }
    }
    Ok(())
}
