// Attention of one position over a ragged cache: every KV head has keys and values of its own number.
//
// The keys of a head are cut into pieces, and a block attends to one piece for the query heads of its group, reading
// each key and value once, N elements in a load. A second kernel joins the pieces of a head. Pieces depend on the
// numbers of keys alone, and so does the order in which anything is added.
#include "device.cuh"

// Query heads that a block works on at once.
constexpr u32 QUERIES = 8;
// Keys whose logits are held at once.
constexpr u32 TILE = 64;
// Keys that a lane multiplies at once, so that their reads overlap.
constexpr u32 KEYS = 4;
// Warps of a block that joins pieces, which take a head's pieces in turns.
constexpr u32 JOINING_WARPS = 8;

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

// Of one query, over the keys so far: its largest logit, and the sum of weights that are 1 there.
struct Softmax {
    float largest;
    float sum;
};

// N elements, as floats; they lie on a boundary of as many bytes, up to the 16 that one load brings.
template <u32 N, class T>
__device__ inline void load(const T* from, float (&to)[N]) {
    struct __align__(N * sizeof(T) < 16 ? N * sizeof(T) : 16) Vector {
        T at[N];
    };
    Vector vector = *reinterpret_cast<const Vector*>(from);
#pragma unroll
    for (u32 n = 0; n < N; n++) to[n] = as_float(vector.at[n]);
}

// How the threads of a block share rows of D elements. `width` is a power of two below that of a warp, or whole warps.
struct Lanes {
    u32 loads; // of a row
    u32 width; // threads that a row takes, at least as many
    u32 span;  // of them in one warp

    __device__ Lanes(u32 loads, u32 width) : loads(loads), width(width), span(width < WARP ? width : WARP) {}
};

// Logits of a tile: lanes of a warp share a key, and add up what each has of it.
template <u32 N, class T>
__device__ inline void multiply_keys(const float* queries, u32 count, const T* keys, u32 held, u32 d, Lanes lanes,
                                     float scale, float (*logits)[TILE]) {
    u32 lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, warps = blockDim.x / WARP;
    u32 own = lane % lanes.span, at_once = WARP / lanes.span;
    for (u32 first = warp * at_once * KEYS; first < held; first += warps * at_once * KEYS) {
        u32 key = first + lane / lanes.span; // and those `at_once` apart
        float sums[KEYS][QUERIES] = {};
        for (u32 column = own; column < lanes.loads; column += lanes.span) {
            float parts[KEYS][N] = {};
#pragma unroll
            for (u32 k = 0; k < KEYS; k++) {
                u32 row = key + k * at_once;
                if (row < held) load(keys + u64(row) * d + column * N, parts[k]);
            }
#pragma unroll
            for (u32 q = 0; q < QUERIES; q++) {
                if (q >= count) break;
                float query[N];
                load(queries + q * d + column * N, query);
#pragma unroll
                for (u32 k = 0; k < KEYS; k++) {
#pragma unroll
                    for (u32 n = 0; n < N; n++) sums[k][q] += query[n] * parts[k][n];
                }
            }
        }
        for (u32 distance = lanes.span / 2; distance > 0; distance /= 2) {
#pragma unroll
            for (u32 q = 0; q < QUERIES; q++) {
                if (q >= count) break;
#pragma unroll
                for (u32 k = 0; k < KEYS; k++) sums[k][q] += __shfl_xor_sync(ALL_LANES, sums[k][q], distance);
            }
        }
        if (own != 0) continue;
#pragma unroll
        for (u32 q = 0; q < QUERIES; q++) {
            if (q >= count) break;
#pragma unroll
            for (u32 k = 0; k < KEYS; k++) {
                u32 row = key + k * at_once;
                if (row < held) logits[q][row] = sums[k][q] * scale;
            }
        }
    }
}

// Turns the logits of one query into weights, and says by what earlier sums shrink; a whole warp calls it.
__device__ inline void weigh(float* logits, u32 held, Softmax* softmax, float* rescale) {
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
    sum = warp_sum(sum);
    __syncwarp(); // all lanes have read what lane 0 writes
    if (lane == 0) {
        *rescale = expf(before.largest - largest);
        softmax->sum = before.sum * *rescale + sum;
        softmax->largest = largest;
    }
}

