use std::fmt;
use std::path::{Path, PathBuf};

use super::Record;

/// What happened just now.
#[derive(Debug, Clone, Copy)]
pub enum Event<'a> {
    /// A step was taken.
    Step(&'a Record),
    /// Held-out data was evaluated.
    Evaluated {
        /// After how many steps.
        step: u64,
        /// The mean loss, in nats a token.
        loss: f64,
    },
    /// A checkpoint was written, whole.
    Saved(&'a Path),
}

/// How a run ended.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Report {
    /// Steps taken, with those before it was resumed.
    pub steps: u64,
    /// Tokens of this run.
    pub tokens: u64,
    /// The loss of the last step, in nats a token.
    pub loss: f64,
    /// The last loss on held-out data.
    pub held_out: Option<f64>,
    /// How long this run took.
    pub seconds: f64,
    /// The last checkpoint.
    pub checkpoint: Option<PathBuf>,
    /// Whether it was told to stop before its last step.
    pub stopped: bool,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { steps, tokens, loss, seconds, .. } = self;
        write!(f, "{steps} steps, {tokens} tokens in {seconds:.0} s, loss {loss:.4}")?;
        if let Some(loss) = self.held_out {
            write!(f, ", held out {loss:.4}")?;
        }
        if let (true, Some(checkpoint)) = (self.stopped, &self.checkpoint) {
            write!(f, "; stopped, and goes on from {} with the same command", checkpoint.display())?;
        }
        Ok(())
    }
}
