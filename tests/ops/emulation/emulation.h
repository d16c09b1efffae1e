// CUDA's execution model on one host thread, for running kernels in tests. Included by device.cuh in place of CUDA's
// own headers when SC_LAYERS_EMULATE is defined.
//
// Every thread of a block, and every block of a cluster, is a fiber. Fibers switch only where they wait for each other:
// at barriers and warp shuffles. Between two such points they run one after the other in the order that the schedule
// says, so a missing barrier makes results depend on the schedule. Shared memory starts as NaN, every access to device
// memory must lie inside a registered buffer, and vector accesses must be aligned; whatever breaks a rule ends the
// launch with an error text. Bytes read and written are counted per buffer.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#if !defined(__x86_64__) && !defined(__aarch64__)
#include <ucontext.h>
#endif
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

#define __global__
#define __device__
#define __host__
#define __grid_constant__
#define __launch_bounds__(...)

using std::max;
using std::min;

struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};

struct __half {
  uint16_t bits;
};
struct __nv_bfloat16 {
  uint16_t bits;
};

inline float __bfloat162float(__nv_bfloat16 value) { return std::bit_cast<float>(uint32_t(value.bits) << 16); }
inline __nv_bfloat16 __float2bfloat16_rn(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  if (std::isnan(value)) return {0x7fff};
  return {uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16)};
}
inline float __half2float(__half value) {
  const uint32_t sign = uint32_t(value.bits & 0x8000) << 16, magnitude = value.bits & 0x7fff;
  if (magnitude >= 0x7c00) return std::bit_cast<float>(sign | 0x7f800000 | (magnitude & 0x3ff) << 13);
  // As a float with the exponent of half's bias; the product moves it to float's and is exact for subnormals too.
  return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(std::bit_cast<float>(magnitude << 13) * 0x1p112f));
}
inline __half __float2half_rn(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint16_t sign = uint16_t(bits >> 16 & 0x8000);
  const float magnitude = std::fabs(value);
  if (std::isnan(value)) return {0x7fff};
  if (magnitude >= 65520.0f) return {uint16_t(sign | 0x7c00)};
  if (magnitude < 0x1p-14f) return {uint16_t(sign | uint16_t(std::nearbyint(magnitude * 0x1p24f)))};
  const uint32_t rounded = std::bit_cast<uint32_t>(magnitude) + 0xfff + (bits >> 13 & 1);
  return {uint16_t(sign | uint16_t((rounded - 0x38000000) >> 13))};
}

namespace emulation {

constexpr int kWarp = 32;
constexpr size_t kStack = 64 * 1024;

struct Failure : std::runtime_error {
  using std::runtime_error::runtime_error;
};

enum class Schedule : int { forward, reverse, shuffled };

struct Buffer {
  std::string name;
  unsigned char* start;
  size_t bytes;
  bool writable;
  uint64_t read = 0, written = 0;           // bytes, every access counted
  std::vector<bool> was_read, was_written;  // each byte
};

// Who waits where. A fiber that waits at a barrier goes on when all living fibers of its block, or cluster, wait there.
enum class Wait : int { none, warp, block, cluster, finished };

struct Fiber {
  int thread, block;  // within the cluster
  Wait wait = Wait::none;
  uint64_t offered = 0;  // what it holds out to its warp
  void* stack_pointer = nullptr;
  void* sanitizer_stack = nullptr;
#if !defined(__x86_64__) && !defined(__aarch64__)
  ucontext_t context;
#endif
};

class Machine {
 public:
  Schedule schedule = Schedule::forward;
  std::mt19937 random{0};
  std::vector<Buffer> buffers;
  std::string error;
  int64_t launches = 0, blocks = 0;
  int largest_shared = 0;

  // Of the running launch.
  unsigned block_index = 0, grid_size = 0;  // of the first block of the running cluster
  int threads = 0, cluster = 1, shared_bytes = 0;
  std::vector<std::unique_ptr<unsigned char[]>> shared;
  Fiber* current = nullptr;

