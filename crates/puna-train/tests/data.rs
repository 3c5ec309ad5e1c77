//! Packing, batches, positions and reading, against naive ones.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use puna_llama::{Config, InitialWeights, Llama, LoadOptions, RotaryTable, Step};
use puna_tokenizer::{Bos, Special, Tokenizer};
use puna_train::data::{
    Batch, Dataset, Example, IGNORED, Overlong, Packed, Packing, Position, Preferences, Progress, Tokenize, WINDOW,
};
use puna_train::{Kind, Result};

const GOLDENS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../puna-conformance/goldens/tokenizers");
const VOCAB: usize = 1000;

fn data(documents: &[Vec<u32>]) -> Dataset {
    let examples: Vec<Example> = documents.iter().cloned().map(Example::text).collect();
    Dataset::from_examples(VOCAB, &examples).unwrap()
}

fn documents() -> impl Strategy<Value = Vec<Vec<u32>>> {
    prop::collection::vec(prop::collection::vec(0..VOCAB as u32, 2..40), 1..30)
}

/// The sequences of a batch: ids and labels. Checks that all parts of the batch say the same.
fn sequences(batch: &Batch) -> Vec<(Vec<u32>, Vec<u32>)> {
    let tokens = batch.tokens();
    assert!(batch.labels.len() == tokens && batch.positions.len() == tokens);
    assert_eq!((batch.starts[0], *batch.starts.last().unwrap()), (0, tokens as u32));
    let part = |pair: &[u32]| {
        let range = pair[0] as usize..pair[1] as usize;
        assert!(range.start < range.end, "{:?}", batch.starts);
        assert_eq!(batch.positions[range.clone()], (0..range.len() as u32).collect::<Vec<_>>());
        (batch.ids[range.clone()].to_vec(), batch.labels[range].to_vec())
    };
    let sequences: Vec<_> = batch.starts.windows(2).map(part).collect();
    assert_eq!(sequences.len(), batch.sequences());
    sequences
}

fn all_rows(packed: &Packed) -> Vec<Vec<(Vec<u32>, Vec<u32>)>> {
    (0..packed.len()).map(|row| sequences(&packed.row(row).unwrap())).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Naively: the stream of all tokens, each with its document, its label, and the row that it falls into.
    #[test]
    fn contiguous_rows_are_the_stream_cut_at_rows_and_documents(documents in documents(), length in 2usize..50, seed: u64) {
        let whole = data(&documents);
        let halves = whole.split(0.4, seed).map(|(most, held)| vec![whole.clone(), most, held]).unwrap_or(vec![whole]);
        for data in halves {
            let mut stream = Vec::new();
            for number in 0..data.len() {
                let ids = data.example(number).unwrap().ids;
                let labels = ids.iter().skip(1).copied().chain([IGNORED]);
                stream.extend(ids.iter().zip(labels).map(|(id, label)| (number, *id, label)));
            }
            let mut rows: Vec<Vec<(Vec<u32>, Vec<u32>)>> = Vec::new();
            for row in stream.chunks(length) {
                let parts = row.chunk_by(|a, b| a.0 == b.0);
                rows.push(parts.map(|part| part.iter().map(|token| (token.1, token.2)).unzip()).collect());
            }
            // A last row of a document's last token has no label.
            if stream.len() % length == 1 {
                rows.pop();
            }
            let packed = data.pack(length, Packing::Contiguous).unwrap();
            prop_assert_eq!(all_rows(&packed), rows);
            prop_assert!(packed.fill().unwrap() > 0.0);
        }
    }

    #[test]
    fn whole_rows_hold_every_document_once(documents in documents(), more in 0usize..40) {
        let data = data(&documents);
        let length = data.longest().unwrap() as usize + more;
        let packed = data.pack(length, Packing::Whole(Overlong::Refuse)).unwrap();
        let rows = all_rows(&packed);
        let mut seen: Vec<Vec<u32>> = Vec::new();
        for row in &rows {
            prop_assert!(row.iter().map(|(ids, _)| ids.len()).sum::<usize>() <= length);
            for (ids, labels) in row {
                prop_assert_eq!(labels, &Example::text(ids.clone()).labels());
                seen.push(ids.clone());
            }
        }
        let mut expected = documents.clone();
        expected.sort();
        seen.sort();
        prop_assert_eq!(seen, expected);
        // First fit never leaves two rows half empty while all are open.
        let sparse = rows.iter().filter(|row| 2 * row.iter().map(|(ids, _)| ids.len()).sum::<usize>() < length).count();
        prop_assert!(rows.len() > WINDOW || sparse <= 1);
    }

    #[test]
    fn batches_are_rows_and_a_saved_position_goes_on_exactly(documents in documents(), rows in 1usize..5, before in 0usize..20, seed: u64) {
        let packed = data(&documents).pack(40, Packing::Whole(Overlong::Refuse)).unwrap();
        let mut batches = packed.batches(seed, rows).unwrap();
        for _ in 0..before {
            batches.next().unwrap().unwrap();
        }
        let saved: Position = serde_json::from_str(&serde_json::to_string(&batches.position()).unwrap()).unwrap();
        let mut resumed = packed.batches(seed, rows).unwrap().resume(saved).unwrap();
        for _ in 0..5 {
            prop_assert_eq!(batches.next().unwrap().unwrap(), resumed.next().unwrap().unwrap());
        }
        prop_assert_eq!(batches.position(), resumed.position());
    }
}

