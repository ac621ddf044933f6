// Products with matrices of a few dozen rows, four Gaussians at a time. Rows are padded with zeros to whole vectors.
#pragma once

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>

#include "../parallel.h"
#include "../simd.h"
#include "motion.h"

namespace {

constexpr int GROUP = 4;

constexpr int padded(int n) { return (n + LANES - 1) / LANES * LANES; }

struct Free {
  void operator()(float* p) const { std::free(p); }
};
using Floats = std::unique_ptr<float, Free>;

// Zeros; null when out of memory.
inline Floats zeros(size_t floats) {
  void* p = nullptr;
  const size_t bytes = (floats * sizeof(float) + 63) / 64 * 64 + 64;
  if (posix_memalign(&p, 64, bytes) != 0) return nullptr;
  std::memset(p, 0, bytes);
  return Floats(static_cast<float*>(p));
}

// to [rows, padded(columns)] = from [rows, columns], or its transpose from [columns, rows].
inline void copy_padded(const float* from, int rows, int columns, float* to) {
  for (int i = 0; i < rows; ++i) std::memcpy(to + i * padded(columns), from + i * columns, columns * sizeof(float));
}
inline void copy_transposed(const float* from, int rows, int columns, float* to) {
  for (int i = 0; i < rows; ++i) {
    for (int j = 0; j < columns; ++j) to[i * padded(columns) + j] = from[j * rows + i];
  }
}

// A few dozen floats: a call of memcpy would cost more.
SIMD_INLINE void copy_row(float* to, const float* from, int n) {
  int k = 0;
  for (; k + LANES <= n; k += LANES) store(to + k, load(from + k));
  for (; k < n; ++k) to[k] = from[k];
}

// Rows of a group of Gaussians, padded(columns) apart: where they lie, if they lie so; else copied, and those past the end
// zeros.
SIMD_INLINE const float* group_rows(const float* array, int columns, int first, int count, float* room) {
  const float* rows = array + static_cast<size_t>(first) * columns;
  if (columns == padded(columns) && count == GROUP) return rows;
  std::memset(room, 0, GROUP * padded(columns) * sizeof(float));
  for (int g = 0; g < count; ++g) copy_row(room + g * padded(columns), rows + static_cast<size_t>(g) * columns, columns);
  return room;
}

// out [GROUP, columns] = start + in [GROUP, inner] matrix [inner, columns]; columns a multiple of LANES. start_stride 0:
// one row for all.
template <int WIDTH>
SIMD_INLINE void multiply_columns(
    const float* in, int in_stride, int inner, const float* matrix, int columns, const float* start, int start_stride, float* out) {
  fv total[GROUP][WIDTH];
  for (int g = 0; g < GROUP; ++g) {
    for (int v = 0; v < WIDTH; ++v) total[g][v] = load(start + g * start_stride + v * LANES);
  }
  for (int k = 0; k < inner; ++k) {
    fv row[WIDTH];
    for (int v = 0; v < WIDTH; ++v) row[v] = load(matrix + k * columns + v * LANES);
    for (int g = 0; g < GROUP; ++g) {
      const fv x = all(in[g * in_stride + k]);
      for (int v = 0; v < WIDTH; ++v) total[g][v] = fma(x, row[v], total[g][v]);
    }
  }
  for (int g = 0; g < GROUP; ++g) {
    for (int v = 0; v < WIDTH; ++v) store(out + g * columns + v * LANES, total[g][v]);
  }
}

// Two or three vectors of columns at a time: as many sums as hide the latency of adding, and registers hold.
inline void multiply(
    const float* in, int in_stride, int inner, const float* matrix, int columns, const float* start, int start_stride, float* out) {
  int vectors = columns / LANES, c = 0;
  for (; vectors > 4 || vectors == 3; vectors -= 3, c += 3 * LANES) {
    multiply_columns<3>(in, in_stride, inner, matrix + c, columns, start + c, start_stride, out + c);
  }
  for (; vectors >= 2; vectors -= 2, c += 2 * LANES) {
    multiply_columns<2>(in, in_stride, inner, matrix + c, columns, start + c, start_stride, out + c);
  }
  if (vectors == 1) multiply_columns<1>(in, in_stride, inner, matrix + c, columns, start + c, start_stride, out + c);
}

// total [inner, columns] += sum over the group of in [inner] x out [columns].
template <int WIDTH>
SIMD_INLINE void add_outer_columns(const float* in, int in_stride, int inner, const float* out, int columns, float* total) {
  fv row[GROUP][WIDTH];
  for (int g = 0; g < GROUP; ++g) {
    for (int v = 0; v < WIDTH; ++v) row[g][v] = load(out + g * columns + v * LANES);
  }
  for (int k = 0; k < inner; ++k, total += columns) {
    fv sum[WIDTH];
    for (int v = 0; v < WIDTH; ++v) sum[v] = load(total + v * LANES);
    for (int g = 0; g < GROUP; ++g) {
      const fv x = all(in[g * in_stride + k]);
      for (int v = 0; v < WIDTH; ++v) sum[v] = fma(x, row[g][v], sum[v]);
    }
    for (int v = 0; v < WIDTH; ++v) store(total + v * LANES, sum[v]);
  }
}

inline void add_outer(const float* in, int in_stride, int inner, const float* out, int columns, float* total) {
  int vectors = columns / LANES, c = 0;
  for (; vectors >= 2; vectors -= 2, c += 2 * LANES) add_outer_columns<2>(in, in_stride, inner, out + c, columns, total + c);
  if (vectors == 1) add_outer_columns<1>(in, in_stride, inner, out + c, columns, total + c);
}

// Runs body(chunk, first, end) for every chunk of Gaussians, in any order; returns OK, or what a body returned instead.
template <class Body>
int for_chunks(int gaussians, int chunk_size, int threads, const Body& body) {
  std::atomic<int> status{OK};
  parallel_dynamic(thread_count(threads), (gaussians + chunk_size - 1) / chunk_size, [&](int chunk, int) {
    const int first = chunk * chunk_size, end = first + chunk_size < gaussians ? first + chunk_size : gaussians;
    const int here = body(chunk, first, end);
    if (here != OK) status = here;
  });
  return status;
}

}  // namespace
