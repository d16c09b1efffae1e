// What the kernels use of the device: packed accesses, conversions, warp and cluster primitives.
//
// Kernels touch global memory only through load/store and load_packet/store_packet, and reach other blocks of a cluster
// only through the functions here, so that the same sources run on a host under an emulation header (which defines
// SC_LAYERS_EMULATE, counts these accesses and checks their bounds and alignment).
#pragma once

#include <cstdint>
#include <cstring>

#ifdef SC_LAYERS_EMULATE
#include "emulation.h"
#else
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#endif

namespace sc_layers {

constexpr int kWarp = 32;
constexpr unsigned kAllLanes = 0xffffffffu;
constexpr int kAccess = 16;  // bytes of the widest memory access
constexpr int kQuadLog2 = 2;
constexpr int kQuad = 1 << kQuadLog2;  // pixels of one channel that a thread handles at a time

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

__device__ inline float to_accumulator(float value) { return value; }
__device__ inline double to_accumulator(double value) { return value; }
__device__ inline float to_accumulator(__half value) { return __half2float(value); }
__device__ inline float to_accumulator(__nv_bfloat16 value) { return __bfloat162float(value); }

template <typename T>
__device__ inline T from_accumulator(accumulator_t<T> value) {
  return value;
}
template <>
__device__ inline __half from_accumulator<__half>(float value) {
  return __float2half_rn(value);
}
template <>
__device__ inline __nv_bfloat16 from_accumulator<__nv_bfloat16>(float value) {
  return __float2bfloat16_rn(value);
}

// kBytes consecutive bytes that move in one access.
template <int kBytes>
struct Bits;
template <>
struct Bits<16> {
  uint4 value;
};
template <>
struct Bits<8> {
  uint2 value;
};
template <>
struct Bits<4> {
  unsigned value;
};

#ifndef SC_LAYERS_EMULATE

template <typename T>
__device__ inline T load(const T* address) {
  return *address;
}
template <typename T>
__device__ inline void store(T* address, T value) {
  *address = value;
}
template <int kBytes>
__device__ inline Bits<kBytes> load_bits(const void* address) {
  return {*static_cast<const decltype(Bits<kBytes>::value)*>(address)};
}
template <int kBytes>
__device__ inline void store_bits(void* address, Bits<kBytes> bits) {
  *static_cast<decltype(bits.value)*>(address) = bits.value;
}
// The same for shared memory; an emulation checks these against other bounds.
template <int kBytes>
__device__ inline Bits<kBytes> read_shared(const void* address) {
  return load_bits<kBytes>(address);
}
template <int kBytes>
__device__ inline void write_shared(void* address, Bits<kBytes> bits) {
  store_bits<kBytes>(address, bits);
}

// threadIdx.x, read anew: what depends on it is then computed where it is used and does not occupy registers elsewhere.
__device__ inline int thread_index() {
  int index;
  asm volatile("mov.u32 %0, %%tid.x;" : "=r"(index));
  return index;
}

__device__ inline unsigned char* shared_memory() {
  extern __shared__ __align__(16) unsigned char memory[];
  return memory;
}

// Clusters exist from compute capability 9.0 on; elsewhere the planner makes no plan that has more than one block in a
// cluster, and these are never reached with another rank.
__device__ inline int cluster_rank() {
#if __CUDA_ARCH__ >= 900
  unsigned rank;
  asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return static_cast<int>(rank);
#else
  return 0;
#endif
}
__device__ inline void cluster_sync() {
#if __CUDA_ARCH__ >= 900
  asm volatile("barrier.cluster.arrive.aligned;\n\tbarrier.cluster.wait.aligned;" ::: "memory");
#else
  __syncthreads();
#endif
}
template <typename T>
__device__ inline T read_peer(const T* address, int rank) {
#if __CUDA_ARCH__ >= 900
  static_assert(sizeof(T) == 4 || sizeof(T) == 8, "peers exchange statistics only");
  const unsigned local = static_cast<unsigned>(__cvta_generic_to_shared(address));
  unsigned remote;
  asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(remote) : "r"(local), "r"(rank));
  T value;
  if constexpr (sizeof(T) == 4) {
    asm volatile("ld.shared::cluster.f32 %0, [%1];" : "=f"(value) : "r"(remote) : "memory");
  } else {
    asm volatile("ld.shared::cluster.f64 %0, [%1];" : "=d"(value) : "r"(remote) : "memory");
  }
  return value;
#else
  return *address;
#endif
}

// Launches a kernel with one argument; null, or the text of the error.
template <typename Arguments>
inline const char* launch(void (*kernel)(Arguments), int64_t blocks, int threads, int shared_bytes, int cluster,
                          void* stream, const Arguments& arguments) {
  constexpr int kWithoutAsking = 48 * 1024;
  const void* function = reinterpret_cast<const void*>(kernel);
  cudaError_t error = cudaSuccess;
  if (shared_bytes > kWithoutAsking) {
    error = cudaFuncSetAttribute(function, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes);
  }
  cudaLaunchAttribute attribute{};
  attribute.id = cudaLaunchAttributeClusterDimension;
  attribute.val.clusterDim.x = cluster;
  attribute.val.clusterDim.y = attribute.val.clusterDim.z = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(blocks));
  config.blockDim = dim3(threads);
  config.dynamicSmemBytes = shared_bytes;
  config.stream = static_cast<cudaStream_t>(stream);
  config.attrs = &attribute;
  config.numAttrs = cluster > 1 ? 1 : 0;
  if (error == cudaSuccess) error = cudaLaunchKernelEx(&config, kernel, arguments);
  if (error == cudaSuccess) return nullptr;
  cudaGetLastError();  // it was reported here, not by the next call that asks
  return cudaGetErrorString(error);
}

