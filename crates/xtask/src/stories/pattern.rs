//! The language in which sentence patterns are written, and its reader.
//!
//! A file holds sections, `= key` and then one pattern a line; `#` opens a comment. A pattern is a row of steps that ` ;; ` parts:
//!
//! | written | means |
//! | --- | --- |
//! | `(a.brave !rain) text` | told only where a is brave and it does not rain |
//! | `{a}` `{a.o}` `{a.s}` | a as subject, object, possessor: by name, by pronoun or as "the small llama", whichever is clear |
//! | `{h}` `{k}` `{m}` `{n}` | those who go together; a and b; a and c; b and c: "Pip and Lena", "they" |
//! | `{t}` `{p.at}` `{x}` | a thing, "by the river", a word that the teller gave; the forms are those of [`Form`] |
//! | `[big\|large\|]` | one of these; nothing is one, and nests |
//! | `<happy>` | a word of the list `happy` |
//! | `{>simile}` | a pattern of the section `simile`, in place |
//! | `@a>b ask: words \|\| more words` | a says it to b, in a form of dialogue that the voice likes |
//! | `/` | a new paragraph |
//!
//! Word lists are sections of words that commas part.

use std::collections::HashMap;
use std::sync::OnceLock;

use super::words::habits::HABITS;

/// All patterns and word lists.
#[derive(Debug)]
pub struct Book {
    sections: HashMap<&'static str, Vec<Line>>,
    lists: Vec<Vec<&'static str>>,
}

/// A pattern.
#[derive(Debug)]
pub struct Line {
    /// Its number in the book.
    pub id: u32,
    /// The roles it speaks of, a bit for each letter; all must be filled.
    pub needs: u32,
    /// When it may be told; all must hold.
    pub conditions: Vec<Condition>,
    /// What it says.
    pub steps: Vec<Step>,
}

impl Step {
    fn needs(&self) -> u32 {
        match self {
            Self::Narrate(nodes) => needs(nodes),
            Self::Speak(speech) => {
                let who = letter(speech.speaker) | speech.to.map_or(0, letter);
                who | needs(&speech.first) | needs(&speech.second)
            }
            Self::Paragraph => 0,
        }
    }
}

fn needs(nodes: &[Node]) -> u32 {
    let needs = nodes.iter().map(|node| match node {
        Node::Slot(role, _) => letter(*role),
        Node::Choice(choices) => choices.iter().fold(0, |all, choice| all | needs(choice)),
        Node::Text(_) | Node::Habit(..) | Node::List(_) | Node::Include(_) => 0,
    });
    needs.fold(0, |all, more| all | more)
}

/// A role's bit. The party, h, and who speaks, e, are always there.
fn letter(role: u8) -> u32 {
    let bit = |role: u8| 1 << (role - b'a');
    match role {
        b'h' | b'e' => 0,
        b'k' => bit(b'a') | bit(b'b'),
        b'm' => bit(b'a') | bit(b'c'),
        b'n' => bit(b'b') | bit(b'c'),
        _ => bit(role),
    }
}

/// What must hold, or must not.
#[derive(Debug)]
pub struct Condition {
    /// Whether it must hold.
    pub holds: bool,
    /// Of whom; without a role it is the world's.
    pub role: Option<u8>,
    /// What.
    pub tag: &'static str,
}

/// A part of a pattern.
#[derive(Debug)]
pub enum Step {
    /// Sentences of the narrator.
    Narrate(Vec<Node>),
    /// What a character says.
    Speak(Speech),
    /// A new paragraph.
    Paragraph,
}

/// What a character says.
#[derive(Debug)]
pub struct Speech {
    /// Who.
    pub speaker: u8,
    /// To whom.
    pub to: Option<u8>,
    /// How: a list of that name, `say.ask`, holds its verbs.
    pub manner: &'static str,
    /// The words.
    pub first: Vec<Node>,
    /// More words, which the speaker's mention may part from the first.
    pub second: Vec<Node>,
}

