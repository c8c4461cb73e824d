// Running sums down the columns of a matrix, in stretches of rows.
//
// A first pass adds up every stretch, a second one the stretches before each, and a third walks through every stretch
// from there. Sums are float64 and added in an order that does not depend on the device.
#include "device.cuh"

__device__ inline u32 least(u32 a, u32 b) { return a < b ? a : b; }

// Grid: (columns in blocks of threads, stretches). totals (stretches, columns).
extern "C" __global__ void running_totals(const float* values, double* totals, u32 rows, u32 columns, u32 stretch) {
    u32 column = blockIdx.x * blockDim.x + threadIdx.x;
    if (column >= columns) return;
    u32 first = blockIdx.y * stretch, end = least(rows, first + stretch);
    double sum = 0.0;
    for (u32 row = first; row < end; row++) sum += double(values[u64(row) * columns + column]);
    totals[u64(blockIdx.y) * columns + column] = sum;
}

// Grid: columns in blocks of threads. Replaces every total by the sum of those before it.
extern "C" __global__ void running_offsets(double* totals, u32 stretches, u32 columns) {
    u32 column = blockIdx.x * blockDim.x + threadIdx.x;
    if (column >= columns) return;
    double sum = 0.0;
    for (u32 s = 0; s < stretches; s++) {
        double* total = totals + u64(s) * columns + column;
        double own = *total;
        *total = sum;
        sum += own;
    }
}

// Grid: (columns in blocks of threads, stretches). sums (rows, columns).
extern "C" __global__ void running_sums(const float* values, const double* offsets, float* sums, u32 rows, u32 columns,
                                        u32 stretch) {
    u32 column = blockIdx.x * blockDim.x + threadIdx.x;
    if (column >= columns) return;
    u32 first = blockIdx.y * stretch, end = least(rows, first + stretch);
    double sum = offsets[u64(blockIdx.y) * columns + column];
    for (u32 row = first; row < end; row++) {
        sum += double(values[u64(row) * columns + column]);
        sums[u64(row) * columns + column] = float(sum);
    }
}
