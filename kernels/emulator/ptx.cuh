// The interface of cuda/ptx.cuh for the emulator.
#pragma once
#include "common.cuh"

#define PTX_FN static __device__ __forceinline__
#define DYN_SHARED(type, name) type* name = (type*)emu_dyn_shared()

namespace ptx {

PTX_FN u32 smem_addr(const void* p) { return emu_smem_addr(p); }

PTX_FN float f16_to_f32(f16 x) { return emu::f16_widen(x.bits); }
PTX_FN f16 f32_to_f16(float x) { f16 r; r.bits = emu::f16_round(x); return r; }
PTX_FN bf16 f32_to_bf16(float x) { bf16 r; r.bits = emu::bf16_round(x); return r; }
PTX_FN u32 pack_bf16x2(float lo, float hi) { return emu::bf16_round(lo) | (u32)emu::bf16_round(hi) << 16; }
PTX_FN u32 pack_f16x2(float lo, float hi) { return emu::f16_round(lo) | (u32)emu::f16_round(hi) << 16; }
PTX_FN float ex2(float x) { return ::exp2f(x); }

PTX_FN void ldmatrix_x4(u32 (&r)[4], u32 addr) { emu_ldmatrix(r, addr, 4, false); }
PTX_FN void ldmatrix_x4_trans(u32 (&r)[4], u32 addr) { emu_ldmatrix(r, addr, 4, true); }
PTX_FN void mma_m16n8k16_bf16(float (&d)[4], const u32 (&a)[4], u32 b0, u32 b1) { emu_mma_16816(d, a, b0, b1, false); }
PTX_FN void mma_m16n8k16_f16(float (&d)[4], const u32 (&a)[4], u32 b0, u32 b1) { emu_mma_16816(d, a, b0, b1, true); }
PTX_FN void mma_m16n8k32_s8(int (&d)[4], const u32 (&a)[4], u32 b0, u32 b1) { const u32 b[2] = {b0, b1}; emu_mma_s8(d, a, b, 32); }
PTX_FN void mma_m16n8k16_s8(int (&d)[4], u32 a0, u32 a1, u32 b) { const u32 a[2] = {a0, a1}; emu_mma_s8(d, a, &b, 16); }
PTX_FN void cp_async_16(u32 dst, const void* src, u32 src_bytes) { emu_cp_async(dst, src, src_bytes); }
PTX_FN void cp_async_commit() { emu_cp_async_commit(); }
template <int N> PTX_FN void cp_async_wait() { emu_cp_async_wait(N); }

PTX_FN void bar_sync(int id, int threads) { emu_bar(id, threads, true); }
PTX_FN void bar_arrive(int id, int threads) { emu_bar(id, threads, false); }

}  // namespace ptx
