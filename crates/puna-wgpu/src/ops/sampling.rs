//! Drawing tokens.

use puna_tensor::op::Sample;
use puna_tensor::{DType, Execution, Result};

use super::copy::contiguous;
use super::parts::in_parts;
use super::unit_of;
use crate::backend::{Scratch, Wgpu};
use crate::launch::{Grid, parameters};
use crate::view::View;

/// The largest vocabulary whose masses are summed in words: see `sampling.wgsl`.
const MOST_VALUES: usize = 1 << 18;

pub(super) fn sample(wgpu: &Wgpu, op: &Sample, x: &[View], y: &[View]) -> Result<Execution> {
    let [logits, parameters, history, generated_from, bias_ids, bias, seeds, positions] =
        [0, 1, 2, 3, 4, 5, 6, 7].map(|i: usize| contiguous(wgpu, &x[i]));
    let (logits, parameters, history, generated_from) = (logits?, parameters?, history?, generated_from?);
    let (bias_ids, bias, seeds, positions) = (bias_ids?, bias?, seeds?, positions?);
    let [rows, vocab] = [logits.shape()[0], logits.shape()[1]];
    if vocab > MOST_VALUES {
        return Ok(Execution::Unsupported);
    }
    let filtered: Scratch = if op.filtered { y[2].clone().into() } else { wgpu.scratch([rows, vocab], DType::F32)? };
    let norms = wgpu.scratch([rows, 2], DType::F32)?;
    let unit = unit_of("sampling.wgsl", logits.dtype);
    let inputs = [&*logits, &parameters, &history, &generated_from, &bias_ids, &bias];
    in_parts(wgpu, 1, [&filtered, &norms], inputs, &|[filtered, norms], inputs| {
        let [logits, parameters, history, generated_from, bias_ids, bias] = inputs;
        let views = [filtered, norms, logits, parameters, history, generated_from, bias_ids, bias].map(Some);
        let rows = logits.shape()[0];
        let lengths = parameters![vocab, rows, history.shape()[1], bias.shape()[1]];
        wgpu.launch(&unit, "sample_prepare", Grid::groups(rows), &views, &lengths)
    })?;
    let inputs = [&*filtered, &norms, &logits, &parameters, &seeds, &positions];
    in_parts(wgpu, 1, [&y[0], &y[1]], inputs, &|[ids, log_probabilities], inputs| {
        let [filtered, norms, logits, parameters, seeds, positions] = inputs;
        let views = [ids, log_probabilities, filtered, norms, logits, parameters, seeds, positions].map(Some);
        let rows = logits.shape()[0];
        wgpu.launch(&unit, "sample_draw", Grid::groups(rows), &views, &parameters![vocab, rows])
    })?;
    Ok(Execution::Done)
}
