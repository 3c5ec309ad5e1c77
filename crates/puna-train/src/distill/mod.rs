//! Knowledge distillation: a model learns the distributions of another with the same tokenizer.

mod stored;

use std::sync::Arc;

use puna_autograd::checkpoint;
use puna_llama::Llama;
use puna_tensor::{Tensor, no_grad};

pub use stored::StoredTeacher;

use crate::data::{Batch, IGNORED, Packed};
use crate::error::{Error, Result};
use crate::loss;
use crate::trainer::{Frozen, Loss, Objective, Pass, gathered};

/// 32 MiB of f32, of which some ten are needed at once.
const CHUNK: usize = 8 << 20;

/// What a model learns from: a teacher that runs beside it, or what was stored of one.
#[derive(Debug, Clone)]
enum Teacher {
    Online(Arc<Frozen>),
    Stored(StoredTeacher),
}

/// Packed data to learn from together with a teacher's distributions of every token that counts.
///
/// The loss is `share * KL + (1 - share) * CE`: the divergence of [`loss::distillation`] (of [`loss::distillation_top_k`] from stored
/// distributions) and the cross entropy of the labels, both a mean over the labels that count. The logits are formed a few rows at a
/// time, and again in the backward pass, so that those of a whole batch are never held.
///
/// ```no_run
/// use puna_autograd::optim::{AdamW, AdamWOptions};
/// use puna_train::{Distillation, Packed, TrainOptions, Trainer};
///
/// # fn train(teacher: puna_llama::Llama, mut student: puna_llama::Llama, data: Packed, held_out: Packed) -> puna_train::Result<()> {
/// let distillation = Distillation::new(data, teacher, 2.0)?.share(0.5)?;
/// let adamw = Box::new(AdamW::new(AdamWOptions::default()));
/// let mut trainer = Trainer::new(&mut student, adamw, TrainOptions::default(), |_, _| true)?;
/// trainer.train(&distillation, Some(&held_out), &mut |_| {})?;
/// # Ok(()) }
/// ```
///
/// Hinton, Vinyals and Dean 2015, arXiv 1503.02531.
#[derive(Debug, Clone)]
pub struct Distillation {
    data: Packed,
    teacher: Teacher,
    temperature: f64,
    share: f64,
    /// How many logits are held at a time.
    chunk: usize,
}

impl Distillation {
    /// A teacher that runs beside the student, at a temperature.
    ///
    /// Errors: a temperature that is not above 0.
    pub fn new(data: Packed, teacher: Llama, temperature: f64) -> Result<Self> {
        if !(temperature > 0.0 && temperature.is_finite()) {
            return Err(Error::argument("temperature", format!("{temperature}; a number above 0 would be right")));
        }
        Ok(Self { data, teacher: Teacher::Online(Arc::new(Frozen::new(teacher))), temperature, share: 1.0, chunk: CHUNK })
    }

    /// What [`StoredTeacher::write`] has kept of a teacher, at the temperature that it was read with.
    ///
    /// Errors: rows that are not as many as the data's.
    pub fn stored(data: Packed, teacher: StoredTeacher) -> Result<Self> {
        teacher.check(&data)?;
        Ok(Self { data, temperature: teacher.temperature(), teacher: Teacher::Stored(teacher), share: 1.0, chunk: CHUNK })
    }

    /// With another share of the divergence in the loss than all of it.
    ///
    /// Errors: a share that is not above 0 and at most 1.
    pub fn share(self, share: f64) -> Result<Self> {
        if !(share > 0.0 && share <= 1.0) {
            return Err(Error::argument("share", format!("{share}; a number above 0, and at most 1, would be right")));
        }
        Ok(Self { share, ..self })
    }

    /// The summed divergence of these rows.
    fn divergence(&self, pass: &Pass<'_>, hidden: &Tensor, batch: &Batch, rows: &[u64]) -> Result<Tensor> {
        let counted: Vec<u32> = (0..).zip(&batch.labels).filter(|(_, label)| **label != IGNORED).map(|(at, _)| at).collect();
        let read = match &self.teacher {
            Teacher::Online(teacher) => Read::Online(teacher.clone(), teacher.hidden(batch)?),
            Teacher::Stored(teacher) => Read::Stored(teacher.rows(&self.data, rows)?),
        };
        let (device, vocab, temperature) = (hidden.device(), pass.llama.config.vocab_size, self.temperature);
        let student = Arc::new(pass.llama.clone());
        let mut sums = Vec::new();
        let mut done = 0;
        for chunk in counted.chunks((self.chunk / vocab.max(1)).max(1)) {
            let at = Tensor::from_slice(chunk, chunk.len(), device)?;
            let teacher = read.part(&at, done, vocab)?;
            done += chunk.len();
            let student = student.clone();
            let divergence = move |x: &[Tensor]| {
                let divergence = teacher.divergence(&student.logits(&x[0])?, temperature);
                Ok(vec![divergence.map_err(refused)?])
            };
            sums.push(checkpoint(divergence, &[&hidden.gather_rows(&at)?])?.swap_remove(0).reshape(1)?);
        }
        Ok(Tensor::concat(&sums.iter().collect::<Vec<_>>(), 0)?.sum_all()?)
    }
}

impl Objective for Distillation {
    fn rows(&self) -> u64 {
        self.data.len()
    }

    fn check(&self, llama: &Llama, rows: usize) -> Result<()> {
        let (place, theirs) = match &self.teacher {
            Teacher::Online(teacher) => ("teacher".to_owned(), teacher.llama.config.vocab_size),
            Teacher::Stored(teacher) => (teacher.place(), teacher.vocab_size()),
        };
        let ours = llama.config.vocab_size;
        if theirs != ours {
            let message =
                format!("its vocabulary has {theirs} tokens, the student's {ours}; one with the same tokenizer would be right");
            return Err(Error::argument(place, message));
        }
        self.data.check(llama, rows)
    }

