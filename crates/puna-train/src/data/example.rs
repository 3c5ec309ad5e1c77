use crate::error::{Error, Kind, Result};

/// The label of a token that does not count, as [`puna_tensor`]'s losses have it.
pub const IGNORED: u32 = u32::MAX;

/// One document as tokens, with those that the model is to learn to write.
///
/// ```
/// use puna_train::data::{Example, IGNORED};
///
/// let example = Example { ids: vec![5, 6, 7, 8], counts: vec![false, false, true, true] };
/// assert_eq!(example.labels(), [IGNORED, 7, 8, IGNORED]);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Example {
    /// The tokens.
    pub ids: Vec<u32>,
    /// Of each token whether the loss counts it: whether the model is to predict it from those before. Nothing predicts the first.
    pub counts: Vec<bool>,
}

impl Example {
    /// Tokens of which all count.
    pub fn text(ids: Vec<u32>) -> Self {
        Self { counts: vec![true; ids.len()], ids }
    }

    /// What each token should predict: the next one, or [`IGNORED`] where that does not count or there is none.
    pub fn labels(&self) -> Vec<u32> {
        let next = self.ids.iter().zip(&self.counts).skip(1).map(|(&id, &counts)| if counts { id } else { IGNORED });
        next.chain(self.ids.last().map(|_| IGNORED)).collect()
    }

    /// How many labels count.
    pub fn counted(&self) -> usize {
        self.counts.iter().skip(1).filter(|counts| **counts).count()
    }

    /// Refuses an example that teaches nothing.
    pub(crate) fn checked(self, place: &dyn Fn() -> String) -> Result<Self> {
        if self.counted() > 0 {
            return Ok(self);
        }
        let n = self.ids.len();
        let message =
            format!("nothing to learn: of its tokens ({n}) none counts that has another before it; one at least should");
        Err(Error::new(Kind::NothingToLearn, place(), message))
    }
}
