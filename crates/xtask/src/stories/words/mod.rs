//! The nouns of the story world and what must be known of each to speak of it rightly.

pub mod habits;
pub mod kinds;
pub mod names;
pub mod places;
pub mod things;

/// Whether a list of tags, separated by spaces, holds one.
pub fn has(tags: &str, tag: &str) -> bool {
    tags.split(' ').any(|t| t == tag)
}

/// Whether a word takes "an": by its sound, which its first letter tells but for a few.
pub fn takes_an(word: &str) -> bool {
    const CONSONANT: [&str; 7] = ["one", "once", "use", "uni", "usual", "ewe", "euro"];
    const VOWEL: [&str; 3] = ["hour", "honest", "honor"];
    let word = word.to_ascii_lowercase();
    if VOWEL.iter().any(|start| word.starts_with(start)) {
        return true;
    }
    word.starts_with(['a', 'e', 'i', 'o', 'u']) && !CONSONANT.iter().any(|start| word.starts_with(start))
}
