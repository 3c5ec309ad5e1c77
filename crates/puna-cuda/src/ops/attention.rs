//! Attention.

use bytemuck::{Pod, Zeroable};
use puna_tensor::op::{Attention, AttentionBackward, Mask, PagedAttention};
use puna_tensor::{DType, Result};

use super::copy::contiguous;
use super::{NONE, type_name, unit};
use crate::backend::{Cuda, Scratch};
use crate::driver::Unit;
use crate::launch::{Arguments, Grid, Pointer, arguments};
use crate::view::View;

/// The threads of a block, and the keys of a tile.
const TILE: usize = 128;

/// `Sequences` of `attention.cu`.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Sequences {
    q_starts: Pointer,
    k_starts: Pointer,
    lengths: Pointer,
    page_table: Pointer,
    sequences: u32,
    tokens: u32,
    keys: u32,
    causal: u32,
    columns: u32,
    page_size: u32,
    pages: u32,
    unused: u32,
}

impl Sequences {
    fn packed(q_starts: &Scratch, k_starts: &Scratch, tokens: usize, keys: usize, mask: Mask) -> Self {
        Self {
            q_starts: q_starts.pointer(),
            k_starts: k_starts.pointer(),
            lengths: Pointer::NONE,
            page_table: Pointer::NONE,
            sequences: (q_starts.elements() - 1) as u32,
            tokens: tokens as u32,
            keys: keys as u32,
            causal: u32::from(mask == Mask::Causal),
            columns: 0,
            page_size: 1,
            pages: 0,
            unused: 0,
        }
    }
}

pub(super) fn family(q: DType, k: DType) -> Unit {
    unit("attention.cu", [("T", type_name(q)), ("P", type_name(k)), NONE, NONE, NONE])
}

/// A block for each entry of the first two axes.
fn grid(axes: [usize; 2], numbers: usize, dtype: DType) -> Grid {
    Grid::of([axes[0], axes[1], 1]).threads(TILE as u32).shared(numbers * dtype.accumulator().unit_bytes())
}

fn forward(cuda: &Cuda, [q, k, v]: [&View; 3], s: Sequences, scale: f64, y: &View, lse: Option<&View>) -> Result<()> {
    let [tokens, heads, dim] = [q.shape()[0], q.shape()[1], q.shape()[2]];
    let (kv_heads, v_dim) = (k.shape()[k.shape().rank() - 2], v.shape().last());
    if fast(cuda, q, k, dim, v_dim) {
        return forward_sm80(cuda, [q, k, v], s, scale, y, lse);
    }
    let arguments = arguments![
        y.pointer(),
        View::pointer_of(lse),
        q.pointer(),
        k.pointer(),
        v.pointer(),
        s,
        heads as u32,
        kv_heads as u32,
        dim as u32,
        v_dim as u32,
        scale
    ];
    let grid = grid([tokens, heads], dim + v_dim + TILE + TILE / 32, q.dtype);
    cuda.launch(&family(q.dtype, k.dtype), "attention", grid, &arguments)
}

/// Whether the tensor cores of sm_80 take these.
fn fast(cuda: &Cuda, q: &View, k: &View, dim: usize, v_dim: usize) -> bool {
    let half = matches!(q.dtype, DType::F16 | DType::BF16);
    let shape = dim == v_dim && matches!(dim, 32 | 64 | 128);
    cuda.queue.card().capability >= 80 && half && q.dtype == k.dtype && shape
}

/// The keys of a split, as `attention_sm80.cu` has them.
const SPLIT: usize = 512;

/// `Outputs` of `attention_sm80.cu`.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Outputs {
    y: Pointer,
    lse: Pointer,
    partial: Pointer,
    softmax: Pointer,
    splits: u32,
    unused: u32,
}

fn dim_name(dim: usize) -> &'static str {
    match dim {
        32 => "32",
        64 => "64",
        _ => "128",
    }
}

pub(super) fn family_backward_sm80(q: DType, dim: usize, of: &'static str) -> Unit {
    unit("attention_backward_sm80.cu", [("T", type_name(q)), ("D", dim_name(dim)), ("OF", of), NONE, NONE])
}

pub(super) fn family_sm80(q: DType, dim: usize, partial: bool) -> Unit {
    let dim = dim_name(dim);
    let (warps, partial) = if partial { ("1", "1") } else { ("4", "0") };
    unit("attention_sm80.cu", [("T", type_name(q)), ("D", dim), ("WARPS", warps), ("PARTIAL", partial), NONE])
}

fn forward_sm80(cuda: &Cuda, [q, k, v]: [&View; 3], s: Sequences, scale: f64, y: &View, lse: Option<&View>) -> Result<()> {
    let [tokens, heads, dim] = [q.shape()[0], q.shape()[1], q.shape()[2]];
    let kv_heads = k.shape()[k.shape().rank() - 2];
    if tokens * heads == 0 {
        return Ok(());
    }
    let (sequences, group) = (s.sequences as usize, heads / kv_heads);
    // Few rows of each sequence: a block for each split of its past. The bits are those of one block for all of them.
    let partial = s.page_table != Pointer::NONE && tokens * group <= 16 * sequences;
    let splits = if partial { (s.columns as usize * s.page_size as usize).div_ceil(SPLIT).max(1) } else { 1 };
    let scratch = |numbers: usize| cuda.scratch(if partial { numbers } else { 0 }, DType::F32);
    let (parts, softmax) = (scratch(tokens * heads * splits * dim)?, scratch(tokens * heads * splits * 2)?);
    let out = Outputs {
        y: y.pointer(),
        lse: View::pointer_of(lse),
        partial: parts.pointer(),
        softmax: softmax.pointer(),
        splits: splits as u32,
        unused: 0,
    };
    let family = family_sm80(q.dtype, dim, partial);
    let warps = if partial { 1 } else { 4 };
    let rows = 16 * warps;
    // Each sequence's last tile, and that of tokens of none, may be begun only.
    let tiles = (tokens * group).div_ceil(rows) + sequences + 1;
    let shared = rows * dim * 2 + 2 * 64 * dim * 2 + rows * 64 * 4 + if partial { 0 } else { rows * dim * 4 };
    let arguments = arguments![out, q.pointer(), k.pointer(), v.pointer(), s, heads as u32, kv_heads as u32, scale as f32];
    let grid = Grid::of([tiles, kv_heads, splits]).threads(32 * warps as u32).shared(shared);
    cuda.launch(&family, "attention_sm80", grid, &arguments)?;
    if !partial {
        return Ok(());
    }
    let grid = Grid::of([tokens, heads, 1]).threads(dim as u32);
    cuda.launch(&family, "attention_combine", grid, &arguments![out, s, heads as u32])
}

