// Runs the CUDA sources of cuda_ext/csrc on a CPU, for tests: `g++ -x c++ -I tests/cuda_ext/emulate -c
// rasterize_cuda.cu`.
//
// One block at a time; each thread of it is a fiber that runs until it waits at a barrier or a warp operation, and each
// warp runs as far as it gets before the next one does. Memory shared by the block is filled with NaNs before each
// block. emulate_order() chooses in which order lanes, warps and blocks run: results that depend on it come from a
// missing barrier or an order that was taken for granted. A barrier that not all threads reach is an error (code 719),
// as are warp operations of less than 32 lanes.
#pragma once

#include <setjmp.h>
#include <ucontext.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#define __host__
#define __device__
#define __global__
#define __constant__ static const
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __shared__ static __attribute__((section("emulated_shared")))

struct dim3 {
  unsigned x, y, z;
  dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};
inline dim3 threadIdx, blockIdx, blockDim, gridDim;

typedef void* cudaStream_t;
typedef int cudaError_t;

// The linker's names for the section that holds all shared memory.
extern "C" char __start_emulated_shared[] __attribute__((visibility("hidden")));
extern "C" char __stop_emulated_shared[] __attribute__((visibility("hidden")));

namespace emulate {

constexpr unsigned LANES = 32;
constexpr size_t STACK_BYTES = 64 * 1024;
constexpr int LAUNCH_FAILURE = 719;

enum class Order { FORWARD, REVERSED, SHUFFLED };
enum class Status { READY, AT_BARRIER, AT_WARP_OPERATION, FINISHED };

struct Fiber {
  ucontext_t start;
  jmp_buf place;
  Status status;
  bool started;
  uint64_t given;  // to the barrier or warp operation that it waits at
};

// Type-erased so that a fiber's entry needs no template.
struct Task {
  void (*call)(const void*);
  const void* body;
};

inline Order order = Order::FORWARD;
inline int error = 0;
inline jmp_buf scheduler;
inline Task task;
inline unsigned block_threads, waiting_in_block, waiting_in_warp[32];
inline Fiber* current = nullptr;
inline uint64_t warp_values[32][LANES];  // what each lane gave to its warp's last operation
inline bool all_voted;                   // at the last barrier

inline Fiber* fibers() {
  static std::vector<Fiber> storage(1024);
  return storage.data();
}

inline char* stacks() {
  static char* storage = static_cast<char*>(std::malloc(1024 * STACK_BYTES));
  return storage;
}

inline unsigned current_thread() { return static_cast<unsigned>(current - fibers()); }

__attribute__((noinline)) inline void pause() {
  if (_setjmp(current->place) == 0) _longjmp(scheduler, 1);
}

inline void run_thread() {
  task.call(task.body);
  current->status = Status::FINISHED;
  _longjmp(scheduler, 1);
}

__attribute__((noinline)) inline void resume(unsigned thread) {
  current = fibers() + thread;
  threadIdx = dim3(thread);
  if (_setjmp(scheduler) != 0) return;
  if (current->started) _longjmp(current->place, 1);
  current->started = true;
  setcontext(&current->start);
}

inline void wait_for_block(bool vote) {
  current->given = vote;
  current->status = Status::AT_BARRIER;
  if (++waiting_in_block == block_threads) {
    waiting_in_block = 0;
    all_voted = true;
    for (unsigned i = 0; i < block_threads; ++i) {
      all_voted = all_voted && fibers()[i].given != 0;
      fibers()[i].status = Status::READY;
    }
  }
  pause();
}

// Gives `value` to the other lanes; returns what all lanes gave.
inline const uint64_t* exchange(uint64_t value) {
  const unsigned warp = current_thread() / LANES;
  current->given = value;
  current->status = Status::AT_WARP_OPERATION;
  if (++waiting_in_warp[warp] == LANES) {
    waiting_in_warp[warp] = 0;
    for (unsigned lane = 0; lane < LANES; ++lane) {
      Fiber& fiber = fibers()[warp * LANES + lane];
      warp_values[warp][lane] = fiber.given;
      fiber.status = Status::READY;
    }
  }
  pause();
  return warp_values[current_thread() / LANES];
}

template <class T>
uint64_t to_bits(T value) {
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof value);
  return bits;
}

