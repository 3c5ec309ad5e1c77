// Steps of optimisers, in place, an element per thread.
// weight T, gradient G, m, v, b, master in the accumulating dtype of the weight, all contiguous; lr, step, scale f32 scalars on the device
// grid elements / 256 | block 256 | shared none              T, G: from the launch
// bound by bandwidth: AdamW 28 bytes a bf16 parameter with master weights. Kingma and Ba 2014, arXiv 1412.6980; Loshchilov and Hutter 2017, arXiv 1711.05101.
#include "number.cuh"

typedef Wide<T>::type A;

OF_BOTH(expm1_of, expm1f, expm1)

struct AdamW {
    double beta1, beta2, eps, decay, log_beta1, log_beta2;
};

extern "C" __global__ void __launch_bounds__(256)
adamw(T* __restrict__ weight, A* __restrict__ m, A* __restrict__ v, A* __restrict__ master, const G* __restrict__ gradient,
      const float* __restrict__ lr_, const float* __restrict__ step_, const float* __restrict__ scale_, const AdamW o, u64 n) {
    const u64 i = thread_number();
    if (i >= n) return;
    const A lr = (A)*lr_, step = (A)*step_, g = (A)widen(gradient[i]) * (A)*scale_;
    const A mean = (A)o.beta1 * m[i] + (A)(1.0 - o.beta1) * g;
    const A square = (A)o.beta2 * v[i] + (A)(1.0 - o.beta2) * g * g;
    m[i] = mean;
    v[i] = square;
    // 1 - beta^t without the difference of near numbers.
    const A first = -expm1_of(step * (A)o.log_beta1), second = -expm1_of(step * (A)o.log_beta2);
    A w = master ? master[i] : (A)widen(weight[i]);
    w -= lr * (A)o.decay * w;
    w -= lr * (mean / first) / (sqrt_of(square / second) + (A)o.eps);
    if (master) master[i] = w;
    weight[i] = narrow<T>(w);
}

extern "C" __global__ void __launch_bounds__(256)
sgd(T* __restrict__ weight, A* __restrict__ b, const G* __restrict__ gradient, const float* __restrict__ lr, const float* __restrict__ scale,
    double momentum, double decay, u64 n) {
    const u64 i = thread_number();
    if (i >= n) return;
    const A w = widen(weight[i]);
    const A sum = (A)momentum * b[i] + (A)widen(gradient[i]) * (A)*scale + (A)decay * w;
    b[i] = sum;
    weight[i] = narrow<T>(w - (A)*lr * sum);
}
