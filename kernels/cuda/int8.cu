// Activations as 8-bit integers with a scale for each 32 of a row, as puna-quant defines them: a warp a block.
// x [rows, k] f32 -> the same multiplied out again; or q [rows, k] s8, d [rows, k / 32], sums [rows, k / 16] of q
// grid blocks / 8 | block 256 | shared none
// bound by bandwidth.
#include "common.cuh"

typedef signed char s8;

// x rounded to 8-bit integers with a scale for each 32 of a row, as puna-quant defines it, and multiplied out again: a warp a block.
extern "C" __global__ void __launch_bounds__(256) int8_blocks(float* __restrict__ y, const float* __restrict__ x, const Layout lx, u32 columns, u32 blocks, u64 n) {
    const u64 i = thread_number() / 32, row = i / blocks;
    const u32 k = (u32)(i % blocks) * 32 + (threadIdx.x & 31);
    if (i >= n) return;
    const float v = k < columns ? x[offset_of(lx, row * columns + k)] : 0.0f;
    // The order of magnitudes is that of their bits, with infinities and NaNs above all numbers.
    u32 largest = float_bits(v) & 0x7FFFFFFFu;
#pragma unroll
    for (int o = 16; o > 0; o >>= 1) largest = max(largest, __shfl_xor_sync(0xFFFFFFFFu, largest, o));
    if (k >= columns) return;
    float out = 0.0f;
    if (largest >= 0x7F800000u) {
        out = NOT_A_NUMBER;
    } else {
        const float d = __fdiv_rn(bits_float(largest), 127.0f);
        if (d >= 1.17549435e-38f) out = __fmul_rn(d, rintf(__fmul_rn(v, __fdiv_rn(1.0f, d))));
    }
    y[row * columns + k] = out;
}

// Rows of f32 to 8-bit integers with a scale for each 32, as puna-quant defines it, and the sums of each 16: a warp a block of 32.
extern "C" __global__ void __launch_bounds__(256)
int8_rows(s8* __restrict__ q, float* __restrict__ d, float* __restrict__ sums, const float* __restrict__ x, u64 n) {
    const u64 block = thread_number() / 32;
    const int lane = threadIdx.x & 31;
    if (block >= n) return;
    const float v = x[block * 32 + lane];
    u32 largest = float_bits(v) & 0x7FFFFFFFu;
#pragma unroll
    for (int o = 16; o > 0; o >>= 1) largest = max(largest, __shfl_xor_sync(0xFFFFFFFFu, largest, o));
    float scale = 0.0f;
    int quant = 0;
    if (largest >= 0x7F800000u) {
        scale = NOT_A_NUMBER;
    } else if (__fdiv_rn(bits_float(largest), 127.0f) >= 1.17549435e-38f) {
        scale = __fdiv_rn(bits_float(largest), 127.0f);
        quant = (int)rintf(__fmul_rn(v, __fdiv_rn(1.0f, scale)));
    }
    q[block * 32 + lane] = (s8)quant;
    int sum = quant;
#pragma unroll
    for (int o = 8; o > 0; o >>= 1) sum += __shfl_xor_sync(0xFFFFFFFFu, sum, o);
    if (lane % 16 == 0) sums[block * 2 + lane / 16] = (float)sum;
    if (lane == 0) d[block] = scale;
}
