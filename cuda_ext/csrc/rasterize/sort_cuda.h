// Lists of Gaussians by tile, nearest first. Each list is sorted by (depth, slot): slots rise with the Gaussian's
// index, so equal depths keep the order of the input, and it does not matter in which order the threads filled the
// list.
#pragma once

#include "project_cuda.h"

namespace {

constexpr int SCAN_THREADS = 512, SORT_THREADS = 256;
constexpr int SORT_ROOM = 2048;  // entries sorted in shared memory, 16 KB; a power of two
constexpr unsigned long long MOST_PAIRS = 0x7fffffff;

// Turns n counts into where each begins, or into zeros, by one block; returns their sum.
CUDA_INLINE unsigned long long begin_from_counts(uint32_t* counts, uint32_t* begin, size_t n, bool zeros) {
  const size_t share = (n + SCAN_THREADS - 1) / SCAN_THREADS;
  const size_t from = share * threadIdx.x < n ? share * threadIdx.x : n, to = from + share < n ? from + share : n;
  unsigned long long sum = 0, total;
  for (size_t i = from; i < to; ++i) sum += counts[i];
  unsigned long long at = block_exclusive_sum<SCAN_THREADS>(sum, &total);
  for (size_t i = from; i < to; ++i) {
    const uint32_t count = counts[i];
    begin[i] = zeros ? 0 : static_cast<uint32_t>(at);
    at += count;
  }
  return total;
}

// One block: where each block's slots and each tile's list begin. Without room for all pairs, every list is empty.
__global__ void __launch_bounds__(SCAN_THREADS)
    begin_kernel(RasterizeCudaView view, Saved saved, ForwardScratch scratch, size_t blocks, size_t tiles) {
  const unsigned long long pairs = begin_from_counts(scratch.block_pairs, scratch.block_pairs, blocks, false);
  const bool fits = pairs <= static_cast<unsigned long long>(view.pair_capacity);
  begin_from_counts(scratch.tile_pairs, saved.tile_begin, tiles, !fits);
  if (threadIdx.x == 0) {
    saved.tile_begin[tiles] = fits ? static_cast<uint32_t>(pairs) : 0;
    *saved.drawn = fits ? static_cast<uint32_t>(pairs) : 0;
    atomicMax(view.status, static_cast<uint32_t>(pairs < MOST_PAIRS ? pairs : MOST_PAIRS));
    if (!fits) atomicAdd(view.status + 1, 1u);
  }
}

// Deals the pairs out to their tiles: an entry is (depth, slot) until it is sorted.
__global__ void __launch_bounds__(PROJECT_THREADS)
    list_kernel(RasterizeCudaView view, Saved saved, ForwardScratch scratch) {
  __shared__ uint32_t begins[PROJECT_THREADS], depths[PROJECT_THREADS];
  const size_t i = static_cast<size_t>(blockIdx.x) * PROJECT_THREADS + threadIdx.x;
  const bool mine = i < static_cast<size_t>(view.gaussians);
  const uint32_t pairs = mine ? saved.pair_count[i] : 0;
  uint32_t total;
  const uint32_t begin = scratch.block_pairs[blockIdx.x] + block_exclusive_sum<PROJECT_THREADS>(pairs, &total);
  if (*saved.drawn == 0) return;
  Splat s = {};
  if (pairs != 0) s = saved.splats[i];
  if (mine) saved.pair_begin[i] = begin;
  const uint32_t depth = __float_as_uint(s.depth);  // bits of positive floats order like the floats
  // Every lane's, since a warp may list the tiles of one Gaussian together.
  const int warp_first = static_cast<int>(threadIdx.x) - lane_index();
  begins[threadIdx.x] = begin, depths[threadIdx.x] = depth;
  __syncwarp();
  for_tiles(view, s, [&](int owner, uint32_t tile, uint32_t rank) {
    const uint32_t place = saved.tile_begin[tile] + atomicSub(scratch.tile_pairs + tile, 1u) - 1u;
    const uint32_t slot = begins[warp_first + owner] + rank;
    saved.entries[place] = static_cast<Entry>(depths[warp_first + owner]) << 32 | slot;
    scratch.pair_gaussian[slot] = static_cast<uint32_t>(blockIdx.x * PROJECT_THREADS + warp_first + owner);
  });
}

// Bitonic sort of `n` <= SORT_ROOM keys by a whole block, the rest of a power of two filled with the largest key.
CUDA_INLINE void sort_in_shared(Entry* keys, int n) {
  int padded = 2;
  while (padded < n) padded *= 2;
  for (int i = n + static_cast<int>(threadIdx.x); i < padded; i += SORT_THREADS) keys[i] = ~0ull;
  for (int run = 2; run <= padded; run *= 2) {
    for (int stride = run / 2; stride > 0; stride /= 2) {
      __syncthreads();
      for (int i = static_cast<int>(threadIdx.x); i < padded / 2; i += SORT_THREADS) {
        const int low = 2 * i - (i & (stride - 1)), high = low + stride;
        const Entry a = keys[low], b = keys[high];
        if ((a > b) == ((low & run) == 0)) keys[low] = b, keys[high] = a;
      }
    }
  }
  __syncthreads();
}

// Number of sorted keys below `key`.
CUDA_INLINE uint32_t count_below(const Entry* keys, uint32_t n, Entry key) {
  uint32_t low = 0, high = n;
  while (low < high) {
    const uint32_t middle = low + (high - low) / 2;
    if (keys[middle] < key) low = middle + 1;
    else high = middle;
  }
  return low;
}

// Merges sorted runs of SORT_ROOM keys in global memory, back and forth; returns where the sorted list ends up.
CUDA_INLINE Entry* merge_runs(Entry* from, Entry* to, uint32_t n) {
  for (size_t run = SORT_ROOM; run < n; run *= 2) {
    for (uint32_t i = threadIdx.x; i < n; i += SORT_THREADS) {
      const size_t own = i / run * run, pair = i / (2 * run) * (2 * run), other = own == pair ? pair + run : pair;
      const size_t other_end = other + run < n ? other + run : n, length = other < n ? other_end - other : 0;
      const Entry key = from[i];
      // Keys differ, so each finds a place of its own.
      to[pair + (i - own) + count_below(from + (length == 0 ? 0 : other), static_cast<uint32_t>(length), key)] = key;
    }
    __syncthreads();
    Entry* sorted = to;
    to = from, from = sorted;
  }
  return from;
}

// One block for each tile: sorts its list and turns (depth, slot) into (slot, Gaussian).
__global__ void __launch_bounds__(SORT_THREADS) sort_kernel(Saved saved, ForwardScratch scratch) {
  __shared__ Entry keys[SORT_ROOM];
  const uint32_t begin = saved.tile_begin[blockIdx.x], n = saved.tile_begin[blockIdx.x + 1] - begin;
  Entry *list = saved.entries + begin, *sorted = list;
  for (uint32_t first = 0; first < n; first += SORT_ROOM) {
    const int here = static_cast<int>(n - first < SORT_ROOM ? n - first : SORT_ROOM);
    for (int i = static_cast<int>(threadIdx.x); i < here; i += SORT_THREADS) keys[i] = list[first + i];
    sort_in_shared(keys, here);
    if (n <= SORT_ROOM) {
      sorted = keys;
    } else {
      for (int i = static_cast<int>(threadIdx.x); i < here; i += SORT_THREADS) list[first + i] = keys[i];
      __syncthreads();
    }
  }
  if (n > SORT_ROOM) sorted = merge_runs(list, scratch.merged + begin, n);
  for (uint32_t i = threadIdx.x; i < n; i += SORT_THREADS) {
    const uint32_t slot = static_cast<uint32_t>(sorted[i]);
    list[i] = static_cast<Entry>(slot) << 32 | scratch.pair_gaussian[slot];
  }
}

}  // namespace
