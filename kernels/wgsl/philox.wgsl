// Philox4x32-10 and what is made of its words. Salmon and others 2011.

// Four numbers in (0, 1), those from 4 `block` on: 23 bits and a half of each word, exact in f32.
fn uniforms(key: vec2<u32>, position: u32, block: u32) -> vec4<f32> {
    var c = vec4<u32>(block, position, 0u, 0u);
    var k = key;
    for (var round = 0u; round < 10u; round++) {
        let a = wide_product(0xd2511f53u, c.x);
        let b = wide_product(0xcd9e8d57u, c.z);
        c = vec4<u32>(b.y ^ c.y ^ k.x, b.x, a.y ^ c.w ^ k.y, a.x);
        k += vec2<u32>(0x9e3779b9u, 0xbb67ae85u);
    }
    return (vec4<f32>(c >> vec4<u32>(9u)) + 0.5) * 1.1920928955078125e-7;
}

// -ln(-ln u). Near 1 the inner logarithm is small, and as exact as near 0.
fn gumbel(u: f32) -> f32 { return -log_of(-log_of(u)); }
