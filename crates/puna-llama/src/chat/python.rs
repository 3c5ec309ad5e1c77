//! Values as Python writes them: `json.dumps`, `str`, `repr`. Templates are tested against Python, so its spelling of
//! numbers, strings and containers is part of their output.

use std::fmt::Write;

use minijinja::value::{Kwargs, Rest, ValueKind};
use minijinja::{Error, ErrorKind, State, Value};

use super::template::MAX_DEPTH;

/// How `json.dumps` lays out its result.
#[derive(Clone, Debug)]
pub(super) struct JsonStyle {
    pub(super) ensure_ascii: bool,
    /// One item a line, indented by this much a level.
    pub(super) indent: Option<String>,
    pub(super) item_separator: String,
    pub(super) key_separator: String,
    pub(super) sort_keys: bool,
}

impl Default for JsonStyle {
    fn default() -> Self {
        Self { ensure_ascii: false, indent: None, item_separator: ", ".into(), key_separator: ": ".into(), sort_keys: false }
    }
}

/// `tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False)`, the filter that transformers defines.
pub(super) fn tojson(state: &State, value: &Value, args: Rest<Value>, kwargs: Kwargs) -> Result<Value, Error> {
    let named = |index: usize, name: &str| -> Result<Option<Value>, Error> {
        let value = match args.get(index) {
            Some(value) => Some(value.clone()),
            None => kwargs.get::<Option<Value>>(name)?,
        };
        Ok(value.filter(|value| !value.is_none() && !value.is_undefined()))
    };
    let mut style = JsonStyle { ensure_ascii: named(0, "ensure_ascii")?.is_some_and(|v| v.is_true()), ..JsonStyle::default() };
    if let Some(indent) = named(1, "indent")? {
        style.indent = Some(match indent.as_str() {
            Some(text) => text.to_owned(),
            None => " ".repeat(indent.as_i64().unwrap_or(0).clamp(0, 64) as usize),
        });
        style.item_separator = ",".into();
    }
    if let Some(separators) = named(2, "separators")? {
        let pair = separators.try_iter()?.take(3).collect::<Vec<_>>();
        let [item, key] = [pair.first(), pair.get(1)].map(|value| value.and_then(|v| v.as_str()));
        let (Some(item), Some(key), 2) = (item, key, pair.len()) else {
            return Err(invalid("tojson: separators must be two strings"));
        };
        (style.item_separator, style.key_separator) = (item.to_owned(), key.to_owned());
    }
    style.sort_keys = named(3, "sort_keys")?.is_some_and(|v| v.is_true());
    kwargs.assert_all_used()?;
    Ok(json(Some(state), value, &style)?.into())
}

/// `json.dumps(value)`. Errors: a value that JSON has no word for, nesting beyond [`MAX_DEPTH`], no fuel left.
pub(super) fn json(state: Option<&State>, value: &Value, style: &JsonStyle) -> Result<String, Error> {
    let mut writer = Writer { state, out: String::new(), charged: 0 };
    writer.json(value, style, 0)?;
    Ok(writer.out)
}

/// `str(value)`; a missing value is empty, as Jinja prints it.
pub(super) fn str(state: Option<&State>, value: &Value) -> Result<String, Error> {
    if value.is_undefined() {
        return Ok(String::new());
    }
    if let Some(text) = value.as_str() {
        return Ok(text.to_owned());
    }
    let mut writer = Writer { state, out: String::new(), charged: 0 };
    writer.repr(value, 0)?;
    Ok(writer.out)
}

/// `repr(float)`: the shortest digits that read back, an exponent below 1e-4 and from 1e16 on.
pub(super) fn float(value: f64) -> String {
    if !value.is_finite() {
        return if value.is_nan() { "nan".into() } else { if value > 0.0 { "inf" } else { "-inf" }.into() };
    }
    let scientific = format!("{value:e}");
    let (digits, exponent) = scientific.split_once('e').expect("`{:e}` writes an exponent");
    let exponent: i32 = exponent.parse().expect("`{:e}` writes a decimal exponent");
    if (-4..16).contains(&exponent) {
        let plain = format!("{value}");
        if plain.contains('.') { plain } else { plain + ".0" }
    } else {
        format!("{digits}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs())
    }
}

struct Writer<'a, 'b, 'c> {
    state: Option<&'a State<'b, 'c>>,
    out: String,
    /// Bytes of `out` that fuel has been paid for.
    charged: usize,
}

