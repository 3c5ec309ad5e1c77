//! A small generator of numbers that gives the same ones on every machine: PCG32 (O'Neill 2014), integers only.

/// PCG-XSH-RR with 64 bits of state.
#[derive(Debug, Clone)]
pub struct Rng {
    state: u64,
    stream: u64,
}

impl Rng {
    /// The generator of a seed and a stream; each stream is a sequence of its own.
    pub fn new(seed: u64, stream: u64) -> Self {
        let mut rng = Self { state: 0, stream: (mix(stream) << 1) | 1 };
        rng.next();
        rng.state = rng.state.wrapping_add(mix(seed));
        rng.next();
        rng
    }

    fn next(&mut self) -> u32 {
        let old = self.state;
        self.state = old.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(self.stream);
        let shifted = (((old >> 18) ^ old) >> 27) as u32;
        shifted.rotate_right((old >> 59) as u32)
    }

    /// A number from 0 to `n - 1`; `n` is at least 1. Biased by at most `n / 2^32`.
    pub fn below(&mut self, n: usize) -> usize {
        ((u64::from(self.next()) * n as u64) >> 32) as usize
    }

    /// True in `percent` of a hundred cases.
    pub fn chance(&mut self, percent: u32) -> bool {
        self.below(100) < percent as usize
    }

    /// One of the items; there is at least one.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }

    /// Puts the items in a random order.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i + 1));
        }
    }
}

/// SplitMix64's finalizer: neighboring seeds become unlike.
fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}
