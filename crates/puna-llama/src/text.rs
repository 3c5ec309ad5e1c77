//! From text to text: a model, its tokenizer and its chat template together.

use std::sync::Arc;
use std::time::{Duration, Instant};

use puna_tensor::Device;
use puna_tokenizer::{Bos, DecodeStream, Special, Tokenizer};

use crate::cache::CachedSequence;
use crate::chat::{ChatInput, ChatTemplate, Message, MetaFormat, encode_segments};
use crate::engine::{Engine, Loader};
use crate::error::{Error, Kind, Result};
use crate::generate::{Batch, Drawn};
use crate::options::{Finish, Options};
use crate::weights::gguf::Gguf;
use crate::weights::{Checkpoint, Format, TokenizerSource};

/// A model that reads and writes text: a network, its tokenizer and its chat template.
pub struct Model {
    /// The network: tokens in, tokens out.
    pub engine: Engine,
    /// Text to tokens and back.
    pub tokenizer: Tokenizer,
    /// How a conversation is written; absent where the checkpoint has none.
    pub chat_template: Option<ChatTemplate>,
}

impl Loader<'_> {
    /// Loads a folder, a file, or `org/name` from the Hub's cache, with its tokenizer and chat template.
    ///
    /// Errors: what is missing or wrong in the checkpoint, by name.
    pub fn load(self, model: &str, device: &Device) -> Result<Model> {
        self.model(&Checkpoint::open(&crate::hub::resolve(model)?)?, device)
    }

    /// As [`load`](Self::load), of a checkpoint that has been opened.
    pub fn model(self, checkpoint: &Checkpoint, device: &Device) -> Result<Model> {
        let tokenizer = match &self.tokenizer {
            Some(path) => Tokenizer::from_file(path)?,
            None => checkpoint.read_tokenizer()?,
        };
        let chat_template = checkpoint.read_chat_template(&tokenizer)?;
        let mut engine = self.engine(checkpoint, device)?;
        if engine.end_tokens().is_empty() {
            engine.set_end_tokens(end_tokens(&tokenizer));
        }
        Ok(Model { engine, tokenizer, chat_template })
    }
}

/// The tokens that end a text where the checkpoint names none, as Meta's folders: the tokenizer's own, and those that end a turn.
fn end_tokens(tokenizer: &Tokenizer) -> Vec<u32> {
    let turn = ["<|eot_id|>", "<|eom_id|>", "<|eot|>", "<|eom|>"].into_iter().filter_map(|token| tokenizer.id(token));
    tokenizer.eos().into_iter().chain(turn).collect()
}

impl Checkpoint {
    /// The checkpoint's tokenizer.
    ///
    /// Errors: it has none; what is wrong with it.
    pub fn read_tokenizer(&self) -> Result<Tokenizer> {
        let missing = || {
            let message = "there is no tokenizer.json, tokenizer.model or tokenizer in a GGUF; name a tokenizer file";
            Error::new(Kind::Tokenizer, self.path().display().to_string(), message)
        };
        match self.tokenizer_source() {
            TokenizerSource::File(path) => Ok(Tokenizer::from_file(path)?),
            TokenizerSource::Gguf => match self.gguf().map(Gguf::tokenizer).transpose()?.flatten() {
                Some(tokenizer) => Ok(Tokenizer::from_gguf(&tokenizer)?),
                None => Err(missing()),
            },
            TokenizerSource::Missing => Err(missing()),
        }
    }

    /// How its conversations are written: its own template, or Meta's format for Meta's folders.
    pub fn read_chat_template(&self, tokenizer: &Tokenizer) -> Result<Option<ChatTemplate>> {
        if let Some(source) = self.chat_template_source() {
            return Ok(Some(ChatTemplate::new(source)?));
        }
        if self.format() != Format::Meta {
            return Ok(None);
        }
        let format = match (tokenizer.id("<|start_header_id|>"), tokenizer.id("<|header_start|>")) {
            (Some(_), _) => MetaFormat::Llama3,
            (_, Some(_)) => MetaFormat::Llama4,
            _ => MetaFormat::Llama2,
        };
        Ok(Some(ChatTemplate::for_meta(format)))
    }
}

