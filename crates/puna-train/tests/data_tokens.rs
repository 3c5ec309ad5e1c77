//! Token files: what is written is read, and what is damaged or hostile is an error.

use std::path::Path;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use puna_llama::weights::mmap::MappedFile;
use puna_train::data::{Dataset, Example, Overlong, Packing, TokenFile, write_tokens};
use puna_train::{Kind, Result};

fn examples(vocab_size: u32) -> impl Strategy<Value = Vec<Example>> {
    let token = (0..vocab_size, any::<bool>());
    prop::collection::vec(prop::collection::vec(token, 0..20), 1..12).prop_map(|documents| {
        documents.into_iter().map(|tokens| tokens.into_iter().unzip()).map(|(ids, counts)| Example { ids, counts }).collect()
    })
}

fn parse(bytes: &[u8]) -> Result<TokenFile> {
    TokenFile::parse(&MappedFile::from_vec("f.tokens", bytes.to_vec()))
}

/// The bytes of a token file.
fn written(vocab_size: usize, examples: &[Example]) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("f.tokens");
    write_tokens(&path, vocab_size, examples.iter().cloned().map(Ok)).unwrap();
    std::fs::read(&path).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn what_is_written_is_read(small in examples(300), large in examples(70_000)) {
        for (vocab_size, examples) in [(300, &small), (70_000, &large)] {
            let file = parse(&written(vocab_size, examples)).unwrap();
            let masked = examples.iter().any(|example| example.counts.contains(&false));
            let tokens = examples.iter().map(|example| example.ids.len() as u64).sum::<u64>();
            prop_assert_eq!((file.documents(), file.tokens()), (examples.len() as u64, tokens));
            prop_assert_eq!((file.vocab_size(), file.is_masked()), (vocab_size, masked));
            let read: Vec<Example> = (0..file.documents()).map(|document| file.example(document).unwrap()).collect();
            prop_assert_eq!(&read, examples);
            prop_assert!(file.example(file.documents()).is_err());
            let memory = Dataset::from_examples(vocab_size, examples).unwrap();
            prop_assert_eq!((0..memory.len()).map(|document| memory.example(document).unwrap()).collect::<Vec<_>>(), read);
        }
    }
}

#[test]
fn ids_take_two_bytes_where_the_vocabulary_allows() {
    let example = [Example::text(vec![1, 2, 3])];
    // A header, three ids with padding, two offsets.
    assert_eq!(written(65_536, &example).len(), 48 + 8 + 16);
    assert_eq!(written(65_537, &example).len(), 48 + 16 + 16);
    let highest = [Example::text(vec![65_535, 0])];
    assert_eq!(parse(&written(65_536, &highest)).unwrap().example(0).unwrap().ids, [65_535, 0]);
}

#[test]
fn a_part_of_a_data_set_is_saved_and_mapped() {
    let folder = tempfile::tempdir().unwrap();
    let all: Vec<Example> =
        (0..20).map(|i| Example { ids: vec![i, i + 1, i + 2], counts: vec![false, i % 2 == 0, true] }).collect();
    let (most, held) = Dataset::from_examples(50, &all).unwrap().split(0.2, 3).unwrap();
    let saved = most.save(folder.path().join("most.tokens")).unwrap();
    assert_eq!((saved.len(), held.len()), (16, 4));
    let opened = Dataset::open(folder.path().join("most.tokens")).unwrap();
    for document in 0..16 {
        assert_eq!(opened.example(document).unwrap(), most.example(document).unwrap());
    }
    // Over a file that is mapped: the old one stays what it was for those who have it.
    held.save(folder.path().join("most.tokens")).unwrap();
    assert_eq!(opened.example(15).unwrap(), most.example(15).unwrap());
    assert_eq!(Dataset::open(folder.path().join("most.tokens")).unwrap().len(), 4);
}

