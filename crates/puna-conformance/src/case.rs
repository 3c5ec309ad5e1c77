use std::panic::{AssertUnwindSafe, catch_unwind};

use puna_tensor::Device;

/// A claim about an op, and how it is tested.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    /// The op's name, one of [`puna_tensor::Op::ALL`]; or a subject that concerns many, in brackets.
    pub op: &'static str,
    /// The claim.
    pub name: &'static str,
    /// Tests it; panics with a message where it does not hold.
    pub run: fn(&Device),
}

/// The cases of a family: `"op" => claim, claim;`.
macro_rules! cases {
    ($($op:literal => $($name:ident),+;)*) => {
        &[$($(Case { op: $op, name: stringify!($name), run: $name }),+),*]
    };
}
pub(crate) use cases;

/// Runs cases on a device, all of them, and panics with the list of those that failed.
///
/// # Panics
/// Where a claim does not hold.
pub fn run(device: &Device, cases: &[Case]) {
    let mut failures = Vec::new();
    for case in cases {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| (case.run)(device))) {
            let message = panic.downcast_ref::<String>().cloned();
            let message = message.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
            failures.push(format!("{} {}: {}", case.op, case.name, message.unwrap_or_default()));
        }
    }
    assert!(
        failures.is_empty(),
        "{} of {} claims fail on {}:\n{}",
        failures.len(),
        cases.len(),
        device.name(),
        failures.join("\n\n")
    );
}
