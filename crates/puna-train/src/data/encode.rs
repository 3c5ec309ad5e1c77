//! From text to tokens, cut where the model begins to speak.

use puna_llama::ChatTemplate;
use puna_llama::Message;
use puna_llama::chat::{ChatInput, Segment};
use puna_tokenizer::{Bos, Special, Tokenizer};
use serde_json::{Map, Value};

use super::chat::{Turns, assistant_turns};
use super::example::Example;
use super::preference::Pair;
use super::record::{Record, Speech};
use crate::error::{Error, Kind, Result};

/// What a text is put behind when it continues another, for tokenizers that would take it for a beginning.
const ANCHOR: &str = "\n";

/// Makes examples of text and records. What the model is to write gets the tokens that it would have to write after the prompt that
/// inference gives it.
pub(super) struct Encoder<'a> {
    tokenizer: &'a Tokenizer,
    template: Option<&'a ChatTemplate>,
    variables: Map<String, Value>,
    /// The ids of [`ANCHOR`] where the tokenizer treats the beginning of a text otherwise than its middle (SentencePiece puts a
    /// space there); `None` where a continuation is encoded as any text.
    anchor: Option<Vec<u32>>,
    end: Option<u32>,
    bos_token: String,
    eos_token: String,
}

impl<'a> Encoder<'a> {
    /// `end`: what goes behind a text.
    pub(super) fn new(
        tokenizer: &'a Tokenizer,
        template: Option<&'a ChatTemplate>,
        variables: Map<String, Value>,
        end: Option<u32>,
    ) -> Result<Self> {
        let probe = "a";
        let ids = tokenizer.encode(probe, Special::Text, Bos::AsWritten)?;
        let bytes: Vec<u8> = ids.iter().filter_map(|id| tokenizer.token_bytes(*id)).flatten().copied().collect();
        let anchor = match bytes == probe.as_bytes() {
            true => None,
            false => Some(tokenizer.encode(ANCHOR, Special::Text, Bos::AsWritten)?),
        };
        let text = |id: Option<u32>| id.and_then(|id| tokenizer.token(id)).unwrap_or_default();
        let (bos_token, eos_token) = (text(tokenizer.bos()), text(tokenizer.eos()));
        Ok(Self { tokenizer, template, variables, anchor, end, bos_token, eos_token })
    }

    /// What goes before a document of plain text.
    pub(super) fn before(&self) -> Option<u32> {
        self.tokenizer.bos().filter(|_| self.tokenizer.adds_bos())
    }

    /// What goes behind a document of plain text, so that the model learns to end.
    pub(super) fn behind(&self) -> Option<u32> {
        self.end
    }

    /// Text as it begins. What looks like a special token in it is text.
    pub(super) fn beginning(&self, text: &str) -> Result<Vec<u32>> {
        Ok(self.tokenizer.encode(text, Special::Text, Bos::AsWritten)?)
    }

    /// Text that goes on behind other text.
    pub(super) fn continuation(&self, text: &str, special: Special) -> Result<Vec<u32>> {
        let encode = |text: &str| self.tokenizer.encode(text, special, Bos::AsWritten);
        if let Some(anchor) = &self.anchor {
            let ids = encode(&format!("{ANCHOR}{text}"))?;
            if let Some(ids) = ids.strip_prefix(anchor.as_slice()) {
                return Ok(ids.to_vec());
            }
            // A special token that swallows white space before it stands first: no space goes before it either way.
        }
        Ok(encode(text)?)
    }

    /// The tokens of `text`, and the number of tokens before each of `cuts` (ascending places in it). A token never spans a cut:
    /// where the text in one piece would have such a token, what is before the cut is encoded by itself, as inference does with
    /// a prompt, and what is behind continues it.
    fn cut(&self, text: &str, special: Special, cuts: &[usize]) -> Result<(Vec<u32>, Vec<usize>)> {
        let mut ids = self.tokenizer.encode(text, special, Bos::AsWritten)?;
        let mut places = Vec::with_capacity(cuts.len());
        let (mut from, mut base) = (0, 0);
        for &cut in cuts {
            let part = &text[from..cut];
            let before = match from {
                0 => self.tokenizer.encode(part, special, Bos::AsWritten)?,
                _ => self.continuation(part, special)?,
            };
            if !ids[base..].starts_with(&before) {
                ids.truncate(base);
                ids.extend(&before);
                (base, from) = (ids.len(), cut);
                let behind = if cut == 0 { self.beginning(text)? } else { self.continuation(&text[cut..], special)? };
                ids.extend(behind);
                places.push(base);
            } else {
                places.push(base + before.len());
            }
        }
        Ok((ids, places))
    }

    /// A document of text, all of which counts.
    pub(super) fn text(&self, text: &str) -> Result<Example> {
        let ids = self.beginning(text)?;
        Ok(Example::text(self.before().into_iter().chain(ids).chain(self.behind()).collect()))
    }

    /// A prompt and what follows it, of which the latter counts, and the end.
    pub(super) fn completion(&self, prompt: &str, completion: &str) -> Result<Example> {
        let (ids, places) = self.cut(&format!("{prompt}{completion}"), Special::Text, &[prompt.len()])?;
        let ids: Vec<u32> = self.before().into_iter().chain(ids).chain(self.behind()).collect();
        let prompt = usize::from(self.before().is_some()) + places[0];
        Ok(Example { counts: (0..ids.len()).map(|at| at >= prompt).collect(), ids })
    }

