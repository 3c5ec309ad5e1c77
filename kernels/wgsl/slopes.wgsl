// The weight of a key for a query's head, and its score's derivative. `at`: the head's row among all queries', `row`: the key's among all keys'.
fn weight_of(at: u32, row: u32) -> f32 {
    var score = 0.0;
    for (var d = 0u; d < DIM; d++) { score = fma(q_at(at * DIM + d), k_at(row * DIM + d), score); }
    return exp_of(score * p.scale - lse_at(at));
}
fn slope_of(at: u32, row: u32) -> f32 {
    var dp = 0.0;
    for (var d = 0u; d < V_DIM; d++) { dp = fma(dy_at(at * V_DIM + d), v_at(row * V_DIM + d), dp); }
    return weight_of(at, row) * (dp - delta_at(at)) * p.scale;
}
