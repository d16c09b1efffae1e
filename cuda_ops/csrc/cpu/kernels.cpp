// Forward and backward pass of the fused operator on the CPU.
//
// Compiled once per instruction set (SC_LAYERS_ISA names the namespace). Where there are enough samples, every thread
// takes whole ones. Else samples are handled in chunks that fit the caches, and all threads work on a chunk. Either way
// these are the steps, each a loop whose iterations write to places of their own:
//
//   forward:   gates and packed styles -> blend weights of every pixel -> statistics and blending
//   backward:  gates and packed styles -> blend weights, sums over channels, gradient of the masks
//              -> sums over pixels (gradients of the styles), gradients of the gates -> gradient of x
//
// A sum is always split at the same places, so the result does not depend on the number of threads.
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
// Bytes of features and scratch memory that a chunk of samples may have: a fraction of a last-level cache.
constexpr int64_t kChunkBytes = 8 << 20;
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
};

// Scratch memory of a chunk of samples. The styles and their gradients lie as [channel block][k][scale, bias][16],
// the blend weights and their gradients as [pixel block][w_1 .. w_k, keep][16].
template <typename A>
struct Scratch {
  A *gate_h, *gate_w;            // [sample, k, j, h or w]; gate_h times gain / j
  A *soft_h, *soft_w;            // [sample, k, j, 2, h or w], softmax of the logits
  A *cum_h, *cum_w;              // its running sum
  A* styles;                     // [sample, channel block, k, 2, 16]
  A* weights;                    // [sample, pixel block, k + 1, 16]
  A *mean, *rstd;                // [sample, channels]
  A* statistics;                 // [sample, strip, 2, channels], channels_last forward only
  A* grad_weights;               // like weights; this and the rest: backward only
  A* grad_styles;                // [sample, strip, channel block, k, 2, 16]
  A* grad_masks;                 // [sample, k, pixel blocks * 16]
  A *grad_gate_h, *grad_gate_w;  // like gate_h, gate_w
  A *mean_u, *mean_ux;           // [sample, channels], means of u = dL/dx_hat and of u x_hat over a plane
  A* grad_gain;                  // [n, k], of all samples, not only the chunk's
  size_t bytes;

  Scratch(const Sizes& s, bool channels_last, bool backward, int64_t samples, A* gain, void* memory)
      : grad_gain(gain), bytes(0), memory_(static_cast<char*>(memory)) {
    const int64_t gates = samples * s.k * s.j;
    const int64_t styles_size = samples * s.channel_blocks * s.k * 2 * kBlock;
    gate_h = take(gates * s.h);
    gate_w = take(gates * s.w);
    soft_h = take(gates * 2 * s.h);
    soft_w = take(gates * 2 * s.w);
    cum_h = take(gates * 2 * s.h);
    cum_w = take(gates * 2 * s.w);
    styles = take(styles_size);
    weights = take(samples * s.weights);
    mean = take(samples * s.channels);
    rstd = take(samples * s.channels);
    statistics = take(channels_last && !backward ? samples * s.strips * 2 * s.channels : 0);
    const int64_t on = backward ? 1 : 0;
    grad_weights = take(on * samples * s.weights);
    grad_styles = take(on * s.strips * styles_size);
    grad_masks = take(on * samples * s.k * s.pixel_blocks * kBlock);
    grad_gate_h = take(on * gates * s.h);
    grad_gate_w = take(on * gates * s.w);
    mean_u = take(on * samples * s.channels);
    mean_ux = take(on * samples * s.channels);
  }

 private:
  char* memory_;

  A* take(int64_t count) {
    const size_t at = bytes;
    bytes += static_cast<size_t>(ceil_div(count * static_cast<int64_t>(sizeof(A)), 64) * 64);
    return memory_ == nullptr ? nullptr : reinterpret_cast<A*>(memory_ + at);
  }
};

template <typename Body>
void for_each(const Parallel& parallel, int64_t size, const Body& body) {
  auto piece = [](int64_t begin, int64_t end, void* context) {
    const Body& run = *static_cast<const Body*>(context);
    for (int64_t i = begin; i < end; ++i) run(i);
  };
  parallel.run(size, piece, const_cast<void*>(static_cast<const void*>(&body)));
}

// How the samples are divided.
struct Plan {
  int64_t workers;  // more than one: each takes whole samples, one after the other
  int64_t chunk;    // samples that all threads work on together, where there is one worker
  size_t shared_bytes, slot_bytes;

  template <typename A>
  static Plan of(const Sizes& s, bool channels_last, bool backward, int64_t element_bytes, int64_t threads) {
    auto scratch_bytes = [&](int64_t samples) {
      return Scratch<A>(s, channels_last, backward, samples, nullptr, nullptr).bytes;
    };
    const size_t shared = backward ? static_cast<size_t>(ceil_div(s.n * s.k * sizeof(A), 64) * 64) : 0;
    if (s.n % threads == 0 || s.n >= 4 * threads) return {threads, 1, shared, scratch_bytes(1)};
    // A contiguous forward pass reads x once: nothing is gained from keeping it.
    const int64_t reads = backward ? 2 : (channels_last ? 1 : 0);
    const int64_t features = reads * s.c * s.pixels * element_bytes;
    const int64_t fitting = kChunkBytes / (features + static_cast<int64_t>(scratch_bytes(1)));
    const int64_t occupying = ceil_div(2 * threads, s.strips);
    const int64_t chunk = min_of(s.n, max_of(1, max_of(fitting, occupying)));
    return {1, chunk, shared, scratch_bytes(chunk)};
  }

  size_t bytes() const { return shared_bytes + static_cast<size_t>(workers) * slot_bytes; }
};

const Parallel kSerial = {
    1, [](int64_t size, void (*body)(int64_t, int64_t, void*), void* context) { body(0, size, context); }};

// Calls step(scratch, parallel, first, samples) for all samples.
template <typename A, typename Step>
void for_samples(const Sizes& s, bool channels_last, bool backward, const Plan& plan, void* memory,
                 const Parallel& parallel, const Step& step) {
  char* slots = static_cast<char*>(memory) + plan.shared_bytes;
  auto scratch_of = [&](int64_t worker) {
    return Scratch<A>(s, channels_last, backward, plan.chunk, static_cast<A*>(memory),
                      slots + worker * plan.slot_bytes);
  };
  if (plan.workers > 1) {
    for_each(parallel, plan.workers, [&](int64_t worker) {
      const Scratch<A> scratch = scratch_of(worker);
      const int64_t end = s.n * (worker + 1) / plan.workers;
      for (int64_t sample = s.n * worker / plan.workers; sample < end; ++sample) step(scratch, kSerial, sample, 1);
    });
    return;
  }
  const Scratch<A> scratch = scratch_of(0);
  for (int64_t first = 0; first < s.n; first += plan.chunk) {
    step(scratch, parallel, first, min_of(plan.chunk, s.n - first));
  }
}

// ---------------------------------------------------------------- gates

// softmax and its running sum, which is summed in double as PyTorch does.
template <typename A>
void cumax(const A* logits, int64_t size, A* soft, A* cum) {
  A largest = logits[0];
  for (int64_t i = 1; i < size; ++i) largest = logits[i] > largest ? logits[i] : largest;
  double total = 0;
  for (int64_t i = 0; i < size; ++i) {
    soft[i] = exp_of(logits[i] - largest);
    total += soft[i];
  }
  const double inverse = 1 / total;
  double running = 0;
  for (int64_t i = 0; i < size; ++i) {
    soft[i] = static_cast<A>(soft[i] * inverse);
    running += soft[i];
    cum[i] = static_cast<A>(running);
  }
}

