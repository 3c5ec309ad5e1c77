//! Preference and distillation losses: against PyTorch in f64, against naive ones, and as objectives of a training.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use puna_autograd::optim::{AdamW, AdamWOptions, Optimizer};
use puna_autograd::{backward, grad};
use puna_llama::weights::{mmap::MappedFile, safetensors};
use puna_llama::{AdapterConfig, Config, InitialWeights, Llama, LoadOptions, RotaryTable, Step};
use puna_tensor::{DType, Device, Tensor, no_grad};
use puna_tokenizer::{Tokenizer, Trainer as TokenizerTrainer, TrainerOptions};
use puna_train::data::{Batch, Dataset, Example, Overlong, Packed, Packing, Preferences};
use puna_train::loss::{self, TopK};
use puna_train::{Distillation, Dpo, Event, Kind, Objective, Record, StoredTeacher, TrainOptions, Trainer};

const GOLDENS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../puna-conformance/goldens/models");

fn device() -> Device {
    puna_cpu::device(puna_cpu::Options { threads: NonZeroUsize::new(2) }).unwrap()
}

fn golden(name: &str, device: &Device) -> Tensor {
    let tensors = safetensors::parse(&MappedFile::open(&Path::new(GOLDENS).join("losses.safetensors")).unwrap()).unwrap();
    tensors.iter().find(|info| info.name == name).unwrap().load(device).unwrap()
}

fn doubles(x: &Tensor) -> Vec<f64> {
    no_grad(|| x.detach().cast(DType::F64)?.to_vec::<f64>()).unwrap()
}

/// The norm of the difference by that of what is expected.
#[track_caller]
fn close(what: &str, got: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(got.len(), expected.len(), "{what}");
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|x| x * x).sum::<f64>().sqrt();
    let difference = norm(&mut got.iter().zip(expected).map(|(a, b)| a - b));
    let relative = difference / norm(&mut expected.iter().copied());
    assert!(relative <= tolerance, "{what} is off by {relative:e}, {tolerance:e} is allowed: {got:?} {expected:?}");
}

/// Sums of 50 terms in f32 lose up to 50 half ulps; those of f64 next to nothing.
fn tolerance(dtype: DType) -> f64 {
    if dtype == DType::F64 { 1e-14 } else { 50.0 * f64::from(f32::EPSILON) / 2.0 }
}

#[test]
fn distillation_is_what_pytorch_gives() {
    let device = device();
    for dtype in [DType::F64, DType::F32] {
        let student = golden("student", &device).cast(dtype).unwrap().tracked();
        let teacher = golden("teacher", &device).cast(dtype).unwrap();
        let sum = loss::distillation(&student, &teacher, 2.0).unwrap();
        let rows = student.dim(0) as f64;
        close("KL", &[doubles(&sum)[0] / rows], &doubles(&golden("kl_t2", &device)), tolerance(dtype));
        let gradient = grad(&sum, &[&student]).unwrap().remove(0);
        let mean: Vec<f64> = doubles(&gradient).iter().map(|g| g / rows).collect();
        close("its gradient", &mean, &doubles(&golden("kl_grad", &device)), tolerance(dtype));
    }
}

#[test]
fn dpo_is_what_pytorch_gives() {
    let device = device();
    for dtype in [DType::F64, DType::F32] {
        let read = |name| golden(name, &device).cast(dtype).unwrap();
        let (chosen, rejected) = (read("policy_chosen").tracked(), read("policy_rejected").tracked());
        let reference = [&read("ref_chosen"), &read("ref_rejected")];
        let (sum, margins) = loss::dpo([&chosen, &rejected], reference, 0.1).unwrap();
        let pairs = margins.elements() as f64;
        close("the loss", &[doubles(&sum)[0] / pairs], &doubles(&golden("dpo_b01", &device)), tolerance(dtype));
        for (name, gradient) in ["dpo_grad_chosen", "dpo_grad_rejected"].iter().zip(grad(&sum, &[&chosen, &rejected]).unwrap()) {
            let mean: Vec<f64> = doubles(&gradient).iter().map(|g| g / pairs).collect();
            close(name, &mean, &doubles(&golden(name, &device)), tolerance(dtype));
        }
    }
}

