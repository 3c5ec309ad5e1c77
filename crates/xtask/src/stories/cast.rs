//! Who and what a story is about: characters, things and places that fit together.

use super::Story;
use super::telling::{Role, Roles};
use super::voice::Voice;
use super::words::has;
use super::words::kinds::{ELDERS, KINDS, Kind, LLAMA, OLD};
use super::words::names::{HERS, HIS};
use super::words::places::{HOMES, PLACES};
use super::words::things::{GOODS, Good};
use super::world::{At, Character, It, Kin, MOST, Origin, Place, Thing, Who, World};
use super::{page::Page, rng::Rng};

const TRAITS: &[&str] = &[
    "shy", "brave", "kind", "clever", "lazy", "proud", "curious", "patient", "cheerful", "grumpy", "gentle", "careless",
    "stubborn", "playful", "greedy", "honest", "quick", "dreamy", "helpful",
];

const HERO: Who = Who(0);

impl Story {
    /// A story's world before anything has happened: a season, a day, a home and a hero.
    pub fn new(seed: u64, number: u64) -> Self {
        let mut rng = Rng::new(seed, number);
        let voice = Voice::new(&mut rng);
        let season = *rng.pick(&["spring", "summer", "autumn", "winter"]);
        let weathers: &[&str] = match season {
            "winter" => &["snow", "snow", "cloud", "sun", "wind"],
            "autumn" => &["sun", "rain", "fog", "wind", "cloud"],
            _ => &["sun", "sun", "rain", "cloud", "wind"],
        };
        let weather = *rng.pick(weathers);
        let time = *rng.pick(&["morning", "morning", "morning", "noon"]);
        let length = 130 + rng.below(120);
        let mut story = Self {
            rng,
            world: World { season, weather, time, ..World::default() },
            voice,
            page: Page::default(),
            roles: Roles::default(),
            used: Vec::new(),
            recent: [""; 12],
            recent_at: 0,
            quoted: false,
            speaker: None,
            listener: None,
            untagged: 0,
            length,
            felt: false,
            begun: false,
            ally: None,
        };
        let home = story.rng.below(HOMES.len());
        let adjective = *story.rng.pick(HOMES[home].adjectives);
        story.world.places.push(Place { spot: &HOMES[home], adjective });
        let kind = match story.rng.below(100) {
            0..24 => &LLAMA,
            _ => &KINDS[1 + story.rng.below(KINDS.len() - 1)],
        };
        let hero = story.character(kind, true);
        story.world.party = vec![hero];
        story
    }

    /// The hero.
    pub fn hero(&self) -> Who {
        HERO
    }

    /// Gives someone a trait that the plot needs, and takes those that go badly with it.
    pub fn make(&mut self, who: Who, quality: &'static str) {
        self.world.who_mut(who).traits = vec![quality];
    }

    /// Someone new, and young: a kind that the story does not have yet.
    pub fn friend(&mut self) -> Who {
        loop {
            let kind = &KINDS[self.rng.below(KINDS.len())];
            if !self.has_kind(kind) {
                return self.character(kind, true);
            }
        }
    }

    /// Someone new, grown or old.
    pub fn elder(&mut self) -> Who {
        self.elder_of("")
    }

    /// Someone grown or old with a tag.
    pub fn elder_of(&mut self, tag: &str) -> Who {
        loop {
            let kind = &ELDERS[self.rng.below(ELDERS.len())];
            if !self.has_kind(kind) && (tag.is_empty() || has(kind.tags, tag) || has(kind.body.tags, tag)) {
                return self.character(kind, false);
            }
        }
    }

    /// Someone new for whom a section has a pattern, as the role of the letter.
    pub fn someone_for(&mut self, key: &str, letter: u8) -> Option<Who> {
        for _ in 0..10 {
            let who = if self.rng.chance(70) { self.elder() } else { self.friend() };
            if self.can_tell(key, &[Role::Who(letter, who)]) {
                return Some(who);
            }
            self.world.cast.pop();
        }
        None
    }