// gate = factor * cumax(start) * (1 - cumax(end)) for j pairs of logits [j, 2, size].
template <typename A>
void band_gates(const A* logits, int64_t j, int64_t size, A factor, A* soft, A* cum, A* gate) {
  for (int64_t row = 0; row < 2 * j; ++row) cumax(logits + row * size, size, soft + row * size, cum + row * size);
  for (int64_t r = 0; r < j; ++r) {
    const A* start = cum + 2 * r * size;
    const A* end = start + size;
    for (int64_t i = 0; i < size; ++i) gate[r * size + i] = factor * start[i] * (1 - end[i]);
  }
}

// From dL/dgate to dL/dlogits, the gate without its factor.
template <typename A>
void band_gates_backward(const A* grad_gate, int64_t j, int64_t size, const A* soft, const A* cum, A* grad_logits) {
  for (int64_t r = 0; r < j; ++r) {
    for (int64_t which = 0; which < 2; ++which) {
      const int64_t at = (2 * r + which) * size;
      const A* other = cum + (2 * r + 1 - which) * size;
      A* grad = grad_logits + at;
      double suffix = 0, dot = 0;
      for (int64_t i = size - 1; i >= 0; --i) {
        const A slope = which == 0 ? 1 - other[i] : -other[i];
        suffix += grad_gate[r * size + i] * slope;
        grad[i] = static_cast<A>(suffix);
        dot += suffix * soft[at + i];
      }
      for (int64_t i = 0; i < size; ++i) grad[i] = static_cast<A>(soft[at + i] * (grad[i] - dot));
    }
  }
}

// Mask of one code at `count` pixels from `first` on.
template <typename A>
void mask_of_strip(const Sizes& s, const A* gate_h, const A* gate_w, int64_t first, int64_t count, A* mask) {
  for (int64_t done = 0; done < count;) {
    const int64_t row = (first + done) / s.w;
    const int64_t column = (first + done) % s.w;
    const int64_t length = min_of(s.w - column, count - done);
    A* to = mask + done;
    for (int64_t i = 0; i < length; ++i) to[i] = gate_h[row] * gate_w[column + i];
    for (int64_t r = 1; r < s.j; ++r) {
      const A factor = gate_h[r * s.h + row];
      const A* across = gate_w + r * s.w + column;
      for (int64_t i = 0; i < length; ++i) to[i] += factor * across[i];
    }
    done += length;
  }
}

// Blend weights of the pixels of one strip; 0 in the padding of the last block.
template <typename A>
void weights_of_strip(const Sizes& s, const A* gate_h, const A* gate_w, int64_t first, int64_t count, A* weights) {
  A mask[kMaxStrip], keep[kMaxStrip];
  const int64_t padded = ceil_div(count, kBlock) * kBlock;
  for (int64_t i = 0; i < padded; ++i) keep[i] = i < count ? A(1) : A(0);
  for (int64_t i = count; i < padded; ++i) mask[i] = 0;
  const int64_t stride = (s.k + 1) * kBlock;
  for (int64_t code = s.k - 1; code >= 0; --code) {
    mask_of_strip(s, gate_h + code * s.j * s.h, gate_w + code * s.j * s.w, first, count, mask);
    A* to = weights + code * kBlock;
    for (int64_t i = 0; i < padded; i += kBlock, to += stride) {
      for (int64_t lane = 0; lane < kBlock; ++lane) {
        const A weight = mask[i + lane] * keep[i + lane];
        to[lane] = weight;
        keep[i + lane] -= weight;
      }
    }
  }
  A* to = weights + s.k * kBlock;
  for (int64_t i = 0; i < padded; i += kBlock, to += stride) {
    for (int64_t lane = 0; lane < kBlock; ++lane) to[lane] = keep[i + lane];
  }
}

// From dL/dweights of a strip to dL/dmasks, back through the recursion
//   R_K = 1,  w_k = a_k R_k,  R_{k-1} = R_k - w_k,  keep = R_0.
template <typename A>
void masks_backward(const Sizes& s, const A* gate_h, const A* gate_w, const A* weights, const A* grad_weights,
                    int64_t first, int64_t count, A* grad_masks) {
  A mask[kMaxStrip], left[kMaxStrip], grad_left[kMaxStrip];  // left: R_k
  const int64_t stride = (s.k + 1) * kBlock;
  const int64_t padded = ceil_div(count, kBlock) * kBlock;
  for (int64_t i = 0; i < padded; ++i) {
    const int64_t at = i / kBlock * stride + s.k * kBlock + i % kBlock;
    left[i] = weights[at];
    grad_left[i] = grad_weights[at];
    mask[i] = 0;
  }
  for (int64_t code = 0; code < s.k; ++code) {
    mask_of_strip(s, gate_h + code * s.j * s.h, gate_w + code * s.j * s.w, first, count, mask);
    A* to = grad_masks + code * s.pixel_blocks * kBlock;
    for (int64_t i = 0; i < padded; i += kBlock) {
      const A* weight = weights + i / kBlock * stride + code * kBlock;
      const A* grad_weight = grad_weights + i / kBlock * stride + code * kBlock;
      for (int64_t lane = 0; lane < kBlock; ++lane) {
        const A difference = grad_weight[lane] - grad_left[i + lane];
        left[i + lane] += weight[lane];
        to[i + lane] = left[i + lane] * difference;
        grad_left[i + lane] += difference * mask[i + lane];
      }
    }
  }
}

template <typename A>
A dot(const A* a, const A* b, int64_t size) {
  Vector<A> total{};
  int64_t i = 0;
  for (; i + kLanes<A> <= size; i += kLanes<A>) total += load(a + i) * load(b + i);
  A sum = sum_of<A>(total);
  for (; i < size; ++i) sum += a[i] * b[i];
  return sum;
}

// Gradients of the gate logits of one code of one sample, and its share of the gradient of the code's gain.
template <typename A>
void gates_backward(const Sizes& s, const Scratch<A>& scratch, const Backward& args, int64_t local, int64_t sample,
                    int64_t code) {
  const int64_t gate = (local * s.k + code) * s.j;
  const A* gain = static_cast<const A*>(args.mask_gain);
  const A factor = (gain == nullptr ? A(1) : gain[code]) / static_cast<A>(s.j);
  const A* grad_mask = scratch.grad_masks + (local * s.k + code) * s.pixel_blocks * kBlock;
  double grad_gain = 0;
  for (int64_t r = 0; r < s.j; ++r) {
    const A* gate_h = scratch.gate_h + (gate + r) * s.h;
    const A* gate_w = scratch.gate_w + (gate + r) * s.w;
    const A* start = scratch.cum_h + (gate + r) * 2 * s.h;
    A* grad_h = scratch.grad_gate_h + (gate + r) * s.h;
    A* grad_w = scratch.grad_gate_w + (gate + r) * s.w;
    for (int64_t i = 0; i < s.w; ++i) grad_w[i] = 0;
    for (int64_t row = 0; row < s.h; ++row) {
      const A* grad_row = grad_mask + row * s.w;
      const A across = dot(grad_row, gate_w, s.w);
      grad_gain += across * (start[row] * (1 - start[s.h + row]));
      grad_h[row] = factor * across;
      const A down = gate_h[row];
      for (int64_t i = 0; i < s.w; ++i) grad_w[i] += down * grad_row[i];
    }
  }
  scratch.grad_gain[sample * s.k + code] = static_cast<A>(grad_gain / static_cast<double>(s.j));
  const int64_t out = (sample * s.k + code) * s.j * 2;
  band_gates_backward(scratch.grad_gate_h + gate * s.h, s.j, s.h, scratch.soft_h + gate * 2 * s.h,
                      scratch.cum_h + gate * 2 * s.h, static_cast<A*>(args.grad_gate_logits_h) + out * s.h);
  band_gates_backward(scratch.grad_gate_w + gate * s.w, s.j, s.w, scratch.soft_w + gate * 2 * s.w,
                      scratch.cum_w + gate * 2 * s.w, static_cast<A*>(args.grad_gate_logits_w) + out * s.w);
}

