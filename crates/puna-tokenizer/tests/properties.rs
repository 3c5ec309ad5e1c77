//! What holds for every text: decoding gives it back, however long and odd; streams and other formats say the same.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use puna_tokenizer::{Bos, GgufTokenizer, Special, Tokenizer};

const GOLDENS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../puna-conformance/goldens/tokenizers/");

/// Far more than the second that a debug build takes for a megabyte: what is quadratic would take hours.
const LONGEST: Duration = Duration::from_secs(60);

/// A tokenizer among the goldens, read once.
macro_rules! golden {
    ($name:ident, $path:literal) => {
        fn $name() -> &'static Tokenizer {
            static TOKENIZER: OnceLock<Tokenizer> = OnceLock::new();
            TOKENIZER.get_or_init(|| Tokenizer::from_file([GOLDENS, $path].concat()).unwrap())
        }
    };
}

golden!(smollm2, "files/smollm2/tokenizer.json");
golden!(mistral, "files/mistral-v1/tokenizer.model");
golden!(bytes_512, "bpe_training/hf_bytelevel_512.json");
golden!(llama3_regex_512, "bpe_training/hf_bytelevel_llama3_regex_512.json");
golden!(sentencepiece_512, "bpe_training/sentencepiece_bpe_512.model");

const ALL: [fn() -> &'static Tokenizer; 5] = [smollm2, mistral, bytes_512, llama3_regex_512, sentencepiece_512];

fn encode(tokenizer: &Tokenizer, text: &str, special: Special) -> Vec<u32> {
    tokenizer.encode(text, special, Bos::AsWritten).unwrap()
}

/// Texts of what tokenizers stumble over, beside any character at all.
fn texts() -> impl Strategy<Value = String> {
    let odd = prop::sample::select(vec![
        " ",
        "  ",
        "\n",
        "\r\n",
        "\t",
        "\u{a0}",
        "\u{3000}",
        "▁",
        "'s",
        "'LL",
        "'ſ",
        "<s>",
        "</s>",
        "<unk>",
        "<0x0A>",
        "<|im_start|>",
        "<|im_end|>",
        "<|begin|>",
        "the",
        " the",
        "123",
        "٣",
        "½",
        "é",
        "e\u{301}",
        "中",
        "한국",
        "👩\u{200d}💻",
        "\u{fffd}",
        "!!",
        "/*",
    ]);
    let part = prop_oneof![4 => odd.prop_map(str::to_owned), 2 => any::<char>().prop_map(String::from), 1 => "[a-zA-Z]{1,8}"];
    prop::collection::vec(part, 0..24).prop_map(|parts| parts.concat())
}

/// Whether a byte-level vocabulary can write these bytes: SmolLM2's lacks some that no UTF-8 has, and few has.
fn can_write(tokenizer: &Tokenizer, bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| tokenizer.encode_bytes(&[*byte], Special::Text, Bos::AsWritten).unwrap().len() == 1)
}

/// The same tokenizer by way of another format.
fn through_json(tokenizer: &Tokenizer) -> Tokenizer {
    Tokenizer::from_tokenizer_json(tokenizer.to_tokenizer_json().unwrap().to_string().as_bytes()).unwrap()
}

