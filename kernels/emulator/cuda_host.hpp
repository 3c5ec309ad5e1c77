// Makes a .cu file ordinary C++17: language keywords, built-in variables, vector types,
// warp and block intrinsics, atomics and fast math. Included before the kernel source.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <cstdio>
#include <type_traits>
#include <utility>
#include "emu_internal.hpp"

#define __CUDACC_EMU__ 1
#define __global__
#define __device__
#define __host__
#define __constant__
#define __grid_constant__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))
// One block runs at a time, so a static variable is one instance per block. The named
// section lets the runtime fill all of them with poison before each block.
#define __shared__ static __attribute__((section("emu_shared")))
#ifndef __CUDA_ARCH__
#define __CUDA_ARCH__ 900
#endif

#define threadIdx emu_thread_idx()
#define blockIdx emu_block_idx()
#define blockDim emu_block_dim()
#define gridDim emu_grid_dim()
static const int warpSize = 32;

#define EMU_VEC2(T, N, A) struct alignas(A) N##2 { T x, y; }; static inline N##2 make_##N##2(T x, T y) { return {x, y}; }
#define EMU_VEC4(T, N, A) struct alignas(A) N##4 { T x, y, z, w; }; static inline N##4 make_##N##4(T x, T y, T z, T w) { return {x, y, z, w}; }
#define EMU_VEC3(T, N) struct N##3 { T x, y, z; }; static inline N##3 make_##N##3(T x, T y, T z) { return {x, y, z}; }
EMU_VEC2(char, char, 2) EMU_VEC4(char, char, 4)
EMU_VEC2(unsigned char, uchar, 2) EMU_VEC4(unsigned char, uchar, 4)
EMU_VEC2(short, short, 4) EMU_VEC4(short, short, 8)
EMU_VEC2(unsigned short, ushort, 4) EMU_VEC4(unsigned short, ushort, 8)
EMU_VEC2(int, int, 8) EMU_VEC3(int, int) EMU_VEC4(int, int, 16)
EMU_VEC2(unsigned, uint, 8) EMU_VEC3(unsigned, uint) EMU_VEC4(unsigned, uint, 16)
EMU_VEC2(long long, longlong, 16) EMU_VEC2(unsigned long long, ulonglong, 16)
EMU_VEC2(float, float, 8) EMU_VEC3(float, float) EMU_VEC4(float, float, 16)
EMU_VEC2(double, double, 16)

namespace emu {
static inline uint32_t bits(float f) { uint32_t u; memcpy(&u, &f, 4); return u; }
static inline float unbits(uint32_t u) { float f; memcpy(&f, &u, 4); return f; }
// Round to nearest even; NaN becomes the canonical NaN 0x7FFF, as cvt.rn.bf16.f32 gives.
static inline uint16_t bf16_round(float f) {
    uint32_t u = bits(f);
    if ((u & 0x7FFFFFFF) > 0x7F800000) return 0x7FFF;
    return (uint16_t)((u + 0x7FFF + ((u >> 16) & 1)) >> 16);
}
static inline uint16_t f16_round(float f) {
    uint32_t u = bits(f), s = (u >> 16) & 0x8000, m = u & 0x7FFFFFFF;
    if (m > 0x7F800000) return 0x7FFF;
    if (m >= 0x477FF000) return (uint16_t)(s | 0x7C00);
    if (m < 0x38800000) {  // result is subnormal or zero: round at a fixed exponent
        float r = unbits(m) + 0.5f;  // ulp of [0.5, 1) is 2^-24, the subnormal step
        return (uint16_t)(s | (bits(r) - 0x3F000000));
    }
    m += 0xFFF + ((m >> 13) & 1);
    return (uint16_t)(s | ((m - 0x38000000) >> 13));
}
static inline float f16_widen(uint16_t h) {
    uint32_t s = (uint32_t)(h & 0x8000) << 16, m = h & 0x7FFF;
    if (m >= 0x7C00) return unbits(s | 0x7F800000 | (m & 0x3FF) << 13);
    if (m < 0x400) { float f = (float)m * 5.9604644775390625e-8f; return s ? -f : f; }
    return unbits(s | ((m << 13) + 0x38000000));
}
template <class To, class From> static inline To cast_bits(From f) {
    static_assert(sizeof(To) == sizeof(From), "size");
    To t; memcpy(&t, &f, sizeof t); return t;
}
template <class T> static inline uint64_t widen(T v) {
    static_assert(sizeof(T) <= 8, "shuffles take 4 or 8 bytes");
    uint64_t u = 0; memcpy(&u, &v, sizeof v); return u;
}
template <class T> static inline T narrow(uint64_t u) { T v; memcpy(&v, &u, sizeof v); return v; }
}  // namespace emu

