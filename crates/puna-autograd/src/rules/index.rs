//! Derivatives of indexing: what was taken is added back, in order.

use super::{Context, Flowed};

pub(super) fn gather_rows(c: &Context) -> Flowed {
    let (dy, index) = (c.dy()?, c.input(1)?);
    let table = c.wanted(0, || dy.scatter_add_rows(&index, c.shape(0)[0]))?;
    Ok(vec![table, None])
}

pub(super) fn scatter_add_rows(c: &Context) -> Flowed {
    Ok(vec![Some(c.dy()?.gather_rows(&c.input(1)?)?), None])
}

pub(super) fn take(c: &Context) -> Flowed {
    Ok(vec![Some(c.dy()?.take_backward(&c.input(1)?, c.shape(0).last())?), None])
}

pub(super) fn take_backward(c: &Context) -> Flowed {
    Ok(vec![Some(c.dy()?.take(&c.input(1)?)?), None])
}
