// MBA of rows of attention at several thresholds, by histograms of leading bits instead of sorting.
//
// A first reading counts a row's weights and adds them up by exponent. Of these bins only those are opened in which a
// threshold is reached, by the next bits of the weights, until the last key's weight is known: a row is read at most
// four times. Weights of one exponent add up as their mantissas, and exponents meet in 128 bits. Such sums are exact
// and have no order: budgets do not depend on the number of threads, and the twin in Rust finds the same ones.
#include "device.cuh"

typedef unsigned __int128 u128;

// Thresholds that are looked for at once; each may open a bin of its own.
constexpr u32 TOGETHER = 8;
// Bits of a weight that a reading tells apart: first the exponent, then so many at once.
constexpr u32 EXPONENT_SHIFT = 23;
constexpr u32 BITS = 8;
constexpr u32 BINS = 1u << BITS;
// Counters, of TOGETHER tables of bins or of fewer in several copies.
constexpr u32 CELLS = TOGETHER * BINS;

constexpr u32 LARGEST_FINITE = 0x7f7fffffu;
// The bin of weights that are negative, infinite or not numbers.
constexpr u32 WRONG = 255;
// Exponents below the largest whose weights count: 2^32 keys of 24 bits add up to less than 2^128.
constexpr u32 REACH = 71;

struct Thresholds {
    double at[TOGETHER];
};

// Bits that order as non-negative weights do; those of negative and other wrong ones lie above.
__device__ inline u32 ordered(float weight) {
    u32 bits = __float_as_uint(weight);
    return bits == 0x80000000u ? 0 : bits; // minus zero
}

__device__ inline u32 mantissa_of(u32 bits) {
    return (bits & 0x7fffffu) | (bits >> EXPONENT_SHIFT == 0 ? 0u : 0x800000u);
}

// Weights without a leading bit are multiples of the same unit as those of the exponent above.
__device__ inline u32 unit_of(u32 exponent) { return exponent == 0 ? 1 : exponent; }

// One row, of a query head or the mean of its group's.
struct Row {
    const float* first; // of the group's first head
    u64 to_next_head;
    u32 averaged; // heads
    u32* staged;  // none where a row has no room

    __device__ u32 read(u32 key) const {
        if (averaged == 1) return ordered(first[key]);
        double sum = 0.0;
        for (u32 head = 0; head < averaged; head++) sum += double(first[head * to_next_head + key]);
        return ordered(float(sum / double(averaged)));
    }

    // Only the thread that read a key first reads it again.
    __device__ u32 read_first(u32 key) const {
        u32 bits = read(key);
        if (staged != nullptr) staged[key] = bits;
        return bits;
    }

    __device__ u32 read_again(u32 key) const { return staged == nullptr ? read(key) : staged[key]; }
};

// Keys and sums of mantissas by bin. Copies of a bin lie next to each other, in banks of their own, so that lanes whose
// weights are alike do not all wait for one counter.
struct Histograms {
    u32 keys[CELLS];
    u32 low[CELLS];
    u32 high[CELLS];

    __device__ void clear(u32 cells) {
        for (u32 cell = threadIdx.x; cell < cells; cell += blockDim.x) keys[cell] = low[cell] = high[cell] = 0;
    }

    __device__ void add(u32 bin, u32 copies, u32 mantissa) {
        u32 cell = bin * copies + threadIdx.x % copies;
        atomicAdd(&keys[cell], 1u);
        u32 before = atomicAdd(&low[cell], mantissa);
        if (before + mantissa < before) atomicAdd(&high[cell], 1u); // every carry is seen once
    }

    // Adds a bin's copies up in the first.
    __device__ void join(u32 bins, u32 copies) {
        for (u32 bin = threadIdx.x; bin < bins; bin += blockDim.x) {
            u32 count = 0;
            u64 sum = 0;
            for (u32 c = 0; c < copies; c++) {
                // Begins with another copy in every line of banks.
                u32 cell = bin * copies + (c + bin * copies / WARP) % copies;
                count += keys[cell];
                sum += u64(high[cell]) << 32 | low[cell];
            }
            keys[bin * copies] = count;
            low[bin * copies] = u32(sum);
            high[bin * copies] = u32(sum >> 32);
        }
    }

    __device__ u64 sum_of(u32 cell) const { return u64(high[cell]) << 32 | low[cell]; }
};

// The sum over this lane and those before it.
__device__ inline u128 warp_running_sum(u128 x) {
    u32 lane = threadIdx.x % WARP;
#pragma unroll
    for (u32 distance = 1; distance < WARP; distance *= 2) {
        u64 low = __shfl_up_sync(ALL_LANES, u64(x), distance);
        u64 high = __shfl_up_sync(ALL_LANES, u64(x >> 64), distance);
        if (lane >= distance) x += u128(high) << 64 | low;
    }
    return x;
}

