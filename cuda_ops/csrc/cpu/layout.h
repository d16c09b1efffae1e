// How the kernels divide a tensor, what scratch memory they keep, and the loops that run in parallel.
//
// Included by `kernels.cpp` only, like `vector.h`.
#pragma once

#include "kernels.h"
#include "vector.h"

namespace sc_layers::SC_LAYERS_ISA {
namespace {

// Pixels and channels are grouped in blocks of this many, whatever the width of a vector register.
constexpr int64_t kBlock = 16;
// A strip is what one task of a loop over pixels handles: its blend weights and their gradients stay in an L1 cache.
constexpr int64_t kMinStrip = 256;
constexpr int64_t kMaxStrip = 512;
// Where only the weights are read, they may come from an L2 cache: longer runs suit the memory better.
constexpr int64_t kStripsPerRun = 4;
// Bytes of features that one task of a loop over channels may have: a fraction of an L2 cache.
constexpr int64_t kGroupBytes = 256 << 10;

constexpr int64_t min_of(int64_t a, int64_t b) { return a < b ? a : b; }
constexpr int64_t max_of(int64_t a, int64_t b) { return a > b ? a : b; }
constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Passed to a generic lambda: whether a vector may stick out of the tensor.
struct Whole {
  static constexpr bool value = false;
};
struct Partial {
  static constexpr bool value = true;
};

struct Sizes {
  int64_t n, c, h, w, k, j;
  int64_t pixels, pixel_blocks;      // of a plane
  int64_t channel_blocks, channels;  // the latter padded to whole blocks
  int64_t strip, strips;             // pixels a strip, strips a plane
  int64_t group, groups;             // channels a task, tasks a sample, where a task handles whole planes
  int64_t weights;                   // numbers that the blend weights of a sample take

  Sizes(const Shape& s, int64_t element_bytes) : n(s.n), c(s.c), h(s.h), w(s.w), k(s.k), j(s.j) {
    pixels = h * w;
    pixel_blocks = ceil_div(pixels, kBlock);
    channel_blocks = ceil_div(c, kBlock);
    channels = channel_blocks * kBlock;
    strip = min_of(kMaxStrip, max_of(kMinStrip, ceil_div(ceil_div(pixels, 2), kBlock) * kBlock));
    strips = ceil_div(pixels, strip);
    group = min_of(16, max_of(4, kGroupBytes / (pixels * element_bytes) / 2 * 2));
    groups = ceil_div(c, group);
    weights = pixel_blocks * (k + 1) * kBlock;
  }

  int64_t pixels_of(int64_t at_strip) const { return min_of(strip, pixels - at_strip * strip); }
};

// Scratch memory. The styles and their gradients lie as [channel block][k][scale, bias][16], the blend weights and
// their gradients as [pixel block][w_1 .. w_k, keep][16].
template <typename A>
struct Scratch {
  A *gate_h, *gate_w;            // [n, k, j, h or w]; gate_h times gain / j
  A *soft_h, *soft_w;            // [n, k, j, 2, h or w], softmax of the logits
  A *cum_h, *cum_w;              // its running sum
  A* styles;                     // [n, channel block, k, 2, 16]
  A* weights;                    // [n, pixel block, k + 1, 16]
  A *mean, *rstd;                // [n, channels]
  A* grad_weights;               // like weights; this and the rest: backward only
  A* grad_styles;                // [n, strip, channel block, k, 2, 16]
  A* grad_masks;                 // [n, k, pixel blocks * 16]
  A *grad_gate_h, *grad_gate_w;  // like gate_h, gate_w
  A *mean_u, *mean_ux;           // [n, channels], means of u = dL/dx_hat and of u x_hat over a plane
  A* addend;                     // [n, channels], what every pixel of a plane adds to dL/dx
  size_t bytes = 0;

  Scratch(const Sizes& s, bool backward, void* memory) : memory_(static_cast<char*>(memory)) {
    const int64_t gates = s.n * s.k * s.j;
    const int64_t styles_size = s.n * s.channel_blocks * s.k * 2 * kBlock;
    gate_h = take(gates * s.h);
    gate_w = take(gates * s.w);
    soft_h = take(gates * 2 * s.h);
    soft_w = take(gates * 2 * s.w);
    cum_h = take(gates * 2 * s.h);
    cum_w = take(gates * 2 * s.w);
    styles = take(styles_size);
    weights = take(s.n * s.weights);
    mean = take(s.n * s.channels);
    rstd = take(s.n * s.channels);
    const int64_t on = backward ? 1 : 0;
    grad_weights = take(on * s.n * s.weights);
    grad_styles = take(on * s.strips * styles_size);
    grad_masks = take(on * s.n * s.k * s.pixel_blocks * kBlock);
    grad_gate_h = take(on * gates * s.h);
    grad_gate_w = take(on * gates * s.w);
    mean_u = take(on * s.n * s.channels);
    mean_ux = take(on * s.n * s.channels);
    addend = take(on * s.n * s.channels);
  }

 private:
  char* memory_;

  A* take(int64_t count) {
    const size_t at = bytes;
    bytes += static_cast<size_t>(ceil_div(count * static_cast<int64_t>(sizeof(A)), 64) * 64);
    return memory_ == nullptr ? nullptr : reinterpret_cast<A*>(memory_ + at);
  }
};

template <typename A>
A* strip_weights(const Sizes& s, A* weights, int64_t sample, int64_t strip) {
  return weights + sample * s.weights + strip * s.strip * (s.k + 1);
}

template <typename A>
const A* styles_of(const Sizes& s, const A* styles, int64_t sample, int64_t channel) {
  return styles + (sample * s.channel_blocks + channel / kBlock) * s.k * 2 * kBlock + channel % kBlock;
}

// Calls body(i) for i in 0..size, at least `grain` of them one after the other.
template <typename Body>
void for_each(const Parallel& parallel, int64_t size, int64_t grain, const Body& body) {
  auto piece = [](int64_t begin, int64_t end, void* context) {
    const Body& run = *static_cast<const Body*>(context);
    for (int64_t i = begin; i < end; ++i) run(i);
  };
  parallel(size, grain, piece, const_cast<void*>(static_cast<const void*>(&body)));
}

// Calls body(sample, task) for every task of every sample.
template <typename Body>
void for_tasks(const Parallel& parallel, int64_t samples, int64_t tasks, const Body& body) {
  for_each(parallel, samples * tasks, 1, [&](int64_t index) { body(index / tasks, index % tasks); });
}

}  // namespace
}  // namespace sc_layers::SC_LAYERS_ISA
