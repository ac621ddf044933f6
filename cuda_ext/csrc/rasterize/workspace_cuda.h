// Where the arrays of one rasterization lie in the memory that the caller brings.
#pragma once

#include "../cuda_platform.h"
#include "picture_math.h"
#include "rasterize_cuda.h"

namespace {

// What blending needs of one Gaussian, in three 16-byte loads, and its rectangle of tiles (first | end << 16).
struct alignas(16) Splat {
  float mean_x, mean_y;  // px
  float xx, yx;          // whitening by WHITEN_SCALE
  float yy, log2_opacity;
  float r, g;
  float b, depth;
  uint32_t tiles_x, tiles_y;
};

// Per pair: v u w uu uw ww r g b depth |x| |y|, then the features (|.|: absolute contributions to the centre).
constexpr int MOMENTS = 12;
constexpr int COLORS = 4;  // r g b depth
// Feature channels that ride along in the first pass of blending, and in each further one.
constexpr int FIRST_FEATURES = 4, MORE_FEATURES = 16;
constexpr int PROJECT_THREADS = 256;
constexpr int BUCKET = 32;  // entries of a tile's list between two checkpoints

// Deals out memory in blocks aligned to 256 bytes; from address 0 it only counts.
struct Arena {
  uintptr_t at;
  template <class T>
  T* take(size_t n) {
    T* here = reinterpret_cast<T*>(at);
    at += (n * sizeof(T) + 255) / 256 * 256;
    return here;
  }
};

struct Layout {
  size_t gaussians, pixels, tiles, tile_pixels, pairs, slot_floats;
  size_t channels;     // of the first pass
  size_t checkpoints;  // 0 unless a thread of backward is to take a Gaussian
  explicit Layout(const RasterizeCudaView& view)
      : gaussians(static_cast<size_t>(view.gaussians)),
        pixels(static_cast<size_t>(view.width) * static_cast<size_t>(view.height)),
        tiles(
            static_cast<size_t>((view.width + view.tile - 1) / view.tile) *
            ((view.height + view.tile - 1) / view.tile)),
        tile_pixels(static_cast<size_t>(view.tile) * static_cast<size_t>(view.tile)),
        pairs(static_cast<size_t>(view.pair_capacity)),
        slot_floats(static_cast<size_t>(MOMENTS + view.features)),
        channels(view.features == 0 ? COLORS : COLORS + FIRST_FEATURES),
        checkpoints(view.lanes != 0 && view.features <= FIRST_FEATURES ? pairs / BUCKET + tiles : 0) {}
};

// A Gaussian in a tile's list, front to back: its index in the low half, the pair's slot in the high half.
typedef unsigned long long Entry;

// From forward to backward.
struct Saved {
  Splat* splats;         // [N], only those with pairs
  uint32_t* pair_begin;  // [N] first slot
  uint32_t* pair_count;  // [N]
  uint32_t* drawn;       // [1] pairs of all Gaussians, or 0 when they do not fit
  uint32_t* tile_begin;  // [tiles + 1] into entries
  Entry* entries;        // [pairs] by tile
  float* light;          // [H, W] left over
  int32_t* last;         // [H, W] list position of the last Gaussian blended, or -1
  float* checkpoints;    // [checkpoints, 1 + channels, pixels of a tile] light and sums at each bucket's end; or null
  float* sums;           // [channels, H, W] without the background; only with checkpoints
  size_t bytes;
  Saved(const Layout& n, void* memory) {
    Arena arena{reinterpret_cast<uintptr_t>(memory)};
    splats = arena.take<Splat>(n.gaussians);
    pair_begin = arena.take<uint32_t>(n.gaussians);
    pair_count = arena.take<uint32_t>(n.gaussians);
    drawn = arena.take<uint32_t>(1);
    tile_begin = arena.take<uint32_t>(n.tiles + 1);
    entries = arena.take<Entry>(n.pairs);
    light = arena.take<float>(n.pixels);
    last = arena.take<int32_t>(n.pixels);
    checkpoints = n.checkpoints == 0 ? nullptr : arena.take<float>(n.checkpoints * (1 + n.channels) * n.tile_pixels);
    sums = n.checkpoints == 0 ? nullptr : arena.take<float>(n.channels * n.pixels);
    bytes = arena.at - reinterpret_cast<uintptr_t>(memory);
  }
};

struct ForwardScratch {
  uint32_t* block_pairs;    // [blocks of PROJECT_THREADS Gaussians] pairs, then the first slot
  uint32_t* tile_pairs;     // [tiles] counted up by projection, down by listing
  uint32_t* pair_gaussian;  // [pairs]
  Entry* merged;            // [pairs] room to sort long lists
  size_t bytes;
  ForwardScratch(const Layout& n, void* memory) {
    Arena arena{reinterpret_cast<uintptr_t>(memory)};
    block_pairs = arena.take<uint32_t>(blocks_for(n.gaussians, PROJECT_THREADS));
    tile_pairs = arena.take<uint32_t>(n.tiles);
    pair_gaussian = arena.take<uint32_t>(n.pairs);
    merged = arena.take<Entry>(n.pairs);
    bytes = arena.at - reinterpret_cast<uintptr_t>(memory);
  }
};

struct BackwardScratch {
  float* slots;            // [pairs, MOMENTS + E]
  float* tile_background;  // [tiles, 3]
  size_t bytes;
  BackwardScratch(const Layout& n, void* memory) {
    Arena arena{reinterpret_cast<uintptr_t>(memory)};
    slots = arena.take<float>(n.pairs * n.slot_floats);
    tile_background = arena.take<float>(3 * n.tiles);
    bytes = arena.at - reinterpret_cast<uintptr_t>(memory);
  }
};

CUDA_INLINE gs::Camera read_camera(const RasterizeCudaView& v) {
  return gs::make_camera(v.viewmat, v.K[0], v.K[4], v.K[2], v.K[5], v.near_plane, v.width, v.height);
}

}  // namespace
