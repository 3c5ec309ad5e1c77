//! Chats: messages, the checkpoint's own Jinja template, and Meta's dialog formats for checkpoints that have none.
//!
//! ```
//! use puna_llama::chat::{ChatInput, ChatTemplate, Message};
//!
//! let template = ChatTemplate::new("{% for m in messages %}<{{ m.role }}>{{ m.content | trim }}\n{% endfor %}")?;
//! let messages = [Message::user(" Hello ")];
//! assert_eq!(template.render(&ChatInput::new(&messages))?, "<user>Hello\n");
//! # Ok::<(), puna_llama::chat::ChatError>(())
//! ```
//!
//! [`ChatTemplate::segments`] is what a tokenizer takes: pieces of text with what each piece may hold. A template of the
//! checkpoint is one piece in which special tokens are parsed; Meta's formats ([`MetaDialog`]) are many, in which what a
//! user wrote can never become a special token.

mod clock;
mod dialog;
mod message;
mod python;
mod rewrite;
mod template;

pub use clock::DateTime;
pub use dialog::{MetaDialog, MetaFormat, ToolCallFormat};
pub use message::{Message, Segment, encode_segments};
pub use template::{ChatInput, ChatTemplate};

/// What can be wrong with a template, with the messages, or between the two.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChatError {
    /// The source is no Jinja that we run.
    #[error("chat template, line {line}: {message}")]
    Syntax {
        /// Line in the source, from 1; 0 where unknown.
        line: usize,
        /// What the parser said.
        message: String,
    },
    /// The source is longer than any template has reason to be.
    #[error("chat template: {bytes} bytes, at most {limit} are compiled")]
    TooLarge {
        /// Length of the source in bytes.
        bytes: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// The template itself refused the conversation, by `raise_exception`.
    #[error("chat template: the template refuses these messages: {message}")]
    Raised {
        /// The template's own words.
        message: String,
    },
    /// The template asked for more work than its budget; real templates use a small part of it.
    #[error("chat template: stopped after its budget of {fuel} steps; a loop without end, or ChatTemplate::with_fuel for more")]
    OutOfFuel {
        /// The budget.
        fuel: u64,
    },
    /// Rendering failed otherwise: a missing value, an unknown filter, a value nested too deeply.
    #[error("chat template, line {line}: {message}")]
    Render {
        /// Line in the source, from 1; 0 where unknown.
        line: usize,
        /// What went wrong.
        message: String,
    },
    /// The messages do not fit: no object, no role, a role or content that the format does not know.
    #[error("chat: {0}")]
    Input(String),
}

impl From<ChatError> for crate::Error {
    fn from(source: ChatError) -> Self {
        let text = source.to_string();
        let (place, message) = text.split_once(": ").unwrap_or(("chat", &text));
        Self::new(crate::Kind::ChatTemplate, place, message).with_source(source)
    }
}
