//! The kernel, once for all formats and vector units: a tile of one group of rows and a few columns.

use puna_quant::BlockType;

use super::{ActivationBlock, columns::Columns, lanes::Lanes, layout::Form};

/// A product over whole groups of rows; every pointer was checked by [`matmul`](super::matmul).
pub(super) struct Job<'a> {
    /// The first group, then the others.
    pub(super) packed: &'a [u8],
    /// 32-value blocks in a row.
    pub(super) blocks: usize,
    /// `[m, blocks]`
    pub(super) x: &'a [ActivationBlock],
}

/// A block format, as the kernel sees it.
pub(super) trait Format {
    const FORM: Form;
    /// What 32 values of all rows are, before any activation.
    unsafe fn run<S: Lanes>(p: *const u8, head: Head<S>) -> Run<S>;
    /// Adds their product with 32 activations to the chain.
    unsafe fn step<S: Lanes>(run: &Run<S>, x: &ActivationBlock, acc: S::F) -> S::F;
}

#[derive(Clone, Copy)]
pub(super) struct Head<S: Lanes> {
    d: S::F,
    m: S::F,
}

pub(super) struct Run<S: Lanes> {
    /// Quants of 4 values each, four bytes a lane.
    w: [S::I; 8],
    scale: S::F,
    min: S::F,
    /// The integer scales, and minima, of both halves.
    scales: S::I,
    mins: S::I,
}

impl<S: Lanes> Run<S> {
    #[inline(always)]
    unsafe fn new(w: [S::I; 8], head: Head<S>) -> Self {
        // SAFETY: the caller has the unit.
        let none = unsafe { S::splat(0) };
        Self { w, scale: head.d, min: head.m, scales: none, mins: none }
    }
}

/// Runs a job: `out[c, r] = sum_k x[c, k] w[r, k]`.
///
/// # Safety
/// The processor has the unit `S`; `job.packed` holds as many groups as `out` has `ROWS` columns, the last perhaps in part.
#[inline(always)]
pub(super) unsafe fn drive<S: Lanes, B: Format>(job: &Job<'_>, out: &mut Columns<'_>) {
    let group_bytes = S::ROWS * B::FORM.row(32 * job.blocks);
    let (m, n) = (out.rows(), out.columns());
    // Columns in turns of so many that their activations stay in the second-level cache while the groups pass by.
    const TURN: usize = 64;
    for turn in (0..m).step_by(TURN) {
        let turn = turn..m.min(turn + TURN);
        for (g, group) in job.packed.chunks_exact(group_bytes).enumerate() {
            let lanes = S::ROWS.min(n - g * S::ROWS);
            let mut c = turn.start;
            while c < turn.end {
                let left = turn.end - c;
                let x = &job.x[c * job.blocks..];
                let mut y = [[0.0; 16]; 8];
                // SAFETY: the unit is there; the group is whole, `x` holds the columns of each tile.
                let done = unsafe {
                    match left {
                        8.. if S::COLUMNS >= 8 => tile::<S, B, 8>(group, job.blocks, x, &mut y),
                        4.. => tile::<S, B, 4>(group, job.blocks, x, &mut y),
                        2.. => tile::<S, B, 2>(group, job.blocks, x, &mut y),
                        _ => tile::<S, B, 1>(group, job.blocks, x, &mut y),
                    }
                };
                for (i, y) in y[..done].iter().enumerate() {
                    out.row(c + i)[g * S::ROWS..][..lanes].copy_from_slice(&y[..lanes]);
                }
                c += done;
            }
        }
    }
}

