use puna_llama::Result;
use puna_llama::weights::TensorInfo;

use crate::builders::{file, good_pth, op, pth, zip};
use crate::says;

fn parse(bytes: &[u8]) -> Result<Vec<TensorInfo>> {
    puna_llama::weights::pth::parse(&file("m.pth", bytes))
}

#[track_caller]
fn refused_pickle(pickle: &[u8], parts: &[&str]) {
    says(parse(&pth(pickle, &[("0", 24)])), parts);
}

#[track_caller]
fn refused_tensor(tensor: Vec<u8>, parts: &[&str]) {
    refused_pickle(&op::dict(&[("a", tensor)]), parts);
}

#[test]
fn the_good_file_is_read_and_views_are_gathered() {
    let tensors = parse(&good_pth()).unwrap();
    assert_eq!(tensors.len(), 2);
    assert!(tensors[0].contiguous().is_some());
    assert_eq!(tensors[0].bytes().unwrap().as_ref(), (0..24).collect::<Vec<u8>>());
    // Elements 1, 4, 2, 5, 3, 6 of two bytes each.
    assert!(tensors[1].contiguous().is_none());
    assert_eq!(tensors[1].bytes().unwrap().as_ref(), [2, 3, 8, 9, 4, 5, 10, 11, 6, 7, 12, 13]);
}

#[test]
fn a_file_cut_at_any_byte_is_an_error() {
    let good = good_pth();
    for length in 0..good.len() {
        assert!(parse(&good[..length]).is_err(), "cut at {length}");
    }
}

