// Blending, a block for each tile and a thread for each pixel. A warp owns 8 x 4 pixels and skips what misses them.
//
// The first pass blends colour, depth and up to FIRST_FEATURES channels; each further pass of the same kernel repeats
// its decisions for MORE_FEATURES channels more.
#pragma once

#include "workspace_cuda.h"

namespace {

constexpr int PATCH_COLUMNS = 8, PATCH_ROWS = 4;  // a warp's pixels

// Pixel `index` of the block's tile, patch by patch. Those outside the picture only take part in barriers.
template <int TILE>
struct Pixel {
  int left, top, x, y;  // the tile's corner; the pixel in the tile
  bool inside;
  size_t at;
  CUDA_INLINE Pixel(const RasterizeCudaView& view, int index) {
    const int across = (view.width + TILE - 1) / TILE, tile = static_cast<int>(blockIdx.x);
    const int patch = index / WARP, lane = index % WARP;
    left = tile % across * TILE, top = tile / across * TILE;
    x = patch % (TILE / PATCH_COLUMNS) * PATCH_COLUMNS + lane % PATCH_COLUMNS;
    y = patch / (TILE / PATCH_COLUMNS) * PATCH_ROWS + lane / PATCH_COLUMNS;
    inside = left + x < view.width && top + y < view.height;
    at = inside ? static_cast<size_t>(top + y) * view.width + left + x : 0;
  }
};

// A Gaussian as the pixels of a tile look at it; the centre is relative to the tile's corner.
struct Footprint {
  float x, y;
  gs::Whitening<float> l;
  float log2_opacity;
  CUDA_INLINE gs::Offset<float> at(int column, int row) const {
    return gs::offset_at(l, log2_opacity, static_cast<float>(column) + 0.5f - x, static_cast<float>(row) + 0.5f - y);
  }
};

template <int TILE>
CUDA_INLINE Footprint footprint_of(const Splat& s, const Pixel<TILE>& pixel) {
  const float x = s.mean_x - static_cast<float>(pixel.left), y = s.mean_y - static_cast<float>(pixel.top);
  return {x, y, {s.xx, s.yx, s.yy}, s.log2_opacity};
}

// Bit w: the Gaussian meets the patch of warp w.
template <int TILE>
CUDA_INLINE uint32_t patches_met(const Footprint& f) {
  constexpr int ACROSS = TILE / PATCH_COLUMNS, WARPS = TILE * TILE / WARP;
  const gs::Ellipse<float> e = gs::ellipse(f.l);
  uint32_t patches = 0;
#pragma unroll
  for (int w = 0; w < WARPS; ++w) {
    const float x = static_cast<float>(w % ACROSS * PATCH_COLUMNS) - f.x,
                y = static_cast<float>(w / ACROSS * PATCH_ROWS) - f.y;
    patches |= gs::meets(e, f.log2_opacity, x, y, PATCH_COLUMNS, PATCH_ROWS) ? 1u << w : 0u;
  }
  return patches;
}

// The channels of a Gaussian that this pass blends; those past the last feature are 0.
template <bool FIRST, int CHANNELS>
CUDA_INLINE void load_channels(
    const RasterizeCudaView& view, const RasterizeTensors& t, const Splat& s, uint32_t gaussian, int first_feature,
    float* out) {
  if (FIRST) out[0] = s.r, out[1] = s.g, out[2] = s.b, out[3] = s.depth;
  const float* feature = t.features + static_cast<size_t>(gaussian) * view.features;
  for (int c = FIRST ? COLORS : 0; c < CHANNELS; ++c) {
    const int e = first_feature + c - (FIRST ? COLORS : 0);
    out[c] = e < view.features ? feature[e] : 0.0f;
  }
}

template <bool FIRST>
CUDA_INLINE int pass_feature() {  // first feature channel of this pass
  return FIRST ? 0 : FIRST_FEATURES + MORE_FEATURES * static_cast<int>(blockIdx.y);
}

// Where the state at the end of a tile's bucket is kept. A tile of n entries has at most n / BUCKET + 1 buckets, so
// tiles never share one.
template <int TILE>
CUDA_INLINE float* checkpoint(const Saved& saved, uint32_t begin, uint32_t bucket, int channels) {
  const size_t index = static_cast<size_t>(begin) / BUCKET + blockIdx.x + bucket;
  return saved.checkpoints + index * static_cast<size_t>(1 + channels) * (TILE * TILE);
}

template <int TILE, bool FIRST, int CHANNELS>
__global__ void __launch_bounds__(TILE* TILE) blend_kernel(RasterizeCudaView view, RasterizeTensors t, Saved saved) {
  constexpr int THREADS = TILE * TILE;
  __shared__ Footprint footprints[THREADS];
  __shared__ float channels[THREADS][CHANNELS];
  __shared__ uint32_t patches[THREADS];
  const Pixel<TILE> pixel(view, static_cast<int>(threadIdx.x));
  const uint32_t begin = saved.tile_begin[blockIdx.x], entries = saved.tile_begin[blockIdx.x + 1] - begin;
  const int first_feature = pass_feature<FIRST>();
  float light = 1.0f, sum[CHANNELS] = {};
  int32_t last = -1, count = 0;
  bool done = !pixel.inside;
  for (uint32_t batch = 0; batch < entries; batch += THREADS) {
    if (__syncthreads_and(done)) break;
    const uint32_t here = entries - batch < THREADS ? entries - batch : THREADS;
    if (threadIdx.x < here) {
      const uint32_t gaussian = static_cast<uint32_t>(saved.entries[begin + batch + threadIdx.x]);
      const Splat s = saved.splats[gaussian];
      footprints[threadIdx.x] = footprint_of(s, pixel);
      patches[threadIdx.x] = patches_met<TILE>(footprints[threadIdx.x]);
      load_channels<FIRST, CHANNELS>(view, t, s, gaussian, first_feature, channels[threadIdx.x]);
    }
    __syncthreads();
    for (uint32_t group = 0; group < here; group += WARP) {
      if (__ballot_sync(WHOLE_WARP, !done) == 0) break;
      if (FIRST && saved.checkpoints != nullptr && batch + group != 0) {
        float* state = checkpoint<TILE>(saved, begin, (batch + group) / BUCKET - 1, CHANNELS) + threadIdx.x;
        state[0] = light;
        for (int c = 0; c < CHANNELS; ++c) state[(1 + c) * THREADS] = sum[c];
      }
      const uint32_t candidate = group + static_cast<uint32_t>(lane_index());
      uint32_t left = __ballot_sync(
          WHOLE_WARP, candidate < here && (patches[candidate < here ? candidate : 0] >> warp_index() & 1));
      for (; left != 0 && !done; left &= left - 1) {
        const uint32_t k = group + static_cast<uint32_t>(__ffs(static_cast<int>(left))) - 1;
        const float log2_alpha = footprints[k].at(pixel.x, pixel.y).log2_alpha;
        if (!(log2_alpha >= gs::LOG2_ALPHA_MIN)) continue;
        float weight;
        done = !gs::blend_step(log2_alpha, light, weight);
        if (done) break;
#pragma unroll
        for (int c = 0; c < CHANNELS; ++c) sum[c] = fma(weight, channels[k][c], sum[c]);
        last = static_cast<int32_t>(batch + k), ++count;
      }
    }
  }
  if (!pixel.inside) return;
  const size_t plane = static_cast<size_t>(view.width) * view.height;
  if (FIRST) {
    for (int c = 0; c < 3; ++c) t.color[c * plane + pixel.at] = fma(light, t.background[c], sum[c]);
    t.depth[pixel.at] = sum[3];
    t.alpha[pixel.at] = 1.0f - light;
    t.n_contrib[pixel.at] = count;
    saved.light[pixel.at] = light;
    saved.last[pixel.at] = last;
    for (int c = 0; c < CHANNELS && saved.checkpoints != nullptr; ++c) saved.sums[c * plane + pixel.at] = sum[c];
  }
#pragma unroll
  for (int c = FIRST ? COLORS : 0; c < CHANNELS; ++c) {
    const int e = first_feature + c - (FIRST ? COLORS : 0);
    if (e < view.features) t.feature_map[e * plane + pixel.at] = sum[c];
  }
}

// What a pixel carries while its list is walked from the back.
template <bool FIRST>
struct PixelGradient {
  static constexpr int CHANNELS = FIRST ? COLORS + FIRST_FEATURES : MORE_FEATURES;
  float channel[CHANNELS];  // gradients on this pass's channels of the picture
  float light;              // that reaches the Gaussian looked at
  float behind;             // sum over what lies behind of weight times (gradient . channels)
  int32_t last;
  size_t at, plane;