#endif  // SC_LAYERS_EMULATE

// Keeps the compiler from working out ahead of time, and keeping in registers, what follows from `value`.
__device__ inline void forget_origin(int& value) { asm volatile("" : "+r"(value)); }

// Quotient and remainder by a power of two.
struct Split {
  int quotient, remainder;
};
__device__ inline Split split(int value, int log2) { return {value >> log2, value & ((1 << log2) - 1)}; }

// As many consecutive T as one widest access holds.
template <typename T>
struct Packet {
  static constexpr int kSize = kAccess / static_cast<int>(sizeof(T));
  T value[kSize];
};
template <typename T>
__device__ inline Packet<T> load_packet(const T* address) {
  const Bits<kAccess> bits = load_bits<kAccess>(address);
  Packet<T> packet;
  memcpy(&packet, &bits, kAccess);
  return packet;
}
template <typename T>
__device__ inline void store_packet(T* address, const Packet<T>& packet) {
  Bits<kAccess> bits;
  memcpy(&bits, &packet, kAccess);
  store_bits<kAccess>(address, bits);
}

// kCount consecutive elements of shared memory as accumulators; the address is a multiple of kCount elements.
template <int kCount, typename T>
__device__ inline void read_group(const T* address, accumulator_t<T> (&values)[kCount]) {
  constexpr int kBytes = kCount * static_cast<int>(sizeof(T));
  constexpr int kStep = kBytes < kAccess ? kBytes : kAccess;
  constexpr int kElements = kStep / static_cast<int>(sizeof(T));
#pragma unroll
  for (int start = 0; start < kCount; start += kElements) {
    const Bits<kStep> bits = read_shared<kStep>(address + start);
    T elements[kElements];
    memcpy(elements, &bits, kStep);
#pragma unroll
    for (int i = 0; i < kElements; ++i) values[start + i] = to_accumulator(elements[i]);
  }
}
template <int kCount, typename T>
__device__ inline void write_group(T* address, const accumulator_t<T> (&values)[kCount]) {
  constexpr int kBytes = kCount * static_cast<int>(sizeof(T));
  constexpr int kStep = kBytes < kAccess ? kBytes : kAccess;
  constexpr int kElements = kStep / static_cast<int>(sizeof(T));
#pragma unroll
  for (int start = 0; start < kCount; start += kElements) {
    T elements[kElements];
#pragma unroll
    for (int i = 0; i < kElements; ++i) elements[i] = from_accumulator<T>(values[start + i]);
    Bits<kStep> bits;
    memcpy(&bits, elements, kStep);
    write_shared<kStep>(address + start, bits);
  }
}

template <typename A>
__device__ inline A warp_sum(A value) {
#pragma unroll
  for (int offset = kWarp / 2; offset > 0; offset /= 2) value += __shfl_xor_sync(kAllLanes, value, offset);
  return value;
}
template <typename A>
__device__ inline A warp_max(A value) {
#pragma unroll
  for (int offset = kWarp / 2; offset > 0; offset /= 2) {
    const A other = __shfl_xor_sync(kAllLanes, value, offset);
    value = other > value ? other : value;
  }
  return value;
}
template <typename A>
__device__ inline A warp_inclusive_scan(A value, int lane) {
#pragma unroll
  for (int offset = 1; offset < kWarp; offset *= 2) {
    const A other = __shfl_up_sync(kAllLanes, value, offset);
    if (lane >= offset) value += other;
  }
  return value;
}

// Sums kCount values (a power of two, at most 32) over a warp with kCount - 1 shuffles and a few instead of 5 * kCount:
// at every step a lane hands half of its values to its partner. Lane l ends with the sum of value l * kCount / 32.
template <int kCount, int kOffset = kWarp / 2, typename A>
__device__ inline A warp_sum_each(const A (&values)[kCount], int lane) {
  if constexpr (kOffset == 0) {
    return values[0];
  } else if constexpr (kCount == 1) {
    const A sum[1] = {values[0] + __shfl_xor_sync(kAllLanes, values[0], kOffset)};
    return warp_sum_each<1, kOffset / 2>(sum, lane);
  } else {
    constexpr int kHalf = kCount / 2;
    const bool upper = (lane & kOffset) != 0;
    A sums[kHalf];
#pragma unroll
    for (int i = 0; i < kHalf; ++i) {
      const A sent = upper ? values[i] : values[i + kHalf];
      const A kept = upper ? values[i + kHalf] : values[i];
      sums[i] = kept + __shfl_xor_sync(kAllLanes, sent, kOffset);
    }
    return warp_sum_each<kHalf, kOffset / 2>(sums, lane);
  }
}

}  // namespace sc_layers
