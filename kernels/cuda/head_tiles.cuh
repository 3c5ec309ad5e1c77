// Tiles of rows of one head in shared memory, for attention forward and backward: rows of D halves, cut into pieces of 16 bytes that change
// places so that the eight rows of an ldmatrix meet all banks once. D, T: from the launch.
#pragma once
#include "mma.cuh"

constexpr int TILE = 64, PIECES = D / 8;
constexpr float LOG2E = 1.44269504088896341f;

__device__ __forceinline__ u32 offset(int row, int piece) {
    return row * (D * 2) + ((D == 32 ? piece ^ ((row >> 1) & 3) : piece ^ (row & 7)) * 16);
}

// 16 rows of weights, one for each of the 64 rows of a tile, times that tile: added to `acc`. Weights meet halves in parts that sum to them.
__device__ __forceinline__ void weigh(float (&acc)[D / 8][4], const float (&weights)[TILE / 8][4], u32 tile) {
    const int lane = threadIdx.x & 31;
#pragma unroll
    for (int i = 0; i < TILE / 16; i++) {
        u32 parts[Parts<T>::COUNT][4];
        parts_of(parts, weights[i * 2], weights[i * 2 + 1], T());
#pragma unroll
        for (int j = 0; j < D / 16; j++) {
            u32 f[4];
            ptx::ldmatrix_x4_trans(f, tile + offset(i * 16 + lane % 16, j * 2 + lane / 16));
#pragma unroll
            for (int part = 0; part < Parts<T>::COUNT; part++) {
                mma(acc[j * 2], parts[part], f[0], f[1], T());
                mma(acc[j * 2 + 1], parts[part], f[2], f[3], T());
            }
        }
    }
}
