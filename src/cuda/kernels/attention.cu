// Attention around its two matrix products: the addresses of each head's matrices, what is done to
// scores before the softmax, and the softmax.

#include "common.cuh"

/// Addresses for a batch of matrix products, one per head: five lists, one after the other, of
/// queries, keys, values, scores and outputs of `heads` heads. Heads of queries and keys have
/// `head_dim` elements, those of values and outputs `value_dim`.
extern "C" __global__ void addresses(
    float** lists, float* q, float* k, float* v, float* scores, float* out, u32 heads, u32 group, u32 head_dim,
    u32 value_dim, u64 per_head) {
    EACH(head, heads) {
        lists[head] = q + head * head_dim;
        lists[heads + head] = k + head / group * head_dim;
        lists[2 * heads + head] = v + head / group * value_dim;
        lists[3 * heads + head] = scores + head * per_head;
        lists[4 * heads + head] = out + head * value_dim;
    }
}

/// Scales the scores [heads, queries, keys], caps them if `cap` is not 0, and adds linear biases
/// (ALiBi) if there are `slopes` [heads]: a slope times the position of the key, the first of which
/// is `first_key`. If `rounded` is not 0, slope, position and product are rounded to bf16, and the
/// product is multiplied by `factor`.
extern "C" __global__ void shape_scores(
    float* scores, const float* slopes, u64 count, u32 queries, u32 keys, u32 first_key, float scale, float cap,
    u32 rounded, float factor) {
    EACH(i, count) {
        float score = scale * scores[i];
        if (cap > 0.0f) {
            score = cap * tanhf(score / cap);
        }
        if (slopes) {
            float slope = slopes[i / keys / queries], position = first_key + i % keys;
            score += rounded ? widen(narrow(widen(narrow(slope)) * widen(narrow(position)))) * factor : slope * position;
        }
        scores[i] = score;
    }
}

/// In-place softmax of scores [heads, queries, keys], whose first query is `first_query` and whose
/// first key is `first_key`: the softmax of scale * score over the keys that a query attends to, 0
/// elsewhere. A query attends to keys up to its own position: to the last `window` of them if that
/// is not 0, or to those in its own chunk of `chunk` positions if that is not 0. `sinks` [heads]
/// may be null. One block per row.
extern "C" __global__ void softmax(
    float* scores, const float* sinks, u32 queries, u32 keys, u32 first_query, u32 first_key, u32 window, u32 chunk,
    float scale) {
    __shared__ float room[THREADS];
    u32 head = blockIdx.x / queries, query = first_query + blockIdx.x % queries;
    u32 start = window > 0 && query + 1 > window ? query + 1 - window : 0;
    start = chunk > 0 ? query / chunk * chunk : start;
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
