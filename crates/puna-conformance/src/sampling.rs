//! Drawing the next token.

use puna_tensor::op::{Sample, SampleInputs, SamplingParameters};
use puna_tensor::{DType, Device, Op, Tensor, no_grad};

use crate::array::integers;
use crate::case::{Case, cases};
use crate::check::{Expected, same_bits};
use crate::draw::{Draw, indices_tensor, tensor};
use crate::reference::{self, SampleRow, Sampled};
use crate::{Array, floats};

pub(crate) const CASES: &[Case] = cases! {
    "sample" => sample_is_its_steps, greedy_takes_the_largest_and_the_lowest_of_equal, sample_of_ties_keeps_them, sample_of_settings_at_their_ends,
        sample_does_not_depend_on_neighbours, sample_draws_by_the_softmax, log_probabilities_are_before_any_step;
};

/// The op's inputs, from rows.
struct Inputs {
    logits: Tensor,
    parameters: Tensor,
    history: Tensor,
    generated_from: Tensor,
    bias_ids: Tensor,
    bias: Tensor,
    seeds: Tensor,
    positions: Tensor,
}

impl Inputs {
    fn new(device: &Device, rows: &[SampleRow], dtype: DType) -> Self {
        let n = rows.len();
        let vocab = rows.first().map_or(1, |row| row.logits.len());
        let histories = rows.iter().map(|row| row.history.len()).max().unwrap_or(0);
        let biases = rows.iter().map(|row| row.bias.len()).max().unwrap_or(0);
        // Rows of different lengths are padded.
        let padded = |values: Vec<u32>, to: usize| [values.clone(), vec![u32::MAX; to - values.len()]].concat();
        let history: Vec<u32> = rows.iter().flat_map(|row| padded(row.history.clone(), histories)).collect();
        let ids: Vec<u32> = rows.iter().flat_map(|row| padded(row.bias.iter().map(|b| b.0).collect(), biases)).collect();
        let bias: Vec<f64> =
            rows.iter().flat_map(|row| (0..biases).map(|i| row.bias.get(i).map_or(9.0, |b| f64::from(b.1)))).collect();
        let numbers = |values: Vec<u32>, shape: &[usize]| indices_tensor(device, &values, shape);
        let parameters: Vec<f64> = rows.iter().flat_map(|row| row.parameters.row().map(f64::from)).collect();
        let logits: Vec<f64> = rows.iter().flat_map(|row| row.logits.clone()).collect();
        Self {
            logits: tensor(device, &Array::new(&[n, vocab], logits), dtype),
            parameters: tensor(device, &Array::new(&[n, SamplingParameters::COLUMNS], parameters), DType::F32),
            history: numbers(history, &[n, histories]),
            generated_from: numbers(rows.iter().map(|row| row.generated_from).collect(), &[n]),
            bias_ids: numbers(ids, &[n, biases]),
            bias: tensor(device, &Array::new(&[n, biases], bias), DType::F32),
            seeds: numbers(rows.iter().flat_map(|row| row.seed).collect(), &[n, 2]),
            positions: numbers(rows.iter().map(|row| row.position).collect(), &[n]),
        }
    }

    fn inputs(&self) -> SampleInputs<'_> {
        let Self { parameters, history, generated_from, bias_ids, bias, seeds, positions, .. } = self;
        SampleInputs { parameters, history, generated_from, bias_ids, bias, seeds, positions }
    }

    fn all(&self) -> [&Tensor; 8] {
        let Self { logits, parameters, history, generated_from, bias_ids, bias, seeds, positions } = self;
        [logits, parameters, history, generated_from, bias_ids, bias, seeds, positions]
    }
}

