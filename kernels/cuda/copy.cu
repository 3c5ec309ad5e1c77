// Copies between layouts, selection, filling: elements as units of 1, 2, 4 or 8 bytes, whatever they are.
// x any layout -> y any layout
// grid elements / 256 | block 256 | shared none              T: u8, u16, u32, u64, from the launch
// bound by bandwidth.
#include "common.cuh"

extern "C" __global__ void __launch_bounds__(256) copy(T* __restrict__ y, const Layout ly, const T* __restrict__ x, const Layout lx, u64 n) {
    const u64 i = thread_number();
    if (i < n) y[offset_of(ly, i)] = x[offset_of(lx, i)];
}

extern "C" __global__ void __launch_bounds__(256)
select_elements(T* __restrict__ y, const u8* __restrict__ c, const Layout lc, const T* __restrict__ a, const Layout la, const T* __restrict__ b,
       const Layout lb, u64 n) {
    const u64 i = thread_number();
    if (i < n) y[i] = c[offset_of(lc, i)] ? a[offset_of(la, i)] : b[offset_of(lb, i)];
}

extern "C" __global__ void __launch_bounds__(256) fill(T* __restrict__ y, u64 n, u64 value) {
    const u64 i = thread_number();
    if (i < n) y[i] = (T)value;
}

extern "C" __global__ void __launch_bounds__(256) arange(u32* __restrict__ y, u64 n) {
    const u64 i = thread_number();
    if (i < n) y[i] = (u32)i;
}
