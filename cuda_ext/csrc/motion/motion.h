// How a frame's code moves Gaussians: the plain C interface that Python calls through ctypes (see cuda_ext/motion.py).
//
// All arrays are dense, row-major, float32 unless said otherwise; N Gaussians, H place features, O = 13 changes (position
// 3, quaternion 4, log-scale 3, colour 3). Python mirrors the structures field by field (cuda_ext/_cpu_motion.py).
#pragma once

#include <cstdint>

constexpr int MOST_LEVELS = 4, MOST_CARRIERS = 2, MOST_RESPONSES = 2;
constexpr int CHUNK = 512;  // Gaussians whose share of a weight's gradient is summed before it joins the others'

enum MotionStatus { OK = 0, NO_MEMORY = 1, BAD_INDEX = 2 };

// Three planes of bilinear grids at several resolutions, then two linear layers with a ReLU between.
struct PlaceArguments {
  int32_t points, levels, resolution[MOST_LEVELS], hidden, regions, gates, threads;
  const float* where;                // [N, 3] in [-1, 1]; beyond, the border's value holds
  const float* grids[MOST_LEVELS];   // [3, 4, r, r]; planes xy, yz, xz
  const float *weight1, *bias1;      // [hidden, 12 levels + 3], [hidden]
  const float *weight2, *bias2;      // [regions + gates, hidden], [regions + gates]
  void* along;                       // [N, levels, 3] pairs of int32 and float, written by forward, read by backward
  float* features;                   // [N + 3, 12 levels + 3], rows padded to whole vectors, likewise
  float* activations;                // [N + 3, hidden] after the ReLU, padded, likewise
  float *out_regions, *out_gates;    // [N, regions], [N, gates]
  // Read and written by backward; a null gradient stands for zeros.
  const float *grad_out_regions, *grad_out_gates;
  float* grad_grids[MOST_LEVELS];
  float *grad_weight1, *grad_bias1, *grad_weight2, *grad_bias2;
};

struct DeformArguments {
  int32_t gaussians, hidden, sh_rest;  // sh_rest: coefficients beside the constant one
  int32_t carriers, neighbours[MOST_CARRIERS], carrier_points[MOST_CARRIERS], responses, threads;
  float position_scale;
  const float *means, *quats, *log_scales, *sh0, *shN;  // [N, 3] [N, 4] [N, 3] [N, 1, 3] [N, sh_rest, 3]
  const float* regions;                                 // [N, H]
  const float* gates;                                   // [N, carriers]
  const int64_t* indices[MOST_CARRIERS];                // [N, neighbours] into the carrier's points
  const float* weights[MOST_CARRIERS];                  // [N, neighbours]
  const float* displacement[MOST_CARRIERS];             // [points, 3]
  const float* share[MOST_RESPONSES];                   // [N], or null for ones
  const float* response[MOST_RESPONSES];                // [H, 13]
  // Written by forward; backward reads moved_scales.
  float *moved_means, *moved_quats, *moved_scales, *moved_sh, *change;  // moved_sh [N, 1 + sh_rest, 3], change [N, 13]
  // Read by backward; null stands for zeros.
  const float *grad_moved_means, *grad_moved_quats, *grad_moved_scales, *grad_moved_sh, *grad_change;
  // Written by backward; the gradient on means is the one on moved_means.
  float *grad_quats, *grad_log_scales, *grad_sh0, *grad_shN, *grad_regions, *grad_gates;
  float* grad_response[MOST_RESPONSES];
};

extern "C" {
// All return OK, NO_MEMORY or BAD_INDEX (a Gaussian is bound to a point that does not exist). Results do not depend on
// the number of threads.
int gaussian_head_place_forward(const PlaceArguments* arguments);
int gaussian_head_place_backward(const PlaceArguments* arguments);
int gaussian_head_deform_forward(const DeformArguments* arguments);
int gaussian_head_deform_backward(const DeformArguments* arguments);
}
