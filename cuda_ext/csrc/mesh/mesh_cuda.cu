// Triangles by z-buffer on a GPU. Forward, a thread takes a triangle and offers (depth, triangle) to the pixels that it
// covers; the least offer wins, whatever the order; then a thread takes a pixel. Backward, a thread takes a triangle: no
// sum depends on an order. Meant for meshes of many small triangles.
#include "../cuda_platform.h"
#include "mesh_math.h"

#define EXPORT __attribute__((visibility("default")))

namespace {

constexpr int THREADS = 128;
constexpr unsigned long long NO_OFFER = ~0ull;

CUDA_INLINE size_t thread_of_grid() { return static_cast<size_t>(blockIdx.x) * THREADS + threadIdx.x; }

__global__ void __launch_bounds__(THREADS) offer_kernel(MeshArguments a) {
  const size_t item = thread_of_grid();
  if (item >= static_cast<size_t>(a.pictures) * a.triangles) return;
  const int picture = static_cast<int>(item / a.triangles), face = static_cast<int>(item % a.triangles);
  mesh::Triangle t;
  if (!mesh::load_triangle(a, picture, face, &t)) return;
  for (int row = t.first_row; row <= t.last_row; ++row) {
    for (int column = t.first_column; column <= t.last_column; ++column) {
      if (!mesh::covers(t, column, row)) continue;
      // Depths are positive, so that their bits are in the order of their values; of equal ones the first triangle wins.
      const unsigned depth = __float_as_uint(mesh::depth_at(t, mesh::place_in(t, column, row)));
      const unsigned long long offer = static_cast<unsigned long long>(depth) << 32 | static_cast<unsigned>(face);
      const size_t pixel = (static_cast<size_t>(picture) * a.height + row) * a.width + column;
      atomicMin(reinterpret_cast<unsigned long long*>(a.keys) + pixel, offer);
    }
  }
}

__global__ void __launch_bounds__(THREADS) pixel_kernel(MeshArguments a) {
  const size_t pixel = thread_of_grid(), area = static_cast<size_t>(a.width) * a.height;
  if (pixel >= a.pictures * area) return;
  const unsigned long long offer = a.keys[pixel];
  if (offer == NO_OFFER) {
    mesh::write_nothing(a, pixel);
    return;
  }
  const int face = static_cast<int>(offer & 0xffffffffu);
  const int column = static_cast<int>(pixel % a.width), row = static_cast<int>(pixel % area / a.width);
  mesh::Triangle t;
  mesh::load_triangle(a, static_cast<int>(pixel / area), face, &t);
  mesh::write_pixel(a, pixel, face, t, mesh::place_in(t, column, row));
}

__global__ void __launch_bounds__(THREADS) gradient_kernel(MeshArguments a) {
  const size_t item = thread_of_grid();
  if (item >= static_cast<size_t>(a.pictures) * a.triangles) return;
  mesh::write_gradient(a, static_cast<int>(item / a.triangles), static_cast<int>(item % a.triangles));
}

int forward(const MeshArguments& a, cudaStream_t stream) {
  const size_t pixels = static_cast<size_t>(a.pictures) * a.width * a.height;
  const size_t items = static_cast<size_t>(a.pictures) * a.triangles;
  int code = static_cast<int>(cudaMemsetAsync(a.keys, 0xff, pixels * sizeof(uint64_t), stream));
  if (code == 0 && items != 0) code = launch(offer_kernel, dim3(blocks_for(items, THREADS)), THREADS, stream, a);
  if (code == 0 && pixels != 0) code = launch(pixel_kernel, dim3(blocks_for(pixels, THREADS)), THREADS, stream, a);
  return code;
}

}  // namespace

extern "C" {

EXPORT int gaussian_head_cuda_mesh_forward(const MeshArguments* arguments, void* stream) {
  const int code = static_cast<int>(cudaSetDevice(arguments->device));
  return code != 0 ? code : forward(*arguments, static_cast<cudaStream_t>(stream));
}

EXPORT int gaussian_head_cuda_mesh_backward(const MeshArguments* arguments, void* stream) {
  const int code = static_cast<int>(cudaSetDevice(arguments->device));
  const size_t items = static_cast<size_t>(arguments->pictures) * arguments->triangles;
  if (code != 0 || items == 0) return code;
  return launch(
      gradient_kernel, dim3(blocks_for(items, THREADS)), THREADS, static_cast<cudaStream_t>(stream), *arguments);
}
}
