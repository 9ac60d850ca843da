// Gated DeltaNet: the short convolution, and the delta rule, whose state stays in registers.

#include "common.cuh"

/// The largest number of channels of a key.
#define MOST_CHANNELS 256

/// Causal convolution of x [sequences * positions, columns] with taps [channels, kernel], to out
/// [sequences, heads, positions, width]; one block per head and position. `sources` [heads, 2]: the
/// first column of a head in x, and its first channel in taps. The outputs are scaled to norm
/// `length`, unless it is 0.
extern "C" __global__ void short_conv(
    float* out, const float* x, const float* taps, const u32* sources, u32 heads, u32 positions, u32 columns, u32 width,
    u32 kernel, float length) {
    __shared__ float room[THREADS];
    u32 t = blockIdx.x % positions, head = blockIdx.x / positions % heads;
    u64 first_row = blockIdx.x / positions / heads * (u64)positions;
    u32 column = sources[2 * head], channel = sources[2 * head + 1];
    float* to = out + blockIdx.x * (u64)width;
    float squares = 0.0f;
    for (u32 i = threadIdx.x; i < width; i += THREADS) {
        float sum = 0.0f;
        for (u32 back = 0; back < kernel && back <= t; back++) {
            float tap = taps[(channel + i) * (u64)kernel + kernel - 1 - back];
            sum += tap * x[(first_row + t - back) * columns + column + i];
        }
        sum = sum * sigmoid(sum);
        to[i] = sum;
        squares += sum * sum;
    }
    if (length > 0.0f) {
        float factor = length / sqrtf(block_fold<Sum>(squares, room) + 1e-6f);
        for (u32 i = threadIdx.x; i < width; i += THREADS) {
            to[i] *= factor;
        }
    }
}

/// The delta rule for one head of one sequence per block, with one column of the state per thread,
/// and KEYS channels of a key (`dk` channels if KEYS is 0).
template <u32 KEYS>
__device__ void delta_rule_of(
    float* out, const float* q, const float* k, const float* v, const float* gates, const float* a_log,
    const float* dt_bias, u32 heads, u32 group, u32 positions, u32 dk, u32 dv) {
    __shared__ float query[MOST_CHANNELS], key[MOST_CHANNELS];
    float state[KEYS > 0 ? KEYS : MOST_CHANNELS];
    const u32 keys = KEYS > 0 ? KEYS : dk;
    u32 head = blockIdx.x % heads;
    u64 sequence = blockIdx.x / heads, first = blockIdx.x * (u64)positions;
    u32 column = head / group * 2 * group + head % group;
    float rate = expf(a_log[head]);
    for (u32 i = 0; i < keys; i++) {
        state[i] = 0.0f;
    }
    for (u32 t = 0; t < positions; t++) {
        const float* row = gates + (sequence * positions + t) * 2 * heads;
        float beta = sigmoid(row[column]);
        float drive = row[column + group] + dt_bias[head];
        float decay = expf(-rate * (drive > 20.0f ? drive : log1pf(expf(drive))));
        __syncthreads();
        for (u32 i = threadIdx.x; i < keys; i += blockDim.x) {
            query[i] = q[(first + t) * keys + i];
            key[i] = k[(first + t) * keys + i];
        }
        __syncthreads();
        if (threadIdx.x < dv) {
            float memory = 0.0f;
            for (u32 i = 0; i < keys; i++) {
                state[i] *= decay;
                memory += state[i] * key[i];
            }
            float change = beta * (v[(first + t) * dv + threadIdx.x] - memory), y = 0.0f;
            for (u32 i = 0; i < keys; i++) {
                state[i] += key[i] * change;
                y += state[i] * query[i];
            }
            out[((sequence * positions + t) * heads + head) * dv + threadIdx.x] = y;
        }
    }
}

#define DELTA_RULE(name, channels)                                                                                       \
    extern "C" __global__ void name(                                                                                     \
        float* out, const float* q, const float* k, const float* v, const float* gates, const float* a_log,              \
        const float* dt_bias, u32 heads, u32 group, u32 positions, u32 dk, u32 dv) {                                     \
        delta_rule_of<channels>(out, q, k, v, gates, a_log, dt_bias, heads, group, positions, dk, dv);                   \
    }

/// q, k [sequences, heads, positions, dk], v [sequences, heads, positions, dv], gates [sequences *
/// positions, 2 * heads], out [sequences * positions, heads, dv]. It needs at least dv threads.
DELTA_RULE(delta_rule, 0)
DELTA_RULE(delta_rule_64, 64)
DELTA_RULE(delta_rule_128, 128)
