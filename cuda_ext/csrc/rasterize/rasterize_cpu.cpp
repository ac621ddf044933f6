// Rasterization on the CPU. Compiled once per instruction set; ISA is the suffix of the exported names.
#include "rasterize.h"

#ifdef _OPENMP
#include <omp.h>
#endif

#include "blend_cpu.h"
#include "project_cpu.h"

#define JOIN_(a, b) a##_##b
#define JOIN(a, b) JOIN_(a, b)

namespace {

// Runs body(thread) for thread = 0..threads-1.
template <class Body>
void parallel(int threads, const Body& body) {
#ifdef _OPENMP
#pragma omp parallel for num_threads(threads) schedule(static, 1)
#endif
  for (int thread = 0; thread < threads; ++thread) body(thread);
}

// Runs body(item, thread) for every item; which thread gets which item is not fixed.
template <class Body>
void parallel_dynamic(int threads, int items, const Body& body) {
#ifdef _OPENMP
#pragma omp parallel for num_threads(threads) schedule(dynamic, 4)
  for (int item = 0; item < items; ++item) body(item, omp_get_thread_num());
#else
  for (int item = 0; item < items; ++item) body(item, 0);
#endif
}

int thread_count(const RasterizeView& view) {
  const int most = view.threads < MAX_THREADS ? view.threads : MAX_THREADS;
  return most < 1 ? 1 : most;
}

int tile_count(const RasterizeView& view) {
  return ((view.width + gs::TILE - 1) / gs::TILE) * ((view.height + gs::TILE - 1) / gs::TILE);
}

// First Gaussian of a thread's share, a multiple of eight.
int share(const RasterizeView& view, int thread, int threads) {
  const int64_t batches = (view.gaussians + LANES - 1) / LANES;
  const int64_t first = batches * thread / threads * LANES;
  return static_cast<int>(first < view.gaussians ? first : view.gaussians);
}

// Projects all Gaussians; afterwards `pairs` holds every Gaussian's pairs, in index order, for any number of threads.
void project_all(const RasterizeView& view, const RasterizeTensors& t, Workspace& ws) {
  const int threads = thread_count(view);
  size_t begin[MAX_THREADS + 1] = {}, used[MAX_THREADS] = {};
  bool failed[MAX_THREADS] = {};
  ws.splats.reserve(view.gaussians);
  ws.visible.reserve(view.gaussians);
  parallel(threads, [&](int thread) {
    try {
      used[thread] = project_range(
          view, t, ws, share(view, thread, threads), share(view, thread + 1, threads), ws.thread_pairs[thread]);
    } catch (const std::bad_alloc&) {
      failed[thread] = true;
    }
  });
  for (int i = 0; i < threads; ++i) {
    if (failed[i]) throw std::bad_alloc();
    begin[i + 1] = begin[i] + used[i];
  }
  ws.pair_count = begin[threads];
  ws.pairs.reserve(ws.pair_count);
  parallel(threads, [&](int thread) {
    if (used[thread] == 0) return;
    std::memcpy(&ws.pairs[begin[thread]], ws.thread_pairs[thread].data, used[thread] * sizeof(Pair));
    for (int i = share(view, thread, threads); i < share(view, thread + 1, threads); ++i) {
      if (ws.visible[i]) ws.splats[i].first_pair += static_cast<uint32_t>(begin[thread]);
    }
  });
}

// Orders the visible Gaussians by depth, ties by index: a stable radix sort of the bits of a positive float.
void sort_by_depth(const RasterizeView& view, Workspace& ws) {
  constexpr int DIGITS = 3, BITS = 11, BINS = 1 << BITS;
  ws.order.reserve(view.gaussians), ws.order_swap.reserve(view.gaussians);
  ws.keys.reserve(view.gaussians), ws.keys_swap.reserve(view.gaussians);
  static thread_local uint32_t counts[DIGITS][BINS];
  std::memset(counts, 0, sizeof counts);
  size_t n = 0;
  for (int i = 0; i < view.gaussians; ++i) {
    if (!ws.visible[i]) continue;
    uint32_t key;
    std::memcpy(&key, &ws.splats[i].depth, sizeof key);
    ws.keys[n] = key, ws.order[n++] = static_cast<uint32_t>(i);
    for (int d = 0; d < DIGITS; ++d) ++counts[d][key >> (BITS * d) & (BINS - 1)];
  }
  ws.visible_count = n;
  uint32_t *keys = ws.keys.data, *order = ws.order.data, *keys_to = ws.keys_swap.data, *order_to = ws.order_swap.data;
  for (int d = 0; d < DIGITS; ++d) {
    uint32_t position = 0;
    for (uint32_t& count : counts[d]) {
      const uint32_t here = count;
      count = position, position += here;
    }
    for (size_t i = 0; i < n; ++i) {
      const uint32_t to = counts[d][keys[i] >> (BITS * d) & (BINS - 1)]++;
      keys_to[to] = keys[i], order_to[to] = order[i];
    }
    std::swap(keys, keys_to), std::swap(order, order_to);
  }
  static_assert(DIGITS % 2 == 1, "the sorted arrays end in the swap buffers");
}

// Deals the pairs out to their tiles, nearest Gaussian first.
void build_tile_lists(const RasterizeView& view, Workspace& ws) {
  const int tiles = tile_count(view);
  ws.tile_begin.reserve(static_cast<size_t>(tiles) + 2);
  ws.entries.reserve(ws.pair_count);
  uint32_t* begin = ws.tile_begin.data;
  std::memset(begin, 0, (static_cast<size_t>(tiles) + 2) * sizeof(uint32_t));
  for (size_t i = 0; i < ws.pair_count; ++i) ++begin[ws.pairs[i].tile + 2];
  for (int i = 2; i <= tiles; ++i) begin[i] += begin[i - 1];
  for (size_t i = 0; i < ws.visible_count; ++i) {
    const uint32_t gaussian = ws.order_swap[i];
    const Splat& s = ws.splats[gaussian];
    for (uint32_t slot = s.first_pair; slot < s.first_pair + s.pairs; ++slot) {
      const Pair pair = ws.pairs[slot];
      ws.entries[begin[pair.tile + 1]++] = {gaussian, slot, pair.blocks};
    }
  }
}

void forward(const RasterizeView& view, const RasterizeTensors& t, Workspace& ws) {
  project_all(view, t, ws);
  sort_by_depth(view, ws);
  build_tile_lists(view, ws);
  const int threads = thread_count(view), tiles = tile_count(view);
  ws.transmittance.reserve(static_cast<size_t>(tiles) * PIXELS);
  ws.last.reserve(static_cast<size_t>(tiles) * PIXELS);
  for (int i = 0; i < threads; ++i) ws.scratch[i].reserve(static_cast<size_t>(view.features) * (PIXELS + LANES));
  parallel_dynamic(threads, tiles, [&](int i, int thread) {
    blend_tile(view, t, ws, Tile(view, ws, i), ws.scratch[thread].data);
  });
}

void backward(const RasterizeView& view, const RasterizeTensors& t, Workspace& ws) {
  const int threads = thread_count(view), tiles = tile_count(view);
  const size_t planes = static_cast<size_t>(view.features) * PIXELS;
  ws.slots.reserve(ws.pair_count * (MOMENTS + view.features));
  ws.tile_background.reserve(3 * static_cast<size_t>(tiles));
  for (int i = 0; i < threads; ++i) ws.scratch[i].reserve(static_cast<size_t>(view.features) * (PIXELS + LANES));
  parallel_dynamic(threads, tiles, [&](int i, int thread) {
    float* room = ws.scratch[thread].data;
    const bool depth = t.grad_depth != nullptr;
    const auto blend = t.grad_means2d_abs == nullptr
                           ? (depth ? blend_tile_backward<true, false> : blend_tile_backward<false, false>)
                           : (depth ? blend_tile_backward<true, true> : blend_tile_backward<false, true>);
    blend(view, t, ws, Tile(view, ws, i), room, room + planes);
  });
  parallel(threads, [&](int thread) {
    project_backward_range(view, t, ws, share(view, thread, threads), share(view, thread + 1, threads));
  });
  for (int c = 0; c < 3; ++c) {
    double total = 0;
    for (int i = 0; i < tiles; ++i) total += ws.tile_background[3 * static_cast<size_t>(i) + c];
    t.grad_background[c] = static_cast<float>(total);
  }
}

}  // namespace

extern "C" {

void* JOIN(workspace_new, ISA)() { return new (std::nothrow) Workspace(); }

void JOIN(workspace_delete, ISA)(void* workspace) { delete static_cast<Workspace*>(workspace); }

int JOIN(rasterize_forward, ISA)(void* workspace, const RasterizeView* view, const RasterizeTensors* tensors) {
  try {
    forward(*view, *tensors, *static_cast<Workspace*>(workspace));
  } catch (const std::bad_alloc&) {
    return 1;
  }
  return 0;
}

int JOIN(rasterize_backward, ISA)(void* workspace, const RasterizeView* view, const RasterizeTensors* tensors) {
  try {
    backward(*view, *tensors, *static_cast<Workspace*>(workspace));
  } catch (const std::bad_alloc&) {
    return 1;
  }
  return 0;
}
}
