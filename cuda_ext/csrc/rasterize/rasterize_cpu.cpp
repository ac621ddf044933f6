// Rasterization on the CPU. Compiled once per instruction set; ISA is the suffix of the exported names.
#include "rasterize.h"

#include "blend_cpu.h"
#include "project_backward_cpu.h"
#include "project_cpu.h"
#include "tile_lists_cpu.h"

#define JOIN_(a, b) a##_##b
#define JOIN(a, b) JOIN_(a, b)

namespace {

void forward(const RasterizeView& view, const RasterizeTensors& t, Workspace& ws) {
  project_all(view, t, ws);
  sort_by_depth(view, ws);
  build_tile_lists(view, ws);
  const int threads = thread_count(view.threads), tiles = tile_count(view);
  ws.transmittance.reserve(static_cast<size_t>(tiles) * PIXELS);
  ws.end.reserve(static_cast<size_t>(tiles) * PIXELS);
  for (int i = 0; i < threads; ++i) ws.scratch[i].reserve(static_cast<size_t>(view.features) * PIXELS);
  const BlendTile blend = choose_blend(view.features);
  parallel_dynamic(threads, tiles, [&](int i, int thread) { blend(view, t, ws, Tile(view, ws, i), ws.scratch[thread].data); });
}

void backward(const RasterizeView& view, const RasterizeTensors& t, Workspace& ws) {
  const int threads = thread_count(view.threads), tiles = tile_count(view);
  const SlotLayout layout(view, t);
  const gs::Camera camera = make_camera(view);
  ws.slots.reserve(ws.pair_total * layout.stride);
  ws.tile_background.reserve(3 * static_cast<size_t>(tiles));
  const size_t room = static_cast<size_t>(layout.extra) * (PIXELS + LANES) + static_cast<size_t>(LANES) * (layout.stride + 1);
  for (int i = 0; i < threads; ++i) ws.scratch[i].reserve(room);
  const BlendTileBackward blend =
      layout.absolute ? choose_blend_backward<true>(view, layout) : choose_blend_backward<false>(view, layout);
  parallel_dynamic(threads, tiles, [&](int i, int thread) {
    blend(view, t, ws, layout, Tile(view, ws, i), ws.scratch[thread].data);
  });
  parallel_dynamic(threads, chunk_count(view), [&](int i, int thread) {
    project_backward_chunk(view, t, ws, layout, camera, i, ws.scratch[thread].data);
  });
  for (int c = 0; c < 3; ++c) {
    double total = 0;
    for (int i = 0; i < tiles; ++i) total += ws.tile_background[3 * static_cast<size_t>(i) + c];
    t.grad_background[c] = static_cast<float>(total);
  }
}

template <class Pass>
int status_of(const Pass& pass) {
  try {
    pass();
  } catch (const std::bad_alloc&) {
    return 1;
  } catch (const TooManyPairs&) {
    return 2;
  }
  return 0;
}

}  // namespace

extern "C" {

void* JOIN(workspace_new, ISA)() { return new (std::nothrow) Workspace(); }

void JOIN(workspace_delete, ISA)(void* workspace) { delete static_cast<Workspace*>(workspace); }

int JOIN(rasterize_forward, ISA)(void* workspace, const RasterizeView* view, const RasterizeTensors* tensors) {
  return status_of([&] { forward(*view, *tensors, *static_cast<Workspace*>(workspace)); });
}

int JOIN(rasterize_backward, ISA)(void* workspace, const RasterizeView* view, const RasterizeTensors* tensors) {
  return status_of([&] { backward(*view, *tensors, *static_cast<Workspace*>(workspace)); });
}
}
