//! The key-value cache: pages that sequences share where their beginnings are equal.
//!
//! Because a key's bits do not depend on neighbours, chunks or threads, a page that another sequence has written holds exactly
//! what this one would write: a shared prefix changes nothing but the time.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use puna_tensor::{DType, Device, Tensor};

use crate::config::Config;
use crate::error::{Error, Result};
use crate::inputs::UNKNOWN;
use crate::program::{Key, Program};

/// How a [`Cache`] is set up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheOptions {
    /// How many tokens of all sequences together it may hold at most; memory is taken as it fills.
    pub tokens: usize,
    /// How many tokens a page holds.
    pub page_size: usize,
    /// The dtype of keys and values.
    pub dtype: DType,
}

/// The keys and values of many sequences. A handle: clones are the same cache.
#[derive(Debug, Clone)]
pub struct Cache(Arc<Mutex<Pages>>);

#[derive(Debug)]
struct Pages {
    /// Keys and values of each layer, `[pages, page_size, kv_heads, head_dim]`.
    layers: Vec<(Tensor, Tensor)>,
    options: CacheOptions,
    row: [usize; 2],
    device: Device,
    /// Of each page there is memory for.
    pages: Vec<Page>,
    free: Vec<u32>,
    /// Full pages by what they hold.
    known: HashMap<PageKey, u32>,
    /// Known pages that no sequence holds, by when they were let go: the first goes first.
    idle: BTreeMap<u64, u32>,
    clock: u64,
    /// Steps recorded on these pages, the one used last behind: they go before the pages move.
    programs: Vec<(Key, Program)>,
    /// How often the pages have moved.
    moves: u64,
}

/// How many recorded steps are kept.
const PROGRAMS: usize = 32;

/// What a full page holds follows from this: the page before it, its tokens, and what the keys were computed with.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct PageKey {
    /// The content before this page: the number of the known page there, 0 at the start.
    before: u64,
    tokens: Box<[u32]>,
    /// Which weights computed it, adapters included.
    weights: u64,
}

#[derive(Debug, Default)]
struct Page {
    /// How many sequences hold it.
    holders: usize,
    /// Its key and number, once it is full and known.
    content: Option<(PageKey, u64)>,
    /// Its place among the idle.
    idle_since: Option<u64>,
}

/// A sequence's part of a cache. Its pages are let go when it is dropped.
#[derive(Debug)]
pub struct CachedSequence {
    cache: Cache,
    pages: Vec<u32>,
    tokens: Vec<u32>,
    weights: u64,
    /// Whether its pages may be shared: not those of a sequence with rotary frequencies of its own.
    shared: bool,
}

impl Cache {
    /// A cache for a model on a device. No memory is taken yet.
    ///
    /// Errors: a page size of 0, a dtype that is no float.
    pub fn new(config: &Config, options: CacheOptions, device: &Device) -> Result<Self> {
        if options.page_size == 0 || !options.dtype.is_float() {
            let message =
                format!("pages of {} tokens in {}; a page holds one at least, in floats", options.page_size, options.dtype);
            return Err(Error::argument("cache", message));
        }
        let row = [config.kv_heads, config.head_dim];
        let empty = || Tensor::zeros([0, options.page_size, row[0], row[1]], options.dtype, device);
        let layers = (0..config.layers).map(|_| Ok((empty()?, empty()?))).collect::<Result<_>>()?;
        let pages = Pages {
            layers,
            options,
            row,
            device: device.clone(),
            pages: Vec::new(),
            free: Vec::new(),
            known: HashMap::new(),
            idle: BTreeMap::new(),
            clock: 0,
            programs: Vec::new(),
            moves: 0,
        };
        Ok(Self(Arc::new(Mutex::new(pages))))
    }

    fn lock(&self) -> MutexGuard<'_, Pages> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How it is set up.
    pub fn options(&self) -> CacheOptions {
        self.lock().options
    }

    /// Keys and values of each layer: what a step reads and writes.
    pub fn layers(&self) -> Vec<(Tensor, Tensor)> {
        self.lock().layers.clone()
    }

