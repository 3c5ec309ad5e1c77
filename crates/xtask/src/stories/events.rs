//! What can happen in any story: days begin, ways are gone, obstacles met, lost things sought, broken things mended.

use super::Story;
use super::telling::roles;
use super::world::{At, Fact, It, Who};

/// What can stand in the way, and where it may.
const OBSTACLES: &[&str] =
    &["river", "tree", "rocks", "mist", "mud", "thorns", "gate", "bridge", "gander", "dark", "river", "rocks", "snowdrift"];

impl Story {
    /// The opening: the hero, the home, what they are like.
    pub fn open(&mut self) {
        let (a, p) = (self.hero(), At(0));
        self.tell("open", roles![a: a, p: p]);
        self.maybe(55, "habit", roles![a: a, p: p]);
        self.maybe(15, "family", roles![a: a]);
        self.maybe(40, "prelude", roles![a: a, p: p]);
    }

    /// The hero's friend from the beginning.
    pub fn old_friend(&mut self) -> Who {
        let (a, b) = (self.hero(), self.friend());
        self.world.who_mut(a).friends.push(b);
        self.tell("friendof", roles![a: a, b: b, p: At(0)]);
        self.maybe(50, "friendtrait", roles![a: a, b: b, p: At(0)]);
        self.maybe(45, "pastime", roles![a: a, b: b, p: At(0)]);
        self.ally = Some(b);
        b
    }

    /// The day on which it happens.
    pub fn one_day(&mut self) {
        let a = self.hero();
        let here = self.world.who(a).place;
        self.begun = true;
        self.page.paragraph();
        self.tell("oneday", roles![a: a, p: here]);
        if self.rng.chance(20 + self.voice.nature) {
            self.tell("weather", &[]);
        }
        self.maybe(self.voice.nature, "nature", &[]);
    }

    /// A new scene: a paragraph, at times with a look around.
    pub fn scene(&mut self) {
        self.begun = true;
        self.page.paragraph();
        if self.rng.chance(8 + self.voice.nature / 2) {
            let here = self.world.who(self.hero()).place;
            self.tell("aside", roles![p: here]);
        }
    }

    /// Someone feels something.
    pub fn feel(&mut self, who: Who, mood: &'static str) {
        self.world.who_mut(who).mood = mood;
        self.tell(&format!("feel.{mood}"), roles![a: who]);
    }

    /// Remembers what a lesson may follow from.
    pub fn note(&mut self, fact: Fact) {
        self.world.note(fact);
    }

    /// Whether there is room for more.
    pub fn room(&self) -> bool {
        self.page.words() < self.length
    }

    /// Someone joins the hero.
    pub fn join(&mut self, b: Who) {
        let a = self.hero();
        self.world.party = vec![a, b];
        let here = self.world.who(a).place;
        self.world.who_mut(b).place = here;
    }

    /// The hero goes on alone.
    pub fn part(&mut self) {
        self.world.party.truncate(1);
    }

    /// The time of day moves on.
    pub fn pass(&mut self, percent: u32) {
        self.world.time = match self.world.time {
            "morning" => "noon",
            "noon" => "evening",
            _ => "night",
        };
        self.maybe(percent, "later", &[]);
    }

    /// What the hero did on that day before anything happened.
    pub fn before(&mut self) {
        self.page.paragraph();
        self.tell("alone", &[]);
        self.maybe(30, "weather", &[]);
        self.begun = true;
    }

    /// A night passes.
    pub fn next_day(&mut self) {
        self.page.paragraph();
        self.world.time = "morning";
        if self.world.weather != "snow" && self.rng.chance(40) {
            self.world.weather = "sun";
        }
        let a = self.hero();
        self.tell("nextday", roles![a: a]);
    }

    /// The party goes to a place, past what may stand in the way.
    pub fn go(&mut self, p: At, trouble: u32) {
        let a = self.hero();
        self.tell("setoff", roles![a: a, p: p]);
        if self.rng.chance(40) && self.room() {
            self.tell("travel", roles![a: a, p: p]);
        }
        if self.rng.chance(trouble) && self.room() {
            self.obstacle();
        }
        self.world.move_party(p);
        self.maybe(75, "arrive", roles![a: a, p: p]);
    }

    /// The party goes a long way, on which one thing stands in the way and, where there is room, another.
    pub fn trek(&mut self, p: At) {
        let a = self.hero();
        self.tell("setoff", roles![a: a, p: p]);
        self.maybe(50, "travel", roles![a: a, p: p]);
        self.obstacle();
        if self.room() {
            self.maybe(60, "travel", roles![a: a, p: p]);
            self.obstacle();
        }
        self.world.move_party(p);
        self.maybe(75, "arrive", roles![a: a, p: p]);
    }

    /// Something stands in the way; the party gets past it by its own wit, by what a companion can do, or by help.
    pub fn obstacle(&mut self) {
        let a = self.hero();
        let mut flag = *self.rng.pick(OBSTACLES);
        let winter = self.world.season == "winter";
        if flag == "snowdrift" && !winter {
            flag = "gate";
        }
        if self.world.flags.contains(&flag) {
            return;
        }
        let before = std::mem::replace(&mut self.world.flags, vec![flag]);
        self.page.paragraph();
        self.tell("cross.meet", roles![a: a]);
        let pair = self.world.party.len() > 1;
        if pair && self.can_tell("cross.friend", &[]) {
            self.tell("cross.friend", roles![a: a]);
            self.note("friend");
        } else if self.rng.chance(45)
            && let Some(c) = self.someone_for("cross.helper", b'c')
        {
            self.tell("cross.helper", roles![a: a, c: c]);
            self.maybe(60, "cross.thanks", roles![a: a, c: c]);
            self.note("helped");
        } else {
            let mood = *self.rng.pick(&["worried", "hopeful", "afraid"]);
            if self.rng.chance(25) {
                self.feel(a, mood);
            }
            self.maybe(30, "think", roles![a: a]);
            self.tell("cross.alone", roles![a: a]);
            self.note("clever");
        }
        self.world.flags.extend(before);
    }

