//! From tokens to text.

use crate::vocabulary::Kind;
use crate::{Error, Result, Tokenizer};

/// How tokens become text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Decoder {
    /// What stands for a space in tokens.
    pub(crate) space: Option<char>,
    pub(crate) lead: Lead,
    pub(crate) malformed: Malformed,
    /// Whether special tokens are text. SentencePiece leaves them out.
    pub(crate) shows_special: bool,
    /// What the unknown token reads; its own text where this is `None`.
    pub(crate) unknown: Option<String>,
}

/// What becomes of the space that encoding puts before a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lead {
    /// Encoding puts none there.
    Keep,
    /// One space at the beginning of the first piece goes: SentencePiece.
    FirstPiece,
    /// One space at the beginning of each piece goes until there is text: SentencePiece with `remove_extra_whitespaces`.
    Pieces,
    /// Up to so many spaces at the beginning of the text go: Hugging Face's `Strip`.
    Spaces(usize),
    /// All spaces in the first token go: Hugging Face's `Metaspace`.
    FirstToken,
}

/// What becomes of bytes that are no UTF-8.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Malformed {
    /// U+FFFD for each maximal subpart, as Unicode recommends.
    Subparts,
    /// U+FFFD for each byte: SentencePiece.
    Bytes,
    /// U+FFFD for each of the byte tokens side by side, if any of them is ill-formed: Hugging Face's `ByteFallback`.
    Runs,
}

/// How far the space that encoding puts before a text has been dealt with.
#[derive(Debug, Clone)]
pub(crate) struct Leading {
    /// Nothing has come yet.
    first: bool,
    /// So many spaces go still.
    spaces: usize,
}

impl Leading {
    pub(crate) fn new(decoder: &Decoder) -> Self {
        Self { first: true, spaces: if let Lead::Spaces(spaces) = decoder.lead { spaces } else { 0 } }
    }
}

impl Tokenizer {
    /// Ids to text. Special tokens are shown as their text, but for those of SentencePiece models, which have none. Bytes that
    /// are no UTF-8 become U+FFFD, as many as the reference implementation writes.
    ///
    /// Errors: an id that names no token.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        let decoder = &self.decoder;
        let mut bytes = Vec::with_capacity(ids.len() * 4);
        let mut leading = Leading { spaces: 0, ..Leading::new(decoder) };
        let mut run = None;
        for &id in ids {
            match (self.vocabulary.kind(id) == Kind::Byte && decoder.malformed == Malformed::Runs, run) {
                (true, None) => run = Some(bytes.len()),
                (false, Some(start)) => {
                    replace_run(&mut bytes, start);
                    run = None;
                }
                _ => {}
            }
            self.append(id, &mut leading, &mut bytes)?;
        }
        if let Some(start) = run {
            replace_run(&mut bytes, start);
        }
        let mut text = match decoder.malformed {
            Malformed::Bytes => with_bytes_replaced(&bytes),
            Malformed::Subparts | Malformed::Runs => match String::from_utf8(bytes) {
                Ok(text) => text,
                Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
            },
        };
        if let Lead::Spaces(most) = decoder.lead {
            let spaces = text.bytes().take(most).take_while(|byte| *byte == b' ').count();
            text.drain(..spaces);
        }
        Ok(text)
    }

    /// Appends the bytes that a token stands for behind those before it.
    pub(crate) fn append(&self, id: u32, leading: &mut Leading, bytes: &mut Vec<u8>) -> Result<()> {
        let start = bytes.len();
        let token = match self.vocabulary.kind(id) {
            Kind::Gap => return Err(Error::NoToken { id, vocab_size: self.vocabulary.len() }),
            Kind::Unused => return Ok(()),
            Kind::Control if !self.decoder.shows_special => return Ok(()),
            kind => {
                let token = self.vocabulary.bytes(id);
                match (kind, &self.decoder.unknown, self.decoder.space) {
                    (Kind::Unknown, Some(surface), _) => {
                        bytes.extend_from_slice(surface.as_bytes());
                        None
                    }
                    (Kind::Byte, ..) | (_, _, None) => {
                        bytes.extend_from_slice(token);
                        None
                    }
                    (_, _, Some(space)) => Some((token, space)),
                }
            }
        };
        if let Some((mut token, space)) = token {
            let mut utf8 = [0; 4];
            let space = space.encode_utf8(&mut utf8).as_bytes();
            if leading.first && matches!(self.decoder.lead, Lead::FirstPiece | Lead::Pieces) {
                token = token.strip_prefix(space).unwrap_or(token);
            }
            let drops = leading.first && self.decoder.lead == Lead::FirstToken;
            while let [byte, behind @ ..] = token {
                match token.strip_prefix(space) {
                    Some(behind) => {
                        bytes.extend((!drops).then_some(b' '));
                        token = behind;
                    }
                    None => {
                        bytes.push(*byte);
                        token = behind;
                    }
                }
            }
        }
        leading.first &= self.decoder.lead == Lead::Pieces && bytes.len() == start;
        if leading.spaces > 0 && bytes.len() > start {
            let spaces = bytes[start..].iter().take(leading.spaces).take_while(|byte| **byte == b' ').count();
            bytes.drain(start..start + spaces);
            leading.spaces = if bytes.len() == start { leading.spaces - spaces } else { 0 };
        }
        Ok(())
    }
}

/// Ill-formed bytes as U+FFFD each.
pub(crate) fn with_bytes_replaced(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|_| '\u{fffd}'));
    }
    text
}

/// A run of byte tokens that is not UTF-8 as U+FFFD for each of them.
fn replace_run(bytes: &mut Vec<u8>, start: usize) {
    if std::str::from_utf8(&bytes[start..]).is_err() {
        let tokens = bytes.len() - start;
        bytes.truncate(start);
        bytes.extend("\u{fffd}".repeat(tokens).bytes());
    }
}
