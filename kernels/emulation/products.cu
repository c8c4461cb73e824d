// Matrix products by one warp, so that tests hold what the tensor cores are emulated to do against plain products.
#include "../tensor_cores.cuh"

// sums (16, 8) += a (16, 16) x b (16, 8), all by rows. b is loaded from both of its layouts; they must agree.
template <class T>
inline void product(const T* a, const T* b, const T* b_turned, float* sums, u32* loaded) {
    DYNAMIC_SHARED(T, shared); // a, b and b by columns, in rows of 16, 8 and 16
    T *of_a = shared, *of_b = shared + 256, *of_columns = shared + 384;
    begin_copy(of_a + threadIdx.x * 8, a + threadIdx.x * 8, true);
    if (threadIdx.x < 16) begin_copy(of_b + threadIdx.x * 8, b + threadIdx.x * 8, true);
    if (threadIdx.x < 16) begin_copy(of_columns + threadIdx.x * 8, b_turned + threadIdx.x * 8, true);
    wait_for_copies();
    __syncthreads();
    u32 lane = threadIdx.x, left[4], right[4], same[4];
    load_matrices(left, of_a + lane % 16 * 16 + lane / 16 * 8);
    load_matrices_turned(right, of_b + lane % 16 * 8);
    load_matrices(same, of_columns + lane % 8 * 16 + lane / 8 % 2 * 8);
    loaded[4 * lane] = right[0];
    loaded[4 * lane + 1] = right[1];
    loaded[4 * lane + 2] = same[0];
    loaded[4 * lane + 3] = same[1];
    float own[4];
    for (u32 i = 0; i < 4; i++) own[i] = sums[(lane / 4 + i / 2 * 8) * 8 + lane % 4 * 2 + i % 2];
    multiply_add<T>(own, left, right[0], right[1]);
    for (u32 i = 0; i < 4; i++) sums[(lane / 4 + i / 2 * 8) * 8 + lane % 4 * 2 + i % 2] = own[i];
}

extern "C" void product_f16(const __half* a, const __half* b, const __half* b_turned, float* sums, u32* loaded) {
    product(a, b, b_turned, sums, loaded);
}
extern "C" void product_bf16(const __nv_bfloat16* a, const __nv_bfloat16* b, const __nv_bfloat16* b_turned,
                             float* sums, u32* loaded) {
    product(a, b, b_turned, sums, loaded);
}
