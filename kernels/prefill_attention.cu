// Causal attention of many positions over a ragged cache of half-precision keys and values, on tensor cores.
//
// A block attends with 128 rows of queries for one KV head. A row is a position and a query head of the group, the
// heads of a position next to each other, so that the whole group shares what is read of keys and values. Tiles of
// keys and of values come through shared memory by asynchronous copies of 16 bytes: values while logits are computed,
// the next keys while values are added up. A warp has 16 of the rows, and their logits, weights and sums never leave
// its registers. No (rows x keys) matrix is ever stored.
//
// The softmax goes along with the tiles (FlashAttention-2): sums so far are rescaled when a larger logit turns up.
// Logits are sums of exact products in float32, weights are float32 exponentials of their distance from the largest.
// Products with values do not round weights to a half type: each weight is parted into its rounding and, rounded too,
// what that left over, and both are multiplied. What is lost of a weight w is at most
// - bfloat16, whose parts have 8 bits each: 2^-17 w;
// - float16, whose parts have 11: 2^-23 w, and 2^-40 of the row's largest weight. No float16 lies between 0 and 2^-24,
//   so that small weights would be lost in steps of that size; all are multiplied by 2^15 before they are parted. The
//   largest weight is 1 and the largest float16 almost 2^16.
// The sum that outputs are divided by is that of the float32 weights. Products of a tile are added up from zero and
// then joined to the sums before, so that a long row does not lose its small weights. Tensor cores add with at least
// the bits of float32, but may cut where float32 arithmetic rounds to nearest.
//
// A query's own keys must be the last ones that its position sees: the last query of a run sees `length` keys of a
// head, the one before it one fewer, and so on, whatever gaps there are between the keys before. Tiles that a warp
// does not see are skipped, and logits are hidden only in tiles that it sees in part. Both change no bit, since a
// hidden key has weight 0: outputs of a row depend on its own query and keys, never on the run or the rows it came
// with. Nothing is added in an order that depends on time.
//
// Limits: compute capability 8.0, D a multiple of 8 up to 256; D is filled up with zeros to that of a kernel. Few
// queries over a long cache occupy few blocks, as keys are not divided among blocks.
#include "tensor_cores.cuh"

#define NEVER (-__int_as_float(0x7f800000))

constexpr u32 WARPS = 8;
// Rows of queries that a warp has: those of a tensor core's product.
constexpr u32 WARP_ROWS = 16;
constexpr u32 ROWS = WARPS * WARP_ROWS;
// Numbers between rows in shared memory beyond D: 8 rows of 16 bytes then lie in different banks.
constexpr u32 GAP = 8;

struct Head {
    u32 start;  // row of the packed keys
    u32 length; // keys that the last query sees
};

// What weights are multiplied by before they are parted.
template <class T>
struct Weights;
template <>
struct Weights<__half> {
    static constexpr float UNIT = 32768.0f;
};
template <>
struct Weights<__nv_bfloat16> {
    static constexpr float UNIT = 1.0f;
};

// The rows of queries of a launch, and where they lie.
struct Queries {
    u32 count; // positions
    u32 group;
    u32 d;

    __device__ u32 rows() const { return count * group; }
    // Rows behind the last are treated as it is, and not stored.
    __device__ u32 position(u32 row) const { return (row < rows() ? row : rows() - 1) / group; }
    // Keys that a row sees.
    __device__ u32 seen(u32 row, Head head) const { return head.length - count + 1 + position(row); }
};

// Parts two weights into sums of two numbers of a half type.
template <class T>
__device__ inline void part(float x, float y, u32& high, u32& low) {
    x *= Weights<T>::UNIT;
    y *= Weights<T>::UNIT;
    high = packed<T>(x, y);
    float of_x, of_y;
    unpacked<T>(high, of_x, of_y);
    low = packed<T>(x - of_x, y - of_y);
}

constexpr u32 NONE = 0xffffffffu;

