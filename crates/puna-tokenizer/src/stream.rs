use crate::decode::Leading;
use crate::{Result, Tokenizer};

/// Ids to text as they come, never splitting a code point; made by [`Tokenizer::decode_stream`].
///
/// Each push gives the longest prefix that is certain; at most three bytes are held back. Bytes that can become no code point are
/// replaced by U+FFFD, one for each maximal subpart of an ill-formed sequence.
#[derive(Debug, Clone)]
pub struct DecodeStream<'t> {
    tokenizer: &'t Tokenizer,
    leading: Leading,
    held: Vec<u8>,
}

impl Tokenizer {
    /// To decode ids as they come.
    pub fn decode_stream(&self) -> DecodeStream<'_> {
        DecodeStream { tokenizer: self, leading: Leading::new(&self.decoder), held: Vec::new() }
    }
}

impl DecodeStream<'_> {
    /// The text that became certain with this token; may be empty.
    ///
    /// Errors: an id that names no token; the stream is as it was.
    pub fn push(&mut self, id: u32) -> Result<String> {
        self.tokenizer.append(id, &mut self.leading, &mut self.held)?;
        let mut text = String::new();
        let mut rest = &self.held[..];
        while !rest.is_empty() {
            let (valid, ill_formed) = match std::str::from_utf8(rest) {
                Ok(valid) => (valid, Some(0)),
                Err(error) => {
                    let valid = std::str::from_utf8(&rest[..error.valid_up_to()]).expect("it is valid up to there");
                    (valid, error.error_len())
                }
            };
            text.push_str(valid);
            rest = &rest[valid.len()..];
            match ill_formed {
                Some(0) => {}
                Some(length) => {
                    text.push('\u{fffd}');
                    rest = &rest[length..];
                }
                // What is left may yet become a code point.
                None => break,
            }
        }
        let done = self.held.len() - rest.len();
        self.held.drain(..done);
        Ok(text)
    }

    /// What is left at the end: U+FFFD where a code point was cut.
    pub fn flush(&mut self) -> String {
        let held = std::mem::take(&mut self.held);
        String::from_utf8_lossy(&held).into_owned()
    }
}
