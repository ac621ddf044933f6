// L1 and SSIM on the CPU. Compiled once per instruction set; ISA is the suffix of the exported names.
//
// A strip of rows at a time: the needed products are blurred along rows into a small buffer with five rows of margin,
// then along columns, eight pixels at a time. sigma_x^2 and sigma_y^2 are only ever added, so blurring x^2 + y^2 saves a map.
#include "ssim.h"

#include <cstdlib>

#include "../simd.h"

#define JOIN_(a, b) a##_##b
#define JOIN(a, b) JOIN_(a, b)

namespace {

constexpr int HALF = 5, STRIP = 16, ROWS = STRIP + 2 * HALF;
constexpr float C1 = 0.01f * 0.01f, C2 = 0.03f * 0.03f;
// exp(-i^2 / (2 * 1.5^2)), i = 0..5, divided by the sum of all eleven.
constexpr float TAPS[HALF + 1] = {0.26601171f, 0.21300554f, 0.10936069f, 0.03600077f, 0.00759876f, 0.00102838f};

// A thread's room: padded rows of the products, and `maps` row-blurred planes of a strip.
struct Room {
  int stride;  // floats in a padded row: HALF zeros or more, the row, zeros up to whole vectors
  float *line, *planes;
  Room(int width, int maps) {
    stride = (width + LANES - 1) / LANES * LANES + 2 * LANES;
    const size_t floats = static_cast<size_t>(stride) * (1 + static_cast<size_t>(maps) * ROWS);
    line = static_cast<float*>(std::calloc(floats, sizeof(float)));
    planes = line + stride;
  }
  Room(const Room&) = delete;
  Room& operator=(const Room&) = delete;
  ~Room() { std::free(line); }
  float* row(int map, int r) { return planes + (static_cast<size_t>(map) * ROWS + r) * stride; }
};

SIMD_INLINE f8 taps_along(const float* centre, int step) {
  f8 total = TAPS[0] * load(centre);
  for (int i = 1; i <= HALF; ++i) total = fma(all8(TAPS[i]), load(centre - i * step) + load(centre + i * step), total);
  return total;
}

// Fills row-blurred planes for picture rows top - 5 .. bottom + 4; make(map, row, line) writes a row of a product.
template <int MAPS, class Make>
SIMD_INLINE void blur_rows(const SsimImages& im, Room& room, int top, int bottom, const Make& make) {
  for (int y = top - HALF; y < bottom + HALF; ++y) {
    const int r = y - (top - HALF);
    for (int map = 0; map < MAPS; ++map) {
      float* out = room.row(map, r);
      if (y < 0 || y >= im.height) {
        std::memset(out, 0, room.stride * sizeof(float));
        continue;
      }
      float* line = room.line + LANES;
      make(map, static_cast<size_t>(y) * im.width, line);
      for (int x = 0; x < im.width; x += LANES) store(out + x, taps_along(line + x, 1));
    }
  }
}

SIMD_INLINE f8 blur_columns(Room& room, int map, int y, int top, int x) {
  return taps_along(room.row(map, y - top + HALF) + x, room.stride);
}

struct Partial {
  double l1 = 0, ssim = 0;
};

struct Window {
  f8 mean_x, mean_y, squares, product;  // blurred x, y, x^2 + y^2, x y
};

struct Similarity {
  f8 value, by_mean_x, by_squares, by_product;
};

SIMD_INLINE Similarity similarity(const Window& m) {
  const f8 mxy = m.mean_x * m.mean_y, mm = m.mean_x * m.mean_x + m.mean_y * m.mean_y;
  const f8 a1 = 2.0f * mxy + C1, a2 = 2.0f * (m.product - mxy) + C2, b1 = mm + C1, b2 = m.squares - mm + C2;
  const f8 inverse = 1.0f / (b1 * b2), value = a1 * a2 * inverse;
  const f8 by_mean = 2.0f * (m.mean_y * (a2 - a1) * inverse - value * m.mean_x * (b2 - b1) * inverse);
  return {value, by_mean, -value * (b1 * inverse), 2.0f * a1 * inverse};
}

// Loads up to eight floats; the rest 0.
SIMD_INLINE f8 load_some(const float* p, int n) {
  if (n >= LANES) return load(p);
  f8 v{};
  for (int i = 0; i < n; ++i) v[i] = p[i];
  return v;
}

SIMD_INLINE void store_some(float* p, int n, f8 v) {
  if (n >= LANES) return store(p, v);
  for (int i = 0; i < n; ++i) p[i] = v[i];
}

double mask_total(const SsimImages& im) {
  const size_t pixels = static_cast<size_t>(im.width) * im.height;
  if (im.mask == nullptr) return static_cast<double>(pixels) * im.channels;
  double total = 0;
  for (size_t i = 0; i < pixels; ++i) total += im.mask[i];
  return (total > 0 ? total : 2.220446049250313e-16) * im.channels;
}

Partial forward_strip(const SsimImages& im, Room& room, int channel, int top, int bottom, float weight_all) {
  const size_t plane = static_cast<size_t>(im.width) * im.height;
  const float *x = im.prediction + channel * plane, *y = im.target + channel * plane;
  blur_rows<4>(im, room, top, bottom, [&](int map, size_t row, float* line) {
    const float *a = x + row, *b = y + row;
    switch (map) {
      case 0: std::memcpy(line, a, im.width * sizeof(float)); break;
      case 1: std::memcpy(line, b, im.width * sizeof(float)); break;
      case 2: for (int i = 0; i < im.width; ++i) line[i] = a[i] * a[i] + b[i] * b[i]; break;
      default: for (int i = 0; i < im.width; ++i) line[i] = a[i] * b[i];
    }
  });
  Partial partial;
  for (int row = top; row < bottom; ++row) {
    f8 l1{}, ssim{};
    for (int i = 0; i < im.width; i += LANES) {
      const size_t at = static_cast<size_t>(row) * im.width + i;
      const int n = im.width - i;
      const f8 weight = load_some(im.mask == nullptr ? nullptr : im.mask + at, im.mask == nullptr ? 0 : n);
      const i8 lane = {0, 1, 2, 3, 4, 5, 6, 7};
      const f8 w = im.mask == nullptr ? keep(lane < n, all8(1.0f)) : weight;
      const Similarity s = similarity({blur_columns(room, 0, row, top, i), blur_columns(room, 1, row, top, i),
                                       blur_columns(room, 2, row, top, i), blur_columns(room, 3, row, top, i)});
      l1 += w * abs(load_some(x + at, n) - load_some(y + at, n));
      ssim += keep(lane < n, w * s.value);
      if (im.maps == nullptr) continue;
      float* out = im.maps + channel * plane + at;
      const f8 share = w * weight_all;
      store_some(out, n, share * s.by_mean_x);
      store_some(out + im.channels * plane, n, share * s.by_squares);
      store_some(out + 2 * im.channels * plane, n, share * s.by_product);
    }
    partial.l1 += sum(l1), partial.ssim += sum(ssim);
  }
  return partial;
}

void backward_strip(const SsimImages& im, Room& room, int channel, int top, int bottom, float weight_all) {
  const size_t plane = static_cast<size_t>(im.width) * im.height;
  const float *x = im.prediction + channel * plane, *y = im.target + channel * plane;
  const float* maps = im.maps + channel * plane;
  blur_rows<3>(im, room, top, bottom, [&](int map, size_t row, float* line) {
    std::memcpy(line, maps + map * im.channels * plane + row, im.width * sizeof(float));
  });
  for (int row = top; row < bottom; ++row) {
    for (int i = 0; i < im.width; i += LANES) {
      const size_t at = static_cast<size_t>(row) * im.width + i;
      const int n = im.width - i;
      const f8 a = load_some(x + at, n), b = load_some(y + at, n);
      const f8 w = im.mask == nullptr ? all8(1.0f) : load_some(im.mask + at, n);
      const f8 sign = keep(a > b, all8(1.0f)) - keep(a < b, all8(1.0f));
      const f8 ssim = blur_columns(room, 0, row, top, i) + 2.0f * a * blur_columns(room, 1, row, top, i) +
                      b * blur_columns(room, 2, row, top, i);
      store_some(im.grad_prediction + channel * plane + at, n, im.grad_ssim * ssim + (im.grad_l1 * weight_all) * (w * sign));
    }
  }
}

// Runs body(room, channel, top, bottom, item) for every strip of every channel. Returns false when out of memory.
template <int MAPS, class Body>
bool for_strips(const SsimImages& im, const Body& body) {
  const int strips = (im.height + STRIP - 1) / STRIP, items = strips * im.channels;
  bool enough = true;
#ifdef _OPENMP
#pragma omp parallel num_threads(im.threads < 1 ? 1 : im.threads)
#endif
  {
    Room room(im.width, MAPS);
#ifdef _OPENMP
#pragma omp for schedule(dynamic, 1)
#endif
    for (int item = 0; item < items; ++item) {
      if (room.line == nullptr) {
        enough = false;
        continue;
      }
      const int top = item % strips * STRIP, bottom = top + STRIP < im.height ? top + STRIP : im.height;
      body(room, item / strips, top, bottom, item);
    }
  }
  return enough;
}

}  // namespace

