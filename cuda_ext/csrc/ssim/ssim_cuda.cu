// L1 and SSIM on a GPU. A block takes 16 x 16 pixels of one channel: it loads them with a margin of five, blurs along
// rows and then along columns in shared memory. As on the CPU, x^2 + y^2 is blurred as one map.
#include "../cuda_platform.h"
#include "ssim_cuda.h"

#define EXPORT __attribute__((visibility("default")))

namespace {

constexpr int SIDE = 16, HALF = 5, PADDED = SIDE + 2 * HALF, THREADS = SIDE * SIDE, SUMS = 3;
constexpr float C1 = 0.01f * 0.01f, C2 = 0.03f * 0.03f;

// exp(-i^2 / (2 * 1.5^2)), i = 0..5, divided by the sum of all eleven.
__constant__ float TAPS[HALF + 1] = {0.26601171f, 0.21300554f, 0.10936069f, 0.03600077f, 0.00759876f, 0.00102838f};

struct Place {
  int column, row, x, y;  // in the block and in the picture
  size_t plane, at;       // of the channel's first pixel and of this one
  bool inside;
  CUDA_INLINE explicit Place(const SsimCudaImages& im) {
    const int across = (im.width + SIDE - 1) / SIDE, block = static_cast<int>(blockIdx.x);
    column = static_cast<int>(threadIdx.x) % SIDE, row = static_cast<int>(threadIdx.x) / SIDE;
    x = block % across * SIDE + column, y = block / across * SIDE + row;
    plane = static_cast<size_t>(blockIdx.y) * im.width * im.height;
    inside = x < im.width && y < im.height;
    at = plane + static_cast<size_t>(y) * im.width + x;
  }
};

CUDA_INLINE float taps_along(const float* centre, int step) {
  float sum = TAPS[0] * centre[0];
#pragma unroll
  for (int i = 1; i <= HALF; ++i) sum = fma(TAPS[i], centre[-i * step] + centre[i * step], sum);
  return sum;
}

// The block's pixels of a plane with their margin, zeros outside the picture.
CUDA_INLINE void load_padded(
    const SsimCudaImages& im, const Place& place, const float* plane, float out[PADDED][PADDED]) {
  const int left = place.x - place.column - HALF, top = place.y - place.row - HALF;
  for (int i = static_cast<int>(threadIdx.x); i < PADDED * PADDED; i += THREADS) {
    const int x = left + i % PADDED, y = top + i / PADDED;
    const bool inside = x >= 0 && x < im.width && y >= 0 && y < im.height;
    out[i / PADDED][i % PADDED] = inside ? plane[static_cast<size_t>(y) * im.width + x] : 0.0f;
  }
}

CUDA_INLINE float sum_of_block(float value, float* warp_sums) {
#pragma unroll
  for (int step = WARP / 2; step > 0; step /= 2) value += __shfl_xor_sync(WHOLE_WARP, value, step);
  __syncthreads();  // the sums of an earlier call have been read
  if (lane_index() == 0) warp_sums[warp_index()] = value;
  __syncthreads();
  float sum = 0.0f;
  for (int warp = 0; warp < THREADS / WARP; ++warp) sum += warp_sums[warp];
  return sum;
}

__global__ void __launch_bounds__(THREADS) ssim_kernel(SsimCudaImages im) {
  __shared__ float x[PADDED][PADDED], y[PADDED][PADDED];
  __shared__ float rows[4][PADDED][SIDE];  // x, y, x^2 + y^2, x y blurred along rows
  __shared__ float warp_sums[THREADS / WARP];
  const Place place(im);
  load_padded(im, place, im.prediction + place.plane, x);
  load_padded(im, place, im.target + place.plane, y);
  __syncthreads();
  for (int i = static_cast<int>(threadIdx.x); i < PADDED * SIDE; i += THREADS) {
    const int row = i / SIDE, column = i % SIDE;
    float sums[4] = {};
    for (int tap = -HALF; tap <= HALF; ++tap) {
      const float a = x[row][column + HALF + tap], b = y[row][column + HALF + tap], w = TAPS[tap < 0 ? -tap : tap];
      sums[0] = fma(w, a, sums[0]), sums[1] = fma(w, b, sums[1]);
      sums[2] = fma(w, fma(a, a, b * b), sums[2]), sums[3] = fma(w, a * b, sums[3]);
    }
    for (int map = 0; map < 4; ++map) rows[map][row][column] = sums[map];
  }
  __syncthreads();
  float difference = 0.0f, similarity = 0.0f, weight = 0.0f;
  if (place.inside) {
    float m[4];
    for (int map = 0; map < 4; ++map) m[map] = taps_along(&rows[map][place.row + HALF][place.column], SIDE);
    const float mxy = m[0] * m[1], mm = m[0] * m[0] + m[1] * m[1];
    const float a1 = 2.0f * mxy + C1, a2 = 2.0f * (m[3] - mxy) + C2, b1 = mm + C1, b2 = m[2] - mm + C2;
    const float inverse = 1.0f / (b1 * b2), value = a1 * a2 * inverse;
    weight = im.mask == nullptr ? 1.0f : im.mask[place.at - place.plane];
    difference = weight * fabsf(x[place.row + HALF][place.column + HALF] - y[place.row + HALF][place.column + HALF]);
    similarity = weight * value;
    if (im.maps != nullptr) {
      const size_t map = static_cast<size_t>(im.channels) * im.width * im.height;
      im.maps[place.at] = weight * (2.0f * (m[1] * (a2 - a1) * inverse - value * m[0] * (b2 - b1) * inverse));
      im.maps[map + place.at] = weight * (-value * (b1 * inverse));
      im.maps[2 * map + place.at] = weight * (2.0f * a1 * inverse);
    }
  }
  const float sums[SUMS] = {difference, similarity, weight};
  for (int i = 0; i < SUMS; ++i) {
    const float sum = sum_of_block(sums[i], warp_sums);
    const size_t block = static_cast<size_t>(blockIdx.y) * gridDim.x + blockIdx.x;
    if (threadIdx.x == 0) im.partial[SUMS * block + i] = sum;
  }
}

// One block: the blocks' sums in a fixed order, and the means.
__global__ void __launch_bounds__(THREADS) mean_kernel(SsimCudaImages im, size_t blocks) {
  __shared__ double sums[SUMS][THREADS];
  for (int i = 0; i < SUMS; ++i) {
    double sum = 0;
    for (size_t block = threadIdx.x; block < blocks; block += THREADS) sum += im.partial[SUMS * block + i];
    sums[i][threadIdx.x] = sum;
  }
  __syncthreads();
  if (threadIdx.x != 0) return;
  double total[SUMS] = {};
  for (int i = 0; i < SUMS; ++i) {
    for (int thread = 0; thread < THREADS; ++thread) total[i] += sums[i][thread];
  }
  const double least = 2.220446049250313e-16 * im.channels, weight = total[2] > least ? total[2] : least;
  *im.l1 = static_cast<float>(total[0] / weight);
  *im.ssim = static_cast<float>(total[1] / weight);
  *im.inverse_weight = static_cast<float>(1.0 / weight);
}

__global__ void __launch_bounds__(THREADS) ssim_backward_kernel(SsimCudaImages im) {
  __shared__ float padded[3][PADDED][PADDED], rows[3][PADDED][SIDE];
  const Place place(im);
  const size_t map_floats = static_cast<size_t>(im.channels) * im.width * im.height;
  for (int map = 0; map < 3; ++map) load_padded(im, place, im.maps + map * map_floats + place.plane, padded[map]);
  __syncthreads();
  for (int i = static_cast<int>(threadIdx.x); i < 3 * PADDED * SIDE; i += THREADS) {
    const int map = i / (PADDED * SIDE), row = i / SIDE % PADDED, column = i % SIDE;
    rows[map][row][column] = taps_along(&padded[map][row][column + HALF], 1);
  }
  __syncthreads();
  if (!place.inside) return;
  float m[3];
  for (int map = 0; map < 3; ++map) m[map] = taps_along(&rows[map][place.row + HALF][place.column], SIDE);
  const float a = im.prediction[place.at], b = im.target[place.at];
  const float weight = im.mask == nullptr ? 1.0f : im.mask[place.at - place.plane];
  const float sign = a > b ? 1.0f : a < b ? -1.0f : 0.0f;
  const float by_ssim = m[0] + 2.0f * a * m[1] + b * m[2];
  im.grad_prediction[place.at] = *im.inverse_weight * (*im.grad_ssim * by_ssim + *im.grad_l1 * (weight * sign));
}

dim3 blocks_of(const SsimCudaImages& im) {
  const unsigned across = static_cast<unsigned>((im.width + SIDE - 1) / SIDE),
                 down = static_cast<unsigned>((im.height + SIDE - 1) / SIDE);
  return dim3(across * down, static_cast<unsigned>(im.channels));
}

}  // namespace

extern "C" {

EXPORT size_t gaussian_head_cuda_l1_ssim_bytes(const SsimCudaImages* images) {
  const dim3 blocks = blocks_of(*images);
  return sizeof(float) * SUMS * blocks.x * blocks.y;
}

EXPORT int gaussian_head_cuda_l1_ssim_forward(const SsimCudaImages* images, void* stream) {
  const int code = static_cast<int>(cudaSetDevice(images->device));
  if (code != 0) return code;
  const dim3 blocks = blocks_of(*images);
  const int failed = launch(ssim_kernel, blocks, THREADS, static_cast<cudaStream_t>(stream), *images);
  if (failed != 0) return failed;
  const size_t count = static_cast<size_t>(blocks.x) * blocks.y;
  return launch(mean_kernel, dim3(1), THREADS, static_cast<cudaStream_t>(stream), *images, count);
}

EXPORT int gaussian_head_cuda_l1_ssim_backward(const SsimCudaImages* images, void* stream) {
  const int code = static_cast<int>(cudaSetDevice(images->device));
  if (code != 0) return code;
  return launch(ssim_backward_kernel, blocks_of(*images), THREADS, static_cast<cudaStream_t>(stream), *images);
}
}
