//! Training: it learns, it repeats itself to the bit, it goes on where it stood, and it stops where numbers break.

use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use puna_autograd::optim::{AdamW, AdamWOptions, Optimizer, Schedule};
use puna_llama::convert::SaveOptions;
use puna_llama::{AdapterConfig, Checkpoint, Config, InitialWeights, Llama, LoadOptions, Module};
use puna_tensor::{DType, Device, Tensor};
use puna_train::data::{Dataset, Example, Overlong, Packed, Packing};
use puna_train::trainer::{Loss, Pass};
use puna_train::{Event, Kind, Objective, Record, Report, TrainOptions, Trainer};

fn device(threads: usize) -> Device {
    puna_cpu::device(puna_cpu::Options { threads: NonZeroUsize::new(threads) }).unwrap()
}

fn llama(dtype: DType, threads: usize) -> Llama {
    let json = r#"{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 32, "intermediate_size": 80, "num_attention_heads": 4,
        "num_key_value_heads": 2, "num_hidden_layers": 2, "vocab_size": 64, "rms_norm_eps": 1e-5, "max_position_embeddings": 64,
        "tie_word_embeddings": true, "rope_theta": 10000.0}"#;
    let config = Config::from_hf_json("config.json", json.as_bytes()).unwrap();
    let options = LoadOptions { dtype: Some(dtype), activations: None, pack: false, progress: &mut |_| {} };
    Llama::from_weights(&config, &InitialWeights::new(&config, 3), &device(threads), options).unwrap()
}

/// Sequences of 16 tokens, each with a rhythm of its own.
fn data(sequences: u32) -> Packed {
    let sequence = |s: u32| Example::text((0..16).map(|i| (s * 17 + i * (s + 3) + i * i) % 64).collect());
    let examples: Vec<Example> = (0..sequences).map(sequence).collect();
    Dataset::from_examples(64, &examples).unwrap().pack(16, Packing::Whole(Overlong::Refuse)).unwrap()
}

fn options(steps: u64) -> TrainOptions {
    TrainOptions {
        steps,
        rows: 8,
        lr: 5e-3,
        schedule: Schedule::Cosine { warmup: 10, steps, floor: 0.1 },
        ..TrainOptions::default()
    }
}

fn adamw() -> Box<dyn Optimizer> {
    Box::new(AdamW::new(AdamWOptions { decay: 0.01, ..AdamWOptions::default() }))
}

/// Trains all weights; the records, the report, the weights' bytes.
fn run(llama: &mut Llama, data: &Packed, options: TrainOptions) -> (Vec<Record>, Report, Vec<Vec<u8>>) {
    let mut records = Vec::new();
    let mut trainer = Trainer::new(llama, adamw(), options, |_, _| true).unwrap();
    trainer.resume().unwrap();
    let report = trainer
        .train(data, None, &mut |event| {
            if let Event::Step(record) = event {
                records.push(*record);
            }
        })
        .unwrap();
    (records, report, bytes(llama))
}

fn bytes(llama: &Llama) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    llama.visit("", &mut |_, tensor| all.push(tensor.detach().to_bytes().unwrap()));
    all
}

#[test]
fn a_batch_is_learnt_by_heart() {
    let mut llama = llama(DType::F32, 2);
    let (records, report, _) = run(&mut llama, &data(8), options(250));
    assert!((records[0].loss - 64f64.ln()).abs() < 0.2, "at first it guesses: {}", records[0].loss);
    assert!(report.loss < 0.01, "{report}");
    assert_eq!((report.steps, report.tokens), (250, 250 * 8 * 16));
}

#[test]
fn no_op_of_a_training_step_is_lowered_on_the_cpu() {
    for dtype in [DType::F32, DType::BF16, DType::F16] {
        let mut llama = llama(dtype, 2);
        run(&mut llama, &data(8), options(2));
        assert_eq!(llama.model.norm.weight.device().lowered(), [], "{dtype}");
    }
}

#[test]
fn half_precision_with_masters_learns_too() {
    let mut llama = llama(DType::BF16, 2);
    let (_, report, _) = run(&mut llama, &data(8), options(300));
    assert!(report.loss < 0.02, "{report}");
}

