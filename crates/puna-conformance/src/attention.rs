//! Attention over packed sequences and over a cache's pages: its formula, and that chunks, neighbours and pages change no bit.

use puna_tensor::op::{Attention, AttentionBackward, Mask, PagedAttention, PagedInputs};
use puna_tensor::{DType, Device, Op, Tensor};

use crate::case::{Case, cases};
use crate::check::{Expected, check, same_bits};
use crate::draw::{Draw, each, indices_tensor, tensor};
use crate::reference::{self, AttentionBackwardInputs, Pages, round_all};
use crate::{Array, floats};

pub(crate) const CASES: &[Case] = cases! {
    "attention" => attention_is_its_formula, attention_of_any_packing, attention_of_long_sequences, attention_of_scores_that_rise_and_fall, attention_reads_any_strides, a_query_without_keys_gives_zeros,
        attention_of_large_scores, nan_reaches_who_sees_it_and_no_one_else, attention_does_not_depend_on_neighbours;
    "paged_attention" => paged_attention_is_its_formula, paged_attention_of_pages_in_any_dtype, pages_out_of_range_read_zeros, what_lies_beyond_the_length_is_not_read,
        paged_attention_does_not_depend_on_chunks, paged_attention_does_not_depend_on_neighbours, paged_attention_does_not_depend_on_where_pages_lie,
        paged_attention_agrees_with_attention, paged_attention_reads_pages_of_any_strides;
    "attention_backward" => attention_backward_is_its_formula, attention_backward_of_long_sequences, attention_of_llamas_heads;
};

const MASKS: [Mask; 2] = [Mask::Full, Mask::Causal];

/// Packed sequences: where queries and keys begin.
struct Packed {
    q_starts: Vec<u32>,
    k_starts: Vec<u32>,
    /// Entries beyond the last sequence.
    beyond: usize,
}

impl Packed {
    /// From the numbers of queries and keys of each sequence.
    fn new(lengths: &[(u32, u32)], beyond: usize) -> Self {
        let starts = |of: fn(&(u32, u32)) -> u32| {
            std::iter::once(0)
                .chain(lengths.iter().scan(0, move |at, l| {
                    *at += of(l);
                    Some(*at)
                }))
                .collect::<Vec<_>>()
        };
        Self { q_starts: starts(|l| l.0), k_starts: starts(|l| l.1), beyond }
    }

    fn tokens(&self) -> usize {
        self.q_starts[self.q_starts.len() - 1] as usize + self.beyond
    }

    fn keys(&self) -> usize {
        self.k_starts[self.k_starts.len() - 1] as usize + self.beyond
    }

    fn tensors(&self, device: &Device) -> [Tensor; 2] {
        [&self.q_starts, &self.k_starts].map(|s| indices_tensor(device, s, &[s.len()]))
    }

    /// The most keys that a query sees.
    fn terms(&self) -> usize {
        self.k_starts.windows(2).map(|w| (w[1] - w[0]) as usize).max().unwrap_or(0)
    }
}

fn packings() -> Vec<Packed> {
    vec![
        Packed::new(&[(5, 5)], 0),
        Packed::new(&[(1, 7), (3, 3), (0, 4), (2, 9)], 0),
        Packed::new(&[(4, 2), (1, 0), (3, 33)], 2),
        Packed::new(&[(17, 17), (1, 67)], 0),
        Packed::new(&[], 3),
        Packed::new(&[(0, 0)], 0),
    ]
}

/// `(heads, kv_heads, head_dim, v_dim)`.
const HEADS: [[usize; 4]; 5] = [[1, 1, 1, 1], [4, 2, 16, 16], [6, 2, 10, 7], [3, 1, 64, 64], [2, 2, 33, 5]];

fn expected((y, lse): &(reference::Sums, reference::Sums), dtype: DType, terms: usize) -> [Expected; 2] {
    [Expected::sums(dtype, y, terms), Expected::sums(dtype.accumulator(), lse, terms)]
}

