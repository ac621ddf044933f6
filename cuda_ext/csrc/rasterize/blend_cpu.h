// Blending of one 16 x 16 tile, forward and backward, eight pixels (a 4 x 2 block) at a time.
//
// Per-pixel state is kept block by block: element 8 b + lane belongs to block b of 32, four blocks to a row.
#pragma once

#include "../simd.h"
#include "gs_math.h"
#include "rasterize.h"
#include "workspace.h"

namespace {

constexpr int BLOCKS = 32, PIXELS = gs::TILE * gs::TILE;
constexpr uint32_t AHEAD = 6;  // entries to fetch ahead of use: Gaussians lie anywhere in memory
const float LOG2_ALPHA_MIN = -7.99435343685886f;

struct Tile {
  int index, left, top, columns, rows;  // columns x rows of its pixels lie inside the picture
  uint32_t begin, end;                  // its entries
  Tile(const RasterizeView& view, Workspace& ws, int i) : index(i) {
    const int across = (view.width + gs::TILE - 1) / gs::TILE;
    left = i % across * gs::TILE, top = i / across * gs::TILE;
    columns = view.width - left < gs::TILE ? view.width - left : gs::TILE;
    rows = view.height - top < gs::TILE ? view.height - top : gs::TILE;
    begin = ws.tile_begin[i], end = ws.tile_begin[i + 1];
  }
};

// Copies a plane's tile into block order; pixels outside the picture become 0.
SIMD_INLINE void load_tile(const float* plane, const RasterizeView& view, const Tile& tile, float* out) {
  if (plane == nullptr || tile.columns < gs::TILE || tile.rows < gs::TILE) std::memset(out, 0, PIXELS * sizeof(float));
  if (plane == nullptr) return;
  for (int y = 0; y < tile.rows; ++y) {
    const float* row = plane + static_cast<size_t>(tile.top + y) * view.width + tile.left;
    float* to = out + (y >> 1) * 32 + (y & 1) * 4;
    if (tile.columns == gs::TILE) {
      for (int c = 0; c < 4; ++c) std::memcpy(to + 8 * c, row + 4 * c, 4 * sizeof(float));
    } else {
      for (int x = 0; x < tile.columns; ++x) to[8 * (x >> 2) + (x & 3)] = row[x];
    }
  }
}

template <class T>
SIMD_INLINE void store_tile(T* plane, const RasterizeView& view, const Tile& tile, const T* in) {
  for (int y = 0; y < tile.rows; ++y) {
    T* row = plane + static_cast<size_t>(tile.top + y) * view.width + tile.left;
    const T* from = in + (y >> 1) * 32 + (y & 1) * 4;
    if (tile.columns == gs::TILE) {
      for (int c = 0; c < 4; ++c) std::memcpy(row + 4 * c, from + 8 * c, 4 * sizeof(T));
    } else {
      for (int x = 0; x < tile.columns; ++x) row[x] = from[8 * (x >> 2) + (x & 3)];
    }
  }
}

// One Gaussian's offset to the pixels of a block, whitened, and log2 of its alpha there. Forward and backward both call
// this, with explicit fma, so that they take the same decisions.
struct Offset {
  f8 u, w, log2_alpha;
};

struct Footprint {
  f8 x, y, xx, yx, yy, log2_opacity;
  Footprint(const Splat& s, const Tile& tile) {
    const f8 column = {0.5f, 1.5f, 2.5f, 3.5f, 0.5f, 1.5f, 2.5f, 3.5f}, row = {0.5f, 0.5f, 0.5f, 0.5f, 1.5f, 1.5f, 1.5f, 1.5f};
    x = column - (s.mean_x - static_cast<float>(tile.left)), y = row - (s.mean_y - static_cast<float>(tile.top));
    xx = all8(s.xx), yx = all8(s.yx), yy = all8(s.yy), log2_opacity = all8(s.log2_opacity);
  }
  SIMD_INLINE Offset at(int block) const {
    const f8 dx = x + static_cast<float>(block % 4 * 4), dy = y + static_cast<float>(block / 4 * 2);
    const f8 w = yy * dy;
    const f8 u = fma(xx, dx, yx * dy);
    return {u, w, fma(-w, w, fma(-u, u, log2_opacity))};
  }
};

struct TileImage {
  alignas(32) float light[PIXELS], r[PIXELS], g[PIXELS], b[PIXELS], depth[PIXELS];
  alignas(32) int32_t last[PIXELS], count[PIXELS];
};

// Light of a pixel that has ended is kept negative, so that nothing passes the stop test again.
SIMD_INLINE uint32_t start_tile(const Tile& tile, TileImage& image) {
  std::memset(&image, 0, sizeof image);
  uint32_t done = 0;
  for (int block = 0; block < BLOCKS; ++block) {
    for (int lane = 0; lane < LANES; ++lane) {
      const bool inside = block % 4 * 4 + lane % 4 < tile.columns && block / 4 * 2 + lane / 4 < tile.rows;
      image.light[8 * block + lane] = inside ? 1.0f : -1.0f;
      image.last[8 * block + lane] = -1;
    }
    if (block % 4 * 4 >= tile.columns || block / 4 * 2 >= tile.rows) done |= 1u << block;
  }
  return done;
}

void blend_tile(const RasterizeView& view, const RasterizeTensors& t, Workspace& ws, const Tile& tile, float* planes) {
  TileImage image;
  uint32_t done = start_tile(tile, image);
  const int features = view.features;
  std::memset(planes, 0, static_cast<size_t>(features) * PIXELS * sizeof(float));
  for (uint32_t k = tile.begin; k < tile.end && done != ~0u; ++k) {
    const Entry entry = ws.entries[k];
    __builtin_prefetch(&ws.splats[ws.entries[k + AHEAD < tile.end ? k + AHEAD : k].gaussian]);
    uint32_t blocks = entry.blocks & ~done;
    if (blocks == 0) continue;
    const Splat& s = ws.splats[entry.gaussian];
    const Footprint footprint(s, tile);
    const float* feature = t.features + static_cast<size_t>(entry.gaussian) * features;
    const f8 r = all8(s.r), g = all8(s.g), b = all8(s.b), depth = all8(s.depth);
    const i8 position = all8(static_cast<int32_t>(k - tile.begin));
    do {
      const int block = __builtin_ctz(blocks), at = 8 * block;
      blocks &= blocks - 1;
      const f8 log2_alpha = footprint.at(block).log2_alpha;
      const i8 visible = log2_alpha >= LOG2_ALPHA_MIN;
      const f8 light = load(image.light + at);
      const f8 alpha = keep(visible, min(exp2(log2_alpha), all8(gs::ALPHA_MAX)));
      const f8 absorbed = alpha * light, left = light - absorbed;
      const i8 take = visible & (left >= gs::TRANSMITTANCE_MIN);
      const f8 weight = keep(take, absorbed);
      store(image.r + at, fma(weight, r, load(image.r + at)));
      store(image.g + at, fma(weight, g, load(image.g + at)));
      store(image.b + at, fma(weight, b, load(image.b + at)));
      store(image.depth + at, fma(weight, depth, load(image.depth + at)));
      for (int e = 0; e < features; ++e) {
        float* plane = planes + e * PIXELS + at;
        store(plane, fma(weight, all8(feature[e]), load(plane)));
      }
      store(image.last + at, take ? position : load(image.last + at));
      store(image.count + at, load(image.count + at) - take);
      const i8 ends = visible & ~take;
      f8 next = take ? left : light;
      if (any(ends)) {
        next = ends ? -abs(light) : next;
        if (lane_bits(next > 0.0f) == 0) done |= 1u << block;
      }
      store(image.light + at, next);
    } while (blocks != 0);
  }
  float* light = ws.transmittance.data + static_cast<size_t>(tile.index) * PIXELS;
  alignas(32) float alpha[PIXELS];
  for (int at = 0; at < PIXELS; at += LANES) {
    const f8 left = abs(load(image.light + at));
    store(light + at, left);
    store(alpha + at, 1.0f - left);
    store(image.r + at, fma(left, all8(t.background[0]), load(image.r + at)));
    store(image.g + at, fma(left, all8(t.background[1]), load(image.g + at)));
    store(image.b + at, fma(left, all8(t.background[2]), load(image.b + at)));
  }
  std::memcpy(ws.last.data + static_cast<size_t>(tile.index) * PIXELS, image.last, sizeof image.last);
  const size_t plane = static_cast<size_t>(view.width) * view.height;
  store_tile(t.color, view, tile, image.r);
  store_tile(t.color + plane, view, tile, image.g);
  store_tile(t.color + 2 * plane, view, tile, image.b);
  store_tile(t.alpha, view, tile, alpha);
  store_tile(t.depth, view, tile, image.depth);
  store_tile(t.n_contrib, view, tile, image.count);
  for (int e = 0; e < features; ++e) store_tile(t.feature_map + e * plane, view, tile, planes + e * PIXELS);
}

// What a tile's pixels carry while its list is walked from the back.
struct TileGradient {
  alignas(32) float r[PIXELS], g[PIXELS], b[PIXELS], depth[PIXELS];  // gradients on the picture
  alignas(32) float light[PIXELS];   // light that reaches the Gaussian looked at
  alignas(32) float behind[PIXELS];  // sum over what lies behind of weight times (gradient . channels)
  int32_t block_last[BLOCKS];
};

SIMD_INLINE void start_gradient(
    const RasterizeView& view, const RasterizeTensors& t, Workspace& ws, const Tile& tile, TileGradient& state) {
  const size_t plane = static_cast<size_t>(view.width) * view.height;
  const float* color = t.grad_color;
  load_tile(color, view, tile, state.r);
  load_tile(color == nullptr ? nullptr : color + plane, view, tile, state.g);
  load_tile(color == nullptr ? nullptr : color + 2 * plane, view, tile, state.b);
  load_tile(t.grad_depth, view, tile, state.depth);
  load_tile(t.grad_alpha, view, tile, state.behind);
  std::memcpy(state.light, ws.transmittance.data + static_cast<size_t>(tile.index) * PIXELS, sizeof state.light);
  const int32_t* last = ws.last.data + static_cast<size_t>(tile.index) * PIXELS;
  f8 background[3] = {};
  for (int at = 0; at < PIXELS; at += LANES) {
    const f8 r = load(state.r + at), g = load(state.g + at), b = load(state.b + at), light = load(state.light + at);
    background[0] += light * r, background[1] += light * g, background[2] += light * b;
    const f8 seen = r * t.background[0] + g * t.background[1] + b * t.background[2];
    store(state.behind + at, light * (seen - load(state.behind + at)));
    int32_t furthest = -1;
    for (int lane = 0; lane < LANES; ++lane) furthest = last[at + lane] > furthest ? last[at + lane] : furthest;
    state.block_last[at / LANES] = furthest;
  }
  for (int c = 0; c < 3; ++c) ws.tile_background[3 * static_cast<size_t>(tile.index) + c] = sum(background[c]);
}

// DEPTH: whether the picture's depth has a gradient; ABSOLUTE: whether grad_means2d_abs is wanted. `planes`: gradients on the feature planes; `sums`: E f8 of room.
template <bool DEPTH, bool ABSOLUTE>
void blend_tile_backward(
    const RasterizeView& view, const RasterizeTensors& t, Workspace& ws, const Tile& tile, float* planes, float* sums_e) {
  TileGradient state;
  start_gradient(view, t, ws, tile, state);
  const int features = view.features, stride = MOMENTS + features;
  const size_t plane = static_cast<size_t>(view.width) * view.height;
  for (int e = 0; e < features; ++e) {
    load_tile(t.grad_feature_map == nullptr ? nullptr : t.grad_feature_map + e * plane, view, tile, planes + e * PIXELS);
  }
  const int32_t* last = ws.last.data + static_cast<size_t>(tile.index) * PIXELS;
  for (uint32_t k = tile.end; k-- > tile.begin;) {
    const Entry entry = ws.entries[k], later = ws.entries[k >= tile.begin + AHEAD ? k - AHEAD : k];
    __builtin_prefetch(&ws.splats[later.gaussian]);
    __builtin_prefetch(&ws.slots[static_cast<size_t>(later.slot) * stride], 1);
    float* slot = ws.slots.data + static_cast<size_t>(entry.slot) * stride;
    const Splat& s = ws.splats[entry.gaussian];
    const Footprint footprint(s, tile);
    const float* feature = t.features + static_cast<size_t>(entry.gaussian) * features;
    const int32_t position = static_cast<int32_t>(k - tile.begin);
    f8 v{}, vu{}, vw{}, vuu{}, vuw{}, vww{}, r{}, g{}, b{}, depth{}, ax{}, ay{};
    std::memset(sums_e, 0, features * sizeof(f8));
    for (uint32_t blocks = entry.blocks; blocks != 0; blocks &= blocks - 1) {
      const int block = __builtin_ctz(blocks), at = 8 * block;
      if (state.block_last[block] < position) continue;
      const Offset o = footprint.at(block);
      const i8 taken = (o.log2_alpha >= LOG2_ALPHA_MIN) & (load(last + at) >= position);
      const f8 raw = keep(taken, exp2(o.log2_alpha)), alpha = min(raw, all8(gs::ALPHA_MAX));
      const f8 inverse = 1.0f / (1.0f - alpha), light = load(state.light + at) * inverse, weight = alpha * light;
      store(state.light + at, light);
      const f8 gr = load(state.r + at), gg = load(state.g + at), gb = load(state.b + at);
      f8 value = fma(all8(s.r), gr, fma(all8(s.g), gg, all8(s.b) * gb));
      if (DEPTH) {
        const f8 gd = load(state.depth + at);
        value = fma(all8(s.depth), gd, value);
        depth = fma(weight, gd, depth);
      }
      for (int e = 0; e < features; ++e) {
        const f8 ge = load(planes + e * PIXELS + at);
        value = fma(all8(feature[e]), ge, value);
        store(sums_e + e * LANES, fma(weight, ge, load(sums_e + e * LANES)));
      }
      const f8 behind = load(state.behind + at);
      store(state.behind + at, fma(weight, value, behind));
      const f8 grad_alpha = fma(light, value, -(behind * inverse));
      const f8 grad_power = keep(raw <= gs::ALPHA_MAX, raw * grad_alpha);
      const f8 pu = grad_power * o.u, pw = grad_power * o.w;
      v += grad_power, vu += pu, vw += pw;
      vuu = fma(pu, o.u, vuu), vuw = fma(pu, o.w, vuw), vww = fma(pw, o.w, vww);
      if (ABSOLUTE) ax += abs(s.xx * pu), ay += abs(fma(all8(s.yx), pu, s.yy * pw));
      r = fma(weight, gr, r), g = fma(weight, gg, g), b = fma(weight, gb, b);
    }
    store(slot, sums(v, vu, vw, vuu, vuw, vww, r, g));
    slot[8] = sum(b);
    slot[9] = DEPTH ? sum(depth) : 0.0f;
    slot[10] = ABSOLUTE ? sum(ax) : 0.0f;
    slot[11] = ABSOLUTE ? sum(ay) : 0.0f;
    for (int e = 0; e < features; ++e) slot[MOMENTS + e] = sum(load(sums_e + e * LANES));
  }
}

}  // namespace
