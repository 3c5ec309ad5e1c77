//! Kernels over plain slices.
