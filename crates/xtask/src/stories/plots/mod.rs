//! Plots: each sets up a wish or a trouble and lets events settle it.

mod things;

use super::Story;

/// A plot.
#[derive(Debug, Clone, Copy)]
pub struct Plot {
    /// Its name.
    pub name: &'static str,
    /// What happens.
    pub act: fn(&mut Story),
}

/// All of them, the frequent ones more than once.
pub const PLOTS: &[Plot] = &[
    Plot { name: "lost", act: things::lost },
];