    /// The hero looks for a thing that lies somewhere until it is found: first where it is not, with a clue from someone.
    pub fn seek(&mut self, it: It) {
        let a = self.hero();
        let there = self.world.thing(it).place.expect("what is sought lies somewhere");
        let tries = if self.room() { 1 + self.rng.below(2) } else { 0 };
        let places: Vec<At> = (0..tries).map(|_| self.a_place("")).collect();
        if let Some(&p) = places.first()
            && self.rng.chance(60)
        {
            self.tell("remember", roles![a: a, p: p, q: At(0)]);
        }
        for p in places {
            self.go(p, 15);
            self.tell("search", roles![a: a, p: p, t: it]);
            self.maybe(35, "search", roles![a: a, p: p, t: it]);
            self.tell("search.none", roles![a: a, p: p, t: it]);
            self.maybe(25, "feel.worried", roles![a: a]);
        }
        if self.rng.chance(70) {
            let c = if self.rng.chance(60) { self.elder() } else { self.friend() };
            let here = self.world.who(a).place;
            self.page.paragraph();
            self.tell("search.ask", roles![a: a, c: c, t: it, p: here]);
            self.tell("clue", roles![a: a, c: c, t: it, p: there]);
            self.maybe(70, "clue.thanks", roles![a: a, c: c]);
            self.note("helped");
        }
        self.pass(30);
        if self.world.who(a).place != there {
            self.go(there, 40);
        }
        self.maybe(60, "search.there", roles![a: a, p: there, t: it]);
        self.find(it);
    }

    /// The thing is found where it lies.
    pub fn find(&mut self, it: It) {
        let a = self.hero();
        let by_friend = self.world.party.len() > 1 && self.rng.chance(45);
        self.tell(if by_friend { "found.friend" } else { "found" }, roles![a: a, t: it]);
        self.tell("found.joy", roles![a: a, t: it]);
        self.world.give(it, a);
        if by_friend {
            self.note("friend");
        }
    }

    /// Who has the thing gives it back: at once, or after the hero has found the way to their heart.
    pub fn claim(&mut self, it: It) {
        let a = self.hero();
        let c = if self.rng.chance(50) { self.friend() } else { self.elder() };
        self.world.give(it, c);
        self.tell("keeper", roles![a: a, c: c, t: it]);
        self.tell("keeper.claim", roles![a: a, c: c, t: it]);
        if self.rng.chance(40) {
            self.make(c, "kind");
            self.tell("keeper.kind", roles![a: a, c: c, t: it]);
            self.note("kind");
        } else {
            self.make(c, "greedy");
            self.tell("keeper.mean", roles![a: a, c: c, t: it]);
            let way = *self.rng.pick(&["keeper.trade", "keeper.proof", "keeper.soft"]);
            let price = *self.rng.pick(&[
                "a honey cake",
                "my best marble",
                "a bag of nuts",
                "three red apples",
                "my lucky stone",
                "a jar of jam",
                "a silver button",
            ]);
            self.tell(way, roles![a: a, c: c, t: it, y: price]);
            self.note(if way == "keeper.soft" { "kind" } else { "clever" });
        }
        self.world.give(it, a);
    }

    /// The ending: what followed from what happened, and a last picture.
    pub fn end(&mut self) {
        let a = self.hero();
        self.page.paragraph();
        if matches!(self.world.time, "morning" | "noon") {
            self.world.time = "evening";
        }
        self.part();
        let facts: Vec<Fact> = self.world.facts.iter().copied().filter(|fact| *fact != "friend" || self.ally.is_some()).collect();
        let lesson = match facts.last() {
            Some(last) if self.rng.chance(65) => last,
            Some(_) => *self.rng.pick(&facts),
            None => "none",
        };
        if !self.felt && self.rng.chance(45) {
            let deserved = facts.iter().any(|fact| ["brave", "worked", "kind", "clever"].contains(fact));
            let mood = if deserved && self.rng.chance(25) { "proud" } else { "happy" };
            self.feel(a, mood);
        }
        if self.page.words() + 40 < self.length {
            match self.ally {
                Some(b) => self.tell("evening", roles![a: a, b: b, p: At(0)]),
                None => self.tell("evening", roles![a: a, p: At(0)]),
            }
        }
        let key = format!("lesson.{lesson}");
        match self.ally {
            Some(b) => self.maybe(75, &key, roles![a: a, b: b, p: At(0)]),
            None => self.maybe(75, &key, roles![a: a, p: At(0)]),
        }
        let friendly = self.ally.is_some() && self.rng.chance(50);
        match self.ally.filter(|_| friendly) {
            Some(b) => self.tell("close.friend", roles![a: a, b: b]),
            None => self.tell("close", roles![a: a, p: At(0)]),
        }
    }
}
