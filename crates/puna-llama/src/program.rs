//! Steps of decoding in shapes that many steps share, which a device records: a token of each sequence, and the drawing of the next.

use puna_tensor::{Device, Recording, Tensor, no_grad};

use crate::error::Result;
use crate::inputs::{Inputs, Numbers};
use crate::model::Llama;
use crate::step::Step;

/// What steps have in common that one recording serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Key {
    /// The weights: [`Llama::identity`].
    pub(crate) weights: u64,
    /// How many sequences there is room for.
    pub(crate) rows: usize,
    /// How many tokens each of them may have.
    pub(crate) reach: usize,
    /// How many tokens' history penalties read: none, or `reach`.
    pub(crate) history: usize,
    /// How many tokens' logits may have something added.
    pub(crate) bias: usize,
}

impl Key {
    /// Room for so many sequences: up to an eighth of it is left empty, and little of it where they are few.
    pub(crate) fn rows(sequences: usize) -> usize {
        let step = (sequences.next_power_of_two() / 8).max(1);
        sequences.next_multiple_of(step)
    }

    /// Room for so many tokens of a sequence.
    pub(crate) fn reach(tokens: usize) -> usize {
        tokens.next_power_of_two().max(1024)
    }
}

/// What a step draws, a row for each sequence.
#[derive(Debug, Clone)]
pub(crate) struct Draws {
    /// `[rows]` u32.
    pub(crate) ids: Tensor,
    /// `[rows]` f32.
    pub(crate) log_probabilities: Tensor,
    /// `[rows, vocab_size]`.
    pub(crate) logits: Tensor,
}

impl Draws {
    /// The next tokens of hidden states `[rows, hidden_size]`.
    pub(crate) fn of(llama: &Llama, hidden: &Tensor, inputs: &Inputs) -> puna_tensor::Result<Self> {
        let logits = llama.logits(hidden)?;
        let (ids, log_probabilities) = logits.sample(inputs.sampling())?;
        Ok(Self { ids, log_probabilities, logits })
    }
}

/// A step of decoding, its tensors, and the recording of it.
#[derive(Debug)]
pub(crate) struct Program {
    inputs: Inputs,
    step: Step,
    state: State,
    /// The number of the step that it ran last, of whatever batch: its input holds what that one drew.
    last: u64,
}

#[derive(Debug)]
enum State {
    New,
    /// It has run, so that all kernels are compiled and memory is at hand.
    Warm,
    /// Each replay overwrites what the one before drew.
    Recorded(Recording, Draws),
}

impl Program {
    /// `step`: of `inputs`.
    pub(crate) fn new(inputs: Inputs, step: Step) -> Self {
        Self { inputs, step, state: State::New, last: 0 }
    }

    pub(crate) fn last(&self) -> u64 {
        self.last
    }

    /// Enqueues it as step number `number`. What it draws are the next step's ids, where that does not know better, and holds until then.
    pub(crate) fn run(&mut self, llama: &Llama, numbers: Numbers, number: u64, device: &Device) -> Result<Draws> {
        // Whatever goes wrong: what it has drawn is not what the step before it asked for.
        self.last = 0;
        self.inputs.write(numbers)?;
        let Self { inputs, step, .. } = self;
        let run = || {
            let draws = Draws::of(llama, &llama.forward(&inputs.ids, step)?, inputs)?;
            inputs.ids.assign(&draws.ids)?;
            Ok(draws)
        };
        let draws = no_grad(|| -> puna_tensor::Result<Draws> {
            if matches!(self.state, State::New) {
                let draws = device.step(run)?;
                self.state = State::Warm;
                return Ok(draws);
            }
            if matches!(self.state, State::Warm) {
                let (recording, draws) = device.record(run)?.expect("programs are for devices that record");
                self.state = State::Recorded(recording, draws);
            }
            let State::Recorded(recording, draws) = &self.state else { unreachable!("recorded above") };
            recording.replay()?;
            Ok(draws.clone())
        })?;
        self.last = number;
        Ok(draws)
    }
}
