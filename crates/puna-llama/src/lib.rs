//! The Llama architecture: config, weights, model, cache, generation, chat.
#![forbid(unsafe_code)]