#[test]
fn dpo_of_pairs_that_are_far_apart_stays_finite() {
    let device = device();
    let values = |v: [f32; 2]| Tensor::from_slice(&v, 2, &device).unwrap();
    let (chosen, rejected) = (values([0.0, -40000.0]).tracked(), values([-40000.0, 0.0]).tracked());
    let zeros = values([0.0, 0.0]);
    let (sum, margins) = loss::dpo([&chosen, &rejected], [&zeros, &zeros], 0.5).unwrap();
    assert_eq!((sum.item::<f32>().unwrap(), margins.detach().to_vec::<f32>().unwrap()), (20000.0, vec![20000.0, -20000.0]));
    assert_eq!(grad(&sum, &[&chosen]).unwrap()[0].to_vec::<f32>().unwrap(), [0.0, -0.5]);
}

/// Random logits `[rows, vocab]`, f64.
fn logits(rows: usize, vocab: usize, seed: u64) -> Vec<f64> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        ((state >> 40) as f64 / (1u64 << 24) as f64 - 0.5) * 8.0
    };
    (0..rows * vocab).map(|_| next()).collect()
}

fn softmax(row: &[f64], temperature: f64) -> Vec<f64> {
    let e: Vec<f64> = row.iter().map(|x| (x / temperature).exp()).collect();
    let sum: f64 = e.iter().sum();
    e.iter().map(|x| x / sum).collect()
}

/// The likeliest tokens of each row, and the logarithms of their probabilities.
fn top(teacher: &[f64], vocab: usize, k: usize, temperature: f64) -> (Vec<u32>, Vec<f32>) {
    let mut kept = (Vec::new(), Vec::new());
    for row in teacher.chunks(vocab) {
        let p = softmax(row, temperature);
        let mut order: Vec<usize> = (0..vocab).collect();
        order.sort_by(|a, b| p[*b].total_cmp(&p[*a]));
        kept.0.extend(order[..k].iter().map(|id| *id as u32));
        kept.1.extend(order[..k].iter().map(|id| p[*id].ln() as f32));
    }
    kept
}

#[test]
fn top_k_is_the_divergence_with_all_other_tokens_as_one() {
    let device = device();
    let (rows, vocab, temperature) = (5, 23, 1.7);
    let (student, teacher) = (logits(rows, vocab, 1), logits(rows, vocab, 2));
    let x = Tensor::from_slice(&student, [rows, vocab], &device).unwrap().tracked();
    let whole = loss::distillation(&x, &Tensor::from_slice(&teacher, [rows, vocab], &device).unwrap(), temperature).unwrap();
    let whole = doubles(&whole)[0];
    let mut last = 0.0;
    for k in [1, 2, 7, 22, 23] {
        let (ids, log_probs) = top(&teacher, vocab, k, temperature);
        let kept = TopK::new(&ids, &log_probs, rows, vocab, &device).unwrap();
        let sum = loss::distillation_top_k(&x, &kept, temperature).unwrap();
        let gradient = grad(&sum, &[&x]).unwrap().remove(0);
        // Naively, with the gradient of the documentation.
        let (mut expected, mut expected_gradient) = (0.0, Vec::new());
        for ((row, ids), student) in teacher.chunks(vocab).zip(ids.chunks(k)).zip(student.chunks(vocab)) {
            let (p, q) = (softmax(row, temperature), softmax(student, temperature));
            let kept = |v: usize| ids.contains(&(v as u32));
            let rest = |p: &[f64]| (0..vocab).filter(|v| !kept(*v)).map(|v| p[v]).sum::<f64>();
            let (r, s) = (rest(&p), rest(&q));
            expected += ids.iter().map(|id| p[*id as usize] * (p[*id as usize] / q[*id as usize]).ln()).sum::<f64>();
            expected += if k < vocab { r * (r / s).ln() } else { 0.0 };
            expected_gradient.extend((0..vocab).map(|v| temperature * if kept(v) { q[v] - p[v] } else { q[v] * (1.0 - r / s) }));
        }
        let (sum, expected) = (doubles(&sum)[0], expected * temperature * temperature);
        // The log-probabilities were rounded to f32.
        close(&format!("k {k}"), &[sum], &[expected], 1e-6);
        close(&format!("k {k}, gradient"), &doubles(&gradient), &expected_gradient, 1e-6);
        assert!(sum >= last - 1e-6 && sum <= whole + 1e-6, "more tokens tell more: k {k}: {last} {sum} {whole}");
        last = sum;
    }
    close("all tokens", &[last], &[whole], 1e-6);
}

