// What the kernels use of the device: types, wide accesses, sums over warps, matrix products of tensor cores.
//
// Kernels touch global memory only through load and store, so that the same sources run on a host
// under an emulation header (which defines SC_LAYERS_EMULATE, counts these accesses and checks bounds and alignment).
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "launch.h"

namespace sc_layers {
// Features as they lie in memory; only their bits are ever handled.
struct Half {
  uint16_t bits;
};
struct Bfloat16 {
  uint16_t bits;
};
}  // namespace sc_layers

#ifdef SC_LAYERS_EMULATE
#include "emulation.h"
#else
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#endif

namespace sc_layers {

constexpr int kWarp = 32;
constexpr int kWarps = 8;  // of every block
constexpr int kThreads = kWarp * kWarps;
constexpr unsigned kAllLanes = 0xffffffffu;
constexpr int kAccess = 16;  // bytes of the widest memory access

// What the untyped addresses of constrict.h point to.
template <typename T>
const T* numbers(const void* address) {
  return static_cast<const T*>(address);
}
template <typename T>
T* results(void* address) {
  return static_cast<T*>(address);
}
__host__ __device__ constexpr int narrow(int64_t value) { return static_cast<int>(value); }

template <typename T>
struct Accumulator {
  using type = float;
};
template <>
struct Accumulator<double> {
  using type = double;
};
template <typename T>
using accumulator_t = typename Accumulator<T>::type;

#ifndef SC_LAYERS_EMULATE

template <typename T>
__device__ inline T load(const T* address) {
  return *address;
}
template <typename T>
__device__ inline void store(T* address, T value) {
  *address = value;
}
__device__ inline unsigned char* shared_memory() {
  extern __shared__ __align__(16) unsigned char memory[];
  return memory;
}

__device__ inline float float_of(unsigned bits) { return __uint_as_float(bits); }

// Two numbers in one word, the first in its lower half.
__device__ inline unsigned pack_half(float low, float high) {
  const __half2 pair = __floats2half2_rn(low, high);
  unsigned bits;
  memcpy(&bits, &pair, 4);
  return bits;
}
__device__ inline unsigned pack_bfloat16(float low, float high) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  unsigned bits;
  memcpy(&bits, &pair, 4);
  return bits;
}
__device__ inline float unpack_half(unsigned bits, int which) {
  __half2 pair;
  memcpy(&pair, &bits, 4);
  return which == 0 ? __low2float(pair) : __high2float(pair);
}

// sum += rows * columns by a warp, 16x16 times 16x8, numbers in half precision as for features T, added up in float32.
// Of lane 4 i + t: rows[0], [2] hold columns 2 t, 2 t + 1 and 2 t + 8, 2 t + 9 of row i, rows[1], [3] of row i + 8;
// columns[0], [1] hold the same rows of column i; sum[0], [1] are columns 2 t, 2 t + 1 of row i, sum[2], [3] of row i
// + 8.
#define SC_LAYERS_MULTIPLY(type)                                                      \
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32." type "." type                 \
               ".f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};" \
               : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])               \
               : "r"(rows[0]), "r"(rows[1]), "r"(rows[2]), "r"(rows[3]), "r"(columns[0]), "r"(columns[1]))
template <typename T>
__device__ inline void multiply(float (&sum)[4], const unsigned (&rows)[4], const unsigned (&columns)[2]) {
  if constexpr (std::is_same_v<T, Half>)
    SC_LAYERS_MULTIPLY("f16");
  else
    SC_LAYERS_MULTIPLY("bf16");
}

// Transposes an 8x8 matrix of 16-bit numbers; lane 4 i + t holds columns 2 t, 2 t + 1 of row i.
__device__ inline unsigned transpose(unsigned pair) {
  unsigned result;
  asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(result) : "r"(pair));
  return result;
}

