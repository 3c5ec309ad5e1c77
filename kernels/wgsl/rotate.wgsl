// One element of a rotary embedding, for the bindings of rope.wgsl.
fn rotated(i: u32) -> f32 {
    let dim = 2u * p.half;
    let d = i % dim;
    let position = positions_at(i / (dim * p.heads));
    // The pair that it is of, and whether it is the second there: pairs are d and d + dim / 2 (halves), else 2 d and 2 d + 1.
    let halves = p.halves == 1u;
    let pair = select(d / 2u, d % p.half, halves);
    let second = select((d & 1u) == 1u, d >= p.half, halves);
    let step = select(1u, p.half, halves);
    var cosine = 0.0;
    var sine = 0.0;
    if (position < p.rows) {
        cosine = cosines_at(position * p.half + pair);
        sine = sines_at(position * p.half + pair);
    }
    if (p.inverse == 1u) { sine = -sine; }
    if (second) { return x_at(i) * cosine + x_at(i - step) * sine; }
    return x_at(i) * cosine - x_at(i + step) * sine;
}
