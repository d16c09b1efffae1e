// How the work of one call is cut into blocks, and what that costs. Plain C++: used by the launches and by benchmarks.
//
// A block holds `batch` channels of one sample and a slice of `slice` pixels of them in shared memory. If a plane is
// one slice, or its slices are the blocks of one cluster (compute capability 9.0 and up), statistics are exchanged on
// chip and the features are read once; otherwise one launch finds the statistics and a second one reads them again.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "../constrict.h"

#if defined(__CUDACC__)
#define SC_LAYERS_SHARED_CODE __host__ __device__
#else
#define SC_LAYERS_SHARED_CODE
#endif

namespace sc_layers {

constexpr int kThreads = 256;    // of every block
constexpr int kRegisters = 64;   // a thread, as bounded by the kernels' launch bounds
constexpr int kCodesAtOnce = 5;  // codes whose sums a thread keeps in registers in the backward pass
constexpr int kMinBatch = 4;
constexpr int kMaxBatch = 64;
constexpr int kSpanBytes = 48;  // of the record that says which piece a block works on
constexpr int kSector = 32;     // bytes that device memory moves at least

struct Device {
  int multiprocessors;
  int shared_per_block;  // bytes, with opt-in
  int shared_per_multiprocessor;
  int threads_per_multiprocessor;
  int max_cluster;   // blocks; 1 where there are no clusters
  int64_t max_grid;  // blocks
  int lanes;         // instructions of threads that a multiprocessor starts per clock
  double clock;      // Hz
  double bandwidth;  // bytes/s of device memory
};

enum class Stage : int {
  whole = 0,       // everything in one launch, planes on chip
  statistics = 1,  // first launch for larger planes: sums over slices
  apply = 2,       // second launch: the result, from the finished sums
};

// Byte offsets of what a block keeps in shared memory, and their sum.
struct Layout {
  int features, gradients, weights, weight_gradients, styles, sums, totals, statistics, factors, bands_h, bands_w, span,
      bytes;
};

// The cut of one main launch.
struct Plan {
  bool on_chip;           // one launch reads every feature once
  int slice, slices;      // pixels in a slice, slices in a plane
  int cluster;            // blocks in a cluster
  int batch, batch_log2;  // channels on chip at a time, a power of two
  int batches;            // consecutive batches of one block (backward)
  int groups;             // blocks along the channels
  int chunk, chunk_log2;  // pixels whose blend weights are on chip at a time, a power of two
  int segments;           // warps that share the pixels of a channel in reductions
  int parts;              // threads that share the channels of a pixel (backward)
  int row_pair_mask;      // pairs of channels in a batch, less one: masks worked out on the device occupy registers
  int quad_mask;          // quads of pixels in a chunk, less one
  int together;           // codes that one pass of the reductions takes (backward)
  int stride;             // elements between channels on chip
  int band_rows;          // rows of gates on chip
  bool bands_on_chip;
  Layout shared;
  int resident;  // blocks on a multiprocessor at a time
  int64_t blocks;
};

inline SC_LAYERS_SHARED_CODE int ceil_divide(int a, int b) { return a / b + (a % b != 0); }
inline SC_LAYERS_SHARED_CODE int round_up(int a, int b) { return ceil_divide(a, b) * b; }

inline int next_power_of_two(int64_t value) {
  int power = 1;
  while (power < value) power *= 2;
  return power;
}

inline int scalar_bytes(Scalar scalar) { return scalar == Scalar::f64 ? 8 : scalar == Scalar::f32 ? 4 : 2; }
inline int accumulator_bytes(Scalar scalar) { return scalar == Scalar::f64 ? 8 : 4; }

// Shared memory of the kernel that turns gradients of blend weights into gradients of logits, and its strips.
struct GatePlan {
  bool bands_on_chip;
  int strip_rows, strip_columns, shared_bytes;
};

GatePlan plan_gates(const Shape& shape, const Device& device);
Plan plan_forward(const Shape& shape, const Device& device);
Plan plan_backward(const Shape& shape, const Device& device);

// What a call costs by the model that README.md explains, from its plan alone.
struct Estimate {
  double seconds;
  double ideal_seconds;        // the features alone, read and written once at full bandwidth
  double feature_bytes;        // of features and their gradients, to and from device memory
  double other_bytes;          // of everything else, however often blocks read it
  double memory_seconds;       // of the main launches, were memory the only limit
  double instruction_seconds;  // and were issuing instructions the only limit
  double last_wave_seconds;    // lost because the last blocks do not fill the device
  int launches;
};
}  // namespace sc_layers
