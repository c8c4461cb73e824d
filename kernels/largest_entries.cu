// The best tokens of every head of a layer by a threshold on their scores, without a sort.
//
// A token is known by the bits of its score, in an order that rises as scores do, and by its index, so that no two of a
// head are equal. The last one that a head keeps is found digit by digit from the top: the tokens that agree with the
// digits so far are counted by their next digit, and the digit is taken in which the count is reached. Then the heads
// compete in the same way for tokens that none of them has kept yet; equal ones go to the lower head. Counts are
// integers, which no order of threads changes.
#include "device.cuh"

// Values of a digit, and threads of the block that picks one.
constexpr u32 DIGITS = 256;
constexpr u32 DIGIT_BITS = 8;
// Tokens of a block.
constexpr u32 TILE = 4096;

// Bits that rise as scores do, minus zero before zero.
__device__ inline u64 rising(double score) {
    u64 bits = u64(__double_as_longlong(score));
    return bits >> 63 ? ~bits : bits | 0x8000000000000000ull;
}

// The last token that is kept, as far as its digits are known.
struct Edge {
    u64 score;
    u32 token;
    u32 left; // how many are to be kept of those that agree with the digits so far
};

// Whether what lies above a digit is the same.
__device__ inline bool agree(u64 a, u64 b, u32 shift) {
    u32 above = shift + DIGIT_BITS;
    return above >= 64 || (a ^ b) >> above == 0;
}

// What is chosen from: the scores, and the tokens that always stay.
struct Choice {
    const double* scores; // (heads, tokens)
    const u32* own;       // tokens of each head beyond those that stay
    const Edge* edges;    // one per head, and that of their competition
    u32 heads;
    u32 tokens;
    u32 sinks;
    u32 window; // its first token

    __device__ bool stays(u32 token) const { return token < sinks || token >= window; }

    __device__ u64 bits(u32 head, u32 token) const { return rising(scores[u64(head) * tokens + token]); }

    // Whether a token that does not stay anyway is among its head's own.
    __device__ bool owned(u32 head, u32 token, u64 bits) const {
        Edge edge = edges[head];
        return own[head] > 0 && (bits > edge.score || (bits == edge.score && token >= edge.token));
    }

    // Whether a token that its head does not own wins against those of other heads.
    __device__ bool wins(u32 head, u32 token, u64 bits_of_it) const {
        Edge edge = edges[heads];
        if (edge.left == 0) return false;
        if (bits_of_it != edge.score) return bits_of_it > edge.score;
        if (token != edge.token) return token > edge.token;
        u32 before = 0;
        for (u32 other = 0; other < head; other++) {
            before += bits(other, token) == bits_of_it && !owned(other, token, bits_of_it) ? 1 : 0;
        }
        return before < edge.left;
    }

    __device__ bool keeps(u32 head, u32 token) const {
        if (stays(token)) return true;
        u64 own_bits = bits(head, token);
        return owned(head, token, own_bits) || wins(head, token, own_bits);
    }
};

// Grid: blocks of threads over heads x DIGITS. Everything that the others count with; `shared` tokens are what heads
// compete for. found (1 + heads + kept): whether a score is not finite, how many each head keeps, and which.
extern "C" __global__ void best_start(const u32* own, Edge* edges, u32* counts, u32* found, u32 heads, u32 shared) {
    u32 i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < heads * DIGITS) counts[i] = 0;
    if (i <= heads) edges[i] = Edge{0, 0, i < heads ? own[i] : shared};
    if (i == 0) found[0] = 0;
}

// Grid: (tiles, heads).
extern "C" __global__ void best_check(const double* scores, u32* found, u32 tokens) {
    u32 first = blockIdx.x * TILE, end = tokens - first < TILE ? tokens : first + TILE;
    const double* row = scores + u64(blockIdx.y) * tokens;
    for (u32 token = first + threadIdx.x; token < end; token += blockDim.x) {
        u32 exponent = u32(u64(__double_as_longlong(row[token])) >> 52) & 0x7ff;
        if (exponent == 0x7ff) found[0] = 1; // whoever writes writes the same
    }
}

