/// How the learning rate changes: the factor on it, by step.
///
/// All begin with a linear rise over `warmup` steps: step `s`, counted from 0, has `(s + 1) / warmup`. What follows reaches its end
/// at step `steps` and stays there.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Schedule {
    /// 1 after the rise.
    Constant {
        /// The steps of the rise.
        warmup: u64,
    },
    /// `floor + (1 - floor) * (1 + cos(pi p)) / 2`, `p` the share of the steps after the rise. Loshchilov and Hutter 2016, arXiv 1608.03983.
    Cosine {
        /// The steps of the rise.
        warmup: u64,
        /// All steps.
        steps: u64,
        /// Where it ends.
        floor: f64,
    },
    /// `1 - (1 - floor) p`.
    Linear {
        /// The steps of the rise.
        warmup: u64,
        /// All steps.
        steps: u64,
        /// Where it ends.
        floor: f64,
    },
    /// 1, until the last `decay` steps, over which it falls in a straight line to `floor`: a run that can be prolonged. Hu and others
    /// 2024, arXiv 2404.06395.
    WarmupStableDecay {
        /// The steps of the rise.
        warmup: u64,
        /// All steps.
        steps: u64,
        /// The steps of the fall.
        decay: u64,
        /// Where it ends.
        floor: f64,
    },
}

impl Schedule {
    /// The factor at a step, counted from 0.
    pub fn factor(&self, step: u64) -> f64 {
        let warmup = match *self {
            Self::Constant { warmup }
            | Self::Cosine { warmup, .. }
            | Self::Linear { warmup, .. }
            | Self::WarmupStableDecay { warmup, .. } => warmup,
        };
        if step < warmup {
            return (step + 1) as f64 / warmup as f64;
        }
        // How much of the way from `first` to `last` lies behind this step.
        let share = |first: u64, last: u64| {
            let (passed, all) = (step.saturating_sub(first) as f64, last.saturating_sub(first) as f64);
            if step >= last { 1.0 } else { passed / all }
        };
        match *self {
            Self::Constant { .. } => 1.0,
            Self::Cosine { steps, floor, .. } => {
                floor + (1.0 - floor) * (1.0 + (std::f64::consts::PI * share(warmup, steps)).cos()) / 2.0
            }
            Self::Linear { steps, floor, .. } => 1.0 - (1.0 - floor) * share(warmup, steps),
            Self::WarmupStableDecay { steps, decay, floor, .. } => {
                1.0 - (1.0 - floor) * share(steps.saturating_sub(decay).max(warmup), steps)
            }
        }
    }
}