/// Runs the kernel and the lowering, with and without the filtered logits, and compares.
fn compare(device: &Device, what: &str, rows: &[SampleRow], dtype: DType) {
    let inputs = Inputs::new(device, rows, dtype);
    let expected: Vec<Sampled> = rows.iter().map(reference::sample).collect();
    let op = Op::Sample(Sample { filtered: true });
    let kernel = inputs.logits.sample_filtered(inputs.inputs()).expect("sample");
    let lowered: [Tensor; 3] = no_grad(|| op.lower(&inputs.all(), false)).expect("lowered").try_into().expect("three results");
    let (ids, log_probabilities) = inputs.logits.sample(inputs.inputs()).expect("sample");
    same_bits(&format!("{what}: ids with and without the filtered logits"), &ids, &kernel.0);
    same_bits(&format!("{what}: probabilities with and without the filtered logits"), &log_probabilities, &kernel.1);
    for (how, [ids, log_probabilities, filtered]) in [("applied", kernel.into()), ("lowered", lowered)] {
        let what = format!("sample {what}, {how}");
        let vocab = inputs.logits.dim(1);
        let kept = Array::new(&[rows.len(), vocab], expected.iter().flat_map(|e| e.filtered.clone()).collect());
        let size = Array::new(
            &kept.shape,
            rows.iter()
                .zip(&expected)
                .flat_map(|(row, e)| {
                    let t = f64::from(if row.parameters.temperature == 0.0 { 1.0 } else { row.parameters.temperature });
                    e.filtered
                        .iter()
                        .zip(&row.logits)
                        .map(move |(f, l)| if f.is_finite() { f.abs() + (l.abs() * 4.0 + 8.0) / t } else { 0.0 })
                        .collect::<Vec<_>>()
                })
                .collect(),
        );
        Expected::new(DType::F32, kept).sum(size, 8).compare(&format!("{what}: filtered"), &filtered);
        let ids = integers(&ids).values;
        for (row, (&id, e)) in ids.iter().zip(&expected).enumerate() {
            // Two whose scores differ by rounding only are both right.
            let (score, best) = (e.scores[id as usize], e.scores[e.id as usize]);
            assert!(
                id == i128::from(e.id) || (best - score).abs() <= 1e-5 * (1.0 + best.abs()),
                "{what}: row {row} draws {id} ({score}), expected {} ({best})",
                e.id
            );
        }
        let chosen =
            Array::new(&[rows.len()], ids.iter().zip(&expected).map(|(&id, e)| e.log_probabilities[id as usize]).collect());
        let size = chosen.map(|v| v.abs() + 1.0);
        Expected::new(DType::F32, chosen).sum(size, vocab).compare(&format!("{what}: log probabilities"), &log_probabilities);
    }
}

fn row(draw: &mut Draw, vocab: usize, dtype: DType, parameters: SamplingParameters) -> SampleRow {
    let length = draw.below(20);
    SampleRow {
        logits: draw.floats(&[vocab], dtype).map(|v| reference::round(dtype, v * 3.0)).values,
        parameters,
        history: (0..length).map(|_| draw.below(vocab) as u32).collect(),
        generated_from: draw.below(length + 2) as u32,
        bias: (0..draw.below(4)).map(|_| (draw.below(vocab) as u32, draw.normal() as f32)).collect(),
        seed: [draw.bits() as u32, draw.bits() as u32],
        position: draw.bits() as u32,
    }
}

/// Settings alone and together.
fn settings() -> Vec<SamplingParameters> {
    let plain = SamplingParameters::default();
    vec![
        plain,
        SamplingParameters { temperature: 0.7, ..plain },
        SamplingParameters { temperature: 0.0, ..plain },
        SamplingParameters { top_k: 10, ..plain },
        SamplingParameters { top_p: 0.8, ..plain },
        SamplingParameters { min_p: 0.1, ..plain },
        SamplingParameters { repetition: 1.3, ..plain },
        SamplingParameters { frequency: 0.5, presence: 0.25, ..plain },
        SamplingParameters {
            temperature: 0.7,
            top_k: 10,
            top_p: 0.8,
            min_p: 0.1,
            repetition: 1.3,
            frequency: 0.2,
            presence: 0.1,
        },
        SamplingParameters {
            temperature: 0.0,
            top_k: 3,
            top_p: 0.5,
            min_p: 0.2,
            repetition: 1.1,
            frequency: -0.2,
            presence: -0.1,
        },
    ]
}

fn sample_is_its_steps(device: &Device) {
    for (dtype, vocab) in device.floats().flat_map(|d| [1, 3, 17, 64, 1031].map(|v| (d, v))) {
        for seed in 0..3 {
            let mut draw = Draw::new(190 + seed);
            let rows: Vec<SampleRow> = settings().into_iter().map(|p| row(&mut draw, vocab, dtype, p)).collect();
            compare(device, &format!("{dtype} of {vocab}"), &rows, dtype);
        }
    }
    compare(device, "of no rows", &[], DType::F32);
}

fn greedy_takes_the_largest_and_the_lowest_of_equal(device: &Device) {
    let greedy = SamplingParameters { temperature: 0.0, ..SamplingParameters::default() };
    for dtype in device.floats() {
        let mut one = row(&mut Draw::new(193), 9, dtype, greedy);
        (one.history, one.bias) = (vec![], vec![]);
        one.logits = vec![1.0, 4.0, -2.0, 4.0, 0.0, 3.0, 4.0, f64::NEG_INFINITY, 1.0];
        let inputs = Inputs::new(device, &[one], dtype);
        let (ids, _) = inputs.logits.sample(inputs.inputs()).expect("sample");
        assert_eq!(ids.to_vec::<u32>().expect("ids"), [1], "greedy {dtype}");
    }
}

