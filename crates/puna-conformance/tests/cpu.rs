//! The contract of every op on the CPU.

use std::num::NonZeroUsize;

use puna_conformance::{Array, equal_bits, families, floats, reference, run_family};
use puna_cpu::Options;
use puna_tensor::op::{SampleInputs, SamplingParameters};
use puna_tensor::{DType, Device, Tensor};
use safetensors::SafeTensors;

fn cpu(threads: usize) -> Device {
    puna_cpu::device(Options { threads: NonZeroUsize::new(threads) }).expect("a CPU")
}

fn family(name: &str) {
    run_family(&cpu(2), name);
}
families!(family);

#[test]
fn the_number_of_threads_changes_no_bit() {
    equal_bits(&[1, 2, 3, 4].map(cpu), &DType::all().collect::<Vec<_>>());
}

/// The tables of `transformers`' logits processors, each alone and all in order.
#[test]
fn filtered_logits_have_the_probabilities_of_the_reference() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/goldens/models/sampling.safetensors");
    let bytes = std::fs::read(path).expect("a golden");
    let file = SafeTensors::deserialize(&bytes).expect("safetensors");
    let numbers = |name: &str| -> Vec<f32> {
        let data = file.tensor(name).expect("a table").data();
        data.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().expect("four bytes"))).collect()
    };
    let history = file.tensor("history").expect("a table").data();
    let history: Vec<u32> =
        history.chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().expect("eight bytes")) as u32).collect();
    let cpu = cpu(2);
    let plain = SamplingParameters::default();
    let all = SamplingParameters { repetition: 1.3, temperature: 0.7, top_k: 10, top_p: 0.8, min_p: 0.1, ..plain };
    for (name, parameters) in [
        ("repetition", SamplingParameters { repetition: 1.3, ..plain }),
        ("temperature", SamplingParameters { temperature: 0.7, ..plain }),
        ("top_k", SamplingParameters { top_k: 10, ..plain }),
        ("top_p", SamplingParameters { top_p: 0.8, ..plain }),
        ("min_p", SamplingParameters { min_p: 0.1, ..plain }),
        ("all", all),
    ] {
        let parameters: Vec<f32> = (0..4).flat_map(|_| parameters.row()).collect();
        let none = Tensor::zeros([4, 0], DType::U32, &cpu).expect("zeros");
        let logits = Tensor::from_slice(&numbers("logits"), [4, 64], &cpu).expect("logits");
        // The whole history is prompt: nothing is generated.
        let with = SampleInputs {
            parameters: &Tensor::from_slice(&parameters, [4, 7], &cpu).expect("parameters"),
            history: &Tensor::from_slice(&history, [4, 10], &cpu).expect("history"),
            generated_from: &Tensor::full(10.0, 4, DType::U32, &cpu).expect("full"),
            bias_ids: &none,
            bias: &Tensor::zeros([4, 0], DType::F32, &cpu).expect("zeros"),
            seeds: &Tensor::zeros([4, 2], DType::U32, &cpu).expect("zeros"),
            positions: &Tensor::zeros(4, DType::U32, &cpu).expect("zeros"),
        };
        let (ids, _, filtered) = logits.sample_filtered(with).expect("sample");
        let probabilities = reference::softmax(&floats(&filtered));
        let expected = Array::new(&[4, 64], numbers(name).into_iter().map(f64::from).collect());
        for (i, (p, e)) in probabilities.values.iter().zip(&expected.values).enumerate() {
            assert!((p - e).abs() < 2e-6, "{name}: row {}, token {}: {p}, expected {e}", i / 64, i % 64);
            assert_eq!(*p == 0.0, *e == 0.0, "{name}: row {}, token {} goes in one of them only", i / 64, i % 64);
        }
        for (row, id) in ids.to_vec::<u32>().expect("ids").into_iter().enumerate() {
            assert!(expected.values[row * 64 + id as usize] > 0.0, "{name}: a token that was filtered is drawn");
        }
    }
}
