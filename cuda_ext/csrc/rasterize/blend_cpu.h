// Blending of one 16 x 16 tile, forward and backward, a block of LANES pixels (4 columns) at a time.
//
// Per-pixel state is kept block by block: element LANES b + lane belongs to block b, four blocks to a row of blocks.
#pragma once

#include "../simd.h"
#include "gs_math.h"
#include "project_cpu.h"
#include "rasterize.h"
#include "workspace.h"

namespace {

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

// Where a row of a tile begins in block order; its blocks are LANES apart.
SIMD_INLINE int row_start(int y) { return (y / BLOCK_ROWS * BLOCKS_ACROSS) * LANES + y % BLOCK_ROWS * BLOCK_COLUMNS; }

// Copies a plane's tile into block order; pixels outside the picture become 0.
SIMD_INLINE void load_tile(const float* plane, const RasterizeView& view, const Tile& tile, float* out) {
  if (plane == nullptr || tile.columns < gs::TILE || tile.rows < gs::TILE) std::memset(out, 0, PIXELS * sizeof(float));
  if (plane == nullptr) return;
  for (int y = 0; y < tile.rows; ++y) {
    const float* row = plane + static_cast<size_t>(tile.top + y) * view.width + tile.left;
    float* to = out + row_start(y);
    if (tile.columns == gs::TILE) {
      for (int c = 0; c < BLOCKS_ACROSS; ++c) std::memcpy(to + LANES * c, row + 4 * c, 4 * sizeof(float));
    } else {
      for (int x = 0; x < tile.columns; ++x) to[LANES * (x >> 2) + (x & 3)] = row[x];
    }
  }
}

template <class T>
SIMD_INLINE void store_tile(T* plane, const RasterizeView& view, const Tile& tile, const T* in) {
  for (int y = 0; y < tile.rows; ++y) {
    T* row = plane + static_cast<size_t>(tile.top + y) * view.width + tile.left;
    const T* from = in + row_start(y);
    if (tile.columns == gs::TILE) {
      for (int c = 0; c < BLOCKS_ACROSS; ++c) std::memcpy(row + 4 * c, from + LANES * c, 4 * sizeof(T));
    } else {
      for (int x = 0; x < tile.columns; ++x) row[x] = from[LANES * (x >> 2) + (x & 3)];
    }
  }
}

// Coordinates of a block's pixel centres inside its tile.
SIMD_INLINE fv block_x(int block) {
  return to_float(lane_index() % BLOCK_COLUMNS + block % BLOCKS_ACROSS * BLOCK_COLUMNS) + 0.5f;
}
SIMD_INLINE fv block_y(int block) { return to_float(lane_index() / BLOCK_COLUMNS + block / BLOCKS_ACROSS * BLOCK_ROWS) + 0.5f; }

// A Gaussian's offset to the pixels of a block, whitened, and log2 of its alpha there. Forward and backward both call
// this, with explicit fma, so that they take the same decisions.
struct Offset {
  fv u, w, log2_alpha;
  SIMD_INLINE Offset(const Splat& s, fv dx, fv dy) {
    w = s.yy * dy;
    u = fma(all(s.xx), dx, s.yx * dy);
    log2_alpha = fma(-u, u, fma(-w, w, all(s.log2_opacity)));
  }
};

// Forward state of a tile's pixels; what backward needs of it lies in the workspace.
struct TileImage {
  float* light;  // that is left
  int32_t* end;
  alignas(64) float r[PIXELS], g[PIXELS], b[PIXELS], depth[PIXELS];
  alignas(64) float faintest[PIXELS];  // log2 of the least alpha that the pixel takes; infinity once it has ended
  alignas(64) int32_t count[PIXELS];
};

constexpr int32_t NEVER = 0x7fffffff;
constexpr int AHEAD = 6;  // entries to fetch ahead of use: Gaussians lie anywhere in memory

// Returns the blocks that lie outside the picture.
SIMD_INLINE uint32_t start_tile(const Tile& tile, Workspace& ws, TileImage& image) {
  uint32_t outside = 0;
  image.light = &ws.transmittance[static_cast<size_t>(tile.index) * PIXELS];
  image.end = &ws.end[static_cast<size_t>(tile.index) * PIXELS];
  for (int block = 0; block < BLOCKS; ++block) {
    const int at = LANES * block;
    const iv inside = (block_x(block) < static_cast<float>(tile.columns)) & (block_y(block) < static_cast<float>(tile.rows));
    store(image.light + at, all(1.0f));
    store(image.faintest + at, inside ? all(LOG2_ALPHA_MIN) : all(__builtin_inff()));
    store(image.end + at, inside & NEVER);
    for (float* plane : {image.r, image.g, image.b, image.depth}) store(plane + at, fv{});
    store(image.count + at, iv{});
    if (lane_bits(inside) == 0) outside |= 1u << block;
  }
  return outside;
}

// A stretch of a tile's list: its Gaussians side by side, and for each block which of them meet it.
constexpr int STRETCH = 128, WORD = 64;
struct Stretch {
  Splat splats[STRETCH];  // centres relative to the tile's corner
  uint32_t gaussians[STRETCH];
  uint64_t hits[BLOCKS][STRETCH / WORD];
  int words;