#define EMU_FN static __forceinline__
#define EMU_NOHOOK __attribute__((no_sanitize("thread"), noinline, unused))
EMU_FN void __syncthreads() { emu_syncthreads(); }
EMU_FN int __syncthreads_count(int p) { return emu_syncthreads_reduce(p, 0); }
EMU_FN int __syncthreads_and(int p) { return emu_syncthreads_reduce(p, 1); }
EMU_FN int __syncthreads_or(int p) { return emu_syncthreads_reduce(p, 2); }
EMU_FN void __syncwarp(unsigned mask = 0xFFFFFFFFu) { emu_syncwarp(mask); }
EMU_FN void __threadfence() {}
EMU_FN void __threadfence_block() {}
EMU_FN void __nanosleep(unsigned) { emu_yield(); }
EMU_FN void __trap() { emu_trap("__trap()"); }
template <class T> EMU_FN T __shfl_sync(unsigned m, T v, int src, int w = 32) { return emu::narrow<T>(emu_shfl(m, emu::widen(v), src, w, 0)); }
template <class T> EMU_FN T __shfl_up_sync(unsigned m, T v, unsigned d, int w = 32) { return emu::narrow<T>(emu_shfl(m, emu::widen(v), (int)d, w, 1)); }
template <class T> EMU_FN T __shfl_down_sync(unsigned m, T v, unsigned d, int w = 32) { return emu::narrow<T>(emu_shfl(m, emu::widen(v), (int)d, w, 2)); }
template <class T> EMU_FN T __shfl_xor_sync(unsigned m, T v, int x, int w = 32) { return emu::narrow<T>(emu_shfl(m, emu::widen(v), x, w, 3)); }
EMU_FN unsigned __ballot_sync(unsigned m, int p) { return emu_ballot(m, p); }
EMU_FN int __any_sync(unsigned m, int p) { return emu_ballot(m, p) != 0; }
EMU_FN int __all_sync(unsigned m, int p) { return emu_ballot(m, p) == m; }
EMU_FN unsigned __activemask() { return emu_ballot(0, 1); }
template <class T> EMU_FN unsigned __match_any_sync(unsigned m, T v) { return emu_match_any(m, emu::widen(v)); }
EMU_FN unsigned __reduce_add_sync(unsigned m, unsigned v) { return emu_reduce(m, v, 0); }
EMU_FN int __reduce_add_sync(unsigned m, int v) { return (int)emu_reduce(m, (unsigned)v, 0); }
EMU_FN unsigned __reduce_and_sync(unsigned m, unsigned v) { return emu_reduce(m, v, 1); }
EMU_FN unsigned __reduce_or_sync(unsigned m, unsigned v) { return emu_reduce(m, v, 2); }
EMU_FN unsigned __reduce_xor_sync(unsigned m, unsigned v) { return emu_reduce(m, v, 3); }
EMU_FN unsigned __reduce_min_sync(unsigned m, unsigned v) { return emu_reduce(m, v, 4); }
EMU_FN unsigned __reduce_max_sync(unsigned m, unsigned v) { return emu_reduce(m, v, 5); }
EMU_FN int __reduce_min_sync(unsigned m, int v) { return (int)emu_reduce(m, (unsigned)v, 6); }
EMU_FN int __reduce_max_sync(unsigned m, int v) { return (int)emu_reduce(m, (unsigned)v, 7); }

// Atomics: fibers switch only inside runtime calls, so a plain update is atomic.
#define EMU_ATOMIC(NAME, EXPR)                                                      \
    template <class T> EMU_NOHOOK static T NAME(T* p, std::common_type_t<T> v) {    \
        emu_atomic_begin(p, sizeof(T));                                             \
        T old = *p; *p = (EXPR); return old;                                        \
    }
EMU_ATOMIC(atomicAdd, old + v)
EMU_ATOMIC(atomicSub, old - v)
EMU_ATOMIC(atomicMax, old < v ? v : old)
EMU_ATOMIC(atomicMin, v < old ? v : old)
EMU_ATOMIC(atomicAnd, old & v)
EMU_ATOMIC(atomicOr, old | v)
EMU_ATOMIC(atomicXor, old ^ v)
EMU_ATOMIC(atomicExch, v)
template <class T> EMU_NOHOOK static T atomicInc(T* p, std::common_type_t<T> v) { emu_atomic_begin(p, sizeof(T)); T old = *p; *p = old >= v ? 0 : old + 1; return old; }
template <class T> EMU_NOHOOK static T atomicCAS(T* p, std::common_type_t<T> c, std::common_type_t<T> v) { emu_atomic_begin(p, sizeof(T)); T old = *p; if (old == c) *p = v; return old; }

template <class T> EMU_FN T __ldg(const T* p) { return *p; }
template <class T> EMU_FN T __ldcs(const T* p) { return *p; }
template <class T> EMU_FN T __ldcg(const T* p) { return *p; }
template <class T> EMU_FN void __stcs(T* p, T v) { *p = v; }
template <class T> EMU_FN void __stcg(T* p, T v) { *p = v; }