#[test]
fn top_k_of_a_teacher_that_is_sure_is_finite_with_its_gradient() {
    let device = device();
    let student = Tensor::from_slice(&[300.0f32, 0.0, -300.0, 1.0], [1, 4], &device).unwrap().tracked();
    for (ids, log_probs) in [(&[0u32][..], &[0.0f32][..]), (&[2], &[0.0]), (&[0, 2], &[-1e-9, -80.0]), (&[1, 3], &[-2.0, -2.0])] {
        let kept = TopK::new(ids, log_probs, 1, 4, &device).unwrap();
        let sum = loss::distillation_top_k(&student, &kept, 1.0).unwrap();
        let gradient = grad(&sum, &[&student]).unwrap().remove(0);
        assert!(sum.item::<f32>().unwrap().is_finite(), "{ids:?}");
        assert!(gradient.to_vec::<f32>().unwrap().iter().all(|g| g.is_finite()), "{ids:?}");
    }
}

#[test]
fn what_is_no_distribution_is_refused() {
    let device = device();
    let error = |ids: &[u32], log_probs: &[f32], rows| TopK::new(ids, log_probs, rows, 4, &device).unwrap_err().to_string();
    assert_eq!(error(&[1, 1], &[-1.0, -1.0], 1), "top-k: row 0 has the token 1 twice");
    assert_eq!(error(&[1, 4], &[-1.0, -1.0], 1), "top-k: row 0 has the token 4, beyond a vocabulary of 4");
    assert_eq!(error(&[1, 2], &[-1.0, f32::NAN], 1), "top-k: row 0 has NaN, which is no logarithm of a probability above 0");
    assert!(error(&[0, 1, 2, 3], &[-1.0, 0.5, -1.0, -1.0], 2).starts_with("top-k: row 0 has 0.5"));
    assert!(error(&[1, 2], &[-0.1, -0.1], 1).contains("1 at most"), "{}", error(&[1, 2], &[-0.1, -0.1], 1));
    assert!(error(&[1, 2, 3], &[-1.0, -2.0, -3.0], 2).contains("3 tokens and 3 log-probabilities for 2 rows"));
    assert!(error(&[], &[], 0).contains("0 rows"));
    let x = Tensor::zeros([2, 4], DType::F32, &device).unwrap();
    for temperature in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        assert_eq!(loss::distillation(&x, &x, temperature).unwrap_err().kind(), Kind::Argument);
    }
    let other = Tensor::zeros([2, 5], DType::F32, &device).unwrap();
    let text = loss::distillation(&x, &other, 1.0).unwrap_err().to_string();
    assert!(text.contains("[2, 4]") && text.contains("[2, 5]"), "{text}");
}