/// One group of rows times `C` columns. Each output is a chain of its own, so `C` changes nothing but speed.
///
/// # Safety
/// The processor has the unit `S`; `group` is a group of `blocks` blocks; `x` holds `C` rows of them.
#[inline(always)]
unsafe fn tile<S: Lanes, B: Format, const C: usize>(
    group: &[u8],
    blocks: usize,
    x: &[ActivationBlock],
    y: &mut [[f32; 16]; 8],
) -> usize {
    debug_assert!(x.len() >= C * blocks && group.len() == S::ROWS * B::FORM.row(32 * blocks));
    // SAFETY: `p` walks over the group, whose length the caller vouches for; `x.add` stays below `C * blocks`.
    unsafe {
        let mut acc = [S::splat_f32(0.0); C];
        let mut p = group.as_ptr();
        let x = x.as_ptr();
        for block in 0..blocks / B::FORM.runs {
            let d = S::load_f16(p);
            let m = if B::FORM.head == 4 { S::load_f16(p.add(2 * S::ROWS)) } else { d };
            let head = Head { d, m };
            p = p.add(S::ROWS * B::FORM.head);
            for run in 0..B::FORM.runs {
                let bytes = S::ROWS * B::FORM.run();
                let weights = B::run::<S>(p, head);
                let x = x.add(block * B::FORM.runs + run);
                for (c, acc) in acc.iter_mut().enumerate() {
                    *acc = B::step::<S>(&weights, &*x.add(c * blocks), *acc);
                }
                p = p.add(bytes);
            }
        }
        for (acc, y) in acc.into_iter().zip(y) {
            S::store(acc, y.as_mut_ptr());
        }
    }
    C
}

/// The planes of 32 quants.
#[inline(always)]
unsafe fn nibbles<S: Lanes>(p: *const u8) -> [S::I; 8] {
    // SAFETY: the caller has the unit and a plane of 4 bits at `p`.
    unsafe {
        let mask = S::splat(0x0f0f_0f0f);
        let v: [S::I; 4] = [S::load(p), S::load(p.add(4 * S::ROWS)), S::load(p.add(8 * S::ROWS)), S::load(p.add(12 * S::ROWS))];
        let low = |i: usize| S::and(v[i], mask);
        let high = |i: usize| S::and(S::shr::<4>(v[i]), mask);
        [low(0), low(1), low(2), low(3), high(0), high(1), high(2), high(3)]
    }
}

/// Two bits, shifted to the left by `TO` (0 or 4).
#[inline(always)]
unsafe fn pairs_of_bits<S: Lanes, const TO: i32>(p: *const u8) -> [S::I; 8] {
    // SAFETY: the caller has the unit and a plane of 2 bits at `p`.
    unsafe {
        let mask = S::splat(0x0303_0303 << TO);
        let (a, b) = (S::load(p), S::load(p.add(4 * S::ROWS)));
        let four = |v: S::I| {
            if TO == 0 {
                [S::and(v, mask), S::and(S::shr::<2>(v), mask), S::and(S::shr::<4>(v), mask), S::and(S::shr::<6>(v), mask)]
            } else {
                [S::and(S::shl::<4>(v), mask), S::and(S::shl::<2>(v), mask), S::and(v, mask), S::and(S::shr::<2>(v), mask)]
            }
        };
        let ([a0, a1, a2, a3], [b0, b1, b2, b3]) = (four(a), four(b));
        [a0, b0, a1, b1, a2, b2, a3, b3]
    }
}

/// One bit, shifted to the left by 4 or 2.
#[inline(always)]
unsafe fn bits<S: Lanes, const TO: i32>(p: *const u8) -> [S::I; 8] {
    // SAFETY: the caller has the unit and a plane of 1 bit at `p`.
    unsafe {
        let mask = S::splat(0x0101_0101 << TO);
        let v = S::load(p);
        let shifted = if TO == 4 {
            [S::shl::<4>(v), S::shl::<3>(v), S::shl::<2>(v), S::shl::<1>(v), v, S::shr::<1>(v), S::shr::<2>(v), S::shr::<3>(v)]
        } else {
            [S::shl::<2>(v), S::shl::<1>(v), v, S::shr::<1>(v), S::shr::<2>(v), S::shr::<3>(v), S::shr::<4>(v), S::shr::<5>(v)]
        };
        shifted.map(|v| S::and(v, mask))
    }
}

