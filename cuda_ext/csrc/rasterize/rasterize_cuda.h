// Rasterization on a GPU: the plain C interface that Python calls through ctypes (cuda_ext/_cuda.py).
//
// The arrays are those of RasterizeTensors (rasterize.h), in device memory. Nothing here waits for the device or
// allocates, so that a step can be captured in a CUDA graph: the caller brings memory of the sizes that rasterize_bytes
// names, with room for `pair_capacity` pairs of a Gaussian and a tile that it meets. A picture with more pairs than
// that shows the background only, has zero gradients, and is counted in `status`, which the caller reads when it likes.
#pragma once

#include <cstddef>
#include <cstdint>

#include "rasterize.h"

struct RasterizeCudaView {
  const float* viewmat;  // [4, 4] world-to-camera; x right, y down, z forward
  const float* K;        // [3, 3] px
  uint32_t* status;      // [2] pairs of the largest picture so far; pictures so far that did not fit
  float near_plane;
  int32_t width, height;
  int32_t sh_degree;        // 0-3; unused when colors are given
  int32_t sh_coefficients;  // C; 0 when colors are given
  int32_t gaussians;        // N
  int32_t features;         // E
  int32_t tile;             // 8 or 16 px; results agree to rounding
  int32_t lanes;            // 0: backward gives each thread a pixel; 1: a Gaussian (with at most 4 features); likewise
  int32_t pair_capacity;
  int32_t device;
};

// Which memory: SAVED is filled by forward and read by backward; the other two are free again after the call.
enum RasterizeMemory { RASTERIZE_SAVED = 0, RASTERIZE_FORWARD = 1, RASTERIZE_BACKWARD = 2 };

extern "C" {
// The number that cuda_ext/_library.py expects: raise both whenever a structure or an export changes.
int gaussian_head_cuda_abi();
// What a code returned by the functions below means.
const char* gaussian_head_cuda_error(int code);
// Bytes of memory needed; every block of memory is aligned to 256 bytes.
size_t gaussian_head_cuda_rasterize_bytes(const RasterizeCudaView* view, int memory);
// Both return 0 or a CUDA error. backward takes the memory that the same inputs' forward filled.
int gaussian_head_cuda_rasterize_forward(
    const RasterizeCudaView* view, const RasterizeTensors* tensors, void* saved, void* scratch, void* stream);
int gaussian_head_cuda_rasterize_backward(
    const RasterizeCudaView* view, const RasterizeTensors* tensors, void* saved, void* scratch, void* stream);
}