#[test]
fn runs_with_one_seed_are_equal_to_the_bit_whatever_the_threads() {
    let one = |threads| run(&mut llama(DType::F32, threads), &data(24), options(12)).2;
    let first = one(1);
    assert_eq!(first, one(1));
    assert_eq!(first, one(3));
    let other = run(&mut llama(DType::F32, 1), &data(24), TrainOptions { seed: 9, ..options(12) }).2;
    assert_ne!(first, other, "another order of the data");
}

#[test]
fn layers_that_are_computed_again_change_no_bit() {
    let plain = run(&mut llama(DType::F32, 2), &data(24), options(6)).2;
    let again = run(&mut llama(DType::F32, 2), &data(24), TrainOptions { recompute: true, ..options(6) }).2;
    assert_eq!(plain, again);
}

#[test]
fn micro_batches_give_the_step_of_the_whole_batch() {
    // Documents of different lengths: batches whose numbers of labels differ.
    let examples: Vec<Example> =
        (0..8u32).map(|s| Example::text((0..7 + s % 6).map(|i| (s * 5 + i * 7) % 64).collect())).collect();
    let data = Dataset::from_examples(64, &examples).unwrap().pack(12, Packing::Whole(Overlong::Refuse)).unwrap();
    let rows = data.len() as usize;
    assert!(rows >= 4 && rows % 4 == 0, "{rows} rows divide");
    let step = |accumulate: usize| {
        let options = TrainOptions { rows: rows / accumulate, accumulate, ..options(1) };
        let (records, _, _) = run(&mut llama(DType::F32, 2), &data, options);
        records[0]
    };
    let whole = step(1);
    for accumulate in [2, 4] {
        let parts = step(accumulate);
        assert!((parts.loss / whole.loss - 1.0).abs() < 1e-6, "{} {}", parts.loss, whole.loss);
        assert!((parts.grad_norm / whole.grad_norm - 1.0).abs() < 1e-6, "{} {}", parts.grad_norm, whole.grad_norm);
        assert_eq!(parts.tokens, whole.tokens);
    }
}

