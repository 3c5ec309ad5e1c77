//! What has been told so far: the text, and who in it can be meant by "he" or "she".

use super::words::takes_an;
use super::world::{MOST, Who};

/// The text of a story while it is told.
#[derive(Debug, Clone, Default)]
pub struct Page {
    /// The text, with "a" for each "a" or "an".
    pub text: String,
    /// Sentences since the paragraph began.
    pub sentences: usize,
    /// Who is mentioned in the sentence, and who was in the one before; a bit each.
    pub now: u32,
    /// Who was mentioned in the sentence before.
    pub before: u32,
    /// Who does what the sentence tells.
    pub subject: Option<Who>,
    /// Who did in the sentence before.
    pub subject_before: Option<Who>,
    /// The two who were last mentioned together, as bits, and how many sentences ago.
    pub pair: (u32, usize),
    /// Who is known to the reader.
    pub known: u32,
    /// Which things are.
    pub things: u64,
    /// Which places are.
    pub places: u64,
    /// How often each was a pronoun since the last name.
    pub runs: [u8; MOST],
    /// Who spoke last.
    pub speaker: Option<Who>,
    /// Whether the last step was speech.
    pub spoken: bool,
}

impl Page {
    /// Whether a paragraph has only begun.
    pub fn fresh(&self) -> bool {
        self.sentences == 0
    }

    /// Ends the paragraph.
    pub fn paragraph(&mut self) {
        if !self.text.is_empty() && !self.text.ends_with('\n') {
            self.text.push_str("\n\n");
        }
        self.sentences = 0;
    }

    /// Ends the sentence.
    pub fn sentence(&mut self) {
        if self.now != 0 {
            (self.before, self.now) = (self.now, 0);
            (self.subject_before, self.subject) = (self.subject, None);
        }
        self.pair.1 += 1;
        self.sentences += 1;
    }

    /// Adds sentences that end.
    pub fn add(&mut self, sentences: &str) {
        if !self.text.is_empty() && !self.text.ends_with('\n') {
            self.text.push(' ');
        }
        self.text.push_str(sentences.trim());
    }

    /// The words so far, about.
    pub fn words(&self) -> usize {
        self.text.len() * 10 / 52
    }

    /// The text as it is read: "an" where the sound asks for it, no space too many.
    pub fn finish(&self) -> String {
        let text = self.text.trim_end();
        let mut out = String::with_capacity(text.len() + 16);
        for (i, paragraph) in text.split("\n\n").enumerate() {
            if i > 0 {
                out.push_str("\n\n");
            }
            let start = out.len();
            let mut article = false;
            for word in paragraph.split(' ').filter(|word| !word.is_empty()) {
                if article && takes_an(word.trim_start_matches('"')) {
                    out.push('n');
                }
                if out.len() > start && !word.starts_with([',', '.', '!', '?', ';']) {
                    out.push(' ');
                }
                out.push_str(word);
                article = matches!(word.trim_start_matches('"'), "a" | "A");
            }
        }
        out
    }
}

/// Writes a word or a phrase, with a capital where a sentence begins.
pub fn write(out: &mut String, text: &str) {
    let start = out.trim_end_matches(' ');
    let begins = match start.strip_suffix('"') {
        // After a quotation: `"Help!" he cried`, but `"Help." He cried`.
        Some(quotation) if start.len() < out.len() => quotation.ends_with('.'),
        // An opening mark.
        Some(_) => true,
        None => start.is_empty() || start.ends_with(['.', '!', '?']),
    };
    if begins {
        let at = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(0);
        let (space, text) = text.split_at(at);
        out.push_str(space);
        let mut letters = text.chars();
        out.extend(letters.next().map(|c| c.to_ascii_uppercase()));
        out.push_str(letters.as_str());
    } else {
        out.push_str(text);
    }
}