fn attention_is_its_formula(device: &Device) {
    for (packed, [heads, kv_heads, dim, v_dim]) in packings().iter().flat_map(|p| HEADS.map(|h| (p, h))) {
        for (dtype, mask) in device.floats().flat_map(|d| MASKS.map(|m| (d, m))) {
            let mut draw = Draw::new(130);
            let (q, tq) = draw.input(device, &[packed.tokens(), heads, dim], dtype);
            let (k, tk) = draw.input(device, &[packed.keys(), kv_heads, dim], dtype);
            let (v, tv) = draw.input(device, &[packed.keys(), kv_heads, v_dim], dtype);
            let [qs, ks] = packed.tensors(device);
            let scale = 1.0 / (dim as f64).sqrt();
            let result = reference::attention(&q, &k, &v, &packed.q_starts, &packed.k_starts, scale, mask);
            let what = format!("{mask:?} {:?} {:?}, heads {heads} {kv_heads}, {dim} {v_dim}", packed.q_starts, packed.k_starts);
            let op = Op::Attention(Attention { scale, mask });
            check(&what, &op, &[&tq, &tk, &tv, &qs, &ks], &expected(&result, dtype, packed.terms() + dim));
        }
    }
}

fn attention_of_any_packing(device: &Device) {
    use proptest::collection::vec;
    use proptest::prelude::any;
    use proptest::sample::select;
    let packings = (vec((0u32..9, 0u32..70), 0..5), 0usize..3, select(&HEADS[..]), any::<u64>());
    each(96, packings, |(lengths, beyond, [heads, kv_heads, dim, v_dim], seed)| {
        let packed = Packed::new(&lengths, beyond);
        for (dtype, mask) in device.floats().flat_map(|d| MASKS.map(|m| (d, m))) {
            let mut draw = Draw::new(seed);
            let (q, tq) = draw.input(device, &[packed.tokens(), heads, dim], dtype);
            let (k, tk) = draw.input(device, &[packed.keys(), kv_heads, dim], dtype);
            let (v, tv) = draw.input(device, &[packed.keys(), kv_heads, v_dim], dtype);
            let [qs, ks] = packed.tensors(device);
            let result = reference::attention(&q, &k, &v, &packed.q_starts, &packed.k_starts, 0.4, mask);
            let op = Op::Attention(Attention { scale: 0.4, mask });
            let what = format!("{mask:?} {lengths:?} and {beyond} beyond, heads {heads} {kv_heads}, {dim} {v_dim}");
            check(&what, &op, &[&tq, &tk, &tv, &qs, &ks], &expected(&result, dtype, packed.terms() + dim));
        }
    });
}

fn attention_of_long_sequences(device: &Device) {
    for (dtype, mask) in device.floats().flat_map(|d| MASKS.map(|m| (d, m))) {
        let packed = Packed::new(&[(131, 131), (3, 700)], 0);
        let mut draw = Draw::new(131);
        let (q, tq) = draw.input(device, &[packed.tokens(), 2, 32], dtype);
        let (k, tk) = draw.input(device, &[packed.keys(), 1, 32], dtype);
        let (v, tv) = draw.input(device, &[packed.keys(), 1, 32], dtype);
        let [qs, ks] = packed.tensors(device);
        let result = reference::attention(&q, &k, &v, &packed.q_starts, &packed.k_starts, 0.2, mask);
        check(
            &format!("long, {mask:?}"),
            &Op::Attention(Attention { scale: 0.2, mask }),
            &[&tq, &tk, &tv, &qs, &ks],
            &expected(&result, dtype, 700 + 32),
        );
    }
}