fn llama(vocab: usize, layers: usize, seed: u64, device: &Device) -> Llama {
    let json = format!(
        r#"{{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 32, "intermediate_size": 80, "num_attention_heads": 4,
        "num_key_value_heads": 2, "num_hidden_layers": {layers}, "vocab_size": {vocab}, "rms_norm_eps": 1e-5, "max_position_embeddings": 64,
        "tie_word_embeddings": true, "rope_theta": 10000.0}}"#
    );
    let config = Config::from_hf_json("config.json", json.as_bytes()).unwrap();
    let options = LoadOptions { dtype: Some(DType::F32), activations: None, pack: false, progress: &mut |_| {} };
    Llama::from_weights(&config, &InitialWeights::new(&config, seed), device, options).unwrap()
}

fn adamw() -> Box<dyn Optimizer> {
    Box::new(AdamW::new(AdamWOptions { decay: 0.0, ..AdamWOptions::default() }))
}

#[test]
fn log_probs_are_those_of_the_logits() {
    let device = device();
    let mut llama = llama(64, 2, 3, &device);
    let parameters = llama.track(|_, _| true).unwrap();
    let example = |ids: &[u32], counts: &[u8]| Example { ids: ids.to_vec(), counts: counts.iter().map(|c| *c == 1).collect() };
    let examples = [example(&[1, 2, 3, 4, 5], &[0, 0, 1, 0, 1]), example(&[7, 8], &[1, 0]), example(&[9, 10, 11], &[1, 1, 1])];
    let batch = Batch::of(&examples).unwrap();
    let step = Step::packed(&llama, &RotaryTable::base(&llama.config), &batch.starts).unwrap();
    let hidden = llama.forward(&batch.ids_on(&device).unwrap(), &step).unwrap();
    let got = loss::log_probs(&llama, &hidden, &batch).unwrap();
    let logits = doubles(&no_grad(|| llama.logits(&hidden)).unwrap());
    let ln_p = |token: usize, label: usize| softmax(&logits[token * 64..][..64], 1.0)[label].ln();
    let expected = [ln_p(1, 3) + ln_p(3, 5), 0.0, ln_p(7, 10) + ln_p(8, 11)];
    close("log-probabilities", &doubles(&got), &expected, 1e-6);
    // All parameters are reached, and the second sequence teaches nothing.
    let gradients = backward(&got.sum_all().unwrap()).unwrap();
    gradients.check(parameters.iter().map(|(name, tensor)| (name, tensor))).unwrap();
    let error = loss::log_probs(&llama, &hidden, &Batch::of(&examples[..1]).unwrap()).unwrap_err();
    assert!(error.to_string().contains("5 tokens"), "{error}");
}

/// Bytes as tokens, and a few pairs of them.
fn tokenizer() -> Tokenizer {
    let mut trainer = TokenizerTrainer::new(TrainerOptions { vocab_size: 300, ..TrainerOptions::default() }).unwrap();
    trainer.feed("What is the colour of the sky? It is blue. It is green. Is it red? What? Yes. No.").unwrap();
    trainer.train(&mut |_, _| {}).unwrap()
}

fn preferences(folder: &Path) -> Preferences {
    let path = folder.join("pairs.jsonl");
    let lines = [
        ("What is the sky?", " It is blue.", " It is green."),
        ("Is it red?", " No.", " Yes."),
        ("Is it blue?", " Yes.", " It is red."),
        ("What?", " The sky is blue.", " No. No. No."),
        ("The colour", " is blue.", " is red."),
        ("Blue?", " Yes.", " No, green."),
    ];
    let text: Vec<String> = lines
        .iter()
        .map(|(prompt, chosen, rejected)| {
            serde_json::json!({"prompt": prompt, "chosen": chosen, "rejected": rejected}).to_string()
        })
        .collect();
    std::fs::write(&path, text.join("\n")).unwrap();
    Preferences::from_jsonl(&path, &tokenizer(), None).unwrap()
}

