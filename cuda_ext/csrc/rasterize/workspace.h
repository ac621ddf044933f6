// Memory of one rasterization, kept between forward and backward and reused afterwards.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <new>

#include "../parallel.h"

// Unnamed, because this is compiled once per instruction set and no two copies may be merged.
namespace {

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
    const size_t wanted = n + n / 4 + 64;
    void* grown = nullptr;
    if (posix_memalign(&grown, 64, wanted * sizeof(T)) != 0) throw std::bad_alloc();
    if (capacity != 0) __builtin_memcpy(grown, static_cast<void*>(data), capacity * sizeof(T));
    std::free(data);
    data = static_cast<T*>(grown);
    capacity = wanted;
  }
};

constexpr int CHANNELS = 10;  // red, green, blue, depth, then the first features
constexpr int INLINE_FEATURES = 2;  // as many features go into channels; with more, none does

// What blending needs of one Gaussian: one cache line.
struct alignas(64) Splat {
  float mean_x, mean_y;  // px
  float xx, yx, yy;      // whitening that makes exp(power) = 2^-(u^2 + w^2)
  float log2_opacity;
  float channels[CHANNELS];
};

struct Pair {
  uint32_t tile;
  uint32_t blocks;  // bit i: the ellipse meets block i of the tile (blend_cpu.h)
};

// A Gaussian in a tile's list, front to back.
struct Entry {
  uint32_t gaussian, slot, blocks;
};

// Gaussians are projected a chunk at a time; which thread takes which chunk changes nothing.
constexpr int CHUNK = 256;
struct Chunk {
  int thread;               // whose pairs
  size_t pairs_offset;      // into that thread's pairs
  size_t first_slot;        // sum of the pairs of the chunks before
  uint32_t pairs, visible;
  uint32_t nearest, farthest;  // bits of the visible Gaussians' depths
};

constexpr int MAX_DIGIT_BITS = 12, MAX_PASSES = 3;

struct Workspace {
  Buffer<Splat> splats;                    // [N], only visible ones written
  Buffer<uint32_t> pair_begin, pair_count; // [N] into the chunk's pairs; 0 pairs: not visible
  Buffer<Chunk> chunks;
  Buffer<uint64_t> keys, order;            // [N] (depth's bits, Gaussian): visible ones by chunk; nearest first
  Buffer<uint32_t> digit_counts;
  Buffer<uint32_t> tile_begin;             // [tiles + 1] into entries
  Buffer<uint32_t> tile_counts;            // [threads, tiles]
  Buffer<Entry> entries;                   // by tile
  Buffer<float> transmittance;             // [tiles, 256] light left over, block by block
  Buffer<int32_t> end;                     // [tiles, 256] list position of the Gaussian that ended the pixel, or INT_MAX
  Buffer<float> slots;                     // [pairs, columns] filled by backward (blend_cpu.h)
  Buffer<float> tile_background;           // [tiles, 3]
  Buffer<Pair> pairs[MAX_THREADS];         // of the chunks that the thread took
  Buffer<float> scratch[MAX_THREADS];      // feature planes
  size_t visible = 0, pair_total = 0;
  const uint64_t* sorted = nullptr;
};

}  // namespace
