//! Kernels of the family `optimizer`.
