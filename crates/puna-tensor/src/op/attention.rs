use super::{Args, Inferred, Op, Spec};
use crate::{DType, Kind, Result, Tensor};

/// Which keys a query sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mask {
    /// All keys of its sequence.
    Full,
    /// Those up to its own position, where a sequence's last query stands at its last key: query `i` of `n` sees key `j` of `m`
    /// where `j - i <= m - n`.
    Causal,
}

/// Attention of packed sequences, each to its own keys alone (no padding, no mask tensor).
///
/// `y[i, h] = sum_j softmax_j(scale * q[i, h] . k[j, h / group]) * v[j, h / group]` over the keys `j` that query `i` sees,
/// `group = heads / kv_heads`. A query that sees no key gives zeros.
///
/// `q: [tokens, heads, head_dim]`, `k: [keys, kv_heads, head_dim]`, `v: [keys, kv_heads, v_dim]` of one float dtype; `q_starts`,
/// `k_starts: [sequences + 1]` u32, where each sequence's tokens and keys begin, ascending from 0, the last entry the end; tokens
/// beyond it see nothing. Result `[tokens, heads, v_dim]`. The scores are never materialised: keys are walked in tiles of a
/// fixed size with a running softmax (Dao and others 2022, arXiv 2205.14135), in f32 (f64 for f64).
/// Saves for the derivative: the log-sum-exp of each query's scores, `[tokens, heads]` f32 (f64 for f64), `-inf` where it sees no key.
///
/// Vaswani and others 2017, arXiv 1706.03762; grouped heads: Ainslie and others 2023, arXiv 2305.13245.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Attention {
    /// The factor on the scores: `1 / sqrt(head_dim)`, mostly.
    pub scale: f64,
    /// Which keys are seen.
    pub mask: Mask,
}

/// [`Attention`] over keys and values that lie in a cache's pages.
///
/// `q: [tokens, heads, head_dim]` float; `k_pages`, `v_pages: [pages, page_size, kv_heads, head_dim]` of any one float dtype;
/// `page_table: [sequences, n]` u32: key `j` of sequence `s` lies in page `page_table[s, j / page_size]` at place `j % page_size`
/// (a page out of range reads zeros); `q_starts: [sequences + 1]` u32 as [`Attention`]; `lengths: [sequences]` u32: how many keys
/// each sequence has, the tokens of this step included, at most `n * page_size`. Result `[tokens, heads, head_dim]` in the dtype of q.
/// Not differentiable: training has no cache.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PagedAttention {
    /// The factor on the scores.
    pub scale: f64,
    /// Which keys are seen.
    pub mask: Mask,
}

/// The derivative of [`Attention`] from its result and saved log-sum-exp; scores are formed again, tile by tile.
///
/// With `p = exp(scale * q.k - lse)`: `dv = p^T dy`, `ds = p * (dy.v - sum(dy * y))`, `dq = scale * ds k`, `dk = scale * ds^T q`.
/// Inputs `dy, q, k, v, y, lse, q_starts, k_starts`; results `dq, dk, dv` as q, k, v.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AttentionBackward {
    /// The factor on the scores.
    pub scale: f64,
    /// Which keys are seen.
    pub mask: Mask,
}

/// The group size, where `heads` is a multiple of `kv_heads`.
fn infer_heads(args: &Args, heads: usize, kv_heads: usize) -> Result<()> {
    if kv_heads == 0 || heads % kv_heads != 0 {
        return Err(args.shape_error(format!("{heads} heads do not divide into groups over {kv_heads} kv_heads")));
    }
    Ok(())
}

fn infer_starts(args: &Args, name: &str, starts: &Tensor) -> Result<usize> {
    args.dtype(name, starts, DType::U32)?;
    let [n] = args.axes(name, starts, "[sequences + 1]")?;
    n.checked_sub(1).ok_or_else(|| args.shape_error(format!("{name} is empty; it takes [sequences + 1]")))
}

/// Checks what attention and its derivative share; `v_dim`.
fn infer_qkv(args: &Args, q: &Tensor, k: &Tensor, v: &Tensor, q_starts: &Tensor, k_starts: &Tensor) -> Result<usize> {
    args.float("q", q)?;
    args.same_dtype(["q", "k"], q, k)?;
    args.same_dtype(["k", "v"], k, v)?;
    let [_, heads, dim] = args.axes("q", q, "[tokens, heads, head_dim]")?;
    let [keys, kv_heads, v_dim] = args.axes("v", v, "[keys, kv_heads, v_dim]")?;
    args.shape("k", k, [keys, kv_heads, dim], &format!("q {} and v {}", q.shape(), v.shape()))?;
    infer_heads(args, heads, kv_heads)?;
    let sequences = infer_starts(args, "q_starts", q_starts)?;
    args.dtype("k_starts", k_starts, DType::U32)?;
    args.shape("k_starts", k_starts, sequences + 1, &format!("q_starts {}", q_starts.shape()))?;
    Ok(v_dim)
}

