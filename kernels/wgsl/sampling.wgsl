// Draws the next token of each row: penalties, bias, temperature (sample_prepare); top-k, top-p, min-p, and the largest of logit and Gumbel
// noise (sample_draw). A row per workgroup.
// logits [rows, V] X, contiguous; parameters [rows, 7] -> ids, log_probabilities [rows]; x [rows, V] f32, what is left before the draw; between
// the two norms [rows, 2]: the largest logit, and the logarithm of the sum of exponentials relative to it
// grid rows | workgroup 256 | shared some 5 KiB              X: from the launch
// bound by the latency of some ten passes over a row in cache, those of filters that are off left out.
// No sort: thresholds are found digit by digit of the values' order, with counts for top-k and masses for top-p, both integers, whose sums
// have no order. The same for any neighbours.
const GROUP: u32 = 256u;
//@ include float
//@ include math

//@ entry sample_prepare
//@ parameters vocab: u32, rows: u32, history_length: u32, bias_length: u32
//@ output x: f32
//@ output norms: f32
//@ input logits: X
//@ input parameters: f32
//@ input history: u32
//@ input generated_from: u32
//@ input bias_ids: u32
//@ input bias: f32
//@ include group
fn put(i: u32, v: f32) { x_store(i, vec2<f32>(v, 0.0)); }
@compute @workgroup_size(256)
fn sample_prepare(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let row = group.y * groups.x + group.x;
    if (row >= p.rows) { return; }
    let first = row * p.vocab;
    let temperature = parameters_at(row * 7u);
    let repetition = parameters_at(row * 7u + 4u);
    let frequency = parameters_at(row * 7u + 5u);
    let presence = parameters_at(row * 7u + 6u);
    var most = -infinity();
    for (var i = lane; i < p.vocab; i += GROUP) {
        let v = logits_at(first + i);
        put(first + i, v);
        most = larger(most, v);
    }
    most = group_largest(most, lane);
    var sum = 0.0;
    for (var i = lane; i < p.vocab; i += GROUP) { sum += exp_of(logits_at(first + i) - most); }
    sum = group_sum(sum, lane);
    if (lane == 0u) {
        norms_store(2u * row, vec2<f32>(most, 0.0));
        norms_store(2u * row + 1u, vec2<f32>(log_of(sum), 0.0));
    }
    storageBarrier();
    // Penalties: whoever has the first of equal tokens of the history applies theirs.
    let own = row * p.history_length;
    let begin = generated_from_at(row);
    for (var j = lane; j < p.history_length; j += GROUP) {
        let id = history_at(own + j);
        if (id >= p.vocab) { continue; }
        var is_first = true;
        for (var i = 0u; i < j && is_first; i++) { is_first = history_at(own + i) != id; }
        if (!is_first) { continue; }
        var generated = 0.0;
        for (var i = max(j, begin); i < p.history_length; i++) { generated += select(0.0, 1.0, history_at(own + i) == id); }
        let v = x_at(first + id);
        var penalised = v / repetition;
        if (v < 0.0) { penalised = v * repetition; }
        put(first + id, (penalised - generated * frequency) - select(0.0, presence, generated > 0.0));
    }
    storageBarrier();
    let own_bias = row * p.bias_length;
    for (var j = lane; j < p.bias_length; j += GROUP) {
        let id = bias_ids_at(own_bias + j);
        if (id >= p.vocab) { continue; }
        var is_first = true;
        for (var i = 0u; i < j && is_first; i++) { is_first = bias_ids_at(own_bias + i) != id; }
        if (!is_first) { continue; }
        var all = 0.0;
        for (var i = j; i < p.bias_length; i++) {
            if (bias_ids_at(own_bias + i) == id) { all += bias_at(own_bias + i); }
        }
        put(first + id, x_at(first + id) + all);
    }
    storageBarrier();
    if (temperature == 0.0 || temperature == 1.0) { return; }
    for (var i = lane; i < p.vocab; i += GROUP) { put(first + i, x_at(first + i) / temperature); }
}

