// The L2 norms of keys: squares are added in the order of the columns, in float64.
#include "device.cuh"

// Grid: keys in blocks of threads.
template <class T>
__device__ inline void norm_of_key(const T* keys, double* norms, u32 count, u32 d) {
    u32 key = blockIdx.x * blockDim.x + threadIdx.x;
    if (key >= count) return;
    const T* own = keys + u64(key) * d;
    double sum = 0.0;
    for (u32 column = 0; column < d; column++) {
        double x = double(as_float(own[column]));
        sum += x * x; // exact, whether it is rounded before it is added or not
    }
    norms[key] = sqrt(sum);
}

// keys (count, d); norms (count).
#define NORMS_OF(type, name)                                                                                         \
    extern "C" __global__ void row_norms_##name(const type* keys, double* norms, u32 count, u32 d) {                 \
        norm_of_key(keys, norms, count, d);                                                                          \
    }

NORMS_OF(float, f32)
NORMS_OF(__half, f16)
NORMS_OF(__nv_bfloat16, bf16)
