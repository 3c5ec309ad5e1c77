//! Templates that mark by `{% generation %}` what the assistant writes.

use std::ops::Range;

use puna_llama::chat::{ChatInput, ChatTemplate};

use crate::error::{Error, Kind, Result};

/// The stretches of `whole`, the rendering of `input`, that stand in `{% generation %}` blocks; `None` where the template has none.
///
/// The blocks of a copy of the template become calls of a macro that puts marks around its body; the rendering without the marks
/// must then be `whole` again.
///
/// Errors: what the template says; one that changes what stands in its blocks.
pub(super) fn spans(template: &ChatTemplate, input: &ChatInput<'_>, whole: &str) -> Result<Option<Vec<Range<usize>>>> {
    let Some(source) = template.source() else { return Ok(None) };
    // A pair of private characters that the conversation does not have.
    let free = |c: &char| !whole.contains(*c) && !source.contains(*c);
    let mut marks = ('\u{f0000}'..='\u{ffffd}').filter(free);
    let (Some(open), Some(close)) = (marks.next(), marks.next()) else { return Ok(None) };
    let Some(marked) = mark(source, open, close) else { return Ok(None) };
    let rendered = ChatTemplate::new(&marked)?.render(input)?;

    let (mut text, mut spans, mut opened) = (String::with_capacity(whole.len()), Vec::new(), None);
    for c in rendered.chars() {
        match c {
            _ if c == open => opened = Some(text.len()),
            _ if c == close => spans.extend(opened.take().map(|start| start..text.len())),
            _ => text.push(c),
        }
    }
    if text != whole {
        let message = "what stands in its {% generation %} blocks is changed behind them, or the clock has moved on between two \
                       renderings, so that they do not show where it goes; a fixed date_string keeps the clock out";
        return Err(Error::new(Kind::ChatTemplate, "chat template", message));
    }
    spans.retain(|span: &Range<usize>| !span.is_empty());
    if spans.is_empty() {
        let message = "its {% generation %} blocks are empty for these messages, so nothing would be learnt";
        return Err(Error::new(Kind::NothingToLearn, "chat template", message));
    }
    Ok(Some(spans))
}

/// The source with its generation blocks as calls of a macro; `None` where there are none.
fn mark(source: &str, open: char, close: char) -> Option<String> {
    // Ends with a line feed, which a tag's end takes: the source begins a line, as it did.
    let mut out = format!("{{% macro {MACRO}() %}}{open}{{{{ caller() }}}}{close}{{% endmacro %}}\n");
    let (mut rest, mut blocks) = (source, 0);
    while let Some(at) = rest.find("{%").or_else(|| rest.find("{#")) {
        // Whichever comes first.
        let at = rest.find("{#").map_or(at, |comment| at.min(comment));
        let (before, tag) = rest.split_at(at);
        out.push_str(before);
        let end = match tag.as_bytes()[1] {
            b'#' => tag.find("#}").map_or(tag.len(), |end| end + 2),
            _ => 2,
        };
        match generation_tag(tag) {
            Some((name, length)) => {
                let with = if name == "generation" { format!("call {MACRO}()") } else { "endcall".to_owned() };
                out.push_str(&tag[..length].replacen(name, &with, 1));
                blocks += usize::from(name == "generation");
                rest = &tag[length..];
            }
            None => {
                out.push_str(&tag[..end]);
                rest = &tag[end..];
            }
        }
    }
    out.push_str(rest);
    (blocks > 0).then_some(out)
}

const MACRO: &str = "__puna_generation";

/// The name and the length of the tag that `text` begins with, if it begins or ends a generation block.
fn generation_tag(text: &str) -> Option<(&'static str, usize)> {
    let sign = |c: char| c == '-' || c == '+';
    let body = text.strip_prefix("{%")?;
    let body = body.strip_prefix(sign).unwrap_or(body).trim_start();
    let name = ["endgeneration", "generation"].into_iter().find(|name| body.starts_with(name))?;
    let end = body[name.len()..].trim_start();
    let end = end.strip_prefix(sign).unwrap_or(end).strip_prefix("%}")?;
    Some((name, text.len() - end.len()))
}

#[cfg(test)]
mod tests {
    use puna_llama::Message;

    use super::*;

    /// What the blocks hold, for a conversation of four messages.
    #[track_caller]
    fn check(source: &str, expected: &[&str]) {
        let messages = ["user", "assistant", "user", "assistant"].map(|role| Message::new(role, format!("{role} said.")));
        let input = ChatInput::new(&messages).generation_prompt(false);
        let template = ChatTemplate::new(source).unwrap();
        let whole = template.render(&input).unwrap();
        let spans = spans(&template, &input, &whole).unwrap().unwrap_or_default();
        assert_eq!(spans.into_iter().map(|span| &whole[span]).collect::<Vec<_>>(), expected, "{source}\n{whole:?}");
    }

    #[test]
    fn blocks_are_found_whatever_white_space_they_take() {
        let said = "assistant said.<e>";
        check(
            "{% for m in messages %}<{{ m.role }}>{% if m.role == 'assistant' %}{% generation %}{{ m.content }}<e>{% endgeneration %}{% else %}{{ m.content }}{% endif %}\n{% endfor %}",
            &[said, said],
        );
        check(
            "  {% for m in messages %}\n  {%- if m['role'] == 'assistant' %}\n<a>\n    {%- generation -%}\n  {{ m['content'] }}<e>\n {%- endgeneration -%} \n{% endif %}\n{% endfor %}",
            &[said, said],
        );
        check(
            "{# {% generation %} #}{% for m in messages %}{% set last = loop.last %}\n{% if m.role == 'assistant' %}\n  {% generation %}\n{{ m.content }}{% if loop.last and last %}!{% endif %}\n  {% endgeneration %}\n{% endif %}{% endfor %}",
            &["assistant said.", "assistant said.!"],
        );
    }

    #[test]
    fn a_template_without_blocks_has_none() {
        check("{% for m in messages %}{{ m.content }}{% endfor %}", &[]);
        check("{# {% generation %} {% endgeneration %} #}{{ messages[0].content }}", &[]);
    }

    #[test]
    fn what_is_changed_behind_the_block_is_refused() {
        let source = "{% set x %}{% generation %} a {% endgeneration %}{% endset %}{{ x | trim }}{{ x | length }}";
        let template = ChatTemplate::new(source).unwrap();
        let input = ChatInput::new(&[]);
        let whole = template.render(&input).unwrap();
        let error = spans(&template, &input, &whole).unwrap_err();
        assert!(error.message().contains("changed"), "{error}");
    }
}
