//! The tokenizer inside a GGUF, as plain data: the file's own parser lives elsewhere.

use super::check_size;
use super::sentencepiece::{Pieces, SPACE};
use crate::added::{Added, AddedTokens};
use crate::byte_level;
use crate::decode::Decoder;
use crate::hash::FastMap;
use crate::merge::Merges;
use crate::model::{Alphabet, Bpe, NO_TOKEN};
use crate::normalize::Normalize;
use crate::split::{Behavior, PatternSource, Split};
use crate::tokenizer::{Limits, Template};
use crate::vocabulary::{Kind, Vocabulary};
use crate::{Error, Result, Tokenizer};

/// What the keys `tokenizer.ggml.*` of a GGUF hold. Nothing is interpreted.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct GgufTokenizer {
    /// `gpt2` for byte-level BPE, `llama` for SentencePiece BPE.
    pub model: String,
    /// Which pre-tokenizer cuts the text, for byte-level BPE.
    pub pre: Option<String>,
    /// Each token's text, by id; bytes, for not every writer checks that they are UTF-8.
    pub tokens: Vec<Vec<u8>>,
    /// SentencePiece's score of each token; empty where there are none.
    pub scores: Vec<f32>,
    /// Each token's type: 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte; empty where there are none.
    pub token_types: Vec<i32>,
    /// Byte-level BPE's merges, first to last, each two tokens with a space between.
    pub merges: Vec<Vec<u8>>,
    /// The token that begins a text.
    pub bos: Option<u32>,
    /// The token that ends a text.
    pub eos: Option<u32>,
    /// The token for what is not known.
    pub unk: Option<u32>,
    /// The token that pads.
    pub pad: Option<u32>,
    /// Whether to begin with `bos` when the caller does not say.
    pub add_bos: Option<bool>,
    /// Whether to end with `eos` when the caller does not say.
    pub add_eos: Option<bool>,
    /// Whether SentencePiece puts a space in front of a text.
    pub add_space_prefix: Option<bool>,
}

/// A pre-tokenizer by its names in GGUF files, the first being the one that is written.
struct PreTokenizer {
    names: &'static [&'static str],
    splits: fn() -> Result<Vec<Split>>,
    /// Whether a piece that is a token as a whole is taken as that.
    whole: bool,
    /// Whether a text begins with the beginning token where the file does not say.
    adds_bos: bool,
}

/// Names that llama.cpp treats alike are alike here; those of other families than Llama's are there where they cost nothing.
const PRE_TOKENIZERS: [PreTokenizer; 5] = [
    PreTokenizer {
        names: &["llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2"],
        splits: || Ok(vec![Split::Llama3]),
        whole: true,
        adds_bos: true,
    },
    PreTokenizer { names: &["llama4", "gpt-4o"], splits: || Ok(vec![Split::Llama4]), whole: true, adds_bos: false },
    PreTokenizer {
        names: &["smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"],
        splits: || Ok(vec![Split::Digits, Split::Gpt2]),
        whole: false,
        adds_bos: false,
    },
    PreTokenizer {
        names: &["gpt-2", "phi-2", "mpt", "olmo", "jais", "trillion", "granite-docling"],
        splits: || Ok(vec![Split::Gpt2]),
        whole: false,
        adds_bos: false,
    },
    PreTokenizer { names: &["default"], splits: default_splits, whole: false, adds_bos: false },
];

/// The patterns of llama.cpp's `default`: punctuation, GPT-2's pattern, then digits by three.
const DEFAULT: [&str; 2] = [r"[\p{P}\$\+<=>\^~\|]+", r"\p{N}+"];
const DEFAULT_DIGITS: &str = "[0-9][0-9][0-9]";

fn default_splits() -> Result<Vec<Split>> {
    let pattern = |pattern: &str| Split::from_pattern(PatternSource::Regex(pattern.into()), Behavior::Isolated, false);
    Ok(vec![pattern(DEFAULT[0])?, Split::Gpt2, pattern(DEFAULT[1])?, pattern(DEFAULT_DIGITS)?])
}