    /// How many tokens' pages are held by sequences, and how many are kept because they may be asked for again.
    pub fn held_and_idle(&self) -> (usize, usize) {
        let pages = self.lock();
        let held = pages.pages.iter().filter(|page| page.holders > 0).count();
        (held * pages.options.page_size, pages.idle.len() * pages.options.page_size)
    }

    /// Takes a step that was recorded on the pages as they lie, and the mark to put it back with.
    pub(crate) fn take_program(&self, key: &Key) -> (Option<Program>, u64) {
        let mut pages = self.lock();
        let at = pages.programs.iter().position(|(of, _)| of == key);
        (at.map(|at| pages.programs.remove(at).1), pages.moves)
    }

    /// Keeps a recorded step for the next who needs one like it, unless the pages have moved meanwhile. Those of other weights go.
    pub(crate) fn put_program(&self, key: Key, program: Program, mark: u64) {
        let mut pages = self.lock();
        if pages.moves == mark {
            pages.programs.retain(|(of, _)| of.weights == key.weights && *of != key);
            if pages.programs.len() == PROGRAMS {
                pages.programs.remove(0);
            }
            pages.programs.push((key, program));
        }
    }

    /// A sequence that begins with as much of `tokens` as full pages of the cache hold, but not all: at least the last token is left to compute.
    /// `weights`: what the keys are computed with ([`Llama::identity`](crate::Llama::identity)). `shared`: whether pages may be shared at all.
    pub fn begin(&self, tokens: &[u32], weights: u64, shared: bool) -> CachedSequence {
        let mut sequence = CachedSequence { cache: self.clone(), pages: Vec::new(), tokens: Vec::new(), weights, shared };
        if !shared {
            return sequence;
        }
        let mut pages = self.lock();
        let size = pages.options.page_size;
        let mut before = 0;
        for chunk in tokens.chunks_exact(size) {
            let key = PageKey { before, tokens: chunk.into(), weights };
            if sequence.tokens.len() + size >= tokens.len() {
                break;
            }
            let Some(&page) = pages.known.get(&key) else { break };
            pages.hold(page);
            before = pages.pages[page as usize].content.as_ref().expect("known pages have content").1;
            sequence.pages.push(page);
            sequence.tokens.extend_from_slice(chunk);
        }
        drop(pages);
        sequence
    }
}

impl Pages {
    fn hold(&mut self, page: u32) {
        let entry = &mut self.pages[page as usize];
        entry.holders += 1;
        if let Some(since) = entry.idle_since.take() {
            self.idle.remove(&since);
        }
    }

    fn release(&mut self, page: u32) {
        let entry = &mut self.pages[page as usize];
        entry.holders -= 1;
        if entry.holders > 0 {
            return;
        }
        if entry.content.is_some() {
            self.clock += 1;
            entry.idle_since = Some(self.clock);
            self.idle.insert(self.clock, page);
        } else {
            self.free.push(page);
        }
    }

    /// A page for a sequence to write: a free one, a new one, or the one longest idle.
    fn take(&mut self) -> Result<Option<u32>> {
        if self.free.is_empty() && self.pages.len() < self.limit() {
            self.grow()?;
        }
        let page = match self.free.pop() {
            Some(page) => page,
            None => {
                let Some((_, page)) = self.idle.pop_first() else { return Ok(None) };
                let entry = &mut self.pages[page as usize];
                entry.idle_since = None;
                let (key, _) = entry.content.take().expect("idle pages are known");
                self.known.remove(&key);
                page
            }
        };
        self.pages[page as usize].holders = 1;
        Ok(Some(page))
    }

    fn limit(&self) -> usize {
        self.options.tokens.div_ceil(self.options.page_size)
    }