// ---------------------------------------------------------------- what both passes begin with

template <typename A, typename Args>
void gates_of_code(const Sizes& s, const Scratch<A>& scratch, const Args& args, int64_t local, int64_t sample,
                   int64_t code) {
  const A* gain = static_cast<const A*>(args.mask_gain);
  const A factor = (gain == nullptr ? A(1) : gain[code]) / static_cast<A>(s.j);
  const int64_t from = (sample * s.k + code) * s.j * 2;
  const int64_t to = (local * s.k + code) * s.j;
  band_gates(static_cast<const A*>(args.gate_logits_h) + from * s.h, s.j, s.h, factor, scratch.soft_h + to * 2 * s.h,
             scratch.cum_h + to * 2 * s.h, scratch.gate_h + to * s.h);
  band_gates(static_cast<const A*>(args.gate_logits_w) + from * s.w, s.j, s.w, A(1), scratch.soft_w + to * 2 * s.w,
             scratch.cum_w + to * 2 * s.w, scratch.gate_w + to * s.w);
}

template <typename A, typename Args>
void pack_styles(const Sizes& s, const Scratch<A>& scratch, const Args& args, int64_t local, int64_t sample,
                 int64_t block) {
  A* to = scratch.styles + (local * s.channel_blocks + block) * s.k * 2 * kBlock;
  const int64_t count = min_of(kBlock, s.c - block * kBlock);
  for (int64_t code = 0; code < s.k; ++code) {
    const void* tensors[] = {args.scale, args.bias};
    for (const void* tensor : tensors) {
      const A* from = static_cast<const A*>(tensor) + (sample * s.k + code) * s.c + block * kBlock;
      for (int64_t i = 0; i < kBlock; ++i) to[i] = i < count ? from[i] : A(0);
      to += kBlock;
    }
  }
}

template <typename A, typename Args>
void gates_and_styles(const Sizes& s, const Scratch<A>& scratch, const Args& args, const Parallel& parallel,
                      int64_t first, int64_t samples) {
  const int64_t tasks = s.k + s.channel_blocks;
  for_each(parallel, samples * tasks, [&](int64_t index) {
    const int64_t local = index / tasks, task = index % tasks;
    if (task < s.k) {
      gates_of_code(s, scratch, args, local, first + local, task);
    } else {
      pack_styles(s, scratch, args, local, first + local, task - s.k);
    }
  });
}

template <typename A>
A* strip_weights(const Sizes& s, A* weights, int64_t local, int64_t strip) {
  return weights + local * s.weights + strip * s.strip * (s.k + 1);
}

template <typename A>
const A* styles_of(const Sizes& s, const A* styles, int64_t local, int64_t channel) {
  return styles + (local * s.channel_blocks + channel / kBlock) * s.k * 2 * kBlock + channel % kBlock;
}

template <typename A>
void weights_of_task(const Sizes& s, const Scratch<A>& scratch, int64_t local, int64_t strip) {
  const int64_t first = strip * s.strip;
  weights_of_strip(s, scratch.gate_h + local * s.k * s.j * s.h, scratch.gate_w + local * s.k * s.j * s.w, first,
                   min_of(s.strip, s.pixels - first), strip_weights(s, scratch.weights, local, strip));
}

// ---------------------------------------------------------------- statistics

// Mean of a plane and the sum of squared deviations from it. The mean is corrected by the mean deviation from it,
// which makes it exact for a constant plane.
template <typename T, typename A>
void plane_statistics(const T* x, int64_t pixels, A& mean, A& squares) {
  constexpr int64_t kStep = kLanes<A>;
  Vector<A> sums[4] = {};
  int64_t i = 0;
  for (; i + 4 * kStep <= pixels; i += 4 * kStep) {
    for (int part = 0; part < 4; ++part) sums[part] += load(x + i + part * kStep);
  }
  for (; i < pixels; i += kStep) sums[0] += load_up_to<true, A>(x + i, pixels - i);
  const A rough = sum_of<A>((sums[0] + sums[1]) + (sums[2] + sums[3])) / static_cast<A>(pixels);

  Vector<A> deviation[2] = {}, square[2] = {};
  for (i = 0; i + 2 * kStep <= pixels; i += 2 * kStep) {
    for (int part = 0; part < 2; ++part) {
      const Vector<A> d = load(x + i + part * kStep) - rough;
      deviation[part] += d;
      square[part] += d * d;
    }
  }
  A rest = 0, rest_square = 0;
  if (i + kStep <= pixels) {
    const Vector<A> d = load(x + i) - rough;
    deviation[0] += d;
    square[0] += d * d;
    i += kStep;
  }
  if (i < pixels) {
    const Vector<A> last = load_first(x + i, pixels - i) - rough;
    for (int64_t lane = 0; lane < pixels - i; ++lane) {
      rest += last[lane];
      rest_square += last[lane] * last[lane];
    }
  }
  const A correction = (sum_of<A>(deviation[0] + deviation[1]) + rest) / static_cast<A>(pixels);
  mean = rough + correction;
  squares = sum_of<A>(square[0] + square[1]) + rest_square - correction * correction * static_cast<A>(pixels);
}

template <typename A>
A rstd_of(A squares, int64_t pixels, double eps) {
  // Rounding may leave a tiny negative sum; NaN passes through.
  const A variance = squares < 0 ? A(0) : squares / static_cast<A>(pixels);
  return A(1) / sqrt_of(static_cast<A>(variance + static_cast<A>(eps)));
}

// ---------------------------------------------------------------- contiguous: vectors run along pixels

// What a kernel needs of CHANNELS channels, in registers.
template <int CHANNELS, typename A>
struct PerChannel {
  A value[CHANNELS];

  explicit PerChannel(const A* from) {
    for (int c = 0; c < CHANNELS; ++c) value[c] = from[c];
  }
  A operator[](int c) const { return value[c]; }
};

// CHANNELS channels at VECTORS vectors of pixels. x and y point at the first pixel of the first channel,
// `weights` at that pixel's place in its block.
template <int CHANNELS, int VECTORS, bool PARTIAL, typename T, typename A>
SC_LAYERS_INLINE void blend_pixels(int64_t codes, int64_t plane, const T* x, T* y, const A* weights, const A* styles,
                                   const PerChannel<CHANNELS, A>& mean, const PerChannel<CHANNELS, A>& rstd,
                                   int64_t count) {
  Vector<A> gain[CHANNELS][VECTORS] = {}, shift[CHANNELS][VECTORS] = {};
  for (int64_t code = 0; code < codes; ++code, weights += kBlock, styles += 2 * kBlock) {
    for (int v = 0; v < VECTORS; ++v) {
      const Vector<A> weight = load(weights + v * kLanes<A>);
      for (int c = 0; c < CHANNELS; ++c) {
        gain[c][v] += weight * styles[c];
        shift[c][v] += weight * styles[kBlock + c];
      }
    }
  }
  for (int c = 0; c < CHANNELS; ++c) {
    for (int v = 0; v < VECTORS; ++v) {
      const int64_t at = c * plane + v * kLanes<A>;
      const int64_t left = count - v * kLanes<A>;
      const Vector<A> keep = load(weights + v * kLanes<A>);
      const Vector<A> in = load_up_to<PARTIAL, A>(x + at, left);
      const Vector<A> out = in * keep + ((in - mean[c]) * rstd[c] * gain[c][v] + shift[c][v]);
      store_up_to<PARTIAL, A>(y + at, out, left);
    }
  }
}

