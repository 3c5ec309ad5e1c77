//! Kernels of the family `index`.
