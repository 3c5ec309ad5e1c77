//! Reductions whose results lie side by side where their values do: rows pass by, and are added to rows of lanes.

use puna_tensor::op::ReduceKind;
use puna_tensor::{Result, Tensor};

use super::{BLOCK, Groups, TASK, larger};
use crate::backend::Cpu;
use crate::memory::write;
use crate::ops::copy::lane::{Elements, Lane};
use crate::ops::wide::{Wide, scratch};
use crate::simd::vector::LANES;

/// How many results are formed together, at most: their lanes fit the first cache.
const COLUMNS: usize = 256;
/// Fewer are not worth it.
const FEWEST: usize = 16;

/// Whether results lie side by side and a group's values do not.
pub(super) fn fits(groups: &Groups) -> bool {
    let (starts, elements) = (&groups.starts, &groups.elements);
    let side_by_side = starts.steps()[0] == 1 && starts.inner() >= FEWEST;
    side_by_side && groups.size() > 1 && elements.steps()[0] != 1
}

/// Each result has the lanes, and the order of joining them, that [`vector`](crate::simd::vector) gives a sum: so it has the same bits.
pub(super) fn reduce<W: Wide + Lane>(
    cpu: &Cpu,
    kind: ReduceKind,
    groups: &Groups,
    x: &Tensor,
    y: &Tensor,
    store: impl Fn(&mut [W], &mut [u8]) + Sync,
) -> Result<()> {
    let (x, unit) = (Elements::new(x), y.dtype().unit_bytes());
    // Enough tasks for all threads, none of them tiny.
    let share = groups.count().div_ceil(2 * cpu.pool.threads()).next_multiple_of(FEWEST).clamp(FEWEST, COLUMNS);
    let task = share.max(TASK / groups.size() / share * share);
    let mut memory = write(y)?;
    let y = &mut memory.bytes()[..groups.count() * unit];
    cpu.pool.chunks_mut(y, task * unit, |i, mut y| {
        scratch((LANES + 2) * share, |memory: &mut [W]| {
            for run in groups.starts.runs(i * task..i * task + y.len() / unit) {
                for first in (0..run.length).step_by(share) {
                    let count = share.min(run.length - first);
                    let (row, rest) = memory[..(LANES + 2) * count].split_at_mut(count);
                    let (results, lanes) = rest.split_at_mut(count);
                    group(kind, groups, &x, run.offsets[0] + first, row, results, lanes);
                    store(results, y.split_off_mut(..count * unit).expect("the runs are as long as the results"));
                }
            }
        });
    });
    Ok(())
}

/// The results of the groups that begin at `start` and behind it.
fn group<W: Wide + Lane>(
    kind: ReduceKind,
    groups: &Groups,
    x: &Elements<'_>,
    start: usize,
    row: &mut [W],
    results: &mut [W],
    lanes: &mut [W],
) {
    let (n, step) = (row.len(), groups.elements.steps()[0]);
    let sums = matches!(kind, ReduceKind::Sum | ReduceKind::Mean);
    let of_none = if sums { W::ZERO } else { W::NEG_INFINITY };
    // The smallest is the largest of the negative values.
    let negate = |row: &mut [W]| row.iter_mut().for_each(|x| *x = -*x);
    let add = |from: &[W], into: &mut [W]| {
        if sums {
            W::add_row(from, into);
        } else {
            into.iter_mut().zip(from).for_each(|(into, from)| *into = larger(*into, *from));
        }
    };
    results.fill(of_none);
    for first in (0..groups.size()).step_by(BLOCK) {
        let block = first..(first + BLOCK).min(groups.size());
        lanes.fill(of_none);
        let mut i = 0;
        for run in groups.elements.runs(block) {
            for at in (0..run.length).map(|i| start + run.offsets[0] + i * step) {
                let lane = &mut lanes[i % LANES * n..][..n];
                if kind == ReduceKind::Min {
                    x.load(at, 1, row);
                    negate(row);
                    add(row, lane);
                } else {
                    add(x.run(at, 1, row), lane);
                }
                i += 1;
            }
        }
        if sums {
            for width in [8, 4, 2, 1] {
                let (lower, upper) = lanes[..2 * width * n].split_at_mut(width * n);
                add(upper, lower);
            }
            add(&lanes[..n], results);
        } else {
            lanes.chunks_exact(n).for_each(|lane| add(lane, results));
        }
    }
    if kind == ReduceKind::Min {
        negate(results);
    }
}
