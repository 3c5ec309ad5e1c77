//! A bounded reader for untrusted bytes: every count is checked against what is left before it is used.
#![forbid(unsafe_code)]