impl Writer<'_, '_, '_> {
    /// A container, its items and its depth: pays for what was written, so that a value that holds itself many times over
    /// ends with an error long before memory does.
    fn enter(&mut self, depth: usize) -> Result<(), Error> {
        if depth >= MAX_DEPTH {
            return Err(invalid("a value is nested more than 128 levels deep"));
        }
        if self.out.len() - self.charged >= 1024 {
            if let Some(state) = self.state {
                state.consume_fuel(((self.out.len() - self.charged) / 16) as u64)?;
            }
            self.charged = self.out.len();
        }
        Ok(())
    }

    fn json(&mut self, value: &Value, style: &JsonStyle, depth: usize) -> Result<(), Error> {
        match value.kind() {
            ValueKind::None => self.out.push_str("null"),
            ValueKind::Bool => self.out.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => self.json_number(value)?,
            ValueKind::String => json_string(value.as_str().unwrap_or_default(), style.ensure_ascii, &mut self.out),
            ValueKind::Map => self.json_map(value, style, depth)?,
            ValueKind::Seq | ValueKind::Iterable => {
                self.enter(depth)?;
                self.out.push('[');
                let mut empty = true;
                for item in value.try_iter()?.checked() {
                    self.json_item(style, depth, &mut empty);
                    self.json(&item?, style, depth + 1)?;
                }
                self.json_end(style, depth, empty);
                self.out.push(']');
            }
            ValueKind::Undefined => return Err(invalid("tojson: the value is undefined")),
            kind => return Err(invalid(format!("tojson: a value of type {kind} is not JSON serializable"))),
        }
        Ok(())
    }

    fn json_map(&mut self, value: &Value, style: &JsonStyle, depth: usize) -> Result<(), Error> {
        self.enter(depth)?;
        let mut keys = value.try_iter()?.checked().collect::<Result<Vec<_>, _>>()?;
        if style.sort_keys {
            keys.sort();
        }
        self.out.push('{');
        let mut empty = true;
        for key in keys {
            self.json_item(style, depth, &mut empty);
            match key.kind() {
                ValueKind::String => json_string(key.as_str().unwrap_or_default(), style.ensure_ascii, &mut self.out),
                ValueKind::Number | ValueKind::Bool | ValueKind::None => {
                    self.out.push('"');
                    self.json(&key, style, depth)?;
                    self.out.push('"');
                }
                kind => {
                    return Err(invalid(format!(
                        "tojson: a key of type {kind}; keys must be strings, numbers, booleans or none"
                    )));
                }
            }
            self.out.push_str(&style.key_separator);
            self.json(&value.get_item(&key)?, style, depth + 1)?;
        }
        self.json_end(style, depth, empty);
        self.out.push('}');
        Ok(())
    }

    fn json_item(&mut self, style: &JsonStyle, depth: usize, empty: &mut bool) {
        if !std::mem::take(empty) {
            self.out.push_str(&style.item_separator);
        }
        self.json_line(style, depth + 1);
    }

    fn json_end(&mut self, style: &JsonStyle, depth: usize, empty: bool) {
        if !empty {
            self.json_line(style, depth);
        }
    }

    fn json_line(&mut self, style: &JsonStyle, depth: usize) {
        if let Some(indent) = &style.indent {
            self.out.push('\n');
            self.out.extend(std::iter::repeat_n(indent.as_str(), depth));
        }
    }

    fn json_number(&mut self, value: &Value) -> Result<(), Error> {
        match as_float(value)? {
            Some(value) if value.is_nan() => self.out.push_str("NaN"),
            Some(f64::INFINITY) => self.out.push_str("Infinity"),
            Some(f64::NEG_INFINITY) => self.out.push_str("-Infinity"),
            Some(value) => self.out.push_str(&float(value)),
            None => write!(self.out, "{value}").expect("writing to a String cannot fail"),
        }
        Ok(())
    }

    fn repr(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        match value.kind() {
            ValueKind::None => self.out.push_str("None"),
            ValueKind::Bool => self.out.push_str(if value.is_true() { "True" } else { "False" }),
            ValueKind::Number => match as_float(value)? {
                Some(value) => self.out.push_str(&float(value)),
                None => write!(self.out, "{value}").expect("writing to a String cannot fail"),
            },
            ValueKind::String => repr_string(value.as_str().unwrap_or_default(), &mut self.out),
            ValueKind::Map => {
                self.enter(depth)?;
                self.out.push('{');
                for (index, key) in value.try_iter()?.checked().enumerate() {
                    let key = key?;
                    self.out.push_str(if index == 0 { "" } else { ", " });
                    self.repr(&key, depth + 1)?;
                    self.out.push_str(": ");
                    self.repr(&value.get_item(&key)?, depth + 1)?;
                }
                self.out.push('}');
            }
            ValueKind::Seq | ValueKind::Iterable => {
                self.enter(depth)?;
                let (open, close) = if value.is_tuple() { ('(', ')') } else { ('[', ']') };
                self.out.push(open);
                let mut count = 0;
                for item in value.try_iter()?.checked() {
                    self.out.push_str(if count == 0 { "" } else { ", " });
                    self.repr(&item?, depth + 1)?;
                    count += 1;
                }
                self.out.push_str(if value.is_tuple() && count == 1 { "," } else { "" });
                self.out.push(close);
            }
            ValueKind::Undefined => self.out.push_str("Undefined"),
            _ => write!(self.out, "{value}").map_err(|_| invalid("a value that cannot be printed"))?,
        }
        Ok(())
    }
}

