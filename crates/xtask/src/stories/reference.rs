//! How characters, things and places are spoken of: by name, by pronoun, as "the small llama", so that it is always clear who is meant.

use super::Story;
use super::pattern::Form;
use super::world::{At, It, Origin, Who};

impl Story {
    /// A mention of a character.
    pub fn refer(&mut self, who: Who, form: Form) -> String {
        let character = self.world.who(who);
        let (kind, male) = (character.kind, character.male);
        let name = character.name;
        // A pronoun that a pattern asks for mentions someone too: another's may then be unclear.
        if matches!(form, Form::He | Form::Him | Form::His | Form::Oneself) && !self.quoted {
            self.page.now |= bit(who);
        }
        let pronoun = |he: &str, she: &str| if male { he.to_owned() } else { she.to_owned() };
        match form {
            Form::He => pronoun("he", "she"),
            Form::Him => pronoun("him", "her"),
            Form::His => pronoun("his", "her"),
            Form::Oneself => pronoun("himself", "herself"),
            Form::Was => "was".into(),
            Form::Foot => kind.body.foot[0].into(),
            Form::Feet => kind.body.foot[1].into(),
            Form::Nose => kind.body.nose.into(),
            Form::Coat => kind.body.coat.into(),
            Form::Hold => kind.body.hold.into(),
            Form::Went => (*self.rng.pick(kind.body.went)).into(),
            Form::Kind => kind.noun.into(),
            Form::Vocative => self.vocative(who),
            _ if self.quoted => self.in_quotation(who, form),
            Form::An if self.page.known & bit(who) == 0 => self.introduce(who, true),
            Form::An => {
                let name = self.name(who);
                self.mention(who, true);
                name
            }
            Form::AKind => self.introduce(who, false),
            Form::Name => {
                self.mention(who, true);
                name.to_owned()
            }
            Form::Plain | Form::Object | Form::Possessive => self.clearest(who, form),
            _ => panic!("{form:?} is no form of a character"),
        }
    }

    /// The mention that is clear and that the narrator likes.
    fn clearest(&mut self, who: Who, form: Form) -> String {
        let possessive = |text: String| if form == Form::Possessive { format!("{text}'s") } else { text };
        if self.page.known & bit(who) == 0 {
            let text = self.introduce(who, true);
            if form == Form::Plain && self.page.subject.is_none() {
                self.page.subject = Some(who);
            }
            return possessive(text);
        }
        let now = self.page.now & bit(who) != 0;
        let percent = match form {
            Form::Possessive if self.page.subject == Some(who) => 100,
            _ if !self.clear(who) => 0,
            _ if now => 97,
            _ if self.page.fresh() => 20,
            _ if self.page.runs[usize::from(who.0)] > 3 => 10,
            Form::Plain => self.voice.pronoun,
            _ => 85,
        };
        if form == Form::Plain && self.page.subject.is_none() {
            self.page.subject = Some(who);
        }
        if self.rng.chance(percent) {
            self.mention(who, false);
            let male = self.world.who(who).male;
            let he = match form {
                Form::Plain => ["he", "she"],
                Form::Possessive => ["his", "her"],
                _ => ["him", "her"],
            };
            return he[usize::from(!male)].to_owned();
        }
        let text = self.name(who);
        self.mention(who, true);
        possessive(text)
    }

    /// The name, "his mother", or "the small llama" where nobody else can be meant.
    fn name(&mut self, who: Who) -> String {
        let character = self.world.who(who).clone();
        if let Some(kin) = &character.kin
            && let Some(title) = kin.title
        {
            if self.voice.titles && self.page.known & bit(who) != 0 {
                return title.to_owned();
            }
            let of = self.possessor(kin.of);
            return format!("{of} {}", kin.relation);
        }
        let alone = self.world.cast.iter().filter(|c| c.kind.noun == character.kind.noun && c.kin.is_none()).count() == 1;
        let nominal = alone && character.kin.is_none() && self.page.known & bit(who) != 0;
        if nominal && self.page.now & bit(who) == 0 && self.rng.chance(self.voice.nominal) {
            return format!("the {} {}", character.looks, character.kind.noun);
        }
        character.name.to_owned()
    }

    /// "his" or "Pip's", for someone's family.
    fn possessor(&mut self, who: Who) -> String {
        let male = self.world.who(who).male;
        if self.page.subject == Some(who) || self.clear(who) {
            return if male { "his".into() } else { "her".into() };
        }
        format!("{}'s", self.world.who(who).name)
    }

