// Mean absolute difference and SSIM of two pictures in one pass: the plain C interface (see cuda_ext/ssim.py).
//
// Pictures are dense [C, H, W] float32. SSIM: 11-tap Gaussian window of 1.5 px, zeros outside the picture.
#pragma once

#include <cstdint>

struct SsimImages {
  int32_t channels, width, height;
  int32_t threads;          // results do not depend on it
  const float* prediction;  // [C, H, W]
  const float* target;      // [C, H, W]
  const float* mask;        // [1, H, W] weights of the pixels, or null for ones
  // Written by forward.
  float* means;  // [2] mean |prediction - target|, mean SSIM; weighted by the mask
  float* maps;   // [3, C, H, W] the SSIM mean's derivatives by blurred x, x^2 + y^2 and x y; or null if not wanted
  // Read by backward.
  float grad_l1, grad_ssim;
  // Written by backward.
  float* grad_prediction;  // [C, H, W]
};

extern "C" {
// Both return 0, or 1 when out of memory.
int gaussian_head_l1_ssim_forward(const SsimImages* images);
int gaussian_head_l1_ssim_backward(const SsimImages* images);
}
