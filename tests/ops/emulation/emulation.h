// CUDA's execution model on one host thread, for running kernels in tests. Included by device.cuh in place of CUDA's
// own headers when SC_LAYERS_EMULATE is defined.
//
// Every thread of a block is a fiber. Fibers switch only where they wait for each other: at barriers and where a warp
// exchanges values (shuffles, matrix products, transposes). Between two such points they run one after the other in the
// order that the schedule says, so a missing barrier makes results depend on the schedule. Shared memory starts as NaN,
// every access to device memory must lie inside a registered buffer, and vector accesses must be aligned; whatever
// breaks a rule ends the launch with an error text. Bytes read and written are counted per buffer.
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

namespace emulation {

inline uint16_t to_bfloat16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  if (std::isnan(value)) return 0x7fff;
  return uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}
inline float from_half(uint16_t value) {
  const uint32_t sign = uint32_t(value & 0x8000) << 16, magnitude = value & 0x7fff;
  if (magnitude >= 0x7c00) return std::bit_cast<float>(sign | 0x7f800000 | (magnitude & 0x3ff) << 13);
  // As a float with the exponent of half's bias; the product moves it to float's and is exact for subnormals too.
  return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(std::bit_cast<float>(magnitude << 13) * 0x1p112f));
}
inline uint16_t to_half(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint16_t sign = uint16_t(bits >> 16 & 0x8000);
  const float magnitude = std::fabs(value);
  if (std::isnan(value)) return 0x7fff;
  if (magnitude >= 65520.0f) return uint16_t(sign | 0x7c00);
  if (magnitude < 0x1p-14f) return uint16_t(sign | uint16_t(std::nearbyint(magnitude * 0x1p24f)));
  const uint32_t rounded = std::bit_cast<uint32_t>(magnitude) + 0xfff + (bits >> 13 & 1);
  return uint16_t(sign | uint16_t((rounded - 0x38000000) >> 13));
}

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

// Who waits where. A fiber that waits at a barrier goes on when all living fibers of its block wait there.
enum class Wait : int { none, warp, block, finished };

struct Fiber {
  int thread;
  Wait wait = Wait::none;
  const void* offered = nullptr;  // what it holds out to its warp
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
  unsigned block_index = 0;
  int threads = 0, shared_bytes = 0;
  std::unique_ptr<unsigned char[]> shared;
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

  static void check_alignment(const void* address, size_t bytes, const char* where) {
    if (reinterpret_cast<uintptr_t>(address) % bytes == 0) return;
    throw Failure("misaligned access of " + std::to_string(bytes) + " bytes to " + where);
  }

  template <typename Body>
  void launch(int64_t grid, int block_threads, int bytes, Body body);

  void wait(Wait what) {
    current->wait = what;
    to_scheduler();
  }

  // What all lanes of the caller's warp offer at the same point, by lane; until `end_exchange`.
  const Fiber* exchange(const void* offered) {
    current->offered = offered;
    wait(Wait::warp);  // until all lanes have offered
    const Fiber* warp = &fibers_[current->thread / kWarp * kWarp];
    for (int i = 0; i < kWarp; ++i) {
      if (warp[i].wait == Wait::finished) throw Failure("a warp exchanges values with a lane that has ended");
    }
    return warp;
  }
  // Every lane has read what it wanted; only then may one withdraw it.
  void end_exchange() { wait(Wait::warp); }

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

  void start_fiber(Fiber& fiber, unsigned char* stack);
  void to_fiber(Fiber& fiber);
  void to_scheduler();
  void run_block();
  bool run_warp(int first);
  bool release(Wait what, int first, int count);
  std::vector<int> ordered(int count);
};

extern Machine machine;

#if defined(__x86_64__) || defined(__aarch64__)
// Saves the registers that a call must preserve on this stack and goes on with those on the other one.
extern "C" void emulation_switch(void** save_stack_pointer, void* load_stack_pointer);
#endif

template <typename Body>
void Machine::launch(int64_t grid, int block_threads, int bytes, Body body) {
  if (grid < 1 || grid > 0x7fffffff) throw Failure("a grid of " + std::to_string(grid) + " blocks");
  if (block_threads % kWarp != 0 || block_threads > 1024) throw Failure("a block of no whole warps");
  launches += 1;
  blocks += grid;
  threads = block_threads;
  shared_bytes = bytes;
  body_ = &body;
  run_ = [](void* pointer) { (*static_cast<Body*>(pointer))(); };
  for (int index : ordered(static_cast<int>(grid))) {
    block_index = static_cast<unsigned>(index);
    run_block();
  }
}

struct Index {
  unsigned x;
};
inline Index thread_position() { return {static_cast<unsigned>(machine.current->thread)}; }
inline Index block_position() { return {machine.block_index}; }
inline int lane() { return machine.current->thread % kWarp; }

