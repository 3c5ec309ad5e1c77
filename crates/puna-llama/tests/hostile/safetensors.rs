use puna_llama::weights::safetensors::parse;

use crate::builders::{file, good_safetensors, safetensors};
use crate::says;

#[track_caller]
fn refused(header: &str, data: usize, parts: &[&str]) {
    says(parse(&file("m.safetensors", &safetensors(header, data))), parts);
}

#[test]
fn the_good_file_is_read() {
    let file = file("m.safetensors", &good_safetensors());
    let tensors = parse(&file).unwrap();
    assert_eq!(tensors.len(), 3);
    assert_eq!((tensors[0].shape.as_slice(), tensors[0].bytes().unwrap().len()), ([2, 3].as_slice(), 24));
    assert_eq!(tensors[1].bytes().unwrap()[0], 24);
    // i32 is no error until a model needs it.
    assert_eq!(tensors[2].dtype.to_string(), "I32");
    says(tensors[2].dtype(), &["c is I32", "bf16"]);
}

#[test]
fn a_file_cut_at_any_byte_is_an_error() {
    let good = good_safetensors();
    for length in 0..good.len() {
        assert!(parse(&file("m.safetensors", &good[..length])).is_err(), "cut at {length}");
    }
}

#[test]
fn header_lengths_that_lie_are_errors() {
    let with_length = |length: u64| [&length.to_le_bytes()[..], b"{}"].concat();
    let check = |length, parts: &[&str]| says(parse(&file("m.safetensors", &with_length(length))), parts);
    check(1 << 63, &["9223372036854775808"]);
    check(u64::MAX, &["18446744073709551615"]);
    check(99_999_999, &["byte 8", "header", "99999999 bytes asked, 2 left"]);
    check(1, &["m.safetensors", "header is not what the format allows"]);
}

#[test]
fn offsets_that_overlap_leave_gaps_or_reach_beyond_are_errors() {
    let two = |a: &str, b: &str| {
        format!(r#"{{"a":{{"dtype":"U8","shape":[4],"data_offsets":{a}}},"b":{{"dtype":"U8","shape":[4],"data_offsets":{b}}}}}"#)
    };
    refused(&two("[0,4]", "[2,6]"), 8, &["b has bytes 2 to 6", "overlaps"]);
    refused(&two("[0,4]", "[5,9]"), 9, &["b has bytes 5 to 9", "gap"]);
    refused(&two("[1,5]", "[5,9]"), 9, &["a has bytes 1 to 5", "gap"]);
    refused(&two("[0,4]", "[4,8]"), 9, &["take 8 bytes, but 9 follow"]);
    refused(&two("[0,4]", "[4,8]"), 7, &["b has bytes 4 to 8 of 7", "beyond"]);
    refused(&two("[4,0]", "[0,4]"), 4, &["end lies before"]);
    refused(&two("[0,4]", "[4,18446744073709551615]"), 8, &["beyond"]);
    refused(&two("[0,4]", "[4,18446744073709551616]"), 8, &["header"]);
    refused(&two("[0,4]", "[-4,8]"), 8, &["header"]);
}

#[test]
fn shapes_that_do_not_fit_their_bytes_are_errors() {
    let one = |dtype: &str, shape: &str| format!(r#"{{"a":{{"dtype":"{dtype}","shape":{shape},"data_offsets":[0,8]}}}}"#);
    refused(&one("F32", "[3]"), 8, &["a is [3] F32", "takes 12 bytes", "are 8"]);
    refused(&one("F32", "[1099511627776,1099511627776]"), 8, &["more than 2^64"]);
    refused(&one("F32", "[4398046511105,4398046511105,4398046511105]"), 8, &["more than 2^64"]);
    refused(&one("F32", "[-1]"), 8, &["header"]);
    refused(&one("F32", "[2.5]"), 8, &["header"]);
    refused(&one("F4", "[15]"), 8, &["takes 8 bytes"]);
    assert!(parse(&file("m", &safetensors(&one("F4", "[16]"), 8))).is_ok());
    // A dtype of the future, with elements beyond counting.
    let odd = parse(&file("m", &safetensors(&one("X9", "[1099511627776,1099511627776]"), 8))).unwrap();
    assert_eq!((odd[0].elements(), odd[0].dtype.to_string()), (usize::MAX, "X9".to_owned()));
}

#[test]
fn headers_that_are_no_table_of_tensors_are_errors() {
    refused("[]", 0, &["header"]);
    refused(r#"{"a":1}"#, 0, &["header"]);
    refused(r#"{"a":{"dtype":"U8","shape":[0]}}"#, 0, &["data_offsets"]);
    let entry = r#"{"dtype":"U8","shape":[0],"data_offsets":[0,0]}"#;
    refused(&format!(r#"{{"a":{entry},"a":{entry}}}"#), 0, &["\"a\" comes twice"]);
    refused(&format!("{{\"a\":{}{}", "[".repeat(100_000), "]".repeat(100_000)), 0, &["header"]);
    // Metadata is passed over, however deep, without recursion.
    let deep = format!("{{\"__metadata__\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(parse(&file("m", &safetensors(&deep, 0))).unwrap().len(), 0);
}

#[test]
fn empty_tensors_and_absent_metadata_are_no_errors() {
    let header =
        r#"{"a":{"dtype":"F32","shape":[0,4],"data_offsets":[0,0]},"b":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}   "#;
    assert_eq!(parse(&file("m", &safetensors(header, 8))).unwrap().len(), 2);
    assert_eq!(parse(&file("m", &safetensors("{}", 0))).unwrap().len(), 0);
}