impl Model {
    /// Loads a folder, a file, or `org/name` from the Hub's cache, with weights as stored.
    pub fn load(model: &str, device: &Device) -> Result<Self> {
        Loader::default().load(model, device)
    }

    /// To load with other settings.
    pub fn loader<'a>() -> Loader<'a> {
        Loader::default()
    }

    /// Continues a text. The beginning-of-sequence token is added where the tokenizer has one.
    ///
    /// Errors: a prompt longer than the context, an option out of range.
    pub fn generate(&self, prompt: &str, options: &Options) -> Result<Generation<'_>> {
        self.generate_tokens(&self.tokenizer.encode(prompt, Special::Text, Bos::Add)?, options)
    }

    /// Continues tokens.
    pub fn generate_tokens(&self, prompt: &[u32], options: &Options) -> Result<Generation<'_>> {
        let mut batch = self.engine.batch();
        batch.add(prompt, options.clone())?;
        Ok(Generation::new(self, batch, options))
    }

    /// Answers the last of the messages, written as the checkpoint's chat template says.
    ///
    /// Errors: no chat template; one that refuses the messages.
    pub fn chat(&self, messages: &[Message], options: &Options) -> Result<Generation<'_>> {
        self.generate_tokens(&self.chat_tokens(messages)?, options)
    }

    /// A conversation that goes on: each turn computes only what is new.
    pub fn conversation(&self) -> Conversation<'_> {
        Conversation { model: self, messages: Vec::new(), cached: None }
    }

    /// Continues many texts in shared steps; each as if it were alone.
    pub fn generate_batch(&self, prompts: &[(&str, Options)]) -> Result<Vec<Completion>> {
        let mut batch = self.engine.batch();
        let mut streams = Vec::with_capacity(prompts.len());
        for (prompt, options) in prompts {
            batch.add(&self.tokenizer.encode(prompt, Special::Text, Bos::Add)?, options.clone())?;
            streams.push((TextStream::new(&self.tokenizer, &options.stop), Completion::default()));
        }
        while !batch.is_done() {
            for drawn in batch.step()? {
                let sequence = drawn.sequence;
                let (stream, completion) = &mut streams[sequence];
                let piece = stream.push(drawn)?;
                if piece.finish.is_some() {
                    batch.stop(sequence);
                }
                completion.push(piece);
            }
        }
        Ok(streams.into_iter().map(|(_, completion)| completion).collect())
    }

    /// The tokens of a conversation up to where the answer begins.
    pub fn chat_tokens(&self, messages: &[Message]) -> Result<Vec<u32>> {
        let template = self.chat_template.as_ref().ok_or_else(|| {
            Error::argument("chat", "the checkpoint has no chat template, so it is no chat model; generate continues plain text")
        })?;
        let text = |id: Option<u32>| id.and_then(|id| self.tokenizer.token(id)).unwrap_or_default();
        let (bos, eos) = (text(self.tokenizer.bos()), text(self.tokenizer.eos()));
        let segments = template.segments(&ChatInput::new(messages).generation_prompt(true).bos(&bos).eos(&eos))?;
        let encode = |text: &str, parse: bool| {
            // The template has written the beginning-of-sequence token where there is one.
            Ok(self.tokenizer.encode(text, if parse { Special::Parse } else { Special::Text }, Bos::AsWritten)?)
        };
        let special = |text: &str| {
            let missing = || Error::new(Kind::ChatTemplate, "chat", format!("the tokenizer has no special token {text:?}"));
            self.tokenizer.id(text).ok_or_else(missing)
        };
        encode_segments(&segments, encode, special)
    }
}

/// What one token adds to the text.
#[derive(Debug, Clone, PartialEq)]
pub struct Piece {
    /// The text that became certain with it: whole characters, nothing that may still become a stop string. May be empty.
    pub text: String,
    /// The token.
    pub id: u32,
    /// Its log-probability under the model.
    pub log_probability: f32,
    /// The most probable tokens, as many as the options ask for.
    pub top: Vec<(u32, f32)>,
    /// Why it was the last, if it was.
    pub finish: Option<Finish>,
}

