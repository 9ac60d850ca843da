// Definitions that the kernels share: bf16 as bits, thread indices, reductions over a block.
//
// This is plain CUDA C++ without headers, shuffles and intrinsics, so that a C++ compiler can
// compile the same text for the emulated GPU.

#pragma once

typedef unsigned char u8;
typedef unsigned short bf16;
typedef unsigned int u32;
typedef unsigned long long u64;

/// Threads per block in every kernel with a reduction.
#define THREADS 256

#define EACH(i, count) \
    for (u64 i = blockIdx.x * (u64)blockDim.x + threadIdx.x; i < (count); i += (u64)gridDim.x * blockDim.x)

__device__ inline float from_bits(u32 bits) {
    union { u32 bits; float value; } both;
    both.bits = bits;
    return both.value;
}

__device__ inline u32 to_bits(float value) {
    union { float value; u32 bits; } both;
    both.value = value;
    return both.bits;
}

__device__ inline float widen(bf16 x) {
    return from_bits((u32)x << 16);
}

/// f16 to f32.
__device__ inline float widen_half(u32 x) {
    u32 sign = (x & 0x8000) << 16, exponent = x >> 10 & 31, mantissa = x & 0x3ff;
    if (exponent == 31) {
        return from_bits(sign | 0x7f800000 | mantissa << 13);
    }
    if (exponent == 0) {
        // Subnormal numbers are multiples of 2^-24, and exact in f32.
        float magnitude = mantissa * 5.9604644775390625e-8f;
        return sign ? -magnitude : magnitude;
    }
    return from_bits(sign | (exponent + 112) << 23 | mantissa << 13);
}

/// Rounds to the nearest bf16, ties to even; NaN stays NaN.
__device__ inline bf16 narrow(float x) {
    u32 bits = to_bits(x);
    if ((bits & 0x7fffffff) > 0x7f800000) {
        return (bf16)(bits >> 16 | 0x40);
    }
    return (bf16)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

__device__ inline float sigmoid(float x) {
    return 1.0f / (1.0f + expf(-x));
}

struct Sum {
    static __device__ float of(float a, float b) {
        return a + b;
    }
};

struct Largest {
    static __device__ float of(float a, float b) {
        return fmaxf(a, b);
    }
};

/// Reduces one number per thread by F; every thread gets the result. `room` is scratch memory for
/// THREADS numbers.
template <class F> __device__ inline float block_fold(float x, float* room) {
    __syncthreads();
    room[threadIdx.x] = x;
    __syncthreads();
    for (u32 half = THREADS / 2; half > 0; half /= 2) {
        if (threadIdx.x < half) {
            room[threadIdx.x] = F::of(room[threadIdx.x], room[threadIdx.x + half]);
        }
        __syncthreads();
    }
    return room[0];
}
