use puna_tensor::{DType, Op, Tensor, no_grad};

use crate::Array;
use crate::array::{floats, index_of, integers};
use crate::reference::{format, round, smallest, unit};

/// What an output must be, and how far from it rounding may lead.
#[derive(Debug, Clone)]
pub(crate) struct Expected {
    dtype: DType,
    value: Array,
    /// For each element the sum of the absolute values of what it is summed from: what rounding errors are relative to.
    magnitude: Array,
    /// The dtype that sums are formed in.
    accumulator: DType,
    /// How many terms a sum has.
    terms: usize,
    /// How many times values on the way are rounded to `dtype`.
    roundings: usize,
    /// Whether errors of a sum are all of one sign.
    one_sided: bool,
    /// What else an element may be off by, absolutely.
    slack: Option<Array>,
    integers: Option<Array<i128>>,
}

impl Expected {
    /// A float output: one rounding of this value, a few operations in the accumulating dtype before.
    pub(crate) fn new(dtype: DType, value: Array) -> Self {
        let magnitude = value.map(f64::abs);
        Self {
            dtype,
            value,
            magnitude,
            accumulator: dtype.accumulator(),
            terms: 1,
            roundings: 0,
            one_sided: false,
            slack: None,
            integers: None,
        }
    }

    /// An integer output, exact.
    pub(crate) fn exact(dtype: DType, values: Array<i128>) -> Self {
        let empty = Array::new(&[0], Vec::new());
        Self { integers: Some(values), ..Self::new(dtype, empty) }
    }

    /// An output of u32, exact.
    pub(crate) fn indices(values: Array<u32>) -> Self {
        Self::exact(DType::U32, values.map(i128::from))
    }

    /// Each element is a sum of `terms`, whose absolute values sum to `magnitude`.
    pub(crate) fn sum(mut self, magnitude: Array, terms: usize) -> Self {
        assert_eq!(magnitude.shape, self.value.shape, "a magnitude for each element");
        (self.magnitude, self.terms) = (magnitude, terms);
        self
    }

    /// Sums are formed in another dtype than the output's.
    pub(crate) fn accumulated_in(mut self, accumulator: DType) -> Self {
        self.accumulator = accumulator;
        self
    }

    /// All terms of a sum are equal, and so are their roundings: errors don't cancel.
    pub(crate) fn equal_terms(mut self) -> Self {
        self.one_sided = true;
        self
    }

    /// Values on the way are rounded to the output's dtype.
    pub(crate) fn roundings(mut self, roundings: usize) -> Self {
        self.roundings = roundings;
        self
    }

    /// Elements may be off by more, absolutely: where a decision on the way hangs on rounding.
    pub(crate) fn slack(mut self, slack: Array) -> Self {
        self.slack = Some(slack);
        self
    }

    /// Sums as the reference gives them.
    pub(crate) fn sums(dtype: DType, sums: &crate::reference::Sums, terms: usize) -> Self {
        Self::new(dtype, sums.value.clone()).sum(sums.magnitude.clone(), terms)
    }

    /// The output is what the reference gives in the output's dtype, to the last bit (but for the sign of zero and NaN's payload).
    pub(crate) fn rounded_once(mut self) -> Self {
        self.value = self.value.map(|v| round(self.dtype, v));
        self.terms = 0;
        self
    }

    /// How far an element may be from `value`. The one place where tolerances come from:
    /// half a unit in the last place for the one rounding of the result; a unit for each rounding on the way, which may fall
    /// to the other side; and for a sum of `n` terms the bound of a chain of rounded additions, `n` units of the accumulating
    /// dtype times the sum of absolute values (Higham 2002, section 3.1), with eight operations more for what is not a sum: the
    /// forming of terms, and elementary functions, good to a few units in the last place.
    fn tolerance(&self, value: f64, magnitude: f64) -> f64 {
        if self.terms == 0 {
            return 0.0;
        }
        let (out, accumulator) = (unit(self.dtype), unit(self.accumulator));
        let on_the_way = if self.roundings > 0 { 2.0 * out * self.roundings as f64 * magnitude } else { 0.0 };
        let rounding = out * value.abs() + on_the_way;
        // Subnormal numbers may be flushed to zero where sums are formed; below the result's own steps nothing is told apart.
        let (_, least, _) = format(self.accumulator);
        let floor = smallest(self.dtype) / 2.0 * (1 + 2 * self.roundings) as f64 + 2f64.powi(least) * 16.0;
        rounding * (1.0 + 1e-6) + accumulator * (self.terms + 8) as f64 * magnitude + floor
    }

    /// Errors of a sum are independent, so that as a norm over many elements they stay near the root of the terms' number.
    fn norm_tolerance(&self) -> f64 {
        let (out, accumulator) = (unit(self.dtype), unit(self.accumulator));
        let chain = if self.one_sided { (self.terms + 8) as f64 } else { 4.0 * ((self.terms as f64).sqrt() + 2.0) };
        out * (1 + 2 * self.roundings) as f64 + accumulator * chain
    }

