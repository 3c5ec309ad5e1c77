//! Ten thousand mutations of a good file for each parser: an error or a tokenizer that works, never a panic, a hang, or more memory
//! than the file answers for.

mod alloc_ffi;

use std::fs;
use std::time::{Duration, Instant};

use alloc_ffi::{Counting, most_bytes};
use puna_tokenizer::{Bos, GgufTokenizer, Result, Special, TiktokenKind, Tokenizer};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const GOLDENS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../puna-conformance/goldens/tokenizers/bpe_training");

const CASES: u32 = 10_000;

/// Memory while reading, for each byte of the file. JSON's values take the most: a list of `0,` takes 32 bytes for each two.
const BYTES_PER_BYTE: usize = 64;

/// Memory that is there for every file, however small.
const BYTES_AT_LEAST: usize = 64 << 10;

/// A regular expression takes more than its text.
const BYTES_FOR_PATTERNS: usize = 1 << 20;

/// Llama 4's 2,048 special tokens, and the automaton that finds them, are there for every tiktoken file.
const BYTES_FOR_SPECIALS: usize = 4 << 20;

/// A fixed sequence of numbers (xorshift64).
struct Draw(u64);

impl Draw {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % n.max(1) as u64) as usize
    }
}

/// Changes a few places: bytes and bits, numbers that claim much, stretches that go, come twice or come from elsewhere.
fn mutate(seed: &[u8], words: &[&[u8]], draw: &mut Draw) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for _ in 0..1 + draw.below(4) {
        let at = draw.below(bytes.len() + 1);
        let end = (at + draw.below(40)).min(bytes.len());
        match draw.below(8) {
            0 if at < bytes.len() => bytes[at] = draw.below(256) as u8,
            1 if at < bytes.len() => bytes[at] ^= 1 << draw.below(8),
            2 => bytes.truncate(at),
            3 => drop(bytes.drain(at..end)),
            4 => {
                let twice = bytes[at..end].to_vec();
                bytes.splice(at..at, twice);
            }
            5 => {
                let from = draw.below(seed.len());
                let some = seed[from..(from + draw.below(200)).min(seed.len())].to_vec();
                bytes.splice(at..end, some);
            }
            6 => {
                let word = words[draw.below(words.len())].iter().copied();
                bytes.splice(at..end, word);
            }
            _ => {
                let large = [&[0xff; 9][..], &[0xff, 0xff, 0xff, 0xff, 0x0f], b"99999999999", b"4294967295", b"-1"];
                bytes.splice(at..end, large[draw.below(large.len())].iter().copied());
            }
        }
    }
    bytes
}

/// What a tokenizer that was read must stand: every way to use it.
fn use_it(tokenizer: &Tokenizer) {
    let text = "Hello  wörld 123!\n<s>▁ \u{301}日本\u{ff}'s <|begin|>";
    for special in [Special::Text, Special::Parse] {
        // A pattern may take too many steps.
        let Ok(ids) = tokenizer.encode(text, special, Bos::Add) else { continue };
        tokenizer.decode(&ids).expect("an id that encoding gives names a token");
    }
    let mut stream = tokenizer.decode_stream();
    for id in 0..tokenizer.vocab_size().min(600) as u32 {
        assert_eq!(stream.push(id).is_ok(), tokenizer.token(id).is_some());
    }
    stream.flush();
    let _ = (tokenizer.to_tokenizer_json(), tokenizer.to_gguf());
}

fn check(seed: &[u8], words: &[&[u8]], at_least: usize, read: impl Fn(&[u8]) -> Result<Tokenizer>) {
    let start = Instant::now();
    let (mut draw, mut good, mut highest) = (Draw(0x9e37_79b9_7f4a_7c15), 0, 0);
    read(seed).expect("the file is good");
    for case in 0..CASES {
        let bytes = mutate(seed, words, &mut draw);
        let (tokenizer, most) = most_bytes(|| read(&bytes));
        assert!(most <= at_least + BYTES_PER_BYTE * bytes.len(), "case {case}: {most} bytes for a file of {}", bytes.len());
        highest = highest.max(most);
        match tokenizer {
            Ok(tokenizer) => {
                good += 1;
                if good % 16 == 0 {
                    use_it(&tokenizer);
                }
            }
            Err(error) => assert!(!error.to_string().contains('\n'), "{error}"),
        }
    }
    println!("{good} of {CASES} mutations are tokenizers still, {highest} bytes at most, {:?}", start.elapsed());
    // Seconds with optimization.
    assert!(start.elapsed() < Duration::from_secs(300));
}

