// Loops over OpenMP's threads, or plain loops where there is none. Unnamed namespace: see simd.h.
#pragma once

#ifdef _OPENMP
#include <omp.h>
#endif

namespace {

constexpr int MAX_THREADS = 256;

inline int thread_count(int wanted) { return wanted < 1 ? 1 : wanted < MAX_THREADS ? wanted : MAX_THREADS; }

// Runs body(part) for part = 0..parts-1, each on its own thread if it can.
template <class Body>
void parallel(int parts, const Body& body) {
#ifdef _OPENMP
#pragma omp parallel for num_threads(parts) schedule(static, 1) if (parts > 1)
#endif
  for (int part = 0; part < parts; ++part) body(part);
}

// Runs body(item, thread) for every item, a few at a time; which thread gets which item is not fixed.
template <class Body>
void parallel_dynamic(int threads, int items, const Body& body) {
#ifdef _OPENMP
#pragma omp parallel for num_threads(threads) schedule(dynamic, 2) if (threads > 1)
  for (int item = 0; item < items; ++item) body(item, omp_get_thread_num());
#else
  for (int item = 0; item < items; ++item) body(item, 0);
#endif
}

}  // namespace
