//! Chats: what templates render, what ids that has, and Meta's dialog formats.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use puna::llama::chat::{ChatError, ChatInput, ChatTemplate, MetaDialog, MetaFormat, ToolCallFormat, encode_segments};
use puna::prelude::Message;
use puna::tokenizer::{Special, Tokenizer};

use super::{Checked, Goldens, Line, decode, encode, same, tally};
use crate::Result;

/// `template`, its variables, and `rendered` or `error`; `ids` of what is rendered, by `ids_tokenizer`.
pub(super) fn check_templates(goldens: &mut Goldens<'_, '_>, path: &Path, lines: &[Line]) {
    let mut groups: BTreeMap<String, Vec<&Line>> = BTreeMap::new();
    for line in lines {
        groups.entry(line.name("template").unwrap_or_default()).or_default().push(line);
    }
    for (name, lines) in groups {
        let outcome = template(path, &name).map(|template| tally("chats", &lines, |line| check_rendered(&template, line)));
        goldens.report.tell(format!("{} template {name}", goldens.label), outcome);
    }
    // What is not rendered has no ids.
    let name = |line: &Line| line.name("rendered").and(line.name("ids_tokenizer"));
    goldens.by_tokenizer("rendered chats", lines, name, |tokenizer, line| {
        same("ids", &encode(tokenizer, &line.text("rendered")?, Special::Parse)?, &line.ids("ids")?)
    });
}

/// The file `templates/NAME.jinja` with `_` for dots, or the one whose name goes on behind that.
fn template(path: &Path, name: &str) -> Result<ChatTemplate> {
    let stem = name.replace('.', "_");
    let folder = path.with_file_name("templates");
    let mut files: Vec<PathBuf> = fs::read_dir(&folder)?.flatten().map(|entry| entry.path()).collect();
    files.sort();
    let is =
        |file: &PathBuf, matches: &dyn Fn(&str) -> bool| file.file_stem().and_then(|stem| stem.to_str()).is_some_and(matches);
    let file = files.iter().find(|file| is(file, &|found| found == stem));
    let file = file.or_else(|| files.iter().find(|file| is(file, &|found| found.starts_with(&format!("{stem}_")))));
    let file = file.ok_or_else(|| format!("{}: no template {stem}.jinja", folder.display()))?;
    Ok(ChatTemplate::new(&fs::read_to_string(file)?)?)
}

fn messages(line: &Line) -> std::result::Result<Vec<Message>, String> {
    let messages = line.value["messages"].as_array().ok_or("messages is no list")?;
    messages.iter().map(|message| Message::from_json(message.clone()).map_err(|e| e.to_string())).collect()
}

fn check_rendered(template: &ChatTemplate, line: &Line) -> Checked {
    let messages = messages(line)?;
    let input = ChatInput {
        tools: Some(&line.value["tools"]).filter(|tools| !tools.is_null()),
        add_generation_prompt: line.value["add_generation_prompt"]
            .as_bool()
            .ok_or("add_generation_prompt is not true or false")?,
        bos_token: line.value["bos_token"].as_str(),
        eos_token: line.value["eos_token"].as_str(),
        extra: line.value["extra"].as_object().cloned().unwrap_or_default(),
        ..ChatInput::new(&messages)
    };
    match (template.render(&input), line.name("error")) {
        (Ok(text), None) => same("rendered", &text, &line.text("rendered")?),
        (Err(ChatError::Raised { message }), Some(error)) => {
            same("error", &message.as_str(), &error.strip_prefix("TemplateError: ").unwrap_or(&error))
        }
        (Ok(text), Some(error)) => Err(format!("rendered {text:?}; the error {error:?} would be right")),
        (Err(error), _) => Err(error.to_string()),
    }
}

/// `format`, that of Meta's code for a tokenizer (`llama3-dialog`), `messages`, `tool_prompt_format`, `ids` and their text.
pub(super) fn check_dialogs(goldens: &mut Goldens<'_, '_>, lines: &[Line]) {
    let name = |line: &Line| line.name("format").map(|format| format.trim_end_matches("-dialog").to_owned());
    goldens.by_tokenizer("dialogs", lines, name, check_dialog);
}

fn check_dialog(tokenizer: &Tokenizer, line: &Line) -> Checked {
    let format = match line.text("format")?.as_str() {
        "llama2-dialog" => MetaFormat::Llama2,
        "llama3-dialog" => MetaFormat::Llama3,
        "llama4-dialog" => MetaFormat::Llama4,
        other => return Err(format!("the format {other:?} is not known; llama2-dialog, llama3-dialog and llama4-dialog are")),
    };
    let calls = match line.value["tool_prompt_format"].as_str() {
        None | Some("json") => ToolCallFormat::Json,
        Some("function_tag") => ToolCallFormat::FunctionTag,
        Some("python_list") => ToolCallFormat::PythonList,
        Some(other) => return Err(format!("tool_prompt_format {other:?} is not known; json, function_tag and python_list are")),
    };
    let dialog = MetaDialog::new(format).with_tool_calls(calls);
    let segments = dialog.segments(&messages(line)?, true).map_err(|e| e.to_string())?;
    let special = |token: &str| tokenizer.id(token).ok_or_else(|| format!("{token} is no token"));
    let parse = |parse: bool| if parse { Special::Parse } else { Special::Text };
    let ids = encode_segments(&segments, |text, parses| encode(tokenizer, text, parse(parses)), special)?;
    same("ids", &ids, &line.ids("ids")?)?;
    match line.name("decoded") {
        Some(decoded) => same("text", &decode(tokenizer, &ids)?, &decoded),
        None => Ok(()),
    }
}
