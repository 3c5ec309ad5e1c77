use puna_tensor::DType;

use super::{Layer, Sums, int8_blocks, linear, round, round_all, unit};
use crate::Array;

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// `silu(gate) up`.
pub fn swiglu(gate: &Array, up: &Array) -> Array {
    Array::new(&gate.shape, gate.values.iter().zip(&up.values).map(|(g, u)| g * sigmoid(*g) * u).collect())
}

/// `dgate = dy up s (1 + gate (1 - s))`, `dup = dy gate s`.
pub fn swiglu_backward(dy: &Array, gate: &Array, up: &Array) -> [Sums; 2] {
    let values = || dy.values.iter().zip(&gate.values).zip(&up.values);
    let mut dgate = values().map(|((dy, gate), up)| {
        let s = sigmoid(*gate);
        let value = dy * up * s * (1.0 + gate * (1.0 - s));
        (value, (dy * up * s).abs() * (1.0 + gate.abs() * (1.0 - s)))
    });
    let dgate = Sums::from_fn(&dy.shape, |_| dgate.next().expect("one an element"));
    let mut dup = values().map(|((dy, gate), _)| dy * gate * sigmoid(*gate));
    let dup = Sums::from_fn(&dy.shape, |_| super::add_up(dup.next()));
    [dgate, dup]
}

/// What [`gated_mlp`] gives.
#[derive(Debug, Clone)]
pub struct GatedMlpResult {
    /// The result.
    pub y: Sums,
    /// How far 8-bit activations on the way may move each element, where rounding leaves them near a half.
    pub slack: Array,
    /// `gate(x)`.
    pub gate: Sums,
    /// `up(x)`.
    pub up: Sums,
}

/// `down(silu(gate(x)) up(x))`, rounded to the dtype of `x` between the three. `int8`: beside which of the weights activations are read in
/// blocks of 8-bit integers.
pub fn gated_mlp(x: &Array, layers: &[Layer; 3], dtype: DType, int8: [bool; 3]) -> GatedMlpResult {
    let read = |x: &Array, int8: bool| if int8 { int8_blocks(x) } else { x.clone() };
    let gate = linear(x, &read(x, int8[0]), &layers[0]);
    let up = linear(x, &read(x, int8[1]), &layers[1]);
    let (g, u) = (round_all(dtype, &gate.value), round_all(dtype, &up.value));
    let hidden = swiglu(&g, &u).map(|v| round(dtype, v));
    let mut y = linear(&hidden, &read(&hidden, int8[2]), &layers[2]);
    // An inner value that rounds to the other side counts by its own magnitude, so that of each product is carried on. The slope
    // of silu is at most 1.1, silu(x) at most |x|.
    let size = |i: usize| 1.1 * gate.magnitude.values[i] * u.values[i].abs() + g.values[i].abs() * up.magnitude.values[i];
    let carried = Array::new(&hidden.shape, (0..hidden.values.len()).map(size).collect());
    let mut sizes = layers[2].clone();
    sizes.weight = sizes.weight.map(f64::abs);
    sizes.bias = sizes.bias.map(|b| b.map(f64::abs));
    sizes.factor = sizes.factor.map(|f| f.map(f64::abs));
    if let Some(adapter) = &mut sizes.adapter {
        (adapter.a, adapter.b, adapter.scale) = (adapter.a.map(f64::abs), adapter.b.map(f64::abs), adapter.scale.abs());
    }
    y.magnitude = linear(&carried, &carried, &sizes).value;
    let mut slack = carried.map(|_| 0.0);
    if int8[2] {
        let n = hidden.last();
        for (i, slack) in slack.values.iter_mut().enumerate() {
            let first = i / n * n + i % n / 32 * 32;
            let block = &hidden.values[first..(i / n * n + n).min(first + 32)];
            let d = block.iter().fold(0.0f64, |m, v| m.max(v.abs())) / 127.0;
            // What the value and its block's largest may be off by, and whether that reaches the next half.
            let off = (4.0 * unit(dtype) + 8.0 * (x.last() + 8) as f64 * unit(dtype.accumulator()))
                * carried.values[i].max(hidden.values[i].abs());
            let to_half = ((hidden.values[i] / d).fract().abs() - 0.5).abs() * d;
            *slack = if d > 0.0 && to_half <= 2.0 * off { d } else { 0.0 };
        }
    }
    let bare = Layer { weight: sizes.weight, bias: None, adapter: None, factor: sizes.factor };
    GatedMlpResult { slack: linear(&slack, &slack, &bare).value, y, gate, up }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_derivative_is_the_slope() {
        let one = |v: f64| Array::new(&[1], vec![v]);
        for gate in [-3.0, -0.2, 0.0, 1.7] {
            let [dgate, dup] = swiglu_backward(&one(0.8), &one(gate), &one(1.3));
            let y = |g: f64, u: f64| 0.8 * swiglu(&one(g), &one(u)).values[0];
            assert!((dgate.value.values[0] - (y(gate + 1e-6, 1.3) - y(gate - 1e-6, 1.3)) / 2e-6).abs() < 1e-8);
            assert!((dup.value.values[0] - (y(gate, 1.3 + 1e-6) - y(gate, 1.3 - 1e-6)) / 2e-6).abs() < 1e-8);
        }
    }
}
