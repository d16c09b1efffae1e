// Vectors of one instruction set, and loads and stores that convert to and from half precision.
//
// Included by `kernels.cpp` only, which is compiled once per instruction set. Everything is static and nothing of
// the standard library is used: an inline function shared with other files could be linked in its AVX-512 form
// into code that runs on every machine.
#pragma once

#include <stdint.h>

#if defined(__F16C__)
#include <immintrin.h>
#endif

#if defined(__AVX512F__)
#define SC_LAYERS_VECTOR_BYTES 64
#elif defined(__AVX2__)
#define SC_LAYERS_VECTOR_BYTES 32
#else
#define SC_LAYERS_VECTOR_BYTES 16
#endif

#define SC_LAYERS_INLINE static inline __attribute__((always_inline))

namespace sc_layers::SC_LAYERS_ISA {

struct f16 {
  uint16_t bits;
};
struct bf16 {
  uint16_t bits;
};

// One vector register of A (float or double).
template <typename A>
struct VectorOf;
template <>
struct VectorOf<float> {
  typedef float type __attribute__((vector_size(SC_LAYERS_VECTOR_BYTES)));
  typedef float quarter __attribute__((vector_size(16)));
};
template <>
struct VectorOf<double> {
  typedef double type __attribute__((vector_size(SC_LAYERS_VECTOR_BYTES)));
  typedef double quarter __attribute__((vector_size(16)));
};
template <typename A>
using Vector = typename VectorOf<A>::type;
template <typename A>
constexpr int kLanes = SC_LAYERS_VECTOR_BYTES / sizeof(A);

// --- half precision, one value at a time ---

SC_LAYERS_INLINE float bits_to_float(uint32_t bits) {
  float value;
  __builtin_memcpy(&value, &bits, sizeof value);
  return value;
}

SC_LAYERS_INLINE uint32_t float_to_bits(float value) {
  uint32_t bits;
  __builtin_memcpy(&bits, &value, sizeof bits);
  return bits;
}

SC_LAYERS_INLINE double widen(double value) { return value; }
SC_LAYERS_INLINE float widen(float value) { return value; }
SC_LAYERS_INLINE float widen(bf16 value) { return bits_to_float(uint32_t{value.bits} << 16); }

SC_LAYERS_INLINE uint16_t narrow_bf16(float value) {
  const uint32_t bits = float_to_bits(value);
  const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;  // to nearest, ties to even
  return static_cast<uint16_t>((bits & 0x7fffffffu) > 0x7f800000u ? 0x7fc0u : rounded);
}

#if defined(__aarch64__)
SC_LAYERS_INLINE float widen(f16 value) {
  __fp16 half;
  __builtin_memcpy(&half, &value, sizeof half);
  return half;
}

SC_LAYERS_INLINE uint16_t narrow_f16(float value) {
  const __fp16 half = static_cast<__fp16>(value);
  uint16_t bits;
  __builtin_memcpy(&bits, &half, sizeof bits);
  return bits;
}
#else
SC_LAYERS_INLINE float widen(f16 value) {
  const uint32_t sign = (value.bits & 0x8000u) << 16;
  const uint32_t magnitude = value.bits & 0x7fffu;
  if (magnitude >= 0x7c00u) return bits_to_float(sign | 0x7f800000u | (magnitude & 0x3ffu) << 13);
  // 2^112 moves the exponent's bias from 15 to 127, and subnormal numbers to where they belong.
  return bits_to_float(sign | float_to_bits(bits_to_float(magnitude << 13) * 0x1p112f));
}

SC_LAYERS_INLINE uint16_t narrow_f16(float value) {
  const uint32_t bits = float_to_bits(value);
  const uint32_t sign = (bits >> 16) & 0x8000u;
  const uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return static_cast<uint16_t>(sign | 0x7e00u);
  if (magnitude >= 0x477ff000u) return static_cast<uint16_t>(sign | 0x7c00u);  // rounds to 65536 or more
  if (magnitude < 0x38800000u) {
    // Subnormal: adding 0.5 puts the last bit of the half where the addition rounds.
    return static_cast<uint16_t>(sign | (float_to_bits(bits_to_float(magnitude) + 0.5f) - 0x3f000000u));
  }
  return static_cast<uint16_t>(sign | (magnitude - 0x38000000u + 0xfffu + ((magnitude >> 13) & 1u)) >> 13);
}
#endif

// --- loads and stores of one vector ---

template <typename A>
SC_LAYERS_INLINE Vector<A> load(const A* from) {
  Vector<A> v;
  __builtin_memcpy(&v, from, sizeof v);
  return v;
}

template <typename A>
SC_LAYERS_INLINE void store(A* to, Vector<A> v) {
  __builtin_memcpy(to, &v, sizeof v);
}

typedef uint16_t Halves __attribute__((vector_size(SC_LAYERS_VECTOR_BYTES / 2)));
typedef uint32_t Words __attribute__((vector_size(SC_LAYERS_VECTOR_BYTES)));
typedef int32_t SignedWords __attribute__((vector_size(SC_LAYERS_VECTOR_BYTES)));

SC_LAYERS_INLINE Vector<float> load(const bf16* from) {
  Halves halves;
  __builtin_memcpy(&halves, from, sizeof halves);
  const Words words = __builtin_convertvector(halves, Words) << 16;
  Vector<float> v;
  __builtin_memcpy(&v, &words, sizeof v);
  return v;
}

SC_LAYERS_INLINE void store(bf16* to, Vector<float> v) {
  Words bits;
  __builtin_memcpy(&bits, &v, sizeof bits);
  const Words rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  const Words is_nan = (Words)((SignedWords)(bits & 0x7fffffffu) > 0x7f800000);
  const Words result = (rounded & ~is_nan) | (is_nan & 0x7fc0u);
  const Halves halves = __builtin_convertvector(result, Halves);
  __builtin_memcpy(to, &halves, sizeof halves);
}

SC_LAYERS_INLINE Vector<float> load(const f16* from) {
#if defined(__AVX512F__)
  return (Vector<float>)_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
#elif defined(__F16C__)
  return (Vector<float>)_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
#else
  Vector<float> v;
  for (int i = 0; i < kLanes<float>; ++i) v[i] = widen(from[i]);
  return v;
#endif
}

SC_LAYERS_INLINE void store(f16* to, Vector<float> v) {
#if defined(__AVX512F__)
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm512_cvtps_ph((__m512)v, _MM_FROUND_TO_NEAREST_INT));
#elif defined(__F16C__)
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm256_cvtps_ph((__m256)v, _MM_FROUND_TO_NEAREST_INT));
#else
  for (int i = 0; i < kLanes<float>; ++i) to[i].bits = narrow_f16(v[i]);
