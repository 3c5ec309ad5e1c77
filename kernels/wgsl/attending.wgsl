// What the forward kernels of attention take, whichever way they go: see attention.wgsl. Rows of no sequence are zeros, or (`keep`) what they were.
//@ parameters heads: u32, kv_heads: u32, sequences: u32, keys: u32, causal: u32, columns: u32, page_size: u32, page_count: u32, keep: u32, has_lse: u32, tokens: u32, dim: u32, v_dim: u32, scale: f32
//@ output y: Y
//@ output lse: f32
//@ input q: X
//@ input k: W
//@ input v: W
//@ input q_starts: u32
//@ input k_starts: u32
//@ if PAGED
//@ input pages: u32
//@ end
//@ include sequences

fn exps(e: vec4<f32>) -> vec4<f32> { return vec4<f32>(exp_of(e.x), exp_of(e.y), exp_of(e.z), exp_of(e.w)); }
fn largers(a: vec4<f32>, b: vec4<f32>) -> vec4<f32> {
    return vec4<f32>(larger(a.x, b.x), larger(a.y, b.y), larger(a.z, b.z), larger(a.w, b.w));
}
// Where row `i` of those that share the keys of a head lies among all heads of all tokens.
fn head_of(i: u32, kv_head: u32) -> u32 {
    let heads_of = p.heads / p.kv_heads;
    return i / heads_of * p.heads + kv_head * heads_of + i % heads_of;
}