    fn loss(&self, pass: &Pass<'_>, rows: &[u64]) -> Result<Loss> {
        let batch = gathered(&self.data, rows)?;
        let hidden = pass.hidden(&batch)?;
        let divergence = self.divergence(pass, &hidden, &batch, rows)?;
        let sum = if self.share == 1.0 {
            divergence
        } else {
            let (entropy, _) = pass.llama.loss(&hidden, &batch.labels_on(hidden.device())?)?;
            divergence.affine(self.share, 0.0)?.add(&entropy.affine(1.0 - self.share, 0.0)?)?
        };
        Ok(Loss { sum, count: batch.counted() as u64, tokens: batch.tokens() as u64, rewards: None })
    }
}

/// What a teacher says of a batch.
enum Read {
    /// Its hidden states, of every token.
    Online(Arc<Frozen>, Tensor),
    /// Of every token that counts.
    Stored(stored::Rows),
}

/// What it says of some of the tokens that count.
enum Part {
    Online(Arc<Frozen>, Tensor),
    Stored(loss::TopK),
}

impl Read {
    /// Of the tokens `at` in the batch, which are those from the `first` on of all that count.
    fn part(&self, at: &Tensor, first: usize, vocab: usize) -> Result<Part> {
        Ok(match self {
            Self::Online(teacher, hidden) => Part::Online(teacher.clone(), no_grad(|| hidden.gather_rows(at))?),
            Self::Stored(rows) => Part::Stored(rows.top_k(first..first + at.elements(), vocab, at.device())?),
        })
    }
}

impl Part {
    fn divergence(&self, student: &Tensor, temperature: f64) -> Result<Tensor> {
        match self {
            Self::Online(teacher, hidden) => {
                let logits = no_grad(|| teacher.llama.logits(hidden))?;
                loss::distillation(student, &logits, temperature)
            }
            Self::Stored(top_k) => loss::distillation_top_k(student, top_k, temperature),
        }
    }
}

/// What a loss refused, inside an op.
fn refused(error: Error) -> puna_tensor::Error {
    puna_tensor::Error::new(puna_tensor::Kind::Argument, "distillation", error.to_string())
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use puna_autograd::backward;
    use puna_llama::{Config, InitialWeights, LoadOptions, RotaryTable};
    use puna_tensor::{DType, Device};

    use super::*;
    use crate::data::{Dataset, Example, Overlong, Packing};

    fn llama(seed: u64, device: &Device) -> Llama {
        let json = r#"{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 16, "intermediate_size": 32,
            "num_attention_heads": 2, "num_hidden_layers": 1, "vocab_size": 40, "rms_norm_eps": 1e-5, "max_position_embeddings": 64,
            "tie_word_embeddings": false}"#;
        let config = Config::from_hf_json("config.json", json.as_bytes()).unwrap();
        let options = LoadOptions { dtype: Some(DType::F32), activations: None, pack: false, progress: &mut |_| {} };
        Llama::from_weights(&config, &InitialWeights::new(&config, seed), device, options).unwrap()
    }

    #[test]
    fn logits_formed_a_few_rows_at_a_time_give_the_loss_and_gradients_of_all_at_once() {
        let device = puna_cpu::device(puna_cpu::Options { threads: NonZeroUsize::new(2) }).unwrap();
        let examples: Vec<Example> = (0..4u32).map(|s| Example::text((0..11).map(|i| (s * 7 + i * i) % 40).collect())).collect();
        let data = Dataset::from_examples(40, &examples).unwrap().pack(22, Packing::Whole(Overlong::Refuse)).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let stored =
            StoredTeacher::write(folder.path().join("teacher"), &data, llama(1, &device), 2.0, 5, &mut |_, _| {}).unwrap();
        let mut student = llama(2, &device);
        let parameters = student.track(|_, _| true).unwrap();
        let table = RotaryTable::base(&student.config);
        let pass = Pass::plain(&student, &table);
        let online = Distillation::new(data.clone(), llama(1, &device), 2.0).unwrap();
        for objective in [online, Distillation::stored(data, stored).unwrap()] {
            let run = |chunk: usize| {
                let loss = Distillation { chunk, ..objective.clone() }.loss(&pass, &[0, 1]).unwrap();
                assert_eq!(loss.count, 40);
                let gradients = backward(&loss.sum).unwrap();
                let gradients =
                    parameters.iter().map(|(_, parameter)| gradients.get(parameter).unwrap().to_vec::<f32>().unwrap());
                (loss.sum.item::<f32>().unwrap(), gradients.collect::<Vec<_>>())
            };
            let (whole, gradients) = run(CHUNK);
            // 1, 3 and 39 rows: the last chunk has as many, or fewer.
            for rows in [1, 3, 39] {
                let (sum, parts) = run(rows * 40);
                assert!((sum / whole - 1.0).abs() < 1e-5, "{rows} rows: {sum} {whole}");
                for ((name, _), (a, b)) in parameters.iter().zip(parts.iter().zip(&gradients)) {
                    let norm = |values: &mut dyn Iterator<Item = f32>| values.map(|x| x * x).sum::<f32>().sqrt();
                    let difference = norm(&mut a.iter().zip(b).map(|(a, b)| a - b)) / norm(&mut b.iter().copied());
                    assert!(difference < 1e-5, "{rows} rows: {name} is off by {difference:e}");
                }
            }
        }
    }
}