template <typename A>
constexpr int kVectorsPerBlock = kBlock / kLanes<A>;
template <typename A>
constexpr int kVectorsAtOnce = kVectorsPerBlock<A> < 2 ? 1 : 2;

template <int CHANNELS, typename T, typename A>
void blend_run(const Sizes& s, const T* x, T* y, const A* weights, const A* styles, const A* means, const A* rstds,
               int64_t count) {
  constexpr int kStep = kVectorsAtOnce<A> * kLanes<A>;
  const int64_t codes = s.k, plane = s.pixels, stride = (codes + 1) * kBlock;
  const PerChannel<CHANNELS, A> mean(means), rstd(rstds);
  int64_t i = 0;
  for (; i + kBlock <= count; i += kBlock, weights += stride) {
    for (int at = 0; at < kBlock; at += kStep) {
      blend_pixels<CHANNELS, kVectorsAtOnce<A>, false>(codes, plane, x + i + at, y + i + at, weights + at, styles, mean,
                                                       rstd, kStep);
    }
  }
  for (int at = 0; i + at < count; at += kLanes<A>) {
    blend_pixels<CHANNELS, 1, true>(codes, plane, x + i + at, y + i + at, weights + at, styles, mean, rstd,
                                    count - i - at);
  }
}

template <typename T, typename A>
void forward_planes(const Sizes& s, const Scratch<A>& scratch, const Forward& args, int64_t local, int64_t sample,
                    int64_t group) {
  const int64_t begin = group * s.group, end = min_of(s.c, begin + s.group);
  const T* x = static_cast<const T*>(args.x) + sample * s.c * s.pixels;
  T* y = static_cast<T*>(args.y) + sample * s.c * s.pixels;
  A* mean = static_cast<A*>(args.mean) + sample * s.c;
  A* rstd = static_cast<A*>(args.rstd) + sample * s.c;
  for (int64_t c = begin; c < end; ++c) {
    A squares;
    plane_statistics(x + c * s.pixels, s.pixels, mean[c], squares);
    rstd[c] = rstd_of(squares, s.pixels, args.eps);
  }
  for (int64_t strip = 0; strip < s.strips; strip += kStripsPerRun) {
    const int64_t first = strip * s.strip, count = min_of(kStripsPerRun * s.strip, s.pixels - first);
    const A* weights = strip_weights(s, scratch.weights, local, strip);
    for (int64_t c = begin; c < end; c += 2) {
      const int64_t at = c * s.pixels + first;
      const auto run = c + 1 < end ? blend_run<2, T, A> : blend_run<1, T, A>;
      run(s, x + at, y + at, weights, styles_of(s, scratch.styles, local, c), mean + c, rstd + c, count);
    }
  }
}

// dL/dy and dL/dy * x_hat of a few channels of a strip, 0 in the padding of the last block.
template <int CHANNELS, typename A>
struct Strip {
  A grad[CHANNELS][kMaxStrip];
  A grad_x_hat[CHANNELS][kMaxStrip];
};

// Fills `strip` and adds to dL/dkeep. `next` is how far the features lie that are wanted next: they are fetched.
template <int CHANNELS, typename T, typename A>
void read_strip(int64_t codes, int64_t plane, const T* grad, const T* x, const A* means, const A* rstds, int64_t count,
                int64_t next, A* grad_keep, Strip<CHANNELS, A>& strip) {
  const PerChannel<CHANNELS, A> mean(means), rstd(rstds);
  auto read = [&](auto partial, int64_t at, int64_t lane) __attribute__((always_inline)) {
    constexpr bool kPartial = decltype(partial)::value;
    Vector<A> keep = load(static_cast<const A*>(grad_keep + lane));
    for (int c = 0; c < CHANNELS; ++c) {
      const int64_t from = c * plane + at + lane, left = count - at - lane;
      const Vector<A> g = load_up_to<kPartial, A>(grad + from, left);
      const Vector<A> in = load_up_to<kPartial, A>(x + from, left);
      keep += g * in;
      store(strip.grad[c] + at + lane, g);
      store(strip.grad_x_hat[c] + at + lane, g * ((in - mean[c]) * rstd[c]));
    }
    store(grad_keep + lane, keep);
  };
  int64_t at = 0;
  for (; at + kBlock <= count; at += kBlock, grad_keep += (codes + 1) * kBlock) {
    for (int c = 0; c < CHANNELS; ++c) {
      __builtin_prefetch(grad + c * plane + at + next);
      __builtin_prefetch(x + c * plane + at + next);
    }
    for (int lane = 0; lane < kBlock; lane += kLanes<A>) read(Whole{}, at, lane);
  }
  if (at < count) {
    for (int lane = 0; lane < kBlock; lane += kLanes<A>) read(Partial{}, at, lane);
  }
}

// For CODES codes of CHANNELS channels: adds to dL/dweights, and sums g w and g x_hat w over the pixels of a strip.
template <int CODES, int CHANNELS, typename A>
void reduce_strip(int64_t blocks, int64_t stride, const Strip<CHANNELS, A>& strip, const A* weights, A* grad_weights,
                  const A* styles, A* grad_styles) {
  Vector<A> grad_bias[CODES][CHANNELS] = {}, grad_scale[CODES][CHANNELS] = {};
  for (int64_t block = 0; block < blocks; ++block, weights += stride, grad_weights += stride) {
    for (int lane = 0; lane < kBlock; lane += kLanes<A>) {
      Vector<A> g[CHANNELS], gx[CHANNELS];
      for (int c = 0; c < CHANNELS; ++c) {
        g[c] = load(strip.grad[c] + block * kBlock + lane);
        gx[c] = load(strip.grad_x_hat[c] + block * kBlock + lane);
      }
      for (int i = 0; i < CODES; ++i) {
        const Vector<A> weight = load(weights + i * kBlock + lane);
        Vector<A> sum = load(static_cast<const A*>(grad_weights + i * kBlock + lane));
        for (int c = 0; c < CHANNELS; ++c) {
          grad_bias[i][c] += g[c] * weight;
          grad_scale[i][c] += gx[c] * weight;
          sum += gx[c] * styles[2 * i * kBlock + c];
          sum += g[c] * styles[(2 * i + 1) * kBlock + c];
        }
        store(grad_weights + i * kBlock + lane, sum);
      }
    }
  }
  for (int i = 0; i < CODES; ++i) {
    for (int c = 0; c < CHANNELS; ++c) {
      grad_styles[2 * i * kBlock + c] = sum_of<A>(grad_scale[i][c]);
      grad_styles[(2 * i + 1) * kBlock + c] = sum_of<A>(grad_bias[i][c]);
    }
  }
}

// Codes handled together: as many as the registers hold the sums of.
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int kCodesAtOnce = 4;
#else
constexpr int kCodesAtOnce = 2;
#endif

