// A driver whose GPU is this processor. It knows NVIDIA's functions and numbers, and runs the project's own kernels.
//
// It is stricter than a GPU: work on a stream is put off until somebody waits for it, so that whoever does not wait reads what is
// not there; fresh memory is NaN; what is written next to an array, and what is never freed, ends the program.

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <type_traits>
#include <ucontext.h>
#include <vector>

#include "device.h"

#include "../../src/cuda/kernels/attention.cu"
#include "../../src/cuda/kernels/codes.cu"
#include "../../src/cuda/kernels/delta.cu"
#include "../../src/cuda/kernels/elementwise.cu"
#include "../../src/cuda/kernels/experts.cu"
#include "../../src/cuda/kernels/mamba.cu"
#include "../../src/cuda/kernels/norm.cu"
#include "../../src/cuda/kernels/tap.cu"

Triple threadIdx, blockIdx, blockDim, gridDim;

extern "C" void emulated_check(const void* at, size_t bytes);

namespace {

enum { SUCCESS = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, INVALID_CONTEXT = 201, NOT_FOUND = 500 };

[[noreturn]] void wrong(const std::string& what) {
    std::fprintf(stderr, "emulated GPU: %s\n", what.c_str());
    std::abort();
}

// Fibres

// Each thread of a block that takes turns is a fibre. A fibre begins once, by a call of the system; from then on it is left and entered by
// jumps, from one fibre to the next, and waits for the next block where the last one ended. What every jump touches lies close together.

constexpr unsigned MOST_THREADS = 1024;
constexpr size_t STACK = 64 << 10;
/// Stacks do not end at the same offset of a page, or they would push each other out of the caches.
constexpr size_t STAGGER = 320, STAGGERED = 16 << 10;

/// As the compiler's own setjmp saves it.
using Place = void* [5];

Place scheduler;
Place places[MOST_THREADS];
bool ended[MOST_THREADS];
std::vector<char> stacks[MOST_THREADS];
/// Threads of the block that have not ended. 0 between blocks, and in kernels that take no turns.
unsigned threads_left;
std::function<void()> body;

/// Goes on with a thread of the block.
[[noreturn, gnu::noinline]] void enter(unsigned thread);

/// The next thread that has not ended.
unsigned following(unsigned thread) {
    do {
        thread = thread + 1 < blockDim.x ? thread + 1 : 0;
    } while (ended[thread]);
    return thread;
}

[[noreturn, gnu::noinline]] void end(unsigned thread) {
    ended[thread] = true;
    if (--threads_left > 0) {
        enter(following(thread));
    }
    __builtin_longjmp(scheduler, 1);
}

[[gnu::noinline]] void end_until_entered(unsigned thread) {
    if (__builtin_setjmp(places[thread]) == 0) {
        end(thread);
    }
}

void fibre() {
    for (;;) {
        body();
        end_until_entered(threadIdx.x);
    }
}

void enter(unsigned thread) {
    threadIdx.x = thread;
    std::vector<char>& stack = stacks[thread];
    if (stack.empty()) {
        stack.resize(STACK + thread * STAGGER % STAGGERED);
        static ucontext_t begin;
        getcontext(&begin);
        begin.uc_stack.ss_sp = stack.data();
        begin.uc_stack.ss_size = stack.size();
        makecontext(&begin, fibre, 0);
        setcontext(&begin);
    }
    __builtin_longjmp(places[thread], 1);
}

[[gnu::noinline]] void run_in_turns() {
    std::fill_n(ended, blockDim.x, false);
    threads_left = blockDim.x;
    if (__builtin_setjmp(scheduler) == 0) {
        enter(0);
    }
}

void run_block(bool takes_turns) {
    if (takes_turns) {
        return run_in_turns();
    }
    for (threadIdx.x = 0; threadIdx.x < blockDim.x; threadIdx.x++) {
        body();
    }
}

// Kernels

using Call = std::function<void()>;

/// Ends the program where a pointer leads to no array of the GPU that is current.
template <class A> void check(A arg) {
    if constexpr (std::is_pointer_v<A>) {
        if (arg) {
            emulated_check((const void*)arg, 1);
        }
    }
}

struct Kernel {
    bool takes_turns;
    /// Bytes of each parameter.
    std::vector<size_t> sizes;
    std::function<Call(void**)> bind;
};

template <class... A, size_t... I> Kernel kernel(bool takes_turns, void (*f)(A...), std::index_sequence<I...>) {
    auto bind = [f](void** p) -> Call {
        (check<A>(*static_cast<A*>(p[I])), ...);
        auto args = std::make_tuple(*static_cast<A*>(p[I])...);
        return [f, args] { std::apply(f, args); };
    };
    return {takes_turns, {sizeof(A)...}, bind};
}

template <class... A> Kernel plain(void (*f)(A...)) {
    return kernel(false, f, std::index_sequence_for<A...>());
}

template <class... A> Kernel in_turns(void (*f)(A...)) {
    return kernel(true, f, std::index_sequence_for<A...>());
}

/// Bytes of each parameter of a kernel in a text of PTX: `.visible .entry name(.param .u64 name_param_0, …)`. None where it is not there.
std::vector<size_t> parameters(const std::string& ptx, const std::string& name) {
    std::vector<size_t> sizes;
    size_t at = ptx.find(".visible .entry " + name + "(");
    size_t end = at == std::string::npos ? at : ptx.find(')', at);
    while (at < end && (at = ptx.find(".param .", at)) < end) {
        at += std::strlen(".param .");
        sizes.push_back(std::stoul(ptx.substr(at + 1)) / 8);
    }
    return sizes;
}

std::map<std::string, Kernel> kernels = {
    {"addresses", plain(addresses)},
    {"shape_scores", plain(shape_scores)},
    {"softmax", in_turns(softmax)},
    {"fp8", plain(fp8)},
    {"nvfp4", plain(nvfp4)},
    {"integers", plain(integers)},
    {"four_bits", plain(four_bits)},
    {"mxfp4", plain(mxfp4)},
    {"short_conv", in_turns(short_conv)},
    {"delta_rule", in_turns(delta_rule)},
    {"delta_rule_64", in_turns(delta_rule_64)},
    {"delta_rule_128", in_turns(delta_rule_128)},
    {"add", plain(add)},
    {"multiply", plain(multiply)},
    {"scale", plain(scale)},
    {"scale_rows", plain(scale_rows)},
    {"add_bias", plain(add_bias)},
    {"activate", plain(activate)},
    {"gate", plain(gate)},
    {"xielu", plain(xielu)},
    {"sigmoid_gate", plain(sigmoid_gate)},
    {"interleaved_swiglu", plain(interleaved_swiglu)},
    {"rotate", plain(rotate)},
    {"columns", plain(columns)},
    {"join_columns", plain(join_columns)},
    {"repeat_rows", plain(repeat_rows)},
    {"clamp", plain(clamp)},
    {"narrow_to_bf16", plain(narrow_to_bf16)},
    {"widen_bf16", plain(widen_bf16)},
    {"widen_f16", plain(widen_f16)},
    {"finite_16", plain(finite_16)},
    {"finite_32", plain(finite_32)},
    {"gather", plain(gather)},
    {"gather_bf16", plain(gather_bf16)},
    {"scatter", plain(scatter)},
    {"causal_conv", plain(causal_conv)},
    {"selective_scan", in_turns(selective_scan)},
    {"selective_scan_64", in_turns(selective_scan_64)},
    {"selective_scan_128", in_turns(selective_scan_128)},
    {"row_norm", in_turns(row_norm)},
    {"tap", in_turns(tap)},
};

// Memory

constexpr size_t MARGIN = 64;
constexpr unsigned char UNTOUCHED = 0xa5;

struct Block {
    size_t bytes;
    char* memory;
    int gpu;
};

std::recursive_mutex everything;
std::map<uintptr_t, Block> blocks;
std::map<uintptr_t, size_t> pinned;
/// Bytes in use on each GPU.
std::map<int, size_t> used;
/// Number of the GPU whose context is current, from 1 on; 0 for none.
thread_local int current;
/// Contexts in use.
std::map<int, int> retained;

size_t capacity() {
    const char* set = std::getenv("EMULATED_GPU_BYTES");
    return set ? std::strtoull(set, nullptr, 10) : (size_t)8 << 30;
}

template <class T> bool holds(const std::map<uintptr_t, T>& all, uintptr_t at, size_t bytes, size_t (*size)(const T&)) {
    auto next = all.upper_bound(at);
    if (next == all.begin()) {
        return false;
    }
    auto& [start, block] = *std::prev(next);
    return at + bytes <= start + size(block);
}

bool on_device(uintptr_t at, size_t bytes) {
    return holds<Block>(blocks, at, bytes, [](const Block& block) { return block.gpu == current ? block.bytes : 0; });
}

bool is_pinned(const void* at, size_t bytes) {
    return holds<size_t>(pinned, (uintptr_t)at, bytes, [](const size_t& size) { return size; });
}

void release(uintptr_t at) {
    auto found = blocks.find(at);
    if (found == blocks.end()) {
        wrong("memory is freed that is not allocated");
    }
    Block block = found->second;
    for (size_t i = 0; i < MARGIN; i++) {
        if ((unsigned char)block.memory[i] != UNTOUCHED || (unsigned char)block.memory[MARGIN + block.bytes + i] != UNTOUCHED) {
            wrong("something was written next to an array of " + std::to_string(block.bytes) + " bytes");
        }
    }
    used[block.gpu] -= block.bytes;
    std::free(block.memory);
    blocks.erase(found);
}

// Streams

struct Stream {
    int gpu;
    std::vector<std::function<void()>> waiting;
    size_t done = 0;