#[inline(always)]
unsafe fn or_all<S: Lanes>(a: [S::I; 8], b: [S::I; 8]) -> [S::I; 8] {
    // SAFETY: the caller has the unit.
    std::array::from_fn(|j| unsafe { S::or(a[j], b[j]) })
}

/// `acc + isum (scale d_x)`
#[inline(always)]
unsafe fn scaled<S: Lanes>(isum: S::I, scale: S::F, x: &ActivationBlock, acc: S::F) -> S::F {
    // SAFETY: the caller has the unit.
    unsafe { S::fma(S::to_f32(isum), S::mul(scale, S::splat_f32(x.d)), acc) }
}

/// Scale and minimum of a run of Q4_K and Q5_K: `d * scale` and `-(m * min)`, both exact.
#[inline(always)]
unsafe fn with_scale_and_min<S: Lanes>(p: *const u8, w: [S::I; 8], head: Head<S>) -> Run<S> {
    // SAFETY: the caller has the unit, and the scales at `p`.
    unsafe {
        let scale = S::mul(head.d, S::to_f32(S::load_u8(p)));
        let min = S::neg(S::mul(head.m, S::to_f32(S::load_u8(p.add(S::ROWS)))));
        Run { scale, min, ..Run::new(w, head) }
    }
}

/// The formats that are a type each: their name, how a run is unpacked, and the step of the chain.
macro_rules! formats {
    ($($name:ident: $block:ident, |$p:ident, $head:ident| $run:expr, |$r:ident, $x:ident, $acc:ident| $step:expr;)*) => {$(
        #[allow(non_camel_case_types)]
        pub(super) struct $name;

        impl Format for $name {
            const FORM: Form = Form::of(BlockType::$block);

            #[inline(always)]
            unsafe fn run<S: Lanes>($p: *const u8, $head: Head<S>) -> Run<S> {
                // SAFETY: the caller has the unit, and a run of this format at the pointer.
                unsafe { $run }
            }

            #[inline(always)]
            unsafe fn step<S: Lanes>($r: &Run<S>, $x: &ActivationBlock, $acc: S::F) -> S::F {
                // SAFETY: the caller has the unit; `x.q` has 32 bytes.
                unsafe { $step }
            }
        }
    )*};
}