fn lines(folder: &Path) -> Vec<u64> {
    let text = std::fs::read_to_string(folder.join("metrics.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["step"].as_u64().unwrap()).collect()
}

#[test]
fn a_run_goes_on_from_its_checkpoint_as_if_it_had_not_stopped() {
    for dtype in [DType::F32, DType::BF16] {
        let whole = run(&mut llama(dtype, 2), &data(24), options(12)).2;
        let folder = tempfile::tempdir().unwrap();
        let saved = TrainOptions { folder: Some(folder.path().into()), save_every: 5, ..options(12) };
        // Told to stop in its seventh step: the step is finished and saved.
        let stop = Arc::new(AtomicBool::new(false));
        let mut first = llama(dtype, 2);
        let told = TrainOptions { stop: Some(stop.clone()), ..saved.clone() };
        let mut trainer = Trainer::new(&mut first, adamw(), told, |_, _| true).unwrap();
        let report = trainer
            .train(&data(24), None, &mut |event| {
                if matches!(event, Event::Step(record) if record.step == 7) {
                    stop.store(true, Ordering::Relaxed);
                }
            })
            .unwrap();
        assert!(report.stopped && report.steps == 7, "{report}");
        let text = report.to_string();
        assert!(text.contains("step-00000007") && text.contains("goes on"), "{text}");
        // What is written of steps behind the checkpoint goes, a line that was cut among it.
        let metrics = folder.path().join("metrics.jsonl");
        let mut text = std::fs::read_to_string(&metrics).unwrap();
        text.push_str("{\"step\":8,\"loss\":1.0}\n{\"step\":9,\"lo");
        std::fs::write(&metrics, text).unwrap();
        let (records, report, weights) = run(&mut llama(dtype, 3), &data(24), saved);
        assert_eq!(records.first().map(|record| record.step), Some(8));
        assert_eq!(report.steps, 12);
        assert_eq!(weights, whole, "{dtype}");
        assert_eq!(lines(folder.path()), (1..=12).collect::<Vec<_>>());
    }
}

#[test]
fn dropout_goes_on_with_the_same_masks() {
    let adapted = || {
        let mut llama = llama(DType::F32, 2);
        let config = AdapterConfig { rank: 4, dropout: 0.3, ..AdapterConfig::default() };
        llama.add_adapter(&config, 1).unwrap();
        llama
    };
    let train = |llama: &mut Llama, options: TrainOptions| {
        let mut trainer = Trainer::new(llama, adamw(), options, |path, _| path.contains("lora_")).unwrap();
        trainer.resume().unwrap();
        trainer.train(&data(16), None, &mut |_| {}).unwrap();
    };
    let mut whole = adapted();
    train(&mut whole, options(6));
    let folder = tempfile::tempdir().unwrap();
    let saved = TrainOptions { folder: Some(folder.path().into()), ..options(6) };
    train(&mut adapted(), TrainOptions { steps: 3, ..saved.clone() });
    let mut resumed = adapted();
    train(&mut resumed, saved);
    assert_eq!(bytes(&whole), bytes(&resumed));
    let base = bytes(&llama(DType::F32, 2));
    let mut frozen = 0;
    whole.visit("", &mut |path, tensor| {
        if !path.contains("lora_") {
            assert_eq!(tensor.to_bytes().unwrap(), base[frozen], "{path} is frozen");
            frozen += 1;
        }
    });
    assert_eq!(frozen, base.len());
}

#[test]
fn a_checkpoint_of_another_model_or_other_data_is_refused_and_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let saved = TrainOptions { folder: Some(folder.path().into()), ..options(2) };
    run(&mut llama(DType::F32, 1), &data(8), saved.clone());
    // Another dtype.
    let mut other = llama(DType::BF16, 1);
    let before = bytes(&other);
    let mut trainer = Trainer::new(&mut other, adamw(), saved.clone(), |_, _| true).unwrap();
    let error = trainer.resume().unwrap_err();
    assert_eq!(error.kind(), Kind::Checkpoint);
    assert!(error.to_string().contains("model.embed_tokens.weight is [64, 32] f32; here it is [64, 32] bf16"), "{error}");
    assert_eq!(bytes(&other), before);
    // Fewer parameters.
    let mut norms = llama(DType::F32, 1);
    let mut trainer = Trainer::new(&mut norms, adamw(), saved.clone(), |path, _| path.contains("norm")).unwrap();
    assert!(trainer.resume().unwrap_err().to_string().contains("is not trained here"));
    // Other data.
    let mut same = llama(DType::F32, 1);
    let mut trainer = Trainer::new(&mut same, adamw(), TrainOptions { steps: 4, ..saved.clone() }, |_, _| true).unwrap();
    trainer.resume().unwrap().unwrap();
    assert!(trainer.train(&data(9), None, &mut |_| {}).is_err());
    // Cut files.
    let checkpoint = folder.path().join("step-00000002");
    for name in ["parameters.safetensors", "optimizer.safetensors", "trainer.json"] {
        let path = checkpoint.join(name);
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
        let mut cut = llama(DType::F32, 1);
        let before = bytes(&cut);
        let mut trainer = Trainer::new(&mut cut, adamw(), saved.clone(), |_, _| true).unwrap();
        assert!(trainer.resume().is_err(), "{name}");
        assert_eq!(bytes(&cut), before);
        std::fs::write(&path, whole).unwrap();
    }
}

#[test]
fn numbers_that_break_stop_the_run_and_name_the_step_and_the_weight() {
    let folder = tempfile::tempdir().unwrap();
    let saved = TrainOptions { folder: Some(folder.path().into()), save_every: 1, ..options(3) };
    let mut llama = llama(DType::F32, 2);
    run(&mut llama, &data(8), saved.clone());
    let mut trainer = Trainer::new(&mut llama, adamw(), TrainOptions { steps: 9, ..saved }, |_, _| true).unwrap();
    trainer.resume().unwrap();
    let (name, weight) = &trainer.parameters()[5];
    let name = name.clone();
    let broken = Tensor::full(f64::NAN, *weight.shape(), DType::F32, weight.device()).unwrap();
    puna_tensor::no_grad(|| weight.assign(&broken)).unwrap();
    let error = trainer.train(&data(8), None, &mut |_| {}).unwrap_err();
    assert_eq!(error.kind(), Kind::NonFinite);
    let text = error.to_string();
    assert!(text.starts_with("step 4: the loss is NaN"), "{text}");
    assert!(text.contains(&name) && text.contains("step-00000003 is the last good checkpoint"), "{text}");
    assert!(folder.path().join("step-00000003").is_dir());
}

#[test]
fn held_out_data_is_evaluated_and_checkpoints_are_pruned() {
    let folder = tempfile::tempdir().unwrap();
    let options = TrainOptions { folder: Some(folder.path().into()), save_every: 2, evaluate_every: 3, keep: 2, ..options(8) };
    let mut llama = llama(DType::F32, 2);
    let mut trainer = Trainer::new(&mut llama, adamw(), options, |_, _| true).unwrap();
    let (mut evaluated, mut saved) = (Vec::new(), Vec::new());
    let report = trainer
        .train(&data(16), Some(&data(8)), &mut |event| match event {
            Event::Evaluated { step, loss } => evaluated.push((step, loss)),
            Event::Saved(path) => saved.push(path.to_owned()),
            Event::Step(_) => {}
        })
        .unwrap();
    assert_eq!(evaluated.iter().map(|(step, _)| *step).collect::<Vec<_>>(), [3, 6, 8]);
    assert_eq!(report.held_out, Some(trainer.evaluate(&data(8)).unwrap()));
    assert_eq!(saved.len(), 4);
    assert_eq!(saved.iter().filter(|path| path.exists()).count(), 2);
    assert!(saved[3].exists() && report.checkpoint.as_ref() == Some(&saved[3]));
}

#[test]
fn options_and_models_that_cannot_be_trained_are_refused() {
    let mut llama = llama(DType::F32, 1);
    let mut error = |options: TrainOptions| Trainer::new(&mut llama, adamw(), options, |_, _| true).err().unwrap().to_string();
    assert!(error(TrainOptions { lr: f64::NAN, ..options(1) }).starts_with("lr: NaN"));
    assert!(error(TrainOptions { rows: 0, ..options(1) }).starts_with("rows: 0"));
    assert!(error(TrainOptions { clip: -1.0, ..options(1) }).starts_with("clip: -1"));
    let none = Trainer::new(&mut llama, adamw(), options(1), |_, _| false).err().unwrap().to_string();
    assert!(none.contains("nothing to train"), "{none}");
    // A sequence longer than the context.
    let long = Example::text((0..80).map(|i| i % 64).collect());
    let long = Dataset::from_examples(64, &[long]).unwrap().pack(128, Packing::Whole(Overlong::Refuse)).unwrap();
    let mut trainer = Trainer::new(&mut llama, adamw(), TrainOptions { rows: 1, ..options(1) }, |_, _| true).unwrap();
    let error = trainer.train(&long, None, &mut |_| {}).unwrap_err().to_string();
    assert!(error.contains("80") && error.contains("64"), "{error}");
}

/// An objective of a single row, whose loss is what it says.
struct Made<F>(F);

impl<F: Fn(&Pass<'_>) -> puna_tensor::Result<Tensor>> Objective for Made<F> {
    fn rows(&self) -> u64 {
        1
    }

    fn check(&self, _: &Llama, _: usize) -> puna_train::Result<()> {
        Ok(())
    }

    fn loss(&self, pass: &Pass<'_>, _: &[u64]) -> puna_train::Result<Loss> {
        Ok(Loss { sum: (self.0)(pass)?, count: 1, tokens: 1, rewards: None })
    }
}

#[test]
fn a_gradient_that_is_not_finite_is_named_and_changes_nothing() {
    let mut llama = llama(DType::F32, 1);
    let before = bytes(&llama);
    // The loss is 0, the derivative of the root there infinite.
    let root = Made(|pass: &Pass<'_>| {
        pass.llama.model.norm.weight.sub(&pass.llama.model.norm.weight.detach())?.square()?.sum_all()?.sqrt()
    });
    let mut trainer = Trainer::new(&mut llama, adamw(), options(1), |path, _| path == "model.norm.weight").unwrap();
    let error = trainer.train(&root, None, &mut |_| {}).unwrap_err();
    assert_eq!(error.kind(), Kind::NonFinite);
    let text = error.to_string();
    assert!(text.starts_with("step 1: ") && text.contains("the gradient of model.norm.weight [32] is not finite"), "{text}");
    assert_eq!(bytes(&llama), before);
}

