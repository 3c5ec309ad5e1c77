//! Optimizer steps in one pass over a parameter.

use puna_tensor::op::{AdamW, Sgd};
use puna_tensor::{Execution, Result, Tensor};

use super::matmul::wide::{Source, Wide, in_wide, scratch};
use crate::backend::Cpu;
use crate::memory::{Write, read, write};

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
    let (lr, step, scale) = (scalar(lr), scalar(step), scalar(scale));
    let of = W::of;
    let (beta1, beta2, eps, decay) = (of(op.beta1), of(op.beta2), of(op.eps), of(op.decay));
    let (rest1, rest2) = (of(1.0 - op.beta1), of(1.0 - op.beta2));
    // 1 - beta^t: as a difference, 1 - 0.999 in f32 is off in the fifth digit, in f64 in the fourteenth.
    let correction1 = of(-(step * op.beta1.ln()).exp_m1());
    let correction2 = of(-(step * op.beta2.ln()).exp_m1());
    let (lr, scale) = (of(lr), of(scale));
    let update = |w: &mut [W], m: &mut [W], v: &mut [W], g: &[W]| {
        for (((w, m), v), g) in w.iter_mut().zip(m).zip(v).zip(g) {
            let g = *g * scale;
            *m = *m * beta1 + g * rest1;
            *v = *v * beta2 + g * g * rest2;
            let root = (*v / correction2).sqrt() + eps;
            *w = *w - *w * decay * lr - *m / correction1 / root * lr;
        }
    };
    let source = Source::new(gradient);
    let (dtype, start) = (weight.dtype(), gradient.layout().offset());
    let (mut weight_memory, mut m_memory, mut v_memory) = (write(weight)?, write(m)?, write(v)?);
    let w_bytes = bytes(&mut weight_memory, weight);
    let m = (bytemuck::cast_slice_mut(bytes(&mut m_memory, m)), TASK);
    let v = (bytemuck::cast_slice_mut(bytes(&mut v_memory, v)), TASK);
    let load = |i: usize, g: &mut [W]| W::load(source.dtype(), source.memory(), start + i * TASK, 1, g);
    match inputs.get(7) {
        Some(master) => {
            let mut master_memory = write(master)?;
            let master = (bytemuck::cast_slice_mut(bytes(&mut master_memory, master)), TASK);
            cpu.pool.chunks_mut_3(master, m, v, |i, w, m, v| {
                scratch(w.len(), |g: &mut [W]| {
                    load(i, g);
                    update(w, m, v, g);
                })
            });
            let master: &[W] = master_values(&mut master_memory, inputs[7]);
            W::store(dtype, master, w_bytes);
        }
        None => {
            let w = (w_bytes, TASK * dtype.unit_bytes());
            cpu.pool.chunks_mut_3(w, m, v, |i, w, m, v| {
                scratch(2 * m.len(), |both: &mut [W]| {
                    let (values, g) = both.split_at_mut(m.len());
                    W::load(dtype, w, 0, 1, values);
                    load(i, g);
                    update(values, m, v, g);
                    W::store(dtype, values, w);
                })
            });
        }
    }
    Ok(())
}

fn master_values<'a, W: Wide>(memory: &'a mut Write<'_>, master: &Tensor) -> &'a [W] {
    bytemuck::cast_slice(bytes(memory, master))
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
