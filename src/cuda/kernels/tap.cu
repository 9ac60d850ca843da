// Streaming statistics of a norm output: extremes, counts on the ladder of thresholds, and the
// highest rung of each feature at each position.

#include "common.cuh"

/// Features and positions that a block processes at once.
#define FEATURES 32
#define LANES (THREADS / FEATURES)
/// Number of features whose levels are stored together.
#define LEVEL_BLOCK 512

/// x [sequences, positions, hidden]; one block per sequence and FEATURES features. All outputs but
/// `levels` leave out position 0.
/// - `extremes` [sequences, 2, hidden]: the largest and the smallest finite value
/// - `counts` [sequences, hidden, 2, rungs]: the number of values whose highest rung this is,
///   positive and negative
/// - `odd` [sequences, 2]: the numbers of NaNs and of infinities
/// - `levels` [sequences, blocks of 512 features, positions, features]: 1 + the highest rung
///   reached so far, 0 for none
extern "C" __global__ void tap(
    const float* x, const float* ladder, float* extremes, u32* counts, u32* odd, u8* levels, u32 rungs, u32 positions,
    u32 hidden) {
    __shared__ float largest[THREADS], smallest[THREADS];
    u32 lane = threadIdx.x / FEATURES, feature = blockIdx.x * FEATURES + threadIdx.x % FEATURES;
    u64 sequence = blockIdx.y;
    float most = from_bits(0xff800000), least = from_bits(0x7f800000);
    if (feature < hidden) {
        u32 level_block = feature / LEVEL_BLOCK * LEVEL_BLOCK;
        u32 width = hidden - level_block < LEVEL_BLOCK ? hidden - level_block : LEVEL_BLOCK;
        u8* own = levels + (sequence * hidden + level_block) * positions + feature - level_block;
        u32* count = counts + (sequence * hidden + feature) * 2 * rungs;
        for (u32 t = lane; t < positions; t += LANES) {
            float value = x[(sequence * positions + t) * hidden + feature];
            float magnitude = fabsf(value);
            if (!(magnitude < from_bits(0x7f800000))) {
                if (t > 0) {
                    atomicAdd(odd + 2 * sequence + (value != value ? 0 : 1), 1u);
                }
                continue;
            }
            if (t > 0) {
                most = fmaxf(most, value);
                least = fminf(least, value);
            }
            if (magnitude >= ladder[0]) {
                u32 rung = 0;
                while (rung + 1 < rungs && magnitude >= ladder[rung + 1]) {
                    rung++;
                }
                if (t > 0) {
                    atomicAdd(count + (value > 0.0f ? 0 : rungs) + rung, 1u);
                }
                u8* level = own + t * (u64)width;
                *level = *level > rung + 1 ? *level : (u8)(rung + 1);
            }
        }
    }
    largest[threadIdx.x] = most;
    smallest[threadIdx.x] = least;
    __syncthreads();
    if (lane == 0 && feature < hidden) {
        for (u32 other = 1; other < LANES; other++) {
            most = fmaxf(most, largest[other * FEATURES + threadIdx.x]);
            least = fminf(least, smallest[other * FEATURES + threadIdx.x]);
        }
        extremes[sequence * 2 * hidden + feature] = most;
        extremes[(sequence * 2 + 1) * hidden + feature] = least;
    }
}