template <int CHANNELS, typename T, typename A>
void reduce_channels(const Sizes& s, const T* grad, const T* x, const A* weights, A* grad_weights, const A* styles,
                     const A* mean, const A* rstd, int64_t count, int64_t next, A* grad_styles) {
  Strip<CHANNELS, A> strip;
  read_strip(s.k, s.pixels, grad, x, mean, rstd, count, next, grad_weights + s.k * kBlock, strip);
  const int64_t blocks = ceil_div(count, kBlock), stride = (s.k + 1) * kBlock;
  for (int64_t code = 0; code < s.k;) {
    const int64_t now = code + kCodesAtOnce <= s.k ? kCodesAtOnce : 1;
    const auto reduce = now > 1 ? reduce_strip<kCodesAtOnce, CHANNELS, A> : reduce_strip<1, CHANNELS, A>;
    reduce(blocks, stride, strip, weights + code * kBlock, grad_weights + code * kBlock, styles + 2 * code * kBlock,
           grad_styles + 2 * code * kBlock);
    code += now;
  }
}

template <typename T, typename A>
void reduce_task_contiguous(const Sizes& s, const Scratch<A>& scratch, const Backward& args, int64_t local,
                            int64_t sample, int64_t strip) {
  const int64_t first = strip * s.strip, count = min_of(s.strip, s.pixels - first);
  const int64_t at = sample * s.c * s.pixels + first;
  const T* grad = static_cast<const T*>(args.grad) + at;
  const T* x = static_cast<const T*>(args.x) + at;
  const A* weights = strip_weights(s, scratch.weights, local, strip);
  A* grad_weights = strip_weights(s, scratch.grad_weights, local, strip);
  A* grad_styles = scratch.grad_styles + (local * s.strips + strip) * s.channel_blocks * s.k * 2 * kBlock;
  const A* mean = scratch.mean + local * s.channels;
  const A* rstd = scratch.rstd + local * s.channels;
  for (int64_t c = 0; c < s.c; c += 2) {
    const A* styles = styles_of(s, scratch.styles, local, c);
    A* to = grad_styles + c / kBlock * s.k * 2 * kBlock + c % kBlock;
    const int64_t next = c + 3 < s.c ? 2 * s.pixels : 0;
    const auto reduce = c + 1 < s.c ? reduce_channels<2, T, A> : reduce_channels<1, T, A>;
    reduce(s, grad + c * s.pixels, x + c * s.pixels, weights, grad_weights, styles, mean + c, rstd + c, count, next,
           to);
  }
}

// dL/dx = g keep + rstd * (u - mean(u) - x_hat mean(u x_hat)),  u = g sum_k w_k scale_k
template <int CHANNELS, typename A>
struct NormBackward {
  PerChannel<CHANNELS, A> mean, rstd, mean_u, mean_ux;
};

template <int CHANNELS, int VECTORS, bool PARTIAL, typename T, typename A>
SC_LAYERS_INLINE void grad_pixels(int64_t codes, int64_t plane, const T* grad, const T* x, T* grad_x, const A* weights,
                                  const A* styles, const NormBackward<CHANNELS, A>& norm, int64_t count) {
  Vector<A> gain[CHANNELS][VECTORS] = {};
  for (int64_t code = 0; code < codes; ++code, weights += kBlock, styles += 2 * kBlock) {
    for (int v = 0; v < VECTORS; ++v) {
      const Vector<A> weight = load(weights + v * kLanes<A>);
      for (int c = 0; c < CHANNELS; ++c) gain[c][v] += weight * styles[c];
    }
  }
  for (int c = 0; c < CHANNELS; ++c) {
    for (int v = 0; v < VECTORS; ++v) {
      const int64_t at = c * plane + v * kLanes<A>;
      const int64_t left = count - v * kLanes<A>;
      const Vector<A> keep = load(weights + v * kLanes<A>);
      const Vector<A> g = load_up_to<PARTIAL, A>(grad + at, left);
      const Vector<A> x_hat = (load_up_to<PARTIAL, A>(x + at, left) - norm.mean[c]) * norm.rstd[c];
      const Vector<A> normal = g * gain[c][v] - norm.mean_u[c] - x_hat * norm.mean_ux[c];
      store_up_to<PARTIAL, A>(grad_x + at, g * keep + normal * norm.rstd[c], left);
    }
  }
}

template <int CHANNELS, typename T, typename A>
void grad_run(const Sizes& s, const T* grad, const T* x, T* grad_x, const A* weights, const A* styles, const A* mean,
              const A* rstd, const A* mean_u, const A* mean_ux, int64_t count) {
  constexpr int kStep = kVectorsAtOnce<A> * kLanes<A>;
  const int64_t codes = s.k, plane = s.pixels, stride = (codes + 1) * kBlock;
  const NormBackward<CHANNELS, A> norm{PerChannel<CHANNELS, A>(mean), PerChannel<CHANNELS, A>(rstd),
                                       PerChannel<CHANNELS, A>(mean_u), PerChannel<CHANNELS, A>(mean_ux)};
  int64_t i = 0;
  for (; i + kBlock <= count; i += kBlock, weights += stride) {
    for (int at = 0; at < kBlock; at += kStep) {
      grad_pixels<CHANNELS, kVectorsAtOnce<A>, false>(codes, plane, grad + i + at, x + i + at, grad_x + i + at,
                                                      weights + at, styles, norm, kStep);
    }
  }
  for (int at = 0; i + at < count; at += kLanes<A>) {
    grad_pixels<CHANNELS, 1, true>(codes, plane, grad + i + at, x + i + at, grad_x + i + at, weights + at, styles, norm,
                                   count - i - at);
  }
}

template <typename T, typename A>
void grad_planes(const Sizes& s, const Scratch<A>& scratch, const Backward& args, int64_t local, int64_t sample,
                 int64_t group) {
  const int64_t begin = group * s.group, end = min_of(s.c, begin + s.group);
  const T* grad = static_cast<const T*>(args.grad) + sample * s.c * s.pixels;
  const T* x = static_cast<const T*>(args.x) + sample * s.c * s.pixels;
  T* grad_x = static_cast<T*>(args.grad_x) + sample * s.c * s.pixels;
  for (int64_t strip = 0; strip < s.strips; strip += kStripsPerRun) {
    const int64_t first = strip * s.strip, count = min_of(kStripsPerRun * s.strip, s.pixels - first);
    const A* weights = strip_weights(s, scratch.weights, local, strip);
    for (int64_t c = begin; c < end; c += 2) {
      const int64_t at = c * s.pixels + first, row = local * s.channels + c;
      const auto run = c + 1 < end ? grad_run<2, T, A> : grad_run<1, T, A>;
      run(s, grad + at, x + at, grad_x + at, weights, styles_of(s, scratch.styles, local, c), scratch.mean + row,
          scratch.rstd + row, scratch.mean_u + row, scratch.mean_ux + row, count);
    }
  }
}

// ---------------------------------------------------------------- channels_last: vectors run along channels

// Pixels handled together: their weights are scalars, the styles are read once for all of them.
constexpr int kPixelsAtOnce = 4;