    /// Makes someone known.
    fn introduce(&mut self, who: Who, named: bool) -> String {
        let character = self.world.who(who).clone();
        let text = match &character.kin {
            Some(kin) => {
                let of = self.possessor(kin.of);
                let name = if kin.title.is_none() { format!(" {}", character.name) } else { String::new() };
                format!("{of} {}{name}", kin.relation)
            }
            None if named => {
                let verb = *self.rng.pick(&["named", "named", "called"]);
                format!("a {} {} {verb} {}", character.looks, character.kind.noun, character.name)
            }
            None => format!("a {} {}", character.looks, character.kind.noun),
        };
        self.mention(who, true);
        text
    }

    fn mention(&mut self, who: Who, named: bool) {
        self.page.now |= bit(who);
        self.page.known |= bit(who);
        let run = &mut self.page.runs[usize::from(who.0)];
        *run = if named { 0 } else { *run + 1 };
    }

    /// Whether a pronoun can mean nobody else: mentioned, and no other of the same pronoun is.
    fn clear(&self, who: Who) -> bool {
        let near = self.page.now | self.page.before;
        let male = self.world.who(who).male;
        let others = (0..self.world.cast.len() as u8).map(Who).filter(|w| *w != who && self.world.who(*w).male == male);
        near & bit(who) != 0 && others.into_iter().all(|w| near & bit(w) == 0)
    }

    /// What the speaker calls someone to their face.
    fn vocative(&mut self, who: Who) -> String {
        let character = self.world.who(who);
        if let Some(kin) = &character.kin
            && let Some(title) = kin.title
        {
            return if self.speaker == Some(kin.of) { title.to_owned() } else { "my friend".to_owned() };
        }
        let name = character.name.to_owned();
        let elder = self.speaker.is_some_and(|s| {
            let speaker = self.world.who(s);
            !speaker.young && speaker.kin.as_ref().is_some_and(|kin| kin.of == who && kin.title.is_some())
        });
        if elder && self.rng.chance(45) {
            return (*self.rng.pick(&["my dear", "little one", "my darling", "dear", "sweetheart"])).to_owned();
        }
        name
    }

    /// A mention inside of what someone says.
    fn in_quotation(&mut self, who: Who, form: Form) -> String {
        let character = self.world.who(who);
        let (speaker, to) = (self.speaker, self.listener);
        let cases = |i: &str, me: &str, my: &str| match form {
            Form::Possessive => my.to_owned(),
            Form::Object => me.to_owned(),
            _ => i.to_owned(),
        };
        if speaker == Some(who) && form != Form::Name {
            return cases("I", "me", "my");
        }
        if to == Some(who) && form != Form::Name {
            return cases("you", "you", "your");
        }
        let text = match &character.kin {
            Some(kin) if kin.title.is_some() && (speaker == Some(kin.of) || speaker == Some(who)) => {
                kin.title.expect("it is some").to_owned()
            }
            Some(kin) if kin.title.is_some() && to == Some(kin.of) => format!("your {}", kin.relation),
            Some(kin) if kin.title.is_some() => format!("{}'s {}", self.world.who(kin.of).name, kin.relation),
            _ if matches!(form, Form::An | Form::AKind) => format!("a {} {}", character.looks, character.kind.noun),
            _ => character.name.to_owned(),
        };
        if form == Form::Possessive { format!("{text}'s") } else { text }
    }

    /// A mention of those who go together: the hero alone, or two.
    pub fn party(&mut self, form: Form) -> String {
        let party = self.world.party.clone();
        let solo = party.len() == 1;
        let of = |one: &str, two: &str| if solo { one.to_owned() } else { two.to_owned() };
        match form {
            Form::I => return of("I", "we"),
            Form::Me => return of("me", "us"),
            Form::Was => return of("was", "were"),
            _ if solo => return self.refer(party[0], form),
            Form::He => return "they".into(),
            Form::Him => return "them".into(),
            Form::His => return "their".into(),
            Form::Oneself => return "themselves".into(),
            Form::Went => return self.refer(party[0], form),
            Form::Feet => return "feet".into(),
            _ => {}
        }
        self.pair([party[0], party[1]], form)
    }

