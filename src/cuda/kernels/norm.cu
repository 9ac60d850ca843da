// Norms of rows, with one block per row.

#include "common.cuh"

// Bits of the kind of a norm: the mean is subtracted (LayerNorm), and weights are stored minus one.
#define SUBTRACTS_MEAN 1
#define ZERO_CENTRED 2

/// `x` and `out` [rows, size]. `weight` and `bias` [weights, size] have a row for each of `weights`
/// rows of `x`, which repeat; `bias` may be null.
extern "C" __global__ void row_norm(
    float* out, const float* x, const float* weight, const float* bias, u32 size, u32 weights, float eps, u32 kind) {
    __shared__ float room[THREADS];
    const float* row = x + blockIdx.x * (u64)size;
    float* to = out + blockIdx.x * (u64)size;
    u64 own = blockIdx.x % weights * (u64)size;
    float mean = 0.0f;
    if (kind & SUBTRACTS_MEAN) {
        float sum = 0.0f;
        for (u32 i = threadIdx.x; i < size; i += THREADS) {
            sum += row[i];
        }
        mean = block_fold<Sum>(sum, room) / size;
    }
    float squares = 0.0f;
    for (u32 i = threadIdx.x; i < size; i += THREADS) {
        squares += (row[i] - mean) * (row[i] - mean);
    }
    float scale = 1.0f / sqrtf(block_fold<Sum>(squares, room) / size + eps);
    for (u32 i = threadIdx.x; i < size; i += THREADS) {
        float factor = kind & ZERO_CENTRED ? 1.0f + weight[own + i] : weight[own + i];
        to[i] = factor * ((row[i] - mean) * scale) + (bias ? bias[own + i] : 0.0f);
    }
}
