//! WGSL sources. One file per op family; what a source leaves open (dtypes, tiles, bindings) is expanded by `puna-wgpu` when it is compiled:
//! lines that begin with `//@`, which its `source.rs` explains.

macro_rules! sources {
    ($($file:literal)*) => {
        &[$(($file, include_str!(concat!("../wgsl/", $file)))),*]
    };
}

/// The kernels: name and text.
pub const KERNELS: &[(&str, &str)] = sources! {
    "elementwise.wgsl" "copy.wgsl" "cast.wgsl" "decode.wgsl" "index.wgsl" "reduce.wgsl" "sort.wgsl" "random.wgsl" "matmul.wgsl" "int8.wgsl"
    "softmax.wgsl" "norm.wgsl" "rope.wgsl" "mlp.wgsl" "loss.wgsl" "optimizer.wgsl" "attention.wgsl"
    "sampling.wgsl"
};

/// What they include.
pub const HEADERS: &[(&str, &str)] = sources! {
    "prelude.wgsl" "float.wgsl" "word.wgsl" "long.wgsl" "math.wgsl" "trigonometry.wgsl" "philox.wgsl" "group.wgsl" "blocks.wgsl" "rotate.wgsl"
    "lanes.wgsl" "norming.wgsl" "sequences.wgsl" "attending.wgsl" "starts.wgsl" "slopes.wgsl" "over_queries.wgsl"
};

/// The text of the kernel of this name.
///
/// # Panics
/// Where there is none.
pub fn kernel(name: &str) -> &'static str {
    find(KERNELS, name)
}

/// The text of the header of this name.
///
/// # Panics
/// Where there is none.
pub fn header(name: &str) -> &'static str {
    find(HEADERS, name)
}

fn find(sources: &'static [(&str, &str)], name: &str) -> &'static str {
    sources.iter().find(|(known, _)| *known == name).unwrap_or_else(|| panic!("no WGSL source is called {name}")).1
}
