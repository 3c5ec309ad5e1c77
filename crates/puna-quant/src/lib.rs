//! Quantised block formats of GGUF: decode, encode, sizes.
#![forbid(unsafe_code)]
