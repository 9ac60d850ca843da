// Attention around its two matrix products: the addresses of each head's matrices, and the softmax
// of the scores.

#include "common.cuh"

/// Addresses for a batch of matrix products, one per head: five lists, one after the other, of
/// queries, keys, values, scores and outputs of `heads` heads. Distances between heads are in f32
/// elements.
extern "C" __global__ void addresses(
    float** lists, float* q, float* k, float* v, float* scores, float* out, u32 heads, u32 group, u32 head_dim, u64 per_head) {
    EACH(head, heads) {
        u64 own = head * head_dim, shared = head / group * head_dim;
        lists[head] = q + own;
        lists[heads + head] = k + shared;
        lists[2 * heads + head] = v + shared;
        lists[3 * heads + head] = scores + head * per_head;
        lists[4 * heads + head] = out + own;
    }
}

/// In-place softmax of scores [heads, queries, keys], whose first query is `first_query` and whose
/// first key is `first_key`: the softmax of scale * score over the keys that a query attends to, 0
/// elsewhere. If `window` is 0, a query attends to all keys up to its own position. `sinks` [heads]
/// may be null. One block per row.
extern "C" __global__ void softmax(
    float* scores, const float* sinks, u32 queries, u32 keys, u32 first_query, u32 first_key, u32 window, float scale) {
    __shared__ float room[THREADS];
    u32 head = blockIdx.x / queries, query = first_query + blockIdx.x % queries;
    u32 start = window > 0 && query + 1 > window ? query + 1 - window : 0;
    u32 begin = start > first_key ? start - first_key : 0, end = query + 1 - first_key;
    float* row = scores + blockIdx.x * (u64)keys;
    float largest = sinks ? sinks[head] : from_bits(0xff800000);
    for (u32 i = begin + threadIdx.x; i < end; i += THREADS) {
        largest = fmaxf(largest, scale * row[i]);
    }
    largest = block_fold<Largest>(largest, room);
    float sum = 0.0f;
    for (u32 i = threadIdx.x; i < keys; i += THREADS) {
        float weight = i >= begin && i < end ? expf(scale * row[i] - largest) : 0.0f;
        row[i] = weight;
        sum += weight;
    }
    sum = block_fold<Sum>(sum, room) + (sinks ? expf(sinks[head] - largest) : 0.0f);
    for (u32 i = begin + threadIdx.x; i < end; i += THREADS) {
        row[i] /= sum;
    }
}