  SIMD_INLINE void fetch(Workspace& ws, const Tile& tile, uint32_t begin) {
    alignas(64) int32_t blocks[STRETCH];
    const int n = tile.end - begin < STRETCH ? static_cast<int>(tile.end - begin) : STRETCH;
    const Entry* entries = &ws.entries[begin];
    const float left = static_cast<float>(tile.left), top = static_cast<float>(tile.top);
    for (int k = 0; k < n; ++k) {
      gaussians[k] = entries[k].gaussian, blocks[k] = static_cast<int32_t>(entries[k].blocks << (32 - BLOCKS));
      __builtin_prefetch(&ws.splats[entries[k + AHEAD < n ? k + AHEAD : k].gaussian]);
      splats[k] = ws.splats[entries[k].gaussian];
      splats[k].mean_x -= left, splats[k].mean_y -= top;
    }
    words = (n + WORD - 1) / WORD;
    for (int k = n; k < words * WORD; ++k) blocks[k] = 0;
    for (int word = 0; word < words; ++word) {
      for (int block = 0; block < BLOCKS; ++block) {
        uint64_t bits = 0;
        for (int k = 0; k < WORD; k += LANES) {
          bits |= static_cast<uint64_t>(lane_bits(load(blocks + word * WORD + k) << (BLOCKS - 1 - block))) << k;
        }
        hits[block][word] = bits;
      }
    }
  }
};

// FEATURES: how many features, known when compiling and inline in the splats; or -1.
template <int FEATURES>
void blend_tile(const RasterizeView& view, const RasterizeTensors& t, Workspace& ws, const Tile& tile, float* planes) {
  TileImage image;
  Stretch stretch;
  const int features = FEATURES < 0 ? view.features : FEATURES;
  uint32_t done = start_tile(tile, ws, image);
  std::memset(planes, 0, static_cast<size_t>(features) * PIXELS * sizeof(float));
  for (uint32_t begin = tile.begin; begin < tile.end; begin += STRETCH) {
    stretch.fetch(ws, tile, begin);
    for (int block = 0; block < BLOCKS; ++block) {
      if ((done >> block & 1) != 0) continue;
      const int at = LANES * block;
      const fv x = block_x(block), y = block_y(block);
      fv light = load(image.light + at), r = load(image.r + at), g = load(image.g + at), b = load(image.b + at);
      fv depth = load(image.depth + at), faintest = load(image.faintest + at), feature[FEATURES > 0 ? FEATURES : 1];
      iv count = load(image.count + at);
      for (int e = 0; e < FEATURES; ++e) feature[e] = load(planes + e * PIXELS + at);
      for (int word = 0; word < stretch.words; ++word) {
        for (uint64_t hits = stretch.hits[block][word]; hits != 0; hits &= hits - 1) {
          const int k = word * WORD + __builtin_ctzll(hits);
          const Splat& s = stretch.splats[k];
          const fv log2_alpha = Offset(s, x - s.mean_x, y - s.mean_y).log2_alpha;
          iv takes = log2_alpha >= faintest;
          fv alpha = keep(takes, min(exp2(log2_alpha), all(gs::ALPHA_MAX)));
          fv left = fma(-alpha, light, light);
          const iv goes_on = left >= gs::TRANSMITTANCE_MIN;
          if (__builtin_expect(lane_bits(goes_on) != ALL_LANES, 0)) {
            const iv position = all(static_cast<int32_t>(begin - tile.begin) + k);
            store(image.end + at, goes_on ? load(image.end + at) : position);
            faintest = goes_on ? faintest : all(__builtin_inff());
            alpha = keep(goes_on, alpha), left = goes_on ? left : light, takes &= goes_on;
            if (lane_bits(faintest < all(__builtin_inff())) == 0) done |= 1u << block;
          }
          const fv weight = alpha * light;
          r = fma(weight, all(s.channels[0]), r), g = fma(weight, all(s.channels[1]), g), b = fma(weight, all(s.channels[2]), b);
          depth = fma(weight, all(s.channels[3]), depth);
          for (int e = 0; e < FEATURES; ++e) feature[e] = fma(weight, all(s.channels[4 + e]), feature[e]);
          if (FEATURES < 0) {
            const float* values = t.features + static_cast<size_t>(stretch.gaussians[k]) * features;
            for (int e = 0; e < features; ++e) {
              float* plane = planes + static_cast<size_t>(e) * PIXELS + at;
              store(plane, fma(weight, all(values[e]), load(plane)));
            }
          }
          count -= takes;
          light = left;
          if (__builtin_expect(done >> block & 1, 0)) goto ended;
        }
      }
    ended:
      store(image.light + at, light), store(image.faintest + at, faintest), store(image.count + at, count);
      store(image.r + at, r), store(image.g + at, g), store(image.b + at, b), store(image.depth + at, depth);
      for (int e = 0; e < FEATURES; ++e) store(planes + e * PIXELS + at, feature[e]);
    }
    if (done == ~0u >> (32 - BLOCKS)) break;
  }
  alignas(64) float alpha[PIXELS];
  for (int at = 0; at < PIXELS; at += LANES) {
    const fv left = load(image.light + at);
    store(alpha + at, 1.0f - left);
    store(image.r + at, fma(left, all(t.background[0]), load(image.r + at)));
    store(image.g + at, fma(left, all(t.background[1]), load(image.g + at)));
    store(image.b + at, fma(left, all(t.background[2]), load(image.b + at)));
  }
  const size_t plane = static_cast<size_t>(view.width) * view.height;
  store_tile(t.color, view, tile, image.r);
  store_tile(t.color + plane, view, tile, image.g);
  store_tile(t.color + 2 * plane, view, tile, image.b);
  store_tile(t.alpha, view, tile, alpha);
  store_tile(t.depth, view, tile, image.depth);
  store_tile(t.n_contrib, view, tile, image.count);
  for (int e = 0; e < features; ++e) store_tile(t.feature_map + e * plane, view, tile, planes + static_cast<size_t>(e) * PIXELS);
}

// What a (Gaussian, tile) pair's slot holds: nine sums over the pixels; then, where wanted, the channels beyond colour
// (depth, features), and the absolute contributions to the projected centre.
enum { SUM_V, SUM_U, SUM_W, SUM_UU, SUM_UW, SUM_WW, SUM_R, SUM_G, SUM_B, MOMENTS };

constexpr int slot_stride(int columns) {
  const int whole = (columns + 3) / 4 * 4;
  return whole < LANES ? LANES : whole;
}

struct SlotLayout {
  int depth, features, extra;  // 1 when depth has a gradient; features that have; both
  bool absolute;
  int stride;  // floats: a multiple of four, a vector at least
  SlotLayout(const RasterizeView& view, const RasterizeTensors& t) {
    depth = t.grad_depth != nullptr, features = t.grad_feature_map != nullptr ? view.features : 0, extra = depth + features;
    absolute = t.grad_means2d_abs != nullptr;
    stride = slot_stride(MOMENTS + extra + 2 * absolute);
  }
};

// What a tile's pixels carry while its list is walked from the back.
struct TileGradient {
  alignas(64) float r[PIXELS], g[PIXELS], b[PIXELS];  // gradients on the picture
  alignas(64) float light[PIXELS];   // light that reaches the Gaussian looked at
  alignas(64) float behind[PIXELS];  // sum over what lies behind of weight times (gradient . channels)
  alignas(64) float x[PIXELS], y[PIXELS];  // of the pixels' centres inside the tile
  const int32_t* end;
  int32_t block_end[BLOCKS], tile_end;  // past the last position that matters
};

SIMD_INLINE void start_gradient(
    const RasterizeView& view, const RasterizeTensors& t, Workspace& ws, const Tile& tile, TileGradient& state) {
  const size_t plane = static_cast<size_t>(view.width) * view.height;
  const float* color = t.grad_color;
  load_tile(color, view, tile, state.r);
  load_tile(color == nullptr ? nullptr : color + plane, view, tile, state.g);
  load_tile(color == nullptr ? nullptr : color + 2 * plane, view, tile, state.b);
  load_tile(t.grad_alpha, view, tile, state.behind);
  const float* lights = &ws.transmittance[static_cast<size_t>(tile.index) * PIXELS];
  state.end = &ws.end[static_cast<size_t>(tile.index) * PIXELS];
  fv background[3] = {};
  state.tile_end = 0;
  for (int block = 0; block < BLOCKS; ++block) {
    const int at = LANES * block;
    const fv r = load(state.r + at), g = load(state.g + at), b = load(state.b + at), light = load(lights + at);
    store(state.light + at, light);
    background[0] += light * r, background[1] += light * g, background[2] += light * b;
    store(state.x + at, block_x(block)), store(state.y + at, block_y(block));
    const fv seen = r * t.background[0] + g * t.background[1] + b * t.background[2];
    store(state.behind + at, light * (seen - load(state.behind + at)));
    int32_t furthest = 0;
    for (int lane = 0; lane < LANES; ++lane) furthest = state.end[at + lane] > furthest ? state.end[at + lane] : furthest;
    state.block_end[block] = furthest;
    state.tile_end = furthest > state.tile_end ? furthest : state.tile_end;
  }
  for (int c = 0; c < 3; ++c) ws.tile_background[3 * static_cast<size_t>(tile.index) + c] = sum(background[c]);
}

// EXTRA: channels beyond colour that have a gradient, known when compiling and inline in the splats; or -1. `room`:
// SlotLayout::extra planes of gradients, and a vector for each.
template <int EXTRA, bool ABSOLUTE>
void blend_tile_backward(
    const RasterizeView& view, const RasterizeTensors& t, Workspace& ws, const SlotLayout& layout, const Tile& tile, float* room) {
  TileGradient state;
  start_gradient(view, t, ws, tile, state);
  const int extra = EXTRA < 0 ? layout.extra : EXTRA;
  const size_t plane = static_cast<size_t>(view.width) * view.height;
  float *planes = room, *extra_sums = room + static_cast<size_t>(extra) * PIXELS;
  for (int e = 0; e < extra; ++e) {
    load_tile(e < layout.depth ? t.grad_depth : t.grad_feature_map + (e - layout.depth) * plane, view, tile,
              planes + static_cast<size_t>(e) * PIXELS);
  }
  for (uint32_t k = tile.end; k-- > tile.begin;) {
    const Entry entry = ws.entries[k], later = ws.entries[k >= tile.begin + AHEAD ? k - AHEAD : tile.begin];
    float* slot = &ws.slots[static_cast<size_t>(entry.slot) * layout.stride];
    const int32_t position = static_cast<int32_t>(k - tile.begin);
    if (position >= state.tile_end) {
      std::memset(slot, 0, layout.stride * sizeof(float));
      continue;
    }
    __builtin_prefetch(&ws.splats[later.gaussian]);
    __builtin_prefetch(&ws.slots[static_cast<size_t>(later.slot) * layout.stride], 1);
    const Splat& s = ws.splats[entry.gaussian];
    const float centre_x = s.mean_x - static_cast<float>(tile.left), centre_y = s.mean_y - static_cast<float>(tile.top);
    const float* known = s.channels + 4 - layout.depth;
    fv v{}, vu{}, vw{}, vuu{}, vuw{}, vww{}, r{}, g{}, b{}, ax{}, ay{}, extras[EXTRA > 0 ? EXTRA : 1] = {};
    if (EXTRA < 0) std::memset(extra_sums, 0, extra * sizeof(fv));
    for (uint32_t blocks = entry.blocks; blocks != 0; blocks &= blocks - 1) {
      const int block = __builtin_ctz(blocks), at = LANES * block;
      if (state.block_end[block] <= position) continue;
      const Offset o(s, load(state.x + at) - centre_x, load(state.y + at) - centre_y);
      const iv taken = (o.log2_alpha >= LOG2_ALPHA_MIN) & (load(state.end + at) > position);
      const fv raw = keep(taken, exp2(o.log2_alpha)), alpha = min(raw, all(gs::ALPHA_MAX));
      const fv inverse = 1.0f / (1.0f - alpha), light = load(state.light + at) * inverse, weight = alpha * light;
      store(state.light + at, light);
      const fv gr = load(state.r + at), gg = load(state.g + at), gb = load(state.b + at);
      fv value = fma(all(s.channels[0]), gr, fma(all(s.channels[1]), gg, s.channels[2] * gb));
      for (int e = 0; e < EXTRA; ++e) {
        const fv ge = load(planes + e * PIXELS + at);
        value = fma(all(known[e]), ge, value);
        extras[e] = fma(weight, ge, extras[e]);
      }
      if (EXTRA < 0) {
        const float* features = t.features + static_cast<size_t>(entry.gaussian) * view.features;
        for (int e = 0; e < extra; ++e) {
          const fv ge = load(planes + static_cast<size_t>(e) * PIXELS + at);
          value = fma(all(e < layout.depth ? s.channels[3] : features[e - layout.depth]), ge, value);
          store(extra_sums + e * LANES, fma(weight, ge, load(extra_sums + e * LANES)));
        }
      }
      const fv behind = load(state.behind + at);
      store(state.behind + at, fma(weight, value, behind));
      const fv grad_alpha = fma(light, value, -(behind * inverse));
      const fv grad_power = keep(raw <= gs::ALPHA_MAX, raw * grad_alpha);
      const fv pu = grad_power * o.u, pw = grad_power * o.w;
      v += grad_power, vu += pu, vw += pw;
      vuu = fma(pu, o.u, vuu), vuw = fma(pu, o.w, vuw), vww = fma(pw, o.w, vww);
      if (ABSOLUTE) ax += abs(s.xx * pu), ay += abs(fma(all(s.yx), pu, s.yy * pw));
      r = fma(weight, gr, r), g = fma(weight, gg, g), b = fma(weight, gb, b);
    }
    constexpr int KNOWN = MOMENTS + (EXTRA > 0 ? EXTRA : 0), FIXED = (KNOWN + 2 * ABSOLUTE + LANES - 1) / LANES * LANES;
    fv parts[FIXED] = {v, vu, vw, vuu, vuw, vww, r, g, b};
    for (int e = 0; e < EXTRA; ++e) parts[MOMENTS + e] = extras[e];
    if (ABSOLUTE) parts[KNOWN] = ax, parts[KNOWN + 1] = ay;
    if (EXTRA >= 0) {
      constexpr int STRIDE = slot_stride(KNOWN + 2 * ABSOLUTE);
      for (int c = 0; c < FIXED; c += LANES) {
        const fv total = sums(parts + c);
        std::memcpy(slot + c, &total, (STRIDE - c < LANES ? STRIDE - c : LANES) * sizeof(float));
      }
    } else {
      alignas(64) float totals[FIXED];
      for (int c = 0; c < FIXED; c += LANES) store(totals + c, sums(parts + c));
      std::memcpy(slot, totals, MOMENTS * sizeof(float));
      for (int e = 0; e < extra; ++e) slot[MOMENTS + e] = sum(load(extra_sums + e * LANES));
      if (ABSOLUTE) slot[MOMENTS + extra] = totals[KNOWN], slot[MOMENTS + extra + 1] = totals[KNOWN + 1];
    }
  }
}

using BlendTile = void (*)(const RasterizeView&, const RasterizeTensors&, Workspace&, const Tile&, float*);
using BlendTileBackward = void (*)(
    const RasterizeView&, const RasterizeTensors&, Workspace&, const SlotLayout&, const Tile&, float*);

BlendTile choose_blend(int features) {
  static_assert(INLINE_FEATURES == 2, "one copy for each number of inline features");
  return features == 0 ? blend_tile<0> : features == 1 ? blend_tile<1> : features == 2 ? blend_tile<2> : blend_tile<-1>;
}

template <bool ABSOLUTE>
BlendTileBackward choose_blend_backward(const RasterizeView& view, const SlotLayout& layout) {
  if (view.features > INLINE_FEATURES && layout.features > 0) return blend_tile_backward<-1, ABSOLUTE>;
  switch (layout.extra) {
    case 0: return blend_tile_backward<0, ABSOLUTE>;
    case 1: return blend_tile_backward<1, ABSOLUTE>;
    case 2: return blend_tile_backward<2, ABSOLUTE>;
    default: return blend_tile_backward<3, ABSOLUTE>;
  }
}

}  // namespace
