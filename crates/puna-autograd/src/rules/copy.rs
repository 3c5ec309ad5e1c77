//! Derivatives of views, copies and casts.

use puna_tensor::op::{Concat, View};
use puna_tensor::{Axes, Result, Tensor};

use super::{Context, Flowed, sum_to};

pub(super) fn view(c: &Context, op: &View) -> Flowed {
    let (dy, shape) = (c.dy()?, c.shape(0));
    let dx = match op {
        View::Reshape(_) => dy.reshape(*shape)?,
        View::Permute(axes) => {
            let mut inverse = axes.to_vec();
            axes.iter().enumerate().for_each(|(to, &from)| inverse[from] = to);
            dy.permute(Axes::new(&inverse).expect("as many axes as before"))?
        }
        View::Slice { axis, start, length } => {
            let zeros = |length| Tensor::zeros(shape.with(*axis, length), dy.dtype(), dy.device());
            let (before, behind) = (*start, shape[*axis] - start - length);
            match (before, behind) {
                (0, 0) => dy.clone(),
                (0, _) => Tensor::concat(&[dy, &zeros(behind)?], *axis)?,
                (_, 0) => Tensor::concat(&[&zeros(before)?, dy], *axis)?,
                _ => Tensor::concat(&[&zeros(before)?, dy, &zeros(behind)?], *axis)?,
            }
        }
        View::Broadcast(_) => sum_to(dy.clone(), shape)?,
    };
    Ok(vec![Some(dx)])
}

/// The gradient as it is, in the dtype of the input: of copies, of casts between floats, of rounding.
pub(super) fn same(c: &Context) -> Flowed {
    let dtype = c.node.inputs()[0].dtype();
    Ok(vec![if dtype.is_float() { Some(c.dy()?.cast(dtype)?) } else { None }])
}

pub(super) fn concat(c: &Context, op: &Concat) -> Flowed {
    let dy = c.dy()?;
    let mut start = 0;
    let mut one = |i: usize| -> Result<Option<Tensor>> {
        let length = c.shape(i)[op.axis];
        start += length;
        c.wanted(i, || dy.slice(op.axis, start - length, length))
    };
    (0..c.node.inputs().len()).map(&mut one).collect()
}