extern "C" {

int JOIN(l1_ssim_forward, ISA)(const SsimImages* images) {
  const SsimImages& im = *images;
  const size_t items = static_cast<size_t>((im.height + STRIP - 1) / STRIP) * im.channels;
  Partial* partial = static_cast<Partial*>(std::calloc(items, sizeof(Partial)));
  if (partial == nullptr) return 1;
  const double total = mask_total(im);
  const float weight = static_cast<float>(1.0 / total);
  const bool enough = for_strips<4>(im, [&](Room& room, int channel, int top, int bottom, int item) {
    partial[item] = forward_strip(im, room, channel, top, bottom, weight);
  });
  double l1 = 0, ssim = 0;
  for (size_t i = 0; i < items; ++i) l1 += partial[i].l1, ssim += partial[i].ssim;
  im.means[0] = static_cast<float>(l1 / total), im.means[1] = static_cast<float>(ssim / total);
  std::free(partial);
  return enough ? 0 : 1;
}

int JOIN(l1_ssim_backward, ISA)(const SsimImages* images) {
  const SsimImages& im = *images;
  const float weight = static_cast<float>(1.0 / mask_total(im));
  return for_strips<3>(im, [&](Room& room, int channel, int top, int bottom, int) {
    backward_strip(im, room, channel, top, bottom, weight);
  }) ? 0 : 1;
}
}
