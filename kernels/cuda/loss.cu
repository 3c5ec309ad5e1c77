// Cross entropy of rows of logits, and its derivative: a row per block.
// logits [rows, V] T, contiguous; labels [rows] u32 -> losses, lse [rows], counted [rows] u32; dlogits [rows, V] T
// grid rows | block 256 | shared 8 numbers              T: from the launch
// bound by bandwidth. Order: lanes stride by 256, tree. Depends on V alone.
#include "block_reduce.cuh"

typedef Wide<T>::type A;

// A row whose label is none of V counts nothing. `lse` may be absent.
extern "C" __global__ void __launch_bounds__(256)
cross_entropy(A* __restrict__ losses, u32* __restrict__ counted, A* __restrict__ lse, const T* __restrict__ logits, const u32* __restrict__ labels,
              i64 label_stride, u64 vocab, u64 rows) {
    __shared__ A room[8];
    const u64 row = block_number();
    if (row >= rows) return;
    logits += row * vocab;
    A most = -infinity_of<A>();
    for (u64 i = threadIdx.x; i < vocab; i += 256) most = larger(most, (A)widen(logits[i]));
    most = block_reduce<256>(most, room, Largest());
    A sum = (A)0;
    for (u64 i = threadIdx.x; i < vocab; i += 256) sum += exp_of(widen(logits[i]) - most);
    sum = block_reduce<256>(sum, room, Sum());
    if (threadIdx.x) return;
    const A all = log_of(sum) + most;
    const u32 label = labels[(i64)row * label_stride];
    losses[row] = label < vocab ? all - (A)widen(logits[label]) : (A)0;
    counted[row] = label < vocab;
    if (lse) lse[row] = all;
}

// dlogits may be logits: every element is read by the thread that writes it.
extern "C" __global__ void __launch_bounds__(256)
cross_entropy_backward(T* dlogits, const T* logits, const A* __restrict__ dsum, const u32* __restrict__ labels, i64 label_stride,
                       const A* __restrict__ lse, u64 vocab, u64 n) {
    const u64 at = thread_number();
    if (at >= n) return;
    const u64 row = at / vocab, i = at % vocab;
    const u32 label = labels[(i64)row * label_stride];
    A d = (A)0;
    if (label < vocab) d = (exp_of(widen(logits[at]) - lse[row]) - (i == label ? (A)1 : (A)0)) * dsum[0];
    dlogits[at] = narrow<T>(d);
}
