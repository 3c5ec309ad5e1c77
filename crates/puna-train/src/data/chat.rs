//! Where in a rendered conversation the assistant speaks.

use std::ops::Range;

use puna_llama::chat::{ChatInput, ChatTemplate, Segment};

use super::generation;
use crate::error::{Error, Kind, Result};

/// A rendered conversation, and where the assistant speaks in it.
pub(super) struct Turns {
    /// The pieces that the tokenizer takes.
    pub(super) segments: Vec<Segment>,
    /// Stretches of their text together, ascending and apart.
    pub(super) spans: Vec<Range<usize>>,
    /// Whether the template itself marks them.
    pub(super) marked: bool,
}

/// Renders a conversation and finds the assistant's turns among the messages from `from` on.
///
/// Where the template has `{% generation %}` blocks, they say. Else what inference would do says: a turn begins where the rendering
/// of the messages before it, with a generation prompt, ends, and goes to the end of the rendering that includes it.
///
/// Errors: no such turn; a template that renders messages otherwise when more follow, so that no rendering is the beginning of the
/// next; what the template says.
pub(super) fn assistant_turns(template: &ChatTemplate, input: &ChatInput<'_>, from: usize) -> Result<Turns> {
    let messages = input.messages;
    let turns: Vec<usize> = (from..messages.len()).filter(|&i| messages[i].role() == "assistant").collect();
    if turns.is_empty() {
        let among = if from == 0 { String::new() } else { format!(" behind the first {from}") };
        let roles: Vec<&str> = messages[from..].iter().take(8).map(|message| message.role()).collect();
        let message = format!("no assistant turn among the messages{among} (roles {roles:?}), so nothing would be learnt");
        return Err(Error::new(Kind::NothingToLearn, "chat", message));
    }
    let input =
        |count: usize, prompt: bool| ChatInput { messages: &messages[..count], add_generation_prompt: prompt, ..input.clone() };
    let segments = template.segments(&input(messages.len(), false))?;
    let whole: String = segments.iter().map(Segment::text).collect();

    if let Some(spans) = generation::spans(template, &input(messages.len(), false), &whole)? {
        let all = messages.iter().filter(|message| message.role() == "assistant").count();
        if spans.len() != all && from > 0 {
            let message = format!(
                "the template marks {} stretches as generated for {all} assistant turns; one for each would tell which are the last {}",
                spans.len(),
                turns.len()
            );
            return Err(Error::new(Kind::ChatTemplate, "chat template", message));
        }
        let first = if from > 0 { all - turns.len() } else { 0 };
        return Ok(Turns { segments, spans: spans[first..].to_vec(), marked: true });
    }

    let mut spans: Vec<Range<usize>> = Vec::with_capacity(turns.len());
    for turn in turns {
        let before = template.render(&input(turn, true)).map_err(|e| {
            let e = Error::from(e);
            let message =
                format!("{}; it is asked for the messages before message {turn}, to find where that begins", e.message());
            Error::new(Kind::ChatTemplate, e.place(), message).with_source(e)
        })?;
        prefix(&whole, &before, || format!("the messages before message {turn}, an assistant's, and a generation prompt"))?;
        let end = if turn + 1 == messages.len() {
            whole.len()
        } else {
            let through = template.render(&input(turn + 1, false))?;
            prefix(&whole, &through, || format!("the messages through message {turn}, an assistant's"))?;
            through.len()
        };
        let start = before.len();
        if end <= start || spans.last().is_some_and(|last| last.end > start) {
            let message = format!("message {turn}, an assistant's, is rendered as nothing (from {start} to {end} of the text)");
            return Err(Error::new(Kind::ChatTemplate, "chat template", message));
        }
        spans.push(start..end);
    }
    Ok(Turns { segments, spans, marked: false })
}

/// Checks that a rendering is the beginning of the whole conversation's.
fn prefix(whole: &str, part: &str, what: impl Fn() -> String) -> Result<()> {
    if whole.starts_with(part) {
        return Ok(());
    }
    let same =
        whole.char_indices().zip(part.chars()).find(|((_, a), b)| a != b).map_or(whole.len().min(part.len()), |((at, _), _)| at);
    let there = |text: &str| text.get(same..).unwrap_or_default().chars().take(24).collect::<String>();
    let message = format!(
        "the rendering of {} is not the beginning of the whole conversation's: at byte {same}, {:?} stands where the whole has {:?}; \
         {{% generation %}} blocks around what the assistant writes would show where it is",
        what(),
        there(part),
        there(whole)
    );
    Err(Error::new(Kind::ChatTemplate, "chat template", message))
}
