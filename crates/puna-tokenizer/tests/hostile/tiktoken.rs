use puna_tokenizer::{Bos, Special, TiktokenKind, Tokenizer};

use crate::builders::{base64, good_tiktoken, tiktoken};
use crate::refused;

fn read(bytes: &[u8]) -> puna_tokenizer::Result<Tokenizer> {
    Tokenizer::from_tiktoken(bytes, TiktokenKind::Llama3)
}

/// A good file with one more line, the 262nd.
#[track_caller]
fn check_line(line: &str, parts: &[&str]) {
    refused(read(&[&good_tiktoken()[..], line.as_bytes()].concat()), &[&["tiktoken file: line 262"], parts].concat());
}

#[test]
fn the_good_file_is_good() {
    for kind in [TiktokenKind::Llama3, TiktokenKind::Llama4] {
        let tokenizer = Tokenizer::from_tiktoken(&good_tiktoken(), kind).unwrap();
        let ids = tokenizer.encode("abab abab123", Special::Text, Bos::Add).unwrap();
        assert_eq!(ids, [261, 257, 258, 260, u32::from(b'3')]);
        assert_eq!(tokenizer.decode(&ids[1..]).unwrap(), "abab abab123");
    }
    assert!(read(&[&good_tiktoken()[..], b"\r\n \n"].concat()).is_ok(), "empty lines are passed over");
}

#[test]
fn lines_that_are_none_are_refused() {
    check_line("eHg=", &["not two fields"]);
    check_line("eHg= 261 1", &["not two fields"]);
    check_line("eHg=  261", &["not two fields"]);
    check_line("e!g= 261", &["base64"]);
    check_line("\u{e9}\u{e9} 261", &["base64"]);
    check_line("e 261", &["base64"]);
    check_line("eH===== 261", &["base64"]);
    for rank in ["262", "0", "-1", "+261x", "18446744073709551616", "two"] {
        check_line(&format!("eHg= {rank}"), &["the rank is not 261"]);
    }
    check_line("= 261", &["empty"]);
    check_line("YWI= 261", &["has a rank already"]);
    check_line("YWI 261", &["has a rank already"]);
}

#[test]
fn truncated_files_are_refused_or_shorter() {
    let good = good_tiktoken();
    let bytes = tiktoken(&[]).len();
    for length in 0..good.len() {
        match read(&good[..length]) {
            Ok(tokenizer) => assert!(length >= bytes - 1 && tokenizer.vocab_size() < 262 + 256),
            Err(error) => assert!(error.to_string().starts_with("tiktoken file: "), "{error}"),
        }
    }
    refused(read(b""), &["byte 0x00 has no rank"]);
    refused(read(&good[..bytes - 9]), &["has no rank"]);
}

#[test]
fn tokens_beyond_any_are_refused() {
    let long = tiktoken(&[&"x".repeat(1025)]);
    refused(read(&long), &["token 256 has 1025 bytes; at most 1024"]);
    let long = tiktoken(&[&"x".repeat(1024)]);
    assert!(read(&long).is_ok());
}

#[test]
fn files_of_another_number_of_ranks_are_refused_unless_named() {
    refused(Tokenizer::from_bytes(&good_tiktoken()), &["tiktoken file", "261 lines", "128000", "200000"]);
    refused(Tokenizer::from_bytes(b"hello world"), &["tiktoken file", "1 lines"]);
    refused(Tokenizer::from_bytes(base64(b"x").as_bytes()), &["tiktoken file"]);
}

#[test]
fn other_files_are_no_tokenizers() {
    refused(Tokenizer::from_bytes(b""), &["the file is empty"]);
    refused(Tokenizer::from_bytes(b"\x80\x02}q\0."), &["a file of this kind is not supported"]);
    refused(Tokenizer::from_bytes(b"GGUF\x03\0\0\0"), &["tiktoken file"]);
    refused(Tokenizer::from_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 499723\n"), &["Git LFS"]);
}
