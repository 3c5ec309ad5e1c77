//! Walking a graph back, from the last op to the first.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use puna_tensor::{Error, Kind, Node, Op, Result, Tensor, TensorId, no_grad, with_grad};

use crate::Gradients;
use crate::rules;

/// The gradients of a loss by every tracked leaf that it depends on.
///
/// `loss`: one element, of floats. What the graph saved is let go on the way: it can be walked once. [`Gradients::check`] names the
/// parameters that were not reached.
///
/// Errors: a loss of several elements, or one without history; an op that has no derivative, by name; a saved tensor that has
/// been changed in place since.
pub fn backward(loss: &Tensor) -> Result<Gradients> {
    walk(&[(loss, seed(loss)?)], &Wanted::Leaves)
}

/// The gradients of a loss by these tensors alone, leaves or results on the way; what does not lead to them is not computed.
///
/// Errors: as [`backward`]; a tensor that the loss does not depend on, by its place in `of`.
pub fn grad(loss: &Tensor, of: &[&Tensor]) -> Result<Vec<Tensor>> {
    let wanted = Wanted::These(of.iter().map(|tensor| tensor.id()).collect());
    let mut gradients = walk(&[(loss, seed(loss)?)], &wanted)?;
    gradients.check(of.iter().enumerate().map(|(i, &tensor)| (format!("argument {i}"), tensor)))?;
    // The same tensor may be asked for twice.
    let last = |i: usize| of[i + 1..].iter().all(|other| other.id() != of[i].id());
    let mut take = |(i, tensor): (usize, &&Tensor)| {
        let gradient = if last(i) { gradients.remove(tensor) } else { gradients.get(tensor).cloned() };
        gradient.expect("all were checked")
    };
    Ok(of.iter().enumerate().map(&mut take).collect())
}

fn seed(loss: &Tensor) -> Result<Tensor> {
    let fail = |kind, message: String| Err(Error::new(kind, "backward", message).with_arguments(&[loss]));
    if !loss.dtype().is_float() {
        return fail(Kind::DType, format!("the loss is {} {}; it takes floats", loss.shape(), loss.dtype()));
    }
    if loss.elements() != 1 {
        return fail(Kind::Shape, format!("the loss is {}; it takes one element: sum_all() makes one", loss.shape()));
    }
    if !loss.is_tracked() {
        return fail(
            Kind::Argument,
            "the loss depends on no tracked tensor: tracked() makes a parameter of a leaf, and no_grad records nothing".into(),
        );
    }
    Tensor::full(1.0, *loss.shape(), loss.dtype(), loss.device())
}

/// Whose gradients are asked for.
pub(crate) enum Wanted {
    /// Those of all tracked leaves.
    Leaves,
    /// Those of these tensors.
    These(HashSet<TensorId>),
}

impl Wanted {
    fn has(&self, input: &puna_tensor::Input) -> bool {
        match self {
            Self::Leaves => input.is_tracked() && input.source().is_none(),
            Self::These(ids) => ids.contains(&input.id()),
        }
    }
}

/// What flowed to a node's outputs so far.
struct Pending {
    node: Arc<Node>,
    gradients: Vec<Option<Tensor>>,
}

/// Walks back from tensors, each with its gradient, to what is wanted.
pub(crate) fn walk(from: &[(&Tensor, Tensor)], wanted: &Wanted) -> Result<Gradients> {
    no_grad(|| {
        let mut gradients = Gradients::new();
        let needed = Needed::of(from, wanted);
        // By number: the last of a map is the node that no other waits for.
        let mut pending: BTreeMap<u64, Pending> = BTreeMap::new();
        for (tensor, gradient) in from {
            let asked = match wanted {
                Wanted::Leaves => tensor.is_tracked() && tensor.source().is_none(),
                Wanted::These(ids) => ids.contains(&tensor.id()),
            };
            if asked {
                gradients.add(tensor.id(), gradient.clone())?;
            }
            if let Some((node, output)) = tensor.source() {
                arrive(&mut pending, node, output, gradient.clone())?;
            }
        }
        while let Some((_, Pending { node, gradients: dy })) = pending.pop_last() {
            let need: Vec<bool> = node.inputs().iter().map(|input| needed.input(input, wanted)).collect();
            if !need.contains(&true) && !may_capture(node.op()) {
                node.release();
                continue;
            }
            let mut captured = |id: TensorId, gradient: Tensor| match wanted {
                Wanted::These(ids) if !ids.contains(&id) => Ok(()),
                _ => gradients.add(id, gradient),
            };
            let flowed = rules::vjp(&node, &dy, &need, &mut captured)?;
            drop(dy);
            node.release();
            debug_assert_eq!(flowed.len(), node.inputs().len(), "{}", node.op().name());
            for ((input, gradient), need) in node.inputs().iter().zip(flowed).zip(need) {
                let Some(gradient) = gradient.filter(|_| need) else { continue };
                debug_assert_eq!(gradient.shape(), input.shape(), "the gradient of an input of {}", node.op().name());
                let gradient = if gradient.dtype() == input.dtype() { gradient } else { gradient.cast(input.dtype())? };
                let source = input.source().filter(|(source, _)| needed.node(source));
                match (wanted.has(input), source) {
                    (true, Some((source, output))) => {
                        gradients.add(input.id(), gradient.clone())?;
                        arrive(&mut pending, source, output, gradient)?;
                    }
                    (true, None) => gradients.add(input.id(), gradient)?,
                    (false, Some((source, output))) => arrive(&mut pending, source, output, gradient)?,
                    (false, None) => {}
                }
            }
        }
        Ok(gradients)
    })
}