//@ entry sample_draw
//@ parameters vocab: u32, rows: u32
//@ output ids: u32
//@ output log_probabilities: f32
//@ output x: f32
//@ input norms: f32
//@ input logits: X
//@ input parameters: f32
//@ input seeds: u32
//@ input positions: u32
//@ include group
//@ include philox
var<workgroup> counts: array<atomic<u32>, 256>;
// The masses of digits in three limbs of 13 bits each, summed apart: of no more than 2^18 values no sum is beyond a word.
var<workgroup> masses: array<atomic<u32>, 768>;
var<workgroup> places: array<u32, 256>;
var<workgroup> prefix: u32;
var<workgroup> ties: u32;
var<workgroup> left: u32;
var<workgroup> beyond: vec2<u32>;
var<workgroup> bound: vec2<u32>;

fn remove(i: u32) { x_store(i, vec2<f32>(-infinity(), 0.0)); }

// A number that is ordered as the value is; NaN above all others, -0 as 0.
fn order_of(v: f32) -> u32 {
    if (is_nan(v)) { return 0xffffffffu; }
    let bits = select(bitcast<u32>(v), 0u, v == 0.0);
    return bits ^ select(0x80000000u, 0xffffffffu, (bits >> 31u) == 1u);
}

fn sum_of(a: vec2<u32>, b: vec2<u32>) -> vec2<u32> {
    let low = a.x + b.x;
    return vec2<u32>(low, a.y + b.y + select(0u, 1u, low < a.x));
}
fn is_less(a: vec2<u32>, b: vec2<u32>) -> bool { return a.y < b.y || (a.y == b.y && a.x < b.x); }

// What a probability is counted as: its share of the largest, in units of 2^-39; added to a digit's masses.
fn add_mass(digit: u32, share: f32) {
    let high = floor(share * 8192.0);
    let rest = share * 8192.0 - high;
    let middle = floor(rest * 8192.0);
    let low = floor((rest * 8192.0 - middle) * 8192.0);
    atomicAdd(&masses[digit], u32(low));
    atomicAdd(&masses[256u + digit], u32(middle));
    atomicAdd(&masses[512u + digit], u32(high));
}
fn mass_of(digit: u32) -> vec2<u32> {
    let middle = atomicLoad(&masses[256u + digit]);
    let high = atomicLoad(&masses[512u + digit]);
    let two = sum_of(vec2<u32>(atomicLoad(&masses[digit]), 0u), vec2<u32>(middle << 13u, middle >> 19u));
    return sum_of(two, vec2<u32>(high << 26u, high >> 6u));
}

// `share` of a mass.
fn part_of(share: f32, whole: vec2<u32>) -> vec2<u32> {
    if (!(share > 0.0)) { return vec2<u32>(0u, 0u); }
    let bits = bitcast<u32>(share);
    let m = (bits & 0x7fffffu) | 0x800000u;
    // share = m 2^-down; the product without its lowest 32 bits.
    let down = 150u - (bits >> 23u);
    let product = sum_of(wide_product(whole.y, m), vec2<u32>(wide_product(whole.x, m).y, 0u));
    if (down < 32u) {
        let up = 32u - down;
        return vec2<u32>(product.x << up, (product.y << up) | (product.x >> down));
    }
    if (down == 32u) { return product; }
    if (down < 64u) { return vec2<u32>((product.x >> (down - 32u)) | (product.y << (64u - down)), product.y >> (down - 32u)); }
    return vec2<u32>(0u, 0u);
}

fn clear(lane: u32) {
    atomicStore(&counts[lane], 0u);
    for (var limb = 0u; limb < 3u; limb++) { atomicStore(&masses[limb * 256u + lane], 0u); }
}