formats! {
    Q8_0: Q8_0,
        |p, head| Run::new(std::array::from_fn(|j| S::signed(S::load(p.add(4 * S::ROWS * j)))), head),
        |r, x, acc| scaled::<S>(S::dot_signed(&r.w, x.q.as_ptr(), x.minus_128), r.scale, x, acc);
    Q4_0: Q4_0,
        |p, head| Run::new(nibbles::<S>(p), head),
        |r, x, acc| scaled::<S>(S::dot::<4>(&r.w, x.q.as_ptr(), x.minus_8), r.scale, x, acc);
    Q4_1: Q4_1,
        |p, head| Run::new(nibbles::<S>(p), head),
        |r, x, acc| S::fma(r.min, S::splat_f32(x.ds), scaled::<S>(S::dot::<4>(&r.w, x.q.as_ptr(), 0), r.scale, x, acc));
    Q5_0: Q5_0,
        |p, head| Run::new(or_all::<S>(nibbles::<S>(p), bits::<S, 4>(p.add(16 * S::ROWS))), head),
        |r, x, acc| scaled::<S>(S::dot::<5>(&r.w, x.q.as_ptr(), x.minus_16), r.scale, x, acc);
    Q5_1: Q5_1,
        |p, head| Run::new(or_all::<S>(nibbles::<S>(p), bits::<S, 4>(p.add(16 * S::ROWS))), head),
        |r, x, acc| S::fma(r.min, S::splat_f32(x.ds), scaled::<S>(S::dot::<5>(&r.w, x.q.as_ptr(), 0), r.scale, x, acc));
    Q4_K: Q4K,
        |p, head| with_scale_and_min::<S>(p, nibbles::<S>(p.add(2 * S::ROWS)), head),
        |r, x, acc| S::fma(r.min, S::splat_f32(x.ds), scaled::<S>(S::dot::<4>(&r.w, x.q.as_ptr(), 0), r.scale, x, acc));
    Q5_K: Q5K,
        |p, head| {
            let w = or_all::<S>(nibbles::<S>(p.add(2 * S::ROWS)), bits::<S, 4>(p.add(18 * S::ROWS)));
            with_scale_and_min::<S>(p, w, head)
        },
        |r, x, acc| S::fma(r.min, S::splat_f32(x.ds), scaled::<S>(S::dot::<5>(&r.w, x.q.as_ptr(), 0), r.scale, x, acc));
    Q6_K: Q6K,
        |p, head| {
            let w = or_all::<S>(nibbles::<S>(p.add(2 * S::ROWS)), pairs_of_bits::<S, 4>(p.add(18 * S::ROWS)));
            Run { scales: S::load_pairs(p), ..Run::new(w, head) }
        },
        |r, x, acc| scaled::<S>(S::dot_scaled::<32>(&r.w, x, r.scales), r.scale, x, acc);
    Q3_K: Q3K,
        |p, head| {
            let w = or_all::<S>(pairs_of_bits::<S, 0>(p.add(2 * S::ROWS)), bits::<S, 2>(p.add(10 * S::ROWS)));
            Run { scales: S::sub_pairs(S::load_pairs(p), 32), ..Run::new(w, head) }
        },
        |r, x, acc| scaled::<S>(S::dot_scaled::<4>(&r.w, x, r.scales), r.scale, x, acc);
    Q2_K: Q2K,
        |p, head| {
            let both = S::load_pairs(p);
            let mask = S::splat(0x000f_000f);
            let (scales, mins) = (S::and(both, mask), S::and(S::shr::<4>(both), mask));
            Run { scales, mins, min: S::neg(head.m), ..Run::new(pairs_of_bits::<S, 0>(p.add(2 * S::ROWS)), head) }
        },
        |r, x, acc| {
            let acc = scaled::<S>(S::dot_scaled::<0>(&r.w, x, r.scales), r.scale, x, acc);
            let sums = S::splat(i32::from(x.sums[0]) & 0xffff | i32::from(x.sums[1]) << 16);
            scaled::<S>(S::dot_of_pairs(r.mins, sums), r.min, x, acc)
        };
}

/// Calls `$f::<$S, F>($args)` with the format `F` of a block type; `$f` is a function of the vector unit's module.
macro_rules! with_format {
    ($block:expr, $f:ident($($arg:expr),*)) => {{
        use $crate::simd::quant::kernel as k;
        match $block {
            puna_quant::BlockType::Q8_0 => $f::<k::Q8_0>($($arg),*),
            puna_quant::BlockType::Q4_0 => $f::<k::Q4_0>($($arg),*),
            puna_quant::BlockType::Q4_1 => $f::<k::Q4_1>($($arg),*),
            puna_quant::BlockType::Q5_0 => $f::<k::Q5_0>($($arg),*),
            puna_quant::BlockType::Q5_1 => $f::<k::Q5_1>($($arg),*),
            puna_quant::BlockType::Q2K => $f::<k::Q2_K>($($arg),*),
            puna_quant::BlockType::Q3K => $f::<k::Q3_K>($($arg),*),
            puna_quant::BlockType::Q4K => $f::<k::Q4_K>($($arg),*),
            puna_quant::BlockType::Q5K => $f::<k::Q5_K>($($arg),*),
            puna_quant::BlockType::Q6K => $f::<k::Q6_K>($($arg),*),
            block => unreachable!("{block} has no packed order"),
        }
    }};
}
pub(super) use with_format;
