//! A checkpoint's tokenizer as the other form has it.

use puna_tokenizer::Tokenizer;

use crate::error::{Error, Kind, Result};
use crate::weights::gguf::{Gguf, GgufTokenizer, tokenizer_metadata};
use crate::weights::write::MetadataValue;
use crate::weights::{Checkpoint, TokenizerSource};

/// What SentencePiece's converters give tokens that are never merged to.
const UNUSED_SCORE: f32 = -1000.0;
const NORMAL: i32 = 1;
const UNUSED: i32 = 5;

/// Tokens that end a turn, and those that end a message within one, by the names that Llama's models have for them.
const TURN_ENDS: [&str; 3] = ["<|eot_id|>", "<|eot|>", "<|im_end|>"];
const MESSAGE_ENDS: [&str; 2] = ["<|eom_id|>", "<|eom|>"];

/// Where the checkpoint's tokenizer is. A GGUF file may say that it has none.
pub(super) fn source(checkpoint: &Checkpoint) -> &TokenizerSource {
    match checkpoint.gguf().and_then(|gguf| gguf.string("tokenizer.ggml.model")) {
        Some("none" | "no_vocab") => &TokenizerSource::Missing,
        _ => checkpoint.tokenizer_source(),
    }
}

/// The tokenizer's metadata for a model of so many embedding rows. Without a tokenizer, the metadata says so.
pub(super) fn metadata(checkpoint: &Checkpoint, rows: usize, notes: &mut Vec<String>) -> Result<Vec<(String, MetadataValue)>> {
    let text = |key: &str, text: &str| (key.to_owned(), MetadataValue::Str(text.to_owned()));
    let mut tokenizer = match source(checkpoint) {
        TokenizerSource::Missing => {
            notes.push("there is no tokenizer: the file takes tokens, not text".into());
            GgufTokenizer { model: "none".into(), ..GgufTokenizer::default() }
        }
        TokenizerSource::Gguf => match checkpoint.gguf().map(Gguf::tokenizer).transpose()?.flatten() {
            Some(tokenizer) => tokenizer,
            None => {
                return Err(Error::new(
                    Kind::Tokenizer,
                    checkpoint.path().display().to_string(),
                    "it names a tokenizer and has none",
                ));
            }
        },
        TokenizerSource::File(path) => Tokenizer::from_file(path)?.to_gguf()?,
    };
    let has_tokens = !tokenizer.tokens.is_empty();
    if has_tokens {
        fit(&mut tokenizer, rows, notes)?;
    }
    let ends = Ends::new(&mut tokenizer, checkpoint, notes);
    let mut metadata = tokenizer_metadata(&tokenizer);
    // No tokens are not an empty list of them.
    metadata.retain(|(key, _)| has_tokens || key != "tokenizer.ggml.tokens");
    for (name, id) in [("eot", ends.turn), ("eom", ends.message)] {
        metadata.extend(id.map(|id| (format!("tokenizer.ggml.{name}_token_id"), MetadataValue::U32(id))));
    }
    match checkpoint.chat_template_source() {
        Some(template) => metadata.push(text("tokenizer.chat_template", template)),
        None => notes.push("the checkpoint has no chat template, so neither has the file".into()),
    }
    Ok(metadata)
}

/// As many tokens as the embedding has rows: readers take the one for the other.
fn fit(tokenizer: &mut GgufTokenizer, rows: usize, notes: &mut Vec<String>) -> Result<()> {
    let tokens = tokenizer.tokens.len();
    if tokens > rows {
        let message = format!("it has {tokens} tokens, but the embedding {rows} rows; in a GGUF file they are equal");
        return Err(Error::new(Kind::Tokenizer, "tokenizer", message));
    }
    if tokens == rows {
        return Ok(());
    }
    notes.push(format!("the embedding has {rows} rows for {tokens} tokens: the others are written as unused"));
    tokenizer.tokens.extend((tokens..rows).map(|id| format!("[PAD{id}]").into_bytes()));
    if tokenizer.token_types.is_empty() {
        tokenizer.token_types = vec![NORMAL; tokens];
    }
    tokenizer.token_types.resize(rows, UNUSED);
    if !tokenizer.scores.is_empty() {
        tokenizer.scores.resize(rows, UNUSED_SCORE);
    }
    Ok(())
}

/// The format has a place for one token each that ends a text, a turn, a message.
struct Ends {
    turn: Option<u32>,
    message: Option<u32>,
}

impl Ends {
    /// Shares the checkpoint's end tokens among the places, and sets the tokenizer's own.
    fn new(tokenizer: &mut GgufTokenizer, checkpoint: &Checkpoint, notes: &mut Vec<String>) -> Self {
        let name = |id: u32| tokenizer.tokens.get(id as usize).map(Vec::as_slice).unwrap_or_default();
        let is = |id: u32, names: &[&str]| names.iter().any(|known| known.as_bytes() == name(id));
        let mut ids = checkpoint.end_tokens();
        if ids.is_empty() {
            let known = |id: &u32| is(*id, &TURN_ENDS) || is(*id, &MESSAGE_ENDS);
            ids = tokenizer.eos.into_iter().chain((0..tokenizer.tokens.len() as u32).filter(known)).collect();
        }
        let turn = ids.iter().copied().find(|id| is(*id, &TURN_ENDS));
        let message = ids.iter().copied().find(|id| is(*id, &MESSAGE_ENDS));
        let others: Vec<u32> = ids.iter().copied().filter(|id| Some(*id) != turn && Some(*id) != message).collect();
        let text = tokenizer.eos.filter(|id| others.contains(id)).or(others.first().copied()).or(turn).or(tokenizer.eos);
        for id in others.iter().filter(|id| Some(**id) != text) {
            let name = String::from_utf8_lossy(name(*id)).into_owned();
            notes.push(format!("token {id} ({name:?}) ends a text in the checkpoint; a GGUF file has no place for it"));
        }
        tokenizer.eos = text;
        tokenizer.bos = tokenizer.bos.or(checkpoint.generation().bos);
        tokenizer.pad = tokenizer.pad.or(checkpoint.generation().pad);
        Self { turn, message }
    }
}

/// The tokens that end a text where the checkpoint names none: the tokenizer's own, and those that end a turn or a message.
pub(super) fn end_tokens(tokenizer: &Tokenizer) -> Vec<u32> {
    let known = TURN_ENDS.iter().chain(&MESSAGE_ENDS).filter_map(|name| tokenizer.id(name));
    let mut ids: Vec<u32> = tokenizer.eos().into_iter().collect();
    for id in known {
        if !ids.contains(&id) {
            ids.push(id);
        }
    }
    ids
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_that_lack_rows_are_an_error_and_rows_that_lack_tokens_are_named_unused() {
        let tokenizer =
            || GgufTokenizer { tokens: vec![b"a".to_vec(), b"b".to_vec()], scores: vec![0.0, -1.0], ..GgufTokenizer::default() };
        let mut notes = Vec::new();
        assert!(fit(&mut tokenizer(), 1, &mut notes).is_err());
        let mut same = tokenizer();
        fit(&mut same, 2, &mut notes).unwrap();
        assert_eq!((same, notes.len()), (tokenizer(), 0));
        let mut padded = tokenizer();
        fit(&mut padded, 4, &mut notes).unwrap();
        assert_eq!(padded.tokens[3], b"[PAD3]");
        assert_eq!(padded.token_types, [1, 1, 5, 5]);
        assert_eq!(padded.scores, [0.0, -1.0, -1000.0, -1000.0]);
        assert_eq!(notes.len(), 1);
    }
}
