//! From a piece of text to tokens: symbols first, then merging.

use std::sync::atomic::{AtomicU8, Ordering};

use crate::hash::FastMap;
use crate::merge::{Merges, Queue};
use crate::vocabulary::{Kind, Vocabulary};
use crate::{Error, Result};

/// No token; no vocabulary is so large.
pub(crate) const NO_TOKEN: u32 = u32::MAX;

/// Byte-pair encoding of one piece of text.
pub(crate) struct Bpe {
    pub(crate) alphabet: Alphabet,
    pub(crate) merges: Merges,
    whole: Whole,
    /// What a symbol without a token becomes; without it, such symbols are left out.
    pub(crate) unk: Option<u32>,
    /// Whether unknown symbols side by side are one unknown token.
    pub(crate) fuse_unk: bool,
    /// A character before which words begin, if nothing merges across such a place: pieces are cut there first, which changes no
    /// token and keeps pieces short.
    word_start: Option<char>,
}

/// What the symbols are that merging starts with.
pub(crate) enum Alphabet {
    /// Bytes; each one's token.
    Bytes(Box<[u32; 256]>),
    /// Characters.
    Characters(Characters),
}

/// Characters as symbols.
pub(crate) struct Characters {
    ascii: Box<[u32; 128]>,
    /// The token of each byte: a character that is no token becomes those of its bytes.
    pub(crate) bytes: Option<Box<[u32; 256]>>,
    /// Characters that are no token by themselves but part of one: they have ids behind the vocabulary's, and merge.
    parts: Vec<char>,
    part_ids: FastMap<char, u32>,
}

/// When a piece that is a token as a whole becomes that token, before any merging.
enum Whole {
    /// Always, as tiktoken does, and Hugging Face's library where `ignore_merges` says so.
    Always,
    /// Where merging gives it too; what is known of that, token by token: 0 nothing, 1 it does, 2 it does not. Threads that find
    /// out at once find the same.
    Merged(Box<[AtomicU8]>),
}

/// Memory used for each piece, kept for the next.
#[derive(Default)]
pub(crate) struct Scratch {
    symbols: Vec<u32>,
    queue: Queue,
}

impl Characters {
    /// `parts`: characters that are no token but part of one; the first has the id `vocabulary.len()`, and so on.
    pub(crate) fn new(vocabulary: &Vocabulary, bytes: Option<Box<[u32; 256]>>, parts: Vec<char>) -> Self {
        let first = vocabulary.len() as u32;
        let part_ids: FastMap<char, u32> = parts.iter().copied().zip(first..).collect();
        let mut characters = Self { ascii: Box::new([NO_TOKEN; 128]), bytes, parts, part_ids };
        for byte in 0..128u8 {
            characters.ascii[usize::from(byte)] = characters.find(char::from(byte), vocabulary);
        }
        characters
    }

    /// Whether there are characters that are no token but part of one.
    pub(crate) fn has_parts(&self) -> bool {
        !self.parts.is_empty()
    }

    fn find(&self, c: char, vocabulary: &Vocabulary) -> u32 {
        let token = vocabulary.id(c.encode_utf8(&mut [0; 4]).as_bytes());
        token.or_else(|| self.part_ids.get(&c).copied()).unwrap_or(NO_TOKEN)
    }

    #[inline]
    fn get(&self, c: char, vocabulary: &Vocabulary) -> u32 {
        if c.is_ascii() { self.ascii[c as usize] } else { self.find(c, vocabulary) }
    }

    /// The tokens of a character's bytes, if bytes have tokens.
    fn fall_back(&self, c: char, ids: &mut Vec<u32>) -> bool {
        let Some(bytes) = &self.bytes else { return false };
        ids.extend(c.encode_utf8(&mut [0; 4]).bytes().map(|byte| bytes[usize::from(byte)]));
        true
    }
}

impl Bpe {
    /// `whole`: whether a piece that is a token becomes it, whatever merging would give.
    pub(crate) fn new(
        vocabulary: &Vocabulary,
        alphabet: Alphabet,
        merges: Merges,
        whole: bool,
        unk: Option<u32>,
        fuse_unk: bool,
    ) -> Self {
        let whole = if whole { Whole::Always } else { Whole::Merged((0..vocabulary.len()).map(|_| AtomicU8::new(0)).collect()) };
        let mut bpe = Self { alphabet, merges, whole, unk, fuse_unk, word_start: None };
        // What is taken whole may lie across words.
        if matches!((&bpe.alphabet, &bpe.whole), (Alphabet::Characters(_), Whole::Merged(_))) {
            bpe.word_start = Some('\u{2581}').filter(|&space| bpe.never_merges_before(space, vocabulary));
        }
        bpe
    }

    pub(crate) fn takes_whole(&self) -> bool {
        matches!(self.whole, Whole::Always)
    }

    /// Whether merging a token's bytes gives this token; true of tokens that are not made by merging. Only for an alphabet of bytes.
    pub(crate) fn merges_to_itself(&self, id: u32, vocabulary: &Vocabulary) -> bool {
        let (Alphabet::Bytes(tokens), Kind::Normal) = (&self.alphabet, vocabulary.kind(id)) else { return true };
        let mut symbols = Vec::new();
        self.bytes(vocabulary.bytes(id), tokens, &mut symbols);
        self.merges.apply(&mut symbols, &mut Queue::default());
        symbols == [id]
    }