fn through_gguf(tokenizer: &Tokenizer) -> (GgufTokenizer, Tokenizer) {
    let gguf = tokenizer.to_gguf().unwrap();
    let again = Tokenizer::from_gguf(&gguf).unwrap();
    (gguf, again)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, rng_seed: proptest::test_runner::RngSeed::Fixed(3), ..ProptestConfig::default() })]

    #[test]
    fn decoding_gives_the_text_back(text in texts()) {
        for tokenizer in [bytes_512(), llama3_regex_512(), smollm2()] {
            for special in [Special::Text, Special::Parse].into_iter().filter(|_| can_write(tokenizer, text.as_bytes())) {
                prop_assert_eq!(tokenizer.decode(&encode(tokenizer, &text, special)).unwrap(), text.as_str());
            }
        }
        // What looks like a visible space is one; what looks like a control piece is text where none is parsed.
        for tokenizer in [mistral(), sentencepiece_512()] {
            let got = tokenizer.decode(&encode(tokenizer, &text, Special::Text)).unwrap();
            prop_assert_eq!(got, text.replace('▁', " "));
        }
    }

    #[test]
    fn tokens_bytes_give_ill_formed_bytes_back(bytes in prop::collection::vec(prop_oneof![any::<u8>(), Just(b' '), Just(0xe2), Just(0x96)], 0..40)) {
        for tokenizer in [bytes_512(), llama3_regex_512(), smollm2()].into_iter().filter(|tokenizer| can_write(tokenizer, &bytes)) {
            let ids = tokenizer.encode_bytes(&bytes, Special::Text, Bos::AsWritten).unwrap();
            let back: Vec<u8> = ids.iter().flat_map(|id| tokenizer.token_bytes(*id).unwrap()).copied().collect();
            prop_assert_eq!(&back, &bytes);
            prop_assert_eq!(tokenizer.decode(&ids).unwrap(), String::from_utf8_lossy(&bytes));
        }
    }

    #[test]
    fn a_stream_gives_the_text_of_all(text in texts()) {
        for tokenizer in ALL.map(|tokenizer| tokenizer()) {
            let ids = encode(tokenizer, &text, Special::Parse);
            let mut stream = tokenizer.decode_stream();
            let mut streamed: String = ids.iter().map(|id| stream.push(*id).unwrap()).collect();
            streamed += &stream.flush();
            prop_assert_eq!(streamed, tokenizer.decode(&ids).unwrap());
        }
    }

    #[test]
    fn a_stream_of_any_ids_gives_the_text_of_all(seeds in prop::collection::vec(any::<u32>(), 0..40)) {
        // SentencePiece writes as many U+FFFD as bytes, streams as Unicode recommends.
        for tokenizer in [smollm2(), bytes_512(), llama3_regex_512()] {
            let ids: Vec<u32> = seeds.iter().map(|seed| seed % tokenizer.vocab_size() as u32).collect();
            let mut stream = tokenizer.decode_stream();
            let mut streamed: String = ids.iter().map(|id| stream.push(*id).unwrap()).collect();
            streamed += &stream.flush();
            prop_assert_eq!(streamed, tokenizer.decode(&ids).unwrap());
        }
    }

    #[test]
    fn special_tokens_are_none_unless_they_are_parsed(text in texts()) {
        for tokenizer in ALL.map(|tokenizer| tokenizer()) {
            let ids = encode(tokenizer, &text, Special::Text);
            prop_assert!(!ids.iter().any(|id| tokenizer.is_special(*id)), "{:?}", ids);
        }
    }

    #[test]
    fn other_formats_have_the_same_ids(text in texts()) {
        static OTHERS: OnceLock<Vec<[Tokenizer; 2]>> = OnceLock::new();
        let make = || ALL.map(|tokenizer| [through_json(tokenizer()), through_gguf(tokenizer()).1]).into();
        for (tokenizer, others) in ALL.map(|tokenizer| tokenizer()).iter().zip(OTHERS.get_or_init(make)) {
            for special in [Special::Text, Special::Parse] {
                let ids = encode(tokenizer, &text, special);
                for other in others {
                    prop_assert_eq!(&encode(other, &text, special), &ids);
                    let added = |tokenizer: &Tokenizer| tokenizer.encode(&text, special, Bos::Add).unwrap();
                    prop_assert_eq!(added(other), added(tokenizer));
                    // Hugging Face's format shows control pieces as text, SentencePiece does not.
                    if !ids.iter().any(|id| tokenizer.is_special(*id)) {
                        prop_assert_eq!(other.decode(&ids).unwrap(), tokenizer.decode(&ids).unwrap());
                    }
                }
            }
        }
    }
}

