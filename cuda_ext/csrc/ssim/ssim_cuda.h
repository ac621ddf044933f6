// L1 and SSIM on a GPU: the plain C interface that Python calls through ctypes (cuda_ext/_cuda.py); see ssim.h.
//
// Everything is in device memory, the two means and their gradients too, so that nothing waits for the device.
#pragma once

#include <cstddef>
#include <cstdint>

struct SsimCudaImages {
  const float* prediction;  // [C, H, W]
  const float* target;      // [C, H, W]
  const float* mask;        // [1, H, W] weights of the pixels, or null for ones
  // Written by forward, read by backward.
  float* maps;            // [3, C, H, W] weight times SSIM's derivatives by blurred x, x^2 + y^2 and x y; or null
  float* inverse_weight;  // [] 1 / sum of the weights of all pixels and channels
  // Written by forward.
  float* l1;       // [] mean |prediction - target|
  float* ssim;     // [] mean SSIM
  float* partial;  // room of gaussian_head_cuda_l1_ssim_bytes
  // Read by backward.
  const float* grad_l1;    // []
  const float* grad_ssim;  // []
  // Written by backward.
  float* grad_prediction;  // [C, H, W]
  int32_t channels, width, height, device;
};

extern "C" {
size_t gaussian_head_cuda_l1_ssim_bytes(const SsimCudaImages* images);
// Both return 0 or a CUDA error.
int gaussian_head_cuda_l1_ssim_forward(const SsimCudaImages* images, void* stream);
int gaussian_head_cuda_l1_ssim_backward(const SsimCudaImages* images, void* stream);
}
