// Per-Gaussian stages, a thread for each Gaussian: projection with a count of the tiles met, and the chain rule back.
#pragma once

#include "sh_math.h"
#include "workspace_cuda.h"

namespace {

constexpr int CHAIN_THREADS = 128, SH_MOST = 16;
constexpr uint32_t ALONE = 32;  // tiles or pairs of a Gaussian that a single thread takes; a warp shares more

// A Gaussian's rectangle of tiles, row by row.
struct TileWalk {
  gs::Ellipse<float> ellipse;
  float mean_x, mean_y, log2_opacity;
  uint32_t first_x, first_y, columns, count, across, side;
  CUDA_INLINE TileWalk(const RasterizeCudaView& view, const Splat& s)
      : ellipse(gs::ellipse(gs::Whitening<float>{s.xx, s.yx, s.yy})),
        mean_x(s.mean_x),
        mean_y(s.mean_y),
        log2_opacity(s.log2_opacity),
        first_x(s.tiles_x & 0xffff),
        first_y(s.tiles_y & 0xffff),
        columns((s.tiles_x >> 16) - first_x),
        count(columns * ((s.tiles_y >> 16) - first_y)),
        across(static_cast<uint32_t>((view.width + view.tile - 1) / view.tile)),
        side(static_cast<uint32_t>(view.tile)) {}

