// What every kernel begins with: layouts, and the bits of numbers. Storage is words; how elements lie in them, the accessors know that are
// made for each binding.

// The axes of a view, merged where they form one run, the last first; length and stride of two of them in a vector. Where the first element
// lies, a binding's accessors add; where the others lie from there, `lx_of(i)` says of a layout `lx` among the parameters, counted in row-major
// order. It is made for each, and reads the uniform itself: a copy would be indexed in memory of every invocation's own.
struct Layout {
    rank: u32,
    unused0: u32,
    unused1: u32,
    unused2: u32,
    axes: array<vec4<u32>, 3>,
}

// Compilers may take it that no number is infinite or NaN; what must know looks at bits, and takes them from where no compiler sees.
var<private> INFINITY_BITS: u32 = 0x7f800000u;
var<private> NAN_BITS: u32 = 0x7fc00000u;
fn infinity() -> f32 { return bitcast<f32>(INFINITY_BITS); }
fn not_a_number() -> f32 { return bitcast<f32>(NAN_BITS); }
fn is_nan(x: f32) -> bool { return (bitcast<u32>(x) & 0x7fffffffu) > 0x7f800000u; }
fn is_finite(x: f32) -> bool { return (bitcast<u32>(x) & 0x7fffffffu) < 0x7f800000u; }

fn of_bf16(bits: u32) -> f32 { return bitcast<f32>(bits << 16u); }
fn of_f16(bits: u32) -> f32 { return unpack2x16float(bits).x; }

// Rounded to nearest, ties to even, in integers: what drivers' own conversions do is theirs to choose.
fn bf16_bits(x: f32) -> u32 {
    let u = bitcast<u32>(x);
    if ((u & 0x7fffffffu) > 0x7f800000u) { return 0x7fffu; }
    return (u + 0x7fffu + ((u >> 16u) & 1u)) >> 16u;
}
fn f16_bits(x: f32) -> u32 {
    let u = bitcast<u32>(x);
    let sign = (u >> 16u) & 0x8000u;
    let m = u & 0x7fffffffu;
    if (m > 0x7f800000u) { return sign | 0x7e00u; }
    if (m >= 0x47800000u) { return sign | 0x7c00u; }
    // Below 2^-14 the steps are those that a float has at 1/2.
    if (m < 0x38800000u) { return sign | (bitcast<u32>(bitcast<f32>(m) + 0.5) - 0x3f000000u); }
    return sign | ((m + 0xfffu + ((m >> 13u) & 1u) - 0x38000000u) >> 13u);
}

// The 64 bits of a product, the lower half first.
fn wide_product(a: u32, b: u32) -> vec2<u32> {
    let a0 = a & 0xffffu;
    let a1 = a >> 16u;
    let b0 = b & 0xffffu;
    let b1 = b >> 16u;
    let low = a0 * b0;
    let middle = a1 * b0 + (low >> 16u);
    let other = a0 * b1 + (middle & 0xffffu);
    return vec2<u32>(a * b, a1 * b1 + (middle >> 16u) + (other >> 16u));
}
