// Per-Gaussian stages, eight Gaussians at a time: projection with tile lists, and the chain rule back.
#pragma once

#include "../simd.h"
#include "rasterize.h"
#include "sh_math.h"
#include "workspace.h"

namespace {

const float WHITEN_SCALE = 0.84932180028801904f;  // sqrt(log2(e) / 2)

gs::Camera make_camera(const RasterizeView& view) {
  gs::Camera c;
  const float* m = view.viewmat;
  for (int i = 0; i < 3; ++i) {
    for (int j = 0; j < 3; ++j) c.rotation[3 * i + j] = m[4 * i + j];
    c.translation[i] = m[4 * i + 3];
    c.eye[i] = -(m[i] * m[3] + m[4 + i] * m[7] + m[8 + i] * m[11]);
  }
  c.fx = view.fx, c.fy = view.fy, c.cx = view.cx, c.cy = view.cy, c.near_plane = view.near_plane;
  const float w = static_cast<float>(view.width), h = static_cast<float>(view.height);
  c.x_low = (-c.cx - 0.15f * w) / c.fx, c.x_high = (1.15f * w - c.cx) / c.fx;
  c.y_low = (-c.cy - 0.15f * h) / c.fy, c.y_high = (1.15f * h - c.cy) / c.fy;
  return c;
}

// Column `column` of rows `first`..`first + 7` of a [n, stride] array; rows past the end repeat the last one.
SIMD_INLINE f8 gather(const float* array, int n, int stride, int first, int column) {
  f8 v;
  const float* p = array + static_cast<size_t>(first) * stride + column;
  if (first + LANES <= n) {
    for (int i = 0; i < LANES; ++i) v[i] = p[static_cast<size_t>(i) * stride];
  } else {
    for (int i = 0; i < LANES; ++i) v[i] = p[static_cast<size_t>(first + i < n ? i : n - 1 - first) * stride];
  }
  return v;
}

// Rows of one Gaussian batch, eight columns of lanes.
struct Batch {
  f8 mean[3], quat[4], scale[3];
  Batch(const RasterizeTensors& t, int n, int first) {
    for (int k = 0; k < 3; ++k) mean[k] = gather(t.means, n, 3, first, k), scale[k] = gather(t.scales, n, 3, first, k);
    for (int k = 0; k < 4; ++k) quat[k] = gather(t.quats, n, 4, first, k);
  }
};

struct Direction {
  f8 x, y, z, inv_length;
};

SIMD_INLINE Direction view_direction(const gs::Camera& camera, const f8 mean[3]) {
  const f8 x = mean[0] - camera.eye[0], y = mean[1] - camera.eye[1], z = mean[2] - camera.eye[2];
  const f8 inv = 1.0f / sqrt(max(x * x + y * y + z * z, all8(1e-24f)));
  return {x * inv, y * inv, z * inv, inv};
}

// Blocks (4 x 2 pixels) of a tile that the ellipse u^2 + w^2 <= limit meets, tested at pixel centres; never too few.
// offset: tile corner minus the Gaussian's centre. The minimum over a rectangle lies on an edge facing the centre.
SIMD_INLINE uint32_t tile_blocks(const Splat& s, float slope_y, float slope_x, float limit, float offset_x, float offset_y) {
  const f8 column = {0, 4, 8, 12, 0, 4, 8, 12}, row = {0, 0, 0, 0, 2, 2, 2, 2};
  const f8 x0 = column + (offset_x + 0.5f), x1 = x0 + 3.0f;
  const f8 zero{};
  const f8 edge_x = min(max(zero, x0), x1);
  uint32_t blocks = 0;
  for (int i = 0; i < 4; ++i) {
    const f8 y0 = row + (offset_y + 0.5f + 4.0f * static_cast<float>(i)), y1 = y0 + 1.0f;
    const f8 edge_y = min(max(zero, y0), y1);
    const f8 best_y = min(max(edge_x * slope_y, y0), y1), best_x = min(max(edge_y * slope_x, x0), x1);
    const f8 u0 = s.xx * edge_x + s.yx * best_y, w0 = s.yy * best_y;
    const f8 u1 = s.xx * best_x + s.yx * edge_y, w1 = s.yy * edge_y;
    const f8 nearest = min(u0 * u0 + w0 * w0, u1 * u1 + w1 * w1);
    blocks |= lane_bits(nearest <= limit) << (8 * i);
  }
  return blocks;
}

// First and past-the-last tile that pixel centres within `extent` of `centre` fall in.
SIMD_INLINE void tile_range(float centre, float extent, int pixels, int* first, int* end) {
  const float low = min(max(centre - extent - 0.5f, 0.0f), static_cast<float>(pixels));
  const float high = min(max(centre + extent - 0.5f, -1.0f), static_cast<float>(pixels - 1));
  *first = static_cast<int>(std::ceil(low)) / gs::TILE;
  *end = high < 0.0f || low > high ? *first : static_cast<int>(high) / gs::TILE + 1;
}

// Inria's integer radius: 0 unless its square of tiles meets the picture (specs/gaussian_head.md j.2).
SIMD_INLINE int32_t visible_radius(float x, float y, float three_sigma, int width, int height) {
  const float radius = std::ceil(three_sigma);
  const float centre[2] = {x - 0.5f, y - 0.5f};
  const int pixels[2] = {width, height};
  for (int axis = 0; axis < 2; ++axis) {
    const float tiles = static_cast<float>((pixels[axis] + gs::TILE - 1) / gs::TILE);
    const float first = min(max(std::trunc((centre[axis] - radius) / gs::TILE), 0.0f), tiles);
    const float end = min(max(std::trunc((centre[axis] + radius + (gs::TILE - 1)) / gs::TILE), 0.0f), tiles);
    if (!(end > first)) return 0;
  }
  return radius < 1e9f ? static_cast<int32_t>(radius) : 1000000000;
}

// Lists the tiles that a Gaussian meets; returns how many.
SIMD_INLINE uint32_t append_pairs(Splat& s, float xx, float xy, float yy, const RasterizeView& view, Buffer<Pair>& out, size_t used) {
  const float limit = s.log2_opacity + 7.99435343685886f;  // log2(255)
  const float reach = limit / gs::HALF_LOG2_E;             // the same ellipse as d^T Sigma^-1 d <= reach
  int x0, x1, y0, y1;
  tile_range(s.mean_x, sqrt(reach * xx) + 0.01f, view.width, &x0, &x1);
  tile_range(s.mean_y, sqrt(reach * yy) + 0.01f, view.height, &y0, &y1);
  if (x0 >= x1 || y0 >= y1) return 0;
  const uint32_t tiles_across = static_cast<uint32_t>((view.width + gs::TILE - 1) / gs::TILE);
  const float slope_y = xy / xx, slope_x = xy / yy;
  out.reserve(used + static_cast<size_t>(x1 - x0) * (y1 - y0));
  uint32_t count = 0;
  for (int y = y0; y < y1; ++y) {
    for (int x = x0; x < x1; ++x) {
      const float corner_x = static_cast<float>(x * gs::TILE), corner_y = static_cast<float>(y * gs::TILE);
      const uint32_t blocks = tile_blocks(s, slope_y, slope_x, limit + 0.01f, corner_x - s.mean_x, corner_y - s.mean_y);
      if (blocks != 0) out[used + count++] = {static_cast<uint32_t>(y) * tiles_across + static_cast<uint32_t>(x), blocks};
    }
  }
  return count;
}

// Projects Gaussians [begin, end), begin a multiple of 8; returns how many pairs went to `out`.
size_t project_range(const RasterizeView& view, const RasterizeTensors& t, Workspace& ws, int begin, int end, Buffer<Pair>& out) {
  const gs::Camera camera = make_camera(view);
  size_t used = 0;
  alignas(32) float values[10][LANES], basis[16][LANES];
  const int coefficients = (view.sh_degree + 1) * (view.sh_degree + 1);
  for (int first = begin; first < end; first += LANES) {
    const Batch batch(t, view.gaussians, first);
    const gs::Projection<f8> p = gs::project(camera, batch.mean, batch.quat, batch.scale);
    const gs::Whitening<f8> l = gs::whiten(p, WHITEN_SCALE);
    const f8 z = camera.rotation[6] * batch.mean[0] + camera.rotation[7] * batch.mean[1] +
                 camera.rotation[8] * batch.mean[2] + camera.translation[2];
    // NaN fails every comparison, so a Gaussian with one is dropped.
    const unsigned front = lane_bits((z > camera.near_plane) & (p.xx < 1e30f) & (p.yy < 1e30f) & (p.determinant < 1e36f));
    const f8 columns[10] = {p.mean_x, p.mean_y, l.xx, l.yx, l.yy, p.z, p.xx, p.xy, p.yy, gs::three_sigma(p)};
    for (int k = 0; k < 10; ++k) store(values[k], columns[k]);
    if (t.sh != nullptr) {
      const Direction d = view_direction(camera, batch.mean);
      f8 b[16] = {};
      gs::sh_basis(view.sh_degree, d.x, d.y, d.z, b);
      for (int k = 0; k < coefficients; ++k) store(basis[k], b[k]);
    }
    for (int lane = 0; lane < LANES && first + lane < end; ++lane) {
      const int i = first + lane;
      ws.visible[i] = 0;
      t.radii[i] = 0;
      if ((front >> lane & 1) == 0) continue;
      t.radii[i] = visible_radius(values[0][lane], values[1][lane], values[9][lane], view.width, view.height);
      const float opacity = t.opacities[i];
      if (!(opacity >= gs::ALPHA_MIN)) continue;
      Splat& s = ws.splats[i];
      s.mean_x = values[0][lane], s.mean_y = values[1][lane];
      s.xx = values[2][lane], s.yx = values[3][lane], s.yy = values[4][lane];
      s.depth = values[5][lane];
      s.opacity = opacity, s.log2_opacity = std::log2(opacity);
      s.first_pair = static_cast<uint32_t>(used);
      s.pairs = append_pairs(s, values[6][lane], values[7][lane], values[8][lane], view, out, used);
      if (s.pairs == 0) continue;
      used += s.pairs;
      ws.visible[i] = 1;
      float rgb[3] = {0.5f, 0.5f, 0.5f};
      if (t.sh == nullptr) {
        std::memcpy(rgb, t.colors + 3 * static_cast<size_t>(i), sizeof rgb);
      } else {
        const float* sh = t.sh + static_cast<size_t>(i) * view.sh_coefficients * 3;
        for (int k = 0; k < coefficients; ++k) {
          for (int c = 0; c < 3; ++c) rgb[c] += basis[k][lane] * sh[3 * k + c];
        }
        for (float& c : rgb) c = max(c, 0.0f);
      }
      s.r = rgb[0], s.g = rgb[1], s.b = rgb[2];
    }
  }
  return used;
}

// Sums the slots of Gaussian i, in order, into totals[MOMENTS]; features go straight to grad_features.
SIMD_INLINE void sum_slots(const RasterizeView& view, const RasterizeTensors& t, Workspace& ws, int i, float* totals) {
  const int stride = MOMENTS + view.features;
  float* grad_features = t.grad_features + static_cast<size_t>(i) * view.features;
  std::memset(totals, 0, MOMENTS * sizeof(float));
  std::memset(grad_features, 0, view.features * sizeof(float));
  if (!ws.visible[i]) return;
  const Splat& s = ws.splats[i];
  const float* slot = ws.slots.data + static_cast<size_t>(s.first_pair) * stride;
  for (uint32_t pair = 0; pair < s.pairs; ++pair, slot += stride) {
    for (int k = 0; k < MOMENTS; ++k) totals[k] += slot[k];
    for (int e = 0; e < view.features; ++e) grad_features[e] += slot[MOMENTS + e];
  }
}

// Writes a lane of each of `columns` values to row `row` of a dense array.
template <int COLUMNS>
SIMD_INLINE void scatter(float* array, int n, int first, const f8* v) {
  const int rows = n - first < LANES ? n - first : LANES;
  float* p = array + static_cast<size_t>(first) * COLUMNS;
  for (int i = 0; i < rows; ++i) {
    for (int k = 0; k < COLUMNS; ++k) p[i * COLUMNS + k] = v[k][i];
  }
}

// Gradients on SH coefficients (written) and on the view direction (returned), from the colours' gradients rgb[3].
SIMD_INLINE void sh_backward(
    const RasterizeView& view, const RasterizeTensors& t, int first, const Direction& d, const float rgb[3][LANES], f8 grad_direction[3]) {
  alignas(32) float basis[16][LANES], grad_basis[16][LANES];
  f8 b[16] = {};
  gs::sh_basis(view.sh_degree, d.x, d.y, d.z, b);
  const int used = (view.sh_degree + 1) * (view.sh_degree + 1);
  for (int k = 0; k < used; ++k) store(basis[k], b[k]);
  const int rows = view.gaussians - first < LANES ? view.gaussians - first : LANES;
  std::memset(grad_basis, 0, sizeof grad_basis);
  for (int i = 0; i < rows; ++i) {
    const size_t at = static_cast<size_t>(first + i) * view.sh_coefficients * 3;
    const float *sh = t.sh + at, r = rgb[0][i], g = rgb[1][i], bl = rgb[2][i];
    float* out = t.grad_sh + at;
    if (r == 0.0f && g == 0.0f && bl == 0.0f) {
      std::memset(out, 0, view.sh_coefficients * 3 * sizeof(float));
      continue;
    }
    for (int k = 0; k < used; ++k) {
      const float value = basis[k][i];
      out[3 * k] = value * r, out[3 * k + 1] = value * g, out[3 * k + 2] = value * bl;
      grad_basis[k][i] = sh[3 * k] * r + sh[3 * k + 1] * g + sh[3 * k + 2] * bl;
    }
    std::memset(out + 3 * used, 0, (view.sh_coefficients - used) * 3 * sizeof(float));
  }
  for (int k = 0; k < used; ++k) b[k] = load(grad_basis[k]);
  gs::sh_basis_backward(view.sh_degree, d.x, d.y, d.z, b, grad_direction);
}

// Chain rule for Gaussians [begin, end), begin a multiple of 8: from their slots to gradients on the inputs.
void project_backward_range(const RasterizeView& view, const RasterizeTensors& t, Workspace& ws, int begin, int end) {
  const gs::Camera camera = make_camera(view);
  const int n = view.gaussians;
  for (int first = begin; first < end; first += LANES) {
    alignas(32) float totals[LANES][MOMENTS] = {}, rgb[3][LANES] = {};
    i8 seen{};
    f8 opacity = all8(1.0f);
    for (int i = 0; i < LANES && first + i < n; ++i) {
      sum_slots(view, t, ws, first + i, totals[i]);
      if (!ws.visible[first + i]) continue;
      const Splat& s = ws.splats[first + i];
      seen[i] = -1;
      opacity[i] = s.opacity;
      const bool clamps = t.sh != nullptr;
      rgb[0][i] = clamps && s.r <= 0.0f ? 0.0f : totals[i][6];
      rgb[1][i] = clamps && s.g <= 0.0f ? 0.0f : totals[i][7];
      rgb[2][i] = clamps && s.b <= 0.0f ? 0.0f : totals[i][8];
    }
    f8 m[MOMENTS] = {};
    for (int k = 0; k < MOMENTS; ++k) {
      for (int i = 0; i < LANES; ++i) m[k][i] = totals[i][k];
    }
    const Batch batch(t, n, first);
    const gs::Projection<f8> p = gs::project(camera, batch.mean, batch.quat, batch.scale);
    const gs::Whitening<f8> l = gs::whiten(p, 1.0f);
    // The pixels' offsets were whitened with WHITEN_SCALE.
    const float s1 = 1.0f / WHITEN_SCALE, s2 = 1.0f / gs::HALF_LOG2_E;
    const gs::Moments<f8> moments = {m[0], m[1] * s1, m[2] * s1, m[3] * s2, m[4] * s2, m[5] * s2};
    f8 grad_mean[3], grad_quat[4], grad_scale[3], grad_pixel[2];
    gs::project_backward(camera, p, l, batch.scale, moments, m[9], grad_mean, grad_quat, grad_scale, grad_pixel);
    if (t.sh != nullptr) {
      const Direction d = view_direction(camera, batch.mean);
      f8 g[3];
      sh_backward(view, t, first, d, rgb, g);
      const f8 along = g[0] * d.x + g[1] * d.y + g[2] * d.z;
      const f8 unit[3] = {d.x, d.y, d.z};
      for (int k = 0; k < 3; ++k) grad_mean[k] = grad_mean[k] + (g[k] - unit[k] * along) * d.inv_length;
    } else {
      const f8 g[3] = {load(rgb[0]), load(rgb[1]), load(rgb[2])};
      scatter<3>(t.grad_colors, n, first, g);
    }
    for (f8& v : grad_mean) v = keep(seen, v);
    for (f8& v : grad_quat) v = keep(seen, v);
    for (f8& v : grad_scale) v = keep(seen, v);
    const f8 grad_opacity = m[0] / opacity;
    scatter<3>(t.grad_means, n, first, grad_mean);
    scatter<4>(t.grad_quats, n, first, grad_quat);
    scatter<3>(t.grad_scales, n, first, grad_scale);
    scatter<1>(t.grad_opacities, n, first, &grad_opacity);
    const float half_width = 0.5f * static_cast<float>(view.width), half_height = 0.5f * static_cast<float>(view.height);
    if (t.grad_means2d != nullptr) {
      const f8 ndc[2] = {keep(seen, grad_pixel[0] * half_width), keep(seen, grad_pixel[1] * half_height)};
      scatter<2>(t.grad_means2d, n, first, ndc);
    }
    if (t.grad_means2d_abs != nullptr) {  // (WHITEN_SCALE L) e' with e' = WHITEN_SCALE e
      const f8 ndc[2] = {m[10] * (half_width / gs::HALF_LOG2_E), m[11] * (half_height / gs::HALF_LOG2_E)};
      scatter<2>(t.grad_means2d_abs, n, first, ndc);
    }
  }
}

}  // namespace
