//! GPT-2's alphabet: a visible character for each byte, in which byte-level vocabularies are written.

use std::sync::OnceLock;

/// The character that stands for each byte: itself where it is visible in Latin-1, else one from U+0100 on, in order.
pub(crate) fn alphabet() -> [char; 256] {
    let mut alphabet = ['\0'; 256];
    let mut next = 0x100;
    for byte in 0..=255u8 {
        let visible = matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
        alphabet[usize::from(byte)] = if visible {
            char::from(byte)
        } else {
            next += 1;
            char::from_u32(next - 1).expect("U+0100 and what follows are characters")
        };
    }
    alphabet
}

/// The bytes that a token of a byte-level vocabulary stands for; `None` where a character stands for none.
pub(crate) fn bytes(token: &str) -> Option<Vec<u8>> {
    static BYTES: OnceLock<[Option<u8>; 0x144]> = OnceLock::new();
    let bytes = BYTES.get_or_init(|| {
        let mut bytes = [None; 0x144];
        for (byte, c) in (0..=255u8).zip(alphabet()) {
            bytes[c as usize] = Some(byte);
        }
        bytes
    });
    token.chars().map(|c| *bytes.get(c as usize)?).collect()
}

/// How a byte-level vocabulary writes these bytes.
pub(crate) fn written(bytes: &[u8], alphabet: &[char; 256]) -> String {
    bytes.iter().map(|byte| alphabet[usize::from(*byte)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_alphabet_is_gpt2s_and_invertible() {
        let alphabet = alphabet();
        assert_eq!((alphabet[b' ' as usize], alphabet[b'\n' as usize], alphabet[0xad], alphabet[0xff]), ('Ġ', 'Ċ', 'Ń', 'ÿ'));
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(bytes(&written(&all, &alphabet)), Some(all));
        assert_eq!(bytes("a b"), None);
    }
}
