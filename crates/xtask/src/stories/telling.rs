//! How a pattern becomes sentences.

use super::Story;
use super::page::write;
use super::pattern::{Book, Condition, Form, Line, Node, Step};
use super::world::{At, It, Who};

/// Who or what a letter of a pattern stands for.
#[derive(Debug, Clone, Copy)]
pub enum Role {
    /// `{a}` and the like.
    Who(u8, Who),
    /// `{t}` and the like.
    It(u8, It),
    /// `{p}`, `{q}`.
    At(u8, At),
    /// `{x}`, `{y}`, `{z}`.
    Word(u8, &'static str),
}

/// The letters' present meanings.
#[derive(Debug, Clone, Default)]
pub struct Roles {
    who: [Option<Who>; 5],
    it: [Option<It>; 3],
    at: [Option<At>; 2],
    word: [&'static str; 3],
}

impl Roles {
    pub(super) fn set(&mut self, role: Role) {
        match role {
            Role::Who(letter, who) => self.who[usize::from(letter - b'a')] = Some(who),
            Role::It(letter, it) => self.it[usize::from(letter - b't')] = Some(it),
            Role::At(letter, at) => self.at[usize::from(letter - b'p')] = Some(at),
            Role::Word(letter, word) => self.word[usize::from(letter - b'x')] = word,
        }
    }

    /// The letters that have a meaning, a bit each.
    fn filled(&self) -> u32 {
        let bits = |from: u8, there: &mut dyn Iterator<Item = bool>| {
            there.enumerate().fold(0, |all, (i, there)| all | u32::from(there) << (usize::from(from - b'a') + i))
        };
        bits(b'a', &mut self.who.iter().map(Option::is_some))
            | bits(b't', &mut self.it.iter().map(Option::is_some))
            | bits(b'p', &mut self.at.iter().map(Option::is_some))
            | bits(b'x', &mut self.word.iter().map(|word| !word.is_empty()))
    }

    /// Who a letter stands for.
    pub fn who(&self, letter: u8) -> Option<Who> {
        matches!(letter, b'a'..=b'e').then(|| self.who[usize::from(letter - b'a')]).flatten()
    }

    /// Which two a letter stands for: a and b, a and c, b and c.
    fn pair(&self, letter: u8) -> Option<[Who; 2]> {
        let [one, two] = match letter {
            b'k' => [b'a', b'b'],
            b'm' => [b'a', b'c'],
            b'n' => [b'b', b'c'],
            _ => return None,
        };
        Some([self.who(one)?, self.who(two)?])
    }

    fn it(&self, letter: u8) -> Option<It> {
        matches!(letter, b't'..=b'v').then(|| self.it[usize::from(letter - b't')]).flatten()
    }

    fn at(&self, letter: u8) -> Option<At> {
        matches!(letter, b'p' | b'q').then(|| self.at[usize::from(letter - b'p')]).flatten()
    }
}

/// Roles for a telling: `roles![a: hero, t: ball, p: barn]`.
macro_rules! roles {
    ($($letter:ident : $value:expr),* $(,)?) => {
        &[$($crate::stories::telling::role(stringify!($letter).as_bytes()[0], $value)),*]
    };
}
pub(crate) use roles;

/// A letter and what it stands for.
pub fn role(letter: u8, meaning: impl Into<Meaning>) -> Role {
    match meaning.into() {
        Meaning::Who(who) => Role::Who(letter, who),
        Meaning::It(it) => Role::It(letter, it),
        Meaning::At(at) => Role::At(letter, at),
        Meaning::Word(word) => Role::Word(letter, word),
    }
}

/// What a letter can stand for.
#[derive(Debug, Clone, Copy)]
pub enum Meaning {
    /// A character.
    Who(Who),
    /// A thing.
    It(It),
    /// A place.
    At(At),
    /// A word.
    Word(&'static str),
}

impl From<Who> for Meaning {
    fn from(who: Who) -> Self {
        Self::Who(who)
    }
}
impl From<It> for Meaning {
    fn from(it: It) -> Self {
        Self::It(it)
    }
}
impl From<At> for Meaning {
    fn from(at: At) -> Self {
        Self::At(at)
    }
}
impl From<&'static str> for Meaning {
    fn from(word: &'static str) -> Self {
        Self::Word(word)
    }
}

impl Story {
    /// Tells a pattern of a section that speaks only of these roles, of the hero, a, and of who goes along, b.
    pub fn tell(&mut self, key: &str, roles: &[Role]) {
        self.cast_roles(roles);
        self.felt = key.starts_with("feel.");
        if self.page.sentences >= self.voice.paragraph && self.rng.chance(60) {
            self.page.paragraph();
        }
        for step in &self.choose(key).steps {
            match step {
                Step::Paragraph => self.page.paragraph(),
                Step::Speak(speech) => self.speak(speech),
                Step::Narrate(nodes) => {
                    // After speech the speaker's own deeds stay in the paragraph; another's open one.
                    if self.page.spoken && self.voice.breaks {
                        let same = self.first_who(nodes).is_some_and(|who| self.page.speaker == Some(who));
                        if self.rng.chance(if same { 15 } else { 90 }) {
                            self.page.paragraph();
                        }
                    }
                    let mut out = String::new();
                    let plain =
                        matches!(nodes.first(), Some(Node::Slot(letter, Form::Plain)) if self.roles.who(*letter).is_some());
                    if plain && self.begun && !self.page.fresh() && !self.page.spoken && self.rng.chance(self.voice.ties) {
                        out.push_str(self.rng.pick::<&str>(&["Then ", "Then ", "And ", "And then ", "Now "]));
                    }
                    self.render(nodes, &mut out);
                    if self.page.now != 0 || !out.ends_with(['.', '!', '?']) {
                        self.page.sentence();
                    }
                    self.page.add(&out);
                    self.page.spoken = false;
                }
            }
        }
    }