fn train(llama: &mut Llama, objective: &dyn Objective, options: TrainOptions, which: fn(&str) -> bool) -> Vec<Record> {
    let mut trainer = Trainer::new(llama, adamw(), options, |path, _| which(path)).unwrap();
    trainer.resume().unwrap();
    let mut records = Vec::new();
    let mut observe = |event: Event<'_>| {
        if let Event::Step(record) = event {
            records.push(*record);
        }
    };
    trainer.train(objective, None, &mut observe).unwrap();
    records
}

fn bytes(llama: &Llama) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    puna_llama::Module::visit(llama, "", &mut |_, tensor| all.push(tensor.detach().to_bytes().unwrap()));
    all
}

fn is_adapter(path: &str) -> bool {
    path.contains("lora_")
}

#[test]
fn preferences_are_learnt_by_an_adapter_over_its_base() {
    let folder = tempfile::tempdir().unwrap();
    let device = device();
    let mut llama = llama(300, 2, 5, &device);
    llama.add_adapter(&AdapterConfig { rank: 4, ..AdapterConfig::default() }, 1).unwrap();
    let pairs = preferences(folder.path());
    // The head of a model that has learnt nothing is small, and an adapter leaves it as it is: a token's logits stay within 0.84. A beta
    // of 0.1 would hold the margins of these short answers below 1.
    let dpo = Dpo::new(pairs, Dpo::base(&llama), 1.0).unwrap();
    let options = TrainOptions { steps: 100, rows: 6, lr: 1e-2, ..TrainOptions::default() };
    let records = train(&mut llama, &dpo, options, is_adapter);
    // An adapter that is fresh changes nothing: the policy is the reference.
    let first = records[0];
    let rewards = first.rewards.unwrap();
    assert!((first.loss - 2f64.ln()).abs() < 1e-6 && rewards.margin.abs() < 1e-6, "{first:?}");
    let last = records.last().unwrap();
    assert!(last.loss < 0.2 && last.rewards.unwrap().accuracy == 1.0 && last.rewards.unwrap().margin > 1.0, "{last:?}");
    assert_eq!(device.lowered(), [], "on the CPU each op has its kernel");
    // The log-probabilities say so too.
    let answers: Vec<Example> = (0..dpo.rows())
        .flat_map(|row| {
            let pair = preferences(folder.path()).pair(row).unwrap();
            [pair.chosen, pair.rejected]
        })
        .collect();
    let batch = Batch::of(&answers).unwrap();
    let of = |llama: &Llama| {
        let step = Step::packed(llama, &RotaryTable::base(&llama.config), &batch.starts).unwrap();
        let hidden = no_grad(|| llama.forward(&batch.ids_on(&device).unwrap(), &step)).unwrap();
        doubles(&no_grad(|| loss::log_probs(llama, &hidden, &batch)).unwrap())
    };
    let (policy, base) = (of(&llama), of(&Dpo::base(&llama)));
    let ahead = |i: usize| (policy[2 * i] - policy[2 * i + 1]) - (base[2 * i] - base[2 * i + 1]);
    assert!((0..6).all(|i| ahead(i) > 0.0), "{policy:?} {base:?}");
}

#[test]
fn micro_batches_of_pairs_give_the_step_of_the_whole_batch() {
    let folder = tempfile::tempdir().unwrap();
    let device = device();
    let step = |accumulate: usize| {
        let mut policy = llama(300, 2, 5, &device);
        let dpo = Dpo::new(preferences(folder.path()), llama(300, 2, 6, &device), 0.1).unwrap();
        let options = TrainOptions { steps: 1, rows: 6 / accumulate, accumulate, ..TrainOptions::default() };
        train(&mut policy, &dpo, options, |_| true).remove(0)
    };
    let whole = step(1);
    for accumulate in [2, 3] {
        let parts = step(accumulate);
        close("loss, norm", &[parts.loss, parts.grad_norm], &[whole.loss, whole.grad_norm], 1e-6);
        assert_eq!(parts.rewards.unwrap().accuracy, whole.rewards.unwrap().accuracy);
    }
}