#[test]
fn an_epoch_of_shuffled_batches_is_the_rows_in_another_order() {
    let documents: Vec<Vec<u32>> = (0..24).map(|i| vec![i, i + 100, i + 200]).collect();
    let packed = data(&documents).pack(4, Packing::Whole(Overlong::Refuse)).unwrap();
    let rows = |batches: &mut dyn Iterator<Item = Result<Batch>>| -> Vec<Vec<u32>> {
        batches.flat_map(|batch| sequences(&batch.unwrap())).map(|(ids, _)| ids).collect()
    };
    let in_order = rows(&mut packed.in_order(5).unwrap());
    assert_eq!(in_order, documents);
    let mut batches = packed.batches(1, 4).unwrap();
    assert_eq!(batches.batches_per_epoch(), 6);
    let epochs = [rows(&mut batches.by_ref().take(6)), rows(&mut batches.by_ref().take(6))];
    assert_ne!(epochs[0], epochs[1]);
    for mut epoch in epochs {
        assert_ne!(epoch, documents);
        epoch.sort();
        assert_eq!(epoch, documents);
    }
    assert_eq!(batches.position(), Position { seed: 1, rows: 24, epoch: 2, index: 0 });

    let shards = (0..3).map(|rank| packed.batches(1, 2).unwrap().shard(rank, 3).unwrap());
    let mut together = rows(&mut shards.flat_map(|shard| shard.take(4)));
    together.sort();
    assert_eq!(together, documents);
}

#[test]
fn first_fit_looks_back_over_the_window_and_no_further() {
    let row_of = |small_after: usize| {
        // Rows of 10: one with room for 3, then rows of 9 that have none.
        let mut documents = vec![vec![1; 7]];
        documents.extend(std::iter::repeat_n(vec![2; 9], small_after));
        documents.push(vec![3; 3]);
        let packed = data(&documents).pack(10, Packing::Whole(Overlong::Refuse)).unwrap();
        all_rows(&packed).iter().any(|row| row.len() == 2)
    };
    assert!(row_of(WINDOW - 1));
    assert!(!row_of(WINDOW));
}

#[test]
fn prompts_do_not_count_in_packed_rows() {
    let masked = |ids: [u32; 4], from| Example { ids: ids.to_vec(), counts: (0..4).map(|at| at >= from).collect() };
    let data = Dataset::from_examples(VOCAB, &[masked([1, 2, 3, 4], 2), masked([5, 6, 7, 8], 3)]).unwrap();
    let batch = data.pack(8, Packing::Whole(Overlong::Refuse)).unwrap().row(0).unwrap();
    assert_eq!(batch.labels, [IGNORED, 3, 4, IGNORED, IGNORED, IGNORED, 8, IGNORED]);
    assert_eq!((batch.counted(), batch.starts), (3, vec![0, 4, 8]));
    let error = data.pack(8, Packing::Contiguous).unwrap_err();
    assert_eq!(error.kind(), Kind::Argument);
    assert!(error.message().contains("whole packing"), "{error}");
}

