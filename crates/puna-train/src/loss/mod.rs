//! Losses beside the cross entropy that [`Llama::loss`](puna_llama::Llama::loss) gives: preference, distillation, and the log-probabilities
//! that they read.
//!
//! All give sums, never means: micro-batches add sums, and the trainer divides once.

mod distillation;
mod log_probs;
mod preference;

pub use distillation::{TopK, distillation, distillation_top_k};
pub use log_probs::log_probs;
pub use preference::dpo;