// Begins to copy `COUNT` rows of d numbers, filled up to D; `line_of` says which of the lines each of them is, or NONE.
template <class T, u32 D, u32 COUNT, class LineOf>
__device__ inline void begin_tile(T* tile, const T* lines, u32 d, LineOf line_of) {
    constexpr u32 LANES = 8; // of a row
    u32 lane = threadIdx.x % LANES * 8;
#pragma unroll
    for (u32 first = 0; first < COUNT; first += WARPS * WARP / LANES) {
        u32 row = first + threadIdx.x / LANES;
        if (row >= COUNT) break;
        u32 line = line_of(row);
        const T* from = line == NONE ? lines : lines + u64(line) * d + lane;
#pragma unroll
        for (u32 column = 0; column < D; column += LANES * 8) {
            if (column + lane >= D) break;
            begin_copy(tile + row * (D + GAP) + column + lane, from + column, line != NONE && column + lane < d);
        }
    }
}

// Logits of a warp's 16 rows and a tile's keys, 8 keys in each product.
template <class T, u32 D, u32 KEYS>
__device__ inline void multiply_keys(float (&logits)[KEYS / 8][4], const T* queries, const T* keys) {
    u32 lane = threadIdx.x % WARP;
    queries += (lane % 16) * (D + GAP) + lane / 16 * 8;
    keys += (lane / 16 * 8 + lane % 8) * (D + GAP) + lane / 8 % 2 * 8;
#pragma unroll
    for (u32 block = 0; block < KEYS / 8; block++) {
#pragma unroll
        for (u32 i = 0; i < 4; i++) logits[block][i] = 0.0f;
    }
#pragma unroll
    for (u32 column = 0; column < D; column += 16) {
        u32 query[4];
        load_matrices(query, queries + column);
#pragma unroll
        for (u32 block = 0; block < KEYS / 8; block += 2) {
            u32 key[4];
            load_matrices(key, keys + block * 8 * (D + GAP) + column);
            multiply_add<T>(logits[block], query, key[0], key[1]);
            multiply_add<T>(logits[block + 1], query, key[2], key[3]);
        }
    }
}

// Hides the keys from `seen` on: of rows lane / 4 and lane / 4 + 8.
template <u32 KEYS>
__device__ inline void hide(float (&logits)[KEYS / 8][4], u32 from, const u32 (&seen)[2]) {
    u32 first = from + threadIdx.x % 4 * 2;
#pragma unroll
    for (u32 block = 0; block < KEYS / 8; block++) {
#pragma unroll
        for (u32 i = 0; i < 4; i++) {
            if (first + block * 8 + i % 2 >= seen[i / 2]) logits[block][i] = NEVER;
        }
    }
}

// The softmax of a row over the tiles so far.
struct Softmax {
    float largest; // of all four lanes that share the row
    float sum;     // of this lane's weights
    float rescale; // of what was added up before this tile
};

// Turns the logits of one of a lane's two rows into weights.
template <u32 ROW, u32 KEYS>
__device__ inline void weigh(float (&logits)[KEYS / 8][4], Softmax& softmax, float scale) {
    float largest = softmax.largest;
#pragma unroll
    for (u32 block = 0; block < KEYS / 8; block++) {
        largest = fmaxf(largest, fmaxf(logits[block][2 * ROW], logits[block][2 * ROW + 1]));
    }
    largest = fmaxf(largest, __shfl_xor_sync(ALL_LANES, largest, 1));
    largest = fmaxf(largest, __shfl_xor_sync(ALL_LANES, largest, 2));
    float sum = 0.0f;
#pragma unroll
    for (u32 block = 0; block < KEYS / 8; block++) {
#pragma unroll
        for (u32 i = 2 * ROW; i < 2 * ROW + 2; i++) {
            // The distance first: it is small where the weight is not.
            logits[block][i] = power_of_two((logits[block][i] - largest) * scale);
            sum += logits[block][i];
        }
    }
    softmax.rescale = power_of_two((softmax.largest - largest) * scale);
    softmax.sum = fmaf(softmax.sum, softmax.rescale, sum);
    softmax.largest = largest;
}