#[test]
fn parameters_that_the_loss_does_not_reach_are_named() {
    let mut llama = llama(DType::F32, 1);
    let norm = Made(|pass: &Pass<'_>| pass.llama.model.norm.weight.square()?.sum_all());
    let which = |path: &str, _: &Tensor| path.ends_with("norm.weight");
    let mut trainer = Trainer::new(&mut llama, adamw(), options(1), which).unwrap();
    let text = trainer.train(&norm, None, &mut |_| {}).unwrap_err().to_string();
    assert!(
        text.contains("model.layers.0.input_layernorm.weight") && text.contains("model.layers.1.post_attention_layernorm.weight"),
        "{text}"
    );
    assert!(!text.contains("to model.norm.weight") && !text.contains(", model.norm.weight"), "{text}");
}

#[test]
fn numbers_that_break_in_a_layer_name_it() {
    let mut llama = llama(DType::F32, 2);
    let mut trainer = Trainer::new(&mut llama, adamw(), options(1), |_, _| true).unwrap();
    let up = trainer.parameters().iter().find(|(name, _)| name == "model.layers.1.mlp.up_proj.weight").unwrap().1.clone();
    puna_tensor::no_grad(|| up.assign(&Tensor::full(3e38, *up.shape(), DType::F32, up.device())?)).unwrap();
    let text = trainer.train(&data(8), None, &mut |_| {}).unwrap_err().to_string();
    assert!(text.contains("the first that is not finite is what model.layers.1 gives"), "{text}");
}

#[test]
fn weights_that_are_not_finite_never_become_the_newest_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let saved = TrainOptions { folder: Some(folder.path().into()), save_every: 1, ..options(2) };
    run(&mut llama(DType::F32, 2), &data(8), saved.clone());
    // The third step throws the weights out of range; nothing has been computed with them when it is to be saved.
    let mut broken = llama(DType::F32, 2);
    let far = TrainOptions { steps: 3, lr: 1e300, schedule: Schedule::Constant { warmup: 0 }, ..saved.clone() };
    let mut trainer = Trainer::new(&mut broken, adamw(), far, |_, _| true).unwrap();
    trainer.resume().unwrap().unwrap();
    let error = trainer.train(&data(8), None, &mut |_| {}).unwrap_err();
    assert_eq!(error.kind(), Kind::NonFinite);
    let text = error.to_string();
    assert!(
        text.starts_with("step 3: the weight model.") && text.contains("step-00000002 is the last good checkpoint"),
        "{text}"
    );
    let (_, report, _) = run(&mut llama(DType::F32, 2), &data(8), TrainOptions { steps: 4, ..saved });
    assert_eq!(report.steps, 4);
}