    /// Someone of the family: of the same kind.
    pub fn kin(&mut self, of: Who, relation: &'static str) -> Who {
        let kind = self.world.who(of).kind;
        let title = match relation {
            "mother" => Some("Mama"),
            "father" => Some("Papa"),
            "grandmother" => Some("Grandma"),
            "grandfather" => Some("Grandpa"),
            _ => None,
        };
        let male = matches!(relation, "father" | "grandfather" | "uncle") || relation.contains("brother");
        let who = self.character(kind, title.is_none() && !matches!(relation, "uncle" | "aunt"));
        let name = self.new_name(male);
        let character = self.world.who_mut(who);
        (character.male, character.name) = (male, name);
        if let Some(title) = title {
            character.name = title;
            character.traits = vec!["kind"];
            character.looks = "old";
        }
        character.kin = Some(Kin { of, relation, title });
        who
    }

    /// A thing of someone's that has the tag; no other of that noun is in the story.
    pub fn thing(&mut self, owner: Option<Who>, tag: &str) -> It {
        let fits: Vec<&Good> =
            GOODS.iter().filter(|g| tag.is_empty() || g.noun == tag || g.stuff.tag == tag || has(g.tags, tag)).collect();
        let fresh = |g: &&&Good| !self.world.things.iter().any(|t| t.good.noun == g.noun);
        let fits: Vec<&Good> = fits.iter().filter(fresh).copied().collect();
        let good = *self.rng.pick(&fits);
        let adjective = *self.rng.pick(good.adjectives);
        let giver = *self.rng.pick(&["grandmother", "grandfather", "father", "mother", "uncle", "aunt"]);
        let origin = match self.rng.below(10) {
            0..4 => Some(Origin::Gift(giver)),
            4 => Some(Origin::Made),
            _ => None,
        };
        let fate = self.rng.below(60);
        self.world.things.push(Thing {
            good,
            adjective,
            owner,
            holder: owner,
            place: None,
            nook: "",
            broken: false,
            origin: owner.and(origin),
            fate,
        });
        It(self.world.things.len() as u8 - 1)
    }

    /// A place with the tag; new to the story.
    pub fn a_place(&mut self, tag: &str) -> At {
        let fits: Vec<_> = PLACES
            .iter()
            .filter(|spot| tag.is_empty() || spot.noun == tag || has(spot.tags, tag))
            .filter(|spot| !self.world.places.iter().any(|p| p.spot.noun == spot.noun))
            .collect();
        assert!(!fits.is_empty(), "no place {tag:?} is left");
        let spot = *self.rng.pick(&fits);
        let adjective = if spot.adjectives.is_empty() { "" } else { *self.rng.pick(spot.adjectives) };
        self.world.places.push(Place { spot, adjective });
        At(self.world.places.len() as u8 - 1)
    }

    /// Hides a thing at a place.
    pub fn hide(&mut self, it: It, at: At) {
        let nook = *self.rng.pick(self.world.place(at).spot.nooks);
        self.world.lay(it, at, nook);
    }

    fn has_kind(&self, kind: &Kind) -> bool {
        self.world.cast.iter().any(|c| c.kind.noun == kind.noun)
    }

    fn character(&mut self, kind: &'static Kind, young: bool) -> Who {
        assert!(self.world.cast.len() < MOST, "a story has at most {MOST} characters");
        let male = has(kind.tags, "male") || (!has(kind.tags, "female") && self.rng.chance(50));
        let name = self.new_name(male);
        let looks = if young { *self.rng.pick(kind.young) } else { *self.rng.pick(OLD) };
        let first = *self.rng.pick(TRAITS);
        let here = self.world.cast.first().map_or(At(0), |hero| hero.place);
        self.world.cast.push(Character {
            name,
            kind,
            male,
            looks,
            young,
            traits: vec![first],
            mood: "calm",
            place: here,
            kin: None,
            friends: Vec::new(),
        });
        Who(self.world.cast.len() as u8 - 1)
    }

    /// A name whose first letter the story does not have yet.
    fn new_name(&mut self, male: bool) -> &'static str {
        let names = if male { HIS } else { HERS };
        loop {
            let name = *self.rng.pick(names);
            if self.world.cast.iter().all(|c| c.name[..1] != name[..1]) {
                return name;
            }
        }
    }
}
