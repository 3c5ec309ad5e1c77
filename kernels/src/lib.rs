//! The GPU kernels of puna, as sources, with their entry points and geometry.
#![forbid(unsafe_code)]
