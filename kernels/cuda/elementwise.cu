// Elementwise functions of one, two or three arguments; what is computed is an argument too, the same for a whole grid.
// x, y, z of T, any layouts -> contiguous T (compare: u8)
// grid elements / 256 | block 256 | shared none              T: from the launch
// bound by bandwidth. Floats are computed in f32 (f64 for f64) and rounded once; integers wrap.
#include "rows.cuh"

typedef Wide<T>::type A;

enum Unary { NEG, ABS, SIGN, EXP, LOG, SQRT, RSQRT, RECIPROCAL, SQUARE, SIN, COS, TANH, SIGMOID, SILU, RELU, SOFTPLUS, GELU, GELU_TANH };
enum Binary { ADD, SUB, MUL, DIV, MAXIMUM, MINIMUM, POW };
enum Compare { EQ, NE, LT, LE, GT, GE };

OF_BOTH(sin_of, sinf, sin)
OF_BOTH(cos_of, cosf, cos)
OF_BOTH(tanh_of, tanhf, tanh)
OF_BOTH(erf_of, erff, erf)
OF_BOTH(erfc_of, erfcf, erfc)
OF_BOTH(log1p_of, log1pf, log1p)
OF_BOTH(abs_of, fabsf, fabs)
__device__ __forceinline__ float pow_of(float x, float y) { return powf(x, y); }
__device__ __forceinline__ double pow_of(double x, double y) { return pow(x, y); }

#ifdef IS_FLOAT
__device__ __forceinline__ A apply(int op, A x) {
    switch (op) {
        case NEG: return -x;
        case ABS: return abs_of(x);
        case SIGN: return x > (A)0 ? (A)1 : (x < (A)0 ? (A)-1 : (x != x ? x : (A)0));
        case EXP: return exp_of(x);
        case LOG: return log_of(x);
        case SQRT: return sqrt_of(x);
        case RSQRT: return (A)1 / sqrt_of(x);
        case RECIPROCAL: return (A)1 / x;
        case SQUARE: return x * x;
        case SIN: return sin_of(x);
        case COS: return cos_of(x);
        case TANH: return tanh_of(x);
        case SIGMOID: return sigmoid(x);
        case SILU: return x * sigmoid(x);
        case RELU: return x != x || x > (A)0 ? x : (A)0;
        case SOFTPLUS: return (x > (A)0 ? x : (A)0) + log1p_of(exp_of(-abs_of(x))) + (x != x ? x : (A)0);
        // Far below zero 1 + erf cancels; the complement does not.
        case GELU: return x * (A)0.5 * (x < (A)0 ? erfc_of(-x * (A)0.70710678118654752440) : (A)1 + erf_of(x * (A)0.70710678118654752440));
        default: {
            // 1 + tanh(u) = 2 sigmoid(2 u), which does not cancel.
            const A u = (A)0.79788456080286535588 * (x + (A)0.044715 * x * x * x);
            return x * sigmoid(u + u);
        }
    }
}
#else
__device__ __forceinline__ A apply(int op, A x) {
#ifdef IS_SIGNED
    switch (op) {
        case NEG: return (A)(0ull - (u64)x);
        case ABS: return x < 0 ? (A)(0ull - (u64)x) : x;
        default: return x > 0 ? 1 : (x < 0 ? -1 : 0);
    }
#else
    return x;
#endif
}
#endif

__device__ __forceinline__ A apply(int op, A x, A y) {
    switch (op) {
#ifdef IS_FLOAT
        case ADD: return x + y;
        case SUB: return x - y;
        case MUL: return x * y;
        case DIV: return x / y;
        case MAXIMUM: return larger(x, y);
        case MINIMUM: return smaller(x, y);
        default: return pow_of(x, y);
#else
        case ADD: return (A)((u64)x + (u64)y);
        case SUB: return (A)((u64)x - (u64)y);
        case MUL: return (A)((u64)x * (u64)y);
        case DIV:
            if (y == (A)0) return (A)0;
#ifdef IS_SIGNED
            if (y == -1) return (A)(0ull - (u64)x);
#endif
            return x / y;
        case MAXIMUM: return x < y ? y : x;
        default: return y < x ? y : x;
#endif
    }
}

__device__ __forceinline__ bool holds(int op, A x, A y) {
    switch (op) {
        case EQ: return x == y;
        case NE: return x != y;
        case LT: return x < y;
        case LE: return x <= y;
        case GT: return x > y;
        default: return x >= y;
    }
}

extern "C" __global__ void __launch_bounds__(256) unary(T* __restrict__ y, const T* __restrict__ x, const Layout lx, u64 n, int op) {
    const u64 i = thread_number();
    if (i < n) y[i] = narrow<T>(apply(op, widen(x[offset_of(lx, i)])));
}

extern "C" __global__ void __launch_bounds__(256)
binary(T* __restrict__ z, const T* __restrict__ x, const Layout lx, const T* __restrict__ y, const Layout ly, u64 n, int op) {
    const u64 i = thread_number();
    if (i < n) z[i] = narrow<T>(apply(op, widen(x[offset_of(lx, i)]), widen(y[offset_of(ly, i)])));
}

extern "C" __global__ void __launch_bounds__(256)
compare(u8* __restrict__ z, const T* __restrict__ x, const Layout lx, const T* __restrict__ y, const Layout ly, u64 n, int op) {
    const u64 i = thread_number();
    if (i < n) z[i] = holds(op, widen(x[offset_of(lx, i)]), widen(y[offset_of(ly, i)]));
}

extern "C" __global__ void __launch_bounds__(256)
affine(T* __restrict__ y, const T* __restrict__ x, const Layout lx, u64 n, double mul, double add) {
    const u64 i = thread_number();
    if (i < n) y[i] = narrow<T>(widen(x[offset_of(lx, i)]) * (A)mul + (A)add);
}

// Both contiguous and aligned: a thread takes 16 bytes.
constexpr int COUNT = Lane<T>::COUNT;
typedef Lane<T>::Vec Vec;

extern "C" __global__ void __launch_bounds__(256) unary_contiguous(Vec* __restrict__ y, const Vec* __restrict__ x, u64 vectors, int op) {
    const u64 i = thread_number();
    if (i >= vectors) return;
    const Vec in = x[i];
    Vec out;
#pragma unroll
    for (int j = 0; j < COUNT; j++) out.at[j] = narrow<T>(apply(op, widen(in.at[j])));
    y[i] = out;
}

extern "C" __global__ void __launch_bounds__(256)
binary_contiguous(Vec* __restrict__ z, const Vec* __restrict__ x, const Vec* __restrict__ y, u64 vectors, int op) {
    const u64 i = thread_number();
    if (i >= vectors) return;
    const Vec a = x[i], b = y[i];
    Vec out;
#pragma unroll
    for (int j = 0; j < COUNT; j++) {
        const A v = widen(a.at[j]), w = widen(b.at[j]);
        // A power takes more registers than all the rest, and is seldom: the other entry has it.
        out.at[j] = narrow<T>(op == ADD ? v + w : op == SUB ? v - w : op == MUL ? v * w : op == DIV ? v / w : op == MAXIMUM ? larger(v, w) : smaller(v, w));
    }
    z[i] = out;
}
