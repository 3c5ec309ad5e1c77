//! Kernels of the family `reduce`.