fn golden(name: &str) -> Vec<u8> {
    fs::read(format!("{GOLDENS}/{name}")).unwrap()
}

#[test]
fn mutated_sentencepiece_models_do_no_harm() {
    let words: [&[u8]; 5] =
        [b"\x12\x02\x18\x01", b"\x1a\x04\x18\x00\x20\x00", b"\n\x06\n\x02ab\x18\x04", b"\n\x03\n\x01z", b"\x28\xff"];
    check(&golden("sentencepiece_bpe_512.model"), &words, BYTES_AT_LEAST, Tokenizer::from_sentencepiece);
}

#[test]
fn mutated_tokenizer_jsons_do_no_harm() {
    let words: [&[u8]; 10] = [
        b"null",
        b"{}",
        b"[[[[[[[[[[[[[[[[",
        b"\"type\":\"Split\"",
        b"\"Metaspace\"",
        b"{\"Regex\":\"(a*)*b\"}",
        b"\"lstrip\":true",
        b"\"byte_fallback\":true",
        b"\"unk_token\":\"a\"",
        b"\\u0120",
    ];
    check(&golden("hf_bytelevel_llama3_regex_512.json"), &words, BYTES_FOR_PATTERNS, Tokenizer::from_tokenizer_json);
}

/// A tiktoken file of the tokens of a small tokenizer.
fn tiktoken() -> Vec<u8> {
    let tokenizer = Tokenizer::from_tokenizer_json(&golden("hf_bytelevel_512.json")).unwrap();
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut file = Vec::new();
    let tokens = (0..512).filter(|id| !tokenizer.is_special(*id)).map(|id| tokenizer.token_bytes(id).unwrap());
    for (rank, token) in tokens.enumerate() {
        for chunk in token.chunks(3) {
            let bits = chunk.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
            file.extend((0..=chunk.len()).map(|i| alphabet[(bits >> (18 - 6 * i) & 63) as usize]));
            file.extend(std::iter::repeat_n(b'=', 3 - chunk.len()));
        }
        file.extend(format!(" {rank}\n").bytes());
    }
    file
}

#[test]
fn mutated_tiktoken_files_do_no_harm() {
    let words: [&[u8]; 4] =
        [b"YQ== 0\n", b" ", b"\r\n\n", b"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"];
    check(&tiktoken(), &words, BYTES_FOR_SPECIALS, |bytes| Tokenizer::from_tiktoken(bytes, TiktokenKind::Llama4));
}

#[test]
fn mutated_bytes_of_any_kind_do_no_harm() {
    let words: [&[u8]; 3] = [b"{", b"\n", b"A 0"];
    check(&golden("sentencepiece_bpe_512.model"), &words, BYTES_AT_LEAST, Tokenizer::from_bytes);
}