fn attention_of_scores_that_rise_and_fall(device: &Device) {
    // Thousands of keys, the largest scores at the end, the beginning, the middle: what a running softmax has summed fades, or what comes
    // behind it does.
    for (dtype, mask) in device.floats().flat_map(|d| MASKS.map(|m| (d, m))) {
        let packed = Packed::new(&[(2, 1700), (1, 1100), (3, 600)], 0);
        let mut draw = Draw::new(153);
        let (q, v) = (draw.floats(&[6, 2, 8], dtype), draw.floats(&[3400, 1, 8], dtype));
        let rise = [1700.0, 1100.0, 600.0];
        let k = Array::from_fn(&[3400, 1, 8], |i| {
            let (s, first) = if i[0] < 1700 {
                (0, 0)
            } else if i[0] < 2800 {
                (1, 1700)
            } else {
                (2, 2800)
            };
            let at = (i[0] - first) as f64 / rise[s];
            let height = [at, 1.0 - at, 1.0 - (2.0 * at - 1.0).abs()][s];
            reference::round(dtype, draw.normal() * (0.1 + 3.0 * height))
        });
        let tensors = [&q, &k, &v].map(|x| tensor(device, x, dtype));
        let [qs, ks] = packed.tensors(device);
        let result = reference::attention(&q, &k, &v, &packed.q_starts, &packed.k_starts, 0.5, mask);
        let op = Op::Attention(Attention { scale: 0.5, mask });
        check(
            &format!("rise and fall, {mask:?}"),
            &op,
            &[&tensors[0], &tensors[1], &tensors[2], &qs, &ks],
            &expected(&result, dtype, 1708),
        );
    }
}

fn attention_reads_any_strides(device: &Device) {
    let packed = Packed::new(&[(5, 5), (7, 9)], 0);
    let [qs, ks] = packed.tensors(device);
    for (dtype, seed) in device.floats().flat_map(|d| (132..138).map(move |s| (d, s))) {
        let mut draw = Draw::new(seed);
        let arrays = [[12, 4, 8], [14, 2, 8], [14, 2, 8]].map(|shape| draw.floats(&shape, dtype));
        let run = |tensors: [Tensor; 3]| {
            let [q, k, v] = tensors;
            q.attention(&k, &v, &qs, &ks, Attention { scale: 0.3, mask: Mask::Causal }).expect("attention")
        };
        let strided = arrays.each_ref().map(|x| draw.place(device, x, dtype));
        same_bits(
            &format!("attention of strides, {dtype}"),
            &run(strided),
            &run(arrays.each_ref().map(|x| tensor(device, x, dtype))),
        );
    }
}

fn a_query_without_keys_gives_zeros(device: &Device) {
    for dtype in device.floats() {
        let packed = Packed::new(&[(3, 1), (2, 0)], 1);
        let mut draw = Draw::new(139);
        let [q, k, v] = [[6, 2, 4], [2, 1, 4], [2, 1, 4]].map(|shape| tensor(device, &draw.floats(&shape, dtype), dtype));
        let [qs, ks] = packed.tensors(device);
        let y = floats(&q.attention(&k, &v, &qs, &ks, Attention { scale: 1.0, mask: Mask::Causal }).expect("attention"));
        // Of three queries at one key only the last sees it.
        let zeros = y.values.chunks(8).map(|token| token.iter().all(|v| *v == 0.0)).collect::<Vec<_>>();
        assert_eq!(zeros, [true, true, false, true, true, true], "attention {dtype}");
    }
}

fn attention_of_large_scores(device: &Device) {
    // Scores in the thousands: without the largest subtracted, their exponentials overflow.
    for dtype in device.floats() {
        let packed = Packed::new(&[(5, 67)], 0);
        let mut draw = Draw::new(140);
        let (q, k, v) = (
            draw.floats(&[5, 2, 8], dtype).map(|v| v * 32.0),
            draw.floats(&[67, 2, 8], dtype).map(|v| v * 32.0),
            draw.floats(&[67, 2, 8], dtype),
        );
        let tensors = [&q, &k, &v].map(|x| tensor(device, x, dtype));
        let [qs, ks] = packed.tensors(device);
        let result = reference::attention(&q, &k, &v, &packed.q_starts, &packed.k_starts, 1.0, Mask::Full);
        let op = Op::Attention(Attention { scale: 1.0, mask: Mask::Full });
        check("large scores", &op, &[&tensors[0], &tensors[1], &tensors[2], &qs, &ks], &expected(&result, dtype, 75));
    }
}

