// The other backward of blending: a lane takes one Gaussian of a tile's list and the tile's pixels wander from lane to
// lane, from the furthest Gaussian of a bucket to the nearest. Sums stay in the lane's registers; nothing is reduced.
//
// Each bucket of 32 starts from what forward left at its end, so that warps take the buckets of a tile independently.
#pragma once

#include "blend_cuda.h"

namespace {

constexpr int LANES_THREADS = 128;

// What all pixels of a tile need, a row each: gradients on the channels, light left over, behind, last.
template <int TILE>
struct TileGradient {
  static constexpr int CHANNELS = COLORS + FIRST_FEATURES;
  float channel[CHANNELS][TILE * TILE];
  float light[TILE * TILE], behind[TILE * TILE];
  int32_t last[TILE * TILE];
};

// A pixel on its way through a warp.
struct Traveller {
  float light, behind;
};

// Light and behind of a pixel at the end of a bucket whose first entry beyond is `end`.
template <int TILE>
CUDA_INLINE Traveller at_end(
    const RasterizeCudaView& view, const Saved& saved, const TileGradient<TILE>& tile, uint32_t begin, uint32_t end,
    int index) {
  Traveller pixel = {tile.light[index], tile.behind[index]};
  if (tile.last[index] < static_cast<int32_t>(end)) return pixel;
  const int channels = view.features == 0 ? COLORS : COLORS + FIRST_FEATURES;
  const size_t plane = static_cast<size_t>(view.width) * view.height, at = Pixel<TILE>(view, index).at;
  const float* state = checkpoint<TILE>(saved, begin, end / BUCKET - 1, channels) + index;
  pixel.light = state[0];
  for (int c = 0; c < channels; ++c) {
    pixel.behind =
        fma(saved.sums[c * plane + at] - state[(1 + c) * (TILE * TILE)], tile.channel[c][index], pixel.behind);
  }
  return pixel;
}

template <int TILE>
__global__ void __launch_bounds__(LANES_THREADS)
    blend_lanes_backward_kernel(RasterizeCudaView view, RasterizeTensors t, Saved saved, BackwardScratch scratch) {
  constexpr int PIXELS = TILE * TILE, WARPS = LANES_THREADS / WARP, CHANNELS = TileGradient<TILE>::CHANNELS;
  __shared__ TileGradient<TILE> tile;
  __shared__ Traveller starts[WARPS][PIXELS];
  __shared__ float warp_background[WARPS][3];
  __shared__ int32_t warp_last[WARPS];
  const int lane = lane_index(), warp = warp_index(), thread = static_cast<int>(threadIdx.x);
  const uint32_t begin = saved.tile_begin[blockIdx.x], entries = saved.tile_begin[blockIdx.x + 1] - begin;
  const size_t stride = static_cast<size_t>(MOMENTS + view.features);
  const int columns = MOMENTS + view.features;

  float background[16] = {};
  int32_t furthest = -1;
  for (int index = thread; index < PIXELS; index += LANES_THREADS) {
    const PixelGradient<true> pixel(view, t, saved, Pixel<TILE>(view, index), 0);
    for (int c = 0; c < CHANNELS; ++c) tile.channel[c][index] = pixel.channel[c];
    tile.light[index] = pixel.light, tile.behind[index] = pixel.behind, tile.last[index] = pixel.last;
    for (int c = 0; c < 3; ++c) background[c] = fma(pixel.light, pixel.channel[c], background[c]);
    furthest = max(furthest, pixel.last);
  }
  const float total = warp_totals(background);
  if (lane % 2 == 0 && lane / 2 < 3) warp_background[warp][lane / 2] = total;
  furthest = warp_max(furthest);
  if (lane == 0) warp_last[warp] = furthest;
  __syncthreads();
  int32_t tile_last = -1;
  for (int w = 0; w < WARPS; ++w) tile_last = max(tile_last, warp_last[w]);
  if (thread < 3) {
    float sum = 0.0f;
    for (int w = 0; w < WARPS; ++w) sum += warp_background[w][thread];
    scratch.tile_background[3 * static_cast<size_t>(blockIdx.x) + thread] = sum;
  }
  // What no pixel reached has no gradient.
  for (uint32_t k = static_cast<uint32_t>(tile_last + 1 + thread / 16); k < entries; k += LANES_THREADS / 16) {
    const size_t slot = static_cast<size_t>(saved.entries[begin + k] >> 32);
    if (thread % 16 < columns) scratch.slots[slot * stride + thread % 16] = 0.0f;
  }

  for (int32_t first = warp * BUCKET; first <= tile_last; first += WARPS * BUCKET) {
    __syncwarp();  // the bucket before has been left by all lanes
    for (int index = lane; index < PIXELS; index += WARP) {
      starts[warp][index] = at_end(view, saved, tile, begin, static_cast<uint32_t>(first + BUCKET), index);
    }
    __syncwarp();
    const int32_t position = first + lane;
    const bool mine = position <= tile_last;
    const Entry entry = saved.entries[begin + static_cast<uint32_t>(mine ? position : first)];
    const uint32_t gaussian = static_cast<uint32_t>(entry);
    const Splat s = saved.splats[gaussian];
    const Footprint footprint = footprint_of(s, Pixel<TILE>(view, 0));
    float channels[CHANNELS], sum[16] = {};
    load_channels<true, CHANNELS>(view, t, s, gaussian, 0, channels);
    Traveller here = {0.0f, 0.0f};
    for (int step = 0; step < PIXELS + WARP - 1; ++step) {
      here.light = __shfl_down_sync(WHOLE_WARP, here.light, 1);
      here.behind = __shfl_down_sync(WHOLE_WARP, here.behind, 1);
      const int index = step - (WARP - 1 - lane);
      if (lane == WARP - 1 && index < PIXELS) here = starts[warp][index];
      if (!mine || index < 0 || index >= PIXELS || position > tile.last[index]) continue;
      const Pixel<TILE> pixel(view, index);
      const gs::Offset<float> o = footprint.at(pixel.x, pixel.y);
      if (!(o.log2_alpha >= gs::LOG2_ALPHA_MIN)) continue;
      PixelGradient<true> state;
      float value = 0.0f, v[16] = {};
#pragma unroll
      for (int c = 0; c < CHANNELS; ++c) {
        state.channel[c] = tile.channel[c][index];
        value = fma(channels[c], state.channel[c], value);
      }
      state.light = here.light, state.behind = here.behind;
      backward_step(t, o, footprint.l, value, state, v);
      here = {state.light, state.behind};
#pragma unroll
      for (int i = 0; i < 16; ++i) sum[i] += v[i];
    }
    if (!mine) continue;
    float* slot = scratch.slots + static_cast<size_t>(entry >> 32) * stride;
#pragma unroll
    for (int i = 0; i < 16; ++i) {
      if (i < columns) slot[i] = sum[i];
    }
  }
}

}  // namespace