    /// A mention of two together.
    pub fn pair(&mut self, party: [Who; 2], form: Form) -> String {
        let both = bit(party[0]) | bit(party[1]);
        let pronoun = match form {
            Form::Plain => "they",
            Form::Possessive => "their",
            Form::Object => "them",
            _ => panic!("{form:?} is no form of two"),
        };
        let near = self.page.now | self.page.before;
        // No other two are spoken of as "they", so that it stays clear for a while.
        let percent = match near & both == both || self.page.pair.0 == both && self.page.pair.1 < 6 {
            true if self.page.now & both == both => 97,
            true if self.page.fresh() => 25,
            true => self.voice.pronoun,
            false => 0,
        };
        let text = if self.rng.chance(percent) {
            pronoun.to_owned()
        } else {
            let friends = self.page.known & both == both && self.page.now & both == 0 && self.rng.chance(self.voice.nominal);
            let text = if friends {
                (*self.rng.pick(&["the two friends", "the friends", "the two of them"])).to_owned()
            } else {
                let first = self.named_plainly(party[0]);
                let second = self.named_plainly(party[1]);
                format!("{first} and {second}")
            };
            match form {
                Form::Possessive if text.ends_with('s') => format!("{text}'"),
                Form::Possessive => format!("{text}'s"),
                _ => text,
            }
        };
        self.page.now |= both;
        self.page.pair = (both, 0);
        text
    }

    /// The name, or how a new one is made known.
    fn named_plainly(&mut self, who: Who) -> String {
        if self.page.known & bit(who) == 0 {
            return self.introduce(who, true);
        }
        let character = self.world.who(who);
        if character.kin.as_ref().is_some_and(|kin| kin.title.is_some()) {
            return self.name(who);
        }
        character.name.to_owned()
    }

    /// A mention of a thing.
    pub fn mention_thing(&mut self, it: It, form: Form) -> String {
        let thing = self.world.thing(it).clone();
        let (noun, stuff) = (thing.good.noun, thing.good.stuff);
        let full = format!("{} {noun}", thing.adjective);
        let known = self.page.things & (1 << it.0) != 0;
        let of_fate = |words: &[&'static str]| words[thing.fate % words.len()].to_owned();
        match form {
            Form::A => self.page.things |= 1 << it.0,
            Form::Noun | Form::Full | Form::Plain if !self.quoted => self.page.things |= 1 << it.0,
            _ => {}
        }
        match form {
            Form::Noun => noun.into(),
            Form::Full => full,
            Form::A => format!("a {full}"),
            Form::Broke => of_fate(stuff.broke),
            Form::Damage => of_fate(stuff.damage),
            Form::Mended => of_fate(stuff.mended),
            Form::With => of_fate(stuff.with),
            Form::Nook => thing.nook.into(),
            Form::Origin => match (thing.origin, thing.owner) {
                (Some(Origin::Gift(from)), Some(owner)) => {
                    let of = self.refer(owner, Form::His);
                    format!("a gift from {of} {from}")
                }
                _ => panic!("{noun} is no gift; ask before"),
            },
            Form::Plain => {
                let short = if known && self.rng.chance(60) { noun.to_owned() } else { full };
                match thing.owner {
                    Some(owner) if self.quoted && self.speaker == Some(owner) => format!("my {short}"),
                    Some(owner) if self.quoted && self.listener == Some(owner) => format!("your {short}"),
                    Some(owner) if !self.quoted && self.page.subject == Some(owner) && (!known || self.rng.chance(40)) => {
                        let his = self.refer(owner, Form::His);
                        format!("{his} {short}")
                    }
                    Some(owner) if !known && (self.quoted || self.page.known & bit(owner) != 0) => {
                        format!("{}'s {short}", self.world.who(owner).name)
                    }
                    _ if known => format!("the {short}"),
                    _ => format!("a {short}"),
                }
            }
            _ => panic!("{form:?} is no form of a thing"),
        }
    }

    /// A mention of a place.
    pub fn mention_place(&mut self, at: At, form: Form) -> String {
        let place = self.world.place(at).clone();
        let known = self.page.places & (1 << at.0) != 0;
        let noun = place.spot.noun;
        let full = !place.adjective.is_empty() && (!known || self.rng.chance(12));
        let the = if full { format!("the {} {noun}", place.adjective) } else { format!("the {noun}") };
        if matches!(form, Form::Plain | Form::At | Form::To | Form::A) && !self.quoted {
            self.page.places |= 1 << at.0;
        }
        match form {
            Form::Plain => the,
            Form::At => format!("{} {the}", place.spot.at),
            Form::To => format!("to {the}"),
            Form::A => format!("{} a {} {noun}", place.spot.at, place.adjective),
            Form::Noun => noun.into(),
            Form::Nook => {
                let mut nook = *self.rng.pick(place.spot.nooks);
                while self.recent.contains(&nook) && !place.spot.nooks.iter().all(|n| self.recent.contains(n)) {
                    nook = *self.rng.pick(place.spot.nooks);
                }
                self.remember(nook);
                nook.into()
            }
            _ => panic!("{form:?} is no form of a place"),
        }
    }
}

/// A character's bit in the page's sets.
pub fn bit(who: Who) -> u32 {
    1 << who.0
}
