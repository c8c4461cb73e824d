// MBA of rows of attention at several thresholds, by bisection instead of sorting.
//
// A row's weights become whole multiples of a unit so small that their sum fills 62 bits. Sums of integers have no
// order, so that the budgets do not depend on the number of threads, and the twin in Rust finds the same ones.
#include "device.cuh"

// Thresholds that are bisected for at once.
constexpr u32 TOGETHER = 8;

struct Thresholds {
    double at[TOGETHER];
};

constexpr u32 LARGEST_FINITE = 0x7f7fffffu;

// Bits that order as non-negative weights do; those of negative and other wrong ones lie above.
__device__ inline u32 ordered(float weight) {
    u32 bits = __float_as_uint(weight);
    return bits == 0x80000000u ? 0 : bits; // minus zero
}

__device__ inline int exponent_of(u32 bits) {
    u32 exponent = bits >> 23;
    return exponent == 0 ? 1 : int(exponent);
}

// The weight times 2^(150 + shift), rounded to a whole number.
__device__ inline u64 whole(u32 bits, int shift) {
    u64 mantissa = (bits & 0x7fffffu) | (bits >> 23 == 0 ? 0u : 0x800000u);
    int by = exponent_of(bits) + shift;
    if (by >= 0) return mantissa << by;
    if (by < -24) return 0;
    return (mantissa + (1ull << (-by - 1))) >> -by;
}

// One row, of a query head or the mean of its group's.
struct Row {
    const float* first; // of the group's first head
    u64 to_next_head;
    u32 averaged; // heads
    const u32* staged;

    __device__ u32 read(u32 key) const {
        if (averaged == 1) return ordered(first[key]);
        double sum = 0.0;
        for (u32 head = 0; head < averaged; head++) sum += double(first[head * to_next_head + key]);
        return ordered(float(sum / double(averaged)));
    }

    __device__ u32 operator[](u32 key) const { return staged == nullptr ? read(key) : staged[key]; }
};

__device__ inline u64 sum_of(const Row& row, u32 keys, int shift) {
    u64 sum[1] = {0};
    for (u32 key = threadIdx.x; key < keys; key += blockDim.x) sum[0] += whole(row[key], shift);
    block_sums(sum);
    return sum[0];
}

// The shift with which the row's weights add up to less than 2^62, but not to much less.
__device__ inline int shift_of(const Row& row, u32 keys, u32 largest) {
    // Coarse weights: the largest has 40 bits. Each is rounded by less than one.
    int coarse = 16 - exponent_of(largest);
    u64 bound = sum_of(row, keys, coarse) + keys;
    return coarse + int(__clzll(bound)) - 2;
}

// Grid: (rows, heads of the group + 1), the last of which is their mean. Blocks of whole warps.
// probabilities (group, rows, keys); budgets (group + 1, rows, width), of which `count` from `place` on are written.
// Dynamic shared memory: `keys` words where `stages`, else none.
extern "C" __global__ void __launch_bounds__(MOST_THREADS, 1)
    row_budgets(const float* probabilities, u32* budgets, u32 group, u32 keys, u32 stages, Thresholds thresholds,
                u32 count, u32 place, u32 width) {
    DYNAMIC_SHARED(u32, staged);
    u32 rows = gridDim.x, head = blockIdx.y;
    bool mean = head == group;
    Row row;
    row.first = probabilities + (u64(mean ? 0 : head) * rows + blockIdx.x) * keys;
    row.to_next_head = u64(rows) * keys;
    row.averaged = mean ? group : 1;
    row.staged = nullptr;

    u32 largest = 0;
    for (u32 key = threadIdx.x; key < keys; key += blockDim.x) {
        u32 bits = row.read(key);
        if (stages) staged[key] = bits; // only this thread reads it again
        largest = larger(largest, bits);
    }
    if (stages) row.staged = staged;
    largest = block_largest(largest);
    u32* found = budgets + (u64(head) * rows + blockIdx.x) * width + place;
    if (largest > LARGEST_FINITE) {
        if (threadIdx.x < count) found[threadIdx.x] = 0xffffffffu;
        return;
    }

    int shift = shift_of(row, keys, largest);
    u64 total = sum_of(row, keys, shift);
    u64 target[TOGETHER];
    // The weights from `low` on reach the target, those from `high` on do not.
    u32 low[TOGETHER], high[TOGETHER];
#pragma unroll
    for (u32 k = 0; k < TOGETHER; k++) {
        double wanted = ceil(thresholds.at[k] * double(total));
        bool all = !(thresholds.at[k] < 1.0) || wanted >= double(total);
        target[k] = k >= count ? 0 : all ? total : u64(wanted);
        low[k] = 0;
        high[k] = target[k] == 0 ? 1 : largest + 1;
    }
    for (;;) {
        u32 middle[TOGETHER];
        bool open = false;
        u64 sums[TOGETHER];
#pragma unroll
        for (u32 k = 0; k < TOGETHER; k++) {
            middle[k] = low[k] + (high[k] - low[k]) / 2;
            open |= middle[k] != low[k];
            sums[k] = 0;
        }
        if (!open) break;
        for (u32 key = threadIdx.x; key < keys; key += blockDim.x) {
            u32 bits = row[key];
            u64 weight = whole(bits, shift);
#pragma unroll
            for (u32 k = 0; k < TOGETHER; k++) sums[k] += bits >= middle[k] ? weight : 0;
        }
        block_sums(sums);
#pragma unroll
        for (u32 k = 0; k < TOGETHER; k++) {
            if (sums[k] >= target[k]) {
                low[k] = middle[k];
            } else {
                high[k] = middle[k];
            }
        }
    }

    // What lies above the last weight that is needed, and how many of that weight are.
    u64 above[TOGETHER], counts[TOGETHER];
#pragma unroll
    for (u32 k = 0; k < TOGETHER; k++) above[k] = counts[k] = 0;
    for (u32 key = threadIdx.x; key < keys; key += blockDim.x) {
        u32 bits = row[key];
        u64 weight = whole(bits, shift);
#pragma unroll
        for (u32 k = 0; k < TOGETHER; k++) {
            above[k] += bits > low[k] ? weight : 0;
            counts[k] += bits > low[k] ? 1 : 0;
        }
    }
    block_sums(above);
    block_sums(counts);
    if (threadIdx.x != 0) return;
#pragma unroll
    for (u32 k = 0; k < TOGETHER; k++) {
        if (k >= count) break;
        u64 last = whole(low[k], shift);
        // A budget of nothing is one key, as is that of a row of zeros.
        u64 of_last = target[k] == 0 ? 1 : (target[k] - above[k] + last - 1) / last;
        found[k] = target[k] == 0 ? 1 : u32(counts[k] + of_last);
    }
}