    /// A conversation, of which the assistant's turns from message `from` on count.
    pub(super) fn chat(&self, messages: &[Message], tools: Option<&Value>, from: usize) -> Result<Example> {
        let Some(template) = self.template else {
            let message = "messages need a chat template, and there is none; a chat model's checkpoint has one";
            return Err(Error::new(Kind::ChatTemplate, "chat", message));
        };
        let extra = self.variables.clone();
        let input = ChatInput { tools, extra, ..ChatInput::new(messages).bos(&self.bos_token).eos(&self.eos_token) };
        let turns = assistant_turns(template, &input, from)?;
        let mut example = Example::default();
        let mut start = 0;
        for segment in &turns.segments {
            self.segment(segment, start, &turns, &mut example)?;
            start += segment.text().len();
        }
        Ok(example)
    }

    /// Appends a piece of a conversation that begins at `start` of its text.
    fn segment(&self, segment: &Segment, start: usize, turns: &Turns, example: &mut Example) -> Result<()> {
        let text = segment.text();
        let end = start + text.len();
        let special = match segment {
            Segment::Text(text) if text.is_empty() => return Ok(()),
            Segment::Text(_) => Special::Text,
            Segment::Markup(_) => Special::Parse,
            Segment::Special(token) => {
                let id = self.tokenizer.id(token).ok_or_else(|| {
                    Error::new(Kind::ChatTemplate, "chat", format!("the tokenizer has no special token {token:?}"))
                })?;
                example.ids.push(id);
                example.counts.push(turns.spans.iter().any(|span| span.contains(&start)));
                return Ok(());
            }
        };
        let spans = turns.spans.iter().filter(|span| span.start < end && span.end > start);
        let cuts: Vec<usize> = spans.flat_map(|span| [span.start.max(start) - start, span.end.min(end) - start]).collect();
        let (ids, places) = self.cut(text, special, &cuts)?;
        let mut counts = vec![false; ids.len()];
        for place in places.chunks_exact(2) {
            let turn = &ids[place[0]..place[1]];
            let written = if special == Special::Text || turns.marked { turn.len() } else { self.end_of_turn(turn) };
            counts[place[0]..place[0] + written].fill(true);
        }
        example.ids.extend(ids);
        example.counts.extend(counts);
        Ok(())
    }

    /// How many of a turn's tokens the model writes: it stops with the last special one, and white space that the template puts
    /// behind that is not its own.
    fn end_of_turn(&self, turn: &[u32]) -> usize {
        let behind = turn.iter().rposition(|id| self.tokenizer.is_special(*id)).map_or(0, |at| at + 1);
        if behind > 0 && self.is_space(&turn[behind..]) { behind } else { turn.len() }
    }

    fn is_space(&self, ids: &[u32]) -> bool {
        let bytes: Vec<u8> = ids.iter().filter_map(|id| self.tokenizer.token_bytes(*id)).flatten().copied().collect();
        String::from_utf8_lossy(&bytes).replace('\u{2581}', " ").trim().is_empty()
    }

    /// What a line of a data set teaches.
    pub(super) fn record(&self, record: &Record, place: &dyn Fn() -> String) -> Result<Example> {
        let example = match record {
            Record::Text(text) => self.text(text),
            Record::Completion { prompt: Speech::Text(prompt), completion: Speech::Text(completion) } => {
                self.completion(prompt, completion)
            }
            Record::Completion { prompt: Speech::Messages(prompt), completion: Speech::Messages(completion) } => {
                self.chat(&[&prompt[..], completion].concat(), None, prompt.len())
            }
            Record::Completion { .. } => Err(Error::data("", "prompt and completion are text and messages; both are the same")),
            Record::Chat { messages, tools } => self.chat(messages, tools.as_ref(), 0),
            Record::Preference { .. } => {
                Err(Error::data("", "a pair of chosen and rejected is no example by itself; Preferences reads such files"))
            }
        };
        example.map_err(|e| e.at(place()))?.checked(place)
    }

    /// The two answers of a pair, each behind the prompt.
    pub(super) fn pair(&self, record: Record, place: &dyn Fn() -> String) -> Result<Pair> {
        let wrong = |message: String| Err(Error::data(place(), message));
        let (prompt, chosen, rejected, tools) = match record {
            Record::Preference { prompt, chosen, rejected, tools } => (prompt, chosen, rejected, tools),
            other => return wrong(format!("{}, no pair; preferences have \"chosen\" and \"rejected\"", other.kind())),
        };
        if chosen == rejected {
            return wrong("chosen and rejected are equal, so there is nothing to prefer".to_owned());
        }
        let pair = match (prompt, chosen, rejected) {
            (Some(Speech::Text(prompt)), Speech::Text(chosen), Speech::Text(rejected)) => {
                [chosen, rejected].map(|answer| self.completion(&prompt, &answer))
            }
            (None, Speech::Text(_), Speech::Text(_)) => return wrong("no \"prompt\" that the answers answer".to_owned()),
            (prompt, Speech::Messages(mut chosen), Speech::Messages(mut rejected)) => {
                match prompt {
                    Some(Speech::Messages(prompt)) => {
                        chosen.splice(0..0, prompt.iter().cloned());
                        rejected.splice(0..0, prompt);
                    }
                    // Data sets that repeat the question as text beside the whole conversations.
                    Some(Speech::Text(prompt)) if !chosen.iter().any(|message| message.text() == Some(&prompt)) => {
                        return wrong("\"prompt\" is text that the messages do not have; a list of messages fits".to_owned());
                    }
                    _ => {}
                }
                let common = chosen.iter().zip(&rejected).take_while(|(a, b)| a == b).count();
                [chosen, rejected].map(|messages| self.chat(&messages, tools.as_ref(), common))
            }
            _ => return wrong("some of prompt, chosen and rejected are text, some messages; all are the same".to_owned()),
        };
        let [chosen, rejected] = pair.map(|example| example.map_err(|e| e.at(place()))?.checked(place));
        Ok(Pair { chosen: chosen?, rejected: rejected? })
    }
}
