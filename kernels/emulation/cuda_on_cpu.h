// As much of CUDA as the kernels use, on a CPU: every thread of a block is a fibre, and barriers switch between them.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <string>

#define __global__
#define __device__
#define __shared__ static // one block runs at a time
#define __launch_bounds__(threads, blocks)
#define __align__(bytes) alignas(bytes)
#define DYNAMIC_SHARED(type, name) type* name = static_cast<type*>(emulation::dynamic_shared())
#define __syncthreads() emulation::block_barrier(__LINE__)

struct Place {
    unsigned x, y, z;
};
extern Place threadIdx, blockIdx, blockDim, gridDim;

namespace emulation {
void* dynamic_shared();
void block_barrier(int line);
// Most bytes that lanes exchange at once.
constexpr size_t EXCHANGED = 64;
// Leaves bytes for the other lanes of the warp, and waits until all have left theirs.
void exchange(const void* own, size_t size);
// What a lane left in the last exchange; it stays there until the next one.
const void* left_by(unsigned lane);
[[noreturn]] void fail(const std::string& why);
} // namespace emulation

template <class T>
inline T __shfl_sync(unsigned lanes, T x, unsigned lane) {
    static_assert(sizeof(T) <= 8, "a register or two");
    (void)lanes; // all of them
    emulation::exchange(&x, sizeof x);
    std::memcpy(&x, emulation::left_by(lane), sizeof x);
    return x;
}
template <class T>
inline T __shfl_xor_sync(unsigned lanes, T x, unsigned distance) {
    return __shfl_sync(lanes, x, threadIdx.x % 32 ^ distance);
}
template <class T>
inline T __shfl_up_sync(unsigned lanes, T x, unsigned distance) {
    unsigned lane = threadIdx.x % 32;
    return __shfl_sync(lanes, x, lane < distance ? lane : lane - distance);
}
inline void __syncwarp() { emulation::exchange(nullptr, 0); }

// Threads take turns at barriers alone: nothing comes between.
inline unsigned atomicAdd(unsigned* to, unsigned x) {
    unsigned before = *to;
    *to += x;
    return before;
}

template <class To, class From>
inline To same_bits(From x) {
    static_assert(sizeof(To) == sizeof(From), "as many bits");
    To to;
    std::memcpy(&to, &x, sizeof to);
    return to;
}
inline unsigned __float_as_uint(float x) { return same_bits<unsigned>(x); }
inline float __int_as_float(int x) { return same_bits<float>(x); }
inline long long __double_as_longlong(double x) { return same_bits<long long>(x); }
inline int __clzll(unsigned long long x) { return x == 0 ? 64 : __builtin_clzll(x); }

struct __half {
    uint16_t bits;
};
struct __nv_bfloat16 {
    uint16_t bits;
};

inline float __bfloat162float(__nv_bfloat16 x) { return same_bits<float>(uint32_t(x.bits) << 16); }

inline __nv_bfloat16 __float2bfloat16(float x) {
    uint32_t bits = same_bits<uint32_t>(x);
    if (x != x) return {uint16_t(bits >> 16 | 0x40)};
    return {uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16)}; // to nearest, ties to even
}

inline float __half2float(__half x) {
    uint32_t sign = uint32_t(x.bits & 0x8000) << 16, size = uint32_t(x.bits & 0x7fff) << 13;
    if (size >= 31u << 23) return same_bits<float>(sign | 0x7f800000 | size);
    // The exponents' zeros are 112 apart; a product puts leading bits where there were none.
    return same_bits<float>(same_bits<uint32_t>(same_bits<float>(size) * 0x1p112f) | sign);
}

inline __half __float2half(float x) {
    uint16_t sign = uint16_t(same_bits<uint32_t>(x) >> 16 & 0x8000);
    float size = std::fabs(x);
    if (size != size) return {uint16_t(sign | 0x7e00)};
    if (size >= 65520.0f) return {uint16_t(sign | 0x7c00)};
    int exponent = size < 6.103515625e-5f ? -14 : std::ilogb(size);
    // In units of the last bit, to nearest, ties to even; a carry reaches into the exponent as it should.
    float units = std::nearbyint(std::ldexp(size, 10 - exponent));
    return {uint16_t(sign | (uint32_t(units) + (uint32_t(exponent + 14) << 10)))};
}