    /// Whether a character is a token, and no merge joins another character and this one.
    fn never_merges_before(&self, start: char, vocabulary: &Vocabulary) -> bool {
        let mut utf8 = [0; 4];
        let start = start.encode_utf8(&mut utf8).as_bytes();
        let text = |id: u32| if (id as usize) < vocabulary.len() { vocabulary.bytes(id) } else { &[] };
        vocabulary.id(start).is_some()
            && self.merges.iter().all(|(_, left, right, _)| text(left).ends_with(start) || !text(right).starts_with(start))
    }

    /// Appends the tokens of a piece.
    pub(crate) fn encode(&self, piece: &str, vocabulary: &Vocabulary, scratch: &mut Scratch, ids: &mut Vec<u32>) {
        let Some(start) = self.word_start else { return self.encode_word(piece.as_bytes(), piece, vocabulary, scratch, ids) };
        let mut rest = piece;
        while !rest.is_empty() {
            let word = rest.len() - rest.trim_start_matches(start).len();
            let end = rest[word..].find(start).map_or(rest.len(), |at| word + at);
            let (word, behind) = rest.split_at(end);
            self.encode_word(word.as_bytes(), word, vocabulary, scratch, ids);
            rest = behind;
        }
    }

    /// Appends the tokens of bytes that are not UTF-8, as those of a piece. Only for an alphabet of bytes.
    pub(crate) fn encode_bytes(&self, bytes: &[u8], vocabulary: &Vocabulary, scratch: &mut Scratch, ids: &mut Vec<u32>) {
        self.encode_word(bytes, "", vocabulary, scratch, ids);
    }

    fn encode_word(&self, word: &[u8], text: &str, vocabulary: &Vocabulary, scratch: &mut Scratch, ids: &mut Vec<u32>) {
        let known = vocabulary.id(word);
        let mark = match (known, &self.whole) {
            (Some(id), Whole::Always) => return ids.push(id),
            (Some(id), Whole::Merged(marks)) => {
                let mark = &marks[id as usize];
                if mark.load(Ordering::Relaxed) == 1 {
                    return ids.push(id);
                }
                Some(mark)
            }
            (None, _) => None,
        };
        let symbols = &mut scratch.symbols;
        symbols.clear();
        match &self.alphabet {
            Alphabet::Bytes(tokens) => self.bytes(word, tokens, symbols),
            Alphabet::Characters(characters) => self.characters(text, characters, vocabulary, symbols),
        }
        self.merges.apply(symbols, &mut scratch.queue);
        if let Some(mark) = mark {
            mark.store(if symbols.len() == 1 && Some(symbols[0]) == known { 1 } else { 2 }, Ordering::Relaxed);
        }
        match &self.alphabet {
            Alphabet::Characters(characters) if !characters.parts.is_empty() => {
                self.split_parts(characters, vocabulary, symbols, ids)
            }
            _ => ids.extend_from_slice(symbols),
        }
    }

    fn bytes(&self, word: &[u8], tokens: &[u32; 256], symbols: &mut Vec<u32>) {
        symbols.extend(word.iter().map(|byte| tokens[usize::from(*byte)]));
        // Vocabularies of bytes have all 256; where one lacks some, they are unknown.
        if symbols.contains(&NO_TOKEN) {
            let mut kept = Vec::with_capacity(symbols.len());
            for &symbol in symbols.iter() {
                let symbol = if symbol == NO_TOKEN { self.unk } else { Some(symbol) };
                let again = self.fuse_unk && symbol == self.unk && kept.last().copied() == self.unk;
                kept.extend(symbol.filter(|_| !again));
            }
            *symbols = kept;
        }
    }

    fn characters(&self, word: &str, characters: &Characters, vocabulary: &Vocabulary, symbols: &mut Vec<u32>) {
        let mut unknown = false;
        for c in word.chars() {
            let symbol = characters.get(c, vocabulary);
            if symbol != NO_TOKEN {
                symbols.push(symbol);
                unknown = false;
            } else if characters.fall_back(c, symbols) {
                unknown = false;
            } else if let Some(unk) = self.unk {
                if !(unknown && self.fuse_unk) {
                    symbols.push(unk);
                }
                unknown = true;
            }
        }
    }

    /// Characters that are part of tokens only and that nothing merged with are unknown after all.
    fn split_parts(&self, characters: &Characters, vocabulary: &Vocabulary, symbols: &[u32], ids: &mut Vec<u32>) {
        let start = ids.len();
        for &symbol in symbols {
            match (symbol as usize).checked_sub(vocabulary.len()) {
                None if self.fuse_unk && Some(symbol) == self.unk && ids.len() > start && ids.last().copied() == self.unk => {}
                None => ids.push(symbol),
                Some(part) if characters.fall_back(characters.parts[part], ids) => {}
                Some(_) if self.fuse_unk && ids.len() > start && ids.last().copied() == self.unk => {}
                Some(_) => ids.extend(self.unk),
            }
        }
    }
}

/// The token of each byte: those of kind [`Kind::Byte`]. `None` where there are none.
///
/// Errors: bytes that have no such token, where others have.
pub(crate) fn byte_tokens(vocabulary: &Vocabulary, place: &str) -> Result<Option<Box<[u32; 256]>>> {
    let mut bytes = Box::new([NO_TOKEN; 256]);
    for id in vocabulary.ids().filter(|id| vocabulary.kind(*id) == Kind::Byte) {
        bytes[usize::from(vocabulary.bytes(id)[0])] = id;
    }
    match bytes.iter().filter(|id| **id != NO_TOKEN).count() {
        0 => Ok(None),
        256 => Ok(Some(bytes)),
        count => {
            Err(Error::invalid(place, format!("{count} bytes have tokens (<0x00> to <0xFF>); all 256 or none would be right")))
        }
    }
}
