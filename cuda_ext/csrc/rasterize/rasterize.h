// Rasterization of 3D Gaussians: the plain C interface that Python calls through ctypes.
//
// All arrays are dense, row-major, float32 unless said otherwise; N Gaussians, C SH coefficients, E extra channels,
// H x W pixels. The rules of blending are those of cuda_ext/_reference.py. Python mirrors both structures field by
// field (cuda_ext/_cpu.py): change them together.
#pragma once

#include <cstdint>

struct RasterizeView {
  float viewmat[12];  // first three rows of world-to-camera; x right, y down, z forward
  float fx, fy, cx, cy, near_plane;
  int32_t width, height;
  int32_t sh_degree;        // 0-3; unused when colors are given
  int32_t sh_coefficients;  // C; 0 when colors are given
  int32_t gaussians;        // N
  int32_t features;         // E
  int32_t threads;          // results do not depend on it
};

struct RasterizeTensors {
  // Inputs.
  const float* means;       // [N, 3]
  const float* quats;       // [N, 4] w x y z, any length
  const float* scales;      // [N, 3]
  const float* opacities;   // [N]
  const float* sh;          // [N, C, 3], or null
  const float* colors;      // [N, 3], or null; exactly one of the two
  const float* features;    // [N, E], or null when E is 0
  const float* background;  // [3]
  // Written by forward.
  float* color;         // [3, H, W]
  float* alpha;         // [1, H, W]
  float* depth;         // [1, H, W]
  float* feature_map;   // [E, H, W]
  int32_t* radii;       // [N]
  int32_t* n_contrib;   // [H, W]
  // Read by backward; null stands for zeros.
  const float* grad_color;        // [3, H, W]
  const float* grad_alpha;        // [1, H, W]
  const float* grad_depth;        // [1, H, W]
  const float* grad_feature_map;  // [E, H, W]
  // Written by backward.
  float* grad_means;       // [N, 3]
  float* grad_quats;       // [N, 4]
  float* grad_scales;      // [N, 3]
  float* grad_opacities;   // [N]
  float* grad_sh;          // [N, C, 3], or null with colors
  float* grad_colors;      // [N, 3], or null with sh
  float* grad_features;    // [N, E]
  float* grad_background;  // [3]
  float* grad_means2d;      // [N, 2] px gradient times (W/2, H/2), or null
  float* grad_means2d_abs;  // [N, 2] the same from the pixels' absolute contributions, or null
};

extern "C" {
// A workspace carries what backward needs from forward, and is reused from picture to picture. Null when out of memory.
void* gaussian_head_workspace_new();
void gaussian_head_workspace_delete(void* workspace);
// Both return 0, 1 when out of memory, or 2 when there are too many pairs of Gaussian and tile. backward takes the workspace that the same inputs' forward filled.
int gaussian_head_rasterize_forward(void* workspace, const RasterizeView* view, const RasterizeTensors* tensors);
int gaussian_head_rasterize_backward(void* workspace, const RasterizeView* view, const RasterizeTensors* tensors);
}