pub(super) fn attention(cuda: &Cuda, op: &Attention, inputs: &[View], y: &[View]) -> Result<()> {
    let [q, k, v, q_starts, k_starts] = [0, 1, 2, 3, 4].map(|i: usize| contiguous(cuda, &inputs[i]));
    let (q, k, v, q_starts, k_starts) = (q?, k?, v?, q_starts?, k_starts?);
    let sequences = Sequences::packed(&q_starts, &k_starts, q.shape()[0], k.shape()[0], op.mask);
    forward(cuda, [&q, &k, &v], sequences, op.scale, &y[0], y.get(1))
}

pub(super) fn paged_attention(cuda: &Cuda, op: &PagedAttention, inputs: &[View], y: &View) -> Result<()> {
    let [q, k, v, table, q_starts, lengths] = [0, 1, 2, 3, 4, 5].map(|i: usize| contiguous(cuda, &inputs[i]));
    let (q, k, v, table, q_starts, lengths) = (q?, k?, v?, table?, q_starts?, lengths?);
    let packed = Sequences::packed(&q_starts, &lengths, q.shape()[0], 0, op.mask);
    let sequences = Sequences {
        k_starts: Pointer::NONE,
        lengths: lengths.pointer(),
        page_table: table.pointer(),
        columns: table.shape()[1] as u32,
        page_size: k.shape()[1] as u32,
        pages: k.shape()[0] as u32,
        ..packed
    };
    forward(cuda, [&q, &k, &v], sequences, op.scale, y, None)
}

pub(super) fn attention_backward(cuda: &Cuda, op: &AttentionBackward, inputs: &[View], results: &[View]) -> Result<()> {
    let [dy, q, k, v, y, lse, q_starts, k_starts] = [0, 1, 2, 3, 4, 5, 6, 7].map(|i: usize| contiguous(cuda, &inputs[i]));
    let (dy, q, k, v, y, lse, q_starts, k_starts) = (dy?, q?, k?, v?, y?, lse?, q_starts?, k_starts?);
    let [tokens, heads, dim] = [q.shape()[0], q.shape()[1], q.shape()[2]];
    let [keys, kv_heads, v_dim] = [v.shape()[0], v.shape()[1], v.shape()[2]];
    let family = family(q.dtype, k.dtype);
    let delta = cuda.scratch([tokens, heads], q.dtype.accumulator())?;
    let n = tokens * heads;
    let arguments = arguments![delta.pointer(), dy.pointer(), y.pointer(), v_dim as u32, n as u64];
    cuda.launch(&family, "attention_delta", Grid::of([n.div_ceil(TILE), 1, 1]).threads(TILE as u32), &arguments)?;
    let sequences = Sequences::packed(&q_starts, &k_starts, tokens, keys, op.mask);
    if fast(cuda, &q, &k, dim, v_dim) {
        let [dq, dk, dv] = [0, 1, 2].map(|i: usize| results[i].pointer());
        for (of, result, rows, heads_of) in [("DQ", dq, tokens, heads), ("DK", dk, keys, kv_heads), ("DV", dv, keys, kv_heads)] {
            let arguments = arguments![
                result,
                q.pointer(),
                k.pointer(),
                v.pointer(),
                dy.pointer(),
                lse.pointer(),
                delta.pointer(),
                sequences,
                heads as u32,
                kv_heads as u32,
                op.scale as f32
            ];
            // Each sequence's last tile, and that of rows of none, may be begun only.
            let tiles = if rows == 0 { 0 } else { rows.div_ceil(64) + sequences.sequences as usize + 1 };
            let grid = Grid::of([tiles, heads_of, 1]).threads(128).shared(4 * 64 * dim * 2);
            cuda.launch(&family_backward_sm80(q.dtype, dim, of), "attention_backward_sm80", grid, &arguments)?;
        }
        return Ok(());
    }
    let with = |mut arguments: Arguments| {
        arguments![
            + arguments,
            dy.pointer(),
            q.pointer(),
            k.pointer(),
            v.pointer(),
            lse.pointer(),
            delta.pointer(),
            sequences,
            heads as u32,
            kv_heads as u32,
            dim as u32,
            v_dim as u32,
            op.scale
        ];
        arguments
    };
    let arguments = with(arguments![results[0].pointer()]);
    cuda.launch(&family, "attention_dq", grid([tokens, heads], dim + TILE, q.dtype), &arguments)?;
    let arguments = with(arguments![results[1].pointer(), results[2].pointer()]);
    cuda.launch(&family, "attention_dkv", grid([keys, kv_heads], dim + v_dim + 2 * TILE, q.dtype), &arguments)
}
