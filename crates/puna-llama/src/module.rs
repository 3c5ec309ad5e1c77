//! Walking over a model's weights: saving, counting, freezing, adapting and optimising are visitors.

use puna_tensor::{Op, Tensor, no_grad};

use crate::error::{Error, Result};
use crate::model::Llama;

/// Something that holds weights under names.
pub trait Module {
    /// Calls `f` with the path and value of each weight, in a fixed order. Paths are a checkpoint's keys.
    fn visit(&self, path: &str, f: &mut dyn FnMut(&str, &Tensor));

    /// As [`visit`](Self::visit), to change them.
    fn visit_mut(&mut self, path: &str, f: &mut dyn FnMut(&str, &mut Tensor));

    /// How many weights' elements there are.
    fn parameters(&self) -> usize {
        let mut count = 0;
        self.visit("", &mut |_, tensor| count += tensor.elements());
        count
    }
}

/// A path one segment longer.
fn join(path: &str, segment: &dyn std::fmt::Display) -> String {
    if path.is_empty() { segment.to_string() } else { format!("{path}.{segment}") }
}

impl Module for Tensor {
    fn visit(&self, path: &str, f: &mut dyn FnMut(&str, &Tensor)) {
        f(path, self);
    }

    fn visit_mut(&mut self, path: &str, f: &mut dyn FnMut(&str, &mut Tensor)) {
        f(path, self);
    }
}

impl<M: Module> Module for Option<M> {
    fn visit(&self, path: &str, f: &mut dyn FnMut(&str, &Tensor)) {
        if let Some(module) = self {
            module.visit(path, f);
        }
    }

    fn visit_mut(&mut self, path: &str, f: &mut dyn FnMut(&str, &mut Tensor)) {
        if let Some(module) = self {
            module.visit_mut(path, f);
        }
    }
}

impl<M: Module> Module for Vec<M> {
    fn visit(&self, path: &str, f: &mut dyn FnMut(&str, &Tensor)) {
        self.iter().enumerate().for_each(|(i, module)| module.visit(&join(path, &i), f));
    }

    fn visit_mut(&mut self, path: &str, f: &mut dyn FnMut(&str, &mut Tensor)) {
        self.iter_mut().enumerate().for_each(|(i, module)| module.visit_mut(&join(path, &i), f));
    }
}

/// A field of a module, one segment further down.
pub(crate) fn visit_field(module: &dyn Module, path: &str, field: &str, f: &mut dyn FnMut(&str, &Tensor)) {
    module.visit(&join(path, &field), f);
}

/// As [`visit_field`], to change it.
pub(crate) fn visit_field_mut(module: &mut dyn Module, path: &str, field: &str, f: &mut dyn FnMut(&str, &mut Tensor)) {
    module.visit_mut(&join(path, &field), f);
}

/// Names the fields of a struct that hold weights; each is a segment of their paths, but for one behind `..`, whose weights stand among
/// the struct's own.
macro_rules! module {
    ($type:ident { $($field:ident),* $(, ..$beside:ident)? }) => {
        impl Module for $type {
            fn visit(&self, path: &str, f: &mut dyn FnMut(&str, &Tensor)) {
                $($crate::module::visit_field(&self.$field, path, stringify!($field), f);)*
                $(self.$beside.visit(path, f);)?
            }

            fn visit_mut(&mut self, path: &str, f: &mut dyn FnMut(&str, &mut Tensor)) {
                $($crate::module::visit_field_mut(&mut self.$field, path, stringify!($field), f);)*
                $(self.$beside.visit_mut(path, f);)?
            }
        }
    };
}
pub(crate) use module;

impl Llama {
    /// Makes parameters of the weights that `which` chooses, by path and value: from here on gradients are formed for them, and they lie
    /// in memory of their own, which an optimiser may change (what was loaded may be a mapped file). Gives each with its path. All
    /// other weights become constants.
    ///
    /// Errors: a weight that is packed or in blocks, by path; what the device says, with nothing changed.
    pub fn track(&mut self, which: impl Fn(&str, &Tensor) -> bool) -> Result<Vec<(String, Tensor)>> {
        let mut parameters = Vec::new();
        let mut failed = Ok(());
        self.visit("", &mut |path, tensor| {
            if failed.is_ok() && which(path, tensor) {
                match own(path, tensor) {
                    Ok(parameter) => parameters.push((path.to_owned(), parameter)),
                    Err(error) => failed = Err(error),
                }
            }
        });
        failed?;
        let mut next = parameters.iter().peekable();
        self.visit_mut("", &mut |path, tensor| {
            *tensor = match next.next_if(|(parameter, _)| parameter == path) {
                Some((_, parameter)) => parameter.clone(),
                None if tensor.is_tracked() => tensor.detach(),
                None => return,
            };
        });
        Ok(parameters)
    }
}

/// A copy that is tracked.
fn own(path: &str, tensor: &Tensor) -> Result<Tensor> {
    if tensor.is_packed() || !tensor.dtype().is_float() {
        let what = if tensor.is_packed() { "packed" } else { "no float" };
        let message = format!(
            "{path} {} {} is {what} and cannot be trained; a model loaded with a dtype and unpacked can",
            tensor.shape(),
            tensor.dtype()
        );
        return Err(Error::argument("track", message));
    }
    Ok(no_grad(|| Op::Contiguous.apply(&[tensor])?.one())?.tracked())
}
