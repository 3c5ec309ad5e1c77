//! What characters say, in the forms that dialogue has.

use super::Story;
use super::page::write;
use super::pattern::{Form, Speech};
use super::telling::Role;
use super::world::Who;

impl Story {
    /// Tells what someone says.
    pub fn speak(&mut self, speech: &'static Speech) {
        let speaker = self.meant(speech.speaker);
        let to = speech.to.map(|letter| self.meant(letter));
        let changes = self.page.speaker != Some(speaker) || !self.page.spoken;
        let stays = self.page.subject_before == Some(speaker) && self.page.sentences < 3 && !self.page.spoken;
        if self.voice.breaks && changes && !(stays && self.rng.chance(60)) {
            self.page.paragraph();
        }
        let (first, second) = self.words(speech, speaker, to);
        let mut form = self.form(!second.is_empty());
        if form == 0 && speech.manner == "ask" && !second.is_empty() && !second.ends_with('?') {
            form = 1;
        }
        // Whoever goes on speaking is mentioned first, so that two quotations do not run together.
        let goes_on = self.page.spoken && self.page.speaker == Some(speaker);
        if goes_on {
            form = 2 + self.rng.below(2);
        }
        // Two who answer each other need no "said" each time.
        let turns =
            self.page.spoken && self.page.speaker.is_some() && self.page.speaker != Some(speaker) && self.page.speaker == to;
        let text = if turns && self.voice.breaks && self.untagged < 2 && self.rng.chance(18) {
            self.untagged += 1;
            format!("\"{}\"", join(&first, &second))
        } else {
            self.untagged = 0;
            self.tagged(speech, speaker, to, &first, &second, form)
        };
        self.page.add(&text);
        self.page.now |= super::reference::bit(speaker);
        if let Some(to) = to {
            self.page.now |= super::reference::bit(to);
        }
        self.page.subject = Some(speaker);
        self.page.sentence();
        self.page.speaker = Some(speaker);
        self.page.spoken = true;
    }

    fn meant(&self, letter: u8) -> Who {
        match letter {
            b'h' => self.world.party[0],
            _ => self.roles.who(letter).unwrap_or_else(|| panic!("nobody is {:?} here", char::from(letter))),
        }
    }

    fn words(&mut self, speech: &'static Speech, speaker: Who, to: Option<Who>) -> (String, String) {
        (self.speaker, self.listener, self.quoted) = (Some(speaker), to, true);
        let (mut first, mut second) = (String::new(), String::new());
        self.render(&speech.first, &mut first);
        self.render(&speech.second, &mut second);
        (self.speaker, self.listener, self.quoted) = (None, None, false);
        (first.trim().to_owned(), second.trim().to_owned())
    }

    fn form(&mut self, parts: bool) -> usize {
        let mut weights = self.voice.forms;
        if !parts {
            weights[1] = 0;
        }
        let mut at = self.rng.below(weights.iter().sum());
        weights
            .iter()
            .position(|weight| {
                at < *weight || {
                    at -= weight;
                    false
                }
            })
            .expect("below the sum")
    }

    fn tagged(&mut self, speech: &Speech, speaker: Who, to: Option<Who>, first: &str, second: &str, form: usize) -> String {
        self.roles_set(Role::Who(b'e', speaker));
        let all = join(first, second);
        match form {
            0 => format!("\"{}\" {}.", comma(&all), self.tag(speech, speaker, to, false)),
            1 => format!("\"{}\" {}. \"{second}\"", comma(first), self.tag(speech, speaker, to, false)),
            2 => {
                let mut out = String::new();
                write(&mut out, &self.tag(speech, speaker, to, true));
                format!("{out}, \"{all}\"")
            }
            3 => format!("{} \"{all}\"", self.phrase(&format!("beat.{}", speech.manner))),
            _ => format!("\"{all}\" {}", self.phrase(&format!("beat.{}", speech.manner))),
        }
    }

    /// "said Pip softly".
    fn tag(&mut self, speech: &Speech, speaker: Who, to: Option<Who>, before: bool) -> String {
        let verb = self.phrase(&format!("verb.{}", speech.manner));
        let verb = verb.to_lowercase();
        // "Pip told" and the like take no "him" in front; a pronoun follows no verb: "he said", never "said he".
        let name = self.refer(speaker, Form::Plain);
        let pronoun = name == "he" || name == "she";
        let mut tag = if !before && !pronoun && !verb.contains(' ') && self.rng.chance(self.voice.inverts) {
            format!("{verb} {name}")
        } else {
            format!("{name} {verb}")
        };
        if !verb.contains(' ') && self.rng.chance(self.voice.colors) {
            let color = self.phrase(&format!("adverb.{}", speech.manner)).to_lowercase();
            tag = format!("{tag} {color}");
        } else if let Some(to) = to
            && verb == "said"
            && self.rng.chance(12)
        {
            let whom = self.refer(to, Form::Object);
            tag = format!("{tag} to {whom}");
        }
        tag
    }

    /// A phrase of a section.
    pub fn phrase(&mut self, key: &str) -> String {
        let line = self.choose(key);
        let [super::pattern::Step::Narrate(nodes)] = &line.steps[..] else {
            panic!("{key:?} takes plain phrases");
        };
        let mut out = String::new();
        self.render(nodes, &mut out);
        out
    }
}

fn join(first: &str, second: &str) -> String {
    if second.is_empty() { first.to_owned() } else { format!("{first} {second}") }
}

/// A full stop before "said" is a comma.
fn comma(words: &str) -> String {
    words.strip_suffix('.').map_or_else(|| words.to_owned(), |words| format!("{words},"))
}