template <class T>
T from_bits(uint64_t bits) {
  T value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

inline std::vector<unsigned> ordered(unsigned n, unsigned seed) {
  std::vector<unsigned> indices(n);
  for (unsigned i = 0; i < n; ++i) indices[i] = order == Order::REVERSED ? n - 1 - i : i;
  if (order != Order::SHUFFLED) return indices;
  uint64_t state = seed + 1;
  for (unsigned i = n; i > 1; --i) {
    state = state * 6364136223846793005ull + 1442695040888963407ull;
    const unsigned j = static_cast<unsigned>((state >> 33) % i), kept = indices[i - 1];
    indices[i - 1] = indices[j], indices[j] = kept;
  }
  return indices;
}

inline void start_block(unsigned threads) {
  std::memset(__start_emulated_shared, 0xff, static_cast<size_t>(__stop_emulated_shared - __start_emulated_shared));
  block_threads = threads, waiting_in_block = 0;
  std::memset(waiting_in_warp, 0, sizeof waiting_in_warp);
  for (unsigned i = 0; i < threads; ++i) {
    Fiber& fiber = fibers()[i];
    fiber.status = Status::READY, fiber.started = false;
    getcontext(&fiber.start);
    fiber.start.uc_stack.ss_sp = stacks() + i * STACK_BYTES;
    fiber.start.uc_stack.ss_size = STACK_BYTES;
    fiber.start.uc_link = nullptr;
    makecontext(&fiber.start, run_thread, 0);
  }
}

// Runs a warp as far as it gets without the others; returns how many of its threads moved.
inline unsigned run_warp(unsigned warp, unsigned seed) {
  const std::vector<unsigned> lanes = ordered(LANES, seed);
  unsigned moved = 0, before;
  do {
    before = moved;
    for (const unsigned lane : lanes) {
      const unsigned thread = warp * LANES + lane;
      if (fibers()[thread].status != Status::READY) continue;
      resume(thread);
      ++moved;
    }
  } while (moved > before);
  return moved;
}

// Runs the threads of one block to their ends; false if they wait for each other for ever. Warps get as far ahead of
// each other as barriers let them, which is what brings missing ones to light.
inline bool run_block(unsigned threads, unsigned seed) {
  start_block(threads);
  const std::vector<unsigned> warps = ordered(threads / LANES, seed);
  unsigned moved = 1;
  while (moved != 0) {
    moved = 0;
    for (const unsigned warp : warps) moved += run_warp(warp, seed);
  }
  for (unsigned i = 0; i < threads; ++i) {
    if (fibers()[i].status != Status::FINISHED) return false;
  }
  return true;
}

template <class Body>
void run(dim3 blocks, int threads, const Body& body) {
  task = {[](const void* b) { (*static_cast<const Body*>(b))(); }, &body};
  blockDim = dim3(static_cast<unsigned>(threads)), gridDim = blocks;
  const unsigned count = blocks.x * blocks.y;
  if (count == 0 || threads <= 0 || threads > 1024 || threads % static_cast<int>(LANES) != 0) {
    error = 9;  // cudaErrorInvalidConfiguration
    return;
  }
  for (const unsigned block : ordered(count, 0)) {
    blockIdx = dim3(block % blocks.x, block / blocks.x);
    if (run_block(static_cast<unsigned>(threads), block)) continue;
    error = LAUNCH_FAILURE;
    return;
  }
}

}  // namespace emulate

// 0: threads and blocks in order, 1: from the last to the first, 2: shuffled.
extern "C" __attribute__((visibility("default"), used)) inline void emulate_order(int order) {
  emulate::order = static_cast<emulate::Order>(order);
}

inline void __syncthreads() { emulate::wait_for_block(true); }
inline int __syncthreads_and(int vote) {
  emulate::wait_for_block(vote != 0);
  return emulate::all_voted;
}
inline unsigned __ballot_sync(unsigned, bool vote) {
  const uint64_t* votes = emulate::exchange(vote);
  unsigned bits = 0;
  for (unsigned lane = 0; lane < emulate::LANES; ++lane) bits |= votes[lane] != 0 ? 1u << lane : 0u;
  return bits;
}
template <class T>
T __shfl_xor_sync(unsigned, T value, int lanes) {
  const unsigned other = (threadIdx.x % emulate::LANES) ^ static_cast<unsigned>(lanes);
  return emulate::from_bits<T>(emulate::exchange(emulate::to_bits(value))[other]);
}
template <class T>
T __shfl_up_sync(unsigned, T value, unsigned by) {
  const unsigned lane = threadIdx.x % emulate::LANES;
  return emulate::from_bits<T>(emulate::exchange(emulate::to_bits(value))[lane >= by ? lane - by : lane]);
}
template <class T>
T __shfl_sync(unsigned, T value, int lane) {
  return emulate::from_bits<T>(emulate::exchange(emulate::to_bits(value))[lane]);
}
template <class T>
T __shfl_down_sync(unsigned, T value, unsigned by) {
  const unsigned lane = threadIdx.x % emulate::LANES;
  return emulate::from_bits<T>(
      emulate::exchange(emulate::to_bits(value))[lane + by < emulate::LANES ? lane + by : lane]);
}
inline void __syncwarp() { emulate::exchange(0); }
inline int __popc(unsigned bits) { return __builtin_popcount(bits); }
inline int __ffs(int bits) { return __builtin_ffs(bits); }
inline unsigned __float_as_uint(float value) { return emulate::from_bits<unsigned>(emulate::to_bits(value)); }

inline unsigned atomicAdd(unsigned* at, unsigned value) {
  const unsigned old = *at;
  *at = old + value;
  return old;
}
inline unsigned atomicSub(unsigned* at, unsigned value) { return atomicAdd(at, 0u - value); }
inline unsigned long long atomicMin(unsigned long long* at, unsigned long long value) {
  const unsigned long long old = *at;
  *at = old < value ? old : value;
  return old;
}
inline unsigned atomicMax(unsigned* at, unsigned value) {
  const unsigned old = *at;
  *at = old > value ? old : value;
  return old;
}

inline cudaError_t cudaGetLastError() {
  const int found = emulate::error;
  emulate::error = 0;
  return found;
}
inline const char* cudaGetErrorString(cudaError_t code) {
  return code == emulate::LAUNCH_FAILURE ? "emulator: not all threads reached the same barrier"
                                         : "emulator: invalid launch";
}
inline cudaError_t cudaSetDevice(int) { return 0; }
inline cudaError_t cudaMemsetAsync(void* at, int value, size_t bytes, cudaStream_t) {
  std::memset(at, value, bytes);
  return 0;
}
