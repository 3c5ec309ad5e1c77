//! Walking over a model's weights: saving, counting, freezing, adapting and optimising are visitors.

use puna_tensor::Tensor;

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

/// Names the fields of a struct that hold weights; each is a segment of their paths.
macro_rules! module {
    ($type:ident { $($field:ident),* }) => {
        impl Module for $type {
            fn visit(&self, path: &str, f: &mut dyn FnMut(&str, &Tensor)) {
                $($crate::module::visit_field(&self.$field, path, stringify!($field), f);)*
            }

            fn visit_mut(&mut self, path: &str, f: &mut dyn FnMut(&str, &mut Tensor)) {
                $($crate::module::visit_field_mut(&mut self.$field, path, stringify!($field), f);)*
            }
        }
    };
}
pub(crate) use module;
