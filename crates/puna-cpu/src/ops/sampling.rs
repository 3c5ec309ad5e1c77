//! Kernels of the family `sampling`.