// Takes what is smaller than the k-th largest away.
fn keep_top_k(first: u32, k: u32, lane: u32) {
    if (lane == 0u) {
        prefix = 0u;
        left = k;
    }
    var mask = 0u;
    for (var digits = 4u; digits > 0u; digits--) {
        let shift = 8u * (digits - 1u);
        clear(lane);
        let known = workgroupUniformLoad(&prefix);
        for (var i = lane; i < p.vocab; i += GROUP) {
            let order = order_of(x_at(first + i));
            if ((order & mask) == known) { atomicAdd(&counts[(order >> shift) & 255u], 1u); }
        }
        workgroupBarrier();
        if (lane == 0u) {
            var digit = 255u;
            for (; digit > 0u; digit--) {
                let count = atomicLoad(&counts[digit]);
                if (count >= left) { break; }
                left -= count;
            }
            prefix = known | (digit << shift);
        }
        mask |= 255u << shift;
        workgroupBarrier();
    }
    let threshold = workgroupUniformLoad(&prefix);
    for (var i = lane; i < p.vocab; i += GROUP) {
        if (order_of(x_at(first + i)) < threshold) { remove(first + i); }
    }
    storageBarrier();
    workgroupBarrier();
}

// Takes away what, the largest first, has a mass of `share` of the whole or more before it; the first stays.
fn keep_top_p(first: u32, share: f32, most: f32, countable: bool, lane: u32) {
    if (lane == 0u) {
        // Of values that are not finite the first of the largest stays.
        prefix = order_of(most);
        ties = 1u;
    }
    if (countable) {
        clear(lane);
        workgroupBarrier();
        for (var i = lane; i < p.vocab; i += GROUP) { add_mass(0u, exp_of(x_at(first + i) - most)); }
        workgroupBarrier();
        if (lane == 0u) {
            bound = part_of(share, mass_of(0u));
            beyond = vec2<u32>(0u, 0u);
            prefix = 0u;
        }
        var mask = 0u;
        for (var digits = 4u; digits > 0u; digits--) {
            let shift = 8u * (digits - 1u);
            workgroupBarrier();
            clear(lane);
            let known = workgroupUniformLoad(&prefix);
            for (var i = lane; i < p.vocab; i += GROUP) {
                let v = x_at(first + i);
                let order = order_of(v);
                if ((order & mask) != known) { continue; }
                let digit = (order >> shift) & 255u;
                add_mass(digit, exp_of(v - most));
                atomicAdd(&counts[digit], 1u);
            }
            workgroupBarrier();
            if (lane == 0u) {
                // The lowest digit in which something has less than the bound before it; the highest that there is, at least.
                var before = beyond;
                var last = 0u;
                var found = false;
                for (var d = 256u; d > 0u; d--) {
                    let digit = d - 1u;
                    let count = atomicLoad(&counts[digit]);
                    if (count == 0u) { continue; }
                    if (found && !is_less(before, bound)) { break; }
                    found = true;
                    last = digit;
                    beyond = before;
                    ties = count;
                    before = sum_of(before, mass_of(digit));
                }
                prefix = known | (last << shift);
                if (shift == 0u) { ties = tied(last); }
            }
            mask |= 255u << shift;
        }
    }
    let threshold = workgroupUniformLoad(&prefix);
    let stay = workgroupUniformLoad(&ties);
    // Of the equal ones the first by place: each invocation takes a run of places, and knows how many stand before it.
    let run = (p.vocab + GROUP - 1u) / GROUP;
    let begin = min(lane * run, p.vocab);
    let end = min(begin + run, p.vocab);
    var own = 0u;
    for (var i = begin; i < end; i++) { own += select(0u, 1u, order_of(x_at(first + i)) == threshold); }
    places[lane] = own;
    workgroupBarrier();
    var earlier = 0u;
    for (var l = 0u; l < lane; l++) { earlier += places[l]; }
    for (var i = begin; i < end; i++) {
        let order = order_of(x_at(first + i));
        if (order == threshold) {
            if (earlier >= stay) { remove(first + i); }
            earlier++;
        } else if (order < threshold) {
            remove(first + i);
        }
    }
    storageBarrier();
    workgroupBarrier();
}

