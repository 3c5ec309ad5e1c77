//! The CPU back end of puna.
