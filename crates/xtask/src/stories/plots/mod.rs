//! Plots: each sets up a wish or a trouble and lets events settle it.

mod deeds;
mod hearts;
mod nature;
mod things;

use super::Story;
use super::rng::Rng;

/// A plot.
#[derive(Debug, Clone, Copy)]
pub struct Plot {
    /// Its name.
    pub name: &'static str,
    /// What happens.
    pub act: fn(&mut Story),
}

/// All of them, with how often each is told: those that combine more parts are told more often.
pub const PLOTS: &[(usize, Plot)] = &[
    (5, Plot { name: "lost", act: things::lost }),
    (5, Plot { name: "borrowed", act: things::borrowed }),
    (5, Plot { name: "broken", act: things::broken }),
    (5, Plot { name: "present", act: things::present }),
    (5, Plot { name: "trade", act: things::trade }),
    (5, Plot { name: "treasure", act: things::treasure }),
    (3, Plot { name: "vain", act: things::vain }),
    (5, Plot { name: "warmth", act: things::warmth }),
    (5, Plot { name: "repaid", act: things::repaid }),
    (5, Plot { name: "newcomer", act: hearts::newcomer }),
    (3, Plot { name: "quarrel", act: hearts::quarrel }),
    (2, Plot { name: "false_alarm", act: hearts::false_alarm }),
    (3, Plot { name: "blamed", act: hearts::blamed }),
    (3, Plot { name: "envy", act: hearts::envy }),
    (3, Plot { name: "boast", act: hearts::boast }),
    (5, Plot { name: "sick", act: hearts::sick }),
    (3, Plot { name: "grump", act: hearts::grump }),
    (3, Plot { name: "stage", act: hearts::stage }),
    (2, Plot { name: "sleepless", act: hearts::sleepless }),
    (3, Plot { name: "visits", act: hearts::visits }),
    (2, Plot { name: "goodbye", act: hearts::goodbye }),
    (3, Plot { name: "learn", act: deeds::learn }),
    (3, Plot { name: "race", act: deeds::race }),
    (5, Plot { name: "rescue", act: deeds::rescue }),
    (5, Plot { name: "strayed", act: deeds::strayed }),
    (5, Plot { name: "errand", act: deeds::errand }),
    (5, Plot { name: "bake", act: deeds::bake }),
    (2, Plot { name: "storm", act: deeds::storm }),
    (2, Plot { name: "noise", act: deeds::noise }),
    (2, Plot { name: "thief", act: deeds::thief }),
    (3, Plot { name: "warned", act: deeds::warned }),
    (2, Plot { name: "hidden", act: deeds::hidden }),
    (3, Plot { name: "market", act: deeds::market }),
    (2, Plot { name: "seed", act: nature::seed }),
    (2, Plot { name: "chick", act: nature::chick }),
    (2, Plot { name: "snow", act: nature::snow }),
    (2, Plot { name: "drought", act: nature::drought }),
    (2, Plot { name: "wish", act: nature::wish }),
    (3, Plot { name: "journey", act: nature::journey }),
    (2, Plot { name: "voiceless", act: nature::voiceless }),
    (3, Plot { name: "dark", act: nature::dark }),
    (3, Plot { name: "wool", act: nature::wool }),
    (2, Plot { name: "egg", act: nature::egg }),
];

/// A plot by its weight.
pub fn pick(rng: &mut Rng) -> Plot {
    let mut at = rng.below(PLOTS.iter().map(|(weight, _)| weight).sum());
    for (weight, plot) in PLOTS {
        if at < *weight {
            return *plot;
        }
        at -= weight;
    }
    unreachable!("below the sum of the weights")
}
