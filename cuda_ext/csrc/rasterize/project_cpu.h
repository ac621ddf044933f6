// Per-Gaussian stage of forward, LANES Gaussians at a time: projection, colour, and the tiles that each meets.
#pragma once

#include "../simd.h"
#include "rasterize.h"
#include "sh_math.h"
#include "workspace.h"

namespace {

constexpr float WHITEN_SCALE = 0.84932180028801904f;  // sqrt(log2(e) / 2)
constexpr float LOG2_ALPHA_MIN = -7.99435343685886f;
// A Gaussian with a colour, feature or depth beyond this is dropped, like one with a NaN: what it would do to the
// gradients of others is no longer a number.
constexpr float VALUE_MAX = 1e15f;
#ifndef MAX_PAIRS
#define MAX_PAIRS (size_t{1} << 29)  // 12 GB of lists: more is a mistake
#endif

struct TooManyPairs {};

// A tile's pixels are handled LANES at a time, in blocks of 4 x BLOCK_ROWS, numbered along rows.
constexpr int BLOCK_COLUMNS = 4, BLOCK_ROWS = LANES / BLOCK_COLUMNS;
constexpr int BLOCKS_ACROSS = gs::TILE / BLOCK_COLUMNS;
constexpr int PIXELS = gs::TILE * gs::TILE, BLOCKS = PIXELS / LANES;

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

struct Batch {
  fv mean[3], quat[4], scale[3];
  Batch(const RasterizeTensors& t, int first, int rows) {
    const size_t i = static_cast<size_t>(first);
    load_columns<3>(t.means + 3 * i, rows, mean);
    load_columns<4>(t.quats + 4 * i, rows, quat);
    load_columns<3>(t.scales + 3 * i, rows, scale);
  }
};

constexpr int SH_COLUMNS = 48;  // of the sixteen harmonics up to degree 3

// Harmonics of the directions in which a batch is seen, and its coefficients, columns [harmonic, channel].
struct Harmonics {
  fv x, y, z, inv_length, basis[16], sh[SH_COLUMNS];
  int used;
  Harmonics(const RasterizeView& view, const RasterizeTensors& t, const gs::Camera& camera, const fv mean[3], int first, int rows) {
    x = mean[0] - camera.eye[0], y = mean[1] - camera.eye[1], z = mean[2] - camera.eye[2];
    inv_length = 1.0f / sqrt(max(x * x + y * y + z * z, all(1e-24f)));
    x *= inv_length, y *= inv_length, z *= inv_length;
    used = (view.sh_degree + 1) * (view.sh_degree + 1);
    gs::sh_basis(view.sh_degree, x, y, z, basis);
    const size_t stride = 3 * static_cast<size_t>(view.sh_coefficients);
    load_rows(t.sh + first * stride, stride, 3 * used, rows, (view.gaussians - first) * stride, sh);
  }
  // Before the clamp at 0.
  SIMD_INLINE void colors(fv rgb[3]) const {
    rgb[0] = rgb[1] = rgb[2] = all(0.5f);
    for (int k = 0; k < used; ++k) {
      for (int c = 0; c < 3; ++c) rgb[c] = fma(basis[k], sh[3 * k + c], rgb[c]);
    }
  }
};

// Inria's integer radius: 0 unless its square of tiles meets the picture (specs/gaussian_head.md j.2).
SIMD_INLINE iv visible_radius(const gs::Projection<fv>& p, int width, int height) {
  const fv wanted = min(gs::three_sigma(p), all(1e9f));
  const fv whole = to_float(truncated(wanted)), radius = whole + keep(whole < wanted, all(1.0f));
  iv seen = lane_index() >= 0;
  const fv centres[2] = {p.mean_x - 0.5f, p.mean_y - 0.5f};
  const int pixels[2] = {width, height};
  for (int axis = 0; axis < 2; ++axis) {
    const fv tiles = all(static_cast<float>((pixels[axis] + gs::TILE - 1) / gs::TILE));
    const fv low = (centres[axis] - radius) * (1.0f / gs::TILE);
    const fv high = (centres[axis] + radius + static_cast<float>(gs::TILE - 1)) * (1.0f / gs::TILE);
    seen &= truncated(min(max(high, fv{}), tiles)) > truncated(min(max(low, fv{}), tiles));
  }
  return seen & truncated(radius);
}

// First and last pixel whose centre lies within `extent` of `centre`; first > last when there is none.
struct PixelRange {
  iv first, last;
  PixelRange(fv centre, fv extent, int pixels) {
    const fv low = min(max(centre - extent - 0.5f, fv{}), all(static_cast<float>(pixels)));
    const fv high = min(max(centre + extent - 0.5f, all(-1.0f)), all(static_cast<float>(pixels - 1)));
    const iv down = truncated(low);
    first = down - (to_float(down) < low);  // rounded up: a true comparison is -1
    last = truncated(high + 1.0f) - 1;
  }
};

// What finding a Gaussian's tiles needs.
struct Ellipse {
  float x, y, xx, yx, yy;   // centre and whitening
  float slope_x, slope_y;   // of the lines on which u^2 + w^2 is least along x and along y
  float limit;              // of u^2 + w^2
  int left, right, top, bottom;  // pixels, inclusive
};

// Blocks of a tile that the ellipse meets, tested at pixel centres; never too few. The minimum of u^2 + w^2 over a
// block's rectangle lies on an edge facing the centre, unless the centre is inside.
SIMD_INLINE uint32_t tile_blocks(const Ellipse& e, int tile_left, int tile_top) {
  constexpr int GROUP_ROWS = LANES / BLOCKS_ACROSS * BLOCK_ROWS;  // pixel rows of LANES blocks
  const fv column = to_float((lane_index() & (BLOCKS_ACROSS - 1)) * BLOCK_COLUMNS);
  const fv row = to_float(lane_index() / BLOCKS_ACROSS * BLOCK_ROWS);
  const fv x0 = column + (static_cast<float>(tile_left) - e.x + 0.5f), x1 = x0 + static_cast<float>(BLOCK_COLUMNS - 1);
  const fv edge_x = min(max(fv{}, x0), x1), along_y = edge_x * e.slope_y, u_edge = edge_x * e.xx;
  const int first = (e.top > tile_top ? e.top - tile_top : 0) / GROUP_ROWS;
  const int last = (e.bottom < tile_top + gs::TILE ? e.bottom - tile_top : gs::TILE - 1) / GROUP_ROWS;
  uint32_t blocks = 0;
  for (int group = first; group <= last; ++group) {
    const fv y0 = row + (static_cast<float>(tile_top + group * GROUP_ROWS) - e.y + 0.5f);
    const fv y1 = y0 + static_cast<float>(BLOCK_ROWS - 1);
    const fv edge_y = min(max(fv{}, y0), y1);
    const fv best_y = min(max(along_y, y0), y1), best_x = min(max(edge_y * e.slope_x, x0), x1);
    const fv u0 = fma(all(e.yx), best_y, u_edge), w0 = e.yy * best_y;
    const fv u1 = fma(all(e.yx), edge_y, e.xx * best_x), w1 = e.yy * edge_y;
    const fv nearest = min(fma(u0, u0, w0 * w0), fma(u1, u1, w1 * w1));
    blocks |= lane_bits(nearest <= e.limit) << (group * LANES);
  }
  return blocks;
}

// Lists the tiles that a Gaussian meets; returns how many.
SIMD_INLINE uint32_t append_pairs(const Ellipse& e, uint32_t tiles_across, Buffer<Pair>& out, size_t used) {
  const int x0 = e.left / gs::TILE, x1 = e.right / gs::TILE, y0 = e.top / gs::TILE, y1 = e.bottom / gs::TILE;
  out.reserve(used + static_cast<size_t>(x1 - x0 + 1) * (y1 - y0 + 1));
  uint32_t count = 0;
  for (int y = y0; y <= y1; ++y) {
    for (int x = x0; x <= x1; ++x) {
      const uint32_t blocks = tile_blocks(e, x * gs::TILE, y * gs::TILE);
      out[used + count] = {static_cast<uint32_t>(y) * tiles_across + static_cast<uint32_t>(x), blocks};
      count += blocks != 0;
    }
  }
  return count;
}

// Lanes whose features are all numbers; columns receives the features if there are few.
SIMD_INLINE iv usable_features(const RasterizeView& view, const RasterizeTensors& t, int first, int rows, fv* columns) {
  const float* features = t.features + static_cast<size_t>(first) * view.features;
  iv usable = lane_index() >= 0;
  if (view.features == 1) load_columns<1>(features, rows, columns);
  if (view.features == 2) load_columns<2>(features, rows, columns);
  if (view.features <= INLINE_FEATURES) {
    for (int e = 0; e < view.features; ++e) usable &= abs(columns[e]) <= VALUE_MAX;
    return usable;
  }
  for (int i = 0; i < rows; ++i) {
    for (int e = 0; e < view.features; ++e) {
      if (!(std::fabs(features[static_cast<size_t>(i) * view.features + e]) <= VALUE_MAX)) usable[i] = 0;
    }
  }
  return usable;
}

// Projects a chunk of Gaussians; appends their pairs to `out` from `used` on.
void project_chunk(
    const RasterizeView& view, const RasterizeTensors& t, Workspace& ws, const gs::Camera& camera, int index, Buffer<Pair>& out,
    size_t& used) {
  Chunk& chunk = ws.chunks[index];
  chunk.pairs_offset = used, chunk.visible = 0, chunk.nearest = ~0u, chunk.farthest = 0;
  const int begin = index * CHUNK, end = view.gaussians - begin < CHUNK ? view.gaussians : begin + CHUNK;
  const uint32_t tiles_across = static_cast<uint32_t>((view.width + gs::TILE - 1) / gs::TILE);
  for (int first = begin; first < end; first += LANES) {
    const int rows = end - first < LANES ? end - first : LANES;
    const Batch batch(t, first, rows);
    const gs::Projection<fv> p = gs::project(camera, batch.mean, batch.quat, batch.scale);
    const fv z = camera.rotation[6] * batch.mean[0] + camera.rotation[7] * batch.mean[1] +
                 camera.rotation[8] * batch.mean[2] + camera.translation[2];
    // NaN fails every comparison, so a Gaussian with one is dropped.
    const iv projects = (z > camera.near_plane) & (z < VALUE_MAX) & (p.xx < 1e30f) & (p.yy < 1e30f) & (p.determinant < 1e36f);
    const iv radius = projects & visible_radius(p, view.width, view.height);
    std::memcpy(t.radii + first, &radius, static_cast<size_t>(rows) * sizeof(int32_t));

    fv opacity;
    load_columns<1>(t.opacities + first, rows, &opacity);
    const iv opaque = (opacity >= gs::ALPHA_MIN) & (opacity <= VALUE_MAX);
    fv columns[16] = {};
    const fv log2_opacity = log2(opaque ? opacity : all(1.0f));
    const fv limit = max(log2_opacity - LOG2_ALPHA_MIN, fv{}), reach = limit * (1.0f / gs::HALF_LOG2_E);
    const PixelRange across(p.mean_x, sqrt(reach * p.xx) + 0.01f, view.width);
    const PixelRange down(p.mean_y, sqrt(reach * p.yy) + 0.01f, view.height);
    const iv in_view = projects & opaque & (across.first <= across.last) & (down.first <= down.last);
    store(reinterpret_cast<int32_t*>(&ws.pair_count[first]), iv{});
    if (lane_bits(in_view) == 0) continue;

    fv* rgb = columns + 6;
    if (t.sh == nullptr) {
      load_columns<3>(t.colors + 3 * static_cast<size_t>(first), rows, rgb);
    } else {
      Harmonics(view, t, camera, batch.mean, first, rows).colors(rgb);
    }
    iv usable = in_view & usable_features(view, t, first, rows, columns + 10);
    for (int c = 0; c < 3; ++c) {
      usable &= abs(rgb[c]) <= VALUE_MAX;
      if (t.sh != nullptr) rgb[c] = max(rgb[c], fv{});
    }
    const gs::Whitening<fv> l = gs::whiten(p, WHITEN_SCALE);
    columns[0] = p.mean_x, columns[1] = p.mean_y, columns[2] = l.xx, columns[3] = l.yx, columns[4] = l.yy;
    columns[5] = log2_opacity, columns[9] = p.z;
    store_rows(reinterpret_cast<float*>(&ws.splats[first]), sizeof(Splat) / sizeof(float), 16, LANES, columns);

    float slope_x[LANES], slope_y[LANES];
    int32_t left[LANES], right[LANES], top[LANES], bottom[LANES];
    store(slope_x, p.xy / p.yy), store(slope_y, p.xy / p.xx);
    store(left, across.first), store(right, across.last), store(top, down.first), store(bottom, down.last);
    for (unsigned lanes = lane_bits(usable); lanes != 0; lanes &= lanes - 1) {
      const int lane = __builtin_ctz(lanes), i = first + lane;
      const Splat& s = ws.splats[i];
      const Ellipse ellipse = {s.mean_x, s.mean_y, s.xx, s.yx, s.yy, slope_x[lane], slope_y[lane],
                               s.log2_opacity - LOG2_ALPHA_MIN + 0.01f, left[lane], right[lane], top[lane], bottom[lane]};
      const uint32_t pairs = append_pairs(ellipse, tiles_across, out, used);
      if (pairs == 0) continue;
      ws.pair_begin[i] = static_cast<uint32_t>(used - chunk.pairs_offset), ws.pair_count[i] = pairs;
      used += pairs;
      if (used > MAX_PAIRS) throw TooManyPairs();
      uint32_t depth;
      std::memcpy(&depth, &s.channels[3], sizeof depth);
      chunk.nearest = depth < chunk.nearest ? depth : chunk.nearest;
      chunk.farthest = depth > chunk.farthest ? depth : chunk.farthest;
      ws.keys[static_cast<size_t>(begin) + chunk.visible++] = static_cast<uint64_t>(depth) << 32 | static_cast<uint32_t>(i);
    }
  }
  chunk.pairs = static_cast<uint32_t>(used - chunk.pairs_offset);
}

}  // namespace