#[test]
fn a_failed_writing_leaves_what_was_there() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("f.tokens");
    let good = Example::text(vec![1, 2]);
    write_tokens(&path, 10, [Ok(good.clone())]).unwrap();
    let failures: [(Vec<Result<Example>>, Kind); 4] = [
        (vec![Ok(good.clone()), Err(puna_train::Error::new(Kind::Data, "line", "bad"))], Kind::Data),
        (vec![Ok(good.clone()), Ok(Example::text(vec![10]))], Kind::TokenOutOfRange),
        (vec![Ok(Example { ids: vec![1], counts: vec![] })], Kind::Argument),
        (vec![], Kind::Empty),
    ];
    for (examples, kind) in failures {
        assert_eq!(write_tokens(&path, 10, examples).unwrap_err().kind(), kind);
        assert_eq!(TokenFile::open(&path).unwrap().example(0).unwrap(), good);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside it");
    }
    assert_eq!(write_tokens(&path, 0, [Ok(good.clone())]).unwrap_err().kind(), Kind::Argument);
    assert_eq!(write_tokens(Path::new("no/such/folder/f"), 10, [Ok(good)]).unwrap_err().kind(), Kind::Io);
    assert_eq!(TokenFile::open(folder.path().join("none")).unwrap_err().kind(), Kind::Io);
}

fn two_documents() -> Vec<u8> {
    let masked = Example { ids: vec![3, 1, 4, 1, 5], counts: vec![false, false, true, true, true] };
    written(10, &[masked, Example::text(vec![9, 2, 6])])
}

/// Puts the right checksum on a header that was changed.
fn sign(bytes: &mut [u8]) {
    if let Some(header) = bytes.get_mut(..48) {
        let sum = header[..40]
            .iter()
            .fold(0xcbf2_9ce4_8422_2325u64, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3));
        header[40..].copy_from_slice(&sum.to_le_bytes());
    }
}

#[test]
fn each_field_is_checked() {
    let good = two_documents();
    // 48 of the header, 8 ids of two bytes, 8 with the mask, three offsets.
    assert_eq!(good.len(), 48 + 16 + 8 + 24);
    let check = |change: &dyn Fn(&mut Vec<u8>), expected: &str| {
        let mut bytes = good.clone();
        change(&mut bytes);
        let error = parse(&bytes).unwrap_err();
        assert_eq!(error.place(), "f.tokens");
        assert!(error.message().contains(expected), "{error}");
    };
    let field = |at: usize, value: &[u8], expected: &str| {
        check(
            &|bytes| {
                bytes[at..at + value.len()].copy_from_slice(value);
                sign(bytes)
            },
            expected,
        );
    };
    field(0, b"GGUF", "byte 0: magic: no token file");
    field(8, &[2], "byte 8: version: version 2; this program reads 1");
    field(12, &[8], "byte 12: bytes an id: 8; 2 and 4 there are");
    field(14, &[2], "byte 14: flags: 0x0002; only bit 0");
    field(16, &[0; 8], "byte 16: vocabulary size: 0; from 1");
    field(16, &[0xff; 8], "byte 16: vocabulary size: 18446744073709551615");
    field(24, &[0xff; 8], "byte 48: ids: 18446744073709551615 entries");
    field(24, &[7], "offset 2: 8 behind 5; they ascend from 0 to 7");
    field(24, &[9], "bytes");
    field(32, &[0xff; 8], "offsets: 18446744073709551615 entries");
    field(32, &[1], "end: 8 bytes more than the header says");
    field(32, &[3], "offsets: 4 entries");
    field(72, &[1], "byte 72: offset 0: 1 behind 0");
    field(80, &[9], "byte 80: offset 1: 9 behind 0");
    field(88, &[4], "byte 88: offset 2: 4 behind 5");
    check(&|bytes| bytes[24] ^= 1, "byte 40: checksum");
    check(&|bytes| bytes.push(0), "end: 1 bytes more");
    for length in 0..good.len() {
        check(&|bytes| bytes.truncate(length), "bytes");
    }
}

