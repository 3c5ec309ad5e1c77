// Philox4x32-10: random numbers as a function of where they stand. Salmon and others 2011.
// seeds [rows, 2], positions [rows] -> y [rows, columns] f32
// grid rows x columns / 4 / 256 | block 256 | shared none
#include "philox.cuh"

enum Distribution { UNIFORM, NORMAL, GUMBEL };

extern "C" __global__ void __launch_bounds__(256)
random_numbers(float* __restrict__ y, const u32* __restrict__ seeds, const Layout at_seeds, const u32* __restrict__ positions, const Layout at_positions,
       u64 columns, u64 blocks, u64 n, int distribution) {
    const u64 i = thread_number();
    if (i >= n) return;
    const u64 row = i / blocks, block = i % blocks;
    float u[4];
    uniforms(u, seeds[offset_of(at_seeds, 2 * row)], seeds[offset_of(at_seeds, 2 * row + 1)], positions[offset_of(at_positions, row)], (u32)block);
    if (distribution == GUMBEL) {
        for (int j = 0; j < 4; j++) u[j] = gumbel(u[j]);
    } else if (distribution == NORMAL) {
        for (int j = 0; j < 4; j += 2) {
            const double radius = sqrt(-2.0 * log((double)u[j])), angle = 6.283185307179586476925 * (double)u[j + 1];
            u[j] = (float)(radius * cos(angle));
            u[j + 1] = (float)(radius * sin(angle));
        }
    }
    for (int j = 0; j < 4; j++)
        if (4 * block + j < columns) y[row * columns + 4 * block + j] = u[j];
}
