// Elementwise operations.

#include "common.cuh"

#define SILU 0
#define RELU 1
#define GELU_TANH 2
#define GELU_ERF 3
#define GELU_CLIPPED 4
#define RELU6 5
#define LEAKY_RELU 6
#define MISH 7
#define LAPLACE 8
#define SIGMOID 9
#define TANH 10
#define HARD_SWISH 11
#define SQRT_SOFTPLUS 12

__device__ inline float gelu(float x) {
    return 0.5f * x * (1.0f + erff(x * 0.7071067811865476f));
}

__device__ inline float at_most(float limit, float x) {
    // This comparison keeps NaN.
    return x > limit ? limit : x;
}

__device__ inline float relu6(float x) {
    return x < 0.0f ? 0.0f : at_most(6.0f, x);
}

/// x * tanh(ln(1 + e^x)); from 20 on the tangent is 1, and e^2 would not fit.
__device__ inline float mish(float x) {
    float e = expf(at_most(20.0f, x));
    float squared = e * (e + 2.0f);
    return x * (squared / (squared + 2.0f));
}

__device__ inline float swiglu_of(float gate, float up, float limit) {
    // These comparisons keep NaN.
    gate = gate > limit ? limit : gate;
    up = up > limit ? limit : up;
    up = up < -limit ? -limit : up;
    return (up + 1.0f) * gate * sigmoid(1.702f * gate);
}

__device__ inline float activated(float x, u32 kind) {
    switch (kind) {
    case SILU:
        return x * sigmoid(x);
    case RELU:
        return x < 0.0f ? 0.0f : x;
    case GELU_TANH:
        return 0.5f * x * (1.0f + tanhf(0.7978845608028654f * (x + 0.044715f * x * x * x)));
    case GELU_ERF:
        return gelu(x);
    case GELU_CLIPPED:
        return at_most(10.0f, gelu(x));
    case RELU6:
        return relu6(x);
    case HARD_SWISH:
        return x * relu6(x + 3.0f) * (1.0f / 6.0f);
    case SQRT_SOFTPLUS:
        return sqrtf(x > 20.0f ? x : log1pf(expf(x)));
    case LEAKY_RELU:
        return x < 0.0f ? 0.01f * x : x;
    case MISH:
        return mish(x);
    case LAPLACE:
        return 0.5f * (1.0f + erff((x - 0.707107f) / (0.282095f * 1.4142135623730951f)));
    case SIGMOID:
        return sigmoid(x);
    case TANH:
        return tanhf(x);
    default:
        return x;
    }
}

/// to += x
extern "C" __global__ void add(float* to, const float* x, u64 count) {
    EACH(i, count) {
        to[i] += x[i];
    }
}

/// x *= y
extern "C" __global__ void multiply(float* x, const float* y, u64 count) {
    EACH(i, count) {
        x[i] *= y[i];
    }
}

/// x *= factor
extern "C" __global__ void scale(float* x, u64 count, float factor) {
    EACH(i, count) {
        x[i] *= factor;
    }
}

/// Row r of x [rows, size] *= factors[r % repeat]
extern "C" __global__ void scale_rows(float* x, const float* factors, u64 count, u32 size, u32 repeat) {
    EACH(i, count) {
        x[i] *= factors[i / size % repeat];
    }
}

/// y [rows, columns] += bias [columns]
extern "C" __global__ void add_bias(float* y, const float* bias, u64 count, u32 columns) {
    EACH(i, count) {
        y[i] += bias[i % columns];
    }
}

/// x = f(x)
extern "C" __global__ void activate(float* x, u64 count, u32 kind) {
    EACH(i, count) {
        x[i] = activated(x[i], kind);
    }
}

/// x *= f(gate)
extern "C" __global__ void gate(float* x, const float* gates, u64 count, u32 kind) {
    EACH(i, count) {
        x[i] *= activated(gates[i], kind);
    }
}

