// Rasterization on a GPU: the order of the kernels. See rasterize_cuda.h for the contract.
#include "blend_cuda.h"
#include "blend_lanes_cuda.h"
#include "project_cuda.h"
#include "rasterize_cuda.h"
#include "sort_cuda.h"

#define EXPORT __attribute__((visibility("default")))
#define RETURN_IF_FAILED(call)               \
  do {                                       \
    const int code = static_cast<int>(call); \
    if (code != 0) return code;              \
  } while (false)

namespace {

int further_passes(const RasterizeCudaView& view) {
  const int features = view.features - FIRST_FEATURES;
  return features <= 0 ? 0 : (features + MORE_FEATURES - 1) / MORE_FEATURES;
}

template <int TILE>
int blend(
    const RasterizeCudaView& view, const RasterizeTensors& t, const Saved& saved, unsigned tiles, cudaStream_t stream) {
  const auto first =
      view.features == 0 ? blend_kernel<TILE, true, COLORS> : blend_kernel<TILE, true, COLORS + FIRST_FEATURES>;
  RETURN_IF_FAILED(launch(first, dim3(tiles), TILE * TILE, stream, view, t, saved));
  const unsigned passes = static_cast<unsigned>(further_passes(view));
  if (passes == 0) return 0;
  return launch(blend_kernel<TILE, false, MORE_FEATURES>, dim3(tiles, passes), TILE * TILE, stream, view, t, saved);
}

template <int TILE>
int blend_backward(
    const RasterizeCudaView& view, const RasterizeTensors& t, const Saved& saved, const BackwardScratch& scratch,
    unsigned tiles, cudaStream_t stream) {
  if (saved.checkpoints != nullptr) {
    return launch(blend_lanes_backward_kernel<TILE>, dim3(tiles), LANES_THREADS, stream, view, t, saved, scratch);
  }
  RETURN_IF_FAILED(
      launch(blend_backward_kernel<TILE, true>, dim3(tiles), TILE * TILE, stream, view, t, saved, scratch));
  const unsigned passes = static_cast<unsigned>(further_passes(view));
  if (passes == 0) return 0;
  return launch(blend_backward_kernel<TILE, false>, dim3(tiles, passes), TILE * TILE, stream, view, t, saved, scratch);
}

int forward(
    const RasterizeCudaView& view, const RasterizeTensors& t, void* saved_memory, void* scratch_memory,
    cudaStream_t stream) {
  const Layout layout(view);
  const Saved saved(layout, saved_memory);
  const ForwardScratch scratch(layout, scratch_memory);
  const unsigned blocks = blocks_for(layout.gaussians, PROJECT_THREADS), tiles = static_cast<unsigned>(layout.tiles);
  RETURN_IF_FAILED(cudaMemsetAsync(scratch.tile_pairs, 0, layout.tiles * sizeof(uint32_t), stream));
  if (blocks != 0)
    RETURN_IF_FAILED(launch(project_kernel, dim3(blocks), PROJECT_THREADS, stream, view, t, saved, scratch));
  const size_t block_count = blocks;
  RETURN_IF_FAILED(
      launch(begin_kernel, dim3(1), SCAN_THREADS, stream, view, saved, scratch, block_count, layout.tiles));
  if (blocks != 0) {
    RETURN_IF_FAILED(launch(list_kernel, dim3(blocks), PROJECT_THREADS, stream, view, saved, scratch));
    RETURN_IF_FAILED(launch(sort_kernel, dim3(tiles), SORT_THREADS, stream, saved, scratch));
  }
  return view.tile == 8 ? blend<8>(view, t, saved, tiles, stream) : blend<16>(view, t, saved, tiles, stream);
}

int backward(
    const RasterizeCudaView& view, const RasterizeTensors& t, void* saved_memory, void* scratch_memory,
    cudaStream_t stream) {
  const Layout layout(view);
  const Saved saved(layout, saved_memory);
  const BackwardScratch scratch(layout, scratch_memory);
  const unsigned tiles = static_cast<unsigned>(layout.tiles);
  RETURN_IF_FAILED(
      view.tile == 8 ? blend_backward<8>(view, t, saved, scratch, tiles, stream)
                     : blend_backward<16>(view, t, saved, scratch, tiles, stream));
  const unsigned blocks = blocks_for(layout.gaussians, CHAIN_THREADS) + 1;
  return launch(chain_kernel, dim3(blocks), CHAIN_THREADS, stream, view, t, saved, scratch, layout.tiles);
}

}  // namespace

extern "C" {

EXPORT int gaussian_head_cuda_abi() { return 2; }

EXPORT const char* gaussian_head_cuda_error(int code) { return cudaGetErrorString(static_cast<cudaError_t>(code)); }

EXPORT size_t gaussian_head_cuda_rasterize_bytes(const RasterizeCudaView* view, int memory) {
  const Layout layout(*view);
  switch (memory) {
    case RASTERIZE_SAVED:
      return Saved(layout, nullptr).bytes;
    case RASTERIZE_FORWARD:
      return ForwardScratch(layout, nullptr).bytes;
    default:
      return BackwardScratch(layout, nullptr).bytes;
  }
}

EXPORT int gaussian_head_cuda_rasterize_forward(
    const RasterizeCudaView* view, const RasterizeTensors* tensors, void* saved, void* scratch, void* stream) {
  RETURN_IF_FAILED(cudaSetDevice(view->device));
  return forward(*view, *tensors, saved, scratch, static_cast<cudaStream_t>(stream));
}

EXPORT int gaussian_head_cuda_rasterize_backward(
    const RasterizeCudaView* view, const RasterizeTensors* tensors, void* saved, void* scratch, void* stream) {
  RETURN_IF_FAILED(cudaSetDevice(view->device));
  return backward(*view, *tensors, saved, scratch, static_cast<cudaStream_t>(stream));
}
}
