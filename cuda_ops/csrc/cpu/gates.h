// Gates and masks of a code, the blend weights of a group, and the way back (Eq. 3-5).
//
// Included by `kernels.cpp` only, like `vector.h`.
#pragma once

#include "layout.h"

namespace sc_layers::SC_LAYERS_ISA {
namespace {

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

// From dL/dgate to dL/dlogits, the gate without its factor; `added` (or null) is what else reaches the logits.
template <typename A>
void band_gates_backward(const A* grad_gate, int64_t j, int64_t size, const A* soft, const A* cum, const A* added,
                         A* grad_logits) {
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
  if (added == nullptr) return;
  for (int64_t i = 0; i < 2 * j * size; ++i) grad_logits[i] += added[i];
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
void masks_of_task_backward(const Sizes& s, const Scratch<A>& scratch, int64_t sample, int64_t strip) {
  const int64_t gates = sample * s.k * s.j, first = strip * s.strip;
  masks_backward<A>(s, scratch.gate_h + gates * s.h, scratch.gate_w + gates * s.w,
                    strip_weights(s, scratch.weights, sample, strip),
                    strip_weights(s, scratch.grad_weights, sample, strip), first, s.pixels_of(strip),
                    scratch.grad_masks + sample * s.k * s.pixel_blocks * kBlock + first);
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
void gates_backward(const Sizes& s, const Scratch<A>& scratch, const BackwardSums& args, int64_t sample, int64_t code) {
  const int64_t gate = (sample * s.k + code) * s.j;
  const A* gain = static_cast<const A*>(args.group.mask_gain);
  const A factor = (gain == nullptr ? A(1) : gain[code]) / static_cast<A>(s.j);
  const A* grad_mask = scratch.grad_masks + (sample * s.k + code) * s.pixel_blocks * kBlock;
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
  if (gain != nullptr) {
    static_cast<A*>(args.grad_mask_gain)[sample * s.k + code] = static_cast<A>(grad_gain / static_cast<double>(s.j));
  }
  auto logits_backward = [&](const A* grad_gate, int64_t size, const A* soft, const A* cum, const void* added,
                             void* grad_logits) {
    const int64_t at = gate * 2 * size;
    band_gates_backward(grad_gate + gate * size, s.j, size, soft + at, cum + at,
                        added == nullptr ? nullptr : static_cast<const A*>(added) + at,
                        static_cast<A*>(grad_logits) + at);
  };
  logits_backward(scratch.grad_gate_h, s.h, scratch.soft_h, scratch.cum_h, args.added_gate_logits_h,
                  args.grad_gate_logits_h);
  logits_backward(scratch.grad_gate_w, s.w, scratch.soft_w, scratch.cum_w, args.added_gate_logits_w,
                  args.grad_gate_logits_w);
}

template <typename A>
void gates_of_code(const Sizes& s, const Scratch<A>& scratch, const Group& group, int64_t sample, int64_t code) {
  const A* gain = static_cast<const A*>(group.mask_gain);
  const A factor = (gain == nullptr ? A(1) : gain[code]) / static_cast<A>(s.j);
  const int64_t gate = (sample * s.k + code) * s.j;
  auto make = [&](const void* logits, int64_t size, A scaled_by, A* soft, A* cum, A* gates) {
    const int64_t at = gate * 2 * size;
    band_gates(static_cast<const A*>(logits) + at, s.j, size, scaled_by, soft + at, cum + at, gates + gate * size);
  };
  make(group.gate_logits_h, s.h, factor, scratch.soft_h, scratch.cum_h, scratch.gate_h);
  make(group.gate_logits_w, s.w, A(1), scratch.soft_w, scratch.cum_w, scratch.gate_w);
}

template <typename A>
void weights_of_task(const Sizes& s, const Scratch<A>& scratch, int64_t sample, int64_t strip) {
  const int64_t gates = sample * s.k * s.j;
  weights_of_strip(s, scratch.gate_h + gates * s.h, scratch.gate_w + gates * s.w, strip * s.strip, s.pixels_of(strip),
                   strip_weights(s, scratch.weights, sample, strip));
}
}  // namespace
}  // namespace sc_layers::SC_LAYERS_ISA