// Statistics of every channel over one strip: mean and sum of squared deviations.
template <typename T, typename A>
void strip_statistics(const Sizes& s, const T* x, int64_t count, A* mean, A* squares) {
  // A few rows at a time, as many as the L1 cache holds: two passes over them, then merged with what came before.
  constexpr int64_t kRowsBytes = 16 << 10;
  const int64_t rows = min_of(64, max_of(4, kRowsBytes / (s.c * static_cast<int64_t>(sizeof(T)))));
  for (int64_t done = 0; done < count; done += rows) {
    const int64_t now = min_of(rows, count - done);
    const A share = static_cast<A>(now) / static_cast<A>(done + now);
    const A inverse = A(1) / static_cast<A>(now);
    for (int64_t c = 0; c < s.c; c += kLanes<A>) {
      const T* from = x + done * s.c + c;
      Vector<A> sum{}, deviation{}, square{};
      for (int64_t i = 0; i < now; ++i) sum += load_up_to<true, A>(from + i * s.c, s.c - c);
      const Vector<A> rough = sum * inverse;
      for (int64_t i = 0; i < now; ++i) {
        const Vector<A> d = load_up_to<true, A>(from + i * s.c, s.c - c) - rough;
        deviation += d;
        square += d * d;
      }
      const Vector<A> correction = deviation * inverse;
      const Vector<A> here = rough + correction;
      square -= correction * deviation;
      if (done > 0) {
        const Vector<A> before = load(static_cast<const A*>(mean + c));
        const Vector<A> difference = here - before;
        square += load(static_cast<const A*>(squares + c)) + difference * difference * (share * static_cast<A>(done));
        store(mean + c, before + difference * share);
      } else {
        store(mean + c, here);
      }
      store(squares + c, square);
    }
  }
}

// Merges the statistics of the strips, always in the same order.
template <typename A>
void merge_statistics(const Sizes& s, const Scratch<A>& scratch, const Forward& args, int64_t local, int64_t sample,
                      int64_t block) {
  const int64_t end = min_of(s.c, (block + 1) * kBlock);
  for (int64_t c = block * kBlock; c < end; ++c) {
    A mean = 0, squares = 0;
    for (int64_t strip = 0; strip < s.strips; ++strip) {
      const A* from = scratch.statistics + (local * s.strips + strip) * 2 * s.channels + c;
      const int64_t done = strip * s.strip, now = min_of(s.strip, s.pixels - done);
      const A share = static_cast<A>(now) / static_cast<A>(done + now);
      const A difference = from[0] - mean;
      mean = done == 0 ? from[0] : mean + difference * share;
      squares += from[s.channels] + difference * difference * (share * static_cast<A>(done));
    }
    const A rstd = rstd_of(squares, s.pixels, args.eps);
    static_cast<A*>(args.mean)[sample * s.c + c] = scratch.mean[local * s.channels + c] = mean;
    static_cast<A*>(args.rstd)[sample * s.c + c] = scratch.rstd[local * s.channels + c] = rstd;
  }
  for (int64_t c = end; c < (block + 1) * kBlock; ++c) {
    scratch.mean[local * s.channels + c] = 0;
    scratch.rstd[local * s.channels + c] = 0;
  }
}

template <int PIXELS, typename T, typename A>
void blend_rows(const Sizes& s, const T* x, T* y, const A* weights, const A* styles, const A* mean, const A* rstd) {
  auto blend = [&](auto partial, int64_t c) __attribute__((always_inline)) {
    constexpr bool kPartial = decltype(partial)::value;
    const A* style = styles + c / kBlock * s.k * 2 * kBlock + c % kBlock;
    Vector<A> gain[PIXELS] = {}, shift[PIXELS] = {};
    for (int64_t code = 0; code < s.k; ++code) {
      const Vector<A> scale = load(style + 2 * code * kBlock), bias = load(style + (2 * code + 1) * kBlock);
      for (int p = 0; p < PIXELS; ++p) {
        gain[p] += scale * weights[code * kBlock + p];
        shift[p] += bias * weights[code * kBlock + p];
      }
    }
    const Vector<A> m = load(mean + c), r = load(rstd + c);
    for (int p = 0; p < PIXELS; ++p) {
      const Vector<A> in = load_up_to<kPartial, A>(x + p * s.c + c, s.c - c);
      const Vector<A> out = in * weights[s.k * kBlock + p] + ((in - m) * r * gain[p] + shift[p]);
      store_up_to<kPartial, A>(y + p * s.c + c, out, s.c - c);
    }
  };
  int64_t c = 0;
  for (; c + kLanes<A> <= s.c; c += kLanes<A>) blend(Whole{}, c);
  if (c < s.c) blend(Partial{}, c);
}

// Calls body(pixels, at) for the pixels of a strip, several at a time: `pixels` is their number as a type.
template <int PIXELS>
struct Count {
  static constexpr int value = PIXELS;
};
template <typename Body>
void for_pixels(int64_t count, const Body& body) {
  int64_t at = 0;
  for (; at + kPixelsAtOnce <= count; at += kPixelsAtOnce) body(Count<kPixelsAtOnce>{}, at);
  for (; at < count; ++at) body(Count<1>{}, at);
}

template <typename T, typename A>
void forward_rows(const Sizes& s, const Scratch<A>& scratch, const Forward& args, int64_t local, int64_t sample,
                  int64_t strip) {
  const int64_t first = strip * s.strip, count = min_of(s.strip, s.pixels - first);
  const T* x = static_cast<const T*>(args.x) + (sample * s.pixels + first) * s.c;
  T* y = static_cast<T*>(args.y) + (sample * s.pixels + first) * s.c;
  const A* weights = strip_weights(s, scratch.weights, local, strip);
  for_pixels(count, [&](auto pixels, int64_t at) {
    blend_rows<decltype(pixels)::value>(
        s, x + at * s.c, y + at * s.c, weights + at / kBlock * (s.k + 1) * kBlock + at % kBlock,
        styles_of(s, scratch.styles, local, 0), scratch.mean + local * s.channels, scratch.rstd + local * s.channels);
  });
}

// Channels whose gradients are held at once, widened, while all codes are gone through.
constexpr int64_t kSection = 256;

template <int PIXELS, typename A>
struct Section {
  A grad[PIXELS][kSection];
  A grad_x_hat[PIXELS][kSection];
};

// Fills `section` with a few pixels of `count` channels, padded to whole blocks, and adds to dL/dkeep.
template <int PIXELS, typename T, typename A>
void read_section(const Sizes& s, const T* grad, const T* x, const A* mean, const A* rstd, int64_t count, A* grad_keep,
                  Section<PIXELS, A>& section) {
  Vector<A> keep[PIXELS] = {};
  for (int64_t c = 0; c < ceil_div(count, kBlock) * kBlock; c += kLanes<A>) {
    const Vector<A> m = load(mean + c), r = load(rstd + c);
    for (int p = 0; p < PIXELS; ++p) {
      const Vector<A> g = load_up_to<true, A>(grad + p * s.c + c, count - c);
      const Vector<A> in = load_up_to<true, A>(x + p * s.c + c, count - c);
      keep[p] += g * in;
      store(section.grad[p] + c, g);
      store(section.grad_x_hat[p] + c, g * ((in - m) * r));
    }
  }
  for (int p = 0; p < PIXELS; ++p) grad_keep[p] += sum_of<A>(keep[p]);
}

// For one code and PIXELS pixels: adds to dL/dweights, and g w and g x_hat w to the sums of every channel.
template <int PIXELS, typename A>
void reduce_section(int64_t blocks, int64_t stride, const Section<PIXELS, A>& section, const A* weights,
                    A* grad_weights, const A* styles, A* grad_styles) {
  Vector<A> grad_weight[PIXELS] = {};
  for (int64_t block = 0; block < blocks; ++block, styles += stride, grad_styles += stride) {
    for (int lane = 0; lane < kBlock; lane += kLanes<A>) {
      const Vector<A> scale = load(styles + lane), bias = load(styles + kBlock + lane);
      Vector<A> grad_scale = load(static_cast<const A*>(grad_styles + lane));
      Vector<A> grad_bias = load(static_cast<const A*>(grad_styles + kBlock + lane));
      for (int p = 0; p < PIXELS; ++p) {
        const Vector<A> g = load(section.grad[p] + block * kBlock + lane);
        const Vector<A> gx = load(section.grad_x_hat[p] + block * kBlock + lane);
        grad_scale += gx * weights[p];
        grad_bias += g * weights[p];
        grad_weight[p] += gx * scale;
        grad_weight[p] += g * bias;
      }
      store(grad_styles + lane, grad_scale);
      store(grad_styles + kBlock + lane, grad_bias);
    }
  }
  for (int p = 0; p < PIXELS; ++p) grad_weights[p] += sum_of<A>(grad_weight[p]);
}