fn arrive(pending: &mut BTreeMap<u64, Pending>, node: &Arc<Node>, output: usize, gradient: Tensor) -> Result<()> {
    let at =
        pending.entry(node.number()).or_insert_with(|| Pending { node: node.clone(), gradients: vec![None; node.outputs()] });
    let slot = &mut at.gradients[output];
    *slot = Some(match slot.take() {
        Some(before) => before.add(&gradient)?,
        None => gradient,
    });
    Ok(())
}

/// Whether the op may hold tracked leaves that are no inputs of it.
fn may_capture(op: &Op) -> bool {
    matches!(op, Op::Custom(_))
}

/// Which nodes lead to what is wanted; `None`: all do.
struct Needed(Option<HashMap<u64, bool>>);

impl Needed {
    fn of(from: &[(&Tensor, Tensor)], wanted: &Wanted) -> Self {
        if matches!(wanted, Wanted::Leaves) {
            return Self(None);
        }
        let mut reached: BTreeMap<u64, Arc<Node>> = BTreeMap::new();
        let mut open: Vec<Arc<Node>> = from.iter().filter_map(|(tensor, _)| Some(tensor.source()?.0.clone())).collect();
        while let Some(node) = open.pop() {
            if reached.insert(node.number(), node.clone()).is_none() {
                open.extend(node.inputs().iter().filter_map(|input| Some(input.source()?.0.clone())));
            }
        }
        // An input's node has the smaller number, so it is decided before.
        let mut leads: HashMap<u64, bool> = HashMap::new();
        for (number, node) in reached {
            let led = |input: &puna_tensor::Input| {
                wanted.has(input) || input.source().is_some_and(|(source, _)| leads[&source.number()])
            };
            let leads_there = may_capture(node.op()) || node.inputs().iter().any(led);
            leads.insert(number, leads_there);
        }
        Self(Some(leads))
    }

    fn node(&self, node: &Node) -> bool {
        self.0.as_ref().is_none_or(|leads| leads[&node.number()])
    }

    fn input(&self, input: &puna_tensor::Input, wanted: &Wanted) -> bool {
        match &self.0 {
            None => input.is_tracked(),
            Some(_) => wanted.has(input) || input.source().is_some_and(|(source, _)| self.node(source)),
        }
    }
}

/// Differentiates an op through its definition: runs it again, recorded, and walks that back.
pub(crate) fn through_lowering(
    node: &Node,
    dy: &[Option<Tensor>],
    need: &[bool],
    captured: &mut dyn FnMut(TensorId, Tensor) -> Result<()>,
) -> Result<Vec<Option<Tensor>>> {
    let inputs = (0..need.len()).map(|i| {
        let value = match node.kept_input(i)? {
            Some(value) => value,
            // What no derivative reads may have any value.
            None => {
                let input = &node.inputs()[i];
                Tensor::zeros(*input.shape(), input.dtype(), input.device())?
            }
        };
        Ok(if need[i] { value.tracked() } else { value })
    });
    let inputs = inputs.collect::<Result<Vec<Tensor>>>()?;
    let outputs = with_grad(|| node.op().lower(&inputs.iter().collect::<Vec<_>>(), false))?;
    let from: Vec<(&Tensor, Tensor)> = outputs.iter().zip(dy).filter_map(|(output, dy)| Some((output, dy.clone()?))).collect();
    through(&inputs, &from, captured)
}

/// Walks back from results of recorded ops to `inputs`; the gradients of other leaves are handed to `captured`.
pub(crate) fn through(
    inputs: &[Tensor],
    from: &[(&Tensor, Tensor)],
    captured: &mut dyn FnMut(TensorId, Tensor) -> Result<()>,
) -> Result<Vec<Option<Tensor>>> {
    let mut gradients = walk(from, &Wanted::Leaves)?;
    let own = inputs.iter().map(|input| gradients.remove(input)).collect();
    gradients.into_iter().try_for_each(|(id, gradient)| captured(id, gradient))?;
    Ok(own)
}
