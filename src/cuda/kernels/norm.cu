// Norms of rows, with one block per row.

#include "common.cuh"

#define RMS 0
#define RMS_ZERO_CENTRED 1
#define LAYER 2

/// `x` and `out` [rows, size]; `bias` is used only if `kind` is LAYER, and may be null then.
extern "C" __global__ void row_norm(
    float* out, const float* x, const float* weight, const float* bias, u32 size, float eps, u32 kind) {
    __shared__ float room[THREADS];
    const float* row = x + blockIdx.x * (u64)size;
    float* to = out + blockIdx.x * (u64)size;
    float mean = 0.0f;
    if (kind == LAYER) {
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
        float factor = kind == RMS_ZERO_CENTRED ? 1.0f + weight[i] : weight[i];
        to[i] = factor * ((row[i] - mean) * scale) + (bias ? bias[i] : 0.0f);
    }
}
