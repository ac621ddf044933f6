// LANES floats at a time, on any machine: GCC/Clang vector types, with intrinsics where the compiler needs a hint.
//
// Included by translation units that are compiled several times, once per instruction set. Everything lives in an
// unnamed namespace so that no two copies are ever merged by the linker. -DSIMD_LANES=16 compiles the wide code for a
// machine without wide registers: slow, but a test of it.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <utility>
#if defined(__AVX2__)
#include <immintrin.h>
#endif

#ifndef SIMD_LANES
#ifdef __AVX512F__
#define SIMD_LANES 16
#else
#define SIMD_LANES 8
#endif
#endif
#if SIMD_LANES == 16 && defined(__AVX512F__)
#define SIMD_AVX512
#elif SIMD_LANES == 8 && defined(__AVX2__)
#define SIMD_AVX2
#endif

#define SIMD_INLINE inline __attribute__((always_inline))

namespace {

constexpr int LANES = SIMD_LANES;

typedef float fv __attribute__((vector_size(4 * LANES)));
typedef int32_t iv __attribute__((vector_size(4 * LANES)));

SIMD_INLINE fv load(const float* p) {
  fv v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
SIMD_INLINE iv load(const int32_t* p) {
  iv v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
SIMD_INLINE void store(float* p, fv v) { std::memcpy(p, &v, sizeof v); }
SIMD_INLINE void store(int32_t* p, iv v) { std::memcpy(p, &v, sizeof v); }
SIMD_INLINE fv all(float x) { return x - fv{}; }  // x + 0 would not be x for -0, so a compiler would have to add
SIMD_INLINE iv all(int32_t x) { return x - iv{}; }

// Bit pattern of the lanes whose sign is set: those that are true in a comparison's result.
SIMD_INLINE unsigned lane_bits(iv mask) {
#if defined(SIMD_AVX512)
  return static_cast<unsigned>(_mm512_movepi32_mask(reinterpret_cast<__m512i>(mask)));
#elif defined(SIMD_AVX2)
  return static_cast<unsigned>(_mm256_movemask_ps(reinterpret_cast<__m256>(mask)));
#else
  unsigned bits = 0;
  for (int i = 0; i < LANES; ++i) bits |= static_cast<unsigned>(mask[i] < 0) << i;
  return bits;
#endif
}
constexpr unsigned ALL_LANES = (1u << LANES) - 1;

// `v` where the mask is set, else +0: also for lanes that hold NaN or infinity.
SIMD_INLINE fv keep(iv mask, fv v) { return reinterpret_cast<fv>(mask & reinterpret_cast<iv>(v)); }

// a * b + c; one rounding where the machine has the instruction.
SIMD_INLINE fv fma(fv a, fv b, fv c) {
#if defined(SIMD_AVX512)
  return reinterpret_cast<fv>(_mm512_fmadd_ps(reinterpret_cast<__m512>(a), reinterpret_cast<__m512>(b), reinterpret_cast<__m512>(c)));
#elif defined(SIMD_AVX2) && defined(__FMA__)
  return reinterpret_cast<fv>(_mm256_fmadd_ps(reinterpret_cast<__m256>(a), reinterpret_cast<__m256>(b), reinterpret_cast<__m256>(c)));
#else
  return a * b + c;
#endif
}

// b where either is NaN.
SIMD_INLINE fv min(fv a, fv b) {
#if defined(SIMD_AVX512)
  return reinterpret_cast<fv>(_mm512_min_ps(reinterpret_cast<__m512>(a), reinterpret_cast<__m512>(b)));
#elif defined(SIMD_AVX2)
  return reinterpret_cast<fv>(_mm256_min_ps(reinterpret_cast<__m256>(a), reinterpret_cast<__m256>(b)));
#else
  return a < b ? a : b;
#endif
}
SIMD_INLINE fv max(fv a, fv b) {
#if defined(SIMD_AVX512)
  return reinterpret_cast<fv>(_mm512_max_ps(reinterpret_cast<__m512>(a), reinterpret_cast<__m512>(b)));
#elif defined(SIMD_AVX2)
  return reinterpret_cast<fv>(_mm256_max_ps(reinterpret_cast<__m256>(a), reinterpret_cast<__m256>(b)));
#else
  return a > b ? a : b;
#endif
}
SIMD_INLINE fv abs(fv a) { return reinterpret_cast<fv>(reinterpret_cast<iv>(a) & 0x7fffffff); }
SIMD_INLINE fv to_float(iv a) { return __builtin_convertvector(a, fv); }
SIMD_INLINE iv truncated(fv a) { return __builtin_convertvector(a, iv); }  // |a| < 2^31

SIMD_INLINE fv sqrt(fv a) {
#if defined(SIMD_AVX512)
  return reinterpret_cast<fv>(_mm512_sqrt_ps(reinterpret_cast<__m512>(a)));
#elif defined(SIMD_AVX2)
  return reinterpret_cast<fv>(_mm256_sqrt_ps(reinterpret_cast<__m256>(a)));
#else
  for (int i = 0; i < LANES; ++i) a[i] = __builtin_sqrtf(a[i]);
  return a;
#endif
}

// 2^x for -126 <= x < 128, 2e-7 relative; meaningless (never trapping) outside.
SIMD_INLINE fv exp2(fv x) {
#if defined(SIMD_AVX512)
  const iv whole = reinterpret_cast<iv>(_mm512_cvtps_epi32(reinterpret_cast<__m512>(x)));
#elif defined(SIMD_AVX2)
  const iv whole = reinterpret_cast<iv>(_mm256_cvtps_epi32(reinterpret_cast<__m256>(x)));
#else
  const fv bounded = min(max(x, all(-126.0f)), all(128.0f));
  const iv whole = truncated(bounded + 126.5f) - 126;
  x = bounded;
#endif
  const fv r = x - to_float(whole);  // in [-0.5, 0.5]
  // Three short sums side by side: what waits for this waits less than for one long one.
  const fv rr = r * r;
  const fv y0 = fma(all(6.931471805599453e-1f), r, all(1.0f)), y1 = fma(all(5.550410866482158e-2f), r, all(2.402265069591007e-1f));
  const fv y2 = fma(all(1.3333558146428443e-3f), r, all(9.618129107628477e-3f));
  const fv y = fma(fma(y2, rr, y1), rr, y0);
  return reinterpret_cast<fv>(static_cast<iv>(reinterpret_cast<iv>(y) + (whole << 23)));
}

// log2 of positive normal numbers, 1e-7: x = 2^e m with m about 1, log m = 2 artanh((m - 1) / (m + 1)).
SIMD_INLINE fv log2(fv x) {
  const iv bits = reinterpret_cast<iv>(x), exponent = (bits - 0x3f3504f3) >> 23;
  const fv m = reinterpret_cast<fv>(static_cast<iv>(bits - (exponent << 23)));  // in [sqrt(1/2), sqrt(2))
  const fv s = (m - 1.0f) / (m + 1.0f), ss = s * s;
  fv y = all(0.32059890f);  // 2 / (ln(2) k), k = 9, 7, 5, 3, 1
  y = fma(y, ss, all(0.41219858f));
  y = fma(y, ss, all(0.57707802f));
  y = fma(y, ss, all(0.96179669f));
  y = fma(y, ss, all(2.88539008f));
  return fma(y, s, to_float(exponent));
}

// Lane i of the result: lane index[i] of a, or index[i] - LANES of b; indices are constants.
#ifdef __clang__
#define SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define SHUFFLE(a, b, ...) __builtin_shuffle(a, b, iv{__VA_ARGS__})
#endif

using LaneSequence = std::make_integer_sequence<int, LANES>;

template <int... L>
SIMD_INLINE iv indices(std::integer_sequence<int, L...>) {
  return iv{L...};
}
SIMD_INLINE iv lane_index() { return indices(LaneSequence{}); }

// Blocks of S lanes taken by turns from a and b: the first, third, ... of both, or the second, fourth, ...
template <int S, int... L>
SIMD_INLINE fv even_blocks(fv a, fv b, std::integer_sequence<int, L...>) {
  return SHUFFLE(a, b, (L & S ? LANES + L - S : L)...);
}
template <int S, int... L>
SIMD_INLINE fv odd_blocks(fv a, fv b, std::integer_sequence<int, L...>) {
  return SHUFFLE(a, b, (L & S ? LANES + L : L + S)...);
}

template <int S>
SIMD_INLINE void transpose_blocks(fv* v) {
#pragma GCC unroll 16
  for (int i = 0; i < LANES; ++i) {
    if ((i & S) != 0) continue;
    const fv a = v[i], b = v[i + S];
    v[i] = even_blocks<S>(a, b, LaneSequence{}), v[i + S] = odd_blocks<S>(a, b, LaneSequence{});
  }
  if constexpr (2 * S < LANES) transpose_blocks<2 * S>(v);
}

// Exchanges rows and columns of v[LANES].
SIMD_INLINE void transpose(fv* v) { transpose_blocks<1>(v); }

template <int S>
SIMD_INLINE fv sum_blocks(const fv* v) {  // of the S vectors v
  if constexpr (S == 1) {
    return v[0];
  } else {
    constexpr int HALF = S / 2;
    const fv a = sum_blocks<HALF>(v), b = sum_blocks<HALF>(v + HALF);
    return even_blocks<HALF>(a, b, LaneSequence{}) + odd_blocks<HALF>(a, b, LaneSequence{});
  }
}

// Lane i of the result is the sum of all lanes of v[i].
SIMD_INLINE fv sums(const fv* v) {
#ifdef SIMD_AVX2
  auto add = [&](int i) { return _mm256_hadd_ps(reinterpret_cast<__m256>(v[i]), reinterpret_cast<__m256>(v[i + 1])); };
  const __m256 low = _mm256_hadd_ps(add(0), add(2)), high = _mm256_hadd_ps(add(4), add(6));
  return reinterpret_cast<fv>(_mm256_add_ps(_mm256_permute2f128_ps(low, high, 0x20), _mm256_permute2f128_ps(low, high, 0x31)));
#else
  return sum_blocks<LANES>(v);
#endif
}

SIMD_INLINE float sum(fv v) {
  float part[LANES];
  store(part, v);
  for (int n = LANES / 2; n > 0; n /= 2) {
    for (int i = 0; i < n; ++i) part[i] += part[i + n];
  }
  return part[0];
}

// Column C of LANES rows of K floats, which lie one after the other in parts[0..K-1].
template <int K, int C, int J, int... L>
SIMD_INLINE fv column_of(const fv* parts, fv found, std::integer_sequence<int, L...> lanes) {
  found = SHUFFLE(found, parts[J], ((K * L + C) / LANES == J ? LANES + (K * L + C) % LANES : L)...);
  if constexpr (J + 1 < K) return column_of<K, C, J + 1>(parts, found, lanes);
  return found;
}
template <int K, int... C>
SIMD_INLINE void load_columns(const float* p, fv* out, std::integer_sequence<int, C...>) {
  const fv parts[K] = {load(p + C * LANES)...};
  ((out[C] = column_of<K, C, 0>(parts, fv{}, LaneSequence{})), ...);
}

// Reads a [rows, K] array's columns; `rows` of LANES, the others become 0.
template <int K>
SIMD_INLINE void load_columns(const float* p, int rows, fv* out) {
  if (rows >= LANES) return load_columns<K>(p, out, std::make_integer_sequence<int, K>{});
  float some[K * LANES] = {};
  std::memcpy(some, p, static_cast<size_t>(rows) * K * sizeof(float));
  load_columns<K>(some, out, std::make_integer_sequence<int, K>{});
}

// Part J of what load_columns reads.
template <int K, int J, int C, int... L>
SIMD_INLINE fv part_of(const fv* columns, fv found, std::integer_sequence<int, L...> lanes) {
  found = SHUFFLE(found, columns[C], ((LANES * J + L) % K == C ? LANES + (LANES * J + L) / K : L)...);
  if constexpr (C + 1 < K) return part_of<K, J, C + 1>(columns, found, lanes);
  return found;
}
template <int K, int... J>
SIMD_INLINE void store_columns(float* p, const fv* columns, std::integer_sequence<int, J...>) {
  (store(p + J * LANES, part_of<K, J, 0>(columns, fv{}, LaneSequence{})), ...);
}

// Writes the first `rows` rows of a [rows, K] array from its columns.
template <int K>
SIMD_INLINE void store_columns(float* p, int rows, const fv* columns) {
  if (rows >= LANES) return store_columns<K>(p, columns, std::make_integer_sequence<int, K>{});
  float some[K * LANES];
  store_columns<K>(some, columns, std::make_integer_sequence<int, K>{});
  std::memcpy(p, some, static_cast<size_t>(rows) * K * sizeof(float));
}

// Like load_columns for many columns: `columns` of them, rows `stride` floats apart, `rows` of LANES. `floats` may be
// read from p on. `out` has room for whole vectors of columns.
SIMD_INLINE void load_rows(const float* p, size_t stride, int columns, int rows, size_t floats, fv* out) {
  const size_t reach = (LANES - 1) * stride + static_cast<size_t>((columns + LANES - 1) / LANES) * LANES;
  if (rows < LANES || reach > floats) {
    for (int c = 0; c < columns; ++c) {
      out[c] = fv{};
      for (int i = 0; i < rows; ++i) out[c][i] = p[i * stride + c];
    }
    return;
  }
  for (int c = 0; c < columns; c += LANES) {
    fv v[LANES];
#pragma GCC unroll 16
    for (int i = 0; i < LANES; ++i) v[i] = load(p + i * stride + c);
    transpose(v);
#pragma GCC unroll 16
    for (int i = 0; i < LANES; ++i) out[c + i] = v[i];
  }
}

// The reverse. A row's last vector may overrun into the next row: rows go upwards and columns downwards, so that what
// was overrun is written afterwards; nothing beyond the last row is touched.
SIMD_INLINE void store_rows(float* p, size_t stride, int columns, int rows, const fv* in) {
  for (int c = (columns - 1) / LANES * LANES; c >= 0; c -= LANES) {
    fv v[LANES];
#pragma GCC unroll 16
    for (int i = 0; i < LANES; ++i) v[i] = in[c + i];
    transpose(v);
#pragma GCC unroll 16
    for (int i = 0; i < LANES; ++i) {
      if (i >= rows) break;
      float* to = p + i * stride + c;
      if (i * stride + c + LANES <= rows * stride) {
        store(to, v[i]);
      } else {
        for (int j = 0; j < columns - c && j < LANES; ++j) to[j] = v[i][j];
      }
    }
  }
}

}  // namespace
