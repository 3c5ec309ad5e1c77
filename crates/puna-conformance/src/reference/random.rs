/// Philox4x32-10, from the paper: ten rounds on a counter of four words, the key raised by Weyl constants between them.
/// Salmon, Moraes, Dror and Shaw 2011, "Parallel random numbers: as easy as 1, 2, 3".
pub fn philox(counter: [u32; 4], key: [u32; 2]) -> [u32; 4] {
    let [mut l0, mut r0, mut l1, mut r1] = counter;
    let [mut k0, mut k1] = key;
    for _ in 0..10 {
        let a = u64::from(l0) * 0xD251_1F53;
        let b = u64::from(l1) * 0xCD9E_8D57;
        (l0, r0, l1, r1) = ((b >> 32) as u32 ^ r0 ^ k0, b as u32, (a >> 32) as u32 ^ r1 ^ k1, a as u32);
        k0 = k0.wrapping_add(0x9E37_79B9);
        k1 = k1.wrapping_add(0xBB67_AE85);
    }
    [l0, r0, l1, r1]
}

/// Word `i` of a row's numbers.
pub fn word(seed: [u32; 2], position: u32, i: usize) -> u32 {
    philox([(i / 4) as u32, position, 0, 0], seed)[i % 4]
}

/// A word as a number in `(0, 1)`.
pub fn uniform(word: u32) -> f64 {
    (f64::from(word >> 9) + 0.5) / f64::from(1 << 23)
}

/// A word as Gumbel noise.
pub fn gumbel(word: u32) -> f64 {
    -(-uniform(word).ln()).ln()
}

/// Number `i` of a row of normal ones, by Box and Muller, from words `2 j` and `2 j + 1`.
pub fn normal(seed: [u32; 2], position: u32, i: usize) -> f64 {
    let first = i / 2 * 2;
    let [u0, u1] = [first, first + 1].map(|i| uniform(word(seed, position, i)));
    let (length, angle) = ((-2.0 * u0.ln()).sqrt(), 2.0 * std::f64::consts::PI * u1);
    length * if i % 2 == 0 { angle.cos() } else { angle.sin() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn philox_gives_its_known_answers() {
        // The known-answer vectors published with the paper's library, Random123.
        assert_eq!(philox([0; 4], [0; 2]), [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8]);
        assert_eq!(philox([u32::MAX; 4], [u32::MAX; 2]), [0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd]);
        let pi = [0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344];
        assert_eq!(philox(pi, [0xa4093822, 0x299f31d0]), [0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1]);
    }

    #[test]
    fn uniform_is_inside_the_open_interval() {
        assert!(uniform(0) > 0.0 && uniform(u32::MAX) < 1.0);
        assert!(gumbel(0).is_finite() && gumbel(u32::MAX).is_finite());
    }
}
