//! Criterion benchmarks, one file per op family; each states its roof.