    fn cast_roles(&mut self, roles: &[Role]) {
        self.roles = Roles::default();
        self.roles.set(Role::Who(b'a', self.hero()));
        if let Some(b) = self.world.party.get(1) {
            self.roles.set(Role::Who(b'b', *b));
        }
        for role in roles {
            self.roles.set(*role);
        }
    }

    /// Whether a section has a pattern that fits these roles now.
    pub fn can_tell(&mut self, key: &str, roles: &[Role]) -> bool {
        self.cast_roles(roles);
        Book::get().section(key).iter().any(|line| self.fits(line))
    }

    /// Tells a pattern in so many of a hundred cases.
    pub fn maybe(&mut self, percent: u32, key: &str, roles: &[Role]) {
        if self.rng.chance(percent) && self.can_tell(key, roles) {
            self.tell(key, roles);
        }
    }

    /// A pattern of the section whose conditions hold; one that the story has not used, if there is one.
    pub fn choose(&mut self, key: &str) -> &'static Line {
        let lines = Book::get().section(key);
        let mut fit: Vec<&Line> = lines.iter().filter(|line| self.fits(line)).collect();
        assert!(!fit.is_empty(), "no pattern of {key:?} fits; flags {:?}", self.world.flags);
        if fit.iter().any(|line| !self.used.contains(&line.id)) {
            fit.retain(|line| !self.used.contains(&line.id));
        }
        let line = *self.rng.pick(&fit);
        self.used.push(line.id);
        line
    }

    fn fits(&self, line: &Line) -> bool {
        line.needs & !self.roles.filled() == 0 && line.conditions.iter().all(|condition| self.holds(condition))
    }

    fn holds(&self, condition: &Condition) -> bool {
        let Some(letter) = condition.role else {
            return self.world.is(condition.tag) == condition.holds;
        };
        let is = if let Some(who) = self.roles.who(letter) {
            self.world.who(who).is(condition.tag)
        } else if let Some(it) = self.roles.it(letter) {
            self.world.thing(it).is(condition.tag)
        } else if let Some(at) = self.roles.at(letter) {
            self.world.place(at).is(condition.tag)
        } else {
            false
        };
        is == condition.holds
    }

    /// Who is mentioned first.
    fn first_who(&self, nodes: &[Node]) -> Option<Who> {
        nodes.iter().find_map(|node| match node {
            Node::Slot(b'h', _) => Some(self.world.party[0]).filter(|_| self.world.party.len() == 1),
            Node::Slot(letter, _) => self.roles.who(*letter),
            _ => None,
        })
    }

    /// Renders nodes; in a quotation where there is a speaker.
    pub fn render(&mut self, nodes: &'static [Node], out: &mut String) {
        for node in nodes {
            match node {
                Node::Text(text) => {
                    write(out, text);
                    if !self.quoted && text.contains(['.', '!', '?']) {
                        self.page.sentence();
                    }
                }
                Node::Habit(row, capital) => {
                    let word = self.voice.habit(*row);
                    if *capital {
                        let (first, rest) = word.split_at(1);
                        write(out, &format!("{}{rest}", first.to_ascii_uppercase()));
                    } else {
                        write(out, word);
                    }
                }
                Node::Slot(letter, form) => {
                    let text = self.fill(*letter, *form);
                    write(out, &text);
                }
                Node::List(index) => {
                    let words = Book::get().list(*index);
                    let mut word = *self.rng.pick(words);
                    for _ in 0..3 {
                        if self.recent.contains(&word) {
                            word = *self.rng.pick(words);
                        }
                    }
                    self.remember(word);
                    write(out, word);
                }
                Node::Choice(choices) => {
                    let empty = choices.iter().any(Vec::is_empty);
                    if empty && self.rng.chance(self.voice.plain) {
                        continue;
                    }
                    let chosen = loop {
                        let chosen = self.rng.pick(choices);
                        if !(empty && chosen.is_empty()) || choices.iter().all(Vec::is_empty) {
                            break chosen;
                        }
                    };
                    self.render(chosen, out);
                }
                Node::Include(key) => {
                    let line = self.choose(key);
                    let [Step::Narrate(nodes)] = &line.steps[..] else {
                        panic!("{key:?} is included, and so takes plain phrases");
                    };
                    self.render(nodes, out);
                }
            }
        }
    }

    /// Remembers a word, so that it is not said again too soon.
    pub(super) fn remember(&mut self, word: &'static str) {
        self.recent[self.recent_at % self.recent.len()] = word;
        self.recent_at += 1;
    }

    fn fill(&mut self, letter: u8, form: Form) -> String {
        if letter == b'h' {
            return self.party(form);
        }
        if let Some(pair) = self.roles.pair(letter) {
            return self.pair(pair, form);
        }
        if let Some(who) = self.roles.who(letter) {
            return self.refer(who, form);
        }
        if let Some(it) = self.roles.it(letter) {
            return self.mention_thing(it, form);
        }
        if let Some(at) = self.roles.at(letter) {
            return self.mention_place(at, form);
        }
        assert!(letter >= b'x', "the role {:?} has no meaning here", char::from(letter));
        let word = self.roles.word[usize::from(letter - b'x')];
        assert!(!word.is_empty(), "the word {:?} has no meaning here", char::from(letter));
        word.to_owned()
    }
}