// Adds weighted values of a tile to sums of this thread's columns; parts of a block take keys in turns.
template <u32 N, class T>
__device__ inline void add_values(float (&sums)[QUERIES][N], u32 count, const T* values, u32 held, u32 d, u32 width,
                                  const float (*weights)[TILE]) {
    u32 column = threadIdx.x % width, parts = blockDim.x / width;
#pragma unroll 4
    for (u32 key = threadIdx.x / width; key < held; key += parts) {
        float value[N];
        load(values + u64(key) * d + column * N, value);
#pragma unroll
        for (u32 q = 0; q < QUERIES; q++) {
            if (q >= count) break;
            float weight = weights[q][key];
#pragma unroll
            for (u32 n = 0; n < N; n++) sums[q][n] += weight * value[n];
        }
    }
}

// The sums of all parts of a block, in `to` (count, D): first those within warps, then one after another.
template <u32 N>
__device__ inline void join_parts(float (&sums)[QUERIES][N], u32 count, u32 d, Lanes lanes, float* to) {
    for (u32 distance = lanes.span; distance < WARP; distance *= 2) {
#pragma unroll
        for (u32 q = 0; q < QUERIES; q++) {
            if (q >= count) break;
#pragma unroll
            for (u32 n = 0; n < N; n++) sums[q][n] += __shfl_xor_sync(ALL_LANES, sums[q][n], distance);
        }
    }
    u32 wide = lanes.width < WARP ? WARP : lanes.width;
    u32 column = threadIdx.x % wide, turn = threadIdx.x / wide, turns = blockDim.x / wide;
    for (u32 now = 0; now < turns; now++) {
        if (now == turn && column < lanes.loads) {
#pragma unroll
            for (u32 q = 0; q < QUERIES; q++) {
                if (q >= count) break;
                float* own = to + q * d + column * N;
#pragma unroll
                for (u32 n = 0; n < N; n++) own[n] = now == 0 ? sums[q][n] : own[n] + sums[q][n];
            }
        }
        __syncthreads();
    }
}

template <u32 N, class T>
__device__ inline void attend_piece(const T* queries, const T* keys, const T* values, const Head* heads,
                                    const Piece* pieces, float* outputs, Softmax* softmaxes, u32 group, u32 d,
                                    u32 width, u32 appended, float scale) {
    DYNAMIC_SHARED(float, shared); // (QUERIES, D): queries, and at the end their outputs
    __shared__ float logits[QUERIES][TILE];
    __shared__ Softmax softmax[QUERIES];
    __shared__ float rescale[QUERIES];
    Piece piece = pieces[blockIdx.x];
    Head head = heads[piece.head];
    u32 length = head.length + appended;
    u32 end = length < piece.end ? length : piece.end; // before `from` where no key has come to it yet
    u32 first_query = blockIdx.y * QUERIES;
    u32 count = group - first_query < QUERIES ? group - first_query : QUERIES;
    Lanes lanes(d / N, width);

    const T* own = queries + u64(piece.head * group + first_query) * d;
    for (u32 x = threadIdx.x; x < count * d; x += blockDim.x) shared[x] = as_float(own[x]);
    if (threadIdx.x < QUERIES) softmax[threadIdx.x] = Softmax{NEVER, 0.0f};
    __syncthreads();

    float sums[QUERIES][N] = {};
    for (u32 tile = piece.from; tile < end; tile += TILE) {
        u32 held = end - tile < TILE ? end - tile : TILE;
        u64 first = (u64(head.start) + tile) * d;
        multiply_keys<N>(shared, count, keys + first, held, d, lanes, scale, logits);
        __syncthreads();
        for (u32 q = threadIdx.x / WARP; q < count; q += blockDim.x / WARP) {
            weigh(logits[q], held, &softmax[q], &rescale[q]);
        }
        __syncthreads();
        if (threadIdx.x % width < lanes.loads) {
#pragma unroll
            for (u32 q = 0; q < QUERIES; q++) {
                if (q >= count) break;
#pragma unroll
                for (u32 n = 0; n < N; n++) sums[q][n] *= rescale[q];
            }
            add_values(sums, count, values + first, held, d, width, logits);
        }
        __syncthreads();
    }

    join_parts(sums, count, d, lanes, shared); // the queries are not needed any more
    u64 at = u64(blockIdx.x) * group + first_query;
    for (u32 x = threadIdx.x; x < count * d; x += blockDim.x) outputs[at * d + x] = shared[x];
    if (threadIdx.x < count) softmaxes[at + threadIdx.x] = softmax[threadIdx.x];
}