#[test]
fn a_folder_with_later_checkpoints_is_not_begun_anew() {
    let folder = tempfile::tempdir().unwrap();
    let saved = TrainOptions { folder: Some(folder.path().into()), ..options(3) };
    run(&mut llama(DType::F32, 1), &data(8), saved.clone());
    let metrics = std::fs::read_to_string(folder.path().join("metrics.jsonl")).unwrap();
    let mut fresh = llama(DType::F32, 1);
    let mut trainer = Trainer::new(&mut fresh, adamw(), saved, |_, _| true).unwrap();
    let error = trainer.train(&data(8), None, &mut |_| {}).unwrap_err();
    assert!(
        error.kind() == Kind::Checkpoint && error.to_string().contains("checkpoint of step 3, and this run is at step 0"),
        "{error}"
    );
    assert!(folder.path().join("step-00000003").is_dir());
    assert_eq!(std::fs::read_to_string(folder.path().join("metrics.jsonl")).unwrap(), metrics);
}

#[test]
fn what_a_run_that_was_killed_left_behind_goes() {
    let folder = tempfile::tempdir().unwrap();
    let left = folder.path().join(".partial-x1");
    std::fs::create_dir(&left).unwrap();
    std::fs::write(left.join("parameters.safetensors"), [0; 100]).unwrap();
    run(&mut llama(DType::F32, 1), &data(8), TrainOptions { folder: Some(folder.path().into()), ..options(1) });
    let mut names: Vec<String> =
        std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, ["metrics.jsonl", "step-00000001"]);
}