#[test]
fn preferences_go_on_from_a_checkpoint_to_the_bit() {
    let folder = tempfile::tempdir().unwrap();
    let device = device();
    let fresh = || {
        let mut llama = llama(300, 1, 5, &device);
        llama.add_adapter(&AdapterConfig { rank: 4, dropout: 0.2, ..AdapterConfig::default() }, 1).unwrap();
        llama
    };
    let run = |steps, folder: Option<PathBuf>, pairs: &Path| {
        let mut llama = fresh();
        let dpo = Dpo::new(preferences(pairs), Dpo::base(&llama), 0.1).unwrap();
        let options = TrainOptions { steps, rows: 2, lr: 1e-2, folder, ..TrainOptions::default() };
        train(&mut llama, &dpo, options, is_adapter);
        bytes(&llama)
    };
    let whole = run(7, None, folder.path());
    run(4, Some(folder.path().join("run")), folder.path());
    assert!(run(7, Some(folder.path().join("run")), folder.path()) == whole);
    let metrics = std::fs::read_to_string(folder.path().join("run/metrics.jsonl")).unwrap();
    let line: serde_json::Value = serde_json::from_str(metrics.lines().last().unwrap()).unwrap();
    assert!(line["accuracy"].is_f64() && line["margin"].is_f64(), "{line}");
}

#[test]
fn preferences_that_do_not_fit_are_refused_before_the_first_step() {
    let folder = tempfile::tempdir().unwrap();
    let device = device();
    let pairs = preferences(folder.path());
    assert!(Dpo::new(pairs.clone(), llama(300, 1, 5, &device), 0.0).is_err());
    let refused = |policy: &mut Llama, dpo: &Dpo| {
        let mut trainer =
            Trainer::new(policy, adamw(), TrainOptions { steps: 1, ..TrainOptions::default() }, |_, _| true).unwrap();
        trainer.train(dpo, None, &mut |_| {}).unwrap_err().to_string()
    };
    let dpo = Dpo::new(pairs, llama(300, 1, 5, &device), 0.1).unwrap();
    let text = refused(&mut llama(301, 1, 5, &device), &dpo);
    assert_eq!(text, "reference: its vocabulary has 300 tokens, the model's 301; the model's base would be right");
    let dpo = Dpo::new(preferences(folder.path()), llama(64, 1, 5, &device), 0.1).unwrap();
    let text = refused(&mut llama(64, 1, 5, &device), &dpo);
    let tokens = tokenizer().vocab_size();
    assert_eq!(text, format!("preferences: tokens of a vocabulary of {tokens}; the model has 64"));
}

/// Sequences of 12 tokens, of which prompts do not count.
fn packed(sequences: u32, vocab: u32) -> Packed {
    let example = |s: u32| Example {
        ids: (0..12).map(|i| (s * 17 + i * (s + 3) + i * i) % vocab).collect(),
        counts: (0..12).map(|i| i > s % 4).collect(),
    };
    let examples: Vec<Example> = (0..sequences).map(example).collect();
    Dataset::from_examples(vocab as usize, &examples).unwrap().pack(24, Packing::Whole(Overlong::Refuse)).unwrap()
}

#[test]
fn a_student_comes_near_its_teacher() {
    let device = device();
    let teacher = llama(64, 2, 7, &device);
    // The teacher itself is at no distance.
    let data = packed(8, 64);
    let own = Distillation::new(data.clone(), teacher.clone(), 2.0).unwrap();
    let mut same = teacher.clone();
    let trainer = Trainer::new(&mut same, adamw(), TrainOptions::default(), |_, _| true).unwrap();
    let at_home = trainer.evaluate(&own).unwrap();
    assert!(at_home.abs() < 1e-6, "{at_home}");
    let mut student = llama(64, 1, 9, &device);
    let options = TrainOptions { steps: 200, rows: 4, lr: 1e-2, ..TrainOptions::default() };
    let records = train(&mut student, &own, options, |_| true);
    let (first, last) = (records[0].loss, records.last().unwrap().loss);
    assert!(last < first / 20.0, "{first} {last}");
    assert_eq!(device.lowered().iter().map(|lowered| lowered.op).collect::<Vec<_>>(), ["checkpoint"]);
}

