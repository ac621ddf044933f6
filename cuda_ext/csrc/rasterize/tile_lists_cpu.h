// From projected Gaussians to each tile's list, nearest first: one radix sort of the Gaussians, no sort of the pairs.
#pragma once

#include "project_cpu.h"
#include "rasterize.h"
#include "workspace.h"

namespace {

int tile_count(const RasterizeView& view) {
  return ((view.width + gs::TILE - 1) / gs::TILE) * ((view.height + gs::TILE - 1) / gs::TILE);
}

int chunk_count(const RasterizeView& view) { return view.gaussians / CHUNK + (view.gaussians % CHUNK != 0); }

void project_all(const RasterizeView& view, const RasterizeTensors& t, Workspace& ws) {
  const int threads = thread_count(view.threads), chunks = chunk_count(view);
  const size_t padded = static_cast<size_t>(chunks) * CHUNK;
  ws.splats.reserve(padded), ws.pair_begin.reserve(padded), ws.pair_count.reserve(padded);
  ws.keys.reserve(padded), ws.order.reserve(padded), ws.chunks.reserve(chunks);
  const gs::Camera camera = make_camera(view);
  size_t used[MAX_THREADS] = {};
  bool out_of_memory = false, too_many = false;
  parallel_dynamic(threads, chunks, [&](int chunk, int thread) {
    try {
      ws.chunks[chunk].thread = thread;
      project_chunk(view, t, ws, camera, chunk, ws.pairs[thread], used[thread]);
    } catch (const std::bad_alloc&) {
      out_of_memory = true;
    } catch (const TooManyPairs&) {
      too_many = true;
    }
  });
  if (out_of_memory) throw std::bad_alloc();
  if (too_many) throw TooManyPairs();
  size_t total = 0;
  for (int i = 0; i < chunks; ++i) {
    ws.chunks[i].first_slot = total;
    total += ws.chunks[i].pairs;
  }
  if (total > MAX_PAIRS) throw TooManyPairs();
  ws.pair_total = total;
}

// Orders the visible Gaussians by depth, ties by index: a stable radix sort of the bits of a positive float, of which
// only the range that occurs is looked at.
void sort_by_depth(const RasterizeView& view, Workspace& ws) {
  const int chunks = chunk_count(view);
  uint32_t nearest = ~0u, farthest = 0;
  for (int i = 0; i < chunks; ++i) {
    nearest = ws.chunks[i].nearest < nearest ? ws.chunks[i].nearest : nearest;
    farthest = ws.chunks[i].farthest > farthest ? ws.chunks[i].farthest : farthest;
  }
  const int bits = farthest > nearest ? 32 - __builtin_clz(farthest - nearest) : 0;
  const int passes = (bits + MAX_DIGIT_BITS - 1) / MAX_DIGIT_BITS, digit_bits = passes == 0 ? 0 : (bits + passes - 1) / passes;
  const uint32_t bins = 1u << digit_bits;
  ws.digit_counts.reserve(static_cast<size_t>(MAX_PASSES) << MAX_DIGIT_BITS);
  uint32_t* counts = ws.digit_counts.data;
  std::memset(counts, 0, static_cast<size_t>(passes) * bins * sizeof(uint32_t));
  uint64_t *from = ws.order.data, *to = ws.keys.data;
  size_t n = 0;
  for (int i = 0; i < chunks; ++i) {
    const uint64_t* keys = ws.keys.data + static_cast<size_t>(i) * CHUNK;
    for (uint32_t k = 0; k < ws.chunks[i].visible; ++k) {
      const uint32_t depth = static_cast<uint32_t>(keys[k] >> 32) - nearest;
      from[n++] = static_cast<uint64_t>(depth) << 32 | static_cast<uint32_t>(keys[k]);
      for (int d = 0; d < passes; ++d) ++counts[d * bins + (depth >> (d * digit_bits) & (bins - 1))];
    }
  }
  for (int d = 0; d < passes; ++d, std::swap(from, to)) {
    uint32_t* count = counts + d * bins;
    for (uint32_t bin = 0, position = 0; bin < bins; ++bin) {
      const uint32_t here = count[bin];
      count[bin] = position, position += here;
    }
    const int shift = 32 + d * digit_bits;
    for (size_t i = 0; i < n; ++i) to[count[from[i] >> shift & (bins - 1)]++] = from[i];
  }
  ws.visible = n, ws.sorted = from;
}

// Calls body(gaussian, slot, pair) for the pairs of a part of the sorted Gaussians, in order.
template <class Body>
SIMD_INLINE void for_sorted_pairs(Workspace& ws, int part, int parts, const Body& body) {
  const size_t first = ws.visible * part / parts, end = ws.visible * (part + 1) / parts;
  for (size_t i = first; i < end; ++i) {
    const uint32_t gaussian = static_cast<uint32_t>(ws.sorted[i]);
    const Chunk& chunk = ws.chunks[gaussian / CHUNK];
    const uint32_t begin = ws.pair_begin[gaussian], count = ws.pair_count[gaussian];
    const Pair* pairs = ws.pairs[chunk.thread].data + chunk.pairs_offset + begin;
    const uint32_t slot = static_cast<uint32_t>(chunk.first_slot) + begin;
    for (uint32_t k = 0; k < count; ++k) body(gaussian, slot + k, pairs[k]);
  }
}

// Deals the pairs out to their tiles. Each part of the sorted Gaussians first counts its pairs per tile, so that all
// parts know where to write.
void build_tile_lists(const RasterizeView& view, Workspace& ws) {
  constexpr size_t PARALLEL_PAIRS = 16384;  // with fewer, waking the threads costs more than they save
  const int tiles = tile_count(view), parts = ws.pair_total < PARALLEL_PAIRS ? 1 : thread_count(view.threads);
  ws.tile_begin.reserve(static_cast<size_t>(tiles) + 1);
  ws.tile_counts.reserve(static_cast<size_t>(tiles) * parts);
  ws.entries.reserve(ws.pair_total);
  parallel(parts, [&](int part) {
    uint32_t* counts = ws.tile_counts.data + static_cast<size_t>(part) * tiles;
    std::memset(counts, 0, static_cast<size_t>(tiles) * sizeof(uint32_t));
    for_sorted_pairs(ws, part, parts, [&](uint32_t, uint32_t, Pair pair) { ++counts[pair.tile]; });
  });
  uint32_t position = 0;
  for (int tile = 0; tile < tiles; ++tile) {
    ws.tile_begin[tile] = position;
    for (int part = 0; part < parts; ++part) {
      uint32_t& count = ws.tile_counts[static_cast<size_t>(part) * tiles + tile];
      const uint32_t here = count;
      count = position, position += here;
    }
  }
  ws.tile_begin[tiles] = position;
  parallel(parts, [&](int part) {
    uint32_t* next = ws.tile_counts.data + static_cast<size_t>(part) * tiles;
    for_sorted_pairs(ws, part, parts, [&](uint32_t gaussian, uint32_t slot, Pair pair) {
      ws.entries[next[pair.tile]++] = {gaussian, slot, pair.blocks};
    });
  });
}

}  // namespace