#[test]
fn ids_beyond_the_vocabulary_are_found_when_they_are_read() {
    let mut bytes = two_documents();
    bytes[48 + 12] = 10;
    let data = Dataset::from(parse(&bytes).unwrap());
    assert!(data.example(0).is_ok());
    let error = data.example(1).unwrap_err();
    assert_eq!(error.to_string(), "f.tokens: token 6 is id 10, but the vocabulary has 10 tokens; ids are below 10");
    assert_eq!(error.kind(), Kind::TokenOutOfRange);
    let packed = data.pack(8, Packing::Whole(Overlong::Refuse)).unwrap();
    assert_eq!(packed.row(0).unwrap_err().kind(), Kind::TokenOutOfRange);
}

#[test]
fn a_file_without_documents_is_empty() {
    let mut bytes = two_documents()[..48].to_vec();
    bytes[14] = 0;
    bytes[24..40].fill(0);
    bytes.extend([0; 8]);
    sign(&mut bytes);
    assert_eq!(parse(&bytes).unwrap_err().kind(), Kind::Empty);
}

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

fn mutate(seed: &[u8], draw: &mut Draw) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for _ in 0..1 + draw.below(4) {
        let at = draw.below(bytes.len() + 1);
        let end = (at + draw.below(24)).min(bytes.len());
        match draw.below(7) {
            0 if at < bytes.len() => bytes[at] = draw.below(256) as u8,
            1 if at < bytes.len() => bytes[at] ^= 1 << draw.below(8),
            2 => bytes.truncate(at),
            3 => drop(bytes.drain(at..end)),
            4 => {
                let from = draw.below(seed.len());
                let some = seed[from..(from + draw.below(64)).min(seed.len())].to_vec();
                bytes.splice(at..end, some);
            }
            5 => drop(bytes.splice(at..end, [0xff; 8])),
            // The fields of the header, where most of the harm could be done.
            _ if bytes.len() > 40 => bytes[12 + draw.below(28)] = draw.below(256) as u8,
            _ => bytes.push(0),
        }
    }
    if draw.below(4) > 0 {
        sign(&mut bytes);
    }
    bytes
}

#[test]
fn ten_thousand_mutations_do_no_harm() {
    let start = Instant::now();
    let long = written(70_000, &[Example::text((0..200).collect()), Example::text(vec![69_999, 1])]);
    let seeds = [two_documents(), long];
    let (mut draw, mut good) = (Draw(0x9e37_79b9_7f4a_7c15), 0);
    for case in 0..10_000 {
        let bytes = mutate(&seeds[case % 2], &mut draw);
        match parse(&bytes) {
            Err(error) => assert!(!error.to_string().contains('\n'), "{error}"),
            Ok(file) => {
                good += 1;
                let data = Dataset::from(file);
                for document in 0..data.len().min(100) {
                    let example = data.example(document);
                    assert!(example.is_err() || example.unwrap().ids.iter().all(|id| (*id as usize) < data.vocab_size()));
                }
                for packing in [Packing::Contiguous, Packing::Whole(Overlong::Truncate), Packing::Whole(Overlong::Skip)] {
                    let Ok(packed) = data.pack(16, packing) else { continue };
                    for batch in packed.in_order(3).unwrap().take(50).chain(packed.batches(1, 2).unwrap().take(4)) {
                        let Ok(batch) = batch else { continue };
                        assert!(batch.tokens() <= 48 && batch.ids.len() == batch.labels.len(), "case {case}");
                        assert!(batch.starts.is_sorted() && batch.starts.last() == Some(&(batch.tokens() as u32)));
                    }
                }
            }
        }
    }
    println!("{good} of 10000 mutations are token files still, {:?}", start.elapsed());
    assert!((500..9500).contains(&good), "{good}: the test tests one side alone");
    assert!(start.elapsed() < Duration::from_secs(300));
}
