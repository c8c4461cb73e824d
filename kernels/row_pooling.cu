// Scores of KV heads from those of their query heads: pooled over neighbouring keys, reduced over the group.
//
// Everything is added in the order in which the twin in Rust adds it, so that both give the same bits.
#include "device.cuh"

// How neighbours are pooled.
constexpr u32 LARGEST = 0, AVERAGE = 1; // else not at all

// The largest of `count` values, or nothing where all are less or not numbers.
template <class Values>
__device__ inline double largest_of(u32 count, Values value) {
    double largest = 0.0;
    for (u32 i = 0; i < count; i++) {
        double x = value(i);
        if (x > largest) largest = x;
    }
    return largest;
}

template <class Values>
__device__ inline double sum_of(u32 count, Values value) {
    double sum = -0.0; // what changes no number that is added to it
    for (u32 i = 0; i < count; i++) sum += value(i);
    return sum;
}

// Keys whose scores count, and how far a pool of them reaches.
struct Pool {
    u32 pooling;
    u32 reach;
    u32 prefix;

    // Of `value` around a key; what lies beyond the ends counts as zero.
    template <class Values>
    __device__ double around(u32 key, Values value) const {
        if (pooling != LARGEST && pooling != AVERAGE) return value(key);
        u32 first = key < reach ? 0 : key - reach;
        u32 count = (prefix - key > reach ? key + reach + 1 : prefix) - first;
        auto neighbour = [&](u32 i) { return value(first + i); };
        if (pooling == LARGEST) return largest_of(count, neighbour);
        return sum_of(count, neighbour) / double(2 * u64(reach) + 1);
    }
};

template <class Values>
__device__ inline double reduced(u32 group, u32 to_largest, Values value) {
    return to_largest ? largest_of(group, value) : sum_of(group, value) / double(group);
}

// Grid: (keys in blocks of threads, KV heads). attention (KV heads x group, keys); scores (KV heads, keys), zero from
// `prefix` on.
extern "C" __global__ void pool_rows(const double* attention, double* scores, u32 group, u32 keys, u32 prefix,
                                      u32 pooling, u32 reach, u32 to_largest, u32 reduce_first) {
    u32 key = blockIdx.x * blockDim.x + threadIdx.x;
    if (key >= keys) return;
    const double* heads = attention + u64(blockIdx.y) * group * keys;
    double* score = scores + u64(blockIdx.y) * keys + key;
    if (key >= prefix) {
        *score = 0.0;
        return;
    }
    Pool pool{pooling, reach, prefix};
    auto at = [&](u32 head, u32 k) { return heads[u64(head) * keys + k]; };
    if (reduce_first) {
        *score = pool.around(key, [&](u32 k) {
            return reduced(group, to_largest, [&](u32 head) { return at(head, k); });
        });
    } else {
        *score = reduced(group, to_largest, [&](u32 head) {
            return pool.around(key, [&](u32 k) { return at(head, k); });
        });
    }
}
