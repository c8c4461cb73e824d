// Attention of one position over a ragged cache: every KV head has keys and values of its own number.
//
// The keys of a head are cut into pieces, and a block attends to one piece for the query heads of its group, reading
// each key and value once. A second kernel joins the pieces of a head. Pieces depend on the numbers of keys alone, and
// so does the order in which anything is added.
#include "device.cuh"

// Query heads that a block works on at once.
constexpr u32 QUERIES = 8;
// Keys whose logits are held at once.
constexpr u32 TILE = 64;
// Keys that a warp multiplies at once, so that their reads overlap.
constexpr u32 KEYS = 4;

#define NEVER (-__int_as_float(0x7f800000))

struct Head {
    u32 start;  // row of the packed keys
    u32 length; // when the table was made
};

struct Piece {
    u32 head;
    u32 from; // keys of the head
    u32 end;
};

// Columns of D in whole warps.
__device__ inline u32 width_of(u32 d) { return (d + WARP - 1) / WARP * WARP; }

// What a piece leaves behind for one query: D sums of weighted values, the largest logit, the sum of the weights.
__device__ inline float* part_of(float* partial, u32 piece, u32 group, u32 query, u32 d) {
    return partial + (u64(piece) * group + query) * (d + 2);
}

// The softmax of one query over the tiles so far.
struct Softmax {
    float largest;
    float sum;
    float rescale; // of what was added up before this tile
};

// Logits of a tile: a warp takes some keys at a time, its lanes the columns.
template <class T>
__device__ inline void multiply_keys(const float* queries, u32 count, const T* keys, u32 held, u32 d, float scale,
                                     float (*logits)[TILE]) {
    u32 lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, warps = blockDim.x / WARP;
    for (u32 first = warp * KEYS; first < held; first += warps * KEYS) {
        float sums[KEYS][QUERIES] = {};
        for (u32 column = lane; column < d; column += WARP) {
            float key[KEYS];
#pragma unroll
            for (u32 k = 0; k < KEYS; k++) {
                key[k] = first + k < held ? as_float(keys[u64(first + k) * d + column]) : 0.0f;
            }
#pragma unroll
            for (u32 q = 0; q < QUERIES; q++) {
                if (q >= count) break;
                float query = queries[q * d + column];
#pragma unroll
                for (u32 k = 0; k < KEYS; k++) sums[k][q] += query * key[k];
            }
        }
#pragma unroll
        for (u32 q = 0; q < QUERIES; q++) {
            if (q >= count) break;
#pragma unroll
            for (u32 k = 0; k < KEYS; k++) {
                float logit = warp_sum(sums[k][q]) * scale;
                if (lane == 0 && first + k < held) logits[q][first + k] = logit;
            }
        }
    }
}

// Turns the logits of one query into weights; a whole warp calls it.
__device__ inline void weigh(float* logits, u32 held, Softmax* softmax) {
    u32 lane = threadIdx.x % WARP;
    Softmax before = *softmax;
    float largest = before.largest;
    for (u32 key = lane; key < held; key += WARP) largest = fmaxf(largest, logits[key]);
    largest = warp_largest(largest);
    float sum = 0.0f;
    for (u32 key = lane; key < held; key += WARP) {
        float weight = expf(logits[key] - largest);
        logits[key] = weight;
        sum += weight;
    }
    sum = warp_sum(sum); // a barrier as well: all lanes have read what lane 0 writes
    if (lane == 0) {
        softmax->rescale = expf(before.largest - largest);
        softmax->sum = before.sum * softmax->rescale + sum;
        softmax->largest = largest;
    }
}