// How many of the equal values at the threshold begin below the bound: their masses are equal.
fn tied(digit: u32) -> u32 {
    let count = atomicLoad(&counts[digit]);
    // One value's mass, from the limbs of all.
    let low = atomicLoad(&masses[digit]) / count;
    let middle = atomicLoad(&masses[256u + digit]) / count;
    let high = atomicLoad(&masses[512u + digit]) / count;
    let each = sum_of(vec2<u32>(low | (middle << 13u), 0u), vec2<u32>(high << 26u, high >> 6u));
    // The least number whose masses reach it.
    var least = 1u;
    var most = count;
    while (least < most) {
        let half = (least + most) / 2u;
        let some = wide_product(each.x, half);
        if (is_less(sum_of(beyond, vec2<u32>(some.x, some.y + each.y * half)), bound)) { least = half + 1u; } else { most = half; }
    }
    return least;
}

// Whether `a`, at place `at`, is chosen before `b`: the larger; of equal ones the lower place; a NaN, the first, before all.
const NOWHERE = 0xffffffffu;
fn is_chosen(a: f32, at: u32, b: f32, bt: u32) -> bool {
    if (at == NOWHERE) { return false; }
    if (bt == NOWHERE) { return true; }
    let an = is_nan(a);
    let bn = is_nan(b);
    if (an || bn) { return (an && bn && at < bt) || (an && !bn); }
    if (a == b) { return at < bt; }
    return b < a;
}

@compute @workgroup_size(256)
fn sample_draw(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let row = group.y * groups.x + group.x;
    if (row >= p.rows) { return; }
    let first = row * p.vocab;
    let temperature = parameters_at(row * 7u);
    let k = parameters_at(row * 7u + 1u);
    let share = parameters_at(row * 7u + 2u);
    let least = parameters_at(row * 7u + 3u);
    let greedy = temperature == 0.0;
    if (k >= 1.0 && k < f32(p.vocab)) { keep_top_k(first, u32(k), lane); }
    if (share < 1.0 || least > 0.0) {
        var most = -infinity();
        for (var i = lane; i < p.vocab; i += GROUP) { most = larger(most, x_at(first + i)); }
        most = group_largest(most, lane);
        let finite = is_finite(most);
        // Of nothing but -inf every probability is 0, and all stay.
        if (share < 1.0 && bitcast<u32>(most) != 0xff800000u) { keep_top_p(first, share, most, finite, lane); }
        if (least > 0.0 && finite) {
            for (var i = lane; i < p.vocab; i += GROUP) {
                if (exp_of(x_at(first + i) - most) < least) { remove(first + i); }
            }
        }
        storageBarrier();
        workgroupBarrier();
    }
    // The largest, with its noise.
    var best = -infinity();
    var at = NOWHERE;
    let key = vec2<u32>(seeds_at(2u * row), seeds_at(2u * row + 1u));
    for (var block = lane; block < (p.vocab + 3u) / 4u; block += GROUP) {
        var u = vec4<f32>();
        if (!greedy) { u = uniforms(key, positions_at(row), block); }
        for (var j = 0u; j < 4u; j++) {
            let i = 4u * block + j;
            if (i >= p.vocab) { continue; }
            var v = x_at(first + i);
            // What went needs no noise.
            if (!greedy && bitcast<u32>(v) != 0xff800000u) { v += gumbel(u[j]); }
            if (is_chosen(v, i, best, at)) {
                best = v;
                at = i;
            }
        }
    }
    room[lane] = best;
    places[lane] = at;
    workgroupBarrier();
    for (var width = GROUP / 2u; width > 0u; width = width >> 1u) {
        if (lane < width && is_chosen(room[lane + width], places[lane + width], room[lane], places[lane])) {
            room[lane] = room[lane + width];
            places[lane] = places[lane + width];
        }
        workgroupBarrier();
    }
    if (lane != 0u) { return; }
    let id = places[0];
    ids_store(row, vec2<u32>(id, 0u));
    log_probabilities_store(row, vec2<f32>(logits_at(first + id) - norms_at(2u * row) - norms_at(2u * row + 1u), 0.0));
}
