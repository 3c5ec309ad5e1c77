//! Optimizer steps in one pass over a parameter.

use puna_tensor::op::{AdamW, Sgd};
use puna_tensor::{Execution, Result, Tensor};

use super::wide::{Source, Wide, in_wide, scratch};
use crate::backend::Cpu;
use crate::memory::{Write, read, write};
use crate::simd::vector::Real;
use crate::simd::{Isa, dispatch};

/// How many elements a task takes: each moves some 28 bytes, about 10 us.
const TASK: usize = 4 << 10;

fn scalar(tensor: &Tensor) -> f64 {
    f64::from(read(tensor).typed::<f32>()[tensor.layout().offset()])
}

/// A state or parameter as a run of bytes; strided ones are refused by [`in_order`].
fn bytes<'a>(memory: &'a mut Write<'_>, tensor: &Tensor) -> &'a mut [u8] {
    &mut memory.bytes()[tensor.byte_range()]
}

/// Whether all that is changed lies in row-major order; else the tensors' own ops take the step.
fn in_order(tensors: &[&Tensor]) -> bool {
    tensors.iter().all(|tensor| tensor.layout().is_contiguous())
}

pub(super) fn adamw(cpu: &Cpu, op: &AdamW, inputs: &[&Tensor]) -> Result<Execution> {
    if !in_order(inputs) {
        return Ok(Execution::Unsupported);
    }
    in_wide!(inputs[0].dtype(), adamw_wide(cpu, op, inputs))?;
    Ok(Execution::Done)
}

fn adamw_wide<W: Wide>(cpu: &Cpu, op: &AdamW, inputs: &[&Tensor]) -> Result<()> {
    let [weight, m, v, gradient, lr, step, scale, ..] = inputs else { unreachable!("inference has counted them") };
    let n = weight.elements();
    if n == 0 {
        return Ok(());
    }
    let (of, step) = (W::of, scalar(step));
    let factors = Factors {
        scale: of(scalar(scale)),
        lr: of(scalar(lr)),
        beta1: of(op.beta1),
        beta2: of(op.beta2),
        rest1: of(1.0 - op.beta1),
        rest2: of(1.0 - op.beta2),
        // 1 - beta^t: as a difference, 1 - 0.999 in f32 is off in the fifth digit, in f64 in the fourteenth.
        correction1: of(-(step * op.beta1.ln()).exp_m1()),
        correction2: of(-(step * op.beta2.ln()).exp_m1()),
        eps: of(op.eps),
        decay: of(op.decay),
    };
    let update = |w: &mut [W], m: &mut [W], v: &mut [W], g: &[W]| {
        let (isa, factors) = (Isa::detect(), &factors);
        dispatch!(isa, adamw_body::<W: Real>(w: &mut [W], m: &mut [W], v: &mut [W], g: &[W], factors: &Factors<W>));
    };
    let source = Source::new(gradient);
    let (dtype, start) = (weight.dtype(), gradient.layout().offset());
    let (mut weight_memory, mut m_memory, mut v_memory) = (write(weight)?, write(m)?, write(v)?);
    let w_bytes = bytes(&mut weight_memory, weight);
    let m = (bytemuck::cast_slice_mut(bytes(&mut m_memory, m)), TASK);
    let v = (bytemuck::cast_slice_mut(bytes(&mut v_memory, v)), TASK);
    match inputs.get(7) {
        Some(master) => {
            let mut master_memory = write(master)?;
            let master = (bytemuck::cast_slice_mut(bytes(&mut master_memory, master)), TASK);
            cpu.pool.chunks_mut_3(master, m, v, |i, w, m, v| {
                scratch(w.len(), |g: &mut [W]| update(w, m, v, source.row(start + i * TASK, g)));
            });
            let master: &[W] = bytemuck::cast_slice(bytes(&mut master_memory, inputs[7]));
            cpu.pool.chunks_mut(w_bytes, TASK * dtype.unit_bytes(), |i, w| {
                W::store(dtype, &master[i * TASK..][..w.len() / dtype.unit_bytes()], w);
            });
        }
        None => {
            let w = (w_bytes, TASK * dtype.unit_bytes());
            cpu.pool.chunks_mut_3(w, m, v, |i, w, m, v| {
                scratch(2 * m.len(), |both: &mut [W]| {
                    let (values, g) = both.split_at_mut(m.len());
                    let g = source.row(start + i * TASK, g);
                    if dtype == W::DTYPE {
                        return update(bytemuck::cast_slice_mut(w), m, v, g);
                    }
                    W::load(dtype, w, 0, 1, values);
                    update(values, m, v, g);
                    W::store(dtype, values, w);
                })
            });
        }
    }
    Ok(())
}

/// What one step of AdamW is the same for of all elements.
struct Factors<W> {
    scale: W,
    lr: W,
    beta1: W,
    beta2: W,
    rest1: W,
    rest2: W,
    correction1: W,
    correction2: W,
    eps: W,
    decay: W,
}

#[inline(always)]
fn adamw_body<W: Real>(w: &mut [W], m: &mut [W], v: &mut [W], g: &[W], f: &Factors<W>) {
    for (((w, m), v), g) in w.iter_mut().zip(m).zip(v).zip(g) {
        let g = *g * f.scale;
        *m = *m * f.beta1 + g * f.rest1;
        *v = *v * f.beta2 + g * g * f.rest2;
        let root = (*v / f.correction2).sqrt() + f.eps;
        *w = *w - *w * f.decay * f.lr - *m / f.correction1 / root * f.lr;
    }
}

pub(super) fn sgd(cpu: &Cpu, op: &Sgd, inputs: &[&Tensor]) -> Result<Execution> {
    if !in_order(inputs) {
        return Ok(Execution::Unsupported);
    }
    in_wide!(inputs[0].dtype(), sgd_wide(cpu, op, inputs))?;
    Ok(Execution::Done)
}

fn sgd_wide<W: Wide>(cpu: &Cpu, op: &Sgd, inputs: &[&Tensor]) -> Result<()> {
    let [weight, b, gradient, lr, scale] = inputs else { unreachable!("inference has counted them") };
    if weight.elements() == 0 {
        return Ok(());
    }
    let (lr, scale, momentum, decay) = (W::of(scalar(lr)), W::of(scalar(scale)), W::of(op.momentum), W::of(op.decay));
    let source = Source::new(gradient);
    let (dtype, start) = (weight.dtype(), gradient.layout().offset());
    let (mut weight_memory, mut b_memory) = (write(weight)?, write(b)?);
    let w = (bytes(&mut weight_memory, weight), TASK * dtype.unit_bytes());
    let b = (bytemuck::cast_slice_mut::<u8, W>(bytes(&mut b_memory, b)), TASK);
    cpu.pool.chunks_mut_2(w, b, |i, w, b| {
        scratch(2 * b.len(), |both: &mut [W]| {
            let (values, g) = both.split_at_mut(b.len());
            W::load(dtype, w, 0, 1, values);
            W::load(source.dtype(), source.memory(), start + i * TASK, 1, g);
            for ((w, b), g) in values.iter_mut().zip(b).zip(g) {
                *b = *b * momentum + (*g * scale + *w * decay);
                *w = *w - *b * lr;
            }
            W::store(dtype, values, w);
        });
    });
    Ok(())
}