/// x = xIELU(x), or x *= xIELU(gate) if there are gates.
extern "C" __global__ void xielu(
    float* x, const float* gates, u64 count, float alpha_p, float alpha_n, float beta, float eps) {
    EACH(i, count) {
        float from = gates ? gates[i] : x[i];
        float below = (expm1f(from < eps ? from : eps) - from) * alpha_n + beta * from;
        float to = from > 0.0f ? alpha_p * from * from + beta * from : below;
        x[i] = gates ? x[i] * to : to;
    }
}

/// x *= sigmoid(gate), with one gate for every `per_gate` consecutive elements.
extern "C" __global__ void sigmoid_gate(float* x, const float* gates, u64 count, u64 per_gate) {
    EACH(i, count) {
        x[i] *= sigmoid(gates[i / per_gate]);
    }
}

/// Turns each pair of gate and up in `x` into one element.
extern "C" __global__ void interleaved_swiglu(float* out, const float* x, u64 count, float limit) {
    EACH(i, count) {
        out[i] = swiglu_of(x[2 * i], x[2 * i + 1], limit);
    }
}

/// Rotates x [tokens, heads, head_dim] by the angles of the tables [positions, half]; `count` =
/// tokens * heads * half. Pair d of a head is its elements d * step and d * step + apart.
extern "C" __global__ void rotate(
    float* x, const float* cosines, const float* sines, u64 count, u32 positions, u32 heads, u32 head_dim, u32 half,
    u32 step, u32 apart) {
    EACH(i, count) {
        u32 d = i % half;
        u64 head = i / half;
        u64 at = head / heads % positions * half + d;
        float* low = x + head * head_dim + d * step;
        float a = low[0], b = low[apart];
        low[0] = a * cosines[at] - b * sines[at];
        low[apart] = b * cosines[at] + a * sines[at];
    }
}

/// Columns `first` to `first + width` of x, which has `from` columns; `count` elements in all.
extern "C" __global__ void columns(float* out, const float* x, u64 count, u32 from, u32 first, u32 width) {
    EACH(i, count) {
        out[i] = x[i / width * from + first + i % width];
    }
}

/// Rows of x, which has `left` columns, each followed by that of y, which has `right`; `count`
/// elements in all.
extern "C" __global__ void join_columns(float* out, const float* x, const float* y, u64 count, u32 left, u32 right) {
    EACH(i, count) {
        u64 row = i / (left + right), column = i % (left + right);
        out[i] = column < left ? x[row * left + column] : y[row * right + column - left];
    }
}

/// Each row of x, which has `size` columns, `times` times; `count` elements in all.
extern "C" __global__ void repeat_rows(float* out, const float* x, u64 count, u32 size, u32 times) {
    EACH(i, count) {
        out[i] = x[i / size / times * size + i % size];
    }
}

/// Clamps to -limit..limit; NaN stays NaN.
extern "C" __global__ void clamp(float* out, const float* x, u64 count, float limit) {
    EACH(i, count) {
        float value = x[i];
        value = value > limit ? limit : value;
        out[i] = value < -limit ? -limit : value;
    }
}

extern "C" __global__ void narrow_to_bf16(bf16* out, const float* x, u64 count) {
    EACH(i, count) {
        out[i] = narrow(x[i]);
    }
}

extern "C" __global__ void widen_bf16(float* out, const bf16* x, u64 count) {
    EACH(i, count) {
        out[i] = widen(x[i]);
    }
}

/// f16 to f32.
extern "C" __global__ void widen_f16(float* out, const unsigned short* x, u64 count) {
    EACH(i, count) {
        out[i] = widen_half(x[i]);
    }
}

/// Lowers `first` to the smallest index of an element that is not finite. `words` are 16-bit
/// floats, which are infinite or NaN if all bits of `exponent` are set.
extern "C" __global__ void finite_16(const unsigned short* words, u64 count, u32 exponent, u64* first) {
    EACH(i, count) {
        if ((words[i] & exponent) == exponent) {
            atomicMin(first, i);
        }
    }
}

extern "C" __global__ void finite_32(const u32* words, u64 count, u64* first) {
    EACH(i, count) {
        if ((words[i] & 0x7f800000) == 0x7f800000) {
            atomicMin(first, i);
        }
    }
}
