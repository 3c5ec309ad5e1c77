//! Elementwise functions, over runs of elements side by side.

pub(super) mod functions;

use puna_tensor::op::{Affine, Binary, Compare, Unary};
use puna_tensor::{DType, Result, Tensor};

use self::functions::Real;
use super::copy::lane::{Elements, Lane};
use super::copy::walk::Walk;
use super::wide::{in_wide, scratch, with_row};
use crate::backend::Cpu;
use crate::memory::write;

/// How many elements a task takes: moved at some 10 GB/s, about 30 us, beside which handing it out (below 1 us) is little.
const TASK: usize = 32 << 10;
/// The same of functions that cost some nanoseconds an element.
const COSTLY_TASK: usize = 8 << 10;

pub(super) fn unary(cpu: &Cpu, op: Unary, inputs: &[&Tensor], outputs: &[Tensor]) -> Result<()> {
    match inputs[0].dtype() {
        DType::I64 => integers(cpu, [inputs[0]], &outputs[0], |[x], y: &mut [i64]| unary_integers(op, x, y)),
        dtype => in_wide!(dtype, unary_floats(cpu, op, inputs[0], &outputs[0])),
    }
}

fn unary_floats<W: Real>(cpu: &Cpu, op: Unary, x: &Tensor, y: &Tensor) -> Result<()> {
    use Unary::{Abs, Neg, Reciprocal, Relu, Sign, Sqrt, Square};
    let cheap = matches!(op, Neg | Abs | Sign | Sqrt | Reciprocal | Square | Relu);
    floats::<W, 1>(cpu, if cheap { TASK } else { COSTLY_TASK }, [x], y, |[x], y| W::unary(op, x, y))
}

fn unary_integers(op: Unary, x: &[i64], y: &mut [i64]) {
    match op {
        Unary::Neg => map([x], y, |[x]| x.wrapping_neg()),
        Unary::Abs => map([x], y, |[x]| x.wrapping_abs()),
        Unary::Sign => map([x], y, |[x]| x.signum()),
        other => unreachable!("inference lets no integers through to {other:?}"),
    }
}

pub(super) fn affine(cpu: &Cpu, op: &Affine, inputs: &[&Tensor], outputs: &[Tensor]) -> Result<()> {
    in_wide!(inputs[0].dtype(), affine_floats(cpu, op, inputs[0], &outputs[0]))
}

fn affine_floats<W: Real>(cpu: &Cpu, op: &Affine, x: &Tensor, y: &Tensor) -> Result<()> {
    let (factor, summand) = (W::of(op.mul), W::of(op.add));
    floats::<W, 1>(cpu, TASK, [x], y, |[x], y| map([x], y, |[x]| x * factor + summand))
}

pub(super) fn binary(cpu: &Cpu, op: Binary, inputs: &[&Tensor], outputs: &[Tensor]) -> Result<()> {
    let (pair, y) = ([inputs[0], inputs[1]], &outputs[0]);
    match y.dtype() {
        DType::I64 => integers(cpu, pair, y, |pair, y: &mut [i64]| binary_integers(op, pair, y)),
        DType::U32 => integers(cpu, pair, y, |pair, y: &mut [u32]| binary_integers(op, pair, y)),
        DType::U8 => integers(cpu, pair, y, |pair, y: &mut [u8]| binary_integers(op, pair, y)),
        dtype => in_wide!(dtype, binary_floats(cpu, op, pair, y)),
    }
}

fn binary_floats<W: Real>(cpu: &Cpu, op: Binary, pair: [&Tensor; 2], y: &Tensor) -> Result<()> {
    let task = if op == Binary::Pow { COSTLY_TASK } else { TASK };
    floats::<W, 2>(cpu, task, pair, y, |pair, y| W::binary(op, pair, y))
}

/// What binary ops do to integers.
trait Integer: Lane + Ord {
    fn add(self, rhs: Self) -> Self;
    fn sub(self, rhs: Self) -> Self;
    fn mul(self, rhs: Self) -> Self;
    fn div(self, rhs: Self) -> Self;
}

macro_rules! integer {
    ($($type:ident),*) => {$(
        impl Integer for $type {
            fn add(self, rhs: Self) -> Self {
                self.wrapping_add(rhs)
            }

            fn sub(self, rhs: Self) -> Self {
                self.wrapping_sub(rhs)
            }

            fn mul(self, rhs: Self) -> Self {
                self.wrapping_mul(rhs)
            }

            fn div(self, rhs: Self) -> Self {
                if rhs == 0 { 0 } else { self.wrapping_div(rhs) }
            }
        }
    )*};
}
integer!(i64, u32, u8);

