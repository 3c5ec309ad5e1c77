//! Kernels of the family `softmax`.
