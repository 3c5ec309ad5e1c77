//! The narrator: habits that one story keeps and another does not.

use super::rng::Rng;
use super::words::habits::HABITS;

/// A narrator's habits, in percent where they are numbers.
#[derive(Debug, Clone)]
pub struct Voice {
    /// How often a pronoun is said where it is clear.
    pub pronoun: u32,
    /// How often "the small llama" is said in place of the name.
    pub nominal: u32,
    /// How often what may be left out is left out.
    pub plain: u32,
    /// Whether each speech opens a paragraph.
    pub breaks: bool,
    /// After how many sentences a paragraph may end.
    pub paragraph: usize,
    /// "Mama" rather than "his mother".
    pub titles: bool,
    /// "said Pip" rather than "Pip said".
    pub inverts: u32,
    /// How often "said" gets an adverb or more.
    pub colors: u32,
    /// The weights of the forms of dialogue.
    pub forms: [usize; 5],
    /// How often a sentence is tied to the one before with "then" or "and".
    pub ties: u32,
    /// Which words of the rows of habit are the narrator's.
    pub habits: u64,
    /// How often nature is looked at.
    pub nature: u32,
}

impl Voice {
    /// A narrator.
    pub fn new(rng: &mut Rng) -> Self {
        Self {
            pronoun: 55 + rng.below(40) as u32,
            nominal: 3 + rng.below(22) as u32,
            plain: 25 + rng.below(45) as u32,
            breaks: rng.chance(75),
            paragraph: 3 + rng.below(4),
            titles: rng.chance(50),
            inverts: 20 + rng.below(75) as u32,
            colors: rng.below(45) as u32,
            forms: [4 + rng.below(6), 2 + rng.below(5), 1 + rng.below(4), 1 + rng.below(4), rng.below(3)],
            ties: rng.below(16) as u32,
            habits: rng.below(1 << 30) as u64,
            nature: rng.below(40) as u32,
        }
    }
    /// The narrator's word of a row.
    pub fn habit(&self, row: usize) -> &'static str {
        let words = HABITS[row];
        words[Rng::new(self.habits, row as u64).below(words.len())]
    }
}