// Launches a kernel with one argument in blocks of kThreads; null, or the text of the error.
template <typename Arguments>
inline const char* launch(void (*kernel)(Arguments), int64_t blocks, int shared_bytes, void* stream,
                          const Arguments& arguments) {
  if (blocks > 0x7fffffff) return "more blocks than a grid may have";
  kernel<<<static_cast<unsigned>(blocks), kThreads, shared_bytes, static_cast<cudaStream_t>(stream)>>>(arguments);
  const cudaError_t error = cudaGetLastError();
  return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}

#endif  // SC_LAYERS_EMULATE

// The same for float64, which has no need to be quick: operands come by shuffles.
struct alignas(16) Doubles {
  double low, high;
};
__device__ inline Doubles shuffle(const Doubles& pair, int lane) {
  return {__shfl_sync(kAllLanes, pair.low, lane), __shfl_sync(kAllLanes, pair.high, lane)};
}
template <typename T>
__device__ inline void multiply(double (&sum)[4], const Doubles (&rows)[4], const Doubles (&columns)[2]) {
  const int row = threadIdx.x % kWarp / 4, column = threadIdx.x % 4 * 2;
#pragma unroll 1  // else all operands are fetched at once, and spill
  for (int source = 0; source < 4; ++source) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const Doubles first = shuffle(columns[half], 4 * column + source);
      const Doubles second = shuffle(columns[half], 4 * column + 4 + source);
#pragma unroll
      for (int lower = 0; lower < 2; ++lower) {
        const Doubles entries = shuffle(rows[2 * half + lower], 4 * row + source);
        sum[2 * lower] += entries.low * first.low + entries.high * first.high;
        sum[2 * lower + 1] += entries.low * second.low + entries.high * second.high;
      }
    }
  }
}
__device__ inline Doubles transpose(const Doubles& pair) {
  const int row = threadIdx.x % kWarp / 4, column = threadIdx.x % 4 * 2;
  const Doubles first = shuffle(pair, 4 * column + row / 2), second = shuffle(pair, 4 * column + 4 + row / 2);
  return row % 2 == 0 ? Doubles{first.low, second.low} : Doubles{first.high, second.high};
}

// Calls a template for the type of the features.
#define SC_LAYERS_DISPATCH(scalar, function, ...)               \
  ((scalar) == Scalar::f64    ? function<double>(__VA_ARGS__)   \
   : (scalar) == Scalar::f16  ? function<Half>(__VA_ARGS__)     \
   : (scalar) == Scalar::bf16 ? function<Bfloat16>(__VA_ARGS__) \
                              : function<float>(__VA_ARGS__))

