//! A trained tokenizer against a naive trainer that counts everything again for each merge.

use std::collections::BTreeMap;

use proptest::prelude::*;
use puna_tokenizer::{Bos, Special, Tokenizer, Trainer, TrainerOptions};

fn options(vocab_size: usize) -> TrainerOptions {
    TrainerOptions { vocab_size, ..TrainerOptions::default() }
}

fn train(texts: &[&str], options: TrainerOptions) -> Tokenizer {
    let mut trainer = Trainer::new(options).unwrap();
    texts.iter().for_each(|text| trainer.feed(text).unwrap());
    trainer.train(&mut |_, _| {}).unwrap()
}

/// The tokens in order, by counting all pairs of all pieces each time. Pieces are those of text of lower-case words and single spaces,
/// which need no pattern: a word with the space before it.
fn naive(text: &str, room: usize, least: u64) -> Vec<Vec<u8>> {
    let mut pieces: Vec<Vec<Vec<u8>>> = Vec::new();
    let mut word = String::new();
    for character in text.chars() {
        if character == ' ' && !word.is_empty() {
            pieces.push(word.bytes().map(|byte| vec![byte]).collect());
            word.clear();
        }
        word.push(character);
    }
    pieces.push(word.bytes().map(|byte| vec![byte]).collect());
    let mut tokens: Vec<Vec<u8>> = (0..=255u8).map(|byte| vec![byte]).collect();
    while tokens.len() < room {
        let mut counts: BTreeMap<(usize, usize), u64> = BTreeMap::new();
        let id = |tokens: &[Vec<u8>], bytes: &Vec<u8>| tokens.iter().position(|token| token == bytes).unwrap();
        for piece in &pieces {
            for pair in piece.windows(2) {
                *counts.entry((id(&tokens, &pair[0]), id(&tokens, &pair[1]))).or_default() += 1;
            }
        }
        let most = counts.values().copied().max().unwrap_or(0);
        // Of a sorted map the first of the most frequent.
        let Some((&(left, right), _)) = counts.iter().find(|(_, count)| **count == most).filter(|_| most >= least) else { break };
        let merged = [tokens[left].clone(), tokens[right].clone()].concat();
        for piece in &mut pieces {
            let mut i = 0;
            while i + 1 < piece.len() {
                if piece[i] == tokens[left] && piece[i + 1] == tokens[right] {
                    piece.splice(i..i + 2, [merged.clone()]);
                }
                i += 1;
            }
        }
        if !tokens.contains(&merged) {
            tokens.push(merged);
        }
    }
    tokens
}

const TEXT: &str = "the small llama ran to the other llama and the other llama ran to the river where all the small animals ran and \
    ran until the rain came and the llama said aaaaaa banana bananas and anna banned the band on the sand";

#[test]
fn merges_are_those_of_counting_everything_again() {
    for (room, least) in [(257, 1), (270, 1), (300, 2), (400, 2), (2000, 1), (2000, 3)] {
        let tokenizer = train(&[TEXT], TrainerOptions { min_frequency: least, ..options(room + 2) });
        let expected = naive(TEXT, room, least);
        let learnt: Vec<Vec<u8>> =
            (0..tokenizer.vocab_size() as u32 - 2).map(|id| tokenizer.token_bytes(id).unwrap().to_vec()).collect();
        assert_eq!(learnt, expected, "{room} tokens, {least} at least");
    }
}

#[test]
fn the_order_of_texts_changes_nothing() {
    let texts: Vec<&str> = TEXT.split("llama").collect();
    let reversed: Vec<&str> = texts.iter().rev().copied().collect();
    let json = |texts: &[&str]| train(texts, options(320)).to_tokenizer_json().unwrap();
    assert_eq!(json(&texts), json(&reversed));
}

#[test]
fn ids_are_bytes_then_merges_then_special_tokens() {
    let tokenizer = train(&[TEXT], TrainerOptions { special_tokens: vec!["<|pad|>".into()], min_frequency: 1, ..options(300) });
    assert_eq!(tokenizer.vocab_size(), 300);
    (0..=255u8).for_each(|byte| assert_eq!(tokenizer.token_bytes(u32::from(byte)), Some(&[byte][..])));
    assert_eq!((tokenizer.bos(), tokenizer.eos(), tokenizer.id("<|pad|>")), (Some(297), Some(298), Some(299)));
    assert_eq!(tokenizer.encode("<|end_of_text|>", Special::Parse, Bos::Add).unwrap(), [297, 298]);
    assert!(tokenizer.encode("<|end_of_text|>", Special::Text, Bos::AsWritten).unwrap().len() > 1);
}

#[test]
fn it_is_written_and_read_again() {
    let tokenizer = train(&[TEXT], options(350));
    let json = serde_json::to_vec(&tokenizer.to_tokenizer_json().unwrap()).unwrap();
    let again = Tokenizer::from_bytes(&json).unwrap();
    for text in [TEXT, "", " ", "Ein Lama, zwölf Lamas; 1234567 \u{1f999}\r\n\tend", "aaaaaaaaaa"] {
        let ids = tokenizer.encode(text, Special::Text, Bos::Add).unwrap();
        assert_eq!(ids, again.encode(text, Special::Text, Bos::Add).unwrap(), "{text:?}");
    }
    assert!(again.adds_bos());
}

#[test]
fn fewer_tokens_where_the_text_has_no_more() {
    let tokenizer = train(&["ab ab"], options(5000));
    // ab, " ab": of pairs met twice, then once.
    assert_eq!(tokenizer.vocab_size(), 256 + 1 + 2, "only a b is met twice");
}

#[test]
fn settings_and_texts_that_cannot_be_are_refused() {
    let error = |options: TrainerOptions| Trainer::new(options).unwrap_err().to_string();
    assert_eq!(error(options(257)), "trainer: a vocabulary of 257; 258 at least would be right: 256 bytes and 2 special tokens");
    assert!(Trainer::new(options(258)).is_ok());
    let twice = TrainerOptions { special_tokens: vec!["<|end_of_text|>".into()], ..options(1000) };
    assert!(error(twice).contains("\"<|end_of_text|>\" is there twice"));
    let empty = TrainerOptions { special_tokens: vec![String::new()], ..options(1000) };
    assert!(error(empty).contains("empty"));
    let nothing = Trainer::new(options(1000)).unwrap().train(&mut |_, _| {}).err().unwrap();
    assert_eq!(nothing.to_string(), "trainer: there is no text to learn from");
}

#[test]
fn progress_counts_up_to_what_there_is_room_for() {
    let mut trainer = Trainer::new(options(270)).unwrap();
    trainer.feed(TEXT).unwrap();
    let mut told = Vec::new();
    trainer.train(&mut |done, of| told.push((done, of))).unwrap();
    assert_eq!(told, (257..=268).map(|done| (done, 268)).collect::<Vec<_>>());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_it_learnt_from_every_text_comes_back(texts in proptest::collection::vec(".{0,60}", 1..5), other in ".{0,80}", size in 258usize..600) {
        prop_assume!(texts.iter().any(|text| !text.is_empty()));
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let tokenizer = train(&texts, options(size));
        prop_assert!(tokenizer.vocab_size() <= size);
        for text in texts.iter().copied().chain([other.as_str()]) {
            let ids = tokenizer.encode(text, Special::Text, Bos::AsWritten).unwrap();
            prop_assert_eq!(tokenizer.decode(&ids).unwrap(), text);
        }
    }
}