  Buffer& buffer_of(const void* address, size_t bytes, bool write) {
    const auto* at = static_cast<const unsigned char*>(address);
    for (Buffer& buffer : buffers) {
      if (at < buffer.start || at >= buffer.start + buffer.bytes) continue;
      if (at + bytes > buffer.start + buffer.bytes) throw Failure("access beyond the end of " + buffer.name);
      if (write && !buffer.writable) throw Failure("write to the read-only " + buffer.name);
      return buffer;
    }
    throw Failure(std::string(write ? "write" : "read") + " outside of all buffers");
  }

  void access(const void* address, size_t bytes, bool write) {
    Buffer& buffer = buffer_of(address, bytes, write);
    check_alignment(address, bytes, buffer.name.c_str());
    (write ? buffer.written : buffer.read) += bytes;
    auto& seen = write ? buffer.was_written : buffer.was_read;
    const size_t first = static_cast<const unsigned char*>(address) - buffer.start;
    std::fill_n(seen.begin() + static_cast<std::ptrdiff_t>(first), bytes, true);
  }

  void check_shared(const void* address, size_t bytes) {
    const auto* at = static_cast<const unsigned char*>(address);
    const auto* start = shared[current->block].get();
    if (at < start || at + bytes > start + shared_bytes) throw Failure("vector access outside of shared memory");
    check_alignment(address, bytes, "shared memory");
  }

  static void check_alignment(const void* address, size_t bytes, const char* where) {
    if (reinterpret_cast<uintptr_t>(address) % bytes == 0) return;
    throw Failure("misaligned access of " + std::to_string(bytes) + " bytes to " + where);
  }

  template <typename Body>
  void launch(int64_t grid, int block_threads, int bytes, int cluster_size, Body body);

  void wait(Wait what) {
    current->wait = what;
    to_scheduler();
  }

  // The values that all lanes of the caller's warp offer in the same shuffle.
  const Fiber* shuffle(uint64_t value) {
    current->offered = value;
    wait(Wait::warp);  // until all lanes have offered
    return &fibers_[first_of_warp(*current)];
  }
  // Every lane has read what it wanted; only then may one offer its next value.
  void end_shuffle() { wait(Wait::warp); }

  bool has_ended(int block) const;

  static void enter();  // the first function on a fiber's stack

 private:
  std::vector<Fiber> fibers_;
  std::unique_ptr<unsigned char[]> stacks_;
  size_t stack_count_ = 0;
  void* scheduler_stack_pointer_ = nullptr;
  void* sanitizer_stack_ = nullptr;
  const void* scheduler_bottom_ = nullptr;
  size_t scheduler_size_ = 0;
#if !defined(__x86_64__) && !defined(__aarch64__)
  ucontext_t scheduler_context_;
#endif
  void (*run_)(void*) = nullptr;
  void* body_ = nullptr;
  bool failed_ = false;

  int first_of_warp(const Fiber& fiber) const { return fiber.block * threads + fiber.thread / kWarp * kWarp; }
  void start_fiber(Fiber& fiber, unsigned char* stack);
  void to_fiber(Fiber& fiber);
  void to_scheduler();
  void run_cluster();
  bool run_warp(int first);
  bool run_block(int block);
  bool release(Wait what, int first, int count);
  std::vector<int> ordered(int count);
};

extern Machine machine;

#if defined(__x86_64__) || defined(__aarch64__)
// Saves the registers that a call must preserve on this stack and goes on with those on the other one.
extern "C" void emulation_switch(void** save_stack_pointer, void* load_stack_pointer);
#endif

template <typename Body>
void Machine::launch(int64_t grid, int block_threads, int bytes, int cluster_size, Body body) {
  if (grid < 1 || grid > 0x7fffffff) throw Failure("a grid of " + std::to_string(grid) + " blocks");
  if (grid % cluster_size != 0) throw Failure("a grid that its clusters do not divide");
  if (block_threads % kWarp != 0 || block_threads > 1024) throw Failure("a block of no whole warps");
  launches += 1;
  blocks += grid;
  grid_size = static_cast<unsigned>(grid);
  threads = block_threads;
  cluster = cluster_size;
  shared_bytes = bytes;
  largest_shared = max(largest_shared, bytes);
  body_ = &body;
  run_ = [](void* pointer) { (*static_cast<Body*>(pointer))(); };
  for (int index : ordered(static_cast<int>(grid / cluster_size))) {
    block_index = static_cast<unsigned>(index * cluster_size);
    run_cluster();
  }
}

struct Index {
  unsigned x;
};
inline Index thread_position() { return {static_cast<unsigned>(machine.current->thread)}; }
inline Index block_position() { return {machine.block_index + static_cast<unsigned>(machine.current->block)}; }
inline Index grid_extent() { return {machine.grid_size}; }

template <typename A>
A exchange(A value, int source) {
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(A));
  const Fiber* warp = machine.shuffle(bits);
  A result = value;
  if (source >= 0 && source < kWarp) std::memcpy(&result, &warp[source].offered, sizeof(A));
  machine.end_shuffle();
  return result;
}

}  // namespace emulation