    void run(size_t count) {
        std::vector<std::function<void()>> first(waiting.begin(), waiting.begin() + count);
        waiting.erase(waiting.begin(), waiting.begin() + count);
        done += count;
        for (auto& work : first) {
            work();
        }
    }
};

std::vector<Stream*> streams;

struct Event {
    int gpu;
    /// Set when the stream gets there.
    std::shared_ptr<std::chrono::steady_clock::time_point> passed;
    Stream* stream = nullptr;
    size_t after = 0;
};

using Guard = std::lock_guard<std::recursive_mutex>;

} // namespace

[[gnu::noinline]] void __syncthreads() {
    if (threads_left == 0) {
        wrong("a kernel takes turns that is listed as plain");
    }
    unsigned thread = threadIdx.x, next = following(thread);
    if (next != thread && __builtin_setjmp(places[thread]) == 0) {
        enter(next);
    }
}

extern "C" {

/// For cuBLAS: puts work on a stream.
void emulated_enqueue(void* stream, std::function<void()>* work) {
    Guard guard(everything);
    if (static_cast<Stream*>(stream)->gpu != current) {
        wrong("cuBLAS is used in the context of another GPU");
    }
    static_cast<Stream*>(stream)->waiting.push_back(*work);
}

/// Ends the program unless `bytes` bytes from `at` on are an array's, of the GPU that is current.
void emulated_check(const void* at, size_t bytes) {
    Guard guard(everything);
    if (!on_device((uintptr_t)at, bytes)) {
        wrong("an operand is not in the memory of this GPU");
    }
}

int cuInit(unsigned) { return SUCCESS; }

int cuDriverGetVersion(int* version) {
    *version = 13000;
    return SUCCESS;
}

int cuDeviceGetCount(int* count) {
    const char* set = std::getenv("EMULATED_GPUS");
    *count = set ? std::atoi(set) : 1;
    return SUCCESS;
}

int cuDeviceGet(int* device, int ordinal) {
    *device = ordinal;
    return SUCCESS;
}

int cuDeviceTotalMem_v2(size_t* bytes, int) {
    *bytes = capacity();
    return SUCCESS;
}

int cuDeviceGetName(char* name, int length, int) {
    std::strncpy(name, "Emulated GPU", length);
    return SUCCESS;
}

int cuDeviceGetAttribute(int* value, int attribute, int) {
    const char* capability = std::getenv("EMULATED_CAPABILITY");
    *value = attribute == 75 ? (capability ? std::atoi(capability) : 8) : attribute == 76 ? 0 : 1;
    return SUCCESS;
}

int cuGetErrorName(int code, const char** name) {
    *name = code == OUT_OF_MEMORY     ? "CUDA_ERROR_OUT_OF_MEMORY"
            : code == INVALID_CONTEXT ? "CUDA_ERROR_INVALID_CONTEXT"
                                      : "CUDA_ERROR_INVALID_VALUE";
    return SUCCESS;
}

int cuDevicePrimaryCtxRetain(void** context, int gpu) {
    Guard guard(everything);
    *context = (void*)(uintptr_t)(gpu + 1);
    retained[gpu + 1]++;
    return SUCCESS;
}

int cuDevicePrimaryCtxRelease_v2(int gpu) {
    Guard guard(everything);
    retained[gpu + 1]--;
    bool last = std::all_of(retained.begin(), retained.end(), [](auto& context) { return context.second == 0; });
    if (last && (!blocks.empty() || !pinned.empty())) {
        wrong(std::to_string(blocks.size()) + " arrays and " + std::to_string(pinned.size()) + " pinned blocks were never freed");
    }
    return SUCCESS;
}

int cuCtxSetCurrent(void* context) {
    current = (int)(uintptr_t)context;
    return SUCCESS;
}

int cuDeviceGetDefaultMemPool(void** pool, int) {
    *pool = (void*)1;
    return SUCCESS;
}

int cuMemPoolSetAttribute(void*, int, void*) { return SUCCESS; }

int cuMemGetInfo_v2(size_t* free, size_t* total) {
    Guard guard(everything);
    *total = capacity();
    *free = capacity() - used[current];
    return current ? SUCCESS : INVALID_CONTEXT;
}

int cuStreamCreate(Stream** stream, unsigned) {
    Guard guard(everything);
    *stream = new Stream{current, {}};
    streams.push_back(*stream);
    return current ? SUCCESS : INVALID_CONTEXT;
}

int cuStreamSynchronize(Stream* stream) {
    Guard guard(everything);
    stream->run(stream->waiting.size());
    return SUCCESS;
}

int cuStreamDestroy_v2(Stream* stream) {
    Guard guard(everything);
    stream->run(stream->waiting.size());
    streams.erase(std::find(streams.begin(), streams.end(), stream));
    delete stream;
    return SUCCESS;
}

int cuEventCreate(Event** event, unsigned flags) {
    *event = new Event{current, {}};
    if (flags == 0) {
        (*event)->passed = std::make_shared<std::chrono::steady_clock::time_point>();
    }
    return current ? SUCCESS : INVALID_CONTEXT;
}

int cuEventRecord(Event* event, Stream* stream) {
    Guard guard(everything);
    if (stream->gpu != event->gpu) {
        return INVALID_VALUE;
    }
    if (event->passed) {
        auto passed = event->passed = std::make_shared<std::chrono::steady_clock::time_point>();
        stream->waiting.push_back([=] { *passed = std::chrono::steady_clock::now(); });
    }
    *event = {event->gpu, event->passed, stream, stream->done + stream->waiting.size()};
    return SUCCESS;
}

int cuEventSynchronize(Event* event) {
    Guard guard(everything);
    if (event->stream && event->after > event->stream->done) {
        event->stream->run(event->after - event->stream->done);
    }
    return SUCCESS;
}

int cuEventElapsedTime_v2(float* milliseconds, Event* begin, Event* end) {
    Guard guard(everything);
    if (!begin->passed || !end->passed || begin->after > begin->stream->done || end->after > end->stream->done) {
        return INVALID_VALUE;
    }
    *milliseconds = std::chrono::duration<float, std::milli>(*end->passed - *begin->passed).count();
    return SUCCESS;
}

int cuEventDestroy_v2(Event* event) {
    delete event;
    return SUCCESS;
}

int cuModuleLoadData(std::string** module, const char* image) {
    *module = new std::string(image);
    return std::strstr(image, ".version 8.0\n.target sm_80\n") ? SUCCESS : INVALID_VALUE;
}

int cuModuleUnload(std::string* module) {
    delete module;
    return SUCCESS;
}

int cuModuleGetFunction(Kernel** function, std::string* module, const char* name) {
    auto found = kernels.find(name);
    if (found == kernels.end()) {
        return NOT_FOUND;
    }
    if (parameters(*module, name) != found->second.sizes) {
        wrong(std::string("the PTX of ") + name + " takes other parameters than its source");
    }
    *function = &found->second;
    return SUCCESS;
}

int cuLaunchKernel(Kernel* kernel, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned,
                   Stream* stream, void** params, void**) {
    Guard guard(everything);
    if (!current || stream->gpu != current) {
        return INVALID_CONTEXT;
    }
    if (gx == 0 || gy == 0 || gy > 65535 || gz != 1 || bx == 0 || bx > MOST_THREADS || by != 1 || bz != 1) {
        return INVALID_VALUE;
    }
    Call call = kernel->bind(params);
    stream->waiting.push_back([=] {
        gridDim = {gx, gy, 1};
        blockDim = {bx, 1, 1};
        body = call;
        for (blockIdx.y = 0; blockIdx.y < gy; blockIdx.y++) {
            for (blockIdx.x = 0; blockIdx.x < gx; blockIdx.x++) {
                run_block(kernel->takes_turns);
            }
        }
    });
    return SUCCESS;
}

int cuMemAllocAsync(uintptr_t* at, size_t bytes, Stream*) {
    Guard guard(everything);
    if (!current) {
        return INVALID_CONTEXT;
    }
    if (bytes == 0) {
        return INVALID_VALUE;
    }
    // What waits to be freed makes room.
    for (size_t i = 0; used[current] + bytes > capacity() && i < streams.size(); i++) {
        streams[i]->run(streams[i]->waiting.size());
    }
    if (used[current] + bytes > capacity()) {
        return OUT_OF_MEMORY;
    }
    used[current] += bytes;
    char* memory = (char*)std::malloc(bytes + 2 * MARGIN);
    std::memset(memory, UNTOUCHED, bytes + 2 * MARGIN);
    std::memset(memory + MARGIN, 0xff, bytes);
    *at = (uintptr_t)memory + MARGIN;
    blocks[*at] = {bytes, memory, current};
    return SUCCESS;
}

int cuMemFreeAsync(uintptr_t at, Stream* stream) {
    Guard guard(everything);
    stream->waiting.push_back([at] { release(at); });
    return SUCCESS;
}

int cuMemHostAlloc(void** at, size_t bytes, unsigned) {
    Guard guard(everything);
    *at = std::malloc(bytes);
    pinned[(uintptr_t)*at] = bytes;
    return current ? SUCCESS : INVALID_CONTEXT;
}

int cuMemFreeHost(void* at) {
    Guard guard(everything);
    pinned.erase((uintptr_t)at);
    std::free(at);
    return SUCCESS;
}

int cuMemcpyHtoDAsync_v2(uintptr_t to, const void* from, size_t bytes, Stream* stream) {
    Guard guard(everything);
    if (!current || !on_device(to, bytes) || !is_pinned(from, bytes)) {
        return current ? INVALID_VALUE : INVALID_CONTEXT;
    }
    stream->waiting.push_back([=] { std::memcpy((void*)to, from, bytes); });
    return SUCCESS;
}

int cuMemcpyDtoHAsync_v2(void* to, uintptr_t from, size_t bytes, Stream* stream) {
    Guard guard(everything);
    if (!current || !on_device(from, bytes)) {
        return current ? INVALID_VALUE : INVALID_CONTEXT;
    }
    stream->waiting.push_back([=] { std::memcpy(to, (const void*)from, bytes); });
    return SUCCESS;
}

int cuMemcpyDtoDAsync_v2(uintptr_t to, uintptr_t from, size_t bytes, Stream* stream) {
    Guard guard(everything);
    if (!current || !on_device(from, bytes) || !on_device(to, bytes)) {
        return current ? INVALID_VALUE : INVALID_CONTEXT;
    }
    stream->waiting.push_back([=] { std::memcpy((void*)to, (const void*)from, bytes); });
    return SUCCESS;
}

int cuMemsetD8Async(uintptr_t at, unsigned char value, size_t bytes, Stream* stream) {
    Guard guard(everything);
    if (!current || !on_device(at, bytes)) {
        return current ? INVALID_VALUE : INVALID_CONTEXT;
    }
    stream->waiting.push_back([=] { std::memset((void*)at, value, bytes); });
    return SUCCESS;
}
}