#[test]
fn the_loss_is_that_of_whole_logits_and_a_share_of_it_the_cross_entropy() {
    let device = device();
    let (teacher, mut student) = (llama(64, 2, 7, &device), llama(64, 1, 9, &device));
    let data = packed(8, 64);
    let hidden = |llama: &Llama, batch: &Batch| {
        let step = Step::packed(llama, &RotaryTable::base(&llama.config), &batch.starts).unwrap();
        llama.forward(&batch.ids_on(&device).unwrap(), &step).unwrap()
    };
    let (mut divergence, mut entropy, mut count) = (0.0, 0.0, 0.0);
    for row in 0..data.len() {
        let batch = data.row(row).unwrap();
        let of = |llama: &Llama| doubles(&llama.logits(&hidden(llama, &batch)).unwrap());
        let (p, q) = (of(&teacher), of(&student));
        for (t, label) in batch.labels.iter().enumerate().filter(|(_, label)| **label != puna_train::data::IGNORED) {
            let row = |logits: &[f64], temperature| softmax(&logits[t * 64..][..64], temperature);
            let (p, q) = (row(&p, 3.0), row(&q, 3.0));
            divergence += 9.0 * p.iter().zip(&q).map(|(p, q)| p * (p / q).ln()).sum::<f64>();
            entropy -= softmax(&of(&student)[t * 64..][..64], 1.0)[*label as usize].ln();
            count += 1.0;
        }
    }
    let distillation = Distillation::new(data, teacher, 3.0).unwrap();
    for share in [1.0, 0.25] {
        let trainer =
            Trainer::new(&mut student, adamw(), TrainOptions { rows: 3, ..TrainOptions::default() }, |_, _| true).unwrap();
        let got = trainer.evaluate(&distillation.clone().share(share).unwrap()).unwrap();
        close("loss", &[got], &[(share * divergence + (1.0 - share) * entropy) / count], 1e-5);
    }
    assert!(distillation.clone().share(0.0).is_err() && distillation.share(1.5).is_err());
}

#[test]
fn a_stored_teacher_teaches_what_it_would_itself() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("teacher.safetensors");
    let device = device();
    let (teacher, data) = (llama(64, 2, 7, &device), packed(7, 64));
    let mut rows = Vec::new();
    let stored = StoredTeacher::write(&path, &data, teacher.clone(), 2.0, 64, &mut |done, of| rows.push((done, of))).unwrap();
    assert_eq!(rows, (1..=data.len()).map(|row| (row, data.len())).collect::<Vec<_>>());
    assert_eq!((stored.temperature(), stored.vocab_size(), stored.len()), (2.0, 64, data.len()));
    let options = || TrainOptions { steps: 5, rows: 2, accumulate: 2, lr: 1e-2, ..TrainOptions::default() };
    let run = |objective: &dyn Objective| train(&mut llama(64, 1, 9, &device), objective, options(), |_| true);
    let online = run(&Distillation::new(data.clone(), teacher.clone(), 2.0).unwrap());
    let kept = run(&Distillation::stored(data.clone(), stored).unwrap());
    for (a, b) in online.iter().zip(&kept) {
        close("loss, norm", &[a.loss, a.grad_norm], &[b.loss, b.grad_norm], 1e-4);
    }
    // Fewer tokens tell less, and are learnt.
    StoredTeacher::write(&path, &data, teacher, 2.0, 8, &mut |_, _| {}).unwrap();
    let objective = Distillation::stored(data.clone(), StoredTeacher::open(&path).unwrap()).unwrap();
    let records = train(&mut llama(64, 1, 9, &device), &objective, TrainOptions { steps: 100, ..options() }, |_| true);
    assert!(records[0].loss <= online[0].loss && records.last().unwrap().loss < records[0].loss / 5.0, "{records:?}");
}