#endif
}

// The first `count` (1 .. lanes - 1) entries only; the others of the vector are 0.
template <typename T>
SC_LAYERS_INLINE auto load_first(const T* from, int64_t count) {
  T buffer[SC_LAYERS_VECTOR_BYTES / (sizeof(T) == 8 ? 8 : 4)] = {};
  __builtin_memcpy(buffer, from, static_cast<size_t>(count) * sizeof(T));
  return load(static_cast<const T*>(buffer));
}

template <typename T, typename V>
SC_LAYERS_INLINE void store_first(T* to, V v, int64_t count) {
  T buffer[SC_LAYERS_VECTOR_BYTES / (sizeof(T) == 8 ? 8 : 4)];
  store(buffer, v);
  __builtin_memcpy(to, buffer, static_cast<size_t>(count) * sizeof(T));
}

// Whole vectors where `PARTIAL` is false or `count` is that large, else the first `count` entries, if any.
template <bool PARTIAL, typename A, typename T>
SC_LAYERS_INLINE Vector<A> load_up_to(const T* from, int64_t count) {
  if (!PARTIAL || count >= kLanes<A>) return load(from);
  if (count <= 0) return Vector<A>{};
  return load_first(from, count);
}

template <bool PARTIAL, typename A, typename T>
SC_LAYERS_INLINE void store_up_to(T* to, Vector<A> v, int64_t count) {
  if (!PARTIAL || count >= kLanes<A>) {
    store(to, v);
  } else if (count > 0) {
    store_first(to, v, count);
  }
}

// Sum of the entries, always in the same order.
template <typename A>
SC_LAYERS_INLINE A sum_of(Vector<A> v) {
  typedef typename VectorOf<A>::quarter Quarter;
  constexpr int kParts = SC_LAYERS_VECTOR_BYTES / 16;
  Quarter parts[kParts];
  __builtin_memcpy(parts, &v, sizeof parts);
  Quarter total = parts[0];
  for (int i = 1; i < kParts; ++i) total += parts[i];
  if constexpr (sizeof(A) == 8) {
    return total[0] + total[1];
  } else {
    return (total[0] + total[2]) + (total[1] + total[3]);
  }
}

SC_LAYERS_INLINE float exp_of(float value) { return __builtin_expf(value); }
SC_LAYERS_INLINE double exp_of(double value) { return __builtin_exp(value); }
SC_LAYERS_INLINE float sqrt_of(float value) { return __builtin_sqrtf(value); }
SC_LAYERS_INLINE double sqrt_of(double value) { return __builtin_sqrt(value); }

}  // namespace sc_layers::SC_LAYERS_ISA
