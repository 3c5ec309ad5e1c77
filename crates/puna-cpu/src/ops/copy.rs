//! Kernels of the family `copy`.