#[test]
fn a_stored_teacher_of_other_data_or_another_vocabulary_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("teacher.safetensors");
    let device = device();
    let (teacher, data) = (llama(64, 1, 7, &device), packed(6, 64));
    let write = |k, temperature| StoredTeacher::write(&path, &data, teacher.clone(), temperature, k, &mut |_, _| {});
    assert_eq!(write(65, 1.0).unwrap_err().to_string(), "k: 65 of a vocabulary of 64; from 1 to all of it would be right");
    assert!(write(0, 1.0).is_err() && write(4, 0.0).is_err() && !path.exists());
    let stored = write(4, 1.0).unwrap();
    // Another number of rows.
    assert!(
        Distillation::stored(packed(9, 64), stored.clone()).unwrap_err().to_string().contains("made for 3 rows, the data has 5")
    );
    let mut student = llama(64, 1, 9, &device);
    let refused = |student: &mut Llama, objective: &Distillation| {
        let mut trainer =
            Trainer::new(student, adamw(), TrainOptions { steps: 1, ..TrainOptions::default() }, |_, _| true).unwrap();
        trainer.train(objective, None, &mut |_| {}).unwrap_err().to_string()
    };
    // As many rows of other tokens.
    let shifted: Vec<Example> = (0..6).map(|s| Example::text((0..12).map(|i| (s + i) % 64).collect())).collect();
    let other = Dataset::from_examples(64, &shifted).unwrap().pack(24, Packing::Whole(Overlong::Refuse)).unwrap();
    let text = refused(&mut student, &Distillation::stored(other, stored.clone()).unwrap());
    assert!(text.contains("is not the one that it was made for"), "{text}");
    let text = refused(&mut llama(65, 1, 9, &device), &Distillation::stored(data.clone(), stored).unwrap());
    assert!(text.contains("its vocabulary has 64 tokens, the student's 65"), "{text}");
    let online = Distillation::new(data.clone(), llama(65, 1, 9, &device), 1.0).unwrap();
    assert!(refused(&mut student, &online).starts_with("teacher: its vocabulary has 65 tokens"));
}

#[test]
fn a_file_that_is_no_stored_teacher_is_an_error_wherever_it_was_changed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("teacher.safetensors");
    let device = device();
    let (teacher, data) = (llama(64, 1, 7, &device), packed(2, 64));
    StoredTeacher::write(&path, &data, teacher, 1.0, 3, &mut |_, _| {}).unwrap();
    let whole = std::fs::read(&path).unwrap();
    let mut student = llama(64, 1, 9, &device);
    let trainer = Trainer::new(&mut student, adamw(), TrainOptions::default(), |_, _| true).unwrap();
    let read = |bytes: &[u8]| {
        let path = folder.path().join("changed.safetensors");
        std::fs::write(&path, bytes).unwrap();
        let stored = Distillation::stored(data.clone(), StoredTeacher::open(&path)?)?;
        stored.check(trainer.llama(), 1).and_then(|()| trainer.evaluate(&stored))
    };
    assert!(read(&whole).unwrap().is_finite());
    for cut in [0, 4, 9, whole.len() / 2, whole.len() - 1] {
        assert!(read(&whole[..cut]).is_err(), "cut at {cut}");
    }
    let mut refused = 0;
    for at in 0..whole.len() {
        let mut changed = whole.clone();
        changed[at] ^= 0x55;
        // An error, or numbers: no panic.
        refused += usize::from(read(&changed).is_err());
    }
    assert!(refused > whole.len() / 3, "{refused} of {}", whole.len());
}
