// The instructions of tensor_cores.cuh on a CPU, after the fragments that the PTX ISA draws.
#pragma once

#include "cuda_on_cpu.h"

namespace emulation {
void begin_copy_16(void* to, const void* from);
void end_copies();

inline __half narrowed(float x, __half) { return __float2half(x); }
inline __nv_bfloat16 narrowed(float x, __nv_bfloat16) { return __float2bfloat16(x); }
inline float widened(__half x) { return __half2float(x); }
inline float widened(__nv_bfloat16 x) { return __bfloat162float(x); }

// A sum so far and 8 products, added up as coarsely as tensor cores may, which promise at least the bits of float32:
// all are brought to the exponent of the largest and cut off behind its 24 bits, and so is their sum.
inline float add_products(float so_far, const double* products) {
    double terms[9] = {so_far};
    std::memcpy(terms + 1, products, 8 * sizeof(double));
    uint64_t largest = 0;
    double plain = 0.0;
    for (double term : terms) {
        largest = std::max(largest, same_bits<uint64_t>(term) >> 52 & 0x7ff);
        plain += term;
    }
    if (largest == 0 || largest == 0x7ff) return float(plain); // nothing at all, or not finite
    // The unit is the 24th bit of the largest: 2^(largest - 1023 - 23).
    double unit = same_bits<double>((largest - 23) << 52), per_unit = same_bits<double>((2046 + 23 - largest) << 52);
    int64_t sum = 0;
    for (double term : terms) sum += int64_t(term * per_unit); // towards zero
    while (sum >= 1 << 24 || sum <= -(1 << 24)) {
        sum /= 2;
        unit *= 2;
    }
    return float(double(sum) * unit);
}
} // namespace emulation

template <class T>
inline u32 packed(float first, float second) {
    return u32(emulation::narrowed(first, T{}).bits) | u32(emulation::narrowed(second, T{}).bits) << 16;
}

template <class T>
inline void unpacked(u32 both, float& first, float& second) {
    first = emulation::widened(T{uint16_t(both)});
    second = emulation::widened(T{uint16_t(both >> 16)});
}

template <class T>
inline void multiply_add(float (&sums)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    // The elements a0 to a7 and b0 to b3 of a lane's fragments.
    struct Fragments {
        float a[8], b[4];
    } own;
    for (u32 i = 0; i < 4; i++) unpacked<T>(a[i], own.a[2 * i], own.a[2 * i + 1]);
    unpacked<T>(b0, own.b[0], own.b[1]);
    unpacked<T>(b1, own.b[2], own.b[3]);
    emulation::exchange(&own, sizeof own);
    auto of = [](u32 lane) { return static_cast<const Fragments*>(emulation::left_by(lane)); };
    u32 group = threadIdx.x % WARP / 4, in_group = threadIdx.x % 4;
    // Two rows of a, group and group + 8, and two columns of b, in_group x 2 and the one beside it.
    double rows[2][16], columns[2][16];
    for (u32 lane = 0; lane < 4; lane++) {
        // Lane 4g + l has, as a_j, row g for j in 0, 1, 4, 5, else g + 8, and column 2l + j % 2, + 8 from j = 4 on;
        const Fragments* left = of(4 * group + lane);
        for (u32 j = 0; j < 8; j++) rows[j / 2 % 2][lane * 2 + j % 2 + j / 4 * 8] = left->a[j];
        for (u32 side = 0; side < 2; side++) {
            // and as b_j row 2l + j % 2, + 8 from j = 2 on, of column g.
            const Fragments* right = of(4 * (in_group * 2 + side) + lane);
            for (u32 j = 0; j < 4; j++) columns[side][lane * 2 + j % 2 + j / 2 * 8] = right->b[j];
        }
    }
    for (u32 i = 0; i < 4; i++) {
        // c_i lies in row g for i in 0, 1, else g + 8, and column 2l + i % 2.
        double products[16];
        for (u32 k = 0; k < 16; k++) products[k] = rows[i / 2][k] * columns[i % 2][k];
        sums[i] = emulation::add_products(emulation::add_products(sums[i], products), products + 8);
    }
}

inline void load_matrices(u32 (&into)[4], const void* row) {
    if (uintptr_t(row) % 16 != 0) emulation::fail("a row of a matrix that is not aligned");
    emulation::exchange(row, 16);
    u32 lane = threadIdx.x % WARP;
    for (u32 matrix = 0; matrix < 4; matrix++) {
        std::memcpy(&into[matrix], static_cast<const u32*>(emulation::left_by(8 * matrix + lane / 4)) + lane % 4, 4);
    }
}

inline void load_matrices_turned(u32 (&into)[4], const void* row) {
    if (uintptr_t(row) % 16 != 0) emulation::fail("a row of a matrix that is not aligned");
    emulation::exchange(row, 16);
    u32 lane = threadIdx.x % WARP;
    for (u32 matrix = 0; matrix < 4; matrix++) {
        auto element = [&](u32 of_row) {
            return u32(static_cast<const uint16_t*>(emulation::left_by(8 * matrix + of_row))[lane / 4]);
        };
        into[matrix] = element(lane % 4 * 2) | element(lane % 4 * 2 + 1) << 16;
    }
}

inline float power_of_two(float x) {
    float power = std::exp2(x);
    return power < 0x1p-126f ? 0.0f : power;
}

inline void begin_copy(void* to, const void* from, bool there) { emulation::begin_copy_16(to, there ? from : nullptr); }

inline void wait_for_copies() { emulation::end_copies(); }
