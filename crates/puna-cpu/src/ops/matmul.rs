//! Matrix products.

pub(crate) mod row;
pub(crate) mod wide;