__device__ inline u32 warp_running_sum(u32 x) {
    u32 lane = threadIdx.x % WARP;
#pragma unroll
    for (u32 distance = 1; distance < WARP; distance *= 2) {
        u32 before = __shfl_up_sync(ALL_LANES, x, distance);
        if (lane >= distance) x += before;
    }
    return x;
}

__device__ inline u128 of_last_lane(u128 x) {
    u64 low = __shfl_sync(ALL_LANES, u64(x), WARP - 1), high = __shfl_sync(ALL_LANES, u64(x >> 64), WARP - 1);
    return u128(high) << 64 | low;
}

// By how much sums of mantissas are shifted so that bins can be added up.
struct Scale {
    bool exponents; // the bins are; else all have one unit
    u32 largest;    // unit of all exponents that occur

    __device__ bool counts(u32 bin) const { return !exponents || largest - unit_of(bin) <= REACH; }
    __device__ u32 shift(u32 bin) const { return exponents ? REACH - (largest - unit_of(bin)) : 0; }
    __device__ u128 weight(u32 bin, u64 mantissas) const {
        return counts(bin) ? u128(mantissas) << shift(bin) : u128(0);
    }
    // Mantissas of a bin that reach a weight.
    __device__ u64 reaching(u32 bin, u128 weight) const {
        return u64((weight + (u128(1) << shift(bin)) - 1) >> shift(bin));
    }
};

// What is known of the last key that a threshold needs.
struct Search {
    u32 leading; // bits of its weight
    u32 table;   // of its bin
    u32 above;   // keys of larger weights
    u32 keys;    // that begin with the same bits
    u64 wanted;  // of their mantissas
    bool open;
};

// Goes through the bins of a table from the largest weights until a sum is reached; a warp calls it.
__device__ inline void find_bin(const Histograms& histograms, u32 table, u32 copies, u128 wanted, Scale scale,
                                u32 bits, Search* search) {
    u128 sum = 0;
    u32 keys = search->above;
    __syncwarp(); // all have read what one lane writes
    for (u32 end = BINS; end > 0 && sum < wanted; end -= WARP) {
        u32 bin = end - 1 - threadIdx.x % WARP;
        u32 cell = (table * BINS + bin) * copies;
        u32 own = histograms.keys[cell];
        u128 weight = scale.weight(bin, histograms.sum_of(cell));
        u128 reached = sum + warp_running_sum(weight);
        u32 counted = keys + warp_running_sum(own);
        if (reached >= wanted && reached - weight < wanted) {
            search->leading = search->leading << bits | bin;
            search->above = counted - own;
            search->keys = own;
            search->wanted = scale.reaching(bin, wanted - (reached - weight));
        }
        sum = of_last_lane(reached);
        keys = __shfl_sync(ALL_LANES, counted, WARP - 1);
    }
}

// The sum that a threshold asks for, of 62 significant bits.
__device__ inline u128 target_of(double threshold, u128 total) {
    int length = total >> 64 ? 128 - int(__clzll(u64(total >> 64))) : 64 - int(__clzll(u64(total)));
    int by = length > 62 ? length - 62 : 0;
    double rounded = double(u64(total >> by));
    double wanted = ceil(threshold * rounded);
    if (!(threshold < 1.0) || wanted >= rounded) return total;
    return u128(u64(wanted)) << by;
}

// Finds the exponent of the last key that a threshold needs; a warp calls it.
__device__ inline void find_exponent(const Histograms& histograms, double threshold, Search* search) {
    u32 lane = threadIdx.x % WARP, largest = 0;
    for (u32 bin = lane; bin < BINS; bin += WARP) {
        if (histograms.keys[bin * TOGETHER] > 0) largest = bin;
    }
    Scale scale{true, unit_of(warp_largest(largest))};
    u128 total = 0;
    for (u32 bin = lane; bin < BINS; bin += WARP) total += scale.weight(bin, histograms.sum_of(bin * TOGETHER));
    u128 target = target_of(threshold, of_last_lane(warp_running_sum(total)));
    // A budget of nothing is one key, as is that of a row of zeros.
    if (lane == 0) *search = Search{0, 0, 0, 1, 1, true};
    __syncwarp();
    if (target > 0) find_bin(histograms, 0, TOGETHER, target, scale, 0, search);
}

// Bins that the next reading opens, each with a table of its own.
struct Opened {
    u32 leading[TOGETHER];
    u32 tables;
};

