use crate::{Result, Tokenizer};

/// Ids to text as they come, never splitting a code point.
///
/// Each push gives the longest valid prefix of what is there; at most three bytes are held back. Bytes that can become no
/// code point are replaced by U+FFFD, one for each maximal ill-formed part.
#[derive(Debug, Clone)]
pub struct DecodeStream<'t> {
    tokenizer: &'t Tokenizer,
    held: Vec<u8>,
    begun: bool,
}

impl<'t> DecodeStream<'t> {
    pub(crate) fn new(tokenizer: &'t Tokenizer) -> Self {
        Self { tokenizer, held: Vec::new(), begun: false }
    }

    /// The text that became certain with this token; may be empty.
    ///
    /// Errors: an id that the vocabulary does not have.
    pub fn push(&mut self, id: u32) -> Result<String> {
        let mut bytes = Vec::new();
        self.tokenizer.append_bytes(id, !self.begun, &mut bytes)?;
        // The dummy prefix is dropped from the first token that is text.
        self.begun |= !self.tokenizer.is_special(id);
        self.held.extend_from_slice(&bytes);
        let mut text = String::new();
        let mut rest = &self.held[..];
        loop {
            match std::str::from_utf8(rest) {
                Ok(valid) => {
                    text.push_str(valid);
                    rest = &[];
                }
                Err(error) => {
                    let (valid, behind) = rest.split_at(error.valid_up_to());
                    text.push_str(std::str::from_utf8(valid).expect("it is valid up to here"));
                    rest = behind;
                    if let Some(length) = error.error_len() {
                        text.push('\u{fffd}');
                        rest = &rest[length..];
                        continue;
                    }
                }
            }
            break;
        }
        self.held = rest.to_vec();
        Ok(text)
    }

    /// What is left at the end: U+FFFD where a code point was cut.
    pub fn flush(&mut self) -> String {
        let rest = std::mem::take(&mut self.held);
        String::from_utf8_lossy(&rest).into_owned()
    }
}
