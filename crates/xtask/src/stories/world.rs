//! The story world's state: who there is, where, with what, and what has happened.

use super::words::has;
use super::words::kinds::Kind;
use super::words::places::Spot;
use super::words::things::Good;

/// A character, by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Who(pub u8);

/// A thing, by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct It(pub u8);

/// A place, by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct At(pub u8);

/// The most characters that a story has.
pub const MOST: usize = 12;

/// What a character is to another.
#[derive(Debug, Clone)]
pub struct Kin {
    /// Whose.
    pub of: Who,
    /// "mother", "little sister".
    pub relation: &'static str,
    /// "Mama", where they are called so and not by name.
    pub title: Option<&'static str>,
}

/// An animal or a person.
#[derive(Debug, Clone)]
pub struct Character {
    /// The name; unique in a story.
    pub name: &'static str,
    /// The kind.
    pub kind: &'static Kind,
    /// He; else she.
    pub male: bool,
    /// "small": part of how the narrator speaks of them.
    pub looks: &'static str,
    /// Young, else grown or old.
    pub young: bool,
    /// What they are like.
    pub traits: Vec<&'static str>,
    /// How they feel.
    pub mood: &'static str,
    /// Where they are.
    pub place: At,
    /// Whose family they are.
    pub kin: Option<Kin>,
    /// Who likes whom.
    pub friends: Vec<Who>,
}

impl Character {
    /// Whether a tag is true of them.
    pub fn is(&self, tag: &str) -> bool {
        match tag {
            "male" => self.male,
            "female" => !self.male,
            "young" => self.young,
            "old" => !self.young,
            "kin" => self.kin.is_some(),
            _ => {
                self.kind.noun == tag
                    || self.mood == tag
                    || self.traits.contains(&tag)
                    || has(self.kind.tags, tag)
                    || has(self.kind.body.tags, tag)
                    || self.kin.as_ref().is_some_and(|kin| kin.relation == tag)
            }
        }
    }
}

/// A thing.
#[derive(Debug, Clone)]
pub struct Thing {
    /// What it is.
    pub good: &'static Good,
    /// "red".
    pub adjective: &'static str,
    /// Whose it is.
    pub owner: Option<Who>,
    /// Who has it.
    pub holder: Option<Who>,
    /// Where it lies, if nobody has it.
    pub place: Option<At>,
    /// Where there it is hidden: "under the hay".
    pub nook: &'static str,
    /// Whether it is broken.
    pub broken: bool,
    /// Where it came from.
    pub origin: Option<Origin>,
    /// How it broke, what shows, how it is mended: picks of its stuff, the same all through the story.
    pub fate: usize,
}

impl Thing {
    /// Whether a tag is true of it.
    pub fn is(&self, tag: &str) -> bool {
        match tag {
            "broken" => self.broken,
            "owned" => self.owner.is_some(),
            "gift" => matches!(self.origin, Some(Origin::Gift(_))),
            "made" => matches!(self.origin, Some(Origin::Made)),
            _ => self.good.noun == tag || self.good.stuff.tag == tag || has(self.good.tags, tag),
        }
    }
}

/// Where a thing came from.
#[derive(Debug, Clone, Copy)]
pub enum Origin {
    /// A gift from the owner's "grandmother".
    Gift(&'static str),
    /// The owner made it.
    Made,
}

/// A place.
#[derive(Debug, Clone)]
pub struct Place {
    /// What it is.
    pub spot: &'static Spot,
    /// "old", or nothing.
    pub adjective: &'static str,
}

impl Place {
    /// Whether a tag is true of it.
    pub fn is(&self, tag: &str) -> bool {
        self.spot.noun == tag || has(self.spot.tags, tag)
    }
}

/// What happened that a lesson may follow from.
pub type Fact = &'static str;

/// All of it.
#[derive(Debug, Clone, Default)]
pub struct World {
    /// The characters.
    pub cast: Vec<Character>,
    /// The things.
    pub things: Vec<Thing>,
    /// The places; the first is home.
    pub places: Vec<Place>,
    /// Who goes together, the hero first; one or two.
    pub party: Vec<Who>,
    /// "morning", "noon", "evening" or "night".
    pub time: &'static str,
    /// "sun", "rain", "wind", "fog", "snow" or "cloud".
    pub weather: &'static str,
    /// "spring", "summer", "autumn" or "winter".
    pub season: &'static str,
    /// What stands in the way, and what else a pattern may ask for.
    pub flags: Vec<&'static str>,
    /// What happened.
    pub facts: Vec<Fact>,
}

impl World {
    /// A character.
    pub fn who(&self, who: Who) -> &Character {
        &self.cast[usize::from(who.0)]
    }

    /// A character, to change.
    pub fn who_mut(&mut self, who: Who) -> &mut Character {
        &mut self.cast[usize::from(who.0)]
    }

    /// A thing.
    pub fn thing(&self, it: It) -> &Thing {
        &self.things[usize::from(it.0)]
    }

    /// A thing, to change.
    pub fn thing_mut(&mut self, it: It) -> &mut Thing {
        &mut self.things[usize::from(it.0)]
    }

    /// A place.
    pub fn place(&self, at: At) -> &Place {
        &self.places[usize::from(at.0)]
    }

    /// Whether a tag is true of the world.
    pub fn is(&self, tag: &str) -> bool {
        match tag {
            "solo" => self.party.len() == 1,
            "pair" => self.party.len() > 1,
            _ => self.time == tag || self.weather == tag || self.season == tag || self.flags.contains(&tag),
        }
    }

    /// Gives a thing to someone.
    pub fn give(&mut self, it: It, who: Who) {
        let thing = self.thing_mut(it);
        (thing.holder, thing.place) = (Some(who), None);
    }

    /// Lays a thing somewhere.
    pub fn lay(&mut self, it: It, at: At, nook: &'static str) {
        let thing = self.thing_mut(it);
        (thing.holder, thing.place, thing.nook) = (None, Some(at), nook);
    }

    /// Moves the party.
    pub fn move_party(&mut self, at: At) {
        for who in self.party.clone() {
            self.who_mut(who).place = at;
        }
    }

    /// Remembers what happened.
    pub fn note(&mut self, fact: Fact) {
        if !self.facts.contains(&fact) {
            self.facts.push(fact);
        }
    }
}