#[test]
fn the_format_before_zip_is_named() {
    says(parse(b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."), &["m.pth", "before 1.6"]);
}

#[test]
fn archives_that_lie_are_errors() {
    let good = good_pth();
    let end = good.len() - 22;
    let with = |at: usize, bytes: &[u8]| {
        let mut file = good.clone();
        file[at..at + bytes.len()].copy_from_slice(bytes);
        parse(&file)
    };
    says(parse(b""), &["no zip archive"]);
    says(parse(&[0; 100_000]), &["no zip archive"]);
    // The end record: entries, directory bytes, directory offset.
    says(with(end + 8, &[0xfe, 0xff, 0xfe, 0xff]), &["central directory", "65534 entries"]);
    says(with(end + 12, &0x7fff_ffffu32.to_le_bytes()), &["central directory", "bytes asked"]);
    says(with(end + 16, &0x7fff_ffffu32.to_le_bytes()), &["central directory", "beyond"]);
    says(with(end + 4, &[1, 0]), &["several disks"]);
    // The first entry of the directory: method, sizes, header offset.
    let directory = u32::from_le_bytes(good[end + 16..end + 20].try_into().unwrap()) as usize;
    says(with(directory + 10, &[8, 0]), &["x/data.pkl", "compressed (method 8"]);
    says(with(directory + 8, &[1, 0]), &["x/data.pkl", "encrypted"]);
    says(with(directory + 24, &[0xff, 0xff, 0xff, 0x7f]), &["x/data.pkl", "compressed"]);
    says(with(directory + 20, &[0xfe; 8]), &["entry bytes", "asked"]);
    says(with(directory + 42, &[4, 0, 0, 0]), &["x/data.pkl", "no header where the directory says"]);
    says(with(directory, b"XX"), &["entry signature"]);
    says(parse(&zip(&[("x/data.pkl", b"."), ("x/data.pkl", b".")])), &["\"x/data.pkl\" comes twice"]);
    says(parse(&zip(&[("x/data", b".")])), &["not exactly one data.pkl"]);
    says(parse(&zip(&[("x/data.pkl", b"."), ("y/data.pkl", b".")])), &["not exactly one data.pkl"]);
    says(parse(&zip(&[("x/data.pkl", b"."), ("x/byteorder", b"big")])), &["byte order is \"big\""]);
}

#[test]
fn sizes_of_64_bits_are_read() {
    let pickle = op::dict(&[("a", op::tensor("ByteStorage", "0", 4, 0, &[4], &[1]))]);
    let plain = pth(&pickle, &[("0", 4)]);
    let end = plain.len() - 22;
    let field = |at: usize| u32::from_le_bytes(plain[at..at + 4].try_into().unwrap());
    let (size, offset) = (u64::from(field(end + 12)), u64::from(field(end + 16)));
    // The end record of 64 bits, its locator, and an end record that points there.
    let mut file = plain[..end].to_vec();
    file.extend([&b"PK\x06\x06"[..], &44u64.to_le_bytes(), &[0; 12], &3u64.to_le_bytes(), &3u64.to_le_bytes()].concat());
    file.extend([size.to_le_bytes(), offset.to_le_bytes()].concat());
    file.extend([&b"PK\x06\x07"[..], &[0; 4], &(end as u64).to_le_bytes(), &1u32.to_le_bytes()].concat());
    file.extend([&b"PK\x05\x06"[..], &[0; 4], &[0xff; 12], &[0; 2]].concat());
    assert_eq!(parse(&file).unwrap()[0].bytes().unwrap().as_ref(), [0, 1, 2, 3]);
    // A locator that points beyond the file, or at something else.
    let locator = file.len() - 22 - 20;
    let with = |at: u64| {
        let mut file = file.clone();
        file[locator + 8..locator + 16].copy_from_slice(&at.to_le_bytes());
        parse(&file)
    };
    says(with(u64::MAX), &["zip64 end", "beyond"]);
    says(with(0), &["zip64 end signature"]);
}

#[test]
fn nothing_but_tensors_can_be_built() {
    let call = |module: &str, class: &str| [&[0x80, 2][..], &op::global(module, class), b"(X\x02\0\0\0idtR."].concat();
    refused_pickle(&call("os", "system"), &["opcode GLOBAL", "os.system"]);
    refused_pickle(&call("builtins", "eval"), &["builtins.eval"]);
    refused_pickle(&call("posix", "system"), &["posix.system"]);
    refused_pickle(&call("torch", "load"), &["torch.load"]);
    refused_pickle(&call("torch._utils", "_rebuild_tensor_v3"), &["torch._utils._rebuild_tensor_v3"]);
    refused_pickle(&call("collections", "OrderedDict"), &["opcode REDUCE", "OrderedDict", "does not take"]);
    for (opcode, name) in
        [(b'i', "INST"), (b'o', "OBJ"), (0x81, "NEWOBJ"), (0x92, "NEWOBJ_EX"), (0x93, "STACK_GLOBAL"), (b'P', "PERSID")]
    {
        refused_pickle(&[0x80, 2, opcode, b'.'], &["byte", &format!("opcode {name}"), "none that a state dict needs"]);
    }
    refused_pickle(&[0x80, 4, b'.'], &["protocol 4"]);
    refused_pickle(&[b'c'; 400], &["global", "no line feed"]);
    refused_pickle(&op::global("os", "system")[..5], &["global"]);
}

#[test]
fn stacks_and_memos_that_do_not_hold_what_is_asked_are_errors() {
    for pickle in [
        &b"t."[..],
        b"u.",
        b"R.",
        b"Q.",
        b"s.",
        b"b.",
        b"a.",
        b"e.",
        b"q\0.",
        b"h\0.",
        b"\x87.",
        b"((u.",
        b"}(K\x01u.",
        b"N(u.",
        b")R.",
    ] {
        assert!(parse(&pth(pickle, &[])).is_err(), "{pickle:?}");
    }
    refused_pickle(b"", &["opcode", "1 bytes asked, 0 left"]);
    refused_pickle(b".", &["no dict of tensors"]);
    refused_pickle(b"K\x01.", &["no dict of tensors"]);
    refused_pickle(b"}}.", &["no dict of tensors"]);
    refused_pickle(b"(}.", &["no dict of tensors"]);
    refused_pickle(b"j\xff\xff\xff\xff.", &["memo has no 4294967295"]);
    refused_pickle(b"]K\x01s.", &["too little"]);
    // SETITEM on something that is no dict.
    refused_pickle(b"]K\x01K\x02s.", &["opcode SETITEM", "no dict"]);
    refused_pickle(b"}X\xff\xff\xff\xff.", &["text", "4294967295 bytes asked"]);
    refused_pickle(&[0x8a, 255, b'.'], &["integer", "bytes asked"]);
    refused_pickle(b"\x8a\x09\0\0\0\0\0\0\0\0\x01.", &["integer of 9 bytes"]);
    refused_pickle(b"}X\x01\0\0\0aK\x01s.", &["state dict maps names to tensors"]);
}

#[test]
fn depth_costs_no_stack() {
    // A tuple of a tuple of a tuple ..., then everything is dropped.
    let deep = [b")".as_slice(), &[0x85].repeat(1_000_000), b"."].concat();
    refused_pickle(&deep, &["no dict of tensors"]);
    refused_pickle(&b"(".repeat(1_000_000), &["opcode"]);
    // Memo entries that refer to one another double a walk, not a value.
    let mut doubling = b")".to_vec();
    (0..200u8).for_each(|i| doubling.extend([b'q', i, b'h', i, 0x86]));
    refused_pickle(&[&doubling[..], b"."].concat(), &["no dict of tensors"]);
    let large = vec![b'N'; (16 << 20) + 1];
    refused_pickle(&large, &["16777217 bytes"]);
}

#[test]
fn tensors_lie_within_their_storage() {
    let float =
        |elements, offset, shape: &[i64], strides: &[i64]| op::tensor("FloatStorage", "0", elements, offset, shape, strides);
    assert!(parse(&pth(&op::dict(&[("a", float(6, 0, &[2, 3], &[3, 1]))]), &[("0", 24)])).is_ok());
    refused_tensor(float(7, 0, &[7], &[1]), &["a: storage \"0\"", "7 elements of 4 bytes", "has 24"]);
    refused_tensor(float(5, 0, &[5], &[1]), &["5 elements of 4 bytes", "has 24"]);
    refused_tensor(float(i64::MAX, 0, &[1], &[1]), &["storage \"0\""]);
    refused_tensor(float(-1, 0, &[1], &[1]), &["persistent id"]);
    refused_tensor(float(6, 1, &[2, 3], &[3, 1]), &["does not fit its storage of 6"]);
    refused_tensor(float(6, 0, &[2, 3], &[4, 1]), &["does not fit"]);
    refused_tensor(float(6, 0, &[2, 3], &[i64::MAX, 1]), &["does not fit"]);
    refused_tensor(float(6, i64::MAX, &[2], &[1]), &["does not fit"]);
    refused_tensor(float(6, 0, &[1 << 40, 1 << 40], &[0, 0]), &["does not fit"]);
    // A view that repeats elements would be larger than the file.
    refused_tensor(float(6, 0, &[1 << 30], &[0]), &["does not fit"]);
    refused_tensor(float(6, 0, &[2, 3], &[3]), &["2 axes with 1 strides"]);
    refused_tensor(float(6, 0, &[-2, 3], &[3, 1]), &["whole numbers"]);
    refused_tensor(float(6, -1, &[2, 3], &[3, 1]), &["whole numbers"]);
    refused_tensor(op::tensor("FloatStorage", "9", 6, 0, &[6], &[1]), &["storage \"9\" is not in the archive"]);
    refused_tensor(op::tensor("ComplexFloatStorage", "0", 3, 0, &[3], &[1]), &["torch.ComplexFloatStorage"]);
    let empty = parse(&pth(&op::dict(&[("a", float(6, 6, &[0, 1 << 40, 1 << 40], &[1, 1, 1]))]), &[("0", 24)])).unwrap();
    assert_eq!((empty[0].elements(), empty[0].bytes().unwrap().len()), (0, 0));
}

#[test]
fn names_come_once() {
    let tensor = || op::tensor("FloatStorage", "0", 6, 0, &[6], &[1]);
    refused_pickle(&op::dict(&[("a", tensor()), ("a", tensor())]), &["m.pth: a comes twice"]);
}

#[test]
fn ordered_dicts_with_attributes_and_parameters_are_read() {
    let tensor = op::tensor("LongStorage", "0", 3, 1, &[2], &[1]);
    let hooks = [&op::global("collections", "OrderedDict")[..], b")R"].concat();
    let parameter =
        [&op::global("torch._utils", "_rebuild_parameter")[..], &op::tuple(&[tensor, vec![0x88], hooks.clone()]), b"R"].concat();
    let attributes = [b"}", &op::text("_metadata")[..], &hooks, b"sb"].concat();
    let pickle = [&[0x80, 2][..], &hooks, &op::text("a"), &parameter, b"s", &attributes, b"."].concat();
    let tensors = parse(&pth(&pickle, &[("0", 24)])).unwrap();
    assert_eq!(tensors[0].bytes().unwrap().as_ref(), (8..24).collect::<Vec<u8>>());
}