// Writes the budgets that are known and gives tables to the other searches; one thread calls it.
__device__ inline void settle(Search* searches, u32 count, u32 shift, Opened* opened, u32* found) {
    opened->tables = 0;
    for (u32 k = 0; k < count; k++) {
        Search& search = searches[k];
        if (!search.open) continue;
        if (search.keys == 1 || shift == 0) {
            u32 weight = mantissa_of(search.leading); // of all these keys, unless there is only one
            found[k] = search.above + (search.keys == 1 ? 1 : u32((search.wanted + weight - 1) / weight));
            search.open = false;
            continue;
        }
        u32 table = 0;
        while (table < opened->tables && opened->leading[table] != search.leading) table++;
        if (table == opened->tables) opened->leading[opened->tables++] = search.leading;
        search.table = table;
    }
}

__device__ inline u32 copies_of(u32 tables) {
    u32 copies = TOGETHER;
    while (tables * copies > TOGETHER) copies /= 2;
    return copies;
}

// Counts the keys of opened bins by the bits from `shift` up to `before`.
__device__ inline void count_opened(const Row& row, u32 keys, const Opened& opened, u32 copies, u32 before, u32 shift,
                                    Histograms* histograms) {
    u32 leading[TOGETHER];
#pragma unroll
    for (u32 k = 0; k < TOGETHER; k++) leading[k] = k < opened.tables ? opened.leading[k] : 0xffffffffu;
    for (u32 key = threadIdx.x; key < keys; key += blockDim.x) {
        u32 bits = row.read_again(key), table = TOGETHER;
#pragma unroll
        for (u32 k = 0; k < TOGETHER; k++) table = bits >> before == leading[k] ? k : table;
        if (table == TOGETHER || bits == 0) continue;
        u32 bin = bits >> shift & ((1u << (before - shift)) - 1);
        histograms->add(table * BINS + bin, copies, mantissa_of(bits));
    }
}

// Grid: (rows, heads of the group + 1), the last of which is their mean. Blocks of whole warps.
// probabilities (group, rows, keys); budgets (group + 1, rows, width), of which `count` from `place` on are written.
// Dynamic shared memory: `keys` words where `stages`, else none.
extern "C" __global__ void __launch_bounds__(MOST_THREADS, 1)
    counts_to_mass(const float* probabilities, u32* budgets, u32 group, u32 keys, u32 stages, Thresholds thresholds,
                u32 count, u32 place, u32 width) {
    DYNAMIC_SHARED(u32, staged);
    __shared__ Histograms histograms;
    __shared__ Search searches[TOGETHER];
    __shared__ Opened opened;
    __shared__ double wanted[TOGETHER];
    u32 rows = gridDim.x, head = blockIdx.y;
    bool mean = head == group;
    Row row;
    row.first = probabilities + (u64(mean ? 0 : head) * rows + blockIdx.x) * keys;
    row.to_next_head = u64(rows) * keys;
    row.averaged = mean ? group : 1;
    row.staged = stages ? staged : nullptr;
    u32* found = budgets + (u64(head) * rows + blockIdx.x) * width + place;
    u32 warp = threadIdx.x / WARP, warps = blockDim.x / WARP;

    histograms.clear(CELLS);
    if (threadIdx.x == 0) {
#pragma unroll
        for (u32 k = 0; k < TOGETHER; k++) wanted[k] = thresholds.at[k];
    }
    __syncthreads();
    for (u32 key = threadIdx.x; key < keys; key += blockDim.x) {
        u32 bits = row.read_first(key);
        // Nothing is added for zeros, of which a causal row has many.
        if (bits == 0) continue;
        u32 bin = bits > LARGEST_FINITE ? WRONG : bits >> EXPONENT_SHIFT;
        histograms.add(bin, TOGETHER, mantissa_of(bits));
    }
    __syncthreads();
    histograms.join(BINS, TOGETHER);
    __syncthreads();
    if (histograms.keys[WRONG * TOGETHER] > 0) {
        if (threadIdx.x < count) found[threadIdx.x] = 0xffffffffu;
        return;
    }
    for (u32 k = warp; k < count; k += warps) find_exponent(histograms, wanted[k], &searches[k]);

    for (u32 before = EXPONENT_SHIFT;;) {
        __syncthreads();
        if (threadIdx.x == 0) settle(searches, count, before, &opened, found);
        __syncthreads();
        if (opened.tables == 0) return;
        u32 shift = before > BITS ? before - BITS : 0, copies = copies_of(opened.tables);
        histograms.clear(opened.tables * copies * BINS);
        __syncthreads();
        count_opened(row, keys, opened, copies, before, shift, &histograms);
        __syncthreads();
        histograms.join(opened.tables * BINS, copies);
        __syncthreads();
        for (u32 k = warp; k < count; k += warps) {
            Search* search = &searches[k];
            if (search->open) {
                find_bin(histograms, search->table, copies, search->wanted, Scale{false, 0}, before - shift, search);
            }
        }
        before = shift;
    }
}
