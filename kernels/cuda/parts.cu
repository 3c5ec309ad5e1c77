// A matrix as two of bf16, one below the other: the nearest ones, and what they leave. Their sum holds all of an f16, of an f32 all but 2^-17 of it.
// x [rows, columns] X, contiguous -> y [2 rows, columns] bf16, rows `stride` apart
// grid rows | block 256 | shared none              X: from the launch
// bound by bandwidth: sizeof(X) + 4 bytes an element.
#include "number.cuh"

extern "C" __global__ void __launch_bounds__(256)
bf16_parts(bf16* __restrict__ y, const X* __restrict__ x, u64 rows, u64 columns, u64 stride) {
    const u64 row = block_number();
    if (row >= rows) return;
    for (u64 i = threadIdx.x; i < columns; i += 256) {
        const float v = widen(x[row * columns + i]);
        const bf16 high = narrow<bf16>(v);
        const float rest = v - widen(high);
        y[row * stride + i] = high;
        // Of what is not finite there is no rest.
        y[(rows + row) * stride + i] = narrow<bf16>(rest - rest == 0.0f ? rest : 0.0f);
    }
}
