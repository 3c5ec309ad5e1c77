//! Random numbers as a function of seed, position and column.

use puna_tensor::op::{Distribution, Random};
use puna_tensor::{DType, Device, Op};

use crate::case::{Case, cases};
use crate::check::{Expected, check, same_bits};
use crate::draw::{Draw, indices_tensor};
use crate::{Array, floats, reference};

pub(crate) const CASES: &[Case] = cases! {
    "random" => random_is_philox, random_words_are_the_published_ones, random_does_not_depend_on_neighbours, random_has_its_moments;
};

const DISTRIBUTIONS: [Distribution; 3] = [Distribution::Uniform, Distribution::Normal, Distribution::Gumbel];

fn random_is_philox(device: &Device) {
    for (distribution, columns) in DISTRIBUTIONS.into_iter().flat_map(|d| [0, 1, 3, 4, 7, 130].map(|c| (d, c))) {
        for rows in [0, 1, 5] {
            let mut draw = Draw::new(180);
            let seeds: Vec<u32> = (0..2 * rows).map(|_| draw.bits() as u32).collect();
            let positions: Vec<u32> = (0..rows).map(|i| if i == 0 { u32::MAX } else { draw.bits() as u32 }).collect();
            let value = |row: usize, i: usize| {
                let (seed, position) = ([seeds[2 * row], seeds[2 * row + 1]], positions[row]);
                let word = reference::word(seed, position, i);
                match distribution {
                    Distribution::Uniform => reference::uniform(word),
                    Distribution::Normal => reference::normal(seed, position, i),
                    Distribution::Gumbel => reference::gumbel(word),
                }
            };
            let expected = Array::from_fn(&[rows, columns], |i| value(i[0], i[1]));
            // Uniform numbers are exact. In the others a logarithm near zero, a cosine near zero has an error relative to one.
            let size = expected.map(|v| v.abs() + 4.0);
            let expected = Expected::new(DType::F32, expected);
            let expected = if distribution == Distribution::Uniform { expected.rounded_once() } else { expected.sum(size, 8) };
            let inputs = [
                draw.place_indices(device, &Array::new(&[rows, 2], seeds.clone())),
                draw.place_indices(device, &Array::new(&[rows], positions.clone())),
            ];
            let op = Op::Random(Random { distribution, columns });
            check(&format!("{distribution:?} [{rows}, {columns}]"), &op, &[&inputs[0], &inputs[1]], &[expected]);
        }
    }
}

fn random_words_are_the_published_ones(device: &Device) {
    // The known answer for a counter and key of zeros, whose upper 23 bits a uniform number shows.
    let [seeds, positions] = [indices_tensor(device, &[0, 0], &[1, 2]), indices_tensor(device, &[0], &[1])];
    let u = Random { distribution: Distribution::Uniform, columns: 4 }.draw(&seeds, &positions).expect("random");
    let words: Vec<u32> = floats(&u).values.iter().map(|u| (u * 8_388_608.0 - 0.5).round() as u32).collect();
    assert_eq!(words, [0x6627e8d5u32, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8].map(|w| w >> 9), "philox4x32-10 of zeros");
}

fn random_does_not_depend_on_neighbours(device: &Device) {
    let mut draw = Draw::new(181);
    let seeds = indices_tensor(device, &(0..88).map(|_| draw.bits() as u32).collect::<Vec<_>>(), &[44, 2]);
    let positions = indices_tensor(device, &(0..44).map(|_| draw.bits() as u32).collect::<Vec<_>>(), &[44]);
    for distribution in DISTRIBUTIONS {
        let all = Random { distribution, columns: 67 }.draw(&seeds, &positions).expect("random");
        for (start, rows) in crate::matmul::NEIGHBOURS {
            let [s, p] = [&seeds, &positions].map(|t| t.slice(0, start, rows).expect("slice"));
            let some = Random { distribution, columns: 67 }.draw(&s, &p).expect("random");
            same_bits(&format!("random {distribution:?}: {rows} rows of 44"), &some, &all.slice(0, start, rows).expect("slice"));
        }
    }
}

fn random_has_its_moments(device: &Device) {
    let n = 40_000;
    let [seeds, positions] = [indices_tensor(device, &[7, 9], &[1, 2]), indices_tensor(device, &[3], &[1])];
    for (distribution, mean, variance) in [
        (Distribution::Uniform, 0.5, 1.0 / 12.0),
        (Distribution::Normal, 0.0, 1.0),
        (Distribution::Gumbel, 0.577_215_664_9, std::f64::consts::PI.powi(2) / 6.0),
    ] {
        let x = floats(&Random { distribution, columns: n }.draw(&seeds, &positions).expect("random")).values;
        let m = x.iter().sum::<f64>() / n as f64;
        let v = x.iter().map(|x| (x - m) * (x - m)).sum::<f64>() / n as f64;
        // Five standard deviations of the mean; the variance's own is at most twice that of a Gumbel's fourth moment.
        assert!((m - mean).abs() < 5.0 * (variance / n as f64).sqrt(), "random {distribution:?}: mean {m}, expected {mean}");
        assert!(
            (v - variance).abs() < 5.0 * variance * (4.4 / n as f64).sqrt(),
            "random {distribution:?}: variance {v}, expected {variance}"
        );
    }
}
