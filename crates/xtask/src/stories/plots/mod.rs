//! Plots: each sets up a wish or a trouble and lets events settle it.

mod deeds;
mod hearts;
mod nature;
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
    Plot { name: "borrowed", act: things::borrowed },
    Plot { name: "broken", act: things::broken },
    Plot { name: "present", act: things::present },
    Plot { name: "trade", act: things::trade },
    Plot { name: "treasure", act: things::treasure },
    Plot { name: "vain", act: things::vain },
    Plot { name: "warmth", act: things::warmth },
    Plot { name: "repaid", act: things::repaid },
    Plot { name: "newcomer", act: hearts::newcomer },
    Plot { name: "quarrel", act: hearts::quarrel },
    Plot { name: "false_alarm", act: hearts::false_alarm },
    Plot { name: "blamed", act: hearts::blamed },
    Plot { name: "envy", act: hearts::envy },
    Plot { name: "boast", act: hearts::boast },
    Plot { name: "sick", act: hearts::sick },
    Plot { name: "grump", act: hearts::grump },
    Plot { name: "stage", act: hearts::stage },
    Plot { name: "sleepless", act: hearts::sleepless },
    Plot { name: "visits", act: hearts::visits },
    Plot { name: "goodbye", act: hearts::goodbye },
    Plot { name: "learn", act: deeds::learn },
    Plot { name: "race", act: deeds::race },
    Plot { name: "rescue", act: deeds::rescue },
    Plot { name: "strayed", act: deeds::strayed },
    Plot { name: "errand", act: deeds::errand },
    Plot { name: "bake", act: deeds::bake },
    Plot { name: "storm", act: deeds::storm },
    Plot { name: "noise", act: deeds::noise },
    Plot { name: "thief", act: deeds::thief },
    Plot { name: "warned", act: deeds::warned },
    Plot { name: "hidden", act: deeds::hidden },
    Plot { name: "market", act: deeds::market },
    Plot { name: "seed", act: nature::seed },
    Plot { name: "chick", act: nature::chick },
    Plot { name: "snow", act: nature::snow },
    Plot { name: "drought", act: nature::drought },
    Plot { name: "wish", act: nature::wish },
    Plot { name: "journey", act: nature::journey },
    Plot { name: "voiceless", act: nature::voiceless },
    Plot { name: "dark", act: nature::dark },
    Plot { name: "wool", act: nature::wool },
    Plot { name: "egg", act: nature::egg },
];