fn nan_reaches_who_sees_it_and_no_one_else(device: &Device) {
    for (dtype, mask) in device.floats().flat_map(|d| MASKS.map(|m| (d, m))) {
        let packed = Packed::new(&[(5, 70), (3, 3), (2, 2)], 0);
        let mut draw = Draw::new(151);
        let (mut q, mut k, v) =
            (draw.floats(&[10, 4, 8], dtype), draw.floats(&[75, 2, 8], dtype), draw.floats(&[75, 2, 8], dtype));
        // A query of the first sequence, a late key of it, an infinite one of the second.
        let places = [q.place(&[1, 3, 0]), k.place(&[67, 0, 7]), k.place(&[71, 1, 2])];
        (q.values[places[0]], k.values[places[1]], k.values[places[2]]) = (f64::NAN, f64::NAN, f64::INFINITY);
        let tensors = [&q, &k, &v].map(|x| tensor(device, x, dtype));
        let [qs, ks] = packed.tensors(device);
        let result = reference::attention(&q, &k, &v, &packed.q_starts, &packed.k_starts, 0.3, mask);
        let op = Op::Attention(Attention { scale: 0.3, mask });
        check(
            &format!("beside NaN, {mask:?}"),
            &op,
            &[&tensors[0], &tensors[1], &tensors[2], &qs, &ks],
            &expected(&result, dtype, 78),
        );
    }
}

fn attention_does_not_depend_on_neighbours(device: &Device) {
    for (dtype, mask) in device.floats().flat_map(|d| MASKS.map(|m| (d, m))) {
        // 44 sequences of a few tokens each, and some of them alone.
        let lengths: Vec<(u32, u32)> = (0..44).map(|i| (1 + i % 3, 1 + i % 3 + i * 7 % 90)).collect();
        let packed = Packed::new(&lengths, 0);
        let mut draw = Draw::new(141);
        let [q, k, v] = [[packed.tokens(), 4, 16], [packed.keys(), 2, 16], [packed.keys(), 2, 16]]
            .map(|s| tensor(device, &draw.floats(&s, dtype), dtype));
        let run = |first: usize, count: usize| {
            let some = Packed::new(&lengths[first..first + count], 0);
            let (q_at, k_at) = (packed.q_starts[first] as usize, packed.k_starts[first] as usize);
            let q = q.slice(0, q_at, some.tokens()).expect("slice");
            let [k, v] = [&k, &v].map(|x| x.slice(0, k_at, some.keys()).expect("slice"));
            let [qs, ks] = some.tensors(device);
            (q_at, q.attention(&k, &v, &qs, &ks, Attention { scale: 0.25, mask }).expect("attention"))
        };
        let (_, all) = run(0, 44);
        for (first, count) in [(0, 1), (43, 1), (20, 2), (30, 7)] {
            let (at, some) = run(first, count);
            same_bits(
                &format!("attention {mask:?}: {count} sequences of 44"),
                &some,
                &all.slice(0, at, some.dim(0)).expect("slice"),
            );
        }
    }
}

/// A cache: its pages, their order anything, filled everywhere.
fn cache(draw: &mut Draw, lengths: &[u32], [page_size, kv_heads, dim]: [usize; 3], dtype: DType) -> Pages {
    let columns = lengths.iter().map(|&l| (l as usize).div_ceil(page_size)).max().unwrap_or(0) + 1;
    let pages = lengths.len() * columns + 2;
    let order = draw.order(pages);
    let [k, v] = [(); 2].map(|()| draw.floats(&[pages, page_size, kv_heads, dim], dtype));
    let table = Array::new(&[lengths.len(), columns], order[..lengths.len() * columns].iter().map(|&p| p as u32).collect());
    Pages { k, v, table, lengths: lengths.to_vec() }
}

/// Its tensors, the page table and the lengths.
struct Cached {
    k: Tensor,
    v: Tensor,
    table: Tensor,
    lengths: Tensor,
}

impl Cached {
    fn new(device: &Device, pages: &Pages, dtype: DType) -> Self {
        let [k, v] = [&pages.k, &pages.v].map(|x| tensor(device, x, dtype));
        let table = indices_tensor(device, &pages.table.values, &pages.table.shape);
        Self { k, v, table, lengths: indices_tensor(device, &pages.lengths, &[pages.lengths.len()]) }
    }

