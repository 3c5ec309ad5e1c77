use puna_tokenizer::Tokenizer;
use puna_train::data::*;
use std::time::Instant;
#[test]
fn bench() {
    let g = concat!(env!("CARGO_MANIFEST_DIR"), "/../puna-conformance/goldens/tokenizers");
    let t = Tokenizer::from_file(format!("{g}/files/smollm2/tokenizer.json")).unwrap();
    let corpus = std::fs::read_to_string(format!("{g}/bpe_training/corpus.txt")).unwrap();
    let d = tempfile::tempdir().unwrap();
    let p = d.path().join("c.txt");
    std::fs::write(&p, corpus.repeat(200)).unwrap();
    let s = Instant::now();
    let data = Tokenize::new(&t).store(d.path().join("c.tokens")).text(&[&p]).unwrap();
    let sec = s.elapsed().as_secs_f64();
    println!(
        "tokenize {:.1} MB in {sec:.2} s: {:.1} MB/s, {} tokens",
        corpus.len() as f64 * 200e-6,
        corpus.len() as f64 * 200e-6 / sec,
        data.tokens().unwrap()
    );
    let s = Instant::now();
    let whole = std::fs::read_to_string(&p).unwrap();
    let n = t.encode(&whole, puna_tokenizer::Special::Text, puna_tokenizer::Bos::AsWritten).unwrap().len();
    println!("encode alone {:.2} s {n}", s.elapsed().as_secs_f64());
    let packed = data.pack(1024, Packing::Contiguous).unwrap();
    let s = Instant::now();
    let mut n = 0;
    for b in packed.batches(1, 8).unwrap().take(500) {
        n += b.unwrap().tokens();
    }
    println!("contiguous batches {:.1} M tokens/s", n as f64 / s.elapsed().as_secs_f64() / 1e6);
    let s = Instant::now();
    let p = Permutation::new(1_000_000, 3, 0);
    let mut x = 0;
    for i in 0..100_000 {
        x ^= p.apply(i);
    }
    println!("permutation {:.0} ns {x}", s.elapsed().as_nanos() as f64 / 1e5);
    let ex: Vec<Example> = (0..300_000u32).map(|i| Example::text((0..20 + (i * 7919) % 400).collect())).collect();
    let data = Dataset::from_examples(1000, &ex).unwrap();
    let s = Instant::now();
    let packed = data.pack(1024, Packing::Whole(Overlong::Refuse)).unwrap();
    println!("whole: 300k documents {:.2} s, fill {:.4}", s.elapsed().as_secs_f64(), packed.fill().unwrap());
}
