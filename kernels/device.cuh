// What every kernel starts from: CUDA, or its emulation on a CPU, and sums over warps and blocks.
#pragma once

#ifdef KVPROF_EMULATED
#include "emulation/cuda_on_cpu.h"
#else
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#define DYNAMIC_SHARED(type, name)                                                                                   \
    extern __shared__ __align__(16) unsigned char dynamic_shared[];                                                  \
    type* name = reinterpret_cast<type*>(dynamic_shared)
#endif

typedef unsigned int u32;
typedef unsigned long long u64;

constexpr u32 WARP = 32;
constexpr u32 ALL_LANES = 0xffffffffu;
constexpr u32 MOST_WARPS = 32;
// Of a block; kernels that are launched with so many must not take more registers than those have.
constexpr u32 MOST_THREADS = 512;

__device__ inline float as_float(float x) { return x; }
__device__ inline float as_float(__half x) { return __half2float(x); }
__device__ inline float as_float(__nv_bfloat16 x) { return __bfloat162float(x); }

__device__ inline void store(float* to, float x) { *to = x; }
__device__ inline void store(__half* to, float x) { *to = __float2half(x); }
__device__ inline void store(__nv_bfloat16* to, float x) { *to = __float2bfloat16(x); }

// The sum over a warp, in every lane.
template <class T>
__device__ inline T warp_sum(T x) {
#pragma unroll
    for (u32 distance = WARP / 2; distance > 0; distance /= 2) x += __shfl_xor_sync(ALL_LANES, x, distance);
    return x;
}

template <class T>
__device__ inline T larger(T a, T b) {
    return a < b ? b : a;
}

// The largest over a warp, in every lane.
template <class T>
__device__ inline T warp_largest(T x) {
#pragma unroll
    for (u32 distance = WARP / 2; distance > 0; distance /= 2) {
        x = larger(x, __shfl_xor_sync(ALL_LANES, x, distance));
    }
    return x;
}

// The largest over a block of whole warps, in every thread.
template <class T>
__device__ inline T block_largest(T x) {
    __shared__ T of_warps[MOST_WARPS];
    x = warp_largest(x);
    __syncthreads(); // whoever read last time has read
    if (threadIdx.x % WARP == 0) of_warps[threadIdx.x / WARP] = x;
    __syncthreads();
    for (u32 warp = 0; warp < blockDim.x / WARP; warp++) x = larger(x, of_warps[warp]);
    return x;
}

// The sum over the threads of a block before this one, and over all of them. Blocks of whole warps.
__device__ inline u32 block_scan(u32 own, u32* total) {
    __shared__ u32 of_warps[MOST_WARPS];
    u32 lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    u32 sum = own;
#pragma unroll
    for (u32 distance = 1; distance < WARP; distance *= 2) {
        u32 before = __shfl_up_sync(ALL_LANES, sum, distance);
        if (lane >= distance) sum += before;
    }
    __syncthreads(); // whoever read last time has read
    if (lane == WARP - 1) of_warps[warp] = sum;
    __syncthreads();
    u32 before = 0;
    *total = 0;
    for (u32 w = 0; w < blockDim.x / WARP; w++) {
        if (w == warp) before = *total;
        *total += of_warps[w];
    }
    return before + sum - own;
}
