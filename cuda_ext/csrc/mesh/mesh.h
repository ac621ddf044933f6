// Triangles by z-buffer: the plain C interface that Python calls through ctypes (see cuda_ext/mesh.py), on either device.
//
// All arrays are dense, row-major, float32 unless said otherwise; B pictures of H x W pixels, V vertices, F triangles.
// Python mirrors the structure field by field (cuda_ext/_compiled_mesh.py).
#pragma once

#include <cstdint>

struct MeshArguments {
  const float* vertices;  // [B, V, 3] x, y in px, depth
  const int32_t* faces;   // [F, 3]; a triangle with an index out of range is left out
  float near_plane;       // a triangle with a depth that is not beyond it is left out
  int32_t pictures, count, triangles, width, height;
  int32_t threads;  // of the CPU; results do not depend on it
  int32_t device;   // of CUDA
  // Written by forward.
  int32_t* face_index;  // [B, H, W], -1 where there is none; read by backward
  float* barycentrics;  // [B, H, W, 3]
  float* depth;         // [B, H, W]
  uint64_t* keys;       // CUDA: [B, H, W] room for forward
  // Read by backward.
  const float *grad_barycentrics, *grad_depth;
  // Written by backward.
  float* grad_corners;  // [B, F, 3, 3] by triangle, corner and x, y, depth
};

extern "C" {
// Return 0, or 1 when out of memory.
int gaussian_head_mesh_forward(const MeshArguments* arguments);
int gaussian_head_mesh_backward(const MeshArguments* arguments);
// Return 0 or a CUDA error.
int gaussian_head_cuda_mesh_forward(const MeshArguments* arguments, void* stream);
int gaussian_head_cuda_mesh_backward(const MeshArguments* arguments, void* stream);
}
