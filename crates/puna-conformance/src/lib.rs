//! Every op's contract, run against any device, beside an independent naive f64 reference.
#![forbid(unsafe_code)]
