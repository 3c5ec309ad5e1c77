//! Every op's contract, run against any device, beside an independent naive f64 reference.
//!
//! [`suite`] lists the claims, [`run`] tests them on a [`Device`]; a back end's own test is a few lines:
//!
//! ```no_run
//! # fn device() -> puna_tensor::Device { unimplemented!() }
//! puna_conformance::run(&device(), &puna_conformance::suite());
//! ```
//!
//! One file per op family holds its claims; [`reference`](mod@reference) what they are compared with; `check` the one function that tolerances come from.
#![forbid(unsafe_code)]

mod array;
mod bits;
mod blocks;
mod case;
mod check;
mod draw;
pub mod reference;

mod attention;
mod copy;
mod device;
mod elementwise;
mod errors;
mod index;
mod loss;
mod matmul;
mod mlp;
mod norm;
mod optimizer;
mod random;
mod record;
mod reduce;
mod rope;
mod sampling;
mod softmax;
mod tasks;

use puna_tensor::Device;

pub use array::{Array, floats, index_of, indices, integers};
pub use bits::equal_bits;
pub use case::{Case, run};

/// The claims of each family, by its name; those that concern all ops behind.
pub const FAMILIES: &[(&str, &[Case])] = &[
    ("elementwise", elementwise::CASES),
    ("reduce", reduce::CASES),
    ("copy", copy::CASES),
    ("index", index::CASES),
    ("matmul", matmul::CASES),
    ("norm", norm::CASES),
    ("rope", rope::CASES),
    ("attention", attention::CASES),
    ("mlp", mlp::CASES),
    ("softmax", softmax::CASES),
    ("loss", loss::CASES),
    ("optimizer", optimizer::CASES),
    ("sampling", sampling::CASES),
    ("random", random::CASES),
    ("tasks", tasks::CASES),
    ("device", device::CASES),
    ("record", record::CASES),
    ("errors", errors::CASES),
];

/// A test for each of [`FAMILIES`], called as it is, in which a function `fn(&str)` gets its name; and one that none is left out.
#[macro_export]
macro_rules! families {
    ($run:ident) => {
        $crate::families! {
            $run:
            elementwise reduce copy index matmul norm rope attention mlp softmax loss optimizer sampling random tasks device record
            errors
        }
    };
    ($run:ident: $($family:ident)*) => {
        $(#[test]
        fn $family() {
            $run(stringify!($family));
        })*

        #[test]
        fn every_family_is_run() {
            let run = [$(stringify!($family)),*];
            assert!($crate::FAMILIES.iter().map(|(name, _)| *name).eq(run));
        }
    };
}

/// Every claim.
pub fn suite() -> Vec<Case> {
    FAMILIES.iter().flat_map(|(_, cases)| cases.iter().copied()).collect()
}

/// Runs the claims of one family on a device.
///
/// # Panics
/// Where one does not hold, or there is no such family.
pub fn run_family(device: &Device, family: &str) {
    let (_, cases) = FAMILIES.iter().find(|(name, _)| *name == family).unwrap_or_else(|| panic!("no family is called {family}"));
    run(device, cases);
}

#[cfg(test)]
mod tests {
    use puna_tensor::Op;

    use super::*;

    #[test]
    fn every_op_has_a_case() {
        let cases = suite();
        for (op, _) in Op::ALL {
            assert!(cases.iter().any(|case| case.op == *op), "{op} has no case");
        }
        for case in &cases {
            let known = Op::ALL.iter().any(|(op, _)| *op == case.op) || case.op.starts_with('(');
            assert!(known, "{} is no op: {}", case.op, case.name);
        }
    }

    #[test]
    fn names_are_claims_that_stand_once() {
        let mut names: Vec<_> = suite().iter().map(|case| case.name).collect();
        names.sort_unstable();
        assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "a name stands twice: {names:?}");
    }
}