__host__ __device__ inline int64_t ceil_divide(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Least power of two that is not less.
inline int64_t power_of_two(int64_t value) {
  int64_t power = 1;
  while (power < value) power *= 2;
  return power;
}

// Where a thread works if every sample has `blocks` blocks of its own. Indices of 32 bits: wider divisions are slow.
struct Work {
  int sample, index;
  __device__ explicit Work(int blocks) : sample(narrow(blockIdx.x / static_cast<unsigned>(blocks))) {
    index = narrow(blockIdx.x - static_cast<unsigned>(sample * blocks)) * kThreads + threadIdx.x;
  }
};
inline int blocks_for(int64_t threads) { return narrow(ceil_divide(threads, kThreads)); }

// Neighbours in memory: 8 bytes, or a multiple of 16.
template <typename T, int kCount = kAccess / static_cast<int>(sizeof(T))>
struct Line {
  static constexpr int kBytes = kCount * static_cast<int>(sizeof(T));
  static constexpr int kEach = kBytes < kAccess ? kCount : kAccess / static_cast<int>(sizeof(T));  // of an access
  static constexpr int kAccesses = kCount / kEach, kWords = kBytes / kAccesses / 4;
  using Access = std::conditional_t < kBytes<kAccess, uint2, uint4>;
  unsigned word[kBytes / 4];

  __device__ accumulator_t<T> operator[](int i) const {
    if constexpr (std::is_same_v<T, Half>) return unpack_half(word[i / 2], i % 2);
    if constexpr (std::is_same_v<T, Bfloat16>)
      return float_of(i % 2 == 0 ? word[i / 2] << 16 : word[i / 2] & 0xffff0000u);
    accumulator_t<T> value;
    memcpy(&value, &word[i * sizeof(T) / 4], sizeof(value));
    return value;
  }
  __device__ void set(const accumulator_t<T> (&values)[kCount]) {
#pragma unroll
    for (int i = 0; i < kCount; i += 2) {
      if constexpr (std::is_same_v<T, Half>) word[i / 2] = pack_half(values[i], values[i + 1]);
      if constexpr (std::is_same_v<T, Bfloat16>) word[i / 2] = pack_bfloat16(values[i], values[i + 1]);
      if constexpr (sizeof(T) >= 4) memcpy(&word[i * sizeof(T) / 4], &values[i], 2 * sizeof(T));
    }
  }
};

// The first `count` of neighbours, the others as zeros. kWide: the address is a multiple of 16 bytes, and so is what
// `count` (if less than all) elements take. It is no argument: both kinds of loads in one kernel would share registers,
// and wait for each other.
template <typename T, int kCount, bool kWide>
__device__ inline Line<T, kCount> load_line(const T* address, int count) {
  Line<T, kCount> line{};
  if constexpr (kWide) {
#pragma unroll
    for (int access = 0; access < line.kAccesses; ++access) {
      if (access * line.kEach < count) {
        const auto bits = load(reinterpret_cast<const typename Line<T, kCount>::Access*>(address) + access);
        memcpy(&line.word[line.kWords * access], &bits, sizeof(bits));
      }
    }
  } else {
    T elements[kCount] = {};
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      if (i < count) elements[i] = load(address + i);
    }
    memcpy(&line, elements, sizeof(line));
  }
  return line;
}
template <bool kWide, typename T, int kCount>
__device__ inline void store_line(T* address, const Line<T, kCount>& line, int count) {
  if constexpr (kWide) {
#pragma unroll
    for (int access = 0; access < line.kAccesses; ++access) {
      typename Line<T, kCount>::Access bits;
      memcpy(&bits, &line.word[line.kWords * access], sizeof(bits));
      if (access * line.kEach < count) store(reinterpret_cast<decltype(bits)*>(address) + access, bits);
    }
  } else {
    T elements[kCount];
    memcpy(elements, &line, sizeof(line));
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      if (i < count) store(address + i, elements[i]);
    }
  }
}
// Whether rows of `stride` elements may be read by 16-byte accesses.
template <typename T>
inline bool is_wide(const T* start, int64_t stride) {
  return reinterpret_cast<uintptr_t>(start) % kAccess == 0 && stride % Line<T>::kEach == 0;
}

// Keeps the compiler from keeping in registers what it has made of `bits`.
__device__ inline void forget_uses(unsigned& bits) { asm volatile("" : "+r"(bits)); }

// The sum over `team` neighbouring lanes, a power of two.
template <typename A>
__device__ inline A team_sum(A value, int team = kWarp) {
  for (int offset = team / 2; offset > 0; offset /= 2) value += __shfl_xor_sync(kAllLanes, value, offset);
  return value;
}
// Sums over a team of lanes or of warps; `buffer` [kCount, kWarps] in shared memory must not be in use for anything
// else until the next barrier. All threads of the block call it.
template <typename A, int kCount>
__device__ inline void team_sums(A (&values)[kCount], int team, A* buffer) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) values[i] = team_sum(values[i], min(team, kWarp));
  if (team <= kWarp) return;
  const int warp = threadIdx.x / kWarp, warps = team / kWarp;
  if (threadIdx.x % kWarp == 0) {
#pragma unroll
    for (int i = 0; i < kCount; ++i) buffer[i * kWarps + warp] = values[i];
  }
  __syncthreads();
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    values[i] = 0;
#pragma unroll
    for (int other = 0; other < kWarps; ++other) {
      if (((other ^ warp) & -warps) == 0) values[i] += buffer[i * kWarps + other];  // of the same team
    }
  }
}

}  // namespace sc_layers