template <typename A>
A shuffle(A value, int source) {
  const Fiber* warp = machine.exchange(&value);
  const A result = source >= 0 && source < kWarp ? *static_cast<const A*>(warp[source].offered) : value;
  machine.end_exchange();
  return result;
}

// One of the two numbers of a word.
template <bool kHalf>
float number_of(unsigned bits, int which) {
  if (kHalf) return from_half(uint16_t(bits >> 16 * which));
  return std::bit_cast<float>(which == 0 ? bits << 16 : bits & 0xffff0000u);
}

struct Operands {
  const unsigned* rows;     // 16x16: lane 4 i + t has columns 2 t, 2 t + 1 (+ 8) of rows i and i + 8
  const unsigned* columns;  // 16x8: rows 2 t, 2 t + 1 (+ 8) of column i
};
template <bool kHalf>
float row_entry(const Fiber* warp, int row, int inner) {
  const auto* offered = static_cast<const Operands*>(warp[row % 8 * 4 + inner % 8 / 2].offered);
  return number_of<kHalf>(offered->rows[row / 8 + 2 * (inner / 8)], inner % 2);
}
template <bool kHalf>
float column_entry(const Fiber* warp, int inner, int column) {
  const auto* offered = static_cast<const Operands*>(warp[column * 4 + inner % 8 / 2].offered);
  return number_of<kHalf>(offered->columns[inner / 8], inner % 2);
}

// Adds up in float32 and cuts off what does not fit, as tensor cores do.
inline float truncated(double value) {
  const float rounded = static_cast<float>(value);
  return std::fabs(static_cast<double>(rounded)) > std::fabs(value) ? std::nextafter(rounded, 0.0f) : rounded;
}

}  // namespace emulation

#define threadIdx (emulation::thread_position())
#define blockIdx (emulation::block_position())

inline void __syncthreads() { emulation::machine.wait(emulation::Wait::block); }
template <typename A>
A __shfl_xor_sync(unsigned, A value, int mask) {
  return emulation::shuffle(value, emulation::lane() ^ mask);
}
template <typename A>
A __shfl_up_sync(unsigned, A value, int delta) {
  return emulation::shuffle(value, emulation::lane() - delta);
}
template <typename A>
A __shfl_sync(unsigned, A value, int source) {
  return emulation::shuffle(value, source);
}

namespace sc_layers {

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
struct Half;

inline unsigned char* shared_memory() { return emulation::machine.shared.get(); }

inline float float_of(unsigned bits) { return std::bit_cast<float>(bits); }
inline unsigned pack_half(float low, float high) {
  return emulation::to_half(low) | unsigned(emulation::to_half(high)) << 16;
}
inline unsigned pack_bfloat16(float low, float high) {
  return emulation::to_bfloat16(low) | unsigned(emulation::to_bfloat16(high)) << 16;
}
inline float unpack_half(unsigned bits, int which) { return emulation::from_half(uint16_t(bits >> 16 * which)); }

template <typename T>
void multiply(float (&sum)[4], const unsigned (&rows)[4], const unsigned (&columns)[2]) {
  constexpr bool kHalf = std::is_same_v<T, Half>;
  const emulation::Operands mine{rows, columns};
  const emulation::Fiber* warp = emulation::machine.exchange(&mine);
  const int row = emulation::lane() / 4, column = emulation::lane() % 4 * 2;
  for (int i = 0; i < 4; ++i) {
    double total = sum[i];
    for (int inner = 0; inner < 16; ++inner) {
      total += double(emulation::row_entry<kHalf>(warp, row + i / 2 * 8, inner)) *
               emulation::column_entry<kHalf>(warp, inner, column + i % 2);
    }
    sum[i] = emulation::truncated(total);
  }
  emulation::machine.end_exchange();
}

inline unsigned transpose(unsigned pair) {
  const emulation::Fiber* warp = emulation::machine.exchange(&pair);
  const int row = emulation::lane() / 4, column = emulation::lane() % 4 * 2;
  unsigned result = 0;
  for (int i = 0; i < 2; ++i) {
    const unsigned word = *static_cast<const unsigned*>(warp[(column + i) * 4 + row / 2].offered);
    result |= (word >> row % 2 * 16 & 0xffffu) << 16 * i;
  }
  emulation::machine.end_exchange();
  return result;
}

template <typename Arguments>
const char* launch(void (*kernel)(Arguments), int64_t blocks, int shared_bytes, void*, const Arguments& arguments) {
  constexpr int kThreads = 256;  // as in device.cuh
  try {
    emulation::machine.launch(blocks, kThreads, shared_bytes, [&] { kernel(arguments); });
  } catch (const emulation::Failure& failure) {
    emulation::machine.error = failure.what();
    return emulation::machine.error.c_str();
  }
  return nullptr;
}

}  // namespace sc_layers