#[test]
fn documents_longer_than_a_row_are_refused_or_cut_or_left_out() {
    let mut prompt = Example::text(vec![1, 2, 3, 4, 5, 6]);
    let fits = Example::text(vec![7, 8, 9]);
    let pack = |example: &Example, overlong| {
        Dataset::from_examples(VOCAB, &[fits.clone(), example.clone()]).unwrap().pack(4, Packing::Whole(overlong))
    };
    let error = pack(&prompt, Overlong::Refuse).unwrap_err();
    assert_eq!(error.kind(), Kind::TooLong);
    assert!(error.to_string().starts_with("examples: document 1 has 6 tokens, but a row holds 4; "), "{error}");
    let skipped = pack(&prompt, Overlong::Skip).unwrap();
    assert_eq!((all_rows(&skipped).concat(), skipped.overlong()), (vec![(vec![7, 8, 9], vec![8, 9, IGNORED])], 1));
    let cut = pack(&prompt, Overlong::Truncate).unwrap();
    // What the last token should predict is known still.
    assert_eq!(all_rows(&cut)[1], [(vec![1, 2, 3, 4], vec![2, 3, 4, 5])]);
    assert_eq!(cut.overlong(), 1);

    prompt.counts[..5].fill(false);
    let error = pack(&prompt, Overlong::Truncate).unwrap_err();
    assert_eq!(error.kind(), Kind::NothingToLearn);
    assert!(error.message().contains("none of the first 4 counts"), "{error}");
    prompt.counts[4] = true;
    assert_eq!(all_rows(&pack(&prompt, Overlong::Truncate).unwrap())[1][0].1, [IGNORED, IGNORED, IGNORED, 5]);
    let all = Dataset::from_examples(VOCAB, std::slice::from_ref(&prompt)).unwrap();
    assert_eq!(all.pack(4, Packing::Whole(Overlong::Skip)).unwrap_err().kind(), Kind::Empty);
}

#[test]
fn what_cannot_be_packed_or_drawn_is_refused() {
    let some = data(&[vec![1, 2, 3], vec![4, 5]]);
    for length in [0, 1, usize::MAX] {
        assert_eq!(some.pack(length, Packing::Contiguous).unwrap_err().kind(), Kind::Argument);
    }
    let packed = some.pack(4, Packing::Contiguous).unwrap();
    assert_eq!(packed.len(), 1, "the last row would hold the token 5 alone");
    assert_eq!(packed.row(1).unwrap_err().kind(), Kind::Argument);
    assert_eq!(packed.batches(0, 0).unwrap_err().kind(), Kind::Argument);
    assert_eq!(packed.in_order(0).unwrap_err().kind(), Kind::Argument);
    assert_eq!(packed.batches(0, usize::MAX).unwrap_err().kind(), Kind::Argument);
    assert_eq!(packed.split(0.5, 0).unwrap_err().kind(), Kind::Argument);
    assert_eq!(data(&[vec![1, 2]]).split(0.5, 0).unwrap_err().kind(), Kind::Argument);
    assert_eq!(Dataset::from_examples(VOCAB, &[]).unwrap_err().kind(), Kind::Empty);
    // Documents of one token each: no token predicts another.
    let alone = data(&[vec![1], vec![2], vec![3]]).pack(3, Packing::Contiguous).unwrap();
    let error = alone.batches(0, 1).unwrap().next().unwrap().unwrap_err();
    assert_eq!(error.kind(), Kind::NothingToLearn);
    assert!(error.message().contains("0 / 0"), "{error}");
    assert_eq!(Batch::of(&[]).unwrap_err().kind(), Kind::NothingToLearn);
}

