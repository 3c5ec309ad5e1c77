// Philox4x32-10 and what is made of its words.
#pragma once
#include "common.cuh"

// Four numbers in (0, 1), those from 4 `block` on: 23 bits and a half of each word, exact in f32.
__device__ __forceinline__ void uniforms(float (&u)[4], u32 key0, u32 key1, u32 position, u32 block) {
    u32 c0 = block, c1 = position, c2 = 0, c3 = 0;
#pragma unroll
    for (int round = 0; round < 10; round++) {
        const u32 high0 = __umulhi(0xD2511F53u, c0), low0 = 0xD2511F53u * c0;
        const u32 high1 = __umulhi(0xCD9E8D57u, c2), low1 = 0xCD9E8D57u * c2;
        c0 = high1 ^ c1 ^ key0;
        c1 = low1;
        c2 = high0 ^ c3 ^ key1;
        c3 = low0;
        key0 += 0x9E3779B9u;
        key1 += 0xBB67AE85u;
    }
    const u32 words[4] = {c0, c1, c2, c3};
#pragma unroll
    for (int j = 0; j < 4; j++) u[j] = ((float)(words[j] >> 9) + 0.5f) * 1.1920928955078125e-7f;
}

// -ln(-ln u), in f64, so that the one rounding is to f32 and every device draws alike.
__device__ __forceinline__ float gumbel(float u) { return (float)-log(-log((double)u)); }