// Device overloads of min and max.
template <class A, class B> EMU_FN std::common_type_t<A, B> min(A a, B b) { std::common_type_t<A, B> x = a, y = b; return y < x ? y : x; }
template <class A, class B> EMU_FN std::common_type_t<A, B> max(A a, B b) { std::common_type_t<A, B> x = a, y = b; return x < y ? y : x; }
// The C library declares these names itself, hence macros.
#define __expf(x) ::expf(x)
#define __logf(x) ::logf(x)
#define __log2f(x) ::log2f(x)
#define __sinf(x) ::sinf(x)
#define __cosf(x) ::cosf(x)
#define __powf(x, y) ::powf(x, y)
EMU_FN float __fdividef(float a, float b) { return a / b; }
EMU_FN float __fdiv_rn(float a, float b) { return a / b; }
EMU_FN float __frcp_rn(float a) { return 1.0f / a; }
EMU_FN float __fmaf_rn(float a, float b, float c) { return ::fmaf(a, b, c); }
EMU_FN float __fadd_rn(float a, float b) { return a + b; }
EMU_FN float __fmul_rn(float a, float b) { return a * b; }
EMU_FN float rsqrtf(float x) { return 1.0f / ::sqrtf(x); }
EMU_FN float __frsqrt_rn(float x) { return 1.0f / ::sqrtf(x); }
EMU_FN float __saturatef(float x) { return x < 0 || x != x ? 0.0f : x > 1 ? 1.0f : x; }
EMU_FN int __float2int_rn(float x) { return (int)::rintf(x); }
EMU_FN int __float2int_rz(float x) { return (int)x; }
EMU_FN unsigned __float_as_uint(float x) { return emu::bits(x); }
EMU_FN int __float_as_int(float x) { return (int)emu::bits(x); }
EMU_FN float __uint_as_float(unsigned x) { return emu::unbits(x); }
EMU_FN float __int_as_float(int x) { return emu::unbits((unsigned)x); }
EMU_FN int __popc(unsigned x) { return __builtin_popcount(x); }
EMU_FN int __clz(int x) { return x ? __builtin_clz((unsigned)x) : 32; }
EMU_FN int __ffs(int x) { return __builtin_ffs(x); }
EMU_FN unsigned __brev(unsigned x) { unsigned r = 0; for (int i = 0; i < 32; i++) r |= ((x >> i) & 1u) << (31 - i); return r; }
EMU_FN int __mul24(int a, int b) { return a * b; }
EMU_FN unsigned __umulhi(unsigned a, unsigned b) { return (unsigned)((uint64_t)a * b >> 32); }
EMU_FN unsigned __byte_perm(unsigned a, unsigned b, unsigned s) {
    uint64_t v = (uint64_t)b << 32 | a; unsigned r = 0;
    for (int i = 0; i < 4; i++) r |= (unsigned)(v >> (8 * ((s >> (4 * i)) & 7)) & 0xFF) << (8 * i);
    return r;
}
EMU_FN int __dp4a(int a, int b, int c) {
    for (int i = 0; i < 4; i++) c += (int)(int8_t)(a >> (8 * i)) * (int)(int8_t)(b >> (8 * i));
    return c;
}

// Entry table: written after the kernel source by the build step, one line for each __global__ with its __launch_bounds__.
extern "C" {
extern char __start_emu_shared[] __attribute__((weak, visibility("hidden")));
extern char __stop_emu_shared[] __attribute__((weak, visibility("hidden")));
}
template <class... A> struct EmuEntry {
    static constexpr uint32_t sizes[sizeof...(A) + 1] = {(uint32_t)sizeof(A)..., 0};
    template <class F, size_t... I> EMU_NOHOOK static void call(F f, void** a, std::index_sequence<I...>) {
        f(*(std::remove_const_t<A>*)a[I]...);
    }
};
template <class... A> EmuEntry<A...> emu_entry_of(void (*)(A...));
#define EMU_ENTRY(k, bound)                                                                               \
    template <class... A> EMU_NOHOOK static void emu_run_##k(void (*f)(A...), void** a) {                     \
        EmuEntry<A...>::call(f, a, std::index_sequence_for<A...>{});                               \
    }                                                                                              \
    EMU_NOHOOK static void emu_tramp_##k(void** a) { emu_run_##k(&k, a); }                                    \
    extern "C" __attribute__((visibility("default"), no_sanitize("thread"))) EmuFunction emu_entry_##k() {                \
        using E = decltype(emu_entry_of(&k));                                                      \
        return {#k, emu_tramp_##k, (int)(sizeof(E::sizes) / 4 - 1), E::sizes, bound,                   \
                __start_emu_shared, __stop_emu_shared};                                            \
    }