template <int PIXELS, typename T, typename A>
void reduce_rows(const Sizes& s, const T* grad, const T* x, const A* weights, A* grad_weights, const A* styles,
                 const A* mean, const A* rstd, A* grad_styles) {
  Section<PIXELS, A> section;
  const int64_t stride = s.k * 2 * kBlock;
  for (int64_t c = 0; c < s.c; c += kSection) {
    const int64_t count = min_of(kSection, s.c - c);
    read_section(s, grad + c, x + c, mean + c, rstd + c, count, grad_weights + s.k * kBlock, section);
    const int64_t from = c / kBlock * stride;
    for (int64_t code = 0; code < s.k; ++code) {
      reduce_section(ceil_div(count, kBlock), stride, section, weights + code * kBlock, grad_weights + code * kBlock,
                     styles + from + 2 * code * kBlock, grad_styles + from + 2 * code * kBlock);
    }
  }
}

template <typename T, typename A>
void reduce_task_channels_last(const Sizes& s, const Scratch<A>& scratch, const Backward& args, int64_t local,
                               int64_t sample, int64_t strip) {
  const int64_t first = strip * s.strip, count = min_of(s.strip, s.pixels - first);
  const T* grad = static_cast<const T*>(args.grad) + (sample * s.pixels + first) * s.c;
  const T* x = static_cast<const T*>(args.x) + (sample * s.pixels + first) * s.c;
  const A* weights = strip_weights(s, scratch.weights, local, strip);
  A* grad_weights = strip_weights(s, scratch.grad_weights, local, strip);
  const int64_t size = s.channel_blocks * s.k * 2 * kBlock;
  A* grad_styles = scratch.grad_styles + (local * s.strips + strip) * size;
  for (int64_t i = 0; i < size; ++i) grad_styles[i] = 0;
  const A* styles = styles_of(s, scratch.styles, local, 0);
  const A* mean = scratch.mean + local * s.channels;
  const A* rstd = scratch.rstd + local * s.channels;
  for_pixels(count, [&](auto pixels, int64_t at) {
    constexpr int kPixels = decltype(pixels)::value;
    const int64_t place = at / kBlock * (s.k + 1) * kBlock + at % kBlock;
    reduce_rows<kPixels>(s, grad + at * s.c, x + at * s.c, weights + place, grad_weights + place, styles, mean, rstd,
                         grad_styles);
  });
}

template <int PIXELS, typename T, typename A>
void grad_rows_of(const Sizes& s, const T* grad, const T* x, T* grad_x, const A* weights, const A* styles,
                  const A* mean, const A* rstd, const A* mean_u, const A* mean_ux) {
  auto run = [&](auto partial, int64_t c) __attribute__((always_inline)) {
    constexpr bool kPartial = decltype(partial)::value;
    const A* style = styles + c / kBlock * s.k * 2 * kBlock + c % kBlock;
    Vector<A> gain[PIXELS] = {};
    for (int64_t code = 0; code < s.k; ++code) {
      const Vector<A> scale = load(style + 2 * code * kBlock);
      for (int p = 0; p < PIXELS; ++p) gain[p] += scale * weights[code * kBlock + p];
    }
    const Vector<A> m = load(mean + c), r = load(rstd + c), mu = load(mean_u + c), mux = load(mean_ux + c);
    for (int p = 0; p < PIXELS; ++p) {
      const Vector<A> g = load_up_to<kPartial, A>(grad + p * s.c + c, s.c - c);
      const Vector<A> x_hat = (load_up_to<kPartial, A>(x + p * s.c + c, s.c - c) - m) * r;
      const Vector<A> normal = g * gain[p] - mu - x_hat * mux;
      store_up_to<kPartial, A>(grad_x + p * s.c + c, g * weights[s.k * kBlock + p] + normal * r, s.c - c);
    }
  };
  int64_t c = 0;
  for (; c + kLanes<A> <= s.c; c += kLanes<A>) run(Whole{}, c);
  if (c < s.c) run(Partial{}, c);
}

template <typename T, typename A>
void grad_rows(const Sizes& s, const Scratch<A>& scratch, const Backward& args, int64_t local, int64_t sample,
               int64_t strip) {
  const int64_t first = strip * s.strip, count = min_of(s.strip, s.pixels - first);
  const int64_t start = (sample * s.pixels + first) * s.c, row = local * s.channels;
  const A* weights = strip_weights(s, scratch.weights, local, strip);
  for_pixels(count, [&](auto pixels, int64_t at) {
    const int64_t from = start + at * s.c;
    grad_rows_of<decltype(pixels)::value>(s, static_cast<const T*>(args.grad) + from,
                                          static_cast<const T*>(args.x) + from, static_cast<T*>(args.grad_x) + from,
                                          weights + at / kBlock * (s.k + 1) * kBlock + at % kBlock,
                                          styles_of(s, scratch.styles, local, 0), scratch.mean + row,
                                          scratch.rstd + row, scratch.mean_u + row, scratch.mean_ux + row);
  });
}

// ---------------------------------------------------------------- the two passes

template <typename T, typename A>
void forward_samples(const Sizes& s, const Scratch<A>& scratch, const Forward& args, const Parallel& parallel,
                     int64_t first, int64_t samples) {
  const bool channels_last = args.shape.channels_last;
  gates_and_styles(s, scratch, args, parallel, first, samples);
  for_each(parallel, samples * s.strips, [&](int64_t index) {
    const int64_t local = index / s.strips, strip = index % s.strips;
    weights_of_task(s, scratch, local, strip);
    if (channels_last) {
      const T* x = static_cast<const T*>(args.x) + ((first + local) * s.pixels + strip * s.strip) * s.c;
      A* mean = scratch.statistics + index * 2 * s.channels;
      strip_statistics(s, x, min_of(s.strip, s.pixels - strip * s.strip), mean, mean + s.channels);
    }
  });
  if (channels_last) {
    for_each(parallel, samples * s.channel_blocks, [&](int64_t index) {
      const int64_t local = index / s.channel_blocks;
      merge_statistics(s, scratch, args, local, first + local, index % s.channel_blocks);
    });
  }
  const int64_t pieces = channels_last ? s.strips : s.groups;
  for_each(parallel, samples * pieces, [&](int64_t index) {
    const int64_t local = index / pieces;
    const auto run = channels_last ? forward_rows<T, A> : forward_planes<T, A>;
    run(s, scratch, args, local, first + local, index % pieces);
  });
}

template <typename T, typename A>
void forward_typed(const Forward& args, const Parallel& parallel) {
  const bool channels_last = args.shape.channels_last;
  const Sizes s(args.shape, sizeof(T));
  const Plan plan = Plan::of<A>(s, channels_last, false, sizeof(T), parallel.threads);
  for_samples<A>(s, channels_last, false, plan, args.workspace, parallel,
                 [&](const Scratch<A>& scratch, const Parallel& inner, int64_t first, int64_t samples) {
                   forward_samples<T>(s, scratch, args, inner, first, samples);
                 });
}