impl Attention {
    pub(super) fn infer(&self, args: &Args, tracked: bool) -> Result<Inferred> {
        let [q, k, v, q_starts, k_starts] = args.named(["q", "k", "v", "q_starts", "k_starts"])?;
        let v_dim = infer_qkv(args, q, k, v, q_starts, k_starts)?;
        let result = Inferred::one([q.dim(0), q.dim(1), v_dim].into(), q.dtype());
        Ok(result.saving(tracked, [q.dim(0), q.dim(1)].into(), q.dtype().accumulator()))
    }

    pub(super) fn lower(&self, inputs: &[&Tensor], tracked: bool) -> Result<Vec<Tensor>> {
        let [q, k, v, q_starts, k_starts] = inputs else { unreachable!("inference has counted them") };
        let seen = seen(self.mask, q_starts, q.dim(0), k_starts, k.dim(0), None)?;
        let (y, lse) = lower_attention(q, k, v, &seen, self.scale)?;
        Ok(if tracked { vec![y, lse] } else { vec![y] })
    }
}

impl PagedAttention {
    pub(super) fn infer(&self, args: &Args) -> Result<Inferred> {
        let [q, k_pages, v_pages, page_table, q_starts, lengths] =
            args.named(["q", "k_pages", "v_pages", "page_table", "q_starts", "lengths"])?;
        args.float("q", q)?;
        args.float("k_pages", k_pages)?;
        args.same_dtype(["k_pages", "v_pages"], k_pages, v_pages)?;
        let [_, heads, dim] = args.axes("q", q, "[tokens, heads, head_dim]")?;
        let [pages, page_size, kv_heads, _] = args.axes("k_pages", k_pages, "[pages, page_size, kv_heads, head_dim]")?;
        let pages = [pages, page_size, kv_heads, dim];
        args.shape("k_pages", k_pages, pages, &format!("q {}", q.shape()))?;
        args.shape("v_pages", v_pages, pages, "k_pages")?;
        infer_heads(args, heads, kv_heads)?;
        let sequences = infer_starts(args, "q_starts", q_starts)?;
        args.dtype("page_table", page_table, DType::U32)?;
        let [_, columns] = args.axes("page_table", page_table, "[sequences, n]")?;
        args.shape("page_table", page_table, [sequences, columns], &format!("q_starts {}", q_starts.shape()))?;
        args.dtype("lengths", lengths, DType::U32)?;
        args.shape("lengths", lengths, sequences, &format!("q_starts {}", q_starts.shape()))?;
        if page_size == 0 {
            return Err(args.fail(Kind::Shape, format!("k_pages {} has pages of no tokens", k_pages.shape())));
        }
        Ok(Inferred::one(*q.shape(), q.dtype()))
    }

    pub(super) fn lower(&self, inputs: &[&Tensor]) -> Result<Vec<Tensor>> {
        let [q, k_pages, v_pages, page_table, q_starts, lengths] = inputs else { unreachable!("inference has counted them") };
        let (sequences, columns, page_size) = (page_table.dim(0), page_table.dim(1), k_pages.dim(1));
        let room = columns * page_size;
        // Every sequence's keys, padded to the room of its row of the table, one sequence behind the other.
        let collect = |pages: &Tensor| {
            let rows = pages.gather_rows(page_table)?;
            rows.reshape([sequences * room, pages.dim(2), pages.dim(3)])?.cast(q.dtype().accumulator())
        };
        let (k, v) = (collect(k_pages)?, collect(v_pages)?);
        let device = q.device();
        // Places beyond a sequence's length hold anything; as a factor of a probability of zero, NaN would stay.
        let held = Tensor::arange(room, device)?.unsqueeze(0)?.lt(&lengths.unsqueeze(1)?)?.reshape([sequences * room, 1, 1])?;
        let v = held.select(&v, &Tensor::zeros(1, v.dtype(), device)?)?;
        let k_starts = Tensor::arange(sequences + 1, device)?.mul(&Tensor::full(room as f64, 1, DType::U32, device)?)?;
        let seen = seen(self.mask, q_starts, q.dim(0), &k_starts, sequences * room, Some(lengths))?;
        let wide = q.cast(q.dtype().accumulator())?;
        let (y, _) = lower_attention(&wide, &k, &v, &seen, self.scale)?;
        Ok(vec![y.cast(q.dtype())?])
    }
}

