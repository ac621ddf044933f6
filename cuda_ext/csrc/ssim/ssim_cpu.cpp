// L1 and SSIM on the CPU. Compiled once per instruction set; ISA is the suffix of the exported names.
//
// Down a strip of rows: each row's products are blurred along the row into a ring of the last sixteen rows, and five rows
// later along columns, LANES pixels at a time. sigma_x^2 and sigma_y^2 are only ever added, so blurring x^2 + y^2 saves a map.
#include "ssim.h"

#include <cstdlib>

#include "../parallel.h"
#include "../simd.h"

#define JOIN_(a, b) a##_##b
#define JOIN(a, b) JOIN_(a, b)

namespace {

constexpr int HALF = 5, RING = 16, STRIP = 32;
constexpr float C1 = 0.01f * 0.01f, C2 = 0.03f * 0.03f;
// exp(-i^2 / (2 * 1.5^2)), i = 0..5, divided by the sum of all eleven.
constexpr float TAPS[HALF + 1] = {0.26601171f, 0.21300554f, 0.10936069f, 0.03600077f, 0.00759876f, 0.00102838f};

// A thread's room for MAPS products: one row between zeros, the ring of row-blurred rows, and a row blurred both ways.
template <int MAPS>
struct Room {
  int stride;  // floats in a row: LANES zeros, the row, zeros up to whole vectors and LANES more
  float* memory;
  explicit Room(int width) {
    stride = (width + LANES - 1) / LANES * LANES + 2 * LANES;
    memory = static_cast<float*>(std::calloc(static_cast<size_t>(stride) * (1 + MAPS * (RING + 1)), sizeof(float)));
  }
  Room(const Room&) = delete;
  Room& operator=(const Room&) = delete;
  ~Room() { std::free(memory); }
  float* line() { return memory + LANES; }
  float* ring(int map, int y) { return memory + static_cast<size_t>(stride) * (1 + map * RING + (y & (RING - 1))); }
  float* blurred(int map) { return memory + static_cast<size_t>(stride) * (1 + MAPS * RING + map); }
};

template <class Row>
SIMD_INLINE void taps(int width, float* out, const Row& row) {  // row(i): where the pixels i steps away begin
  const float* p[2 * HALF + 1];
  for (int i = -HALF; i <= HALF; ++i) p[HALF + i] = row(i);
  for (int x = 0; x < width; x += LANES) {
    fv total = TAPS[0] * load(p[HALF] + x);
#pragma GCC unroll 5
    for (int i = 1; i <= HALF; ++i) total = fma(all(TAPS[i]), load(p[HALF - i] + x) + load(p[HALF + i] + x), total);
    store(out + x, total);
  }
}

// For each row of the strip: make(map, y, line) writes a row of a product; once its neighbours are there too, use(y) finds
// the blurred rows in the room.
template <int MAPS, class Make, class Use>
SIMD_INLINE void for_blurred_rows(int width, int height, Room<MAPS>& room, int top, int bottom, const Make& make, const Use& use) {
  for (int y = top - HALF; y < bottom + HALF; ++y) {
    for (int map = 0; map < MAPS; ++map) {
      float* out = room.ring(map, y);
      if (y < 0 || y >= height) {
        std::memset(out, 0, room.stride * sizeof(float));
        continue;
      }
      make(map, y, room.line());
      taps(width, out, [&](int i) { return room.line() + i; });
    }
    const int centre = y - HALF;
    if (centre < top) continue;
    for (int map = 0; map < MAPS; ++map) taps(width, room.blurred(map), [&](int i) { return room.ring(map, centre + i); });
    use(centre);
  }
}

struct Partial {
  float l1 = 0, ssim = 0;
};

struct Window {
  fv mean_x, mean_y, squares, product;  // blurred x, y, x^2 + y^2, x y
};

struct Similarity {
  fv value, by_mean_x, by_squares, by_product;
};

SIMD_INLINE Similarity similarity(const Window& m) {
  const fv mxy = m.mean_x * m.mean_y, mm = m.mean_x * m.mean_x + m.mean_y * m.mean_y;
  const fv a1 = 2.0f * mxy + C1, a2 = 2.0f * (m.product - mxy) + C2, b1 = mm + C1, b2 = m.squares - mm + C2;
  const fv inverse = 1.0f / (b1 * b2), value = a1 * a2 * inverse;
  const fv by_mean = 2.0f * (m.mean_y * (a2 - a1) * inverse - value * m.mean_x * (b2 - b1) * inverse);
  return {value, by_mean, -value * (b1 * inverse), 2.0f * a1 * inverse};
}

// Loads up to LANES floats; the rest 0.
SIMD_INLINE fv load_some(const float* p, int n) {
  if (n >= LANES) return load(p);
  fv v{};
  for (int i = 0; i < n; ++i) v[i] = p[i];
  return v;
}

SIMD_INLINE void store_some(float* p, int n, fv v) {
  if (n >= LANES) return store(p, v);
  for (int i = 0; i < n; ++i) p[i] = v[i];
}

// Weights of up to LANES pixels; 0 past them.
SIMD_INLINE fv load_weights(const SsimImages& im, size_t pixel, int n) {
  return im.mask != nullptr ? load_some(im.mask + pixel, n) : keep(lane_index() < n, all(1.0f));
}

double weight_total(const SsimImages& im) {
  if (im.mask == nullptr) return static_cast<double>(im.width) * im.height * im.channels;
  double total = 0;
  for (int y = 0; y < im.height; ++y) {
    fv row{};
    for (int x = 0; x < im.width; x += LANES) row += load_some(im.mask + static_cast<size_t>(y) * im.width + x, im.width - x);
    total += sum(row);
  }
  return (total > 0 ? total : 2.220446049250313e-16) * im.channels;
}

// Writes each row's sums to partial[channel * height + y].
void forward_strip(const SsimImages& im, Room<4>& room, int channel, int top, int bottom, float weight_all, Partial* partial) {
  const size_t plane = static_cast<size_t>(im.width) * im.height, planes = im.channels * plane;
  const float *x = im.prediction + channel * plane, *y = im.target + channel * plane;
  const auto make = [&](int map, int row, float* line) {
    const float *a = x + static_cast<size_t>(row) * im.width, *b = y + static_cast<size_t>(row) * im.width;
    switch (map) {
      case 0: std::memcpy(line, a, im.width * sizeof(float)); break;
      case 1: std::memcpy(line, b, im.width * sizeof(float)); break;
      case 2: for (int i = 0; i < im.width; ++i) line[i] = a[i] * a[i] + b[i] * b[i]; break;
      default: for (int i = 0; i < im.width; ++i) line[i] = a[i] * b[i];
    }
  };
  for_blurred_rows<4>(im.width, im.height, room, top, bottom, make, [&](int row) {
    fv l1{}, ssim{};
    for (int i = 0; i < im.width; i += LANES) {
      const size_t at = static_cast<size_t>(row) * im.width + i;
      const int n = im.width - i;
      const fv weight = load_weights(im, at, n);
      const Similarity s = similarity({load(room.blurred(0) + i), load(room.blurred(1) + i), load(room.blurred(2) + i), load(room.blurred(3) + i)});
      l1 += weight * abs(load_some(x + at, n) - load_some(y + at, n));
      ssim += weight * s.value;
      if (im.maps == nullptr) continue;
      float* out = im.maps + channel * plane + at;
      const fv share = weight * weight_all;
      store_some(out, n, share * s.by_mean_x);
      store_some(out + planes, n, share * s.by_squares);
      store_some(out + 2 * planes, n, share * s.by_product);
    }
    partial[static_cast<size_t>(channel) * im.height + row] = {sum(l1), sum(ssim)};
  });
}

void backward_strip(const SsimImages& im, Room<3>& room, int channel, int top, int bottom, float weight_all) {
  const size_t plane = static_cast<size_t>(im.width) * im.height, planes = im.channels * plane;
  const float *x = im.prediction + channel * plane, *y = im.target + channel * plane, *maps = im.maps + channel * plane;
  float* grad = im.grad_prediction + channel * plane;
  const auto make = [&](int map, int row, float* line) {
    std::memcpy(line, maps + map * planes + static_cast<size_t>(row) * im.width, im.width * sizeof(float));
  };
  for_blurred_rows<3>(im.width, im.height, room, top, bottom, make, [&](int row) {
    for (int i = 0; i < im.width; i += LANES) {
      const size_t at = static_cast<size_t>(row) * im.width + i;
      const int n = im.width - i;
      const fv a = load_some(x + at, n), b = load_some(y + at, n);
      const fv sign = keep(a > b, all(1.0f)) - keep(a < b, all(1.0f));
      const fv ssim = load(room.blurred(0) + i) + 2.0f * a * load(room.blurred(1) + i) + b * load(room.blurred(2) + i);
      store_some(grad + at, n, im.grad_ssim * ssim + (im.grad_l1 * weight_all) * (load_weights(im, at, n) * sign));
    }
  });
}

// Runs body(room, channel, top, bottom) for every strip of every channel. Returns false when out of memory.
template <int MAPS, class Body>
bool for_strips(const SsimImages& im, const Body& body) {
  const int strips = (im.height + STRIP - 1) / STRIP, items = strips * im.channels;
  bool enough = true;
#ifdef _OPENMP
#pragma omp parallel num_threads(thread_count(im.threads)) if (im.threads > 1)
#endif
  {
    Room<MAPS> room(im.width);
#ifdef _OPENMP
#pragma omp for schedule(dynamic, 1)
#endif
    for (int item = 0; item < items; ++item) {
      if (room.memory == nullptr) {
        enough = false;
        continue;
      }
      const int top = item % strips * STRIP, bottom = top + STRIP < im.height ? top + STRIP : im.height;
      body(room, item / strips, top, bottom);
    }
  }
  return enough;
}

}  // namespace

