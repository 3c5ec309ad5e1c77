use puna_tensor::op::{AdamW, Sgd};

/// A parameter and its state.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamWState {
    /// The weight.
    pub w: f64,
    /// The mean of gradients.
    pub m: f64,
    /// The mean of squared gradients.
    pub v: f64,
}

/// One step of Adam with decoupled decay; `lr`, `step`, `scale` as the op's inputs.
pub fn adamw(op: &AdamW, decay: f64, state: AdamWState, gradient: f64, [lr, step, scale]: [f64; 3]) -> AdamWState {
    let AdamWState { w, m, v } = state;
    let g = scale * gradient;
    let m = op.beta1 * m + (1.0 - op.beta1) * g;
    let v = op.beta2 * v + (1.0 - op.beta2) * g * g;
    let w = w - lr * decay * w;
    // 1 - beta^t, without the loss of digits of that difference.
    let correction = |beta: f64| -(step * beta.ln()).exp_m1();
    let w = w - lr * (m / correction(op.beta1)) / ((v / correction(op.beta2)).sqrt() + op.eps);
    AdamWState { w, m, v }
}

/// One step of gradient descent: the weight and its buffer.
pub fn sgd(op: &Sgd, decay: f64, (w, b): (f64, f64), gradient: f64, [lr, scale]: [f64; 2]) -> (f64, f64) {
    let b = op.momentum * b + scale * gradient + decay * w;
    (w - lr * b, b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_step_is_the_sign_of_the_gradient() {
        let op = AdamW { beta1: 0.9, beta2: 0.999, eps: 0.0, parameters: Vec::new() };
        let next = adamw(&op, 0.5, AdamWState { w: 2.0, m: 0.0, v: 0.0 }, -3.0, [0.1, 1.0, 0.7]);
        assert!((next.w - (2.0 - 0.1 * 0.5 * 2.0 + 0.1)).abs() < 1e-12);
        let op = Sgd { momentum: 0.5, parameters: Vec::new() };
        assert_eq!(sgd(&op, 0.1, (1.0, 2.0), 3.0, [0.1, 1.0]), (1.0 - 0.1 * 4.1, 4.1));
    }
}