/// Which key each token sees, u8 `[1, tokens, keys]`. `lengths`: how many of a sequence's keys there are, where not all up to the next start.
fn seen(
    mask: Mask,
    q_starts: &Tensor,
    tokens: usize,
    k_starts: &Tensor,
    keys: usize,
    lengths: Option<&Tensor>,
) -> Result<Tensor> {
    let sequences = q_starts.dim(0) - 1;
    let q = Span::of(q_starts, tokens, sequences)?;
    let k = Span::of(k_starts, keys, sequences)?;
    let column = |x: &Tensor| x.reshape([tokens, 1]);
    let row = |x: &Tensor| x.reshape([1, keys]);
    let mut seen = column(&q.sequence)?.eq(&row(&k.sequence)?)?;
    // Beyond the last start there is no sequence, and `sequence` is their number.
    let real = Tensor::full(sequences as f64, 1, DType::U32, q_starts.device())?;
    seen = seen.mul(&column(&q.sequence)?.lt(&real)?)?;
    let ends = match lengths {
        Some(lengths) => lengths.clone(),
        None => k_starts.slice(0, 1, sequences)?.sub(&k_starts.slice(0, 0, sequences)?)?,
    };
    let end = ends.gather_rows(&k.sequence)?;
    seen = seen.mul(&row(&k.place.lt(&end)?)?)?;
    if mask == Mask::Causal {
        // j - i <= m - n, without going below zero: j + n <= m + i.
        let counts = q_starts.slice(0, 1, sequences)?.sub(&q_starts.slice(0, 0, sequences)?)?;
        let left = row(&k.place)?.add(&column(&counts.gather_rows(&q.sequence)?)?)?;
        let right = column(&q.place.add(&ends.gather_rows(&q.sequence)?)?)?;
        seen = seen.mul(&left.le(&right)?)?;
    }
    seen.unsqueeze(0)
}

/// Of each entry of a packed axis: the number of its sequence, and its place in it.
struct Span {
    sequence: Tensor,
    place: Tensor,
}

impl Span {
    fn of(starts: &Tensor, length: usize, sequences: usize) -> Result<Self> {
        let at = Tensor::arange(length, starts.device())?;
        let ends = starts.slice(0, 1, sequences)?;
        let passed = at.reshape([length, 1])?.ge(&ends.reshape([1, sequences])?)?;
        let sequence = passed.sum(1)?;
        let place = at.sub(&starts.gather_rows(&sequence)?)?;
        Ok(Self { sequence, place })
    }
}

/// `[n, heads, d]` to `[heads, n, d]`, each kv head once for every head of its group, in the accumulating dtype.
fn heads_first(x: &Tensor, heads: usize) -> Result<Tensor> {
    let [n, own, dim] = [x.dim(0), x.dim(1), x.dim(2)];
    let x = x.cast(x.dtype().accumulator())?.permute([1, 0, 2])?.unsqueeze(1)?;
    x.broadcast([own, heads / own, n, dim])?.reshape([heads, n, dim])
}

/// The scores `[heads, tokens, keys]`, `-inf` where nothing is seen.
fn scores(q: &Tensor, k: &Tensor, seen: &Tensor, scale: f64) -> Result<Tensor> {
    let scores = q.matmul(&k.transpose(1, 2)?)?.affine(scale, 0.0)?;
    let nothing = Tensor::full(f64::NEG_INFINITY, 1, scores.dtype(), scores.device())?;
    seen.select(&scores, &nothing)
}

fn lower_attention(q: &Tensor, k: &Tensor, v: &Tensor, seen: &Tensor, scale: f64) -> Result<(Tensor, Tensor)> {
    let (heads, dtype) = (q.dim(1), q.dtype());
    let scores = scores(&heads_first(q, heads)?, &heads_first(k, heads)?, seen, scale)?;
    let y = scores.softmax()?.matmul(&heads_first(v, heads)?)?;
    let largest = scores.max_keep(2)?;
    // Of a row that sees nothing the largest is -inf, and -inf - -inf would be NaN.
    let none = largest.eq(&Tensor::full(f64::NEG_INFINITY, 1, largest.dtype(), largest.device())?)?;
    let shift = none.select(&largest.zeros_like()?, &largest)?;
    let lse = scores.sub(&shift)?.exp()?.sum_keep(2)?.log()?.add(&shift)?;
    let tokens = q.dim(0);
    Ok((y.permute([1, 0, 2])?.contiguous()?.cast(dtype)?, lse.reshape([heads, tokens])?.transpose(0, 1)?.contiguous()?))
}