#[test]
fn mutated_gguf_tokenizers_do_no_harm() {
    let start = Instant::now();
    let seeds = ["hf_bytelevel_512.json", "sentencepiece_bpe_512.model"]
        .map(|name| Tokenizer::from_file(format!("{GOLDENS}/{name}")).unwrap());
    let seeds = seeds.map(|tokenizer| tokenizer.to_gguf().unwrap());
    let (mut draw, mut good) = (Draw(1), 0);
    for case in 0..CASES {
        let mut gguf: GgufTokenizer = seeds[case as usize % 2].clone();
        for _ in 0..1 + draw.below(3) {
            let count = gguf.tokens.len();
            let id = Some(draw.below(2 * count.max(1)) as u32);
            match draw.below(10) {
                0 if count > 0 => {
                    let at = draw.below(count);
                    gguf.tokens[at] = gguf.tokens[draw.below(count)].clone();
                }
                1 if count > 0 => gguf.tokens[draw.below(count)].push(draw.below(256) as u8),
                2 => gguf.tokens.truncate(draw.below(count + 1)),
                3 if !gguf.token_types.is_empty() => {
                    let at = draw.below(gguf.token_types.len());
                    gguf.token_types[at] = draw.below(8) as i32;
                }
                4 if !gguf.scores.is_empty() => {
                    let at = draw.below(gguf.scores.len());
                    gguf.scores[at] = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.0, -0.0, 5.0][draw.below(6)];
                }
                5 if !gguf.merges.is_empty() => {
                    let at = draw.below(gguf.merges.len());
                    gguf.merges[at].insert(draw.below(2), b' ');
                }
                6 => gguf.bos = id,
                7 => gguf.unk = id,
                8 => gguf.token_types.clear(),
                _ => gguf.pre = Some(["default", "smollm", "llama4", "x"][draw.below(4)].into()),
            }
        }
        let bytes = gguf.tokens.iter().chain(&gguf.merges).map(|text| text.len() + 24).sum::<usize>();
        let (tokenizer, most) = most_bytes(|| Tokenizer::from_gguf(&gguf));
        // The patterns of `default` are compiled.
        assert!(most <= BYTES_FOR_PATTERNS + BYTES_PER_BYTE * bytes, "case {case}: {most} bytes for {bytes}");
        if let Ok(tokenizer) = tokenizer {
            good += 1;
            if good % 16 == 0 {
                use_it(&tokenizer);
            }
        }
    }
    println!("{good} of {CASES} mutations are tokenizers still, {:?}", start.elapsed());
    assert!(start.elapsed() < Duration::from_secs(300));
}

#[test]
fn a_large_hostile_file_takes_time_and_memory_in_proportion() {
    let json = |vocab: &str, rest: &str| {
        format!(
            r#"{{"model": {{"type": "BPE", "vocab": {{{vocab}}}, "merges": []}}, "pre_tokenizer": {{"type": "ByteLevel",
            "add_prefix_space": false}}, "decoder": {{"type": "ByteLevel"}}{rest}}}"#
        )
    };
    let many = (0..20_000).map(|i| format!("{{\"id\": {i}, \"content\": \"<{i}>\"}}")).collect::<Vec<_>>().join(",");
    let nested = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let zeros = format!("[{}0]", "0,".repeat(500_000));
    let long = "a".repeat(1 << 20);
    let ranks: String = (0..200).map(|i| format!("{} {i}\n", "AAAA".repeat(300 + i))).collect();
    let files = [
        json("", &format!(r#", "added_tokens": [{many}]"#)),
        json("", &format!(r#", "normalizer": {nested}"#)),
        json("", &format!(r#", "post_processor": {zeros}"#)),
        json(&format!(r#""{long}": 0"#), &format!(r#", "added_tokens": [{{"id": 1, "content": "{long}b"}}]"#)),
        ranks,
    ];
    for (case, file) in files.iter().enumerate() {
        let start = Instant::now();
        let (tokenizer, most) = most_bytes(|| match case {
            4 => Tokenizer::from_tiktoken(file.as_bytes(), TiktokenKind::Llama3),
            _ => Tokenizer::from_tokenizer_json(file.as_bytes()),
        });
        let spent = start.elapsed();
        println!("case {case}: {} bytes, {most} bytes of memory, {spent:?}, {}", file.len(), tokenizer.is_ok());
        assert!(most <= BYTES_FOR_PATTERNS + BYTES_PER_BYTE * file.len(), "case {case}: {most} bytes for {}", file.len());
        assert!(spent < Duration::from_secs(60), "case {case}");
        if let Ok(tokenizer) = tokenizer {
            tokenizer.encode(&long, Special::Parse, Bos::Add).unwrap();
        }
    }
}
