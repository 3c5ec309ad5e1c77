//! Drawing tokens.

use bytemuck::{Pod, Zeroable};
use puna_tensor::op::Sample;
use puna_tensor::{DType, Result};

use super::copy::contiguous;
use super::{NONE, type_name, unit};
use crate::backend::{Cuda, Scratch};
use crate::driver::Unit;
use crate::launch::{Grid, Pointer, arguments};
use crate::view::View;

/// The threads of a row's block.
const THREADS: u32 = 1024;

/// `Inputs` of `sampling.cu`.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Inputs {
    parameters: Pointer,
    history: Pointer,
    generated_from: Pointer,
    bias_ids: Pointer,
    bias: Pointer,
    seeds: Pointer,
    positions: Pointer,
    history_length: u32,
    bias_length: u32,
    vocab: u64,
}

pub(super) fn family(logits: DType) -> Unit {
    unit("sampling.cu", [("T", type_name(logits)), NONE, NONE, NONE, NONE])
}

pub(super) fn sample(cuda: &Cuda, op: &Sample, x: &[View], y: &[View]) -> Result<()> {
    let [logits, parameters, history, generated_from, bias_ids, bias, seeds, positions] =
        [0, 1, 2, 3, 4, 5, 6, 7].map(|i: usize| contiguous(cuda, &x[i]));
    let (logits, parameters, history, generated_from) = (logits?, parameters?, history?, generated_from?);
    let (bias_ids, bias, seeds, positions) = (bias_ids?, bias?, seeds?, positions?);
    let [rows, vocab] = [logits.shape()[0], logits.shape()[1]];
    let filtered: Scratch = if op.filtered { y[2].into() } else { cuda.scratch([rows, vocab], DType::F32)? };
    let inputs = Inputs {
        parameters: parameters.pointer(),
        history: history.pointer(),
        generated_from: generated_from.pointer(),
        bias_ids: bias_ids.pointer(),
        bias: bias.pointer(),
        seeds: seeds.pointer(),
        positions: positions.pointer(),
        history_length: history.shape()[1] as u32,
        bias_length: bias.shape()[1] as u32,
        vocab: vocab as u64,
    };
    let arguments = arguments![y[0].pointer(), y[1].pointer(), filtered.pointer(), logits.pointer(), inputs];
    cuda.launch(&family(logits.dtype), "sample", Grid::blocks(rows as u64).threads(THREADS), &arguments)
}