/// A piece of a sentence.
#[derive(Debug)]
pub enum Node {
    /// As it stands.
    Text(&'static str),
    /// The narrator's word of a row of [`HABITS`], with a capital or not.
    Habit(usize, bool),
    /// Someone or something by role.
    Slot(u8, Form),
    /// A word of a list.
    List(usize),
    /// One of these.
    Choice(Vec<Vec<Node>>),
    /// A pattern of another section.
    Include(&'static str),
}

/// How a role is spoken of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Subject: `{a}`; for a thing or a place its plain mention; for a word the word.
    Plain,
    /// Object: "Pip", "him".
    Object,
    /// Possessor: "Pip's", "his".
    Possessive,
    /// The name, always.
    Name,
    /// "he", always.
    He,
    /// "him", always.
    Him,
    /// "his", always.
    His,
    /// "himself".
    Oneself,
    /// "a small llama named Pip".
    An,
    /// "a small llama", the name to follow.
    AKind,
    /// "llama".
    Kind,
    /// How one calls them: "Pip", "Mama", "little one".
    Vocative,
    /// "was" or "were".
    Was,
    /// "hoof".
    Foot,
    /// "hooves".
    Feet,
    /// "nose".
    Nose,
    /// "wool".
    Coat,
    /// "paws", in which things are held.
    Hold,
    /// "trotted".
    Went,
    /// "I" or "we", as the party speaks.
    I,
    /// "me" or "us".
    Me,
    /// "a red ball".
    A,
    /// "ball".
    Noun,
    /// "red ball".
    Full,
    /// "cracked".
    Broke,
    /// "a deep crack".
    Damage,
    /// "glued".
    Mended,
    /// "glue and string".
    With,
    /// "a gift from his grandmother".
    Origin,
    /// "by the river".
    At,
    /// "to the river".
    To,
    /// "in the reeds".
    Nook,
}

impl Form {
    fn read(name: &str) -> Option<Self> {
        Some(match name {
            "" => Self::Plain,
            "o" => Self::Object,
            "s" => Self::Possessive,
            "N" => Self::Name,
            "he" => Self::He,
            "him" => Self::Him,
            "his" => Self::His,
            "self" => Self::Oneself,
            "an" => Self::An,
            "akind" => Self::AKind,
            "kind" => Self::Kind,
            "voc" => Self::Vocative,
            "was" => Self::Was,
            "foot" => Self::Foot,
            "feet" => Self::Feet,
            "nose" => Self::Nose,
            "coat" => Self::Coat,
            "hold" => Self::Hold,
            "went" => Self::Went,
            "I" => Self::I,
            "me" => Self::Me,
            "a" => Self::A,
            "n" => Self::Noun,
            "full" => Self::Full,
            "broke" => Self::Broke,
            "damage" => Self::Damage,
            "mended" => Self::Mended,
            "with" => Self::With,
            "origin" => Self::Origin,
            "at" => Self::At,
            "to" => Self::To,
            "nook" => Self::Nook,
            _ => return None,
        })
    }
}

const LISTS: &[&str] = &[include_str!("tellings/lists.txt")];
const SECTIONS: &[&str] = &[
    include_str!("tellings/openings.txt"),
    include_str!("tellings/scenes.txt"),
    include_str!("tellings/moods.txt"),
    include_str!("tellings/travel.txt"),
    include_str!("tellings/search.txt"),
    include_str!("tellings/meeting.txt"),
    include_str!("tellings/mending.txt"),
    include_str!("tellings/plots_things.txt"),
    include_str!("tellings/plots_hearts.txt"),
    include_str!("tellings/plots_deeds.txt"),
    include_str!("tellings/plots_nature.txt"),
    include_str!("tellings/endings.txt"),
];

impl Book {
    /// The book; read once. Panics where a pattern is not well written, with the pattern.
    pub fn get() -> &'static Self {
        static BOOK: OnceLock<Book> = OnceLock::new();
        BOOK.get_or_init(Self::read)
    }