/// What a GGUF calls this pre-tokenizer, and whether that name says that a piece that is a token is taken whole.
pub(crate) fn pre_tokenizer_name(splits: &[Split]) -> Option<(&'static str, bool)> {
    let is = |split: &Split, pattern: &str| match split {
        Split::Pattern(split) => {
            split.source == PatternSource::Regex(pattern.into()) && split.behavior == Behavior::Isolated && !split.invert
        }
        _ => false,
    };
    let name = match splits {
        [Split::Llama3] => "llama-bpe",
        [Split::Llama4] => "llama4",
        [Split::Digits, Split::Gpt2] => "smollm",
        [Split::Gpt2] => "gpt-2",
        [first, Split::Gpt2, third, last] if is(first, DEFAULT[0]) && is(third, DEFAULT[1]) && is(last, DEFAULT_DIGITS) => {
            "default"
        }
        _ => return None,
    };
    PRE_TOKENIZERS.iter().find(|known| known.names[0] == name).map(|known| (name, known.whole))
}

impl Tokenizer {
    /// Builds the tokenizer that a GGUF describes. A `gpt2` model without `pre` has llama.cpp's `default`.
    ///
    /// Errors: an unknown model or pre-tokenizer, by name; lists of different lengths; text that is not UTF-8; merges of tokens
    /// that are not there.
    pub fn from_gguf(gguf: &GgufTokenizer) -> Result<Self> {
        let count = gguf.tokens.len();
        if count == 0 {
            return Err(Error::invalid("tokenizer.ggml.tokens", "there are none"));
        }
        check_size("tokenizer.ggml.tokens", gguf.tokens.iter().map(|token| token.len() as u64 + 1).sum())?;
        for (name, length) in [("scores", gguf.scores.len()), ("token_type", gguf.token_types.len())] {
            if length != 0 && length != count {
                return Err(Error::invalid(format!("tokenizer.ggml.{name}"), format!("{length} entries for {count} tokens")));
            }
        }
        for (name, id) in [("bos", gguf.bos), ("eos", gguf.eos), ("unknown", gguf.unk), ("padding", gguf.pad)] {
            if let Some(id) = id.filter(|id| *id as usize >= count) {
                let message = format!("{id}, but there are {count} tokens");
                return Err(Error::invalid(format!("tokenizer.ggml.{name}_token_id"), message));
            }
        }
        match gguf.model.as_str() {
            "gpt2" => byte_level(gguf),
            "llama" => pieces(gguf),
            other => Err(Error::unsupported("tokenizer.ggml.model", format!("{other:?}"), "gpt2 and llama are")),
        }
    }
}

fn kinds(gguf: &GgufTokenizer) -> Result<Vec<Kind>> {
    if gguf.token_types.is_empty() {
        return Ok(vec![Kind::Normal; gguf.tokens.len()]);
    }
    let kind = |(id, kind): (usize, &i32)| {
        Ok(match kind {
            1 => Kind::Normal,
            2 => Kind::Unknown,
            3 => Kind::Control,
            4 => Kind::UserDefined,
            5 => Kind::Unused,
            6 => Kind::Byte,
            other => {
                let message = format!("{other} for token {id}; 1 to 6 would be right");
                return Err(Error::invalid("tokenizer.ggml.token_type", message));
            }
        })
    };
    gguf.token_types.iter().enumerate().map(kind).collect()
}

fn text<'a>(bytes: &'a [u8], key: &str, at: usize) -> Result<&'a str> {
    std::str::from_utf8(bytes).map_err(|_| Error::invalid(format!("tokenizer.ggml.{key}[{at}]"), "not UTF-8"))
}

/// What a text gets with [`Bos::Add`](crate::Bos::Add).
fn template(gguf: &GgufTokenizer, bos: Option<u32>, eos: Option<u32>, adds_bos: bool) -> Template {
    let before = bos.filter(|_| gguf.add_bos.unwrap_or(adds_bos));
    let behind = eos.filter(|_| gguf.add_eos.unwrap_or(false));
    Template { before: before.into_iter().collect(), behind: behind.into_iter().collect() }
}

