// What the CUDA sources need of their platform: nvcc's, or the emulator's of tests/cuda_ext/emulate, which runs the
// very same sources on a CPU. Warps are whole, and every warp operation is reached by all 32 lanes.
#pragma once

#include <math.h>

#include <cstdint>

#ifdef __CUDACC__
#include <cuda_runtime.h>
#else
#include "emulate.h"
#endif

#define CUDA_INLINE __device__ __forceinline__

namespace {

// For the templates of the shared headers. Contraction of a * b + c is left to the compiler everywhere but in fma().
__host__ CUDA_INLINE float sqrt(float a) { return sqrtf(a); }
__host__ CUDA_INLINE float exp2(float a) { return exp2f(a); }
__host__ CUDA_INLINE float fma(float a, float b, float c) { return fmaf(a, b, c); }
__host__ CUDA_INLINE float min(float a, float b) { return a < b ? a : b; }
__host__ CUDA_INLINE float max(float a, float b) { return a > b ? a : b; }
__host__ CUDA_INLINE int min(int a, int b) { return a < b ? a : b; }
__host__ CUDA_INLINE int max(int a, int b) { return a > b ? a : b; }

constexpr unsigned WHOLE_WARP = 0xffffffffu;
constexpr int WARP = 32;

CUDA_INLINE int lane_index() { return static_cast<int>(threadIdx.x) % WARP; }
CUDA_INLINE int warp_index() { return static_cast<int>(threadIdx.x) / WARP; }

// Starts a kernel of one-dimensional blocks; returns cudaSuccess or the error of this or an earlier launch.
template <class... Parameters, class... Arguments>
int launch(
    void (*kernel)(Parameters...), dim3 blocks, int threads, cudaStream_t stream, const Arguments&... arguments) {
#ifdef __CUDACC__
  kernel<<<blocks, threads, 0, stream>>>(arguments...);
#else
  (void)stream;
  emulate::run(blocks, threads, [&] { kernel(arguments...); });
#endif
  return static_cast<int>(cudaGetLastError());
}

inline unsigned blocks_for(size_t items, int threads) {
  return static_cast<unsigned>((items + static_cast<size_t>(threads) - 1) / static_cast<size_t>(threads));
}

// Lanes that differ in bit 2 HALF share 2 HALF values: each keeps the sums of one half. A template, so that v stays in
// registers.
template <int HALF>
CUDA_INLINE void share_totals(float v[16]) {
  const bool upper = (lane_index() & 2 * HALF) != 0;
#pragma unroll
  for (int i = 0; i < HALF; ++i) {
    const float give = upper ? v[i] : v[i + HALF], keep = upper ? v[i + HALF] : v[i];
    v[i] = keep + __shfl_xor_sync(WHOLE_WARP, give, 2 * HALF);
  }
}

// Sums v[0..15] over a warp, each in a fixed order: the lanes 2 i and 2 i + 1 return the total of v[i]. As half of the
// values change lanes in each step, it takes 16 shuffles, not 5 for each value. v is used up.
CUDA_INLINE float warp_totals(float v[16]) {
  share_totals<8>(v);
  share_totals<4>(v);
  share_totals<2>(v);
  share_totals<1>(v);
  return v[0] + __shfl_xor_sync(WHOLE_WARP, v[0], 1);
}

CUDA_INLINE int warp_max(int value) {
#pragma unroll
  for (int step = WARP / 2; step > 0; step /= 2) value = max(value, __shfl_xor_sync(WHOLE_WARP, value, step));
  return value;
}

// Sum of the values of the block's earlier threads; `total` receives the sum of all. Barriers inside: all threads call
// it.
template <int THREADS, class T>
CUDA_INLINE T block_exclusive_sum(T value, T* total) {
  __shared__ T warp_sums[THREADS / WARP];
  T inclusive = value;
#pragma unroll
  for (int step = 1; step < WARP; step *= 2) {
    const T earlier = __shfl_up_sync(WHOLE_WARP, inclusive, step);
    if (lane_index() >= step) inclusive += earlier;
  }
  __syncthreads();  // the sums of an earlier call have been read
  if (lane_index() == WARP - 1) warp_sums[warp_index()] = inclusive;
  __syncthreads();
  T before = 0, all = 0;
  for (int warp = 0; warp < THREADS / WARP; ++warp) {
    if (warp == warp_index()) before = all;
    all += warp_sums[warp];
  }
  *total = all;
  return before + inclusive - value;
}

}  // namespace
