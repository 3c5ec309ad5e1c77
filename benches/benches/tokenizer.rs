//! Encoding, beside the crate `tokenizers` in the same group.
//!
//!     cargo bench -p puna-benches --features peers --bench tokenizer
//!
//! SmolLM2's `tokenizer.json`, one thread, documents of 2,000 characters: prose and code, as they were trained on elsewhere.
//! Roof: reading the text once; what is spent is hashing and merging.

use std::fs;
use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use puna::tokenizer::{Bos, Special, Tokenizer};

const GOLDENS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../crates/puna-conformance/goldens/tokenizers/");

/// A text in parts of 2,000 characters.
fn documents(text: &str) -> Vec<String> {
    let chars: Vec<char> = text.chars().collect();
    chars.chunks(2000).map(|chunk| chunk.iter().collect()).collect()
}

fn encode(criterion: &mut Criterion) {
    let file = format!("{GOLDENS}files/smollm2/tokenizer.json");
    let ours = Tokenizer::from_file(&file).expect("it is committed");
    #[cfg(feature = "peers")]
    let theirs = tokenizers::Tokenizer::from_file(&file).expect("it is committed");
    let corpus = fs::read_to_string(format!("{GOLDENS}bpe_training/corpus.txt")).expect("it is committed");
    let code = include_str!("../../crates/puna-tokenizer/src/tokenizer.rs").repeat(8);
    let mut group = criterion.benchmark_group("encode");
    for (name, text) in [("mixed corpus", &corpus), ("code", &code)] {
        let documents = documents(text);
        group.throughput(Throughput::Bytes(text.len() as u64));
        group.bench_function(BenchmarkId::new("puna", name), |bencher| {
            bencher.iter(|| {
                for document in &documents {
                    black_box(ours.encode(document, Special::Text, Bos::AsWritten).expect("no pattern, no failure"));
                }
            });
        });
        #[cfg(feature = "peers")]
        group.bench_function(BenchmarkId::new("tokenizers", name), |bencher| {
            bencher.iter(|| {
                for document in &documents {
                    black_box(theirs.encode_fast(document.as_str(), false).expect("it encodes everything"));
                }
            });
        });
    }
    group.finish();
}

fn load(criterion: &mut Criterion) {
    let json = fs::read(format!("{GOLDENS}files/smollm2/tokenizer.json")).expect("it is committed");
    let mut group = criterion.benchmark_group("tokenizer.json");
    group.throughput(Throughput::Bytes(json.len() as u64)).sample_size(20);
    group.bench_function("puna", |bencher| bencher.iter(|| Tokenizer::from_tokenizer_json(&json).expect("it is committed")));
    #[cfg(feature = "peers")]
    group.bench_function("tokenizers", |bencher| {
        bencher.iter(|| tokenizers::Tokenizer::from_bytes(&json).expect("it is committed"));
    });
    group.finish();
}

criterion_group!(benches, encode, load);
criterion_main!(benches);