// Statistics of a sample, padded to whole blocks.
template <typename A>
void pack_statistics(const Sizes& s, const Scratch<A>& scratch, const Backward& args, int64_t first, int64_t samples) {
  for (int64_t local = 0; local < samples; ++local) {
    const int64_t from = (first + local) * s.c, to = local * s.channels;
    for (int64_t c = 0; c < s.channels; ++c) {
      scratch.mean[to + c] = c < s.c ? static_cast<const A*>(args.mean)[from + c] : A(0);
      scratch.rstd[to + c] = c < s.c ? static_cast<const A*>(args.rstd)[from + c] : A(0);
    }
  }
}

// Gradients of the styles of one block of channels: adds up the strips. Then mean(u) = sum_k scale_k grad_bias_k
// / pixels and mean(u x_hat) = sum_k scale_k grad_scale_k / pixels.
template <typename A>
void styles_backward(const Sizes& s, const Scratch<A>& scratch, const Backward& args, int64_t local, int64_t sample,
                     int64_t block) {
  const A* styles = scratch.styles + (local * s.channel_blocks + block) * s.k * 2 * kBlock;
  const int64_t per_strip = s.channel_blocks * s.k * 2 * kBlock;
  const int64_t count = min_of(kBlock, s.c - block * kBlock);
  A mean_u[kBlock] = {}, mean_ux[kBlock] = {};
  for (int64_t code = 0; code < s.k; ++code) {
    A sums[2 * kBlock] = {};
    const A* from = scratch.grad_styles + local * s.strips * per_strip + (block * s.k + code) * 2 * kBlock;
    for (int64_t strip = 0; strip < s.strips; ++strip, from += per_strip) {
      for (int64_t i = 0; i < 2 * kBlock; ++i) sums[i] += from[i];
    }
    const int64_t out = (sample * s.k + code) * s.c + block * kBlock;
    for (int64_t i = 0; i < count; ++i) {
      static_cast<A*>(args.grad_scale)[out + i] = sums[i];
      static_cast<A*>(args.grad_bias)[out + i] = sums[kBlock + i];
      mean_ux[i] += styles[2 * code * kBlock + i] * sums[i];
      mean_u[i] += styles[2 * code * kBlock + i] * sums[kBlock + i];
    }
  }
  for (int64_t i = 0; i < kBlock; ++i) {
    const int64_t at = local * s.channels + block * kBlock + i;
    scratch.mean_u[at] = mean_u[i] / static_cast<A>(s.pixels);
    scratch.mean_ux[at] = mean_ux[i] / static_cast<A>(s.pixels);
  }
}

template <typename T, typename A>
void reduce_task(const Sizes& s, const Scratch<A>& scratch, const Backward& args, int64_t local, int64_t sample,
                 int64_t strip) {
  weights_of_task(s, scratch, local, strip);
  const int64_t first = strip * s.strip, count = min_of(s.strip, s.pixels - first);
  A* grad_weights = strip_weights(s, scratch.grad_weights, local, strip);
  for (int64_t i = 0; i < ceil_div(count, kBlock) * (s.k + 1) * kBlock; ++i) grad_weights[i] = 0;
  if (args.shape.channels_last) {
    reduce_task_channels_last<T>(s, scratch, args, local, sample, strip);
  } else {
    reduce_task_contiguous<T>(s, scratch, args, local, sample, strip);
  }
  masks_backward(s, scratch.gate_h + local * s.k * s.j * s.h, scratch.gate_w + local * s.k * s.j * s.w,
                 static_cast<const A*>(strip_weights(s, scratch.weights, local, strip)),
                 static_cast<const A*>(grad_weights), first, count,
                 scratch.grad_masks + local * s.k * s.pixel_blocks * kBlock + first);
}

template <typename T, typename A>
void backward_samples(const Sizes& s, const Scratch<A>& scratch, const Backward& args, const Parallel& parallel,
                      int64_t first, int64_t samples) {
  const bool channels_last = args.shape.channels_last;
  gates_and_styles(s, scratch, args, parallel, first, samples);
  pack_statistics(s, scratch, args, first, samples);
  for_each(parallel, samples * s.strips, [&](int64_t index) {
    const int64_t local = index / s.strips;
    reduce_task<T>(s, scratch, args, local, first + local, index % s.strips);
  });
  const int64_t tasks = s.k + s.channel_blocks;
  for_each(parallel, samples * tasks, [&](int64_t index) {
    const int64_t local = index / tasks, task = index % tasks;
    if (task < s.k) {
      gates_backward(s, scratch, args, local, first + local, task);
    } else {
      styles_backward(s, scratch, args, local, first + local, task - s.k);
    }
  });
  const int64_t pieces = channels_last ? s.strips : s.groups;
  for_each(parallel, samples * pieces, [&](int64_t index) {
    const int64_t local = index / pieces;
    const auto run = channels_last ? grad_rows<T, A> : grad_planes<T, A>;
    run(s, scratch, args, local, first + local, index % pieces);
  });
}

template <typename T, typename A>
void backward_typed(const Backward& args, const Parallel& parallel) {
  const bool channels_last = args.shape.channels_last;
  const Sizes s(args.shape, sizeof(T));
  const Plan plan = Plan::of<A>(s, channels_last, true, sizeof(T), parallel.threads);
  for_samples<A>(s, channels_last, true, plan, args.workspace, parallel,
                 [&](const Scratch<A>& scratch, const Parallel& inner, int64_t first, int64_t samples) {
                   backward_samples<T>(s, scratch, args, inner, first, samples);
                 });
  if (args.grad_mask_gain == nullptr) return;
  const A* of_samples = static_cast<const A*>(args.workspace);
  for (int64_t code = 0; code < s.k; ++code) {
    double sum = 0;
    for (int64_t sample = 0; sample < s.n; ++sample) sum += of_samples[sample * s.k + code];
    static_cast<A*>(args.grad_mask_gain)[code] = static_cast<A>(sum);
  }
}

template <typename A>
size_t workspace_typed(const Shape& shape, int64_t element_bytes, bool backward, int64_t threads) {
  const Sizes s(shape, element_bytes);
  return Plan::of<A>(s, shape.channels_last, backward, element_bytes, threads).bytes();
}

size_t workspace(const Shape& shape, bool backward, int64_t threads) {
  switch (shape.scalar) {
    case Scalar::f64:
      return workspace_typed<double>(shape, 8, backward, threads);
    case Scalar::f32:
      return workspace_typed<float>(shape, 4, backward, threads);
    default:
      return workspace_typed<float>(shape, 2, backward, threads);
  }
}

void forward(const Forward& args, const Parallel& parallel) {
  switch (args.shape.scalar) {
    case Scalar::f64:
      return forward_typed<double, double>(args, parallel);
    case Scalar::f32:
      return forward_typed<float, float>(args, parallel);
    case Scalar::f16:
      return forward_typed<f16, float>(args, parallel);
    case Scalar::bf16:
      return forward_typed<bf16, float>(args, parallel);
  }
}

void backward(const Backward& args, const Parallel& parallel) {
  switch (args.shape.scalar) {
    case Scalar::f64:
      return backward_typed<double, double>(args, parallel);
    case Scalar::f32:
      return backward_typed<float, float>(args, parallel);
    case Scalar::f16:
      return backward_typed<f16, float>(args, parallel);
    case Scalar::bf16:
      return backward_typed<bf16, float>(args, parallel);
  }
}

}  // namespace

extern const Kernels kernels;
const Kernels kernels = {workspace, forward, backward};

}  // namespace sc_layers::SC_LAYERS_ISA