// Grid: (query heads, D in warps); blocks of JOINING_WARPS, a lane per column.
template <class T>
__device__ inline void join(const float* outputs, const Softmax* softmaxes, const u32* first_pieces, T* output,
                            u32 group, u32 d) {
    __shared__ float weights[JOINING_WARPS * WARP], weight_sums[JOINING_WARPS * WARP];
    __shared__ float sums[JOINING_WARPS][WARP], totals[JOINING_WARPS];
    u32 head = blockIdx.x / group, query = blockIdx.x % group;
    u32 lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, column = blockIdx.y * WARP + lane;
    u32 first = first_pieces[head], end = first_pieces[head + 1];
    float largest = NEVER;
    for (u32 piece = first + threadIdx.x; piece < end; piece += blockDim.x) {
        largest = fmaxf(largest, softmaxes[u64(piece) * group + query].largest);
    }
    largest = block_largest(largest);
    float sum = 0.0f, total = 0.0f;
    for (u32 batch = first; batch < end; batch += blockDim.x) {
        u32 held = end - batch < blockDim.x ? end - batch : blockDim.x;
        if (threadIdx.x < held) {
            Softmax own = softmaxes[u64(batch + threadIdx.x) * group + query];
            float weight = expf(own.largest - largest); // nothing for a piece that no key has come to yet
            weights[threadIdx.x] = weight;
            weight_sums[threadIdx.x] = weight * own.sum;
        }
        __syncthreads();
#pragma unroll 4
        for (u32 piece = warp; piece < held; piece += JOINING_WARPS) {
            if (column < d) sum += weights[piece] * outputs[(u64(batch + piece) * group + query) * d + column];
            total += weight_sums[piece];
        }
        __syncthreads();
    }
    sums[warp][lane] = sum;
    if (lane == 0) totals[warp] = total;
    __syncthreads();
    if (warp != 0 || column >= d) return;
    for (u32 w = 1; w < JOINING_WARPS; w++) {
        sum += sums[w][lane];
        total += totals[w];
    }
    store(output + u64(blockIdx.x) * d + column, sum / total);
}

// Threads of a block that attends: a row of the widest head has 512 elements.
constexpr u32 attending_threads(u32 loaded) { return MOST_THREADS / loaded < 128 ? 128 : MOST_THREADS / loaded; }

// attend: grid (pieces, queries of a group in blocks of QUERIES); blocks of whole multiples of `width`.
// queries (H_q, D); keys and values (rows, D), on boundaries of a load; outputs (pieces, group, D); softmaxes (pieces,
// group). Dynamic shared memory: QUERIES x D floats.
#define ATTEND_OF(type, name, loaded)                                                                                \
    extern "C" __global__ void __launch_bounds__(attending_threads(loaded), 1) ragged_attend_##name##x##loaded(      \
        const type* queries, const type* keys, const type* values, const Head* heads, const Piece* pieces,           \
        float* outputs, Softmax* softmaxes, u32 group, u32 d, u32 width, u32 appended, float scale) {                \
        attend_piece<loaded>(queries, keys, values, heads, pieces, outputs, softmaxes, group, d, width, appended,    \
                             scale);                                                                                 \
    }
#define JOIN_OF(type, name)                                                                                          \
    extern "C" __global__ void __launch_bounds__(JOINING_WARPS* WARP, 1)                                             \
        ragged_join_##name(const float* outputs, const Softmax* softmaxes, const u32* first_pieces, type* output,    \
                           u32 group, u32 d) {                                                                       \
        join(outputs, softmaxes, first_pieces, output, group, d);                                                    \
    }

// 16 bytes in a load; four; and as little as there is.
ATTEND_OF(float, f32, 4)
ATTEND_OF(float, f32, 1)
ATTEND_OF(__half, f16, 8)
ATTEND_OF(__half, f16, 2)
ATTEND_OF(__half, f16, 1)
ATTEND_OF(__nv_bfloat16, bf16, 8)
ATTEND_OF(__nv_bfloat16, bf16, 2)
ATTEND_OF(__nv_bfloat16, bf16, 1)
JOIN_OF(float, f32)
JOIN_OF(__half, f16)
JOIN_OF(__nv_bfloat16, bf16)
