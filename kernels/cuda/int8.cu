// Activations as 8-bit integers with a scale for each 32 of a row, as puna-quant defines them: a warp a block of 32.
// x [rows, k] f32 -> the same multiplied out again; or q [rows, k] s8, d [rows, k / 32], sums [rows, k / 16] of q
// grid blocks / 8 | block 256 | shared none
// bound by bandwidth.
#include "common.cuh"

typedef signed char s8;

// A lane's value in units of its block's scale, rounded to a whole number, whose sign a zero keeps; and that scale: NaN of a block that is
// not finite, 0 where what would be divided by it is too small.
__device__ __forceinline__ float quantized(float v, float& scale) {
    // The order of magnitudes is that of their bits, with infinities and NaNs above all numbers.
    u32 largest = float_bits(v) & 0x7FFFFFFFu;
#pragma unroll
    for (int o = 16; o > 0; o >>= 1) largest = max(largest, __shfl_xor_sync(0xFFFFFFFFu, largest, o));
    const bool finite = largest < 0x7F800000u;
    const float d = __fdiv_rn(bits_float(largest), 127.0f);
    const bool divides = finite && d >= 1.17549435e-38f;
    scale = divides ? d : (finite ? 0.0f : NOT_A_NUMBER);
    return divides ? rintf(__fmul_rn(v, __fdiv_rn(1.0f, d))) : 0.0f;
}

// Rounded and multiplied out again; a row's last block may be shorter.
extern "C" __global__ void __launch_bounds__(256) int8_blocks(float* __restrict__ y, const float* __restrict__ x, const Layout lx, u32 columns, u32 blocks, u64 n) {
    const u64 i = thread_number() / 32, row = i / blocks;
    const u32 k = (u32)(i % blocks) * 32 + (threadIdx.x & 31);
    if (i >= n) return;
    float scale;
    const float quant = quantized(k < columns ? x[offset_of(lx, row * columns + k)] : 0.0f, scale);
    if (k < columns) y[row * columns + k] = __fmul_rn(scale, quant);
}

// The integers with their scales, and the sums of each 16.
extern "C" __global__ void __launch_bounds__(256)
int8_rows(s8* __restrict__ q, float* __restrict__ d, float* __restrict__ sums, const float* __restrict__ x, u64 n) {
    const u64 block = thread_number() / 32;
    const int lane = threadIdx.x & 31;
    if (block >= n) return;
    float scale;
    int sum = (int)quantized(x[block * 32 + lane], scale);
    q[block * 32 + lane] = (s8)sum;
#pragma unroll
    for (int o = 8; o > 0; o >>= 1) sum += __shfl_xor_sync(0xFFFFFFFFu, sum, o);
    if (lane % 16 == 0) sums[block * 2 + lane / 16] = (float)sum;
    if (lane == 0) d[block] = scale;
}