    /// Doubles the memory, layer by layer, so that at no time more than one layer is held twice.
    fn grow(&mut self) -> Result<()> {
        let (old, size) = (self.pages.len(), self.options.page_size);
        let new = (2 * old).max(256usize.div_ceil(size)).min(self.limit());
        self.programs.clear();
        self.moves += 1;
        let (dtype, device) = (self.options.dtype, &self.device);
        let row = self.row;
        for (k, v) in &mut self.layers {
            for pages in [k, v] {
                let more = Tensor::zeros([new - old, size, row[0], row[1]], dtype, device)?;
                *pages = if old == 0 { more } else { Tensor::concat(&[pages, &more], 0)? };
            }
        }
        self.pages.resize_with(new, Page::default);
        self.free.extend((old as u32..new as u32).rev());
        Ok(())
    }
}

impl CachedSequence {
    /// How many tokens are behind it.
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Whether nothing is behind it.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// The tokens behind it.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// What its keys are computed with: see [`Cache::begin`].
    pub fn weights(&self) -> u64 {
        self.weights
    }

    /// Its pages, in order.
    pub fn pages(&self) -> &[u32] {
        &self.pages
    }

    /// Room for tokens that a step is about to compute; the slots that their keys and values go to.
    ///
    /// Errors: the cache is full of sequences that are being held.
    pub fn extend(&mut self, tokens: &[u32]) -> Result<Vec<u32>> {
        let mut pages = self.cache.lock();
        let size = pages.options.page_size;
        let needed = (self.tokens.len() + tokens.len()).div_ceil(size);
        let before = self.pages.len();
        while self.pages.len() < needed {
            match pages.take()? {
                Some(page) => self.pages.push(page),
                None => {
                    self.pages.drain(before..).for_each(|page| pages.release(page));
                    let (asked, most) = (self.tokens.len() + tokens.len(), pages.options.tokens);
                    let message = format!("no room for a sequence of {asked} tokens: it holds {most} of all sequences together");
                    return Err(Error::cache_full(message));
                }
            }
        }
        let start = self.tokens.len();
        self.tokens.extend_from_slice(tokens);
        let slot = |at: usize| self.pages[at / size] * size as u32 + (at % size) as u32;
        Ok((start..self.tokens.len()).map(slot).collect())
    }

    /// Learns the token that was [`UNKNOWN`].
    pub(crate) fn tell(&mut self, token: u32) {
        *self.tokens.last_mut().expect("there is room for one more token than is known") = token;
    }

    /// After the step: full pages become known, for others to share.
    pub fn commit(&mut self) {
        if !self.shared {
            return;
        }
        let mut pages = self.cache.lock();
        let size = pages.options.page_size;
        let mut before = 0;
        for (&page, tokens) in self.pages.iter().zip(self.tokens.chunks_exact(size)) {
            // Nothing follows an unknown token; its page becomes known with it.
            if tokens.last() == Some(&UNKNOWN) {
                break;
            }
            if let Some((_, number)) = &pages.pages[page as usize].content {
                before = *number;
                continue;
            }
            let key = PageKey { before, tokens: tokens.into(), weights: self.weights };
            if let Some(&other) = pages.known.get(&key) {
                // Another sequence was first; ours stays its own.
                before = pages.pages[other as usize].content.as_ref().expect("known pages have content").1;
                continue;
            }
            pages.clock += 1;
            let number = pages.clock;
            pages.known.insert(key.clone(), page);
            pages.pages[page as usize].content = Some((key, number));
            before = number;
        }
    }

    /// Goes back to its first `length` tokens, or to fewer where those end inside a page that others may read. How many are left.
    pub fn truncate(&mut self, length: usize) -> usize {
        let mut pages = self.cache.lock();
        let size = pages.options.page_size;
        let mut length = length.min(self.tokens.len());
        if length % size != 0 && pages.pages[self.pages[length / size] as usize].content.is_some() {
            length -= length % size;
        }
        self.pages.drain(length.div_ceil(size)..).for_each(|page| pages.release(page));
        self.tokens.truncate(length);
        length
    }
}

impl Drop for CachedSequence {
    fn drop(&mut self) {
        let mut pages = self.cache.lock();
        // The last page first, so that the beginnings, which more sequences share, stay longest.
        self.pages.drain(..).rev().for_each(|page| pages.release(page));
    }
}