    /// The patterns of a section. Panics if there is none: a teller and a file disagree.
    pub fn section(&self, key: &str) -> &[Line] {
        self.sections.get(key).unwrap_or_else(|| panic!("no section {key:?} among the tellings"))
    }

    /// The keys of all sections.
    pub fn keys(&self) -> impl Iterator<Item = &'static str> {
        self.sections.keys().copied()
    }

    /// The words of a list.
    pub fn list(&self, index: usize) -> &[&'static str] {
        &self.lists[index]
    }

    fn read() -> Self {
        let (mut index, mut lists) = (HashMap::new(), Vec::new());
        for (key, lines) in LISTS.iter().flat_map(|file| sections(file)) {
            let words: Vec<_> = lines.iter().flat_map(|l| l.split(',')).map(str::trim).filter(|w| !w.is_empty()).collect();
            assert!(index.insert(key, lists.len()).is_none(), "the list {key:?} stands twice");
            lists.push(words);
        }
        let mut book = Self { sections: HashMap::new(), lists };
        let mut id = 0;
        for (key, lines) in SECTIONS.iter().flat_map(|file| sections(file)) {
            let lines: Vec<_> = lines
                .iter()
                .map(|text| {
                    id += 1;
                    Reader { text, at: 0, lists: &index }.line(id)
                })
                .collect();
            assert!(book.sections.insert(key, lines).is_none(), "the section {key:?} stands twice");
        }
        book
    }
}

/// The sections of a file: key and lines.
fn sections(file: &'static str) -> Vec<(&'static str, Vec<&'static str>)> {
    let mut found: Vec<(&str, Vec<&str>)> = Vec::new();
    for line in file.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        match line.strip_prefix("= ") {
            Some(key) => found.push((key, Vec::new())),
            None => found.last_mut().unwrap_or_else(|| panic!("{line:?} stands in no section")).1.push(line),
        }
    }
    found
}

struct Reader<'a> {
    text: &'static str,
    at: usize,
    lists: &'a HashMap<&'static str, usize>,
}