#[test]
fn what_is_written_is_written_alike_again() {
    for tokenizer in ALL.map(|tokenizer| tokenizer()) {
        let json = tokenizer.to_tokenizer_json().unwrap();
        assert!(through_json(tokenizer).to_tokenizer_json().unwrap() == json);
        let (gguf, again) = through_gguf(tokenizer);
        assert!(again.to_gguf().unwrap() == gguf);
    }
}

#[test]
fn a_megabyte_of_anything_is_encoded_in_time() {
    let mut state = 7u32;
    let mut draw = move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state >> 16
    };
    const N: usize = 1 << 20;
    let texts = [
        "a".repeat(N),
        " ".repeat(N),
        "<".repeat(N),
        "\n".repeat(N),
        "'".repeat(N),
        "▁".repeat(N / 3),
        "A中".repeat(N / 4),
        "e\u{301}".repeat(N / 3),
        " \n".repeat(N / 2),
        "<|im_start|".repeat(N / 11),
        "<|im_start|>".repeat(N / 12),
        (0..N).map(|_| char::from(b'a' + (draw() % 26) as u8)).collect(),
    ];
    for tokenizer in ALL.map(|tokenizer| tokenizer()) {
        for text in &texts {
            let started = Instant::now();
            let ids = encode(tokenizer, text, Special::Parse);
            let beginning: String = text.chars().take(12).collect();
            assert!(started.elapsed() < LONGEST, "{beginning:?}: {:?}", started.elapsed());
            // A visible space is one for SentencePiece, and text elsewhere.
            let got = tokenizer.decode(&ids).unwrap();
            assert!(got == *text || got == text.replace('▁', " "), "{beginning:?}");
        }
    }
}

#[test]
fn tokens_that_strip_white_space_take_linear_time() {
    let json = |lstrip: bool, rstrip: bool| {
        serde_json::json!({
            "added_tokens": [{"id": 1, "content": " ", "lstrip": lstrip, "rstrip": rstrip, "normalized": false, "special": true}],
            "decoder": {"type": "Sequence", "decoders": [{"type": "Fuse"}]},
            "model": {"vocab": {"a": 0}, "merges": []},
        })
    };
    for (lstrip, rstrip) in [(true, false), (false, true), (true, true)] {
        let tokenizer = Tokenizer::from_tokenizer_json(json(lstrip, rstrip).to_string().as_bytes()).unwrap();
        let started = Instant::now();
        let ids = encode(&tokenizer, &format!("a{}a", " ".repeat(1 << 20)), Special::Parse);
        assert!(started.elapsed() < LONGEST, "{:?}", started.elapsed());
        assert_eq!((ids[0], ids[1], *ids.last().unwrap()), (0, 1, 0));
    }
}

#[test]
fn threads_share_a_tokenizer() {
    let text = "She doesn't know whether they'll come, 12345 times; né? ".repeat(50);
    let expected = encode(smollm2(), &text, Special::Text);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| assert_eq!(encode(smollm2(), &text, Special::Text), expected));
        }
    });
}

#[test]
fn tokens_and_ids_are_inverse() {
    for tokenizer in ALL.map(|tokenizer| tokenizer()) {
        for (id, text) in tokenizer.special_tokens() {
            assert_eq!((tokenizer.id(text), tokenizer.token(id).as_deref()), (Some(id), Some(text)));
        }
        for id in 0..tokenizer.vocab_size() as u32 {
            let text = tokenizer.token(id).unwrap();
            // Tokens that are no text have no text of their own.
            if !text.contains('\u{fffd}') {
                assert_eq!(tokenizer.id(&text), Some(id), "{text:?}");
            }
        }
        assert_eq!(tokenizer.token(tokenizer.vocab_size() as u32), None);
        assert!(tokenizer.decode(&[u32::MAX]).is_err() && tokenizer.decode_stream().push(u32::MAX).is_err());
    }
}
