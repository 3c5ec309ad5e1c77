//! Training a byte-level BPE tokenizer.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};

use serde_json::{Map, Value, json};

use crate::byte_level::{alphabet, written};
use crate::split::{LLAMA3, Split, cut};
use crate::{Error, Result, Tokenizer};

const PLACE: &str = "trainer";
const BYTES: usize = 256;

/// What kind of tokenizer is trained.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrainerOptions {
    /// How many tokens there are at most: 256 bytes, what is merged of them, and the special tokens.
    pub vocab_size: usize,
    /// A pair that is met less often is not merged.
    pub min_frequency: u64,
    /// The special token that begins a text, if there is one; it is put in front with [`Bos::Add`](crate::Bos::Add).
    pub bos: Option<String>,
    /// The special token that ends a text.
    pub eos: Option<String>,
    /// Other special tokens.
    pub special_tokens: Vec<String>,
}

impl Default for TrainerOptions {
    fn default() -> Self {
        let named = |name: &str| Some(name.to_owned());
        Self {
            vocab_size: 4096,
            min_frequency: 2,
            bos: named("<|begin_of_text|>"),
            eos: named("<|end_of_text|>"),
            special_tokens: Vec::new(),
        }
    }
}

/// Learns which bytes belong together: byte-pair encoding over the pieces that Llama 3's pattern cuts.
///
/// Again and again the pair of neighbouring tokens that is met most often becomes a token; of pairs met equally often the one whose
/// left, then whose right token is older. Ids: the bytes in order, what was merged in order, the special tokens. The same texts give
/// the same tokenizer, whatever the order in which they are fed.
///
/// Gage 1994, "A new algorithm for data compression"; Sennrich and others 2015, arXiv 1508.07909.
///
/// ```
/// use puna_tokenizer::{Bos, Special, Trainer, TrainerOptions};
///
/// let mut trainer = Trainer::new(TrainerOptions { vocab_size: 300, ..TrainerOptions::default() })?;
/// trainer.feed("the llama and the alpaca and the other llama")?;
/// let tokenizer = trainer.train(&mut |_, _| {})?;
/// let ids = tokenizer.encode("the llama", Special::Text, Bos::AsWritten)?;
/// assert_eq!(ids.len(), 2);
/// assert_eq!(tokenizer.decode(&ids)?, "the llama");
/// # Ok::<(), puna_tokenizer::Error>(())
/// ```
#[derive(Debug)]
pub struct Trainer {
    options: TrainerOptions,
    /// The pieces, and how often each was met: no more memory than there are different ones.
    pieces: HashMap<Box<str>, u64>,
}

impl Trainer {
    /// One that has seen no text.
    ///
    /// Errors: fewer tokens than bytes and special tokens; a special token that is empty, or there twice.
    pub fn new(options: TrainerOptions) -> Result<Self> {
        let special = special(&options);
        let least = BYTES + special.len();
        if options.vocab_size < least || options.vocab_size > u32::MAX as usize {
            let message = format!(
                "a vocabulary of {}; {least} at least would be right: {BYTES} bytes and {} special tokens",
                options.vocab_size,
                special.len()
            );
            return Err(Error::invalid(PLACE, message));
        }
        let mut seen = HashSet::new();
        for token in &special {
            if token.is_empty() {
                return Err(Error::invalid(PLACE, "a special token is empty"));
            }
            if !seen.insert(token) {
                return Err(Error::invalid(PLACE, format!("the special token {token:?} is there twice")));
            }
        }
        Ok(Self { options, pieces: HashMap::new() })
    }

    /// Counts the pieces of a text. Documents are fed one by one: a piece does not reach from one into the next.
    ///
    /// Errors: none of today's pattern.
    pub fn feed(&mut self, text: &str) -> Result<()> {
        let pieces = &mut self.pieces;
        cut(&[Split::Llama3], text, true, &mut |piece, _| {
            match pieces.get_mut(piece) {
                Some(count) => *count += 1,
                None => {
                    pieces.insert(piece.into(), 1);
                }
            }
            Ok(())
        })
    }

    /// How many different pieces have been met.
    pub fn pieces(&self) -> usize {
        self.pieces.len()
    }

    /// Merges and gives the tokenizer: one like any that was read from a file. `progress` is told how many tokens there are, and how many
    /// there may be.
    ///
    /// Where no pair is met often enough any more, there are fewer tokens than were asked for.
    ///
    /// Errors: no text has been fed.
    pub fn train(self, progress: &mut dyn FnMut(usize, usize)) -> Result<Tokenizer> {
        if self.pieces.is_empty() {
            return Err(Error::invalid(PLACE, "there is no text to learn from"));
        }
        let special = special(&self.options);
        let room = self.options.vocab_size - special.len();
        let mut learner = Learner::new(self.pieces);
        while learner.tokens.len() < room && learner.merge(self.options.min_frequency.max(1)) {
            progress(learner.tokens.len(), room);
        }
        tokenizer(&self.options, &special, &learner)
    }
}

/// All special tokens, in the order of their ids.
fn special(options: &TrainerOptions) -> Vec<String> {
    options.bos.iter().chain(&options.eos).chain(&options.special_tokens).cloned().collect()
}

type Pair = (u32, u32);

/// A piece as the tokens that it consists of so far.
struct Piece {
    tokens: Vec<u32>,
    count: u64,
}

struct Learner {
    tokens: Vec<Vec<u8>>,
    ids: HashMap<Vec<u8>, u32>,
    merges: Vec<Pair>,
    pieces: Vec<Piece>,
    counts: HashMap<Pair, u64>,
    /// In which pieces a pair was met; it may have gone from some since.
    places: HashMap<Pair, HashSet<u32>>,
    /// The most frequent first; counts that have changed since are put right when they come up.
    queue: BinaryHeap<(u64, Reverse<Pair>)>,
}

