//! What no binding shows at once is worked on in parts.

use puna_tensor::Result;

use super::copy::contiguous;
use crate::backend::{Scratch, Wgpu};
use crate::source::Number;
use crate::view::View;

/// Runs `f` on results `y` and inputs `x`, whose first `axes` axes are the same: on all of them where bindings show them, else on parts along
/// those axes. See [`in_parts_of`].
pub(super) fn in_parts<const Y: usize, const X: usize>(
    wgpu: &Wgpu,
    axes: usize,
    y: [&View; Y],
    x: [&View; X],
    f: &impl Fn([&View; Y], [&View; X]) -> Result<()>,
) -> Result<()> {
    let views: Vec<_> = y.into_iter().chain(x).map(Some).collect();
    in_parts_of(wgpu, axes, Y, &views, &|views| {
        let given = |i: usize| views[i].expect("as many as were given");
        f(std::array::from_fn(given), std::array::from_fn(|i| given(Y + i)))
    })
}

/// The same of views some of which are missing, the first `results` of them results. Those lie in row-major order, and are cut where words
/// begin; inputs that lie apart are brought together where that makes them small enough.
pub(super) fn in_parts_of(
    wgpu: &Wgpu,
    axes: usize,
    results: usize,
    views: &[Option<&View>],
    f: &dyn Fn(&[Option<&View>]) -> Result<()>,
) -> Result<()> {
    let shown = |views: &[Option<&View>]| views.iter().flatten().all(|view| wgpu.shows(view));
    if shown(views) {
        return f(views);
    }
    let (y, x) = views.split_at(results);
    let apart = |view: &View| !wgpu.shows(view) && view.bytes() <= wgpu.window();
    if shown(y) && x.iter().flatten().all(|view| wgpu.shows(view) || apart(view)) {
        let gather = |view: &Option<&View>| view.filter(|view| apart(view)).map(|view| contiguous(wgpu, view)).transpose();
        let gathered = x.iter().map(gather).collect::<Result<Vec<Option<Scratch>>>>()?;
        let x = x.iter().zip(&gathered).map(|(view, gathered)| gathered.as_deref().or(*view));
        return f(&y.iter().copied().chain(x).collect::<Vec<_>>());
    }
    let first = views.iter().flatten().next().expect("what is not shown is there");
    let cut = (0..axes).find(|&axis| first.shape()[axis] > 1).and_then(|axis| {
        let step = y.iter().flatten().map(|view| step(view, axis)).max().unwrap_or(1);
        Some((axis, halves(first.shape()[axis], step)?))
    });
    if let Some((axis, halves)) = cut {
        return halves.into_iter().try_for_each(|(start, length)| {
            let parts: Vec<_> = views.iter().map(|view| view.map(|view| view.part(axis, start, length))).collect();
            in_parts_of(wgpu, axes, results, &parts.iter().map(Option::as_ref).collect::<Vec<_>>(), f)
        });
    }
    if axes < 2 || axes < first.shape().rank() {
        // The binding says what does not fit.
        return f(views);
    }
    // Rows that fill no whole words, and too few of them: all of it as one.
    let own = x.iter().map(|view| view.map(|view| contiguous(wgpu, view)).transpose()).collect::<Result<Vec<_>>>()?;
    let x = own.iter().map(Option::as_deref);
    let flat: Vec<_> = y.iter().copied().chain(x).map(|view| view.map(|view| view.in_shape(view.elements()))).collect();
    in_parts_of(wgpu, 1, results, &flat.iter().map(Option::as_ref).collect::<Vec<_>>(), f)
}

/// Beginnings and lengths of two parts of as many entries, the second begun at a multiple of `step`; `None` where that leaves nothing of it.
pub(super) fn halves(length: usize, step: usize) -> Option<[(usize, usize); 2]> {
    let half = (length / 2).next_multiple_of(step);
    (0 < half && half < length).then_some([(0, half), (half, length - half)])
}

/// Of how many entries of an axis a part is to be, so that the next begins at a whole word, and with a whole block.
fn step(view: &View, axis: usize) -> usize {
    let stride = view.layout.strides()[axis];
    let (unit, count) = (view.dtype.unit(), Number::of(view.dtype).count());
    let whole = |step: &usize| match view.dtype.block() {
        Some(block) => step * stride % unit == 0 && step * stride / unit * block.bytes() % 4 == 0,
        None => step * stride % count == 0,
    };
    (0..16).map(|power| 1 << power).find(whole).unwrap_or(1)
}

/// Parts of the first axis that a binding shows, brought together where they lie apart, in order: where each begins, and how many entries it has,
/// one at least.
pub(super) fn shown_parts(wgpu: &Wgpu, view: &View) -> impl Iterator<Item = (usize, usize)> + use<> {
    let length = view.shape()[0];
    let most = if wgpu.shows(view) {
        length
    } else {
        let step = step(view, 0);
        let parts = view.bytes().div_ceil(wgpu.window() / 2).max(1);
        (length / parts / step * step).max(step)
    };
    (0..length).step_by(most.max(1)).map(move |first| (first, most.min(length - first)))
}
