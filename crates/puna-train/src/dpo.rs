//! Direct preference optimisation: a model learns which of two answers is preferred.

use puna_llama::Llama;
use puna_tensor::no_grad;

use crate::data::{Batch, Preferences};
use crate::error::{Error, Result};
use crate::loss;
use crate::trainer::{Frozen, Loss, Objective, Pass, Rewards};

/// Pairs of answers to learn from by direct preference optimisation; rows are pairs, the loss is a mean over them.
///
/// ```no_run
/// use puna_autograd::optim::{AdamW, AdamWOptions};
/// use puna_train::{Dpo, Preferences, TrainOptions, Trainer};
///
/// # fn train(mut llama: puna_llama::Llama, pairs: Preferences) -> puna_train::Result<()> {
/// llama.add_adapter(&puna_llama::AdapterConfig::default(), 0)?;
/// let dpo = Dpo::new(pairs, Dpo::base(&llama), 0.1)?;
/// let options = TrainOptions { steps: 200, rows: 4, lr: 5e-5, ..TrainOptions::default() };
/// let adamw = Box::new(AdamW::new(AdamWOptions { decay: 0.0, ..AdamWOptions::default() }));
/// let mut trainer = Trainer::new(&mut llama, adamw, options, |path, _| path.contains("lora_"))?;
/// trainer.train(&dpo, None, &mut |_| {})?;
/// # Ok(()) }
/// ```
///
/// The loss: [`loss::dpo`]. Rafailov and others 2023, arXiv 2305.18290.
#[derive(Debug, Clone)]
pub struct Dpo {
    pairs: Preferences,
    reference: Frozen,
    beta: f64,
}

impl Dpo {
    /// Pairs, the model that the policy may not leave too far behind, and `beta`, how dear that is (0.1 is usual).
    ///
    /// Errors: a beta that is not above 0.
    pub fn new(pairs: Preferences, reference: Llama, beta: f64) -> Result<Self> {
        if !(beta > 0.0 && beta.is_finite()) {
            return Err(Error::argument("beta", format!("{beta}; a number above 0 would be right")));
        }
        Ok(Self { pairs, reference: Frozen::new(reference), beta })
    }

    /// The model as it is, without its adapter: the reference where an adapter is trained. It shares the weights' memory.
    ///
    /// Where all weights are trained, a clone made before [`Trainer::new`](crate::Trainer::new) is the reference: the trainer gives
    /// parameters memory of their own.
    pub fn base(llama: &Llama) -> Llama {
        let mut base = llama.clone();
        base.remove_adapter();
        base
    }

    /// The same reference and beta on other pairs: to evaluate.
    pub fn with_pairs(&self, pairs: Preferences) -> Self {
        Self { pairs, ..self.clone() }
    }
}

impl Objective for Dpo {
    fn rows(&self) -> u64 {
        self.pairs.len()
    }

    fn check(&self, llama: &Llama, rows: usize) -> Result<()> {
        let (theirs, ours) = (self.reference.llama.config.vocab_size, llama.config.vocab_size);
        if theirs != ours {
            let message = format!("its vocabulary has {theirs} tokens, the model's {ours}; the model's base would be right");
            return Err(Error::argument("reference", message));
        }
        let tokens = self.pairs.vocab_size();
        if tokens > ours {
            return Err(Error::argument("preferences", format!("tokens of a vocabulary of {tokens}; the model has {ours}")));
        }
        let context = llama.config.context_limit().unwrap_or(usize::MAX);
        self.pairs.batches(0, rows, context).map(drop)
    }

    fn loss(&self, pass: &Pass<'_>, rows: &[u64]) -> Result<Loss> {
        // A chosen answer and its rejected one in turn.
        let mut answers = Vec::with_capacity(2 * rows.len());
        for row in rows {
            let pair = self.pairs.pair(*row)?;
            answers.extend([pair.chosen, pair.rejected]);
        }
        let batch = Batch::of(&answers)?;
        let reference = &self.reference.llama;
        let reference = no_grad(|| loss::log_probs(reference, &self.reference.hidden(&batch)?, &batch))?;
        let policy = loss::log_probs(pass.llama, &pass.hidden(&batch)?, &batch)?;
        let pairs = rows.len();
        let sides = |log_probs: &puna_tensor::Tensor| {
            let log_probs = log_probs.reshape([pairs, 2])?;
            let side = |at| log_probs.slice(1, at, 1)?.reshape(pairs);
            Ok::<_, puna_tensor::Error>([side(0)?, side(1)?])
        };
        let ([chosen, rejected], [reference_chosen, reference_rejected]) = (sides(&policy)?, sides(&reference)?);
        let (sum, margins) = loss::dpo([&chosen, &rejected], [&reference_chosen, &reference_rejected], self.beta)?;
        let margins = no_grad(|| margins.detach().cast(puna_tensor::DType::F64)?.to_vec::<f64>())?;
        let rewards =
            Rewards { accuracy: margins.iter().filter(|margin| **margin > 0.0).count() as f64, margin: margins.iter().sum() };
        Ok(Loss { sum, count: pairs as u64, tokens: batch.tokens() as u64, rewards: Some(rewards) })
    }
}