extern "C" {

int JOIN(l1_ssim_forward, ISA)(const SsimImages* images) {
  const SsimImages& im = *images;
  const size_t rows = static_cast<size_t>(im.height) * im.channels;
  Partial* partial = static_cast<Partial*>(std::calloc(rows, sizeof(Partial)));
  if (partial == nullptr) return 1;
  const double total = weight_total(im);
  const float weight = static_cast<float>(1.0 / total);
  const bool enough = for_strips<4>(im, [&](Room<4>& room, int channel, int top, int bottom) {
    forward_strip(im, room, channel, top, bottom, weight, partial);
  });
  double l1 = 0, ssim = 0;
  for (size_t i = 0; i < rows; ++i) l1 += partial[i].l1, ssim += partial[i].ssim;
  im.means[0] = static_cast<float>(l1 / total), im.means[1] = static_cast<float>(ssim / total);
  std::free(partial);
  return enough ? 0 : 1;
}

int JOIN(l1_ssim_backward, ISA)(const SsimImages* images) {
  const SsimImages& im = *images;
  const float weight = static_cast<float>(1.0 / weight_total(im));
  return for_strips<3>(im, [&](Room<3>& room, int channel, int top, int bottom) {
    backward_strip(im, room, channel, top, bottom, weight);
  }) ? 0 : 1;
}
}
