// Memory of one rasterization, kept between forward and backward and reused afterwards.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <new>

// Unnamed, because this is compiled once per instruction set and no two copies may be merged.
namespace {

constexpr int MAX_THREADS = 256;

// An array that grows, never shrinks, and is not initialised.
template <class T>
struct Buffer {
  T* data = nullptr;
  size_t capacity = 0;

  Buffer() = default;
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer() { std::free(data); }

  T& operator[](size_t i) { return data[i]; }

  // Makes room for n elements; keeps what is there.
  void reserve(size_t n) {
    if (n <= capacity) return;
    const size_t wanted = n + n / 2 + 64;
    void* grown = nullptr;
    if (posix_memalign(&grown, 64, wanted * sizeof(T)) != 0) throw std::bad_alloc();
    if (capacity != 0) __builtin_memcpy(grown, static_cast<void*>(data), capacity * sizeof(T));
    std::free(data);
    data = static_cast<T*>(grown);
    capacity = wanted;
  }
};

// What blending needs of one Gaussian: one cache line.
struct alignas(64) Splat {
  float mean_x, mean_y;    // px
  float xx, yx, yy;        // whitening that makes exp(power) = 2^-(u^2 + w^2)
  float log2_opacity;
  float r, g, b, depth;
  float opacity;
  uint32_t first_pair, pairs;  // slots in Workspace::pairs
  float unused[3];
};

struct Pair {
  uint32_t tile;
  uint32_t blocks;  // bit i: the ellipse meets block i (4 x 2 pixels, 4 blocks to a row) of the tile
};

// A Gaussian in a tile's list, front to back.
struct Entry {
  uint32_t gaussian, slot, blocks;
};

// Per pair: v u w uu uw ww r g b depth |x| |y|, then the features (|.|: absolute contributions to the projected centre).
constexpr int MOMENTS = 12;

struct Workspace {
  Buffer<Splat> splats;                       // [N], only visible ones written
  Buffer<uint8_t> visible;                    // [N] has at least one pair
  Buffer<Pair> pairs;                         // by Gaussian
  Buffer<uint32_t> order, order_swap;         // visible Gaussians, nearest first
  Buffer<uint32_t> keys, keys_swap;           // their depths' bits
  Buffer<uint32_t> tile_begin;                // [tiles + 1] into entries
  Buffer<Entry> entries;                      // by tile
  Buffer<float> transmittance;                // [tiles, 256] light left over, block by block
  Buffer<int32_t> last;                       // [tiles, 256] list position of the last Gaussian blended, or -1
  Buffer<float> slots;                        // [pairs, MOMENTS + E] filled by backward
  Buffer<float> tile_background;              // [tiles, 3]
  Buffer<Pair> thread_pairs[MAX_THREADS];     // each thread's part of pairs
  Buffer<float> scratch[MAX_THREADS];         // each thread's feature planes
  size_t pair_count = 0, visible_count = 0;
};

}  // namespace
