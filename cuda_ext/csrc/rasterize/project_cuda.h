// Per-Gaussian stages, a thread for each Gaussian: projection with a count of the tiles met, and the chain rule back.
#pragma once

#include "sh_math.h"
#include "workspace_cuda.h"

namespace {

constexpr int CHAIN_THREADS = 128, SH_MOST = 16;

// Calls visit(tile) for every tile that a Gaussian meets, row by row: the same tiles whenever it is called.
template <class Visit>
CUDA_INLINE void for_tiles(const RasterizeCudaView& view, const Splat& s, const Visit& visit) {
  const gs::Ellipse<float> e = gs::ellipse(gs::Whitening<float>{s.xx, s.yx, s.yy});
  const uint32_t across = static_cast<uint32_t>((view.width + view.tile - 1) / view.tile);
  const uint32_t tile = static_cast<uint32_t>(view.tile);
  for (uint32_t y = s.tiles_y & 0xffff; y < s.tiles_y >> 16; ++y) {
    for (uint32_t x = s.tiles_x & 0xffff; x < s.tiles_x >> 16; ++x) {
      const float left = static_cast<float>(x * tile) - s.mean_x, top = static_cast<float>(y * tile) - s.mean_y;
      if (gs::meets(e, s.log2_opacity, left, top, view.tile, view.tile)) visit(y * across + x);
    }
  }
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
  for (int c = 0; c < 3; ++c) rgb[c] = max(rgb[c], 0.0f);
}

// Writes Gaussian i's radius and, if it can be seen, its splat; returns how many tiles it meets.
CUDA_INLINE uint32_t project_one(
    const RasterizeCudaView& view, const RasterizeTensors& t, const Saved& saved, const ForwardScratch& scratch,
    const gs::Camera& camera, size_t i) {
  t.radii[i] = 0;
  const float* m = t.means + 3 * i;
  const gs::Projection<float> p = gs::project(camera, m, t.quats + 4 * i, t.scales + 3 * i);
  const float z = camera.rotation[6] * m[0] + camera.rotation[7] * m[1] + camera.rotation[8] * m[2] + camera.translation[2];
  // NaN fails every comparison, so a Gaussian with one is dropped.
  if (!(z > camera.near_plane && p.xx < 1e30f && p.yy < 1e30f && p.determinant < 1e36f)) return 0;
  t.radii[i] = gs::visible_radius(p.mean_x, p.mean_y, gs::three_sigma(p), view.width, view.height);
  const float opacity = t.opacities[i];
  if (!(opacity >= gs::ALPHA_MIN)) return 0;
  const gs::Whitening<float> l = gs::whiten(p, gs::WHITEN_SCALE);
  Splat s;
  s.mean_x = p.mean_x, s.mean_y = p.mean_y, s.depth = p.z;
  s.xx = l.xx, s.yx = l.yx, s.yy = l.yy, s.log2_opacity = log2f(opacity);
  // The ellipse of alpha = 1/255 as d^T Sigma^-1 d <= reach.
  const float reach = (s.log2_opacity - gs::LOG2_ALPHA_MIN) / gs::HALF_LOG2_E;
  const gs::Range x = gs::tile_range(p.mean_x, sqrt(reach * p.xx) + 0.01f, view.width, view.tile);
  const gs::Range y = gs::tile_range(p.mean_y, sqrt(reach * p.yy) + 0.01f, view.height, view.tile);
  if (x.first >= x.end || y.first >= y.end) return 0;
  s.tiles_x = static_cast<uint32_t>(x.first) | static_cast<uint32_t>(x.end) << 16;
  s.tiles_y = static_cast<uint32_t>(y.first) | static_cast<uint32_t>(y.end) << 16;
  uint32_t pairs = 0;
  for_tiles(view, s, [&](uint32_t tile) {
    atomicAdd(scratch.tile_pairs + tile, 1u);
    ++pairs;
  });
  if (pairs == 0) return 0;
  float rgb[3];
  if (t.sh == nullptr) {
    for (int c = 0; c < 3; ++c) rgb[c] = t.colors[3 * i + c];
  } else {
    sh_color(view, t.sh + 3 * i * view.sh_coefficients, gs::view_direction(camera, m), rgb);
  }
  s.r = rgb[0], s.g = rgb[1], s.b = rgb[2];
  saved.splats[i] = s;
  return pairs;
}

__global__ void __launch_bounds__(PROJECT_THREADS)
project_kernel(RasterizeCudaView view, RasterizeTensors t, Saved saved, ForwardScratch scratch) {
  __shared__ gs::Camera camera;
  if (threadIdx.x == 0) camera = read_camera(view);
  __syncthreads();
  const size_t i = static_cast<size_t>(blockIdx.x) * PROJECT_THREADS + threadIdx.x;
  uint32_t pairs = 0, total;
  if (i < static_cast<size_t>(view.gaussians)) {
    pairs = project_one(view, t, saved, scratch, camera, i);
    saved.pair_count[i] = pairs;
  }
  block_exclusive_sum<PROJECT_THREADS>(pairs, &total);
  if (threadIdx.x == 0) scratch.block_pairs[blockIdx.x] = total;
}

// A Gaussian's slots summed in order; its features' sums go straight to grad_features.
CUDA_INLINE void sum_slots(
    const RasterizeCudaView& view, const RasterizeTensors& t, const float* slot, uint32_t pairs, size_t i, float total[MOMENTS]) {
  const int stride = MOMENTS + view.features;
  for (int k = 0; k < MOMENTS; ++k) total[k] = 0.0f;
  for (uint32_t pair = 0; pair < pairs; ++pair) {
    for (int k = 0; k < MOMENTS; ++k) total[k] += slot[static_cast<size_t>(pair) * stride + k];
  }
  for (int e = 0; e < view.features; ++e) {
    float sum = 0.0f;
    for (uint32_t pair = 0; pair < pairs; ++pair) sum += slot[static_cast<size_t>(pair) * stride + MOMENTS + e];
    t.grad_features[i * view.features + e] = sum;
  }
}

// Gradient on a Gaussian's centre through the view direction of its harmonics; leaves their values in basis[0..15].
CUDA_INLINE void sh_backward(
    const RasterizeCudaView& view, const float* sh, const gs::Direction<float>& d, const float rgb[3], float* basis, float grad_mean[3]) {
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
  const gs::Moments<float> moments = {total[0], total[1] * s1, total[2] * s1, total[3] * s2, total[4] * s2, total[5] * s2};
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
  float rgb[3] = {};
  if (i < static_cast<size_t>(view.gaussians)) {
    const uint32_t pairs = *saved.drawn == 0 ? 0 : saved.pair_count[i];
    float total[MOMENTS];
    const float* slot = pairs == 0 ? nullptr : scratch.slots + static_cast<size_t>(saved.pair_begin[i]) * (MOMENTS + view.features);
    sum_slots(view, t, slot, pairs, i, total);
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