    /// Compares an output with this.
    #[track_caller]
    pub(crate) fn compare(&self, what: &str, actual: &Tensor) {
        assert_eq!(actual.dtype(), self.dtype, "{what}: the dtype");
        if let Some(expected) = &self.integers {
            assert_eq!(actual.shape()[..], expected.shape[..], "{what}: the shape");
            let actual = integers(actual);
            let off = actual.values.iter().zip(&expected.values).position(|(a, e)| a != e);
            if let Some(i) = off {
                let count = actual.values.iter().zip(&expected.values).filter(|(a, e)| a != e).count();
                panic!(
                    "{what}: at {:?} of {:?} is {}, expected {}; {count} of {} are off",
                    index_of(i, &expected.shape),
                    expected.shape,
                    actual.values[i],
                    expected.values[i],
                    actual.values.len()
                );
            }
            return;
        }
        assert_eq!(actual.shape()[..], self.value.shape[..], "{what}: the shape");
        if let Err(message) = self.judge(&floats(actual)) {
            panic!("{what} {message}");
        }
    }

    /// Compares float values; what is off, in words.
    fn judge(&self, actual: &Array) -> Result<(), String> {
        let (mut worst, mut worst_at, mut off, mut count) = (0.0, None, 0.0, 0.0);
        let mut failures = 0;
        for (i, ((&a, &e), &m)) in actual.values.iter().zip(&self.value.values).zip(&self.magnitude.values).enumerate() {
            let share = self.share(a, e, m, self.slack.as_ref().map_or(0.0, |slack| slack.values[i]));
            failures += usize::from(share > 1.0);
            if share > worst {
                (worst, worst_at) = (share, Some(i));
            }
            if a.is_finite() && e.is_finite() && m.is_finite() {
                off += (a - e) * (a - e);
                count += m * m;
            }
        }
        let (norm, of) = (off.sqrt(), count.sqrt());
        let floor = self.tolerance(0.0, 0.0) * (actual.values.len() as f64).sqrt();
        let slack = self.slack.as_ref().map_or(0.0, |slack| slack.values.iter().map(|s| s * s).sum::<f64>().sqrt());
        let too_far = self.terms > 0 && norm.is_finite() && norm > self.norm_tolerance() * of + floor + slack;
        if worst > 1.0 || too_far {
            let i = worst_at.unwrap_or(0);
            return Err(format!(
                "{} {:?}: the worst element {:?} is {:e}, expected {:e} (magnitude {:e}, {} terms), {worst:.3} of what rounding explains; \
                 {failures} of {} elements are off; error norm {norm:.3e} of {of:.3e}, {:.3e} explained",
                self.dtype,
                self.value.shape,
                index_of(i, &self.value.shape),
                actual.values[i],
                self.value.values[i],
                self.magnitude.values[i],
                self.terms,
                actual.values.len(),
                self.norm_tolerance() * of
            ));
        }
        Ok(())
    }

    /// An element's error as a share of its tolerance.
    fn share(&self, actual: f64, expected: f64, magnitude: f64, slack: f64) -> f64 {
        let rounded = round(self.dtype, expected);
        if actual == rounded || (actual.is_nan() && expected.is_nan()) {
            return 0.0;
        }
        if expected.is_nan() || actual.is_nan() || expected.is_infinite() {
            return f64::INFINITY;
        }
        let tolerance = self.tolerance(expected, magnitude) + slack;
        let (_, _, largest) = format(self.dtype);
        if actual.is_infinite() {
            // Rounded up at the end of the range.
            let near = expected.abs() + tolerance >= largest && actual.signum() == expected.signum();
            return if near { 0.0 } else { f64::INFINITY };
        }
        let error = (actual - expected).abs();
        let share = if error == 0.0 { 0.0 } else { error / tolerance };
        if share.is_nan() { f64::INFINITY } else { share }
    }
}

