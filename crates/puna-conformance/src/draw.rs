use proptest::collection::vec;
use proptest::prelude::{Strategy, any};
use proptest::sample::select;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use puna_tensor::{DType, Device, Tensor};

use crate::Array;
use crate::array::{float_bytes, integer_bytes};
use crate::reference::{round, wrap};

/// The lengths that axes are drawn from: nothing, one, odd ones around vector widths and tiles.
pub(crate) const LENGTHS: [usize; 9] = [0, 1, 2, 3, 5, 7, 17, 33, 67];

/// Runs a body on `cases` values of a strategy, the same ones each time; a failure is shrunk.
#[track_caller]
pub(crate) fn each<S: Strategy>(cases: u32, strategy: S, body: impl Fn(S::Value)) {
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 64, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let result = runner.run(&strategy, |value| {
        body(value);
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
}

/// Shapes of `least..=most` axes and at most `elements` elements.
pub(crate) fn shapes(least: usize, most: usize, elements: usize) -> impl Strategy<Value = Vec<usize>> {
    vec(select(&LENGTHS[..]), least..=most).prop_map(move |mut shape| {
        // Too many elements: the longest axes are shortened, which keeps the rank and the odd lengths of the others.
        // An empty axis does not count, since what surrounds a part cut out of a larger tensor is not empty.
        while shape.iter().map(|&length| length.max(1)).product::<usize>() > elements {
            let longest = (0..shape.len()).max_by_key(|&i| shape[i]).expect("a shape of many elements has axes");
            shape[longest] = LENGTHS[LENGTHS.iter().position(|&l| l == shape[longest]).expect("drawn from it") - 1];
        }
        shape
    })
}

/// A shape and a seed for the values.
pub(crate) fn shapes_and_seed(least: usize, most: usize, elements: usize) -> impl Strategy<Value = (Vec<usize>, u64)> {
    (shapes(least, most, elements), any::<u64>())
}

/// Where values come from: a generator (SplitMix64: Steele, Lea and Flood 2014) whose numbers depend on the seed alone.
pub(crate) struct Draw(u64);

impl Draw {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, n: usize) -> usize {
        (self.bits() % n.max(1) as u64) as usize
    }

    /// A float dtype of a device.
    pub(crate) fn float(&mut self, device: &Device) -> DType {
        let floats: Vec<_> = device.floats().collect();
        floats[self.below(floats.len())]
    }

    /// Uniform in `[0, 1)`.
    pub(crate) fn uniform(&mut self) -> f64 {
        (self.bits() >> 11) as f64 * 2f64.powi(-53)
    }

    /// About normal: the sum of four uniform numbers, scaled.
    pub(crate) fn normal(&mut self) -> f64 {
        ((0..4).map(|_| self.uniform()).sum::<f64>() - 2.0) * 3f64.sqrt()
    }

    /// About normal values that the dtype represents.
    pub(crate) fn floats(&mut self, shape: &[usize], dtype: DType) -> Array {
        Array::from_fn(shape, |_| round(dtype, self.normal()))
    }

    /// Values of which many are extreme: infinities, NaN, signed zeros, subnormal and huge numbers, and equal ones.
    pub(crate) fn extremes(&mut self, shape: &[usize], dtype: DType) -> Array {
        let (_, least, largest) = crate::reference::format(dtype);
        let smallest = crate::reference::smallest(dtype);
        let normal = 2f64.powi(least);
        let special = [
            f64::INFINITY,
            f64::NEG_INFINITY,
            f64::NAN,
            0.0,
            -0.0,
            smallest,
            -smallest,
            normal,
            -normal,
            largest,
            -largest,
            1.0,
            -1.0,
            0.5,
            2.0,
            -3.0,
        ];
        Array::from_fn(
            shape,
            |_| {
                if self.below(2) == 0 { special[self.below(special.len())] } else { round(dtype, self.normal()) }
            },
        )
    }

    /// Integers of which some are extreme.
    pub(crate) fn integers(&mut self, shape: &[usize], dtype: DType) -> Array<i128> {
        let special = [0, 1, -1, 2, i128::from(i64::MAX), i128::from(i64::MIN), i128::from(u32::MAX), 255, 1 << 31, 7];
        Array::from_fn(shape, |_| match self.below(3) {
            0 => wrap(dtype, special[self.below(special.len())]),
            1 => wrap(dtype, self.below(10) as i128 - 5),
            _ => wrap(dtype, i128::from(self.bits() as i64)),
        })
    }

    /// Indices below `n`, some of them out of range.
    pub(crate) fn indices(&mut self, shape: &[usize], n: usize) -> Array<u32> {
        let beyond = [n as u32, n as u32 + 5, u32::MAX, 1 << 31];
        Array::from_fn(shape, |_| if n == 0 || self.below(8) == 0 { beyond[self.below(4)] } else { self.below(n) as u32 })
    }

    /// An input of these axes, about normal, in any layout, broadcast ones too; and its values.
    pub(crate) fn input(&mut self, device: &Device, shape: &[usize], dtype: DType) -> (Array, Tensor) {
        if self.below(5) == 0 && !shape.contains(&0) && !shape.is_empty() {
            let axis = self.below(shape.len());
            let mut narrow = shape.to_vec();
            narrow[axis] = 1;
            // Leading axes of length 1 may be left out of what is broadcast.
            let skip = if axis == 0 { self.below(2) } else { 0 };
            let values = self.floats(&narrow[skip..], dtype);
            let tensor = self.place(device, &values, dtype).broadcast(shape_of(shape)).expect("a broadcast along one axis");
            return (values.broadcast(shape), tensor);
        }
        let values = self.floats(shape, dtype);
        let tensor = self.place(device, &values, dtype);
        (values, tensor)
    }

    /// A tensor of these values in any layout: contiguous, with its axes in another order, or cut out of a larger one full of NaN.
    pub(crate) fn place(&mut self, device: &Device, values: &Array, dtype: DType) -> Tensor {
        self.arrange(&values.shape, f64::NAN, &values.values, &|shape, v| make(&float_bytes(dtype, v), dtype, shape, device))
    }

    /// The same for integers.
    pub(crate) fn place_integers(&mut self, device: &Device, values: &Array<i128>, dtype: DType) -> Tensor {
        self.arrange(&values.shape, 77, &values.values, &|shape, v| make(&integer_bytes(dtype, v), dtype, shape, device))
    }

    /// The same for indices.
    pub(crate) fn place_indices(&mut self, device: &Device, values: &Array<u32>) -> Tensor {
        self.place_integers(device, &values.map(i128::from), DType::U32)
    }

    fn arrange<T: Copy>(&mut self, shape: &[usize], padding: T, values: &[T], make: &dyn Fn(&[usize], &[T]) -> Tensor) -> Tensor {
        let values = Array::new(shape, values.to_vec());
        match self.below(4) {
            0 => make(shape, &values.values),
            1 => {
                let order = self.order(shape.len());
                let stored = values.permute(&order);
                let mut back = vec![0; order.len()];
                order.iter().enumerate().for_each(|(to, &from)| back[from] = to);
                make(&stored.shape, &stored.values).permute(puna_tensor::Axes::new(&back).expect("a rank")).expect("an order")
            }
            _ => {
                let order = if self.below(2) == 0 { self.order(shape.len()) } else { (0..shape.len()).collect() };
                let stored = values.permute(&order);
                // Of many axes only some are padded: the larger tensor is no more than some times as large.
                let (mut room, mut margins) = (8, Vec::new());
                for &length in &stored.shape {
                    let (before, after) = if room > 1 { (self.below(3), self.below(3)) } else { (0, 0) };
                    room /= (length + before + after).div_ceil(length.max(1)).clamp(1, 8);
                    margins.push((before, after));
                }
                let (before, after): (Vec<usize>, Vec<usize>) = margins.into_iter().unzip();
                let larger: Vec<usize> = (0..shape.len()).map(|i| before[i] + stored.shape[i] + after[i]).collect();
                let padded = Array::from_fn(&larger, |index| {
                    let inside: Option<Vec<usize>> =
                        (0..index.len()).map(|i| index[i].checked_sub(before[i]).filter(|&at| at < stored.shape[i])).collect();
                    inside.map_or(padding, |inside| stored.at(&inside))
                });
                let mut tensor = make(&larger, &padded.values);
                for (axis, (&start, &length)) in before.iter().zip(&stored.shape).enumerate() {
                    tensor = tensor.slice(axis, start, length).expect("inside the larger tensor");
                }
                let mut back = vec![0; order.len()];
                order.iter().enumerate().for_each(|(to, &from)| back[from] = to);
                tensor.permute(puna_tensor::Axes::new(&back).expect("a rank")).expect("an order")
            }
        }
    }

    /// The numbers below `n` in any order.
    pub(crate) fn order(&mut self, n: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..n).collect();
        for i in (1..n).rev() {
            order.swap(i, self.below(i + 1));
        }
        order
    }
}

/// A contiguous tensor of float values that the dtype represents.
#[track_caller]
pub(crate) fn tensor(device: &Device, values: &Array, dtype: DType) -> Tensor {
    make(&float_bytes(dtype, &values.values), dtype, &values.shape, device)
}

/// A contiguous u32 tensor.
#[track_caller]
pub(crate) fn indices_tensor(device: &Device, values: &[u32], shape: &[usize]) -> Tensor {
    Tensor::from_slice(values, shape_of(shape), device).expect("a tensor of indices")
}

pub(crate) fn shape_of(shape: &[usize]) -> puna_tensor::Shape {
    puna_tensor::Shape::new(shape).expect("a rank that tensors have")
}

#[track_caller]
fn make(bytes: &[u8], dtype: DType, shape: &[usize], device: &Device) -> Tensor {
    Tensor::from_bytes(bytes, dtype, shape_of(shape), device).expect("a tensor from bytes")
}
