// Moving Gaussians on the CPU: what a frame's code asks of their place features, and what carries them. Compiled once
// per instruction set.
#include <cmath>

#include "small_matrix.h"

#define JOIN_(a, b) a##_##b
#define JOIN(a, b) JOIN_(a, b)

namespace {

constexpr int CHANGES = 13, WIDE = padded(CHANGES);
enum { POSITION = 0, ROTATION = 3, SCALE = 7, COLOR = 10 };

typedef float f4 __attribute__((vector_size(16)));

SIMD_INLINE f4 load4(const float* p) {
  f4 v;
  std::memcpy(&v, p, sizeof v);
  return v;
}

// The carriers' displacements, four floats each.
struct Carried {
  Floats points[MOST_CARRIERS];

  bool copy(const DeformArguments& a) {
    for (int c = 0; c < a.carriers; ++c) {
      points[c] = zeros(4 * static_cast<size_t>(a.carrier_points[c]));
      if (!points[c]) return false;
      for (int i = 0; i < a.carrier_points[c]; ++i) std::memcpy(points[c].get() + 4 * i, a.displacement[c] + 3 * i, 3 * sizeof(float));
    }
    return true;
  }

  // What the points that Gaussian i is bound to do to it.
  SIMD_INLINE f4 at(const DeformArguments& a, int carrier, int i) const {
    const int neighbours = a.neighbours[carrier];
    const int64_t* index = a.indices[carrier] + static_cast<size_t>(i) * neighbours;
    const float* weight = a.weights[carrier] + static_cast<size_t>(i) * neighbours;
    f4 sum{};
    for (int k = 0; k < neighbours; ++k) sum += weight[k] * load4(points[carrier].get() + 4 * index[k]);
    return sum;
  }
};

SIMD_INLINE bool bound_to_points(const DeformArguments& a, int carrier, int i) {
  const int64_t* index = a.indices[carrier] + static_cast<size_t>(i) * a.neighbours[carrier];
  const uint64_t points = static_cast<uint64_t>(a.carrier_points[carrier]);
  bool outside = false;
  for (int k = 0; k < a.neighbours[carrier]; ++k) outside |= static_cast<uint64_t>(index[k]) >= points;
  return !outside;
}

// The length that torch's normalize divides by.
SIMD_INLINE float length(const float* q) {
  const float n = std::sqrt(q[0] * q[0] + q[1] * q[1] + q[2] * q[2] + q[3] * q[3]);
  return n > 1e-12f ? n : 1e-12f;
}

SIMD_INLINE float share_of(const DeformArguments& a, int response, int i) {
  return a.share[response] == nullptr ? 1.0f : a.share[response][i];
}

// Returns false if a carrier lacks a point.
bool move(const DeformArguments& a, const Carried& carried, int i, const float* change) {
  const size_t n = static_cast<size_t>(i), sh = 3 * static_cast<size_t>(a.sh_rest);
  float* mean = a.moved_means + 3 * n;
  for (int k = 0; k < 3; ++k) mean[k] = a.means[3 * n + k] + a.position_scale * change[POSITION + k];
  for (int c = 0; c < a.carriers; ++c) {
    if (!bound_to_points(a, c, i)) return false;
    const float gate = a.gates[n * a.carriers + c];
    const f4 v = carried.at(a, c, i);
    for (int k = 0; k < 3; ++k) mean[k] += gate * v[k];
  }
  const float inverse = 1.0f / length(a.quats + 4 * n);
  for (int k = 0; k < 4; ++k) a.moved_quats[4 * n + k] = a.quats[4 * n + k] * inverse + change[ROTATION + k];
  float* color = a.moved_sh + n * (3 + sh);
  for (int k = 0; k < 3; ++k) color[k] = a.sh0[3 * n + k] + change[COLOR + k];
  copy_row(color + 3, a.shN + n * sh, static_cast<int>(sh));
  std::memcpy(a.change + n * CHANGES, change, CHANGES * sizeof(float));
  for (int k = 0; k < 3; ++k) a.moved_scales[3 * n + k] = a.log_scales[3 * n + k] + change[SCALE + k];
  return true;
}

// exp of whole vectors; the result of 2^x (simd.h) holds for -126 <= x <= 126.
void exponentiate(float* values, size_t count) {
  constexpr float LOG2_E = 1.44269504088896341f;
  size_t k = 0;
  for (; k + LANES <= count; k += LANES) {
    const fv x = load(values + k) * LOG2_E;
    store(values + k, x == x ? exp2(min(max(x, all(-126.0f)), all(126.0f))) : x);  // NaN stays NaN
  }
  for (; k < count; ++k) values[k] = std::exp(values[k]);
}

int forward(const DeformArguments& a) {
  const int hidden = padded(a.hidden);
  const Floats matrices = zeros(static_cast<size_t>(a.responses) * a.hidden * WIDE), nothing = zeros(WIDE);
  Carried carried;
  if (!matrices || !nothing || !carried.copy(a)) return NO_MEMORY;
  for (int r = 0; r < a.responses; ++r) copy_padded(a.response[r], a.hidden, CHANGES, matrices.get() + r * a.hidden * WIDE);
  return for_chunks(a.gaussians, CHUNK, a.threads, [&](int, int first, int end) -> int {
    const Floats room = zeros(GROUP * (hidden + 2 * WIDE));
    if (!room) return NO_MEMORY;
    float *change = room.get() + GROUP * hidden, *one = change + GROUP * WIDE;
    for (int i = first; i < end; i += GROUP) {
      const int count = end - i < GROUP ? end - i : GROUP;
      const float* region = group_rows(a.regions, a.hidden, i, count, room.get());
      std::memset(change, 0, GROUP * WIDE * sizeof(float));
      for (int r = 0; r < a.responses; ++r) {
        multiply(region, hidden, a.hidden, matrices.get() + r * a.hidden * WIDE, WIDE, nothing.get(), 0, one);
        for (int g = 0; g < count; ++g) {
          const fv share = all(share_of(a, r, i + g));
          for (int k = g * WIDE; k < (g + 1) * WIDE; k += LANES) store(change + k, fma(share, load(one + k), load(change + k)));
        }
      }
      for (int g = 0; g < count; ++g) {
        if (!move(a, carried, i + g, change + g * WIDE)) return BAD_INDEX;
      }
    }
    exponentiate(a.moved_scales + 3 * static_cast<size_t>(first), 3 * static_cast<size_t>(end - first));
    return OK;
  });
}

SIMD_INLINE float at(const float* gradient, size_t k) { return gradient == nullptr ? 0.0f : gradient[k]; }

// Gradients of one Gaussian's own parameters and gates; writes the one on its changes.
void move_backward(const DeformArguments& a, const Carried& carried, int i, float* grad_change) {
  const size_t n = static_cast<size_t>(i), sh = 3 * static_cast<size_t>(a.sh_rest);
  float mean[3], quat[4], along = 0;
  for (int k = 0; k < 3; ++k) {
    mean[k] = at(a.grad_moved_means, 3 * n + k);
    grad_change[POSITION + k] = a.position_scale * mean[k];
    const float scale = at(a.grad_moved_scales, 3 * n + k) * a.moved_scales[3 * n + k];
    a.grad_log_scales[3 * n + k] = grad_change[SCALE + k] = scale;
    a.grad_sh0[3 * n + k] = grad_change[COLOR + k] = at(a.grad_moved_sh, n * (3 + sh) + k);
  }
  for (size_t k = 0; k < sh; ++k) a.grad_shN[n * sh + k] = at(a.grad_moved_sh, n * (3 + sh) + 3 + k);
  for (int c = 0; c < a.carriers; ++c) {
    const f4 v = carried.at(a, c, i);
    a.grad_gates[n * a.carriers + c] = mean[0] * v[0] + mean[1] * v[1] + mean[2] * v[2];
  }
  const float inverse = 1.0f / length(a.quats + 4 * n);
  for (int k = 0; k < 4; ++k) {
    quat[k] = grad_change[ROTATION + k] = at(a.grad_moved_quats, 4 * n + k);
    along += quat[k] * a.quats[4 * n + k] * inverse;
  }
  for (int k = 0; k < 4; ++k) a.grad_quats[4 * n + k] = (quat[k] - along * a.quats[4 * n + k] * inverse) * inverse;
  for (int k = 0; k < CHANGES; ++k) grad_change[k] += at(a.grad_change, n * CHANGES + k);
}

int backward(const DeformArguments& a) {
  const int hidden = padded(a.hidden), chunks = (a.gaussians + CHUNK - 1) / CHUNK;
  const size_t of_response = static_cast<size_t>(a.hidden) * WIDE, of_chunk = of_response * a.responses;
  const Floats matrices = zeros(static_cast<size_t>(a.responses) * CHANGES * hidden), partial = zeros(of_chunk * chunks),
               nothing = zeros(hidden);
  Carried carried;
  if (!matrices || !partial || !nothing || !carried.copy(a)) return NO_MEMORY;
  for (int r = 0; r < a.responses; ++r) copy_transposed(a.response[r], CHANGES, a.hidden, matrices.get() + r * CHANGES * hidden);
  const int status = for_chunks(a.gaussians, CHUNK, a.threads, [&](int chunk, int first, int end) -> int {
    const Floats room = zeros(GROUP * (2 * hidden + 2 * WIDE));
    if (!room) return NO_MEMORY;
    float *grad_region = room.get() + GROUP * hidden, *grad = grad_region + GROUP * hidden, *one = grad + GROUP * WIDE;
    for (int i = first; i < end; i += GROUP) {
      const int count = end - i < GROUP ? end - i : GROUP;
      const float* region = group_rows(a.regions, a.hidden, i, count, room.get());
      for (int g = 0; g < count; ++g) move_backward(a, carried, i + g, grad + g * WIDE);
      for (int r = 0; r < a.responses; ++r) {
        for (int g = 0; g < count; ++g) {
          const fv share = all(share_of(a, r, i + g));
          for (int k = g * WIDE; k < (g + 1) * WIDE; k += LANES) store(one + k, share * load(grad + k));
        }
        const float* start = r == 0 ? nothing.get() : grad_region;
        multiply(one, WIDE, CHANGES, matrices.get() + r * CHANGES * hidden, hidden, start, r == 0 ? 0 : hidden, grad_region);
        add_outer(region, hidden, a.hidden, one, WIDE, partial.get() + of_chunk * chunk + r * of_response);
      }
      for (int g = 0; g < count; ++g) {
        copy_row(a.grad_regions + static_cast<size_t>(i + g) * a.hidden, grad_region + g * hidden, a.hidden);
      }
    }
    return OK;
  });
  for (int r = 0; r < a.responses; ++r) {
    for (int h = 0; h < a.hidden; ++h) {
      for (int k = 0; k < CHANGES; ++k) {
        float total = 0;
        for (int chunk = 0; chunk < chunks; ++chunk) total += partial.get()[of_chunk * chunk + r * of_response + h * WIDE + k];
        a.grad_response[r][h * CHANGES + k] = total;
      }
    }
  }
  return status;
}

}  // namespace

extern "C" {
int JOIN(deform_forward, ISA)(const DeformArguments* arguments) { return forward(*arguments); }
int JOIN(deform_backward, ISA)(const DeformArguments* arguments) { return backward(*arguments); }
}
