use puna_tokenizer::{Bos, Special, Tokenizer};

use crate::builders::{field, good_sentencepiece, model, normalizer, number, piece, pieces_first, trainer, varint};
use crate::{beginnings, refused};

#[track_caller]
fn check(bytes: &[u8], parts: &[&str]) {
    refused(Tokenizer::from_sentencepiece(bytes), parts);
}

/// A model with one more piece.
#[track_caller]
fn check_piece(more: &[Vec<u8>], parts: &[&str]) {
    check(&model(&[pieces_first(), more.to_vec()].concat()), parts);
}

#[test]
fn the_good_model_is_good() {
    let tokenizer = Tokenizer::from_sentencepiece(&good_sentencepiece()).unwrap();
    let ids = tokenizer.encode("abab ü<sep>", Special::Text, Bos::Add).unwrap();
    assert_eq!(ids, [1, 261, 262, 3 + 0xc3, 3 + 0xbc, 266]);
    assert_eq!(tokenizer.decode(&ids).unwrap(), "abab ü<sep>");
}

#[test]
fn truncated_models_are_refused() {
    // Without settings it is no BPE model; without the last of them, they are the defaults.
    let good = good_sentencepiece();
    beginnings(&good, Tokenizer::from_sentencepiece, |length| length != good.len() - normalizer().len());
    check(&good[..100], &["byte 98: model: 15 bytes asked, 2 left"]);
}

#[test]
fn lengths_that_the_file_does_not_back_are_refused() {
    check(&[&[0x0a][..], &varint(u64::MAX)].concat(), &["model", "18446744073709551615"]);
    check(&[&[0x0a][..], &varint(1 << 40), b"abc"].concat(), &["1099511627776", "3"]);
    check(&[0x0a, 0x80], &["model"]);
    check(&[0xff; 11], &["model"]);
}

#[test]
fn fields_of_wrong_types_are_refused() {
    for wire in [3, 4, 6, 7] {
        check(&[&good_sentencepiece()[..], &[9 << 3 | wire]].concat(), &["wire type"]);
    }
    check(&number(1, 5), &["field 1 has another type"]);
    check(&number(2, 5), &["field 2 has another type"]);
    check(&field(1, &number(1, 5)), &["piece", "field 1 has another type"]);
    check(&field(1, &number(2, 5)), &["piece", "field 2 has another type"]);
    check(&field(2, &field(3, b"bpe")), &["trainer settings", "field 3 has another type"]);
    check(&field(3, &number(1, 5)), &["normalizer settings", "field 1 has another type"]);
}

#[test]
fn fields_that_are_not_known_are_passed_over() {
    let more =
        [number(900, 1), field(901, b"x"), vec![9 << 3 | 1, 0, 0, 0, 0, 0, 0, 0, 0], vec![9 << 3 | 5, 0, 0, 0, 0]].concat();
    Tokenizer::from_sentencepiece(&[good_sentencepiece(), more].concat()).unwrap();
}

#[test]
fn pieces_that_cannot_be_are_refused() {
    check_piece(&[field(1, &field(1, &[0xff, 0xfe]))], &["piece text", "UTF-8"]);
    check_piece(&[piece("x", f32::NAN, 1)], &["piece", "score of \"x\""]);
    for name in ["<0x-1>", "<0xZZ>", "<0x+1>", "<0x1>", "<0x100>", "<0X41>", "0x41", "<0x41", "a"] {
        check_piece(&[piece(name, 0.0, 6)], &["piece", name, "<0x00> to <0xFF>"]);
    }
    check_piece(&[piece("", 0.0, 1)], &["piece 259 is empty"]);
    for kind in [0, 7, u64::MAX] {
        check_piece(&[piece("x", 0.0, kind)], &["piece type", &kind.to_string(), "1 to 6"]);
    }
    check_piece(&[piece("x", 0.0, 5)], &["unused piece \"x\""]);
    check_piece(&[piece(&"x".repeat(1025), 0.0, 1)], &["1025 bytes", "at most 1024"]);
}

#[test]
fn pieces_that_are_there_twice_are_refused() {
    check_piece(&[piece("a", 0.0, 1), piece("b", 0.0, 1), piece("a", -1.0, 1)], &["\"a\" is there twice"]);
    check_piece(&[piece("<0x41>", 0.0, 6)], &["\"<0x41>\" is there twice"]);
    check_piece(&[piece("<s>", 0.0, 3)], &["\"<s>\" is there twice"]);
    check_piece(&[piece("<m>", 0.0, 4), piece("<m>", 0.0, 4)], &["\"<m>\" is there twice"]);
    check_piece(&[piece("<m>", 0.0, 1), piece("<m>", 0.0, 4)], &["\"<m>\" is there twice"]);
}

#[test]
fn models_of_other_kinds_are_refused_by_name() {
    let with =
        |trainer: Vec<u8>, normalizer: Vec<u8>| [pieces_first().concat(), field(2, &trainer), field(3, &normalizer)].concat();
    check(&with(number(3, 1), vec![]), &["unigram"]);
    check(&with(vec![], vec![]), &["unigram"]);
    check(&with(number(3, 3), vec![]), &["word"]);
    check(&with(number(3, 99), vec![]), &["type 99"]);
    check(&with(number(3, 2), [field(1, b"nmt_nfkc"), field(2, b"...")].concat()), &["\"nmt_nfkc\"", "identity"]);
    check(&with([number(3, 2), number(24, 1)].concat(), vec![]), &["suffix"]);
    check(&with(number(3, 2), number(5, 0)), &["not escaped"]);
}

#[test]
fn models_without_what_they_need_are_refused() {
    check(&[], &["no pieces"]);
    check(&[trainer(), normalizer()].concat(), &["no pieces"]);
    let some = pieces_first()[..200].to_vec();
    check(&model(&some), &["197 bytes have tokens"]);
    check(&model(&[piece("<unk>", 0.0, 2), piece("a", 0.0, 1)]), &["byte_fallback without byte pieces"]);
    check(&[piece("a", 0.0, 1), field(2, &number(3, 2))].concat(), &["no unknown piece"]);
}

#[test]
fn ids_that_are_not_there_are_none() {
    let settings = field(2, &[number(3, 2), number(35, 1), number(41, 5_000_000), number(42, u64::MAX)].concat());
    let bytes = [pieces_first().concat(), piece("a", 0.0, 1), settings, normalizer()].concat();
    let tokenizer = Tokenizer::from_sentencepiece(&bytes).unwrap();
    assert_eq!((tokenizer.bos(), tokenizer.eos(), tokenizer.adds_bos()), (None, None, false));
    assert!(
        tokenizer.decode(&[260]).unwrap_err().to_string().contains("token id 260 names no token; the vocabulary has 260 ids")
    );
}

#[test]
fn other_files_are_no_models() {
    for bytes in [&b"{\"model\": 1}"[..], b"GGUF\x03\0\0\0", b"PK\x03\x04", b"SGVsbG8= 0\n", b"\0\0\0\0"] {
        assert!(Tokenizer::from_sentencepiece(bytes).is_err());
    }
}
