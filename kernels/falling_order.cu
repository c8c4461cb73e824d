// The order of keys by falling weight, ties by lower index: a bitonic sort of (weight, index) pairs.
//
// No two pairs are equal, so that the order has no choice left. Rows are padded to a power of two with pairs that come
// last. Steps within a tile run in shared memory, those between tiles in global memory.
#include "device.cuh"

constexpr u32 TILE = 2048;

// Bits that rise where the weight falls, through infinities and negative weights too.
__device__ inline u32 falling(float weight) {
    u32 bits = __float_as_uint(weight);
    return bits >> 31 ? bits : ~(bits | 0x80000000u);
}

__device__ inline u64 falling(double weight) {
    u64 bits = u64(__double_as_longlong(weight));
    return bits >> 63 ? bits : ~(bits | 0x8000000000000000ull);
}

// A float32 weight and its index in one number.
struct Narrow {
    u64 bits;
    __device__ static Narrow of(float weight, u32 index) { return Narrow{u64(falling(weight)) << 32 | index}; }
    __device__ static Narrow last() { return Narrow{~0ull}; }
    __device__ bool after(const Narrow& other) const { return bits > other.bits; }
    __device__ u32 index() const { return u32(bits); }
};

// A float64 weight and its index.
struct __align__(16) Wide {
    u64 weight;
    u64 key;
    __device__ static Wide of(double weight, u32 index) { return Wide{falling(weight), index}; }
    __device__ static Wide last() { return Wide{~0ull, ~0ull}; }
    __device__ bool after(const Wide& other) const {
        return weight > other.weight || (weight == other.weight && key > other.key);
    }
    __device__ u32 index() const { return u32(key); }
};

// Orders the entries `stride` apart of one pair; runs of `size` entries rise and fall in turns.
template <class Entry>
__device__ inline void exchange(Entry* entries, u32 pair, u32 stride, u32 size, u32 offset) {
    u32 i = (pair & ~(stride - 1)) * 2 + (pair & (stride - 1)), j = i + stride;
    Entry a = entries[i], b = entries[j];
    bool rises = ((offset + i) & size) == 0;
    if (a.after(b) == rises) {
        entries[i] = b;
        entries[j] = a;
    }
}

// All steps of runs of `size` whose strides stay within a tile.
template <class Entry>
__device__ inline void merge_within(Entry* tile, u32 size, u32 offset) {
    u32 stride = size / 2 < TILE / 2 ? size / 2 : TILE / 2;
    for (; stride > 0; stride /= 2) {
        for (u32 pair = threadIdx.x; pair < TILE / 2; pair += blockDim.x) exchange(tile, pair, stride, size, offset);
        __syncthreads();
    }
}

// Grid: (tiles, heads). Fills a tile with entries and sorts it.
template <class Entry, class Weight>
__device__ inline void sort_tile(const Weight* weights, Entry* entries, u32 keys) {
    __shared__ Entry tile[TILE];
    u32 offset = blockIdx.x * TILE, padded = gridDim.x * TILE;
    const Weight* row = weights + u64(blockIdx.y) * keys;
    for (u32 i = threadIdx.x; i < TILE; i += blockDim.x) {
        tile[i] = offset + i < keys ? Entry::of(row[offset + i], offset + i) : Entry::last();
    }
    __syncthreads();
    for (u32 size = 2; size <= TILE; size *= 2) merge_within(tile, size, offset);
    Entry* to = entries + u64(blockIdx.y) * padded + offset;
    for (u32 i = threadIdx.x; i < TILE; i += blockDim.x) to[i] = tile[i];
}

// Grid: (tiles, heads). The last steps of runs of `size`, which is more than a tile.
template <class Entry>
__device__ inline void merge_tile(Entry* entries, u32 size) {
    __shared__ Entry tile[TILE];
    u32 offset = blockIdx.x * TILE, padded = gridDim.x * TILE;
    Entry* own = entries + u64(blockIdx.y) * padded + offset;
    for (u32 i = threadIdx.x; i < TILE; i += blockDim.x) tile[i] = own[i];
    __syncthreads();
    merge_within(tile, size, offset);
    for (u32 i = threadIdx.x; i < TILE; i += blockDim.x) own[i] = tile[i];
}

// Grid: (pairs in blocks of threads, heads); half as many pairs as entries.
template <class Entry>
__device__ inline void merge_step(Entry* entries, u32 padded, u32 size, u32 stride) {
    u32 pair = blockIdx.x * blockDim.x + threadIdx.x;
    if (pair < padded / 2) exchange(entries + u64(blockIdx.y) * padded, pair, stride, size, 0);
}

// Grid: (keys in blocks of threads, heads).
template <class Entry>
__device__ inline void write_order(const Entry* entries, u32* order, u32 padded, u32 keys) {
    u32 rank = blockIdx.x * blockDim.x + threadIdx.x;
    if (rank < keys) order[u64(blockIdx.y) * keys + rank] = entries[u64(blockIdx.y) * padded + rank].index();
}

// weights and order (heads, keys); entries (heads, padded).
#define SORT_OF(weight, entry, name)                                                                                 \
    extern "C" __global__ void __launch_bounds__(MOST_THREADS, 1)                                                    \
        sort_tiles_##name(const weight* weights, entry* entries, u32 keys) {                                         \
        sort_tile(weights, entries, keys);                                                                           \
    }                                                                                                                \
    extern "C" __global__ void sort_step_##name(entry* entries, u32 padded, u32 size, u32 stride) {                  \
        merge_step(entries, padded, size, stride);                                                                   \
    }                                                                                                                \
    extern "C" __global__ void __launch_bounds__(MOST_THREADS, 1) sort_merge_##name(entry* entries, u32 size) {      \
        merge_tile(entries, size);                                                                                   \
    }                                                                                                                \
    extern "C" __global__ void sort_order_##name(const entry* entries, u32* order, u32 padded, u32 keys) {           \
        write_order(entries, order, padded, keys);                                                                   \
    }

SORT_OF(float, Narrow, f32)
SORT_OF(double, Wide, f64)
