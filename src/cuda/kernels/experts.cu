// Gathers the rows of an expert's tokens, and adds its outputs to the residual stream.

#include "common.cuh"

/// out[i] = x[rows[i]]; `count` elements in rows of `hidden`.
extern "C" __global__ void gather(float* out, const float* x, const u32* rows, u64 count, u32 hidden) {
    EACH(i, count) {
        out[i] = x[rows[i / hidden] * (u64)hidden + i % hidden];
    }
}

/// As `gather`, rounded to bf16.
extern "C" __global__ void gather_bf16(bf16* out, const float* x, const u32* rows, u64 count, u32 hidden) {
    EACH(i, count) {
        out[i] = narrow(x[rows[i / hidden] * (u64)hidden + i % hidden]);
    }
}

/// to[rows[i]] += weights[i] * y[i]; the rows are distinct.
extern "C" __global__ void scatter(
    float* to, const float* y, const u32* rows, const float* weights, u64 count, u32 hidden) {
    EACH(i, count) {
        to[rows[i / hidden] * (u64)hidden + i % hidden] += weights[i / hidden] * y[i];
    }
}