#define threadIdx (emulation::thread_position())
#define blockIdx (emulation::block_position())
#define gridDim (emulation::grid_extent())

inline void __syncthreads() { emulation::machine.wait(emulation::Wait::block); }
inline int __clz(int value) { return value == 0 ? 32 : __builtin_clz(static_cast<unsigned>(value)); }

template <typename A>
A __shfl_xor_sync(unsigned, A value, int mask) {
  const int lane = emulation::machine.current->thread % emulation::kWarp;
  return emulation::exchange(value, lane ^ mask);
}
template <typename A>
A __shfl_up_sync(unsigned, A value, int delta) {
  const int lane = emulation::machine.current->thread % emulation::kWarp;
  return emulation::exchange(value, lane - delta);
}
template <typename A>
A __shfl_sync(unsigned, A value, int source) {
  return emulation::exchange(value, source);
}

namespace sc_layers {

template <int kBytes>
struct Bits;

template <typename T>
T load(const T* address) {
  emulation::machine.access(address, sizeof(T), false);
  return *address;
}
template <typename T>
void store(T* address, T value) {
  emulation::machine.access(address, sizeof(T), true);
  *address = value;
}
template <int kBytes>
Bits<kBytes> load_bits(const void* address) {
  emulation::machine.access(address, kBytes, false);
  Bits<kBytes> bits;
  std::memcpy(&bits, address, kBytes);
  return bits;
}
template <int kBytes>
void store_bits(void* address, Bits<kBytes> bits) {
  emulation::machine.access(address, kBytes, true);
  std::memcpy(address, &bits, kBytes);
}
template <int kBytes>
Bits<kBytes> read_shared(const void* address) {
  emulation::machine.check_shared(address, kBytes);
  Bits<kBytes> bits;
  std::memcpy(&bits, address, kBytes);
  return bits;
}
template <int kBytes>
void write_shared(void* address, Bits<kBytes> bits) {
  emulation::machine.check_shared(address, kBytes);
  std::memcpy(address, &bits, kBytes);
}

inline int thread_index() { return emulation::machine.current->thread; }
inline unsigned char* shared_memory() {
  return emulation::machine.shared[static_cast<size_t>(emulation::machine.current->block)].get();
}

inline int cluster_rank() { return emulation::machine.current->block; }
inline void cluster_sync() { emulation::machine.wait(emulation::Wait::cluster); }
template <typename T>
T read_peer(const T* address, int rank) {
  const size_t offset = reinterpret_cast<const unsigned char*>(address) - shared_memory();
  if (rank < 0 || rank >= emulation::machine.cluster) throw emulation::Failure("no such block in the cluster");
  if (emulation::machine.has_ended(rank)) throw emulation::Failure("read from a block of the cluster that has ended");
  T value;
  std::memcpy(&value, emulation::machine.shared[static_cast<size_t>(rank)].get() + offset, sizeof(T));
  return value;
}

template <typename Arguments>
const char* launch(void (*kernel)(Arguments), int64_t blocks, int threads, int shared_bytes, int cluster, void*,
                   const Arguments& arguments) {
  try {
    emulation::machine.launch(blocks, threads, shared_bytes, cluster, [&] { kernel(arguments); });
  } catch (const emulation::Failure& failure) {
    emulation::machine.error = failure.what();
    return emulation::machine.error.c_str();
  }
  return nullptr;
}

}  // namespace sc_layers
