// Features of places on the CPU: tri-plane grids and a small network. Compiled once per instruction set.
#include "small_matrix.h"

#define JOIN_(a, b) a##_##b
#define JOIN(a, b) JOIN_(a, b)

namespace {

constexpr int CHANNELS = 4, PLANES = 3;
constexpr int AXES[PLANES][2] = {{0, 1}, {1, 2}, {0, 2}};  // column, row

typedef float f4 __attribute__((vector_size(16)));

SIMD_INLINE f4 load4(const float* p) {
  f4 v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
SIMD_INLINE void store4(float* p, f4 v) { std::memcpy(p, &v, sizeof v); }

int output_count(const PlaceArguments& a) { return a.regions + a.gates; }

int feature_count(const PlaceArguments& a) { return a.levels * PLANES * CHANNELS + 3; }

size_t cells(int resolution) { return static_cast<size_t>(PLANES) * resolution * resolution; }

size_t all_cells(const PlaceArguments& a) {
  size_t total = 0;
  for (int level = 0; level < a.levels; ++level) total += cells(a.resolution[level]);
  return total;
}

// Where a point falls along one axis of one level: the cell before it, and how far it is on the way to the next.
struct Along {
  int32_t cell;
  float share;
};

SIMD_INLINE Along along(float coordinate, int resolution) {
  const float last = static_cast<float>(resolution - 1), at = (coordinate + 1.0f) * 0.5f * last;
  const float inside = at > 0.0f ? (at < last ? at : last) : 0.0f;  // NaN becomes 0
  // The last cell is entered from the one before it, so that both neighbours exist.
  const int32_t before = static_cast<int32_t>(inside), most = resolution > 1 ? resolution - 2 : 0;
  const int32_t cell = before < most ? before : most;
  return {cell, inside - static_cast<float>(cell)};
}

// The four cells around a point of a plane, and their weights.
struct Corners {
  size_t cell, right, below;
  float weight[4];
  SIMD_INLINE Corners(Along column, Along row, int resolution) {
    cell = static_cast<size_t>(row.cell) * resolution + column.cell;
    right = resolution > 1 ? CHANNELS : 0, below = right * resolution;
    const float x = column.share, y = row.share;
    weight[0] = (1 - x) * (1 - y), weight[1] = x * (1 - y), weight[2] = (1 - x) * y, weight[3] = x * y;
  }
};

// [3, 4, r, r] -> [3, r, r, 4] and back.
void channels_last(const float* grid, int resolution, float* out) {
  const size_t plane = static_cast<size_t>(resolution) * resolution;
  for (size_t p = 0; p < PLANES; ++p) {
    for (size_t i = 0; i < plane; ++i) {
      for (size_t c = 0; c < CHANNELS; ++c) out[(p * plane + i) * CHANNELS + c] = grid[(p * CHANNELS + c) * plane + i];
    }
  }
}
void channels_first(const float* in, int resolution, size_t p, float* grid) {
  const size_t plane = static_cast<size_t>(resolution) * resolution;
  for (size_t i = 0; i < plane; ++i) {
    for (size_t c = 0; c < CHANNELS; ++c) grid[(p * CHANNELS + c) * plane + i] = in[i * CHANNELS + c];
  }
}

// Samples all grids at a point; `where` keeps its places along the axes, level by level.
void sample_features(const PlaceArguments& a, const float* grids, const float* point, Along* where, float* out) {
  for (int level = 0; level < a.levels; ++level, where += 3) {
    const int r = a.resolution[level];
    for (int axis = 0; axis < 3; ++axis) where[axis] = along(point[axis], r);
    for (int plane = 0; plane < PLANES; ++plane, out += CHANNELS, grids += static_cast<size_t>(r) * r * CHANNELS) {
      const Corners c(where[AXES[plane][0]], where[AXES[plane][1]], r);
      const float* p = grids + c.cell * CHANNELS;
      store4(out, c.weight[0] * load4(p) + c.weight[1] * load4(p + c.right) + c.weight[2] * load4(p + c.below) +
                      c.weight[3] * load4(p + c.below + c.right));
    }
  }
  std::memcpy(out, point, 3 * sizeof(float));
}

int forward(const PlaceArguments& a) {
  const int features = feature_count(a), hidden = padded(a.hidden), outputs = padded(output_count(a));
  const Floats grids = zeros(all_cells(a) * CHANNELS), weight1 = zeros(static_cast<size_t>(features) * hidden),
               weight2 = zeros(static_cast<size_t>(a.hidden) * outputs), bias = zeros(hidden + outputs);
  if (!grids || !weight1 || !weight2 || !bias) return NO_MEMORY;
  float* grid = grids.get();
  for (int level = 0; level < a.levels; ++level) {
    channels_last(a.grids[level], a.resolution[level], grid);
    grid += cells(a.resolution[level]) * CHANNELS;
  }
  copy_transposed(a.weight1, features, a.hidden, weight1.get());
  copy_transposed(a.weight2, a.hidden, output_count(a), weight2.get());
  std::memcpy(bias.get(), a.bias1, a.hidden * sizeof(float));
  std::memcpy(bias.get() + hidden, a.bias2, output_count(a) * sizeof(float));
  const int wide = padded(features);
  return for_chunks(a.points, CHUNK, a.threads, [&](int, int first, int end) -> int {
    const Floats out = zeros(GROUP * outputs);
    if (!out) return NO_MEMORY;
    for (int i = first; i < end; i += GROUP) {
      const int count = end - i < GROUP ? end - i : GROUP;
      float *f = a.features + static_cast<size_t>(i) * wide, *h = a.activations + static_cast<size_t>(i) * hidden;
      if (count < GROUP) std::memset(f, 0, GROUP * wide * sizeof(float));
      for (int g = 0; g < count; ++g) {
        const size_t point = static_cast<size_t>(i + g);
        Along* where = static_cast<Along*>(a.along) + point * 3 * a.levels;
        sample_features(a, grids.get(), a.where + 3 * point, where, f + g * wide);
      }
      multiply(f, wide, features, weight1.get(), hidden, bias.get(), 0, h);
      for (int k = 0; k < GROUP * hidden; k += LANES) store(h + k, max(fv{}, load(h + k)));
      multiply(h, hidden, a.hidden, weight2.get(), outputs, bias.get() + hidden, 0, out.get());
      for (int g = 0; g < count; ++g) {
        const size_t row = static_cast<size_t>(i + g);
        copy_row(a.out_regions + row * a.regions, out.get() + g * outputs, a.regions);
        copy_row(a.out_gates + row * a.gates, out.get() + g * outputs + a.regions, a.gates);
      }
    }
    return OK;
  });
}

// Adds up the gradient of one plane of one level, point by point in their order.
int scatter_plane(const PlaceArguments& a, const float* grad_features, int level, int plane) {
  const int r = a.resolution[level], stride = a.levels * PLANES * CHANNELS;
  const Floats total = zeros(static_cast<size_t>(r) * r * CHANNELS);
  if (!total) return NO_MEMORY;
  const float* gradient = grad_features + (level * PLANES + plane) * CHANNELS;
  const Along* where = static_cast<const Along*>(a.along) + 3 * level;
  for (int i = 0; i < a.points; ++i, gradient += stride, where += 3 * a.levels) {
    const Corners c(where[AXES[plane][0]], where[AXES[plane][1]], r);
    float* p = total.get() + c.cell * CHANNELS;
    const f4 g = load4(gradient);
    const size_t at[4] = {0, c.right, c.below, c.below + c.right};
    for (int k = 0; k < 4; ++k) store4(p + at[k], load4(p + at[k]) + c.weight[k] * g);
  }
  channels_first(total.get(), r, plane, a.grad_grids[level]);
  return OK;
}

int backward(const PlaceArguments& a) {
  const int features = feature_count(a), grid_features = features - 3;
  const int hidden = padded(a.hidden), outputs = padded(output_count(a)), wide = padded(features);
  const int chunks = (a.points + CHUNK - 1) / CHUNK;
  const size_t of_weight1 = static_cast<size_t>(features) * hidden, of_weight2 = static_cast<size_t>(a.hidden) * outputs;
  const size_t of_chunk = of_weight1 + of_weight2 + hidden + outputs;
  const Floats weight1 = zeros(static_cast<size_t>(a.hidden) * wide), weight2 = zeros(static_cast<size_t>(output_count(a)) * hidden),
               partial = zeros(of_chunk * chunks), grad_features = zeros(static_cast<size_t>(a.points) * grid_features);
  if (!weight1 || !weight2 || !partial || !grad_features) return NO_MEMORY;
  copy_padded(a.weight1, a.hidden, features, weight1.get());
  copy_padded(a.weight2, output_count(a), a.hidden, weight2.get());
  const int status = for_chunks(a.points, CHUNK, a.threads, [&](int chunk, int first, int end) -> int {
    const Floats room = zeros(GROUP * (wide + hidden + outputs)), nothing = zeros(wide + hidden);
    if (!room || !nothing) return NO_MEMORY;
    float *gf = room.get(), *gh = gf + GROUP * wide, *go = gh + GROUP * hidden;
    float* sum1 = partial.get() + of_chunk * chunk;
    float *sum2 = sum1 + of_weight1, *sum_bias1 = sum2 + of_weight2, *sum_bias2 = sum_bias1 + hidden;
    const float ones[GROUP] = {1, 1, 1, 1};
    for (int i = first; i < end; i += GROUP) {
      const int count = end - i < GROUP ? end - i : GROUP;
      const float* f = a.features + static_cast<size_t>(i) * wide;
      const float* h = a.activations + static_cast<size_t>(i) * hidden;
      if (count < GROUP) std::memset(go, 0, GROUP * outputs * sizeof(float));
      for (int g = 0; g < count; ++g) {
        const size_t row = static_cast<size_t>(i + g);
        if (a.grad_out_regions) copy_row(go + g * outputs, a.grad_out_regions + row * a.regions, a.regions);
        if (a.grad_out_gates) copy_row(go + g * outputs + a.regions, a.grad_out_gates + row * a.gates, a.gates);
      }
      multiply(go, outputs, output_count(a), weight2.get(), hidden, nothing.get(), 0, gh);
      for (int k = 0; k < GROUP * hidden; k += LANES) store(gh + k, keep(load(h + k) > 0.0f, load(gh + k)));
      multiply(gh, hidden, a.hidden, weight1.get(), wide, nothing.get(), 0, gf);
      for (int g = 0; g < count; ++g) {
        copy_row(grad_features.get() + static_cast<size_t>(i + g) * grid_features, gf + g * wide, grid_features);
      }
      add_outer(f, wide, features, gh, hidden, sum1);
      add_outer(h, hidden, a.hidden, go, outputs, sum2);
      add_outer(ones, 1, 1, gh, hidden, sum_bias1);
      add_outer(ones, 1, 1, go, outputs, sum_bias2);
    }
    return OK;
  });
  if (status != OK) return status;
  for (int chunk = 1; chunk < chunks; ++chunk) {
    for (size_t k = 0; k < of_chunk; ++k) partial.get()[k] += partial.get()[of_chunk * chunk + k];
  }
  const float *sum1 = partial.get(), *sum2 = sum1 + of_weight1, *sum_bias1 = sum2 + of_weight2;
  if (chunks > 0) {
    for (int j = 0; j < a.hidden; ++j) {
      for (int k = 0; k < features; ++k) a.grad_weight1[j * features + k] = sum1[k * hidden + j];
      a.grad_bias1[j] = sum_bias1[j];
    }
    for (int j = 0; j < output_count(a); ++j) {
      for (int k = 0; k < a.hidden; ++k) a.grad_weight2[j * a.hidden + k] = sum2[k * outputs + j];
      a.grad_bias2[j] = sum_bias1[hidden + j];
    }
  }
  return for_chunks(a.levels * PLANES, 1, a.threads, [&](int task, int, int) {
    const int at = a.levels * PLANES - 1 - task;  // the finest grids take longest: first
    return scatter_plane(a, grad_features.get(), at / PLANES, at % PLANES);
  });
}

}  // namespace

extern "C" {
int JOIN(place_forward, ISA)(const PlaceArguments* arguments) { return forward(*arguments); }
int JOIN(place_backward, ISA)(const PlaceArguments* arguments) { return backward(*arguments); }
}
