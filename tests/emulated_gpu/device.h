// CUDA's language on a processor: threads of a block are fibres that take turns at __syncthreads.

#pragma once

#include <cmath>
#include <cstdint>

#define __device__
#define __global__
#define __shared__ static

struct Triple {
    unsigned x, y, z;
};

extern Triple threadIdx, blockIdx, blockDim, gridDim;

void __syncthreads();

template <class T> T atomicAdd(T* at, T value) {
    T old = *at;
    *at += value;
    return old;
}

template <class T> T atomicMin(T* at, T value) {
    T old = *at;
    *at = value < old ? value : old;
    return old;
}
