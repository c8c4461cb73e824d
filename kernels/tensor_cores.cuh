// What kernels ask of tensor cores and of copies that go on by themselves, one function for each instruction; or their
// emulation. They begin with compute capability 8.0. A warp calls them as a whole.
#pragma once

#include "device.cuh"

// Two numbers rounded to a half type, the first in the lower bits.
template <class T>
__device__ inline u32 packed(float first, float second);

// Two numbers of a half type, the first from the lower bits.
template <class T>
__device__ inline void unpacked(u32 both, float& first, float& second);

// sums += a x b, of matrices (16, 8), (16, 16) and (16, 8). With row = lane / 4 and column = lane % 4 x 2, a lane holds
// - of sums: (row, column), (row, column + 1), and the same 8 rows below;
// - of a, in pairs of neighbours in a row: (row, column), (row + 8, column), (row, column + 8), (row + 8, column + 8);
// - of b, in pairs of neighbours in a column: (column, row), (column + 8, row).
template <class T>
__device__ inline void multiply_add(float (&sums)[4], const u32 (&a)[4], u32 b0, u32 b1);

#ifdef KVPROF_EMULATED
#include "emulation/tensor_cores_on_cpu.h"
#else

// For earlier cards the kernels compile, and end with an error.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
#define FROM_CAPABILITY_8(...) __trap()
#else
#define FROM_CAPABILITY_8(...) asm volatile(__VA_ARGS__)
#endif

template <>
__device__ inline u32 packed<__half>(float first, float second) {
    __half2 both = __floats2half2_rn(first, second);
    return reinterpret_cast<u32&>(both);
}
template <>
__device__ inline u32 packed<__nv_bfloat16>(float first, float second) {
    __nv_bfloat162 both = __floats2bfloat162_rn(first, second);
    return reinterpret_cast<u32&>(both);
}

template <>
__device__ inline void unpacked<__half>(u32 both, float& first, float& second) {
    float2 wide = __half22float2(reinterpret_cast<__half2&>(both));
    first = wide.x;
    second = wide.y;
}
template <>
__device__ inline void unpacked<__nv_bfloat16>(u32 both, float& first, float& second) {
    first = __uint_as_float(both << 16);
    second = __uint_as_float(both & 0xffff0000u);
}

#define MULTIPLY_ADD(type, name)                                                                                     \
    template <>                                                                                                      \
    __device__ inline void multiply_add<type>(float (&sums)[4], const u32 (&a)[4], u32 b0, u32 b1) {                 \
        FROM_CAPABILITY_8("mma.sync.aligned.m16n8k16.row.col.f32." name "." name ".f32 "                             \
                     "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"                               \
                     : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])                                    \
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));                                \
    }
MULTIPLY_ADD(__half, "f16")
MULTIPLY_ADD(__nv_bfloat16, "bf16")

// Four 8 x 8 matrices of a half type from shared memory. Lane 8m + r has the address of row r of matrix m, 16 bytes; it
// gets, of every matrix, the pair of neighbours (lane / 4, lane % 4 x 2) in that row.
__device__ inline void load_matrices(u32 (&into)[4], const void* row) {
    FROM_CAPABILITY_8("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                      : "=r"(into[0]), "=r"(into[1]), "=r"(into[2]), "=r"(into[3])
                      : "r"(u32(__cvta_generic_to_shared(row)))
                      : "memory");
}

// The same of the matrices with rows and columns exchanged: the pair of neighbours in column lane / 4.
__device__ inline void load_matrices_turned(u32 (&into)[4], const void* row) {
    FROM_CAPABILITY_8("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                      : "=r"(into[0]), "=r"(into[1]), "=r"(into[2]), "=r"(into[3])
                      : "r"(u32(__cvta_generic_to_shared(row)))
                      : "memory");
}

// 2^x, to 2^-22 of itself; 0 where that is less than the smallest normal number.
__device__ inline float power_of_two(float x) {
    float power;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(x));
    return power;
}

// Begins to copy 16 bytes to shared memory, or fills them with zeros; both addresses are multiples of 16.
__device__ inline void begin_copy(void* to, const void* from, bool there) {
    FROM_CAPABILITY_8("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(u32(__cvta_generic_to_shared(to))),
                      "l"(from), "r"(there ? 16u : 0u)
                      : "memory");
}

// Waits for the copies that this thread began; others see them after a barrier.
__device__ inline void wait_for_copies() { FROM_CAPABILITY_8("cp.async.wait_all;" ::: "memory"); }

#endif