fn binary_integers<E: Integer>(op: Binary, pair: [&[E]; 2], y: &mut [E]) {
    match op {
        Binary::Add => map(pair, y, |[a, b]| a.add(b)),
        Binary::Sub => map(pair, y, |[a, b]| a.sub(b)),
        Binary::Mul => map(pair, y, |[a, b]| a.mul(b)),
        Binary::Div => map(pair, y, |[a, b]| a.div(b)),
        Binary::Maximum => map(pair, y, |[a, b]| a.max(b)),
        Binary::Minimum => map(pair, y, |[a, b]| a.min(b)),
        Binary::Pow => unreachable!("inference lets no integers through to a power"),
    }
}

pub(super) fn compare(cpu: &Cpu, op: Compare, inputs: &[&Tensor], outputs: &[Tensor]) -> Result<()> {
    let (pair, y) = ([inputs[0], inputs[1]], &outputs[0]);
    match pair[0].dtype() {
        DType::I64 => compare_as::<i64>(cpu, op, pair, y),
        DType::U32 => compare_as::<u32>(cpu, op, pair, y),
        DType::U8 => compare_as::<u8>(cpu, op, pair, y),
        dtype => in_wide!(dtype, compare_as(cpu, op, pair, y)),
    }
}

fn compare_as<E: Lane>(cpu: &Cpu, op: Compare, pair: [&Tensor; 2], y: &Tensor) -> Result<()> {
    runs::<E, 2>(cpu, TASK, pair, y, |pair, y| match op {
        Compare::Eq => map(pair, y, |[a, b]| u8::from(a == b)),
        Compare::Ne => map(pair, y, |[a, b]| u8::from(a != b)),
        Compare::Lt => map(pair, y, |[a, b]| u8::from(a < b)),
        Compare::Le => map(pair, y, |[a, b]| u8::from(a <= b)),
        Compare::Gt => map(pair, y, |[a, b]| u8::from(a > b)),
        Compare::Ge => map(pair, y, |[a, b]| u8::from(a >= b)),
    })
}

pub(super) fn select(cpu: &Cpu, inputs: &[&Tensor], outputs: &[Tensor]) -> Result<()> {
    let [condition, a, b] = inputs else { unreachable!("inference has counted them") };
    match outputs[0].dtype().unit_bytes() {
        1 => select_bits::<u8>(cpu, condition, [a, b], &outputs[0]),
        2 => select_bits::<u16>(cpu, condition, [a, b], &outputs[0]),
        4 => select_bits::<u32>(cpu, condition, [a, b], &outputs[0]),
        _ => select_bits::<u64>(cpu, condition, [a, b], &outputs[0]),
    }
}

fn select_bits<E: Lane>(cpu: &Cpu, condition: &Tensor, [a, b]: [&Tensor; 2], y: &Tensor) -> Result<()> {
    let walk = Walk::broadcast(y.shape(), [condition, a, b].map(Tensor::layout));
    let [condition, a, b] = [condition, a, b].map(Elements::new);
    let mut memory = write(y)?;
    let y = &mut bytemuck::cast_slice_mut::<u8, E>(memory.bytes())[..walk.elements()];
    cpu.pool.chunks_mut(y, TASK, |i, y| {
        scratch(2 * RUN, |pair: &mut [E]| {
            let (a_run, b_run) = pair.split_at_mut(RUN);
            let mut conditions = [0u8; RUN];
            blocks(&walk, i * TASK, y, |fill, y| {
                let condition = fill.run(0, &condition, &mut conditions[..y.len()]);
                let a = fill.run(1, &a, &mut a_run[..y.len()]);
                let b = fill.run(2, &b, &mut b_run[..y.len()]);
                for (y, (c, (a, b))) in y.iter_mut().zip(condition.iter().zip(a.iter().zip(b))) {
                    *y = if *c != 0 { *a } else { *b };
                }
            });
        });
    });
    Ok(())
}

/// `y[i] = f(x[i])`.
#[inline(always)]
pub(super) fn map<E: Copy, R, const N: usize>(x: [&[E]; N], y: &mut [R], f: impl Fn([E; N]) -> R) {
    let n = y.len();
    // Cut to one length here, the loop has no bounds to check.
    let x = x.map(|x| &x[..n]);
    for (i, y) in y.iter_mut().enumerate() {
        *y = f(x.map(|x| x[i]));
    }
}