  PixelGradient() = default;
  template <int TILE>
  CUDA_INLINE PixelGradient(
      const RasterizeCudaView& view, const RasterizeTensors& t, const Saved& saved, const Pixel<TILE>& pixel,
      int first_feature)
      : channel{},
        light(0.0f),
        behind(0.0f),
        last(-1),
        at(pixel.at),
        plane(static_cast<size_t>(view.width) * view.height) {
    if (!pixel.inside) return;
    if (FIRST) {
      for (int c = 0; c < 3; ++c) channel[c] = t.grad_color == nullptr ? 0.0f : t.grad_color[c * plane + at];
      channel[3] = t.grad_depth == nullptr ? 0.0f : t.grad_depth[at];
    }
    for (int c = FIRST ? COLORS : 0; c < CHANNELS; ++c) {
      const int e = first_feature + c - (FIRST ? COLORS : 0);
      channel[c] = t.grad_feature_map == nullptr || e >= view.features ? 0.0f : t.grad_feature_map[e * plane + at];
    }
    light = saved.light[at], last = saved.last[at];
    const float seen = channel[0] * t.background[0] + channel[1] * t.background[1] + channel[2] * t.background[2];
    behind = FIRST ? light * (seen - (t.grad_alpha == nullptr ? 0.0f : t.grad_alpha[at])) : 0.0f;
  }