impl AttentionBackward {
    pub(super) fn infer(&self, args: &Args) -> Result<Inferred> {
        let [dy, q, k, v, y, lse, q_starts, k_starts] = args.named(["dy", "q", "k", "v", "y", "lse", "q_starts", "k_starts"])?;
        let v_dim = infer_qkv(args, q, k, v, q_starts, k_starts)?;
        for (name, tensor) in [("dy", dy), ("y", y)] {
            args.same_dtype([name, "q"], tensor, q)?;
            args.shape(name, tensor, [q.dim(0), q.dim(1), v_dim], "q and v")?;
        }
        args.dtype("lse", lse, q.dtype().accumulator())?;
        args.shape("lse", lse, [q.dim(0), q.dim(1)], "q")?;
        Ok(Inferred::results([q, k, v].map(|x| Spec { shape: *x.shape(), dtype: x.dtype() })))
    }

    pub(super) fn lower(&self, inputs: &[&Tensor]) -> Result<Vec<Tensor>> {
        let [dy, q, k, v, y, lse, q_starts, k_starts] = inputs else { unreachable!("inference has counted them") };
        let [tokens, heads, dim] = [q.dim(0), q.dim(1), q.dim(2)];
        let [keys, kv_heads, v_dim] = [v.dim(0), v.dim(1), v.dim(2)];
        let seen = seen(self.mask, q_starts, tokens, k_starts, keys, None)?;
        let [qh, kh, vh] = [heads_first(q, heads)?, heads_first(k, heads)?, heads_first(v, heads)?];
        let [dyh, yh] = [heads_first(dy, heads)?, heads_first(y, heads)?];
        let lse = lse.transpose(0, 1)?.unsqueeze(2)?;
        let p = scores(&qh, &kh, &seen, self.scale)?.sub(&lse)?.exp()?;
        // A row that sees nothing has lse = -inf and would give NaN.
        let p = seen.select(&p, &Tensor::zeros(1, p.dtype(), p.device())?)?;
        let delta = dyh.mul(&yh)?.sum_keep(2)?;
        let ds = p.mul(&dyh.matmul(&vh.transpose(1, 2)?)?.sub(&delta)?)?.affine(self.scale, 0.0)?;
        let dq = ds.matmul(&kh)?.permute([1, 0, 2])?.cast(q.dtype())?.contiguous()?;
        let group = heads / kv_heads;
        let over_group = |d: Tensor, dim: usize| {
            d.reshape([kv_heads, group, keys, dim])?.sum(1)?.permute([1, 0, 2])?.cast(k.dtype())?.contiguous()
        };
        let dk = over_group(ds.transpose(1, 2)?.matmul(&qh)?, dim)?;
        let dv = over_group(p.transpose(1, 2)?.matmul(&dyh)?, v_dim)?;
        Ok(vec![dq, dk, dv])
    }
}

/// What [`PagedAttention`] takes beside q.
#[derive(Debug, Clone, Copy)]
pub struct PagedInputs<'a> {
    /// `[pages, page_size, kv_heads, head_dim]`.
    pub k_pages: &'a Tensor,
    /// As `k_pages`.
    pub v_pages: &'a Tensor,
    /// `[sequences, n]` u32.
    pub page_table: &'a Tensor,
    /// `[sequences + 1]` u32.
    pub q_starts: &'a Tensor,
    /// `[sequences]` u32.
    pub lengths: &'a Tensor,
}

/// # Attention
impl Tensor {
    /// Attention of packed sequences, this being q: see [`Attention`].
    pub fn attention(&self, k: &Tensor, v: &Tensor, q_starts: &Tensor, k_starts: &Tensor, op: Attention) -> Result<Tensor> {
        Op::Attention(op).apply(&[self, k, v, q_starts, k_starts])?.one()
    }

    /// Attention over a cache's pages, this being q: see [`PagedAttention`].
    pub fn paged_attention(&self, over: PagedInputs<'_>, op: PagedAttention) -> Result<Tensor> {
        let PagedInputs { k_pages, v_pages, page_table, q_starts, lengths } = over;
        Op::PagedAttention(op).apply(&[self, k_pages, v_pages, page_table, q_starts, lengths])?.one()
    }
}
