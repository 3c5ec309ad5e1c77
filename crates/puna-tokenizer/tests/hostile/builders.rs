//! Small files that are right, to be damaged, and the parts to write others from.

use serde_json::{Value, json};

/// A protobuf varint.
pub(crate) fn varint(mut n: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while n >= 0x80 {
        bytes.push(n as u8 | 0x80);
        n >>= 7;
    }
    bytes.push(n as u8);
    bytes
}

/// A protobuf field of bytes.
pub(crate) fn field(number: u64, payload: &[u8]) -> Vec<u8> {
    [&varint(number << 3 | 2)[..], &varint(payload.len() as u64), payload].concat()
}

/// A protobuf field of a number.
pub(crate) fn number(number: u64, value: u64) -> Vec<u8> {
    [varint(number << 3), varint(value)].concat()
}

/// A piece of a SentencePiece model: 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte.
pub(crate) fn piece(text: &str, score: f32, kind: u64) -> Vec<u8> {
    let body = [&field(1, text.as_bytes())[..], &[0x15], &score.to_le_bytes(), &number(3, kind)].concat();
    field(1, &body)
}

/// What pieces every model here has: the unknown, both ends, and the bytes.
pub(crate) fn pieces_first() -> Vec<Vec<u8>> {
    let mut pieces = vec![piece("<unk>", 0.0, 2), piece("<s>", 0.0, 3), piece("</s>", 0.0, 3)];
    pieces.extend((0..=255u8).map(|byte| piece(&format!("<0x{byte:02X}>"), 0.0, 6)));
    pieces
}

/// The trainer's settings: BPE with bytes to fall back to.
pub(crate) fn trainer() -> Vec<u8> {
    field(2, &[number(3, 2), number(35, 1)].concat())
}

/// The normalizer's settings: identity, a space in front, spaces kept.
pub(crate) fn normalizer() -> Vec<u8> {
    field(3, &[field(1, b"identity"), number(3, 1), number(4, 0)].concat())
}

/// A SentencePiece model of these pieces.
pub(crate) fn model(pieces: &[Vec<u8>]) -> Vec<u8> {
    [pieces.concat(), trainer(), normalizer()].concat()
}

/// A SentencePiece model that encodes `▁abab` as one token.
pub(crate) fn good_sentencepiece() -> Vec<u8> {
    let mut pieces = pieces_first();
    for (text, score) in [("ab", 0.0), ("abab", -1.0), ("▁abab", -2.0), ("▁", -3.0), ("a", -4.0), ("b", -5.0), ("é", -6.0)] {
        pieces.push(piece(text, score, 1));
    }
    pieces.push(piece("<sep>", 0.0, 4));
    model(&pieces)
}

/// Base64, with padding.
pub(crate) fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let bits = chunk.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for at in 0..4 {
            let digit = char::from(DIGITS[(bits >> (18 - 6 * at)) as usize & 63]);
            text.push(if at <= chunk.len() { digit } else { '=' });
        }
    }
    text
}

/// A tiktoken file of all bytes and a few tokens more.
pub(crate) fn tiktoken(more: &[&str]) -> Vec<u8> {
    let bytes: Vec<Vec<u8>> = (0..=255).map(|byte| vec![byte]).collect();
    let tokens = bytes.into_iter().chain(more.iter().map(|token| token.as_bytes().to_vec()));
    tokens.enumerate().map(|(rank, token)| format!("{} {rank}\n", base64(&token))).collect::<String>().into_bytes()
}

pub(crate) fn good_tiktoken() -> Vec<u8> {
    tiktoken(&["ab", "abab", " abab", "\u{e9}", "12"])
}

/// A byte-level `tokenizer.json` with a pattern of its own.
pub(crate) fn good_byte_level() -> Value {
    json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": [
            {"id": 6, "content": "<s>", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true},
            {"id": 7, "content": "<m>", "single_word": true, "lstrip": true, "rstrip": true, "normalized": false, "special": false},
        ],
        "normalizer": null,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": "\\p{N}{1,3}| ?[^\\s\\p{N}]+|\\s+(?!\\S)|\\s+"}, "behavior": "Isolated", "invert": false},
            {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false},
        ]},
        "post_processor": {"type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [], "special_tokens": {"<s>": {"id": "<s>", "ids": [6], "tokens": ["<s>"]}}},
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null, "end_of_word_suffix": null,
            "fuse_unk": false, "byte_fallback": false, "ignore_merges": true,
            "vocab": {"a": 0, "b": 1, "Ġ": 2, "ab": 3, "abab": 4, "Ġabab": 5},
            "merges": [["a", "b"], ["ab", "ab"], ["Ġ", "abab"]]},
    })
}

/// A `tokenizer.json` of characters, in the way of Llama 2's.
pub(crate) fn good_characters() -> Value {
    json!({
        "added_tokens": [{"id": 0, "content": "<unk>", "special": true}, {"id": 1, "content": "<s>", "special": true}],
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
        "pre_tokenizer": null,
        "post_processor": null,
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
        "model": {"type": "BPE", "unk_token": "<unk>", "fuse_unk": true,
            "vocab": {"<unk>": 0, "<s>": 1, "▁": 2, "a": 3, "b": 4, "ab": 5, "▁ab": 6}, "merges": ["a b", "▁ ab"]},
    })
}