/// The number where it is a float; `None` for integers of any size.
fn as_float(value: &Value) -> Result<Option<f64>, Error> {
    if value.is_integer() { Ok(None) } else { f64::try_from(value.clone()).map(Some) }
}

fn json_string(text: &str, ensure_ascii: bool, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            c if c < ' ' || (ensure_ascii && c > '~') => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    write!(out, "\\u{unit:04x}").expect("writing to a String cannot fail");
                }
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

/// Python's `repr(str)`: single quotes unless only they occur within; what is not printable is escaped.
fn repr_string(text: &str, out: &mut String) {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.push(quote);
    for c in text.chars() {
        let code = c as u32;
        let result = match c {
            '\n' => out.write_str("\\n"),
            '\r' => out.write_str("\\r"),
            '\t' => out.write_str("\\t"),
            '\\' => out.write_str("\\\\"),
            c if c == quote => write!(out, "\\{c}"),
            c if c == ' ' || is_printable(c) => out.write_char(c),
            _ if code < 0x100 => write!(out, "\\x{code:02x}"),
            _ if code < 0x10000 => write!(out, "\\u{code:04x}"),
            _ => write!(out, "\\U{code:08x}"),
        };
        result.expect("writing to a String cannot fail");
    }
    out.push(quote);
}

/// Python's `str.isprintable` but for unassigned code points: no controls, separators, format characters, private use.
fn is_printable(c: char) -> bool {
    let format = matches!(c as u32, 0xad | 0x600..=0x605 | 0x61c | 0x6dd | 0x70f | 0x180e | 0x200b..=0x200f | 0x202a..=0x202e
        | 0x2060..=0x206f | 0xfeff | 0xfff9..=0xfffb | 0x1d173..=0x1d17a | 0xe0001..=0xe007f);
    let private = matches!(c as u32, 0xe000..=0xf8ff | 0xf0000..);
    !(c.is_control() || c.is_whitespace() || format || private)
}

/// What Python's `str.strip` takes for white space: Unicode's, and the four ASCII separators.
pub(super) fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\x1c'..='\x1f').contains(&c)
}

pub(super) fn invalid(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, message.into())
}