fn sample_of_ties_keeps_them(device: &Device) {
    let mut one = row(&mut Draw::new(194), 8, DType::F32, SamplingParameters { top_k: 2, ..SamplingParameters::default() });
    (one.history, one.bias) = (vec![], vec![]);
    one.logits = vec![1.0, 3.0, 2.0, 2.0, 0.0, 2.0, -1.0, 1.0];
    compare(device, "ties at the k-th", &[one], DType::F32);
}

fn sample_of_settings_at_their_ends(device: &Device) {
    let plain = SamplingParameters::default();
    let ends = [
        SamplingParameters { top_k: 1, ..plain },
        SamplingParameters { top_k: 1_000_000, ..plain },
        SamplingParameters { top_k: u32::MAX, ..plain },
        SamplingParameters { top_p: 0.0, ..plain },
        SamplingParameters { top_p: 1e-9, ..plain },
        SamplingParameters { min_p: 1.0, ..plain },
        SamplingParameters { temperature: 1e-3, ..plain },
        SamplingParameters { temperature: 100.0, ..plain },
    ];
    let mut draw = Draw::new(195);
    let mut rows: Vec<SampleRow> = ends.into_iter().map(|p| row(&mut draw, 33, DType::F32, p)).collect();
    // Logits that a model has masked.
    rows.push(SampleRow {
        logits: (0..33).map(|i| if i % 2 == 0 { f64::NEG_INFINITY } else { i as f64 / 8.0 }).collect(),
        ..row(&mut draw, 33, DType::F32, plain)
    });
    // A history of ids out of range changes nothing.
    rows.push(SampleRow {
        history: vec![33, u32::MAX, 1 << 30],
        ..row(&mut draw, 33, DType::F32, SamplingParameters { repetition: 2.0, frequency: 1.0, ..plain })
    });
    compare(device, "at their ends", &rows, DType::F32);
}

fn sample_does_not_depend_on_neighbours(device: &Device) {
    let mut draw = Draw::new(196);
    let all = settings();
    let rows: Vec<SampleRow> = (0..44).map(|i| row(&mut draw, 131, DType::F32, all[i % all.len()])).collect();
    // Rows padded alike, so that only their neighbours differ.
    let padded = Inputs::new(device, &rows, DType::F32);
    let run = |start: usize, count: usize| {
        let [logits, parameters, history, generated_from, bias_ids, bias, seeds, positions] =
            padded.all().map(|t| t.slice(0, start, count).expect("slice"));
        let some = Inputs { logits, parameters, history, generated_from, bias_ids, bias, seeds, positions };
        some.logits.sample_filtered(some.inputs()).expect("sample")
    };
    let together = run(0, 44);
    for (start, count) in crate::matmul::NEIGHBOURS {
        let some: [Tensor; 3] = run(start, count).into();
        for (some, all) in some.iter().zip([&together.0, &together.1, &together.2]) {
            same_bits(&format!("sample: {count} rows of 44"), some, &all.slice(0, start, count).expect("slice"));
        }
    }
}

fn sample_draws_by_the_softmax(device: &Device) {
    let n = 4000;
    let mut one = row(&mut Draw::new(197), 5, DType::F32, SamplingParameters::default());
    (one.history, one.bias, one.logits) = (vec![], vec![], vec![0.0, 1.0, 2.0, -1.0, 0.5]);
    let rows: Vec<SampleRow> = (0..n).map(|position| SampleRow { position, ..one.clone() }).collect();
    let inputs = Inputs::new(device, &rows, DType::F32);
    let (ids, _) = inputs.logits.sample(inputs.inputs()).expect("sample");
    let p = reference::softmax(&Array::new(&[5], one.logits)).values;
    for (id, p) in p.iter().enumerate() {
        let share = ids.to_vec::<u32>().expect("ids").iter().filter(|i| **i as usize == id).count() as f64 / f64::from(n);
        // Five standard deviations.
        assert!(
            (share - p).abs() < 5.0 * (p * (1.0 - p) / f64::from(n)).sqrt(),
            "sample: {id} has a share of {share}, expected {p}"
        );
    }
}

fn log_probabilities_are_before_any_step(device: &Device) {
    let mut one = row(
        &mut Draw::new(198),
        4,
        DType::F32,
        SamplingParameters { temperature: 0.0, repetition: 100.0, ..SamplingParameters::default() },
    );
    (one.logits, one.history, one.generated_from, one.bias) = (vec![4.0, 3.0, 2.0, 1.0], vec![0], 9, vec![]);
    let inputs = Inputs::new(device, &[one], DType::F32);
    let (ids, log_probabilities) = inputs.logits.sample(inputs.inputs()).expect("sample");
    assert_eq!(ids.to_vec::<u32>().expect("ids"), [1], "the penalty decides");
    let expected = reference::log_softmax(&Array::new(&[4], vec![4.0, 3.0, 2.0, 1.0])).values[1];
    assert!((floats(&log_probabilities).values[0] - expected).abs() < 1e-5, "but the probability is the model's");
}
