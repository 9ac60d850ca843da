// What the kernels share: bf16 as bits, positions of threads, sums over a block.
//
// Only plain CUDA C++: no headers, no shuffles, no intrinsics, so that a C++ compiler can run the same text.

#pragma once

typedef unsigned char u8;
typedef unsigned short bf16;
typedef unsigned int u32;
typedef unsigned long long u64;

/// Threads of a block in every kernel that sums.
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

/// To the nearest bf16, ties to even; NaN stays NaN.
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

/// What F makes of one number per thread, for all of them. `room` holds THREADS numbers.
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
