// What every kernel is written with. One source for hiprtc (AMD), NVRTC (NVIDIA), clang
// (compile check) and the host's C++ compiler (the emulator, kernels/emulator.h).
//
// Rules: no include but this one (the host puts it before each source), no assumption about
// the width of a warp, no float atomics: every sum has a fixed order. Entry points are made
// by EXPORT, so that the emulator can call them by name.
#pragma once

typedef long long Index; // counts and offsets of elements

// Threads of a block wherever a block works together.
#define BLOCK 256

#ifdef MODGRAD_EMULATED
// __global__, __device__, threadIdx, SHARED, barrier and EXPORT come from emulator.h.
#else
#define DEVICE __device__ inline
// SHARED(float, parts, 256): an array that the threads of a block share.
#define SHARED(type, name, count) __shared__ type name[count]
// Bytes that the launch asks for, as an array of `type`.
#define DYNAMIC_SHARED(type, name)                            \
    extern __shared__ __align__(16) unsigned char dynamic_shared[]; \
    type *name = (type *)dynamic_shared
#define barrier() __syncthreads()
// EXPORT(name, (float *x, Index n), body<float>(x, n))
#define EXPORT(name, parameters, ...) \
    extern "C" __global__ void name parameters { __VA_ARGS__; }
#endif

// Elements by the names that storages have in kernels' names: `name_f32_bf16`.
#define f32 float
#define i32 int
#define u8 unsigned char

// ---- bf16 -------------------------------------------------------------------

// The upper half of an f32.
struct bf16 {
    unsigned short bits;
};

union FloatBits {
    float value;
    unsigned int bits;
};

DEVICE float to_float(float x) { return x; }
DEVICE float to_float(int x) { return (float)x; }
DEVICE float to_float(unsigned char x) { return (float)x; }
DEVICE float to_float(bf16 x) {
    FloatBits word;
    word.bits = ((unsigned int)x.bits) << 16;
    return word.value;
}

// Rounds to nearest, ties to even; a NaN stays a NaN.
DEVICE bf16 to_bf16(float x) {
    FloatBits word;
    word.value = x;
    bf16 half;
    if ((word.bits & 0x7fffffffu) > 0x7f800000u) {
        half.bits = (unsigned short)((word.bits >> 16) | 0x40u);
    } else {
        half.bits = (unsigned short)((word.bits + 0x7fffu + ((word.bits >> 16) & 1u)) >> 16);
    }
    return half;
}

DEVICE void store(float *to, float value) { *to = value; }
DEVICE void store(bf16 *to, float value) { *to = to_bf16(value); }

DEVICE float infinity() {
    FloatBits word;
    word.bits = 0x7f800000u;
    return word.value;
}

// ---- functions ----------------------------------------------------------------

DEVICE float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }
DEVICE float softplus(float x) { return (x < 0.0f ? 0.0f : x) + log1pf(expf(-fabsf(x))); }
DEVICE float relu(float x) { return x < 0.0f ? 0.0f : x; }
DEVICE float step(float x) { return x > 0.0f ? 1.0f : 0.0f; }
// 2·√(2/π), the slope of GELU's tanh form as x·sigmoid(2u).
#define GELU_SLOPE 1.5957691216f
#define GELU_CUBIC 0.044715f
DEVICE float gelu_argument(float x) { return GELU_SLOPE * (x + GELU_CUBIC * x * x * x); }
DEVICE float gelu_derivative(float x) {
    float y = sigmoid(gelu_argument(x));
    return y + x * y * (1.0f - y) * (GELU_SLOPE + 3.0f * GELU_SLOPE * GELU_CUBIC * x * x);
}

// ---- places -----------------------------------------------------------------

// This thread's number among all of the launch.
DEVICE Index thread_index() { return (Index)blockIdx.x * blockDim.x + threadIdx.x; }

// Sizes and strides of up to 8 axes, outermost first; `modgrad_device::launch::Axes`.
struct Axes {
    Index rank;
    Index size[8];
    Index first[8];
    Index second[8];
};

// ---- sums over a block --------------------------------------------------------

// Folds one value of each of the BLOCK threads, in a fixed order; every thread gets the result.
template <class T, class Combine> DEVICE T block_fold(T value, Combine combine) {
    SHARED(T, parts, BLOCK);
    int thread = threadIdx.x;
    barrier(); // an earlier fold may still be read
    parts[thread] = value;
    barrier();
    for (int half = BLOCK / 2; half > 0; half /= 2) {
        if (thread < half) parts[thread] = combine(parts[thread], parts[thread + half]);
        barrier();
    }
    return parts[0];
}

struct Sum {
    template <class T> DEVICE T operator()(T x, T y) const { return x + y; }
};

// NaN where either is.
struct Larger {
    DEVICE float operator()(float x, float y) const { return x > y || x != x ? x : y; }
};

template <class T> DEVICE T block_sum(T value) { return block_fold(value, Sum()); }
DEVICE float block_maximum(float value) { return block_fold(value, Larger()); }

// ---- clipping --------------------------------------------------------------------

// `clip` is null, or where the kernel of this name left its factor: NaN where the gradient is
// not finite, for which an update changes nothing.
DEVICE bool refused(const float *clip) { return clip && *clip != *clip; }
DEVICE float clipped(float scale, const float *clip) { return clip ? scale * *clip : scale; }

// ---- indices from outside --------------------------------------------------------

// Where an index is outside 0..bound: leaves a note for the host, which reads it once a run
// (`Device::index_check` gives `check`), and returns 0, or -1 where nothing may be read.
// Of several notes that of the earliest check stays, and of its indices the largest, a
// negative one counted as unsigned: the same in every run.
DEVICE Index checked_index(Index index, Index bound, unsigned long long *flag, int check) {
    if (index >= 0 && index < bound) return index;
    unsigned long long note = (unsigned long long)~(unsigned int)check << 32;
    atomicMax(flag, note | (unsigned int)index);
    return bound > 0 ? 0 : -1;
}
