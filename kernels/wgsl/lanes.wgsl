// What kernels share whose workgroups are one subgroup of LANES invocations.

// Which element of a run is a lane's `i`th, where results are written in words of `count` elements.
fn element_of(lane: u32, i: u32, count: u32) -> u32 { return (i / count * LANES + lane) * count + i % count; }
