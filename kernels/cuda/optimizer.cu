// Steps of optimisers, in place, over all parameters at once: a table says where each lies, and which block is its first.
// weight T, gradient G, m, v, b, master in the accumulating dtype of the weight, all contiguous; lr, step, scale f32 scalars on the device
// grid the blocks of all parameters, RUN elements each | block 256 | shared none              T, G, RUN: from the launch
// bound by bandwidth: AdamW 28 bytes a bf16 parameter with master weights. Not measured on a card. Kingma and Ba 2014, arXiv 1412.6980;
// Loshchilov and Hutter 2017, arXiv 1711.05101.
#include "number.cuh"

typedef Wide<T>::type A;

OF_BOTH(expm1_of, expm1f, expm1)

struct Parameter {
    T* weight;
    A* states[2];  // m and v, or b
    A* master;     // or null
    const G* gradient;
    u64 n, first;  // elements; the number of its first block
    double decay;
};

// The parameter of this block: the last that does not begin behind it.
__device__ __forceinline__ Parameter parameter_of(const Parameter* __restrict__ table, u32 parameters, u64 block) {
    u32 low = 0, high = parameters;
    while (high - low > 1) {
        const u32 middle = (low + high) / 2;
        if (table[middle].first <= block) low = middle;
        else high = middle;
    }
    return table[low];
}

// Where this thread's elements of a parameter begin; they are 256 apart.
__device__ __forceinline__ u64 begin_of(const Parameter& p, u64 block) { return (block - p.first) * RUN + threadIdx.x; }

struct AdamW {
    double beta1, beta2, eps, log_beta1, log_beta2;
};

extern "C" __global__ void __launch_bounds__(256)
adamw(const Parameter* __restrict__ table, u32 parameters, const float* __restrict__ lr_, const float* __restrict__ step_,
      const float* __restrict__ scale_, const AdamW o) {
    const Parameter p = parameter_of(table, parameters, block_number());
    const u64 begin = begin_of(p, block_number());
    const A lr = (A)*lr_, step = (A)*step_, scale = (A)*scale_;
    // 1 - beta^t without the difference of near numbers.
    const A first = -expm1_of(step * (A)o.log_beta1), second = -expm1_of(step * (A)o.log_beta2);
    for (int run = 0; run < RUN; run += 256) {
        const u64 i = begin + run;
        if (i >= p.n) return;
        const A g = (A)widen(p.gradient[i]) * scale;
        const A mean = (A)o.beta1 * p.states[0][i] + (A)(1.0 - o.beta1) * g;
        const A square = (A)o.beta2 * p.states[1][i] + (A)(1.0 - o.beta2) * g * g;
        A w = p.master ? p.master[i] : (A)widen(p.weight[i]);
        p.states[0][i] = mean;
        p.states[1][i] = square;
        w -= lr * (A)p.decay * w;
        w -= lr * (mean / first) / (sqrt_of(square / second) + (A)o.eps);
        if (p.master) p.master[i] = w;
        p.weight[i] = narrow<T>(w);
    }
}

extern "C" __global__ void __launch_bounds__(256)
sgd(const Parameter* __restrict__ table, u32 parameters, const float* __restrict__ lr_, const float* __restrict__ scale_, double momentum) {
    const Parameter p = parameter_of(table, parameters, block_number());
    const u64 begin = begin_of(p, block_number());
    const A lr = (A)*lr_, scale = (A)*scale_;
    for (int run = 0; run < RUN; run += 256) {
        const u64 i = begin + run;
        if (i >= p.n) return;
        const A w = p.master ? p.master[i] : (A)widen(p.weight[i]);
        const A sum = (A)momentum * p.states[0][i] + (A)widen(p.gradient[i]) * scale + (A)p.decay * w;
        p.states[0][i] = sum;
        const A next = w - lr * sum;
        if (p.master) p.master[i] = next;
        p.weight[i] = narrow<T>(next);
    }
}
