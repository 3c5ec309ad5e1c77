//! Drawing tokens.

use puna_tensor::op::Sample;
use puna_tensor::{Execution, Result};

use crate::backend::Cuda;
use crate::view::View;

pub(super) fn sample(_: &Cuda, _: &Sample, _: &[View], _: &[View]) -> Result<Execution> {
    Ok(Execution::Unsupported)
}
