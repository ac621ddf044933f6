// Per-Gaussian stage of backward, LANES Gaussians at a time: from the pairs' slots to gradients on the inputs.
#pragma once

#include "../simd.h"
#include "blend_cpu.h"
#include "project_cpu.h"
#include "rasterize.h"
#include "sh_math.h"
#include "workspace.h"

namespace {

// Sums the slots of one Gaussian, in order, into totals[stride]; the last vector may overlap the one before.
SIMD_INLINE void sum_slots(const float* slot, uint32_t pairs, int stride, float* totals) {
  for (int column = 0; column < stride; column += LANES) {
    const int c = column + LANES <= stride ? column : stride - LANES;
    fv total{};
    for (uint32_t pair = 0; pair < pairs; ++pair) total += load(slot + static_cast<size_t>(pair) * stride + c);
    store(totals + c, total);
  }
}

// Writes gradients on SH coefficients, and adds what reaches the means through the direction they are seen in.
SIMD_INLINE void sh_backward(
    const RasterizeView& view, const RasterizeTensors& t, const gs::Camera& camera, const fv mean[3], iv seen, int first, int rows,
    const fv grad_color[3], fv grad_mean[3]) {
  const size_t stride = 3 * static_cast<size_t>(view.sh_coefficients);
  const int columns = view.sh_coefficients < 16 ? 3 * view.sh_coefficients : SH_COLUMNS;
  float* out = t.grad_sh + first * stride;
  if (lane_bits(seen) == 0 || static_cast<size_t>(columns) < stride) std::memset(out, 0, rows * stride * sizeof(float));
  if (lane_bits(seen) == 0) return;
  const Harmonics h(view, t, camera, mean, first, rows);
  fv rgb[3], grad_basis[16], grad_sh[SH_COLUMNS], grad[3];
  h.colors(rgb);
  for (int c = 0; c < 3; ++c) grad[c] = keep(seen & (rgb[c] > 0.0f), grad_color[c]);
  for (int k = 0; k < h.used; ++k) {
    for (int c = 0; c < 3; ++c) grad_sh[3 * k + c] = h.basis[k] * grad[c];
    grad_basis[k] = fma(h.sh[3 * k], grad[0], fma(h.sh[3 * k + 1], grad[1], h.sh[3 * k + 2] * grad[2]));
  }
  for (int c = 3 * h.used; c < (columns + LANES - 1) / LANES * LANES; ++c) grad_sh[c] = fv{};
  store_rows(out, stride, columns, rows, grad_sh);
  fv g[3];
  gs::sh_basis_backward(view.sh_degree, h.x, h.y, h.z, grad_basis, g);
  const fv along = g[0] * h.x + g[1] * h.y + g[2] * h.z, unit[3] = {h.x, h.y, h.z};
  for (int k = 0; k < 3; ++k) grad_mean[k] += (g[k] - unit[k] * along) * h.inv_length;
}

// Chain rule for a chunk of Gaussians. `totals`: LANES x SlotLayout::stride floats of room, and a vector.
void project_backward_chunk(
    const RasterizeView& view, const RasterizeTensors& t, Workspace& ws, const SlotLayout& layout, const gs::Camera& camera,
    int index, float* totals) {
  const int begin = index * CHUNK, end = view.gaussians - begin < CHUNK ? view.gaussians : begin + CHUNK;
  const size_t features = static_cast<size_t>(view.features);
  for (int first = begin; first < end; first += LANES) {
    const int rows = end - first < LANES ? end - first : LANES;
    for (int i = 0; i < LANES; ++i) {
      const uint32_t pairs = i < rows ? ws.pair_count[first + i] : 0;
      const size_t slot = pairs == 0 ? 0 : ws.chunks[index].first_slot + ws.pair_begin[first + i];
      sum_slots(ws.slots.data + slot * layout.stride, pairs, layout.stride, totals + i * layout.stride);
    }
    if (t.grad_features != nullptr) {
      float* out = t.grad_features + first * features;
      for (int i = 0; i < rows; ++i) {
        for (size_t e = 0; e < features; ++e) {
          out[i * features + e] = layout.features == 0 ? 0.0f : totals[i * layout.stride + MOMENTS + layout.depth + e];
        }
      }
    }
    const int known = MOMENTS + layout.extra + 2 * layout.absolute;
    fv m[2 * LANES];
    for (int i = 0; i < LANES; ++i) m[i] = load(totals + i * layout.stride);
    transpose(m);
    if (known > LANES) {
      for (int i = 0; i < LANES; ++i) m[LANES + i] = load(totals + i * layout.stride + LANES);
      transpose(m + LANES);
    }
    iv seen{};
    for (int i = 0; i < rows; ++i) seen[i] = ws.pair_count[first + i] != 0 ? -1 : 0;
    Batch batch(t, first, rows);
    for (fv& v : batch.mean) v = keep(seen, v);  // others may hold anything
    const gs::Projection<fv> p = gs::project(camera, batch.mean, batch.quat, batch.scale);
    const gs::Whitening<fv> l = gs::whiten(p, 1.0f);
    // The pixels' offsets were whitened with WHITEN_SCALE.
    const float s1 = 1.0f / WHITEN_SCALE, s2 = 1.0f / gs::HALF_LOG2_E;
    const gs::Moments<fv> moments = {m[SUM_V], m[SUM_U] * s1, m[SUM_W] * s1, m[SUM_UU] * s2, m[SUM_UW] * s2, m[SUM_WW] * s2};
    fv grad_mean[3], grad_quat[4], grad_scale[3], grad_pixel[2];
    const fv grad_depth = layout.depth != 0 ? m[MOMENTS] : fv{};
    gs::project_backward(camera, p, l, batch.scale, moments, grad_depth, grad_mean, grad_quat, grad_scale, grad_pixel);
    if (t.sh != nullptr) {
      sh_backward(view, t, camera, batch.mean, seen, first, rows, m + SUM_R, grad_mean);
    } else {
      store_columns<3>(t.grad_colors + 3 * static_cast<size_t>(first), rows, m + SUM_R);
    }
    fv opacity;
    load_columns<1>(t.opacities + first, rows, &opacity);
    const fv grad_opacity = keep(seen, m[SUM_V] / opacity);
    for (fv& v : grad_mean) v = keep(seen, v);
    for (fv& v : grad_quat) v = keep(seen, v);
    for (fv& v : grad_scale) v = keep(seen, v);
    const size_t i = static_cast<size_t>(first);
    store_columns<3>(t.grad_means + 3 * i, rows, grad_mean);
    store_columns<4>(t.grad_quats + 4 * i, rows, grad_quat);
    store_columns<3>(t.grad_scales + 3 * i, rows, grad_scale);
    store_columns<1>(t.grad_opacities + i, rows, &grad_opacity);
    const float half_width = 0.5f * static_cast<float>(view.width), half_height = 0.5f * static_cast<float>(view.height);
    if (t.grad_means2d != nullptr) {
      const fv ndc[2] = {keep(seen, grad_pixel[0] * half_width), keep(seen, grad_pixel[1] * half_height)};
      store_columns<2>(t.grad_means2d + 2 * i, rows, ndc);
    }
    if (layout.absolute) {  // (WHITEN_SCALE L) e' with e' = WHITEN_SCALE e
      for (int lane = 0; lane < rows; ++lane) {
        const float* sums = totals + lane * layout.stride + MOMENTS + layout.extra;
        t.grad_means2d_abs[2 * (i + lane)] = sums[0] * (half_width / gs::HALF_LOG2_E);
        t.grad_means2d_abs[2 * (i + lane) + 1] = sums[1] * (half_height / gs::HALF_LOG2_E);
      }
    }
  }
}

}  // namespace
