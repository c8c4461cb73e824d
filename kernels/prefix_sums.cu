// Running sums of weights that lie in order, in float64, added one after another: the bits are those of the CPU.
#include "device.cuh"

// Weights that are brought to shared memory at once, and threads of a block.
constexpr u32 TILE = 256;

// Grid: heads. sorted and sums (heads, keys).
extern "C" __global__ void prefix_sums(const double* sorted, double* sums, u32 keys) {
    __shared__ double tile[TILE];
    u64 row = u64(blockIdx.x) * keys;
    double sum = 0.0; // of the first thread
    for (u32 first = 0; first < keys; first += TILE) {
        u32 key = first + threadIdx.x, held = keys - first < TILE ? keys - first : TILE;
        if (key < keys) tile[threadIdx.x] = sorted[row + key];
        __syncthreads();
        if (threadIdx.x == 0) {
            for (u32 i = 0; i < held; i++) {
                sum += tile[i];
                tile[i] = sum;
            }
        }
        __syncthreads();
        // Only this thread writes here again.
        if (key < keys) sums[row + key] = tile[threadIdx.x];
    }
}
