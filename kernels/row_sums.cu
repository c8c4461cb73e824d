// Adds rows of attention up, key by key.
#include "device.cuh"

// Grid: (keys in blocks of threads, heads).
// probabilities (heads, rows, keys); sums (heads, width), of which the first `keys` columns are added to.
// Every probability is rounded by adding and subtracting `rounding` first: sums of such numbers are exact, and
// hence the same in any order. Where it is 0 nothing is rounded, and rows are added one after another.
extern "C" __global__ void row_sums(const float* probabilities, double* sums, u32 rows, u32 first_row, u32 keys,
                                    u32 width, double rounding) {
    u32 key = blockIdx.x * blockDim.x + threadIdx.x;
    if (key >= keys) return;
    const float* row = probabilities + u64(blockIdx.y) * rows * keys + key;
    double* sum = sums + u64(blockIdx.y) * width + key;
    double added = *sum;
    for (u32 r = first_row; r < rows; r++) added += (double(row[u64(r) * keys]) + rounding) - rounding;
    *sum = added;
}