template <class T>
__device__ inline void attend_piece(const T* queries, const T* keys, const T* values, const Head* heads,
                                    const Piece* pieces, float* partial, u32 group, u32 d, u32 appended, float scale) {
    DYNAMIC_SHARED(float, shared); // (QUERIES, max(D, parts x width)): queries, and at the end their outputs
    __shared__ float logits[QUERIES][TILE];
    __shared__ Softmax softmax[QUERIES];
    Piece piece = pieces[blockIdx.x];
    Head head = heads[piece.head];
    u32 length = head.length + appended;
    u32 end = length < piece.end ? length : piece.end; // before `from` where no key has come to it yet
    u32 first_query = blockIdx.y * QUERIES;
    u32 count = group - first_query < QUERIES ? group - first_query : QUERIES;
    u32 width = width_of(d), parts = blockDim.x / width;
    u32 column = threadIdx.x % width, part = threadIdx.x / width;

    const T* own = queries + u64(piece.head * group + first_query) * d;
    for (u32 x = threadIdx.x; x < count * d; x += blockDim.x) shared[x] = as_float(own[x]);
    if (threadIdx.x < QUERIES) softmax[threadIdx.x] = Softmax{NEVER, 0.0f, 0.0f};
    __syncthreads();

    float sums[QUERIES] = {};
    for (u32 tile = piece.from; tile < end; tile += TILE) {
        u32 held = end - tile < TILE ? end - tile : TILE;
        u64 row = u64(head.start) + tile;
        multiply_keys(shared, count, keys + row * d, held, d, scale, logits);
        __syncthreads();
        for (u32 q = threadIdx.x / WARP; q < count; q += blockDim.x / WARP) weigh(logits[q], held, &softmax[q]);
        __syncthreads();
        if (column < d) {
#pragma unroll
            for (u32 q = 0; q < QUERIES; q++) {
                if (q < count) sums[q] *= softmax[q].rescale;
            }
#pragma unroll 4
            for (u32 key = part; key < held; key += parts) {
                float value = as_float(values[(row + key) * d + column]);
#pragma unroll
                for (u32 q = 0; q < QUERIES; q++) {
                    if (q < count) sums[q] += logits[q][key] * value;
                }
            }
        }
        __syncthreads();
    }

    // The queries are not needed any more: the parts of a block add up where they were.
#pragma unroll
    for (u32 q = 0; q < QUERIES; q++) {
        if (q < count) shared[(q * parts + part) * width + column] = sums[q];
    }
    __syncthreads();
    for (u32 q = 0; q < count; q++) {
        float* to = part_of(partial, blockIdx.x, group, first_query + q, d);
        for (u32 x = threadIdx.x; x < d; x += blockDim.x) {
            float sum = 0.0f;
            for (u32 p = 0; p < parts; p++) sum += shared[(q * parts + p) * width + x];
            to[x] = sum;
        }
        if (threadIdx.x == 0) {
            to[d] = softmax[q].largest;
            to[d + 1] = softmax[q].sum;
        }
    }
}

// Grid: query heads; a thread per column.
template <class T>
__device__ inline void join(float* partial, const u32* first_pieces, T* output, u32 group, u32 d) {
    u32 head = blockIdx.x / group, query = blockIdx.x % group, column = threadIdx.x;
    u32 first = first_pieces[head], end = first_pieces[head + 1];
    float largest = NEVER;
    for (u32 piece = first; piece < end; piece++) {
        largest = fmaxf(largest, part_of(partial, piece, group, query, d)[d]);
    }
    if (column >= d) return;
    float sum = 0.0f, total = 0.0f;
    for (u32 piece = first; piece < end; piece++) {
        const float* part = part_of(partial, piece, group, query, d);
        float weight = expf(part[d] - largest); // nothing for a piece that no key has come to yet
        sum += weight * part[column];
        total += weight * part[d + 1];
    }
    store(output + u64(blockIdx.x) * d + column, sum / total);
}

// attend: grid (pieces, queries of a group in blocks of QUERIES); blocks of whole multiples of D rounded up to warps.
// queries (H_q, D); keys and values (rows, D); partial (pieces, group, D + 2).
#define ATTENTION_OF(type, name)                                                                                     \
    extern "C" __global__ void __launch_bounds__(MOST_THREADS, 1)                                                    \
        ragged_attend_##name(const type* queries, const type* keys, const type* values, const Head* heads,           \
                             const Piece* pieces, float* partial, u32 group, u32 d, u32 appended,                    \
                             float scale) {                                                                          \
        attend_piece(queries, keys, values, heads, pieces, partial, group, d, appended, scale);                      \
    }                                                                                                                \
    extern "C" __global__ void __launch_bounds__(MOST_THREADS, 1)                                                    \
        ragged_join_##name(float* partial, const u32* first_pieces, type* output, u32 group, u32 d) {                \
        join(partial, first_pieces, output, group, d);                                                               \
    }

ATTENTION_OF(float, f32)
ATTENTION_OF(__half, f16)
ATTENTION_OF(__nv_bfloat16, bf16)