/// A whole continuation.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Completion {
    /// The text.
    pub text: String,
    /// The tokens, the end token included.
    pub ids: Vec<u32>,
    /// Their log-probabilities.
    pub log_probabilities: Vec<f32>,
    /// Why it ended.
    pub finish: Option<Finish>,
}

impl Completion {
    fn push(&mut self, piece: Piece) {
        self.text.push_str(&piece.text);
        self.ids.push(piece.id);
        self.log_probabilities.push(piece.log_probability);
        self.finish = piece.finish.or(self.finish.take());
    }
}

/// How long a generation took; no time at all where the platform has no clock (bare WebAssembly).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Timings {
    /// How many tokens the prompt has.
    pub prompt_tokens: usize,
    /// How many of them the cache held already.
    pub cached_tokens: usize,
    /// From the start to the first token.
    pub first_token: Duration,
    /// How many tokens were drawn.
    pub tokens: usize,
    /// From the first token to the last.
    pub decoding: Duration,
}

impl Timings {
    /// Tokens a second while decoding; 0 where fewer than two were drawn.
    pub fn tokens_per_second(&self) -> f64 {
        let seconds = self.decoding.as_secs_f64();
        if self.tokens < 2 || seconds == 0.0 { 0.0 } else { (self.tokens - 1) as f64 / seconds }
    }
}

/// A text that is being written: an iterator over its pieces, or, without blocking, [`next_async`](Self::next_async).
pub struct Generation<'m> {
    batch: Batch<'m>,
    stream: TextStream<'m>,
    timings: Timings,
    started: Moment,
    done: bool,
}

impl<'m> Generation<'m> {
    fn new(model: &'m Model, batch: Batch<'m>, options: &Options) -> Self {
        let prompt_tokens = batch.tokens(0).len();
        let cached_tokens = prompt_tokens - batch.pending(0);
        Self {
            stream: TextStream::new(&model.tokenizer, &options.stop),
            timings: Timings { prompt_tokens, cached_tokens, ..Timings::default() },
            started: Moment::now(),
            done: batch.is_done(),
            batch,
        }
    }

    /// How long it has taken so far.
    pub fn timings(&self) -> Timings {
        self.timings
    }

    /// The rest, as one text.
    pub fn text(mut self) -> Result<String> {
        let mut text = String::new();
        for piece in &mut self {
            text.push_str(&piece?.text);
        }
        Ok(text)
    }

    /// The rest, with all that is known of it.
    pub fn completion(mut self) -> Result<Completion> {
        let mut completion = Completion::default();
        for piece in &mut self {
            completion.push(piece?);
        }
        Ok(completion)
    }

    fn advance(&mut self) -> Result<Option<Piece>> {
        while !self.done {
            if let Some(drawn) = self.batch.step()?.pop() {
                return self.piece(drawn).map(Some);
            }
        }
        Ok(None)
    }

    /// The next piece, without blocking: the only way where no thread can wait (in a browser). `None` behind the last, and behind an error.
    pub async fn next_async(&mut self) -> Option<Result<Piece>> {
        while !self.done {
            match self.batch.step_async().await {
                Ok(mut drawn) => {
                    if let Some(drawn) = drawn.pop() {
                        let piece = self.piece(drawn);
                        self.done |= piece.is_err();
                        return Some(piece);
                    }
                }
                Err(error) => {
                    self.done = true;
                    return Some(Err(error));
                }
            }
        }
        None
    }

    fn piece(&mut self, drawn: Drawn) -> Result<Piece> {
        let elapsed = self.started.elapsed();
        if self.timings.tokens == 0 {
            self.timings.first_token = elapsed;
        }
        self.timings.tokens += 1;
        self.timings.decoding = elapsed - self.timings.first_token;
        let piece = self.stream.push(drawn)?;
        self.done = piece.finish.is_some();
        Ok(piece)
    }
}

/// A moment; none where the platform has no clock (bare WebAssembly).
struct Moment(Option<Instant>);

impl Moment {
    fn now() -> Self {
        Self((!cfg!(all(target_family = "wasm", target_os = "unknown"))).then(Instant::now))
    }

