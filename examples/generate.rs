//! Writes text with a Llama.
//!
//!     cargo run --release --example generate -- --model FOLDER_OR_FILE --chat "What is the capital of France?"
//!
//! Without arguments it tells a story, with the small model that puna carries and has trained: no download.
//!
//! The answer streams to standard output; speed and what else happened goes to standard error.

mod shared;

use std::io::{BufRead, IsTerminal, Write};

use clap::Parser;
use puna::llama::{Finish, Timings};
use puna::prelude::*;

/// Writes text with a Llama: continues a prompt, answers a question, or holds a conversation.
#[derive(Parser)]
struct Arguments {
    /// The text to continue.
    #[arg(conflicts_with = "chat")]
    prompt: Option<String>,
    /// A question to a chat model; without a value, a conversation.
    #[arg(long, num_args = 0..=1, default_missing_value = "")]
    chat: Option<String>,
    /// What the model is told before a chat.
    #[arg(long, requires = "chat")]
    system: Option<String>,
    #[command(flatten)]
    model: shared::ModelArguments,
    /// How many tokens at most.
    #[arg(long, default_value_t = 512)]
    max_tokens: usize,
    /// 0 always takes the most probable token; by default 0, and 0.6 for the small model that puna carries.
    #[arg(long, allow_negative_numbers = true)]
    temperature: Option<f32>,
    /// How many of the most probable tokens may be drawn; 0: all.
    #[arg(long, default_value_t = 0)]
    top_k: u32,
    /// What probability the tokens that may be drawn have together.
    #[arg(long, default_value_t = 1.0, allow_negative_numbers = true)]
    top_p: f32,
    /// What share of the largest probability a token needs.
    #[arg(long, default_value_t = 0.0, allow_negative_numbers = true)]
    min_p: f32,
    /// The divisor for tokens already there; 1: off.
    #[arg(long, default_value_t = 1.0, allow_negative_numbers = true)]
    repetition_penalty: f32,
    /// What a token loses each time it was written.
    #[arg(long, default_value_t = 0.0, allow_negative_numbers = true)]
    frequency_penalty: f32,
    /// What a token loses when it was written at all.
    #[arg(long, default_value_t = 0.0, allow_negative_numbers = true)]
    presence_penalty: f32,
    /// The same seed gives the same text.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Text ends before this; may be given several times.
    #[arg(long)]
    stop: Vec<String>,
    /// A bias on a token's logit, as `ID=BIAS`; may be given several times.
    #[arg(long, value_parser = bias)]
    logit_bias: Vec<(u32, f32)>,
    /// Prints each token's log-probability.
    #[arg(long)]
    log_probabilities: bool,
}

fn bias(text: &str) -> Result<(u32, f32), String> {
    let (id, bias) = text.split_once('=').ok_or("a bias is written ID=BIAS")?;
    Ok((id.parse().map_err(|e| format!("{id}: {e}"))?, bias.parse().map_err(|e| format!("{bias}: {e}"))?))
}

impl Arguments {
    fn options(&self) -> Options {
        let sampling = SamplingParameters {
            temperature: self.temperature.unwrap_or(if self.model.model.is_some() { 0.0 } else { 0.6 }),
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            repetition: self.repetition_penalty,
            frequency: self.frequency_penalty,
            presence: self.presence_penalty,
        };
        Options {
            max_tokens: Some(self.max_tokens),
            sampling,
            seed: self.seed,
            stop: self.stop.clone(),
            logit_bias: self.logit_bias.clone(),
            ..Options::default()
        }
    }
}

fn main() -> std::process::ExitCode {
    shared::exit(run(Arguments::parse()))
}

fn run(arguments: Arguments) -> shared::Result<()> {
    let options = arguments.options();
    options.check(usize::MAX)?;
    let model = arguments.model.load()?;
    match arguments.chat.as_deref() {
        Some("") => converse(&model, arguments.system.as_deref(), &options),
        Some(question) => {
            let system = arguments.system.as_deref().map(Message::system);
            let messages: Vec<_> = system.into_iter().chain([Message::user(question)]).collect();
            stream(model.chat(&messages, &options)?, arguments.log_probabilities)
        }
        None => {
            // The story teller needs no more than that.
            let opening = arguments.model.model.is_none().then_some("");
            let Some(prompt) = arguments.prompt.as_deref().or(opening) else {
                return Err(
                    "what shall be written? give a prompt, or --chat \"a question\", or --chat alone for a conversation".into()
                );
            };
            let generation = model.generate(prompt, &options)?;
            print!("{prompt}");
            stream(generation, arguments.log_probabilities)
        }
    }
}

fn stream(mut generation: puna::llama::Generation<'_>, log_probabilities: bool) -> shared::Result<()> {
    let mut out = std::io::stdout().lock();
    let mut finish = None;
    for piece in &mut generation {
        let piece = piece?;
        if log_probabilities {
            writeln!(out, "{:>7} {:8.4} {:?}", piece.id, piece.log_probability, piece.text)?;
        } else {
            write!(out, "{}", piece.text)?;
        }
        out.flush()?;
        finish = piece.finish;
    }
    writeln!(out)?;
    report(generation.timings(), finish.as_ref());
    Ok(())
}

fn report(timings: Timings, finish: Option<&Finish>) {
    let why = match finish {
        Some(Finish::EndToken(_)) => "the model ended",
        Some(Finish::StopString(_)) => "a stop string came",
        Some(Finish::MaxTokens) => "--max-tokens reached",
        Some(Finish::ContextFull) => "the context is full",
        None => "nothing was asked for",
    };
    let (first, speed) = (timings.first_token.as_secs_f64(), timings.tokens_per_second());
    let Timings { prompt_tokens, cached_tokens, tokens, .. } = timings;
    eprintln!(
        "[{prompt_tokens} prompt tokens, {cached_tokens} of them cached; first token after {first:.3} s; {tokens} tokens, {speed:.1} tokens/s; {why}]"
    );
}

fn converse(model: &Model, system: Option<&str>, options: &Options) -> shared::Result<()> {
    let mut conversation = model.conversation();
    conversation.messages.extend(system.map(Message::system));
    let prompt = || {
        if std::io::stdin().is_terminal() {
            eprint!("> ");
        }
    };
    prompt();
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        if !line.trim().is_empty() {
            let mut out = std::io::stdout().lock();
            let mut written = Ok(());
            let (completion, timings) = conversation.say(&line, options, |piece| {
                let write = write!(out, "{}", piece.text).and_then(|()| out.flush());
                written = std::mem::replace(&mut written, Ok(())).and(write);
            })?;
            written?;
            writeln!(out)?;
            report(timings, completion.finish.as_ref());
        }
        prompt();
    }
    Ok(())
}
