// Weights in codes, as numbers. Everything but MXFP4 becomes f32, with the roundings of the
// formats: products are rounded one by one, in the order in which they stand here.

#include "common.cuh"

// Types of scales, as `table::Scales` numbers them.
#define SCALES_F32 0
#define SCALES_BF16 1
#define SCALES_F16 2

/// E4M3 without infinities (`float8_e4m3fn`).
__device__ inline float e4m3(u32 code) {
    u32 exponent = code >> 3 & 15, mantissa = code & 7;
    float magnitude = exponent == 0 ? mantissa * 0.001953125f : from_bits((exponent + 120) << 23 | mantissa << 20);
    magnitude = (code & 0x7f) == 0x7f ? from_bits(0x7fc00000) : magnitude;
    return code & 0x80 ? -magnitude : magnitude;
}

/// E2M1: sign, two bits of exponent and one of mantissa.
__device__ inline float e2m1(u32 code) {
    u32 exponent = code >> 1 & 3, mantissa = code & 1;
    float magnitude = exponent == 0 ? 0.5f * mantissa : from_bits((exponent + 126) << 23 | mantissa << 22);
    return code & 8 ? -magnitude : magnitude;
}

/// E8M0: 2^(code - 127); 255 is NaN.
__device__ inline float e8m0(u32 code) {
    return from_bits(code == 255 ? 0x7fc00000 : code == 0 ? 0x00400000 : code << 23);
}

/// The scale at an index of a file's bytes, which are of one of the types of scales, else E8M0.
__device__ inline float scale_at(const u8* scales, u32 kind, u64 index) {
    const u8* four = scales + 4 * index;
    const u8* two = scales + 2 * index;
    switch (kind) {
    case SCALES_F32:
        return from_bits(four[0] | four[1] << 8 | four[2] << 16 | (u32)four[3] << 24);
    case SCALES_BF16:
        return from_bits((u32)two[0] << 16 | (u32)two[1] << 24);
    case SCALES_F16:
        return widen_half(two[0] | two[1] << 8);
    default:
        return e8m0(scales[index]);
    }
}

/// FP8: codes [rows, input], and one scale for each `high` rows and `wide` columns; `count` codes
/// in all.
extern "C" __global__ void fp8(
    float* out, const u8* codes, const u8* scales, u64 count, u32 input, u32 high, u32 wide, u32 kind) {
    u32 across = (input + wide - 1) / wide;
    EACH(i, count) {
        u64 row = i / input, column = i % input;
        out[i] = e4m3(codes[i]) * scale_at(scales, kind, row / high * across + column / wide);
    }
}

/// NVFP4: two codes in each byte, the low half first, and a scale for each 16 codes, which `number`
/// multiplies, or divides if `divides` is not 0.
extern "C" __global__ void nvfp4(float* out, const u8* codes, const u8* scales, u64 bytes, float number, u32 divides) {
    EACH(i, bytes) {
        float scale = e4m3(scales[i / 8]);
        scale = divides ? scale / number : scale * number;
        out[2 * i] = e2m1(codes[i] & 15) * scale;
        out[2 * i + 1] = e2m1(codes[i] >> 4) * scale;
    }
}

/// Integers of `bits` bits in rows of `row_bytes` bytes, from the low end of bytes, with a zero and
/// a scale for each row and group, [rows, groups]: (code - zero) * scale * factor. Without `zeros`,
/// zero is half of the codes. `named` [input] has the group of each column; without it, `columns`
/// columns share a group. `count` integers in all.
extern "C" __global__ void integers(
    float* out, const u8* codes, const u8* scales, const u8* zeros, const u32* named, u64 count, u32 input, u32 bits,
    u32 row_bytes, u32 groups, u32 columns, u32 kind, float factor) {
    EACH(i, count) {
        u64 row = i / input;
        u32 column = i % input, bit = column * bits;
        u32 code = codes[row * row_bytes + bit / 8] >> bit % 8 & ((1u << bits) - 1);
        u32 group = named ? named[column] : column / columns;
        // A group that does not exist would lead out of the scales.
        u64 index = row * groups + (group < groups ? group : groups - 1);
        float zero = zeros ? zeros[index] : 1u << (bits - 1);
        out[i] = (code - zero) * scale_at(scales, kind, index) * factor;
    }
}

/// Four-bit codes of a table, two in each byte, the high half first, with a scale for each `block`
/// of them.
extern "C" __global__ void four_bits(
    float* out, const u8* codes, const float* table, const float* scales, u64 count, u64 block) {
    EACH(i, count) {
        out[i] = table[codes[i / 2] >> (i % 2 ? 0 : 4) & 15] * scales[i / block];
    }
}

/// Dequantises MXFP4, blocks of 32 four-bit floats with one scale each, to bf16. One thread per
/// byte of codes.
extern "C" __global__ void mxfp4(bf16* out, const u8* codes, const u8* scales, u64 bytes) {
    const float values[8] = {0.0f, 0.5f, 1.0f, 1.5f, 2.0f, 3.0f, 4.0f, 6.0f};
    EACH(i, bytes) {
        u32 scale = scales[i / 16];
        // The factor is 2^(scale - 127). Where that exceeds f32 it is half of that, and `last` is
        // 2.
        float factor = from_bits(scale == 0 ? 0x00400000 : scale == 255 ? 254u << 23 : scale << 23);
        float last = scale == 255 ? 2.0f : 1.0f;
        for (u32 half = 0; half < 2; half++) {
            u32 code = codes[i] >> (4 * half) & 15;
            float magnitude = values[code & 7] * factor * last;
            out[2 * i + half] = narrow(code & 8 ? -magnitude : magnitude);
        }
    }
}