  // The Gaussian's channels times the gradients on them.
  CUDA_INLINE float value(
      const RasterizeCudaView& view, const RasterizeTensors& t, const float* channels, uint32_t gaussian) const {
    if (!FIRST) return 0.0f;
    float value = 0.0f;
#pragma unroll
    for (int c = 0; c < CHANNELS; ++c) value = fma(channels[c], channel[c], value);
    if (t.grad_feature_map == nullptr) return value;
    for (int e = FIRST_FEATURES; e < view.features; ++e) {
      value =
          fma(t.features[static_cast<size_t>(gaussian) * view.features + e], t.grad_feature_map[e * plane + at], value);
    }
    return value;
  }
};

// A pixel's share of a pair's sums, in the order of the slots.
template <bool FIRST>
CUDA_INLINE void backward_step(
    const RasterizeTensors& t, const gs::Offset<float>& o, const gs::Whitening<float>& l, float value,
    PixelGradient<FIRST>& pixel, float v[16]) {
  float weight;
  const float grad_power = gs::blend_step_backward(o.log2_alpha, value, pixel.light, pixel.behind, weight);
  if (!FIRST) {
#pragma unroll
    for (int c = 0; c < MORE_FEATURES; ++c) v[c] = weight * pixel.channel[c];
    return;
  }
  const float pu = grad_power * o.u, pw = grad_power * o.w;
  v[0] = grad_power, v[1] = pu, v[2] = pw, v[3] = pu * o.u, v[4] = pu * o.w, v[5] = pw * o.w;
#pragma unroll
  for (int c = 0; c < COLORS; ++c) v[6 + c] = weight * pixel.channel[c];
  if (t.grad_means2d_abs != nullptr) v[10] = fabsf(l.xx * pu), v[11] = fabsf(fma(l.yx, pu, l.yy * pw));
#pragma unroll
  for (int c = 0; c < FIRST_FEATURES; ++c) v[MOMENTS + c] = weight * pixel.channel[COLORS + c];
}

// Sums each pair's gradients over the tile's pixels, in a fixed order, into the pair's own slot.
template <int TILE, bool FIRST>
__global__ void __launch_bounds__(TILE* TILE)
    blend_backward_kernel(RasterizeCudaView view, RasterizeTensors t, Saved saved, BackwardScratch scratch) {
  constexpr int THREADS = TILE * TILE, WARPS = THREADS / WARP, BATCH = WARP, CHANNELS = COLORS + FIRST_FEATURES;
  __shared__ Footprint footprints[BATCH];
  __shared__ float channels[BATCH][CHANNELS];
  __shared__ uint32_t patches[BATCH], gaussians[BATCH], slots[BATCH];
  __shared__ float partial[WARPS][BATCH][16];
  __shared__ uint32_t touched[WARPS];  // bit k: the warp has written partial[warp][k]
  __shared__ int32_t warp_last[WARPS];
  const int lane = lane_index(), warp = warp_index(), thread = static_cast<int>(threadIdx.x);
  const Pixel<TILE> pixel(view, static_cast<int>(threadIdx.x));
  const int first_feature = pass_feature<FIRST>();
  PixelGradient<FIRST> state(view, t, saved, pixel, first_feature);
  const uint32_t begin = saved.tile_begin[blockIdx.x], entries = saved.tile_begin[blockIdx.x + 1] - begin;
  const size_t stride = static_cast<size_t>(MOMENTS + view.features);
  // The columns of a slot that this pass fills.
  const int column = FIRST ? 0 : MOMENTS + first_feature;
  const int features = min(view.features - first_feature, FIRST ? FIRST_FEATURES : MORE_FEATURES);
  const int columns = FIRST ? MOMENTS + features : features;

  const int32_t furthest = warp_max(state.last);
  if (FIRST) {
    float v[16] = {};
#pragma unroll
    for (int c = 0; c < 3; ++c) v[c] = state.light * state.channel[c];
    const float total = warp_totals(v);
    if (lane % 2 == 0) partial[warp][0][lane / 2] = total;
  }
  if (lane == 0) warp_last[warp] = furthest;
  __syncthreads();
  int32_t tile_last = -1;
  for (int w = 0; w < WARPS; ++w) tile_last = max(tile_last, warp_last[w]);
  if (FIRST && thread < 3) {
    float sum = 0.0f;
    for (int w = 0; w < WARPS; ++w) sum += partial[w][0][thread];
    scratch.tile_background[3 * static_cast<size_t>(blockIdx.x) + thread] = sum;
  }
  // What no pixel reached has no gradient.
  for (uint32_t k = static_cast<uint32_t>(tile_last + 1 + thread / 16); k < entries; k += THREADS / 16) {
    const size_t slot = static_cast<size_t>(saved.entries[begin + k] >> 32);
    if (thread % 16 < columns) scratch.slots[slot * stride + column + thread % 16] = 0.0f;
  }

  for (int32_t top = tile_last; top >= 0; top -= BATCH) {  // entries top, top - 1, ...
    const int here = min(BATCH, top + 1);
    __syncthreads();  // the sums of the batch before have been read
    if (thread < here) {
      const Entry entry = saved.entries[begin + static_cast<uint32_t>(top - thread)];
      const Splat s = saved.splats[static_cast<uint32_t>(entry)];
      gaussians[thread] = static_cast<uint32_t>(entry), slots[thread] = static_cast<uint32_t>(entry >> 32);
      footprints[thread] = footprint_of(s, pixel);
      patches[thread] = patches_met<TILE>(footprints[thread]);
      if (FIRST) load_channels<FIRST, CHANNELS>(view, t, s, gaussians[thread], 0, channels[thread]);
    }
    __syncthreads();
    uint32_t written = 0;
    const bool mine = lane < here && top - lane <= furthest && (patches[lane < here ? lane : 0] >> warp & 1);
    for (uint32_t left = __ballot_sync(WHOLE_WARP, mine); left != 0; left &= left - 1) {
      const int k = __ffs(static_cast<int>(left)) - 1;
      const gs::Offset<float> o = footprints[k].at(pixel.x, pixel.y);
      const bool taken = o.log2_alpha >= gs::LOG2_ALPHA_MIN && top - k <= state.last;
      if (__ballot_sync(WHOLE_WARP, taken) == 0) continue;
      float v[16] = {};
      if (taken) backward_step(t, o, footprints[k].l, state.value(view, t, channels[k], gaussians[k]), state, v);
      const float total = warp_totals(v);
      if (lane % 2 == 0) partial[warp][k][lane / 2] = total;
      written |= 1u << k;
    }
    if (lane == 0) touched[warp] = written;
    __syncthreads();
    for (int i = thread; i < here * 16; i += THREADS) {
      const int k = i / 16, c = i % 16;
      if (c >= columns) continue;
      float sum = 0.0f;
      for (int w = 0; w < WARPS; ++w) {
        if (touched[w] >> k & 1) sum += partial[w][k][c];
      }
      scratch.slots[slots[k] * stride + column + c] = sum;
    }
  }
}

}  // namespace