#[test]
fn rows_and_documents_are_held_out_by_seed() {
    let documents: Vec<Vec<u32>> = (0..100).map(|i| vec![i, i + 100]).collect();
    let data = data(&documents);
    let ids = |data: &Dataset| (0..data.len()).map(|i| data.example(i).unwrap().ids[0]).collect::<Vec<_>>();
    let (most, held) = data.split(0.1, 4).unwrap();
    assert_eq!((most.len(), held.len(), most.tokens().unwrap()), (90, 10, 180));
    assert!(ids(&most).is_sorted() && ids(&held).is_sorted());
    assert_eq!([ids(&most), ids(&held)].concat().into_iter().collect::<HashSet<_>>().len(), 100);
    assert_eq!(ids(&held), ids(&data.split(0.1, 4).unwrap().1));
    assert_ne!(ids(&held), ids(&data.split(0.1, 5).unwrap().1));
    let (_, less) = most.split(0.5, 1).unwrap();
    assert!(less.len() == 45 && ids(&less).iter().all(|id| ids(&most).contains(id)));

    let packed = data.pack(20, Packing::Contiguous).unwrap();
    let (train, valid) = packed.split(0.2, 4).unwrap();
    assert_eq!((train.len(), valid.len()), (8, 2));
    let mut rows = [all_rows(&train), all_rows(&valid)].concat();
    rows.sort();
    let mut expected = all_rows(&packed);
    expected.sort();
    assert_eq!(rows, expected);
    assert!(train.split(0.5, 1).unwrap().0.row(0).is_ok());
}

/// The loss over a packed batch is that over its documents one by one: nothing is seen across them.
#[test]
fn a_model_sees_no_document_from_another() {
    let json = r#"{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 32, "intermediate_size": 64,
        "num_attention_heads": 4, "num_key_value_heads": 2, "num_hidden_layers": 2, "vocab_size": 1000, "rms_norm_eps": 1e-5,
        "max_position_embeddings": 64, "tie_word_embeddings": true, "rope_theta": 10000.0}"#;
    let config = Config::from_hf_json("config.json", json.as_bytes()).unwrap();
    let device = puna_cpu::device(puna_cpu::Options { threads: std::num::NonZeroUsize::new(1) }).unwrap();
    let options = LoadOptions { dtype: None, activations: None, pack: false, progress: &mut |_| {} };
    let mut weights = InitialWeights::new(&config, 1);
    weights.deviation = 0.3;
    let llama = Llama::from_weights(&config, &weights, &device, options).unwrap();
    let table = RotaryTable::base(&config);
    let loss = |batch: &Batch| {
        let step = Step::packed(&llama, &table, &batch.starts).unwrap();
        assert_eq!(step.positions.to_vec::<u32>().unwrap(), batch.positions);
        let hidden = llama.forward(&batch.ids_on(&device).unwrap(), &step).unwrap();
        let (sum, count) = llama.loss(&hidden, &batch.labels_on(&device).unwrap()).unwrap();
        assert_eq!(count.to_vec::<u32>().unwrap(), [batch.counted() as u32]);
        f64::from(sum.to_vec::<f32>().unwrap()[0])
    };
    let documents: Vec<Vec<u32>> = (0..7u32).map(|i| (0..5 + 3 * i).map(|j| (i * 131 + j * j * 17) % 1000).collect()).collect();
    let data = data(&documents);
    let packed = data.pack(40, Packing::Whole(Overlong::Refuse)).unwrap();
    let together = loss(&packed.in_order(100).unwrap().next().unwrap().unwrap());
    let alone: f64 = (0..7).map(|i| loss(&Batch::of(&[data.example(i).unwrap()]).unwrap())).sum();
    // Sums of a hundred f32 losses of about 7.
    assert!((together - alone).abs() <= 100.0 * f64::from(f32::EPSILON) * alone, "{together} {alone}");
    let mut joined = Batch::of(&[data.example(5).unwrap(), data.example(6).unwrap()]).unwrap();
    let apart = loss(&joined);
    joined.starts.remove(1);
    joined.positions = (0..joined.tokens() as u32).collect();
    assert!((loss(&joined) - apart).abs() > 0.1, "one sequence would be another loss");
}

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    }
}

fn tokenizer() -> Tokenizer {
    Tokenizer::from_file(Path::new(GOLDENS).join("files/mistral-v1/tokenizer.model")).unwrap()
}

