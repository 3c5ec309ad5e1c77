// Random numbers as a function of where they stand.
// seeds [rows, 2], positions [rows] -> y [rows, columns] f32
// grid rows x columns / 4 / 256 | workgroup 256 | shared none
//@ include float
//@ include math
//@ include trigonometry
//@ include philox

//@ entry random_numbers
// y may be some columns of the result, from block `first_block` of each row on.
//@ parameters at_seeds: Layout, at_positions: Layout, columns: u32, blocks: u32, n: u32, distribution: u32, first_block: u32
//@ output y: f32
//@ input seeds: u32
//@ input positions: u32
@compute @workgroup_size(256)
fn random_numbers(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = (group.y * groups.x + group.x) * 256u + lane;
    if (i >= p.n) { return; }
    let row = i / p.blocks;
    let block = i % p.blocks;
    let key = vec2<u32>(seeds_at(at_seeds_of(2u * row)), seeds_at(at_seeds_of(2u * row + 1u)));
    var u = uniforms(key, positions_at(at_positions_of(row)), p.first_block + block);
    if (p.distribution == 2u) {
        for (var j = 0u; j < 4u; j++) { u[j] = gumbel(u[j]); }
    } else if (p.distribution == 1u) {
        for (var j = 0u; j < 4u; j += 2u) {
            let radius = sqrt(-2.0 * log_of(u[j]));
            let angle = u[j + 1u] * 6.2831853;
            u[j + 1u] = radius * sin_of(angle);
            u[j] = radius * cos_of(angle);
        }
    }
    for (var j = 0u; j < 4u; j++) {
        let at = 4u * block + j;
        if (at < p.columns) { y_store(row * p.columns + at, vec2<f32>(u[j], 0.0)); }
    }
}