fn byte_level(gguf: &GgufTokenizer) -> Result<Tokenizer> {
    let pre = gguf.pre.as_deref().unwrap_or("default");
    let known = PRE_TOKENIZERS.iter().find(|known| known.names.contains(&pre)).ok_or_else(|| {
        let names: Vec<&str> = PRE_TOKENIZERS.iter().flat_map(|known| known.names).copied().collect();
        Error::unsupported("tokenizer.ggml.pre", format!("{pre:?}"), format!("{} are", names.join(", ")))
    })?;
    let mut vocabulary = Vocabulary::with_capacity(gguf.tokens.len(), gguf.tokens.iter().map(Vec::len).sum());
    let mut added = Vec::new();
    let mut ids = FastMap::with_capacity_and_hasher(gguf.tokens.len(), Default::default());
    for (at, (token, kind)) in gguf.tokens.iter().zip(kinds(gguf)?).enumerate() {
        let token = text(token, "tokens", at)?;
        let id = match (byte_level::bytes(token), kind) {
            (Some(bytes), Kind::Normal) => vocabulary.push(&bytes, kind),
            (None, Kind::Normal) => vocabulary.push(token.as_bytes(), Kind::Literal),
            // A byte-level vocabulary needs no unknown token, nor tokens for bytes: what is typed so is written as it is.
            (_, Kind::Unknown) => vocabulary.push(token.as_bytes(), Kind::Control),
            (_, Kind::Byte) => vocabulary.push(token.as_bytes(), Kind::Literal),
            _ => vocabulary.push(token.as_bytes(), kind),
        };
        match kind {
            Kind::Control | Kind::Unknown => added.push(Added::special(token, id)),
            Kind::UserDefined => added.push(Added { special: false, ..Added::special(token, id) }),
            _ => {}
        }
        ids.entry(token).or_insert(id);
    }
    let mut merges = Merges::with_capacity(gguf.merges.len());
    for (rank, merge) in (0..).zip(&gguf.merges) {
        let line = text(merge, "merges", rank as usize)?;
        let wrong = |message: String| Error::invalid(format!("tokenizer.ggml.merges[{rank}]"), message);
        // The space is not the first character: a token may begin with one.
        let seam = line.char_indices().skip(1).find(|(_, c)| *c == ' ').map(|(at, _)| at);
        let (left, right) = seam
            .map(|at| (&line[..at], &line[at + 1..]))
            .ok_or_else(|| wrong(format!("{line:?} is not two tokens and a space between")))?;
        let joined = [left, right].concat();
        let id = |token: &str| ids.get(token).copied().ok_or_else(|| wrong(format!("{token:?} is none of the tokens")));
        merges.insert(id(left)?, id(right)?, rank, id(&joined)?);
    }
    let mut bytes = Box::new([NO_TOKEN; 256]);
    (0..=255u8).for_each(|byte| bytes[usize::from(byte)] = vocabulary.id(&[byte]).unwrap_or(NO_TOKEN));
    Ok(Tokenizer {
        model: Bpe::new(&vocabulary, Alphabet::Bytes(bytes), merges, known.whole, None, false),
        vocabulary,
        scores: Vec::new(),
        added: AddedTokens::new(added, &[])?,
        normalizer: Vec::new(),
        splits: (known.splits)()?,
        decoder: Decoder::byte_level(),
        template: template(gguf, gguf.bos, gguf.eos, known.adds_bos),
        bos: gguf.bos,
        eos: gguf.eos,
        pad: gguf.pad,
        limits: Limits::None,
    })
}

fn pieces(gguf: &GgufTokenizer) -> Result<Tokenizer> {
    const PLACE: &str = "tokenizer.ggml.tokens";
    if gguf.scores.is_empty() {
        return Err(Error::invalid("tokenizer.ggml.scores", "there are none; SentencePiece merges by them"));
    }
    let mut pieces = Pieces::default();
    let kinds = kinds(gguf)?;
    let has_bytes = kinds.contains(&Kind::Byte);
    for (at, ((token, kind), &score)) in gguf.tokens.iter().zip(kinds).zip(&gguf.scores).enumerate() {
        pieces.push(text(token, "tokens", at)?, score, kind).map_err(|message| Error::invalid(PLACE, message))?;
    }
    let mut normalizer = Vec::new();
    if gguf.add_space_prefix.unwrap_or(true) {
        normalizer.push(Normalize::Prepend(SPACE.into()));
    }
    // SentencePiece's usual ids, where the file does not say.
    let count = gguf.tokens.len() as u32;
    let usual = |id: Option<u32>, usual: u32| id.or(Some(usual).filter(|id| *id < count));
    let (unk, bos, eos) = (usual(gguf.unk, 0), usual(gguf.bos, 1), usual(gguf.eos, 2));
    let mut tokenizer = pieces.build(normalizer, " \u{2047} ".into(), [unk, bos, eos], has_bytes, PLACE)?;
    tokenizer.template = template(gguf, bos, eos, true);
    tokenizer.pad = gguf.pad;
    Ok(tokenizer)
}