    fn inputs<'a>(&'a self, q: &'a Tensor, q_starts: &'a Tensor) -> [&'a Tensor; 6] {
        [q, &self.k, &self.v, &self.table, q_starts, &self.lengths]
    }

    fn attend(&self, q: &Tensor, q_starts: &[u32], op: PagedAttention) -> Tensor {
        let starts = indices_tensor(q.device(), q_starts, &[q_starts.len()]);
        let over = PagedInputs {
            k_pages: &self.k,
            v_pages: &self.v,
            page_table: &self.table,
            q_starts: &starts,
            lengths: &self.lengths,
        };
        q.paged_attention(over, op).expect("paged_attention")
    }
}

fn starts(lengths: &[u32]) -> Vec<u32> {
    std::iter::once(0)
        .chain(lengths.iter().scan(0, |at, l| {
            *at += l;
            Some(*at)
        }))
        .collect()
}

fn paged_attention_is_its_formula(device: &Device) {
    let packings: [(&[u32], &[u32]); 5] =
        [(&[5], &[5]), (&[1, 3, 0, 2], &[67, 3, 4, 33]), (&[4, 2], &[2, 0]), (&[], &[]), (&[1, 1, 1], &[1, 16, 17])];
    for ((tokens, lengths), [heads, kv_heads, dim, _]) in packings.into_iter().flat_map(|p| HEADS.map(|h| (p, h))) {
        for (dtype, (mask, page_size)) in device.floats().flat_map(|d| MASKS.into_iter().zip([1, 16]).map(move |m| (d, m))) {
            let mut draw = Draw::new(142);
            let pages = cache(&mut draw, lengths, [page_size, kv_heads, dim], dtype);
            let cached = Cached::new(device, &pages, dtype);
            let q_starts = starts(tokens);
            let (q, tq) = draw.input(device, &[q_starts[tokens.len()] as usize, heads, dim], dtype);
            let scale = 1.0 / (dim as f64).sqrt();
            let sums = reference::paged_attention(&q, &pages, &q_starts, scale, mask);
            let terms = lengths.iter().max().map_or(0, |&l| l as usize) + dim;
            let ts = indices_tensor(device, &q_starts, &[q_starts.len()]);
            let what = format!("{mask:?} {tokens:?} {lengths:?}, heads {heads} {kv_heads}, {dim}, pages of {page_size}");
            check(
                &what,
                &Op::PagedAttention(PagedAttention { scale, mask }),
                &cached.inputs(&tq, &ts),
                &[Expected::sums(dtype, &sums, terms)],
            );
        }
    }
}

fn paged_attention_of_pages_in_any_dtype(device: &Device) {
    for (dtype, pages_dtype) in device.floats().flat_map(|d| device.floats().map(move |p| (d, p))) {
        let mut draw = Draw::new(143);
        let pages = cache(&mut draw, &[9, 40], [8, 2, 12], pages_dtype);
        let cached = Cached::new(device, &pages, pages_dtype);
        let (q, tq) = draw.input(device, &[5, 4, 12], dtype);
        let ts = indices_tensor(device, &[0, 2, 5], &[3]);
        let sums = reference::paged_attention(&q, &pages, &[0, 2, 5], 0.3, Mask::Causal);
        let op = Op::PagedAttention(PagedAttention { scale: 0.3, mask: Mask::Causal });
        check(&format!("{dtype} over {pages_dtype}"), &op, &cached.inputs(&tq, &ts), &[Expected::sums(dtype, &sums, 52)]);
    }
}

fn pages_out_of_range_read_zeros(device: &Device) {
    for dtype in device.floats() {
        let mut draw = Draw::new(144);
        let mut pages = cache(&mut draw, &[20, 7], [4, 2, 8], dtype);
        let count = pages.k.shape[0] as u32;
        (pages.table.values[1], pages.table.values[4]) = (count, u32::MAX);
        let cached = Cached::new(device, &pages, dtype);
        let (q, tq) = draw.input(device, &[3, 4, 8], dtype);
        let ts = indices_tensor(device, &[0, 1, 3], &[3]);
        let sums = reference::paged_attention(&q, &pages, &[0, 1, 3], 0.3, Mask::Causal);
        let op = Op::PagedAttention(PagedAttention { scale: 0.3, mask: Mask::Causal });
        check("pages out of range", &op, &cached.inputs(&tq, &ts), &[Expected::sums(dtype, &sums, 28)]);
    }
}

