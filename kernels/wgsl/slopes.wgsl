// The weight of a key for a query's head, and its score's derivative. `at`: the head's row among all queries', `row`: the key's among all keys'.
fn weight_of(at: u32, row: u32) -> f32 {
    var score = 0.0;
    for (var d = 0u; d < p.dim; d++) { score = fma(q_at(at * p.dim + d), k_at(row * p.dim + d), score); }
    return exp_of(score * p.scale - lse_at(at));
}
fn slope_of(at: u32, row: u32) -> f32 {
    var dp = 0.0;
    for (var d = 0u; d < p.v_dim; d++) { dp = fma(dy_at(at * p.v_dim + d), v_at(row * p.v_dim + d), dp); }
    return weight_of(at, row) * (dp - delta_at(at)) * p.scale;
}
