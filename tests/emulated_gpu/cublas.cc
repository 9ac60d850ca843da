// cuBLAS's products as loops, on the streams of the emulated driver. Numbers of types and operations are NVIDIA's.

#include <cstdint>
#include <cstring>
#include <functional>
#include <vector>

extern "C" void emulated_enqueue(void* stream, std::function<void()>* work);
extern "C" void emulated_check(const void* at, size_t bytes);

namespace {

enum { SUCCESS = 0, INVALID_VALUE = 7, NOT_SUPPORTED = 15 };
enum { NOT_TURNED = 0, TURNED = 1 };
enum { F32 = 0, BF16 = 14 };
/// Sums that run side by side.
constexpr int LANES = 16;

enum { EXACT = 68, TENSOR32 = 77 };

struct Handle {
    void* stream;
};

float number(uint32_t bits) {
    float value;
    std::memcpy(&value, &bits, 4);
    return value;
}

/// As an operand meets the product: ten bits of mantissa where the tensor cores take f32.
float operand(const void* from, int type, int64_t i, int compute) {
    if (type == BF16) {
        return number((uint32_t) static_cast<const uint16_t*>(from)[i] << 16);
    }
    float value = static_cast<const float*>(from)[i];
    if (compute == TENSOR32) {
        uint32_t bits;
        std::memcpy(&bits, &value, 4);
        value = number((bits + 0xfff + (bits >> 13 & 1)) & ~0x1fffu);
    }
    return value;
}

struct Product {
    int turn_a, turn_b, m, n, k;
    int type_a, lda, type_b, ldb, ldc, compute;

    int check() const {
        bool types = (type_a == F32 || type_a == BF16) && type_a == type_b && (compute == EXACT || compute == TENSOR32);
        bool sizes = lda >= (turn_a ? k : m) && ldb >= (turn_b ? n : k) && ldc >= m && m > 0 && n > 0 && k > 0;
        return !types ? NOT_SUPPORTED : !sizes ? INVALID_VALUE : SUCCESS;
    }

    void run(const void* a, const void* b, float* c) const {
        // Rows of both as long as a sum, so that it runs along memory.
        int64_t length = (k + LANES - 1) / LANES * LANES;
        std::vector<float> rows(m * length), columns(n * length);
        for (int64_t i = 0; i < m; i++) {
            for (int64_t l = 0; l < k; l++) {
                rows[i * length + l] = operand(a, type_a, turn_a ? l + i * lda : i + l * lda, compute);
            }
        }
        for (int64_t j = 0; j < n; j++) {
            for (int64_t l = 0; l < k; l++) {
                columns[j * length + l] = operand(b, type_b, turn_b ? j + l * ldb : l + j * ldb, compute);
            }
        }
        for (int64_t j = 0; j < n; j++) {
            for (int64_t i = 0; i < m; i++) {
                c[i + j * ldc] = sum(&rows[i * length], &columns[j * length], length);
            }
        }
    }

    static float sum(const float* x, const float* y, int64_t length) {
        float lanes[LANES] = {};
        for (int64_t l = 0; l < length; l += LANES) {
            for (int lane = 0; lane < LANES; lane++) {
                lanes[lane] += x[l + lane] * y[l + lane];
            }
        }
        float all = 0;
        for (float lane : lanes) {
            all += lane;
        }
        return all;
    }
};

bool plain(const void* alpha, const void* beta, int type_c) {
    return *static_cast<const float*>(alpha) == 1 && *static_cast<const float*>(beta) == 0 && type_c == F32;
}

} // namespace

extern "C" {

int cublasCreate_v2(Handle** handle) {
    *handle = new Handle{nullptr};
    return SUCCESS;
}

int cublasDestroy_v2(Handle* handle) {
    delete handle;
    return SUCCESS;
}

int cublasSetStream_v2(Handle* handle, void* stream) {
    handle->stream = stream;
    return SUCCESS;
}

int cublasGemmEx(Handle* handle, int turn_a, int turn_b, int m, int n, int k, const void* alpha, const void* a, int type_a, int lda,
                 const void* b, int type_b, int ldb, const void* beta, void* c, int type_c, int ldc, int compute, int) {
    Product product = {turn_a, turn_b, m, n, k, type_a, lda, type_b, ldb, ldc, compute};
    if (!plain(alpha, beta, type_c) || product.check()) {
        return NOT_SUPPORTED;
    }
    for (const void* operand : {a, b, static_cast<const void*>(c)}) {
        emulated_check(operand, 1);
    }
    std::function<void()> work = [=] { product.run(a, b, static_cast<float*>(c)); };
    emulated_enqueue(handle->stream, &work);
    return SUCCESS;
}

int cublasGemmBatchedEx(Handle* handle, int turn_a, int turn_b, int m, int n, int k, const void* alpha, const void* const* a,
                        int type_a, int lda, const void* const* b, int type_b, int ldb, const void* beta, void* const* c, int type_c,
                        int ldc, int count, int compute, int) {
    Product product = {turn_a, turn_b, m, n, k, type_a, lda, type_b, ldb, ldc, compute};
    if (!plain(alpha, beta, type_c) || product.check()) {
        return NOT_SUPPORTED;
    }
    std::function<void()> work = [=] {
        for (int i = 0; i < count; i++) {
            product.run(a[i], b[i], static_cast<float*>(c[i]));
        }
    };
    emulated_enqueue(handle->stream, &work);
    return SUCCESS;
}
}