#[test]
fn text_files_become_documents_between_the_begin_and_the_end_token() {
    let (folder, tokenizer) = (Folder::new(), tokenizer());
    let corpus = std::fs::read_to_string(Path::new(GOLDENS).join("bpe_training/corpus.txt")).unwrap();
    // More than a stretch of a megabyte.
    let long = corpus.trim_end().repeat(20);
    let paths =
        [folder.file("a.txt", format!("one\n<|endoftext|>\ntwo <s>\n<|endoftext|>\n{long}\n")), folder.file("b.txt", "three")];
    let mut reports: Vec<Progress> = Vec::new();
    let mut report = |progress| reports.push(progress);
    let data = Tokenize::new(&tokenizer).progress(&mut report).store(folder.0.path().join("c.tokens")).text(&paths).unwrap();
    let (bos, eos) = (tokenizer.bos().unwrap(), tokenizer.eos().unwrap());
    let expected = |text: &str| {
        let ids = tokenizer.encode(text, Special::Text, Bos::AsWritten).unwrap();
        std::iter::once(bos).chain(ids).chain([eos]).collect::<Vec<_>>()
    };
    let texts = ["one", "two <s>", long.as_str(), "three"];
    assert_eq!(data.len(), 4);
    for (document, text) in texts.into_iter().enumerate() {
        assert!(data.example(document as u64).unwrap() == Example::text(expected(text)), "document {document}");
    }
    assert_eq!(Dataset::from_text(&paths, &tokenizer).unwrap().tokens().unwrap(), data.tokens().unwrap());
    let last = reports.last().unwrap();
    assert_eq!((last.documents, last.tokens, last.bytes), (4, data.tokens().unwrap(), last.of));
    assert!(reports.len() >= 3 && reports.is_sorted_by_key(|report| (report.bytes, report.tokens)));
    let bare = Tokenize::new(&tokenizer).end(None).text(&paths[1..]).unwrap().example(0).unwrap();
    assert_eq!(bare.ids, expected("three")[..expected("three").len() - 1]);
}

#[test]
fn bad_lines_are_named_by_file_and_line() {
    let (folder, tokenizer) = (Folder::new(), tokenizer());
    let check = |content: &[u8], kind, expected: &str| {
        let path = folder.file("x.jsonl", content);
        let error = Dataset::from_jsonl(&path, &tokenizer, None).unwrap_err();
        let text = error.to_string().replace(&path.display().to_string(), "x.jsonl");
        assert!(error.kind() == kind && text.contains(expected) && !text.contains('\n'), "{error:?}");
    };
    let good = "{\"text\": \"good\"}\n\n";
    check(b"", Kind::Empty, "x.jsonl: no document in it");
    check(b"\n \r\n", Kind::Empty, "x.jsonl: no document in it");
    check(format!("{good}{{\"text\": 5}}\n").as_bytes(), Kind::Data, "x.jsonl:3: \"text\" is a number");
    check(
        format!("{good}{{\"text\": \"a\"").as_bytes(),
        Kind::Data,
        "x.jsonl:3: no JSON: EOF while parsing an object, column 12",
    );
    check(
        &[good.as_bytes(), b"{\"text\": \"\xc3(\"}"].concat(),
        Kind::Data,
        "x.jsonl:3: not UTF-8: byte 0xc3 at 10 of the line, 28 of the file",
    );
    check(format!("{good}{{\"messages\": []}}").as_bytes(), Kind::ChatTemplate, "x.jsonl:3: messages need a chat template");
    check(format!("{}{}", "[".repeat(10_000), "]".repeat(10_000)).as_bytes(), Kind::Data, "x.jsonl:1: no JSON: recursion limit");
    let missing = Dataset::from_jsonl(folder.0.path().join("none"), &tokenizer, None).unwrap_err();
    assert_eq!(missing.kind(), Kind::Io);
    assert!(missing.message().starts_with("cannot open it: "), "{missing}");
    assert_eq!(Dataset::from_text(&[folder.0.path()], &tokenizer).unwrap_err().kind(), Kind::Io);
    assert_eq!(Dataset::from_text(&[] as &[&str], &tokenizer).unwrap_err().kind(), Kind::Empty);
}