    fn elapsed(&self) -> Duration {
        self.0.map_or(Duration::ZERO, |since| since.elapsed())
    }
}

impl Iterator for Generation<'_> {
    type Item = Result<Piece>;

    fn next(&mut self) -> Option<Self::Item> {
        let piece = self.advance().transpose();
        self.done |= matches!(piece, Some(Err(_)));
        piece
    }
}

/// Tokens to text as they come, holding back what may still become a stop string.
struct TextStream<'t> {
    decode: DecodeStream<'t>,
    tokenizer: &'t Tokenizer,
    stop: Arc<[String]>,
    held: String,
}

impl<'t> TextStream<'t> {
    fn new(tokenizer: &'t Tokenizer, stop: &[String]) -> Self {
        let stop = stop.iter().filter(|stop| !stop.is_empty()).cloned().collect();
        Self { decode: tokenizer.decode_stream(), tokenizer, stop, held: String::new() }
    }

    fn push(&mut self, drawn: Drawn) -> Result<Piece> {
        let Drawn { id, log_probability, top, mut finish, .. } = drawn;
        // An end token ends the text; it is not part of it. Other special tokens are not text either.
        if !matches!(finish, Some(Finish::EndToken(_))) && !self.tokenizer.is_special(id) {
            self.held.push_str(&self.decode.push(id)?);
        }
        if finish.is_some() {
            self.held.push_str(&self.decode.flush());
        }
        let first = self.stop.iter().filter_map(|stop| self.held.find(stop).map(|at| (at, stop))).min_by_key(|(at, _)| *at);
        let text = match first {
            Some((at, stop)) => {
                finish = Some(Finish::StopString(stop.clone()));
                let mut text = std::mem::take(&mut self.held);
                text.truncate(at);
                text
            }
            None if finish.is_some() => std::mem::take(&mut self.held),
            None => self.held.drain(..self.certain()).collect(),
        };
        Ok(Piece { text, id, log_probability, top, finish })
    }

    /// How many bytes of what is held can be part of no stop string.
    fn certain(&self) -> usize {
        let begins = |at: &usize| self.stop.iter().any(|stop| stop.starts_with(&self.held[*at..]));
        self.held.char_indices().map(|(at, _)| at).find(begins).unwrap_or(self.held.len())
    }
}

/// A conversation: what both sides have said, and the cache of it.
pub struct Conversation<'m> {
    model: &'m Model,
    /// What has been said so far.
    pub messages: Vec<Message>,
    cached: Option<CachedSequence>,
}

impl<'m> Conversation<'m> {
    /// Says something; the answer's pieces are given to `each` as they come, and the whole answer joins the conversation.
    ///
    /// Errors: as [`Model::chat`]; what was said stays said.
    pub fn say(&mut self, text: &str, options: &Options, mut each: impl FnMut(&Piece)) -> Result<(Completion, Timings)> {
        self.messages.push(Message::user(text));
        let prompt = self.model.chat_tokens(&self.messages)?;
        let mut batch = self.model.engine.batch();
        match self.cached.take() {
            Some(mut cached) => {
                let common = cached.tokens().iter().zip(&prompt).take_while(|(a, b)| a == b).count();
                cached.truncate(common.min(prompt.len() - 1));
                // A prompt that dynamic scaling gives other frequencies than the cached ones is computed anew.
                let reusable = self.model.engine.rotary().for_prompt(&self.model.engine.llama.config, prompt.len()).is_base();
                if reusable {
                    batch.add_cached(cached, &prompt, options.clone())?
                } else {
                    batch.add(&prompt, options.clone())?
                };
            }
            None => drop(batch.add(&prompt, options.clone())?),
        }
        let mut generation = Generation::new(self.model, batch, options);
        let mut completion = Completion::default();
        for piece in &mut generation {
            let piece = piece?;
            each(&piece);
            completion.push(piece);
        }
        self.cached = Some(generation.batch.take_cached(0));
        self.messages.push(Message::assistant(completion.text.as_str()));
        Ok((completion, generation.timings()))
    }
}
