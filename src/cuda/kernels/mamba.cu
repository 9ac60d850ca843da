// Mamba-2: the causal convolution, which LFM2 has as well, and the selective scan, whose state
// stays in registers.

#include "common.cuh"

/// The largest state of a channel.
#define MOST_STATE 256

/// Causal depthwise convolution of x [sequences * positions, channels] with taps [channels, kernel]
/// and `bias` [channels], which may be null; then SiLU, if `silu` is not 0. `count` elements in
/// all.
extern "C" __global__ void causal_conv(
    float* out, const float* x, const float* taps, const float* bias, u64 count, u32 positions, u32 channels, u32 kernel,
    u32 silu) {
    EACH(i, count) {
        u64 channel = i % channels, t = i / channels % positions;
        float sum = bias ? bias[channel] : 0.0f;
        for (u32 back = 0; back < kernel && back <= t; back++) {
            sum += taps[channel * kernel + kernel - 1 - back] * x[i - back * (u64)channels];
        }
        out[i] = silu ? sum * sigmoid(sum) : sum;
    }
}

/// The selective scan of one head of one sequence per block, with the state of one channel per
/// thread, and STATE elements of it (`state` elements if STATE is 0).
///
/// S = exp(-step rate) S + step x B^T, y = S C + d x, with step = softplus(steps + dt_bias), at
/// least `min_step`, and rate = exp(a_log).
template <u32 STATE>
__device__ void selective_scan_of(
    float* out, const float* mixed, const float* steps, const float* dt_bias, const float* a_log, const float* d,
    u32 heads, u32 groups, u32 positions, u32 head_dim, u32 state, float min_step) {
    __shared__ float b[MOST_STATE], c[MOST_STATE];
    float memory[STATE > 0 ? STATE : MOST_STATE];
    const u32 size = STATE > 0 ? STATE : state;
    u32 head = blockIdx.x % heads, group = head / (heads / groups);
    u64 first = blockIdx.x / heads * (u64)positions;
    u64 inner = heads * (u64)head_dim, columns = inner + 2 * groups * (u64)size;
    float rate = expf(a_log[head]);
    for (u32 i = 0; i < size; i++) {
        memory[i] = 0.0f;
    }
    for (u32 t = 0; t < positions; t++) {
        const float* row = mixed + (first + t) * columns;
        float drive = steps[(first + t) * heads + head] + dt_bias[head];
        float step = fmaxf(drive > 20.0f ? drive : log1pf(expf(drive)), min_step);
        float decay = expf(-step * rate);
        __syncthreads();
        for (u32 i = threadIdx.x; i < size; i += blockDim.x) {
            b[i] = row[inner + group * (u64)size + i];
            c[i] = row[inner + (groups + group) * (u64)size + i];
        }
        __syncthreads();
        if (threadIdx.x < head_dim) {
            float x = row[head * (u64)head_dim + threadIdx.x], y = 0.0f;
            for (u32 i = 0; i < size; i++) {
                memory[i] = decay * memory[i] + step * x * b[i];
                y += memory[i] * c[i];
            }
            out[(first + t) * inner + head * (u64)head_dim + threadIdx.x] = y + d[head] * x;
        }
    }
}

#define SELECTIVE_SCAN(name, elements)                                                                                   \
    extern "C" __global__ void name(                                                                                     \
        float* out, const float* mixed, const float* steps, const float* dt_bias, const float* a_log, const float* d,    \
        u32 heads, u32 groups, u32 positions, u32 head_dim, u32 state, float min_step) {                                 \
        selective_scan_of<elements>(                                                                                     \
            out, mixed, steps, dt_bias, a_log, d, heads, groups, positions, head_dim, state, min_step);                  \
    }

/// mixed [sequences * positions, heads * head_dim + 2 * groups * state]: x, B and C; steps
/// [sequences * positions, heads], out [sequences * positions, heads * head_dim]. It needs at least
/// head_dim threads.
SELECTIVE_SCAN(selective_scan, 0)
SELECTIVE_SCAN(selective_scan_64, 64)
SELECTIVE_SCAN(selective_scan_128, 128)