impl Reader<'_> {
    fn line(mut self, id: u32) -> Line {
        let mut conditions = Vec::new();
        if let Some(rest) = self.text.strip_prefix('(') {
            let (inside, text) = rest.split_once(')').unwrap_or_else(|| panic!("{:?}: the condition has no end", self.text));
            conditions = inside.split(' ').map(condition).collect();
            self.text = text.trim_start();
        }
        let steps: Vec<_> = self.text.split(" ;; ").map(|text| Reader { text, at: 0, lists: self.lists }.step()).collect();
        let needs = steps.iter().fold(0, |all, step| all | step.needs());
        Line { id, needs, conditions, steps }
    }

    fn step(mut self) -> Step {
        if self.text == "/" {
            return Step::Paragraph;
        }
        let Some(speech) = self.text.strip_prefix('@') else {
            return Step::Narrate(self.all());
        };
        let (head, words) = speech.split_once(": ").unwrap_or_else(|| panic!("{:?}: speech without a colon", self.text));
        let (who, manner) = head.split_once(' ').unwrap_or((head, "say"));
        let part = |text| Reader { text, at: 0, lists: self.lists }.all();
        let (first, second) = words.split_once(" || ").map_or((words, None), |(a, b)| (a, Some(b)));
        let role = |i: usize| who.as_bytes().get(i).copied();
        assert!(who.len() == 1 || who.len() == 3, "{:?}: who speaks?", self.text);
        Step::Speak(Speech {
            speaker: role(0).expect("one letter at least"),
            to: role(2),
            manner,
            first: part(first),
            second: second.map(part).unwrap_or_default(),
        })
    }

    fn all(&mut self) -> Vec<Node> {
        let nodes = self.nodes();
        assert!(self.at == self.text.len(), "{:?}: a bracket too many at {}", self.text, self.at);
        nodes
    }

    /// Nodes up to the end, or a bracket or bar that is not ours.
    fn nodes(&mut self) -> Vec<Node> {
        let mut nodes = Vec::new();
        loop {
            let rest = &self.text[self.at..];
            let length = rest.find(['[', ']', '|', '{', '<']).unwrap_or(rest.len());
            if length > 0 {
                habits(&rest[..length], &mut nodes);
                self.at += length;
            }
            match rest.as_bytes().get(length) {
                None | Some(b']' | b'|') => return nodes,
                Some(b'[') => nodes.push(self.choice()),
                Some(b'{') => {
                    let inside = self.until('}');
                    nodes.push(self.slot(inside));
                }
                Some(_) => {
                    let name = self.until('>');
                    let index = self.lists.get(name).unwrap_or_else(|| panic!("{:?}: no list {name:?}", self.text));
                    nodes.push(Node::List(*index));
                }
            }
        }
    }

    fn choice(&mut self) -> Node {
        let mut choices = Vec::new();
        loop {
            self.at += 1;
            choices.push(self.nodes());
            match self.text.as_bytes().get(self.at) {
                Some(b'|') => {}
                Some(b']') => break,
                _ => panic!("{:?}: a choice has no end", self.text),
            }
        }
        self.at += 1;
        Node::Choice(choices)
    }

    fn slot(&self, inside: &'static str) -> Node {
        if let Some(key) = inside.strip_prefix('>') {
            return Node::Include(key);
        }
        let (role, form) = inside.split_once('.').unwrap_or((inside, ""));
        let form = Form::read(form).unwrap_or_else(|| panic!("{:?}: no form {form:?}", self.text));
        assert!(role.len() == 1 && "abcdehkmntuvpqxyz".contains(role), "{:?}: no role {role:?}", self.text);
        Node::Slot(role.as_bytes()[0], form)
    }

    /// What stands between here and `end`; goes past it.
    fn until(&mut self, end: char) -> &'static str {
        let rest = &self.text[self.at + 1..];
        let length = rest.find(end).unwrap_or_else(|| panic!("{:?}: no {end:?}", self.text));
        self.at += length + 2;
        &rest[..length]
    }
}

/// Text, with its words of habit set apart.
fn habits(text: &'static str, nodes: &mut Vec<Node>) {
    let letter = |byte: Option<&u8>| byte.is_some_and(|b| b.is_ascii_alphanumeric() || *b == b'\'' || *b == b'-');
    let (bytes, mut from, mut at) = (text.as_bytes(), 0, 0);
    while at < text.len() {
        let fits = |word: &&&str| {
            let end = at + word.len();
            text.get(at..end).is_some_and(|part| part.eq_ignore_ascii_case(word)) && !letter(bytes.get(end))
        };
        let starts = at == 0 || !letter(bytes.get(at - 1));
        let rows =
            HABITS.iter().enumerate().filter_map(|(row, words)| Some((row, words.iter().filter(fits).max_by_key(|w| w.len())?)));
        match rows.max_by_key(|(_, word)| word.len()).filter(|_| starts) {
            Some((row, word)) => {
                if from < at {
                    nodes.push(Node::Text(&text[from..at]));
                }
                nodes.push(Node::Habit(row, bytes[at].is_ascii_uppercase()));
                at += word.len();
                from = at;
            }
            None => at += 1,
        }
    }
    if from < at {
        nodes.push(Node::Text(&text[from..]));
    }
}

fn condition(text: &'static str) -> Condition {
    let (holds, text) = text.strip_prefix('!').map_or((true, text), |text| (false, text));
    match text.split_once('.') {
        Some((role, tag)) => Condition { holds, role: Some(role.as_bytes()[0]), tag },
        None => Condition { holds, role: None, tag: text },
    }
}