#[test]
fn a_trainer_that_was_stopped_goes_on_where_it_was() {
    let whole = run(&mut llama(DType::F32, 1), &data(24), options(6)).2;
    let mut halves = llama(DType::F32, 1);
    let stop = Arc::new(AtomicBool::new(false));
    let told = TrainOptions { stop: Some(stop.clone()), ..options(6) };
    let mut trainer = Trainer::new(&mut halves, adamw(), told, |_, _| true).unwrap();
    let report = trainer
        .train(&data(24), None, &mut |event| {
            if matches!(event, Event::Step(record) if record.step == 2) {
                stop.store(true, Ordering::Relaxed);
            }
        })
        .unwrap();
    assert!(report.stopped && report.steps == 2);
    stop.store(false, Ordering::Relaxed);
    assert_eq!(trainer.train(&data(24), None, &mut |_| {}).unwrap().steps, 6);
    assert_eq!(bytes(&halves), whole);
}

#[test]
fn a_checkpoint_holds_what_is_exported_and_a_failed_export_leaves_the_old_one() {
    let folder = tempfile::tempdir().unwrap();
    let saved = TrainOptions { folder: Some(folder.path().into()), ..options(2) };
    let mut trained = llama(DType::F32, 1);
    let export = |llama: &Llama, folder: &Path| Ok(llama.save(folder, &SaveOptions::default()).map(drop)?);
    let mut trainer = Trainer::new(&mut trained, adamw(), saved.clone(), |_, _| true).unwrap().export(&export);
    let checkpoint = trainer.train(&data(8), None, &mut |_| {}).unwrap().checkpoint.unwrap();
    // A Hugging Face folder, the files of training beside it: both are read.
    let options = LoadOptions { dtype: None, activations: None, pack: false, progress: &mut |_| {} };
    let loaded = Llama::load(&Checkpoint::open(&checkpoint).unwrap(), &device(1), options).unwrap();
    assert_eq!(bytes(&loaded), bytes(&trained));
    let mut again = llama(DType::F32, 1);
    let full = |_: &Llama, _: &Path| Err(puna_train::Error::new(Kind::Io, "disk", "no space left on device"));
    let mut trainer = Trainer::new(&mut again, adamw(), TrainOptions { steps: 3, ..saved }, |_, _| true).unwrap().export(&full);
    trainer.resume().unwrap().unwrap();
    assert!(trainer.train(&data(8), None, &mut |_| {}).unwrap_err().to_string().contains("no space left"));
    assert_eq!(puna_train::trainer::latest(folder.path()).unwrap(), Some(checkpoint));
}

#[test]
fn a_checkpoint_says_how_it_was_trained() {
    let folder = tempfile::tempdir().unwrap();
    run(&mut llama(DType::F32, 1), &data(8), TrainOptions { folder: Some(folder.path().into()), accumulate: 2, ..options(1) });
    let text = std::fs::read_to_string(folder.path().join("step-00000001/trainer.json")).unwrap();
    let state: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&state["step"], &state["seed"], &state["options"]["accumulate"]), (&1.into(), &0.into(), &2.into()));
    assert_eq!(state["options"]["schedule"], "Cosine { warmup: 10, steps: 1, floor: 0.1 }");
}