impl Learner {
    fn new(pieces: HashMap<Box<str>, u64>) -> Self {
        let tokens: Vec<Vec<u8>> = (0..=u8::MAX).map(|byte| vec![byte]).collect();
        let ids = tokens.iter().cloned().zip(0..).collect();
        let pieces: Vec<Piece> =
            pieces.into_iter().map(|(text, count)| Piece { tokens: text.bytes().map(u32::from).collect(), count }).collect();
        let (mut counts, mut places): (HashMap<Pair, u64>, HashMap<Pair, HashSet<u32>>) = Default::default();
        for (i, piece) in pieces.iter().enumerate() {
            for pair in pairs(&piece.tokens) {
                *counts.entry(pair).or_default() += piece.count;
                places.entry(pair).or_default().insert(i as u32);
            }
        }
        let queue = counts.iter().map(|(pair, count)| (*count, Reverse(*pair))).collect();
        Self { tokens, ids, merges: Vec::new(), pieces, counts, places, queue }
    }

    /// Merges the most frequent pair; false where none is met `least` times.
    fn merge(&mut self, least: u64) -> bool {
        let pair = loop {
            let Some((count, Reverse(pair))) = self.queue.pop() else { return false };
            let now = self.counts.get(&pair).copied().unwrap_or(0);
            if count == now {
                if count < least {
                    return false;
                }
                break pair;
            }
            if now > 0 {
                self.queue.push((now, Reverse(pair)));
            }
        };
        let bytes = [self.tokens[pair.0 as usize].as_slice(), &self.tokens[pair.1 as usize]].concat();
        // The same bytes may be reached in two ways.
        let merged = match self.ids.get(&bytes) {
            Some(id) => *id,
            None => {
                let id = self.tokens.len() as u32;
                self.tokens.push(bytes.clone());
                self.ids.insert(bytes, id);
                id
            }
        };
        self.merges.push(pair);
        let mut changed: HashSet<Pair> = HashSet::new();
        for i in self.places.remove(&pair).unwrap_or_default() {
            let Piece { tokens, count } = &mut self.pieces[i as usize];
            for before in pairs(tokens) {
                let left = self.counts.get_mut(&before).expect("every pair of a piece is counted");
                *left -= *count;
                changed.insert(before);
            }
            replace(tokens, pair, merged);
            for after in pairs(tokens) {
                *self.counts.entry(after).or_default() += *count;
                self.places.entry(after).or_default().insert(i);
                changed.insert(after);
            }
        }
        for pair in changed {
            match self.counts.get(&pair) {
                Some(0) => {
                    self.counts.remove(&pair);
                    self.places.remove(&pair);
                }
                Some(count) => self.queue.push((*count, Reverse(pair))),
                None => {}
            }
        }
        true
    }
}

fn pairs(tokens: &[u32]) -> impl Iterator<Item = Pair> {
    tokens.windows(2).map(|pair| (pair[0], pair[1]))
}

/// Every occurrence of a pair becomes one token, from the left.
fn replace(tokens: &mut Vec<u32>, pair: Pair, merged: u32) {
    let (mut from, mut to) = (0, 0);
    while from < tokens.len() {
        let meets = from + 1 < tokens.len() && (tokens[from], tokens[from + 1]) == pair;
        tokens[to] = if meets { merged } else { tokens[from] };
        from += if meets { 2 } else { 1 };
        to += 1;
    }
    tokens.truncate(to);
}

/// As the file would be read: one way to make a tokenizer.
fn tokenizer(options: &TrainerOptions, special: &[String], learner: &Learner) -> Result<Tokenizer> {
    let letters = alphabet();
    let text = |id: u32| written(&learner.tokens[id as usize], &letters);
    let vocab: Map<String, Value> = (0..learner.tokens.len() as u32).map(|id| (text(id), json!(id))).collect();
    let merges: Vec<[String; 2]> = learner.merges.iter().map(|&(left, right)| [text(left), text(right)]).collect();
    let first = learner.tokens.len();
    let id = |token: &String| first + special.iter().position(|other| other == token).expect("it is one of them");
    let added = special.iter().map(|token| {
        json!({"id": id(token), "content": token, "special": true, "normalized": false, "lstrip": false, "rstrip": false, "single_word": false})
    });
    let post_processor = options.bos.as_ref().map(|bos| {
        let token = |type_id: u32| json!({"SpecialToken": {"id": bos, "type_id": type_id}});
        let sequence = |name: &str, type_id: u32| json!({"Sequence": {"id": name, "type_id": type_id}});
        json!({
            "type": "TemplateProcessing",
            "single": [token(0), sequence("A", 0)],
            "pair": [token(0), sequence("A", 0), token(1), sequence("B", 1)],
            "special_tokens": {bos: {"id": bos, "ids": [id(bos)], "tokens": [bos]}},
        })
    });
    let json = json!({
        "version": "1.0",
        "added_tokens": added.collect::<Vec<_>>(),
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": LLAMA3}, "behavior": "Isolated", "invert": false},
            {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false},
        ]},
        "post_processor": post_processor,
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {"type": "BPE", "vocab": vocab, "merges": merges, "ignore_merges": false, "byte_fallback": false},
    });
    let mut tokenizer = Tokenizer::from_tokenizer_json(&serde_json::to_vec(&json)?)?;
    // The file has no place for them.
    tokenizer.bos = options.bos.as_ref().map(|token| id(token) as u32);
    tokenizer.eos = options.eos.as_ref().map(|token| id(token) as u32);
    Ok(tokenizer)
}
