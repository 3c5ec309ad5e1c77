//! Kernels of the family `elementwise`.
