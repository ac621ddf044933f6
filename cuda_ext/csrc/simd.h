// Eight floats at a time, on any machine: GCC/Clang vector types, with intrinsics where the compiler needs a hint.
//
// Included by translation units that are compiled several times, once per instruction set. Everything lives in an
// unnamed namespace so that no two copies are ever merged by the linker.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#ifdef __AVX2__
#include <immintrin.h>
#endif

#define SIMD_INLINE inline __attribute__((always_inline))

namespace {

typedef float f8 __attribute__((vector_size(32)));
typedef int32_t i8 __attribute__((vector_size(32)));

constexpr int LANES = 8;

SIMD_INLINE f8 load(const float* p) {
  f8 v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
SIMD_INLINE i8 load(const int32_t* p) {
  i8 v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
SIMD_INLINE void store(float* p, f8 v) { std::memcpy(p, &v, sizeof v); }
SIMD_INLINE void store(int32_t* p, i8 v) { std::memcpy(p, &v, sizeof v); }
SIMD_INLINE f8 all8(float x) { return f8{} + x; }
SIMD_INLINE i8 all8(int32_t x) { return i8{} + x; }

// Bit pattern of the lanes that are set in a comparison's result.
SIMD_INLINE unsigned lane_bits(i8 mask) {
#ifdef __AVX2__
  return static_cast<unsigned>(_mm256_movemask_ps(reinterpret_cast<__m256>(mask)));
#else
  unsigned bits = 0;
  for (int i = 0; i < LANES; ++i) bits |= static_cast<unsigned>(mask[i] & 1) << i;
  return bits;
#endif
}

SIMD_INLINE bool any(i8 mask) {
#ifdef __AVX2__
  return !_mm256_testz_si256(reinterpret_cast<__m256i>(mask), reinterpret_cast<__m256i>(mask));
#else
  int bits = 0;
  for (int i = 0; i < LANES; ++i) bits |= mask[i];
  return bits != 0;
#endif
}

// `v` where the mask is set, else +0: also for lanes that hold NaN or infinity.
SIMD_INLINE f8 keep(i8 mask, f8 v) { return reinterpret_cast<f8>(mask & reinterpret_cast<i8>(v)); }

// a * b + c; one rounding where the machine has the instruction.
SIMD_INLINE float fma(float a, float b, float c) { return a * b + c; }
SIMD_INLINE f8 fma(f8 a, f8 b, f8 c) {
#ifdef __FMA__
  return reinterpret_cast<f8>(_mm256_fmadd_ps(reinterpret_cast<__m256>(a), reinterpret_cast<__m256>(b), reinterpret_cast<__m256>(c)));
#else
  return a * b + c;
#endif
}

SIMD_INLINE float min(float a, float b) { return a < b ? a : b; }
SIMD_INLINE float max(float a, float b) { return a > b ? a : b; }
SIMD_INLINE f8 min(f8 a, f8 b) { return a < b ? a : b; }
SIMD_INLINE f8 max(f8 a, f8 b) { return a > b ? a : b; }
SIMD_INLINE f8 abs(f8 a) { return reinterpret_cast<f8>(reinterpret_cast<i8>(a) & 0x7fffffff); }

SIMD_INLINE float sqrt(float a) { return __builtin_sqrtf(a); }
SIMD_INLINE f8 sqrt(f8 a) {
#ifdef __AVX2__
  return reinterpret_cast<f8>(_mm256_sqrt_ps(reinterpret_cast<__m256>(a)));
#else
  for (int i = 0; i < LANES; ++i) a[i] = __builtin_sqrtf(a[i]);
  return a;
#endif
}

// 2^x for -126 <= x <= 126 or so, 2e-7 relative; meaningless (never trapping) far outside.
SIMD_INLINE f8 exp2(f8 x) {
#ifdef __AVX2__
  const i8 whole = reinterpret_cast<i8>(_mm256_cvtps_epi32(reinterpret_cast<__m256>(x)));
#else
  const i8 whole = __builtin_convertvector(min(max(x, all8(-127.0f)), all8(127.0f)) + 127.5f, i8) - 127;
#endif
  const f8 r = x - __builtin_convertvector(whole, f8);  // in [-0.5, 0.5]
  f8 y = all8(1.3333558146428443e-3f);
  y = fma(y, r, all8(9.618129107628477e-3f));
  y = fma(y, r, all8(5.550410866482158e-2f));
  y = fma(y, r, all8(2.402265069591007e-1f));
  y = fma(y, r, all8(6.931471805599453e-1f));
  y = fma(y, r, all8(1.0f));
  return reinterpret_cast<f8>(reinterpret_cast<i8>(y) + (whole << 23));
}

SIMD_INLINE float sum(f8 v) {
#ifdef __AVX2__
  const __m256 a = reinterpret_cast<__m256>(v);
  __m128 b = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  b = _mm_add_ps(b, _mm_movehl_ps(b, b));
  return _mm_cvtss_f32(_mm_add_ss(b, _mm_shuffle_ps(b, b, 1)));
#else
  return ((v[0] + v[4]) + (v[2] + v[6])) + ((v[1] + v[5]) + (v[3] + v[7]));
#endif
}

// The eight sums of eight vectors, as one vector.
SIMD_INLINE f8 sums(f8 a, f8 b, f8 c, f8 d, f8 e, f8 f, f8 g, f8 h) {
#ifdef __AVX2__
  auto add = [](f8 p, f8 q) { return _mm256_hadd_ps(reinterpret_cast<__m256>(p), reinterpret_cast<__m256>(q)); };
  const __m256 low = _mm256_hadd_ps(add(a, b), add(c, d)), high = _mm256_hadd_ps(add(e, f), add(g, h));
  return reinterpret_cast<f8>(_mm256_add_ps(_mm256_permute2f128_ps(low, high, 0x20), _mm256_permute2f128_ps(low, high, 0x31)));
#else
  return f8{sum(a), sum(b), sum(c), sum(d), sum(e), sum(f), sum(g), sum(h)};
#endif
}

}  // namespace