fn what_lies_beyond_the_length_is_not_read(device: &Device) {
    for dtype in device.floats() {
        let mut draw = Draw::new(145);
        let mut pages = cache(&mut draw, &[6, 5], [4, 1, 8], dtype);
        let (q, tq) = draw.input(device, &[2, 2, 8], dtype);
        let sums = reference::paged_attention(&q, &pages, &[0, 1, 2], 0.3, Mask::Causal);
        // All that no sequence holds becomes NaN.
        let held = |page: usize, place: usize| {
            (0..2).any(|s| (0..pages.lengths[s] as usize).any(|j| pages.table.at(&[s, j / 4]) as usize == page && j % 4 == place))
        };
        let poison = |x: &Array| Array::from_fn(&x.shape, |i| if held(i[0], i[1]) { x.at(i) } else { f64::NAN });
        (pages.k, pages.v) = (poison(&pages.k), poison(&pages.v));
        let cached = Cached::new(device, &pages, dtype);
        let ts = indices_tensor(device, &[0, 1, 2], &[3]);
        let op = Op::PagedAttention(PagedAttention { scale: 0.3, mask: Mask::Causal });
        check("beside NaN", &op, &cached.inputs(&tq, &ts), &[Expected::sums(dtype, &sums, 14)]);
    }
}

fn paged_attention_does_not_depend_on_chunks(device: &Device) {
    let widest = device.floats().next().expect("every device has a float");
    for (dtype, pages_dtype) in [(DType::F32, DType::F32), (widest, widest), (DType::BF16, DType::BF16), (DType::F32, DType::F16)]
    {
        let length = 150;
        let mut draw = Draw::new(146);
        let mut pages = cache(&mut draw, &[length], [16, 2, 16], pages_dtype);
        let q = tensor(device, &draw.floats(&[length as usize, 4, 16], dtype), dtype);
        let op = PagedAttention { scale: 0.25, mask: Mask::Causal };
        let mut run = |chunk: usize| {
            let mut parts = Vec::new();
            let mut at = 0;
            while at < length as usize {
                let n = chunk.min(length as usize - at);
                pages.lengths = vec![(at + n) as u32];
                let cached = Cached::new(device, &pages, pages_dtype);
                parts.push(cached.attend(&q.slice(0, at, n).expect("slice"), &[0, n as u32], op));
                at += n;
            }
            Tensor::concat(&parts.iter().collect::<Vec<_>>(), 0).expect("concat")
        };
        let all = run(length as usize);
        for chunk in [1, 7, 64] {
            same_bits(&format!("paged_attention {dtype} over {pages_dtype} in chunks of {chunk}"), &run(chunk), &all);
        }
    }
}

fn paged_attention_does_not_depend_on_neighbours(device: &Device) {
    for dtype in device.floats() {
        let lengths: Vec<u32> = (0..44).map(|i| 1 + i * 13 % 300).collect();
        let mut draw = Draw::new(147);
        let pages = cache(&mut draw, &lengths, [16, 2, 16], dtype);
        let q = tensor(device, &draw.floats(&[44, 4, 16], dtype), dtype);
        let cached = Cached::new(device, &pages, dtype);
        let run = |first: usize, count: usize| {
            let some = Cached {
                k: cached.k.clone(),
                v: cached.v.clone(),
                table: cached.table.slice(0, first, count).expect("slice"),
                lengths: cached.lengths.slice(0, first, count).expect("slice"),
            };
            some.attend(
                &q.slice(0, first, count).expect("slice"),
                &(0..=count as u32).collect::<Vec<_>>(),
                PagedAttention { scale: 0.25, mask: Mask::Causal },
            )
        };
        let all = run(0, 44);
        for (first, count) in [(0, 1), (43, 1), (20, 2), (30, 7)] {
            same_bits(
                &format!("paged_attention {dtype}: {count} sequences of 44"),
                &run(first, count),
                &all.slice(0, first, count).expect("slice"),
            );
        }
    }
}