// A tile's weights as tensor cores take them, 16 keys in each product.
template <u32 KEYS>
struct Parted {
    u32 high[KEYS / 16][4], low[KEYS / 16][4];
};

template <class T, u32 KEYS>
__device__ inline void part_all(Parted<KEYS>& parted, const float (&weights)[KEYS / 8][4]) {
#pragma unroll
    for (u32 block = 0; block < KEYS / 8; block++) {
#pragma unroll
        for (u32 row = 0; row < 2; row++) {
            u32 to = block % 2 * 2 + row;
            part<T>(weights[block][2 * row], weights[block][2 * row + 1], parted.high[block / 2][to],
                    parted.low[block / 2][to]);
        }
    }
}

// Adds a tile's values to the sums of a warp's rows.
template <class T, u32 D, u32 KEYS>
__device__ inline void add_values(float (&sums)[D / 8][4], const Parted<KEYS>& weights, const T* values,
                                  const Softmax (&softmax)[2]) {
    u32 lane = threadIdx.x % WARP;
    values += (lane % 16) * (D + GAP) + lane / 16 * 8;
#pragma unroll
    for (u32 column = 0; column < D / 8; column += 2) {
        float of_tile[2][4] = {};
#pragma unroll
        for (u32 key = 0; key < KEYS / 16; key++) {
            u32 value[4];
            load_matrices_turned(value, values + key * 16 * (D + GAP) + column * 8);
#pragma unroll
            for (u32 i = 0; i < 2; i++) {
                multiply_add<T>(of_tile[i], weights.low[key], value[2 * i], value[2 * i + 1]);
                multiply_add<T>(of_tile[i], weights.high[key], value[2 * i], value[2 * i + 1]);
            }
        }
#pragma unroll
        for (u32 i = 0; i < 8; i++) {
            float& sum = sums[column + i / 4][i % 4];
            sum = fmaf(sum, softmax[i % 4 / 2].rescale, of_tile[i / 4][i % 4]);
        }
    }
}

// Stores the outputs of one of a lane's two rows, divided by the sum of its weights.
template <class T, u32 D, u32 ROW>
__device__ inline void store_row(void* output, u32 wide, Queries of, u32 row, const float (&sums)[D / 8][4],
                                 const Softmax (&softmax)[2]) {
    float sum = softmax[ROW].sum;
    sum += __shfl_xor_sync(ALL_LANES, sum, 1);
    sum += __shfl_xor_sync(ALL_LANES, sum, 2);
    float inverse = 1.0f / (sum * Weights<T>::UNIT);
    if (row >= of.rows()) return;
    u64 line = u64(row / of.group) * gridDim.y * of.group + blockIdx.y * of.group + row % of.group;
#pragma unroll
    for (u32 block = 0; block < D / 8; block++) {
        if (block * 8 >= of.d) break;
        u64 to = line * of.d + block * 8 + threadIdx.x % 4 * 2;
        float x = sums[block][2 * ROW] * inverse, y = sums[block][2 * ROW + 1] * inverse;
        if (wide) {
            static_cast<float*>(output)[to] = x;
            static_cast<float*>(output)[to + 1] = y;
        } else {
            *reinterpret_cast<u32*>(static_cast<T*>(output) + to) = packed<T>(x, y);
        }
    }
}

