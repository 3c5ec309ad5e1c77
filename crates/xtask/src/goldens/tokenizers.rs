//! Tokenizations.