fn paged_attention_does_not_depend_on_where_pages_lie(device: &Device) {
    for dtype in device.floats() {
        let mut draw = Draw::new(148);
        let pages = cache(&mut draw, &[150, 33], [16, 2, 16], dtype);
        let q = tensor(device, &draw.floats(&[9, 4, 16], dtype), dtype);
        let op = PagedAttention { scale: 0.25, mask: Mask::Causal };
        let one = Cached::new(device, &pages, dtype).attend(&q, &[0, 7, 9], op);
        // The same contents elsewhere.
        let count = pages.k.shape[0];
        let order = draw.order(count);
        let moved = |x: &Array| {
            Array::from_fn(&x.shape, |i| x.at(&[order.iter().position(|&to| to == i[0]).expect("a place"), i[1], i[2], i[3]]))
        };
        let elsewhere = Pages {
            k: moved(&pages.k),
            v: moved(&pages.v),
            table: pages.table.map(|p| order[p as usize] as u32),
            ..pages.clone()
        };
        same_bits(
            &format!("paged_attention {dtype}, pages moved"),
            &Cached::new(device, &elsewhere, dtype).attend(&q, &[0, 7, 9], op),
            &one,
        );
    }
}

fn paged_attention_agrees_with_attention(device: &Device) {
    for (dtype, mask) in device.floats().flat_map(|d| MASKS.map(|m| (d, m))) {
        let mut draw = Draw::new(149);
        let lengths = [70, 9, 1];
        let pages = cache(&mut draw, &lengths, [8, 2, 16], dtype);
        let (q, tq) = draw.input(device, &[8, 4, 16], dtype);
        let q_starts = [0, 5, 7, 8];
        let paged = Cached::new(device, &pages, dtype).attend(&tq, &q_starts, PagedAttention { scale: 0.25, mask });
        // The same keys one behind the other.
        let collect = |x: &Array| {
            let rows = (0..3).flat_map(|s| (0..lengths[s] as usize).map(move |j| (s, j)));
            let values = rows.flat_map(|(s, j)| {
                let page = pages.table.at(&[s, j / 8]) as usize;
                x.values[(page * 8 + j % 8) * 32..][..32].to_vec()
            });
            tensor(device, &Array::new(&[80, 2, 16], values.collect()), dtype)
        };
        let [qs, ks] = [&q_starts, &[0, 70, 79, 80]].map(|s| indices_tensor(device, s, &[4]));
        let plain =
            tq.attention(&collect(&pages.k), &collect(&pages.v), &qs, &ks, Attention { scale: 0.25, mask }).expect("attention");
        let sums = reference::paged_attention(&q, &pages, &q_starts, 0.25, mask);
        // Either is within its tolerance of the formula, so of the other within twice that.
        let plain = floats(&plain);
        let off = sums.magnitude.map(|m| m * (reference::unit(dtype) + 94.0 * reference::unit(dtype.accumulator())));
        Expected::new(dtype, plain)
            .sum(sums.magnitude, 86)
            .slack(off)
            .compare(&format!("paged_attention beside attention, {mask:?}"), &paged);
    }
}

fn paged_attention_reads_pages_of_any_strides(device: &Device) {
    for dtype in device.floats() {
        let mut draw = Draw::new(152);
        let pages = cache(&mut draw, &[30, 9], [4, 2, 16], dtype);
        let q = tensor(device, &draw.floats(&[5, 4, 16], dtype), dtype);
        let op = PagedAttention { scale: 0.25, mask: Mask::Causal };
        let plain = Cached::new(device, &pages, dtype);
        let one = plain.attend(&q, &[0, 3, 5], op);
        for _ in 0..4 {
            let strided = Cached {
                k: draw.place(device, &pages.k, dtype),
                v: draw.place(device, &pages.v, dtype),
                table: draw.place_indices(device, &pages.table),
                lengths: plain.lengths.clone(),
            };
            same_bits(&format!("paged_attention {dtype}, pages strided"), &strided.attend(&q, &[0, 3, 5], op), &one);
        }
    }
}