#[test]
fn preferences_are_pairs_behind_one_prompt() {
    let (folder, tokenizer) = (Folder::new(), tokenizer());
    let template = std::fs::read_to_string(Path::new(GOLDENS).join("chat/templates/llama2.jinja")).unwrap();
    let template = puna_llama::ChatTemplate::new(&template).unwrap();
    let messages =
        |answer: &str| format!(r#"[{{"role": "user", "content": "Q"}}, {{"role": "assistant", "content": "{answer}"}}]"#);
    let (yes, no) = (messages("yes"), messages("no no"));
    let lines = format!(
        "{{\"prompt\": \"Q: \", \"chosen\": \"A\", \"rejected\": \"B B\"}}\n{{\"chosen\": {yes}, \"rejected\": {no}}}\n\
         {{\"prompt\": \"Q\", \"chosen\": {yes}, \"rejected\": {no}}}\n\
         {{\"prompt\": [{{\"role\": \"user\", \"content\": \"Q\"}}], \"chosen\": [{{\"role\": \"assistant\", \"content\": \"yes\"}}], \
         \"rejected\": [{{\"role\": \"assistant\", \"content\": \"no no\"}}]}}\n"
    );
    let pairs = Preferences::from_jsonl(folder.file("p.jsonl", lines), &tokenizer, Some(&template)).unwrap();
    assert_eq!(pairs.len(), 4);
    for index in 0..4 {
        let pair = pairs.pair(index).unwrap();
        let prompt = pair.chosen.counts.iter().position(|counts| *counts).unwrap();
        assert_eq!(pair.rejected.counts.iter().position(|counts| *counts), Some(prompt));
        assert_eq!(pair.chosen.ids[..prompt], pair.rejected.ids[..prompt]);
        let answers = [&pair.chosen, &pair.rejected].map(|example| tokenizer.decode(&example.ids[prompt..]).unwrap());
        let expected = if index == 0 { ["A", "B B"] } else { ["yes ", "no no "] };
        assert_eq!(answers, expected, "pair {index}");
        assert_eq!(index > 1, index > 1 && pair == pairs.pair(1).unwrap());
    }

    let mut batches = pairs.batches(3, 2, 64).unwrap();
    let batch = batches.next().unwrap().unwrap();
    assert_eq!(batch.sequences(), 4);
    let position = batches.position();
    let mut resumed = pairs.batches(3, 2, 64).unwrap().resume(position).unwrap();
    assert_eq!(batches.next().unwrap().unwrap(), resumed.next().unwrap().unwrap());
    let error = pairs.batches(3, 2, 4).unwrap_err();
    assert_eq!(error.kind(), Kind::TooLong);
    assert!(error.message().starts_with("pair 0: chosen has "), "{error}");

    for (line, expected) in [
        (r#"{"chosen": "a", "rejected": "b"}"#, "no \"prompt\""),
        (r#"{"prompt": "q", "chosen": "a", "rejected": "a"}"#, "equal"),
        (r#"{"text": "a"}"#, "text, no pair"),
        (&format!(r#"{{"prompt": "other", "chosen": {yes}, "rejected": {no}}}"#), "text that the messages do not have"),
        (&format!(r#"{{"prompt": "Q", "chosen": "a", "rejected": {no}}}"#), "some messages"),
    ] {
        let error = Preferences::from_jsonl(folder.file("bad.jsonl", line), &tokenizer, Some(&template)).unwrap_err();
        assert!(error.kind() == Kind::Data && error.message().contains(expected), "{error}");
        assert!(error.place().ends_with("bad.jsonl:1"));
    }
}

#[test]
fn ten_thousand_mutated_files_of_lines_do_no_harm() {
    let (folder, tokenizer) = (Folder::new(), tokenizer());
    let template = std::fs::read_to_string(Path::new(GOLDENS).join("chat/templates/llama2.jinja")).unwrap();
    let template = puna_llama::ChatTemplate::new(&template).unwrap();
    let examples = concat!(
        r#"{"text": "Once \u00e9"}"#,
        "\n",
        r#"{"prompt": "Why", "completion": " not"}"#,
        "\r\n",
        r#"{"messages": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}], "tools": []}"#
    );
    let pairs = r#"{"prompt": [{"role": "user", "content": "Q"}], "chosen": [{"role": "assistant", "content": "A"}], "rejected": [{"role": "assistant", "content": "B"}]}"#;
    let words: [&[u8]; 12] = [
        b"\"",
        b"null",
        b"{}",
        b"[]",
        b"\xff",
        b"\n",
        b"\\ud800",
        b"[[[[",
        b"\"role\": \"system\"",
        b"assistant",
        b"</s>",
        b"\xe2\x96\x81",
    ];
    let parts = ["\"user\"", "\"Q\"", "\"A\"", "\"B\"", "\"assistant\"", "\" not\"", "\"content\"", "\"prompt\"", "[]", "Once"];
    let values = [
        "\"\"",
        "\" \"",
        "\"</s>\"",
        "\"system\"",
        "\"assistant\"",
        "\"\\u2581\\n\"",
        "null",
        "1e999",
        "[\"a\"]",
        "\"\\ud83d\\ude00\"",
    ];
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut below = move |n: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % n.max(1) as u64) as usize
    };
    let mut good = 0;
    for case in 0..10_000 {
        let mut text = if case % 2 == 0 { examples } else { pairs }.to_owned();
        for _ in 0..1 + below(3) {
            text = text.replacen(parts[below(parts.len())], values[below(values.len())], 1);
        }
        let mut bytes = text.into_bytes();
        for _ in 0..below(4) * below(2) {
            let at = below(bytes.len() + 1);
            let end = (at + below(20)).min(bytes.len());
            match below(4) {
                0 if at < bytes.len() => bytes[at] = below(256) as u8,
                1 => drop(bytes.drain(at..end)),
                2 => drop(bytes.splice(at..at, words[below(words.len())].iter().copied())),
                _ => drop(bytes.splice(at..end, words[below(words.len())].iter().copied())),
            }
        }
        // A name of its own: some file systems wait for the disk when a file is written over.
        let path = folder.file(&format!("{case}-m.jsonl"), &bytes);
        let error = match case % 2 {
            0 => Dataset::from_jsonl(&path, &tokenizer, Some(&template)).map(drop).err(),
            _ => Preferences::from_jsonl(&path, &tokenizer, Some(&template)).map(drop).err(),
        };
        std::fs::remove_file(&path).unwrap();
        good += usize::from(error.is_none());
        if let Some(error) = error {
            assert!(error.place().contains("m.jsonl") && !error.to_string().contains('\n'), "case {case}: {error}");
        }
    }
    assert!((500..9500).contains(&good), "{good}: the test tests one side alone");
}

#[test]
fn shuffled_documents_come_as_often_as_asked_for_each_time_in_another_order() {
    let examples: Vec<Example> = (0..20).map(|i| Example::text(vec![i, i])).collect();
    let data = Dataset::from_examples(20, &examples).unwrap();
    let order = |data: &Dataset| (0..data.len()).map(|i| data.example(i).unwrap().ids[0]).collect::<Vec<_>>();
    let thrice = order(&data.shuffled(5, 3).unwrap());
    assert_eq!((thrice.len(), &thrice), (60, &order(&data.shuffled(5, 3).unwrap())));
    assert_ne!(thrice, order(&data.shuffled(6, 3).unwrap()));
    let times: Vec<&[u32]> = thrice.chunks(20).collect();
    assert!(times[0] != times[1] && times[1] != times[2] && times[0] != times[2]);
    for time in times {
        let mut sorted = time.to_vec();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..20).collect::<Vec<_>>());
    }
    // Of a part of a file, that part.
    let (most, held) = data.split(0.25, 1).unwrap();
    let (held, mut twice) = (order(&held), order(&most.shuffled(1, 2).unwrap()));
    assert!(twice.len() == 30 && twice.iter().all(|id| !held.contains(id)));
    twice.sort_unstable();
    assert!(twice.chunks(2).all(|pair| pair[0] == pair[1]));
    assert!(data.shuffled(1, 0).is_err());
}