  // Whether the Gaussian meets tile `i` of the rectangle: the same answer whenever it is asked. `tile` is its index.
  CUDA_INLINE bool meets(uint32_t i, uint32_t* tile) const {
    const uint32_t x = first_x + i % columns, y = first_y + i / columns;
    *tile = y * across + x;
    const int pixels = static_cast<int>(side);
    const float left = static_cast<float>(x * side) - mean_x, top = static_cast<float>(y * side) - mean_y;
    return gs::meets(ellipse, log2_opacity, left, top, pixels, pixels);
  }
};

CUDA_INLINE Splat broadcast(const Splat& s, int lane) {
  Splat copy = s;
  copy.mean_x = __shfl_sync(WHOLE_WARP, s.mean_x, lane), copy.mean_y = __shfl_sync(WHOLE_WARP, s.mean_y, lane);
  copy.xx = __shfl_sync(WHOLE_WARP, s.xx, lane), copy.yx = __shfl_sync(WHOLE_WARP, s.yx, lane);
  copy.yy = __shfl_sync(WHOLE_WARP, s.yy, lane), copy.log2_opacity = __shfl_sync(WHOLE_WARP, s.log2_opacity, lane);
  copy.tiles_x = __shfl_sync(WHOLE_WARP, s.tiles_x, lane), copy.tiles_y = __shfl_sync(WHOLE_WARP, s.tiles_y, lane);
  return copy;
}

// Calls visit(owner, tile, rank) for every tile that the lanes' Gaussians meet, rank counting those of the owning lane;
// returns how many the caller's own one meets. A whole warp walks over large rectangles together. All lanes call it; a
// Gaussian that is not drawn has an empty rectangle.
template <class Visit>
CUDA_INLINE uint32_t for_tiles(const RasterizeCudaView& view, const Splat& s, const Visit& visit) {
  const TileWalk own(view, s);
  const int lane = lane_index();
  uint32_t met = 0, tile;
  for (uint32_t i = 0; i < own.count && own.count <= ALONE; ++i) {
    if (own.meets(i, &tile)) visit(lane, tile, met++);
  }
  for (uint32_t large = __ballot_sync(WHOLE_WARP, own.count > ALONE); large != 0; large &= large - 1) {
    const int owner = __ffs(static_cast<int>(large)) - 1;
    const TileWalk walk(view, broadcast(s, owner));
    uint32_t found = 0;
    for (uint32_t first = 0; first < walk.count; first += WARP) {
      const uint32_t i = first + static_cast<uint32_t>(lane);
      const bool hit = i < walk.count && walk.meets(i, &tile);
      const uint32_t hits = __ballot_sync(WHOLE_WARP, hit);
      if (hit) visit(owner, tile, found + static_cast<uint32_t>(__popc(hits & ((1u << lane) - 1))));
      found += static_cast<uint32_t>(__popc(hits));
    }
    if (lane == owner) met = found;
  }
  return met;
}

CUDA_INLINE void sh_color(const RasterizeCudaView& view, const float* sh, const gs::Direction<float>& d, float rgb[3]) {
  float basis[SH_MOST];
  gs::sh_basis(view.sh_degree, d.x, d.y, d.z, basis);
  const int used = (view.sh_degree + 1) * (view.sh_degree + 1);
  for (int c = 0; c < 3; ++c) rgb[c] = 0.5f;
#pragma unroll
  for (int k = 0; k < SH_MOST; ++k) {
    if (k < used) {
      for (int c = 0; c < 3; ++c) rgb[c] = fma(basis[k], sh[3 * k + c], rgb[c]);
    }
  }
}

// Gives Gaussian i its colour; returns whether all its channels can be blended. NaN fails every comparison.
CUDA_INLINE bool color_one(
    const RasterizeCudaView& view, const RasterizeTensors& t, const gs::Camera& camera, size_t i, Splat& s) {
  float rgb[3];
  if (t.sh == nullptr) {
    for (int c = 0; c < 3; ++c) rgb[c] = t.colors[3 * i + c];
  } else {
    sh_color(view, t.sh + 3 * i * view.sh_coefficients, gs::view_direction(camera, t.means + 3 * i), rgb);
  }
  bool usable = true;
  for (int c = 0; c < 3; ++c) {
    usable = usable && fabsf(rgb[c]) <= gs::VALUE_MAX;
    if (t.sh != nullptr) rgb[c] = max(rgb[c], 0.0f);
  }
  for (int e = 0; e < view.features; ++e) {
    usable = usable && fabsf(t.features[i * view.features + e]) <= gs::VALUE_MAX;
  }
  s.r = rgb[0], s.g = rgb[1], s.b = rgb[2];
  return usable;
}

// Writes Gaussian i's radius; returns its splat, whose rectangle of tiles is empty if it cannot be seen.
CUDA_INLINE Splat
project_one(const RasterizeCudaView& view, const RasterizeTensors& t, const gs::Camera& camera, size_t i) {
  Splat s = {};
  t.radii[i] = 0;
  const float* m = t.means + 3 * i;
  const gs::Projection<float> p = gs::project(camera, m, t.quats + 4 * i, t.scales + 3 * i);
  const float z =
      camera.rotation[6] * m[0] + camera.rotation[7] * m[1] + camera.rotation[8] * m[2] + camera.translation[2];
  const bool in_front = z > camera.near_plane && z < gs::VALUE_MAX;
  if (!(in_front && p.xx < 1e30f && p.yy < 1e30f && p.determinant < 1e36f)) return s;
  t.radii[i] = gs::visible_radius(p.mean_x, p.mean_y, gs::three_sigma(p), view.width, view.height);
  const float opacity = t.opacities[i];
  if (!(opacity >= gs::ALPHA_MIN && opacity <= gs::VALUE_MAX)) return s;
  const gs::Whitening<float> l = gs::whiten(p, gs::WHITEN_SCALE);
  s.mean_x = p.mean_x, s.mean_y = p.mean_y, s.depth = p.z;
  s.xx = l.xx, s.yx = l.yx, s.yy = l.yy, s.log2_opacity = log2f(opacity);
  // The ellipse of alpha = 1/255 as d^T Sigma^-1 d <= reach.
  const float reach = (s.log2_opacity - gs::LOG2_ALPHA_MIN) / gs::HALF_LOG2_E;
  const gs::Range x = gs::tile_range(p.mean_x, sqrt(reach * p.xx) + 0.01f, view.width, view.tile);
  const gs::Range y = gs::tile_range(p.mean_y, sqrt(reach * p.yy) + 0.01f, view.height, view.tile);
  if (x.first >= x.end || y.first >= y.end || !color_one(view, t, camera, i, s)) return s;
  s.tiles_x = static_cast<uint32_t>(x.first) | static_cast<uint32_t>(x.end) << 16;
  s.tiles_y = static_cast<uint32_t>(y.first) | static_cast<uint32_t>(y.end) << 16;
  return s;
}

__global__ void __launch_bounds__(PROJECT_THREADS)
    project_kernel(RasterizeCudaView view, RasterizeTensors t, Saved saved, ForwardScratch scratch) {
  __shared__ gs::Camera camera;
  if (threadIdx.x == 0) camera = read_camera(view);
  __syncthreads();
  const size_t i = static_cast<size_t>(blockIdx.x) * PROJECT_THREADS + threadIdx.x;
  const bool mine = i < static_cast<size_t>(view.gaussians);
  Splat s = {};
  if (mine) s = project_one(view, t, camera, i);
  const uint32_t pairs =
      for_tiles(view, s, [&](int, uint32_t tile, uint32_t) { atomicAdd(scratch.tile_pairs + tile, 1u); });
  if (mine) saved.pair_count[i] = pairs;
  if (pairs != 0) saved.splats[i] = s;
  uint32_t total;
  block_exclusive_sum<PROJECT_THREADS>(pairs, &total);
  if (threadIdx.x == 0) scratch.block_pairs[blockIdx.x] = total;
}

// Slots summed in order by one thread; the features' sums go straight to grad_features.
CUDA_INLINE void sum_alone(
    int features, const float* slot, uint32_t pairs, float* grad_features, float total[MOMENTS]) {
  const size_t stride = static_cast<size_t>(MOMENTS + features);
  for (uint32_t pair = 0; pair < pairs; ++pair) {
    for (int k = 0; k < MOMENTS; ++k) total[k] += slot[pair * stride + k];
  }
  for (int e = 0; e < features; ++e) {
    float sum = 0.0f;
    for (uint32_t pair = 0; pair < pairs; ++pair) sum += slot[pair * stride + MOMENTS + e];
    grad_features[e] = sum;
  }
}

// The same for a Gaussian with many slots, by a whole warp, for lane `owner`.
CUDA_INLINE void sum_together(
    int features, const float* slot, uint32_t pairs, int owner, float* grad_features, float total[MOMENTS]) {
  const int columns = MOMENTS + features;
  for (int first = 0; first < columns; first += 16) {
    float v[16] = {};
    for (uint32_t pair = static_cast<uint32_t>(lane_index()); pair < pairs; pair += WARP) {
      const float* row = slot + static_cast<size_t>(pair) * columns + first;
#pragma unroll
      for (int c = 0; c < 16; ++c) v[c] += first + c < columns ? row[c] : 0.0f;
    }
    const float sum = warp_totals(v);
#pragma unroll
    for (int c = 0; c < 16; ++c) {
      const float value = __shfl_sync(WHOLE_WARP, sum, 2 * c);
      if (lane_index() != owner) continue;
      if (c < MOMENTS && first == 0) total[c] = value;
      else if (first + c < columns) grad_features[first + c - MOMENTS] = value;
    }
  }
}

// The sums of a Gaussian's slots. All lanes of a warp call it, those without a Gaussian of their own (`mine`) too.
CUDA_INLINE void sum_slots(
    int features, const float* slots, uint32_t begin, uint32_t pairs, bool mine, float* grad_features,
    float total[MOMENTS]) {
  const size_t stride = static_cast<size_t>(MOMENTS + features);
  for (int k = 0; k < MOMENTS; ++k) total[k] = 0.0f;
  if (mine && pairs <= ALONE) sum_alone(features, slots + begin * stride, pairs, grad_features, total);
  for (uint32_t many = __ballot_sync(WHOLE_WARP, pairs > ALONE); many != 0; many &= many - 1) {
    const int owner = __ffs(static_cast<int>(many)) - 1;
    const uint32_t from = __shfl_sync(WHOLE_WARP, begin, owner), count = __shfl_sync(WHOLE_WARP, pairs, owner);
    sum_together(features, slots + from * stride, count, owner, grad_features, total);
  }
}

// Gradient on a Gaussian's centre through the view direction of its harmonics; leaves their values in basis[0..15].
CUDA_INLINE void sh_backward(
    const RasterizeCudaView& view, const float* sh, const gs::Direction<float>& d, const float rgb[3], float* basis,
    float grad_mean[3]) {
  float value[SH_MOST], grad[SH_MOST], g[3];
  gs::sh_basis(view.sh_degree, d.x, d.y, d.z, value);
  const int used = (view.sh_degree + 1) * (view.sh_degree + 1);
#pragma unroll
  for (int k = 0; k < SH_MOST; ++k) {
    if (k < used) {
      basis[k] = value[k];
      grad[k] = sh[3 * k] * rgb[0] + sh[3 * k + 1] * rgb[1] + sh[3 * k + 2] * rgb[2];
    }
  }
  gs::sh_basis_backward(view.sh_degree, d.x, d.y, d.z, grad, g);
  const float along = g[0] * d.x + g[1] * d.y + g[2] * d.z, unit[3] = {d.x, d.y, d.z};
  for (int k = 0; k < 3; ++k) grad_mean[k] += (g[k] - unit[k] * along) * d.inv_length;
}

// Gradients on everything but the harmonics of Gaussian i, which was drawn. rgb receives the gradient on its colour.
CUDA_INLINE void chain_one(
    const RasterizeCudaView& view, const RasterizeTensors& t, const Saved& saved, const gs::Camera& camera, size_t i,
    const float total[MOMENTS], float rgb[3], float* basis) {
  const Splat& s = saved.splats[i];
  const float color[3] = {s.r, s.g, s.b}, *mean = t.means + 3 * i, *scale = t.scales + 3 * i;
  for (int c = 0; c < 3; ++c) rgb[c] = t.sh != nullptr && color[c] <= 0.0f ? 0.0f : total[6 + c];
  const gs::Projection<float> p = gs::project(camera, mean, t.quats + 4 * i, scale);
  const gs::Whitening<float> l = gs::whiten(p, 1.0f);
  // The pixels' offsets were whitened with WHITEN_SCALE.
  const float s1 = 1.0f / gs::WHITEN_SCALE, s2 = 1.0f / gs::HALF_LOG2_E;
  const gs::Moments<float> moments = {total[0],      total[1] * s1, total[2] * s1,
                                      total[3] * s2, total[4] * s2, total[5] * s2};
  float grad_mean[3], grad_quat[4], grad_scale[3], grad_pixel[2];
  gs::project_backward(camera, p, l, scale, moments, total[9], grad_mean, grad_quat, grad_scale, grad_pixel);
  if (t.sh != nullptr) {
    const float* sh = t.sh + 3 * i * view.sh_coefficients;
    sh_backward(view, sh, gs::view_direction(camera, mean), rgb, basis, grad_mean);
  }
  for (int k = 0; k < 3; ++k) t.grad_means[3 * i + k] = grad_mean[k], t.grad_scales[3 * i + k] = grad_scale[k];
  for (int k = 0; k < 4; ++k) t.grad_quats[4 * i + k] = grad_quat[k];
  t.grad_opacities[i] = total[0] / t.opacities[i];
  const float half[2] = {0.5f * static_cast<float>(view.width), 0.5f * static_cast<float>(view.height)};
  for (int k = 0; k < 2; ++k) {
    if (t.grad_means2d != nullptr) t.grad_means2d[2 * i + k] = grad_pixel[k] * half[k];
    // (WHITEN_SCALE L) e' with e' = WHITEN_SCALE e
    if (t.grad_means2d_abs != nullptr) t.grad_means2d_abs[2 * i + k] = total[10 + k] * (half[k] / gs::HALF_LOG2_E);
  }
}

CUDA_INLINE void clear_one(const RasterizeTensors& t, size_t i) {
  for (int k = 0; k < 3; ++k) t.grad_means[3 * i + k] = t.grad_scales[3 * i + k] = 0.0f;
  for (int k = 0; k < 4; ++k) t.grad_quats[4 * i + k] = 0.0f;
  t.grad_opacities[i] = 0.0f;
  for (int k = 0; k < 2; ++k) {
    if (t.grad_means2d != nullptr) t.grad_means2d[2 * i + k] = 0.0f;
    if (t.grad_means2d_abs != nullptr) t.grad_means2d_abs[2 * i + k] = 0.0f;
  }
}

// The tiles' shares of the background's gradient, summed in a fixed order by one block.
CUDA_INLINE void sum_background(const RasterizeTensors& t, const BackwardScratch& scratch, size_t tiles) {
  __shared__ double sums[3][CHAIN_THREADS];
  for (int c = 0; c < 3; ++c) {
    double sum = 0;
    for (size_t tile = threadIdx.x; tile < tiles; tile += CHAIN_THREADS) sum += scratch.tile_background[3 * tile + c];
    sums[c][threadIdx.x] = sum;
  }
  __syncthreads();
  if (threadIdx.x < 3) {
    double sum = 0;
    for (int thread = 0; thread < CHAIN_THREADS; ++thread) sum += sums[threadIdx.x][thread];
    t.grad_background[threadIdx.x] = static_cast<float>(sum);
  }
}

// From the slots to gradients on the inputs. The last block sums the background's gradient instead.
__global__ void __launch_bounds__(CHAIN_THREADS)
    chain_kernel(RasterizeCudaView view, RasterizeTensors t, Saved saved, BackwardScratch scratch, size_t tiles) {
  if (blockIdx.x == gridDim.x - 1) {
    sum_background(t, scratch, tiles);
    return;
  }
  __shared__ gs::Camera camera;
  __shared__ float basis[CHAIN_THREADS][SH_MOST + 1], colors[CHAIN_THREADS][3];  // one float of padding: other banks
  if (threadIdx.x == 0) camera = read_camera(view);
  for (int k = 0; k < SH_MOST; ++k) basis[threadIdx.x][k] = 0.0f;
  __syncthreads();
  const size_t first = static_cast<size_t>(blockIdx.x) * CHAIN_THREADS, i = first + threadIdx.x;
  const bool mine = i < static_cast<size_t>(view.gaussians);
  const uint32_t pairs = mine && *saved.drawn != 0 ? saved.pair_count[i] : 0;
  float rgb[3] = {}, total[MOMENTS];
  const uint32_t begin = pairs == 0 ? 0 : saved.pair_begin[i];
  sum_slots(view.features, scratch.slots, begin, pairs, mine, t.grad_features + i * view.features, total);
  if (mine) {
    if (pairs == 0) {
      clear_one(t, i);
    } else {
      chain_one(view, t, saved, camera, i, total, rgb, basis[threadIdx.x]);
    }
    if (t.sh == nullptr) {
      for (int c = 0; c < 3; ++c) t.grad_colors[3 * i + c] = rgb[c];
    }
  }
  if (t.sh == nullptr) return;
  for (int c = 0; c < 3; ++c) colors[threadIdx.x][c] = rgb[c];
  __syncthreads();
  // All threads write the block's harmonics together: neighbours write neighbouring floats.
  const int row = 3 * view.sh_coefficients, used = 3 * (view.sh_degree + 1) * (view.sh_degree + 1);
  const size_t left = static_cast<size_t>(view.gaussians) - first;
  const int floats = row * static_cast<int>(left < CHAIN_THREADS ? left : CHAIN_THREADS);
  for (int at = static_cast<int>(threadIdx.x); at < floats; at += CHAIN_THREADS) {
    const int gaussian = at / row, column = at % row;
    t.grad_sh[first * row + at] = column < used ? basis[gaussian][column / 3] * colors[gaussian][column % 3] : 0.0f;
  }
}

}  // namespace