fn backward(device: &Device, what: &str, packed: &Packed, [heads, kv_heads, dim, v_dim]: [usize; 4], dtype: DType, mask: Mask) {
    let mut draw = Draw::new(150);
    let (q, tq) = draw.input(device, &[packed.tokens(), heads, dim], dtype);
    let (k, tk) = draw.input(device, &[packed.keys(), kv_heads, dim], dtype);
    let (v, tv) = draw.input(device, &[packed.keys(), kv_heads, v_dim], dtype);
    let (dy, tdy) = draw.input(device, &[packed.tokens(), heads, v_dim], dtype);
    let [qs, ks] = packed.tensors(device);
    let scale = 1.0 / (dim as f64).sqrt();
    let (y, lse) = reference::attention(&q, &k, &v, &packed.q_starts, &packed.k_starts, scale, mask);
    let (y, lse) = (round_all(dtype, &y.value), round_all(dtype.accumulator(), &lse.value));
    let (ty, tl) = (draw.place(device, &y, dtype), draw.place(device, &lse, dtype.accumulator()));
    let inputs = AttentionBackwardInputs { dy: &dy, q: &q, k: &k, v: &v, y: &y, lse: &lse };
    let grads = reference::attention_backward(inputs, &packed.q_starts, &packed.k_starts, scale, mask);
    let terms = packed.terms() + packed.tokens() * (heads / kv_heads) + dim + v_dim;
    let expected = [grads.dq, grads.dk, grads.dv].map(|sums| Expected::sums(dtype, &sums, terms));
    check(what, &Op::AttentionBackward(AttentionBackward { scale, mask }), &[&tdy, &tq, &tk, &tv, &ty, &tl, &qs, &ks], &expected);
}

fn attention_backward_is_its_formula(device: &Device) {
    for (packed, heads) in packings().iter().flat_map(|p| HEADS.map(|h| (p, h))) {
        for (dtype, mask) in device.floats().flat_map(|d| MASKS.map(|m| (d, m))) {
            backward(
                device,
                &format!("{mask:?} {:?} {:?} {heads:?}", packed.q_starts, packed.k_starts),
                packed,
                heads,
                dtype,
                mask,
            );
        }
    }
}

fn attention_backward_of_long_sequences(device: &Device) {
    let packed = Packed::new(&[(131, 131), (3, 300)], 0);
    for (dtype, mask) in device.floats().flat_map(|d| MASKS.map(|m| (d, m))) {
        for heads in [[2, 1, 16, 16], [4, 2, 32, 32]] {
            backward(device, &format!("long, {mask:?}, {heads:?}"), &packed, heads, dtype, mask);
        }
    }
}

/// The heads of Llama, of 64 and 128, in halves, over tiles and their edges.
fn attention_of_llamas_heads(device: &Device) {
    let packed = Packed::new(&[(3, 70), (66, 66)], 1);
    let sizes = [[4, 1, 64, 64], [2, 1, 128, 128]];
    for (dtype, (mask, heads)) in [DType::F16, DType::BF16]
        .into_iter()
        .flat_map(|d| MASKS.into_iter().flat_map(|m| sizes.map(|h| (m, h))).map(move |x| (d, x)))
    {
        let [count, kv_heads, dim, _] = heads;
        backward(device, &format!("{mask:?} {heads:?}"), &packed, heads, dtype, mask);
        let mut draw = Draw::new(152);
        let pages = cache(&mut draw, &[70, 66, 600], [16, kv_heads, dim], dtype);
        let cached = Cached::new(device, &pages, dtype);
        // A few of a prompt, more than a tile of it, one token behind more than a split.
        let q_starts = starts(&[3, 66, 1]);
        let (q, tq) = draw.input(device, &[70, count, dim], dtype);
        let scale = 1.0 / (dim as f64).sqrt();
        let sums = reference::paged_attention(&q, &pages, &q_starts, scale, mask);
        let ts = indices_tensor(device, &q_starts, &[4]);
        let op = Op::PagedAttention(PagedAttention { scale, mask });
        check(&format!("{mask:?} {heads:?}"), &op, &cached.inputs(&tq, &ts), &[Expected::sums(dtype, &sums, 600 + dim)]);
    }
}
