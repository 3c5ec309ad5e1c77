//! Llama's tokenizers: byte-level BPE, SentencePiece BPE, tokenizer.json.
#![forbid(unsafe_code)]