// Grid: (tiles, heads). Counts, by the digit at `shift` of their scores or of their indices, tokens that agree with the
// digits above: per head, or where they `compete` over all heads together.
extern "C" __global__ void best_count(const double* scores, const u32* own, const Edge* edges, u32* counts, u32 tokens,
                                      u32 sinks, u32 window, u32 compete, u32 of_index, u32 shift) {
    __shared__ u32 in_tile[DIGITS];
    u32 head = blockIdx.y, heads = gridDim.y;
    Choice choice{scores, own, edges, heads, tokens, sinks, window};
    Edge edge = edges[compete ? heads : head];
    if (edge.left == 0) return;
    for (u32 digit = threadIdx.x; digit < DIGITS; digit += blockDim.x) in_tile[digit] = 0;
    __syncthreads();
    u32 first = blockIdx.x * TILE, end = tokens - first < TILE ? tokens : first + TILE;
    for (u32 token = first + threadIdx.x; token < end; token += blockDim.x) {
        if (choice.stays(token)) continue;
        u64 bits = choice.bits(head, token);
        bool counts_here = of_index ? bits == edge.score && agree(token, edge.token, shift)
                                    : agree(bits, edge.score, shift);
        if (!counts_here || (compete && choice.owned(head, token, bits))) continue;
        u32 digit = u32((of_index ? u64(token) : bits) >> shift) & (DIGITS - 1);
        atomicAdd(&in_tile[digit], 1u);
    }
    __syncthreads();
    u32* to = counts + (compete ? 0 : head * DIGITS);
    for (u32 digit = threadIdx.x; digit < DIGITS; digit += blockDim.x) {
        if (in_tile[digit] > 0) atomicAdd(&to[digit], in_tile[digit]);
    }
}

// Grid: edges from `first_edge` on; DIGITS threads. Takes the next digit of every edge, and clears the counts.
extern "C" __global__ void best_pick(Edge* edges, u32* counts, u32 first_edge, u32 of_index, u32 shift) {
    Edge* edge = edges + first_edge + blockIdx.x;
    u32 digit = DIGITS - 1 - threadIdx.x;
    u32* count = counts + blockIdx.x * DIGITS + digit;
    u32 own = *count, left = edge->left, total;
    *count = 0;
    u32 above = block_scan(own, &total); // a barrier as well: all have read what one writes
    if (above >= left || above + own < left) return;
    edge->left = left - above;
    if (of_index) {
        edge->token |= digit << shift;
    } else {
        edge->score |= u64(digit) << shift;
    }
}

// Grid: (tiles, heads). How many tokens of every tile are kept: places (heads, tiles).
extern "C" __global__ void best_tally(const double* scores, const u32* own, const Edge* edges, u32* places, u32 tokens,
                                      u32 sinks, u32 window) {
    u32 head = blockIdx.y;
    Choice choice{scores, own, edges, gridDim.y, tokens, sinks, window};
    u32 first = blockIdx.x * TILE, end = tokens - first < TILE ? tokens : first + TILE;
    u32 kept = 0, total;
    for (u32 token = first + threadIdx.x; token < end; token += blockDim.x) kept += choice.keeps(head, token) ? 1 : 0;
    block_scan(kept, &total);
    if (threadIdx.x == 0) places[head * gridDim.x + blockIdx.x] = total;
}

// Grid: one block. Where the kept tokens of every tile begin, and how many each head keeps.
extern "C" __global__ void best_places(u32* places, u32* found, u32 heads, u32 tiles) {
    u32 before = 0;
    for (u32 first = 0; first < heads * tiles; first += blockDim.x) {
        u32 i = first + threadIdx.x, total;
        u32 own = i < heads * tiles ? places[i] : 0;
        u32 place = before + block_scan(own, &total);
        if (i < heads * tiles) places[i] = place;
        before += total;
    }
    __syncthreads();
    for (u32 head = threadIdx.x; head < heads; head += blockDim.x) {
        u32 end = head + 1 < heads ? places[(head + 1) * tiles] : before;
        found[1 + head] = end - places[head * tiles];
    }
}

// Grid: (tiles, heads). Writes the kept tokens, ascending, head by head.
extern "C" __global__ void best_write(const double* scores, const u32* own, const Edge* edges, const u32* places,
                                      u32* found, u32 tokens, u32 sinks, u32 window) {
    u32 head = blockIdx.y, heads = gridDim.y;
    Choice choice{scores, own, edges, heads, tokens, sinks, window};
    u32 first = blockIdx.x * TILE, end = tokens - first < TILE ? tokens : first + TILE;
    u32* to = found + 1 + heads + places[head * gridDim.x + blockIdx.x];
    for (u32 chunk = first; chunk < end; chunk += blockDim.x) {
        u32 token = chunk + threadIdx.x, total;
        bool kept = token < end && choice.keeps(head, token);
        u32 place = block_scan(kept ? 1 : 0, &total);
        if (kept) to[place] = token;
        to += total;
    }
}
