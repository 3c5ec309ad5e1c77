//! The CPU back end of puna.
#![allow(dead_code)]

mod pool;
mod simd;