/// Runs an op that changes nothing and compares its outputs; a fused one also as its lowering, and both also tracked, where that
/// saves something. `expected`: the results, and behind them what is saved.
#[track_caller]
pub(crate) fn check(what: &str, op: &Op, inputs: &[&Tensor], expected: &[Expected]) {
    let name = op.name();
    let fail = |how: &str, error: puna_tensor::Error| -> ! { panic!("{name} {what}, {how}: {error:?}") };
    let results = op.infer(inputs, false).unwrap_or_else(|error| fail("inference", error)).results;
    let all = op.infer(inputs, true).unwrap_or_else(|error| fail("inference, tracked", error)).outputs.len();
    assert_eq!(all, expected.len(), "{name} {what}: the number of results and saved outputs");
    let compare = |how: &str, outputs: &[Tensor], expected: &[Expected]| {
        assert_eq!(outputs.len(), expected.len(), "{name} {what}, {how}: the number of outputs");
        for (i, (output, expected)) in outputs.iter().zip(expected).enumerate() {
            expected.compare(&format!("{name} {what}, {how}, output {i}"), output);
        }
    };
    let kernel = op.clone().apply(inputs).unwrap_or_else(|error| fail("applied", error)).all();
    compare("applied", &kernel, &expected[..results]);
    if op.is_primitive() {
        return;
    }
    let lowered = no_grad(|| op.lower(inputs, false)).unwrap_or_else(|error| fail("lowered", error));
    compare("lowered", &lowered, &expected[..results]);
    if all == results {
        return;
    }
    let lowered = no_grad(|| op.lower(inputs, true)).unwrap_or_else(|error| fail("lowered, tracked", error));
    compare("lowered, tracked", &lowered, expected);
    let tracked: Vec<Tensor> = inputs.iter().map(|t| if t.dtype().is_float() { t.tracked() } else { (*t).clone() }).collect();
    let tracked: Vec<&Tensor> = tracked.iter().collect();
    let outputs = op.clone().apply(&tracked).unwrap_or_else(|error| fail("applied, tracked", error)).all();
    let (node, _) = outputs[0].source().unwrap_or_else(|| panic!("{name} {what}: a tracked result has a node"));
    let node = node.clone();
    let saved = (results..all).map(|i| node.output(i).unwrap_or_else(|error| fail("its saved outputs", error)));
    let outputs: Vec<Tensor> = outputs.iter().map(Tensor::detach).chain(saved).collect();
    compare("applied, tracked", &outputs, expected);
}

/// The bytes of both are equal.
#[track_caller]
pub(crate) fn same_bits(what: &str, a: &Tensor, b: &Tensor) {
    assert_eq!((a.shape(), a.dtype()), (b.shape(), b.dtype()), "{what}: shape and dtype");
    let (x, y) = (a.to_bytes().expect("readable"), b.to_bytes().expect("readable"));
    if x != y {
        let size = a.dtype().unit_bytes();
        let off: Vec<usize> = (0..x.len() / size).filter(|i| x[i * size..][..size] != y[i * size..][..size]).collect();
        panic!(
            "{what}: bits differ in {} of {} elements, first at {:?} of {}",
            off.len(),
            x.len() / size,
            index_of(off[0], a.shape()),
            a.shape()
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn array(values: &[f64]) -> Array {
        Array::new(&[values.len()], values.to_vec())
    }

    #[test]
    fn one_rounding_is_one_rounding() {
        for dtype in DType::FLOATS {
            let ulp = 2.0 * unit(dtype);
            let exact = Expected::new(dtype, array(&[1.0 + ulp])).rounded_once();
            assert!(exact.judge(&array(&[1.0 + ulp])).is_ok());
            assert!(exact.judge(&array(&[1.0])).is_err() && exact.judge(&array(&[1.0 + 2.0 * ulp])).is_err());
        }
    }

    #[test]
    fn a_wrong_element_among_many_is_found() {
        for dtype in DType::FLOATS {
            let values = vec![1.0; 10_000];
            let mut wrong = values.clone();
            wrong[7] = 1.0 + 24.0 * unit(dtype).max(unit(dtype.accumulator()) * 16.0);
            let expected = Expected::new(dtype, array(&values)).sum(array(&values), 4);
            assert!(expected.judge(&array(&values)).is_ok());
            assert!(expected.judge(&array(&wrong)).unwrap_err().contains("[7]"), "{dtype}");
        }
    }

    #[test]
    fn small_errors_all_to_one_side_are_found() {
        // Each within the bound of a sum of 10,000 terms, but such sums are off by their root.
        let values = vec![1.0; 1000];
        let off = values.iter().map(|v| v + 5_000.0 * unit(DType::F32)).collect::<Vec<_>>();
        let expected = Expected::new(DType::F32, array(&values)).sum(array(&values), 10_000);
        assert!(expected.judge(&array(&off)).unwrap_err().contains("error norm"));
    }

    #[test]
    fn nan_infinity_and_overflow_are_told_apart() {
        let judge = |dtype, expected: f64, actual: f64| Expected::new(dtype, array(&[expected])).judge(&array(&[actual])).is_ok();
        let (nan, inf) = (f64::NAN, f64::INFINITY);
        assert!(judge(DType::F32, nan, nan) && judge(DType::F32, inf, inf) && judge(DType::F16, 1e6, inf));
        assert!(!judge(DType::F32, nan, 0.0) && !judge(DType::F32, 0.0, nan) && !judge(DType::F32, inf, -inf));
        assert!(!judge(DType::F32, inf, f64::from(f32::MAX)) && !judge(DType::F16, 6e4, inf) && !judge(DType::F32, 1.0, inf));
        let unbounded = Expected::new(DType::F32, array(&[1.0])).sum(array(&[nan]), 1);
        assert!(unbounded.judge(&array(&[2.0])).is_err(), "a tolerance that is NaN allows nothing");
    }
}