/// Calls `f` with runs of float arguments, widened, and what becomes of them: rounded to the result's dtype.
fn floats<W: Real, const N: usize>(
    cpu: &Cpu,
    task: usize,
    inputs: [&Tensor; N],
    y: &Tensor,
    f: impl Fn([&[W]; N], &mut [W]) + Sync,
) -> Result<()> {
    let dtype = y.dtype();
    runs::<W, N>(cpu, task, inputs, y, |run, y| with_row(dtype, y, |y| f(run, y)))
}

/// Calls `f` with runs of integer arguments and what becomes of them.
fn integers<E: Lane, const N: usize>(
    cpu: &Cpu,
    inputs: [&Tensor; N],
    y: &Tensor,
    f: impl Fn([&[E]; N], &mut [E]) + Sync,
) -> Result<()> {
    runs::<E, N>(cpu, TASK, inputs, y, |run, y| f(run, bytemuck::cast_slice_mut(y)))
}

/// The longest run that is gathered: with its copies it stays in the first cache.
const RUN: usize = 1024;
/// Runs of the arguments that are shorter than this are gathered into longer ones.
const SHORT: usize = 64;

/// Calls `f` with runs of the arguments and the bytes of the result that they give, in parallel.
fn runs<E: Lane, const N: usize>(
    cpu: &Cpu,
    task: usize,
    inputs: [&Tensor; N],
    y: &Tensor,
    f: impl Fn([&[E]; N], &mut [u8]) + Sync,
) -> Result<()> {
    let walk = Walk::broadcast(y.shape(), inputs.map(Tensor::layout));
    let inputs = inputs.map(Elements::new);
    let unit = y.dtype().unit_bytes();
    let mut memory = write(y)?;
    let y = &mut memory.bytes()[..walk.elements() * unit];
    cpu.pool.chunks_mut(y, task * unit, |i, y| {
        scratch(N * RUN, |memory: &mut [E]| {
            let mut memory = memory.chunks_exact_mut(RUN);
            let mut gathered: [&mut [E]; N] = std::array::from_fn(|_| memory.next().expect("one for each argument"));
            blocks_of(&walk, i * task, y, unit, |fill, y| {
                let length = y.len() / unit;
                let mut k = 0;
                let run = gathered.each_mut().map(|gathered| {
                    k += 1;
                    fill.run(k - 1, &inputs[k - 1], &mut gathered[..length])
                });
                f(run, y);
            });
        });
    });
    Ok(())
}

/// Where the arguments of a block of results lie.
enum Block<'a, const N: usize> {
    /// Each in one run.
    Run { offsets: [usize; N], steps: [usize; N] },
    /// In many short runs.
    Short { walk: &'a Walk<N>, start: usize },
}

impl<const N: usize> Block<'_, N> {
    /// Argument `k`, as many elements as `gathered` has: where it lies, or gathered.
    fn run<'s, E: Lane>(&self, k: usize, from: &'s Elements<'_>, gathered: &'s mut [E]) -> &'s [E] {
        match self {
            Self::Run { offsets, steps } => from.run(offsets[k], steps[k], gathered),
            Self::Short { walk, start } => {
                let (step, mut at) = (walk.steps()[k], 0);
                for run in walk.runs(*start..start + gathered.len()) {
                    from.load(run.offsets[k], step, &mut gathered[at..][..run.length]);
                    at += run.length;
                }
                gathered
            }
        }
    }
}

/// Cuts results, the first of which is element `start`, into blocks of at most [`RUN`].
fn blocks<T, const N: usize>(walk: &Walk<N>, start: usize, y: &mut [T], f: impl FnMut(Block<'_, N>, &mut [T])) {
    blocks_of(walk, start, y, 1, f);
}

/// As [`blocks`], where `unit` entries of `y` are a result.
fn blocks_of<T, const N: usize>(
    walk: &Walk<N>,
    start: usize,
    y: &mut [T],
    unit: usize,
    mut f: impl FnMut(Block<'_, N>, &mut [T]),
) {
    if walk.inner() < SHORT {
        for (i, y) in y.chunks_mut(RUN * unit).enumerate() {
            f(Block::Short { walk, start: start + i * RUN }, y);
        }
        return;
    }
    let (steps, mut rest) = (walk.steps(), y);
    for run in walk.runs(start..start + rest.len() / unit) {
        let y = rest.split_off_mut(..run.length * unit).expect("the runs are as long as the results");
        for (i, y) in y.chunks_mut(RUN * unit).enumerate() {
            let offsets = std::array::from_fn(|k| run.offsets[k] + i * RUN * steps[k]);
            f(Block::Run { offsets, steps }, y);
        }
    }
}