template <class T, u32 D, u32 KEYS>
__device__ inline void attend(const T* queries, const T* keys, const T* values, const Head* heads, void* output,
                              u32 wide, Queries of, float scale) {
    DYNAMIC_SHARED(T, query_tile); // (ROWS + KEYS + KEYS, D + GAP): queries, keys, values
    T* key_tile = query_tile + ROWS * (D + GAP);
    T* value_tile = key_tile + KEYS * (D + GAP);
    Head head = heads[blockIdx.y];
    u32 first_row = (gridDim.x - 1 - blockIdx.x) * ROWS; // those that see most begin first
    u32 end = of.seen(first_row + ROWS - 1, head); // of the keys that any row of the block sees
    u32 warp_row = first_row + threadIdx.x / WARP * WARP_ROWS;
    // Keys that all rows of the warp see, and those that any does.
    u32 least = of.seen(warp_row, head);
    u32 most = warp_row < of.rows() ? of.seen(warp_row + WARP_ROWS - 1, head) : 0;
    u32 row = warp_row + threadIdx.x % WARP / 4;

    queries += u64(blockIdx.y) * of.rows() * of.d;
    begin_tile<T, D, ROWS>(query_tile, queries, of.d, [=](u32 row) {
        row += first_row;
        return row < of.rows() ? row % of.group * of.count + row / of.group : NONE;
    });
    auto begin = [=](T* tile, const T* rows, u32 from) {
        begin_tile<T, D, KEYS>(tile, rows, of.d, [=](u32 row) {
            return from + row < end ? head.start + from + row : NONE;
        });
    };
    begin(key_tile, keys, 0);
    const T* own_queries = query_tile + (warp_row - first_row) * (D + GAP);
    Softmax softmax[2] = {{NEVER, 0.0f, 0.0f}, {NEVER, 0.0f, 0.0f}};
    float sums[D / 8][4] = {};
    for (u32 from = 0; from < end; from += KEYS) {
        wait_for_copies();
        __syncthreads(); // keys are there, and nobody needs the values before any more
        begin(value_tile, values, from);
        Parted<KEYS> parted;
        if (from < most) {
            float logits[KEYS / 8][4];
            multiply_keys<T, D, KEYS>(logits, own_queries, key_tile);
            if (from + KEYS > least) hide<KEYS>(logits, from, {of.seen(row, head), of.seen(row + 8, head)});
            weigh<0, KEYS>(logits, softmax[0], scale);
            weigh<1, KEYS>(logits, softmax[1], scale);
            part_all<T, KEYS>(parted, logits);
        }
        wait_for_copies();
        __syncthreads(); // values are there, and nobody needs these keys any more
        u32 next = from + KEYS;
        if (next < end) begin(key_tile, keys, next);
        if (from < most) add_values<T, D, KEYS>(sums, parted, value_tile, softmax);
    }

    store_row<T, D, 0>(output, wide, of, row, sums, softmax);
    store_row<T, D, 1>(output, wide, of, row + 8, sums, softmax);
}

// Grid (rows in blocks of ROWS, KV heads); WARPS warps; scale: of logits, times the binary logarithm of e.
// queries (H_q, n, d); keys and values (rows, d); output (n, H_q, d), float32 if it is `wide`.
#define PREFILL_OF(type, name, columns, keys_of_tile, blocks)                                                        \
    extern "C" __global__ void __launch_bounds__(WARPS* WARP, blocks)                                                \
        prefill_attend_##name##_##columns(const type* queries, const type* keys, const type* values,                 \
                                          const Head* heads, void* output, u32 wide, u32 n, u32 group, u32 d,        \
                                          float scale) {                                                             \
        Queries of{n, group, d};                                                                                     \
        attend<type, columns, keys_of_tile>(queries, keys, values, heads, output, wide, of, scale);                  \
    }
// D; keys of a tile, as many as registers have room for; blocks that a multiprocessor has registers for.
#define PREFILL_ATTENTION(columns, keys_of_tile, blocks)                                                             \
    PREFILL_OF(__half, f16, columns, keys_of_tile, blocks)                                                           \
    PREFILL_OF(__nv_bfloat16, bf16, columns, keys_of_tile, blocks)

PREFILL_ATTENTION(64, 48, 2)
PREFILL_ATTENTION(80, 48, 2)
PREFILL_ATTENTION(96, 32, 2)
PREFILL_ATTENTION(128, 32, 2)
PREFILL_ATTENTION(256, 32, 1)
