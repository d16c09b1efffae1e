// What decides at a pixel, in the scratch memory of a call: gates, and weights of the codes.
#pragma once

#include "device.cuh"

namespace sc_layers {

constexpr int kPad = 32;  // planes of weights have a multiple of this many pixels; those beyond the end are zeros

template <typename A>
struct Weights {
  A* gates_h;  // [n, k, j, h]
  A* gates_w;  // [n, k, j, w]
  A* planes;   // [n, k + 1, stride]: w_k, and keep as the last one
  A* masks;    // [n, k, h w]: a_k for the backward pass, else null
  int64_t samples;
  int channels, pixels, width, height, codes, rects;
  int stride;

  __device__ const A* plane(int64_t sample, int code) const { return planes + (sample * (codes + 1) + code) * stride; }
};

// Hands out scratch memory in order; without memory it only counts.
class Scratch {
 public:
  explicit Scratch(void* start) : start_(static_cast<unsigned char*>(start)) {}
  template <typename A>
  A* take(int64_t count) {
    constexpr size_t kAlignment = 256;
    const size_t at = bytes_;
    bytes_ = (at + sizeof(A) * count + kAlignment - 1) / kAlignment * kAlignment;
    return start_ == nullptr ? nullptr : reinterpret_cast<A*>(start_ + at);
  }
  size_t bytes() const { return bytes_; }

 private:
  unsigned char* start_;
  size_t bytes_ = 0;
};

template <typename A>
Weights<A> weights_of(const Shape& s, Scratch& scratch, bool with_masks) {
  const int64_t stride = ceil_divide(s.h * s.w, kPad) * kPad;
  A* gates_h = scratch.take<A>(s.n * s.k * s.j * s.h);
  A* gates_w = scratch.take<A>(s.n * s.k * s.j * s.w);
  A* planes = scratch.take<A>(s.n * (s.k + 1) * stride);
  A* masks = with_masks ? scratch.take<A>(s.n * s.k * s.h * s.w) : nullptr;
  return {gates_h,           gates_w,     planes,      masks,       s.n,         narrow(s.c),
          narrow(s.h * s.w), narrow(s.w), narrow(s.h), narrow(s.k), narrow(s.j), narrow(stride)};
}

// Fills them; in weights.cu.
template <typename A>
const char* make_weights(const Group& group, const Weights<A>& weights, void* stream);

template <typename A>
__device__ inline A inclusive_scan(A value, int lane) {
#pragma unroll
  for (int offset = 1; offset < kWarp; offset *= 2) {
    const A other = __shfl_up_sync(kAllLanes, value, offset);
    if (lane >= offset) value += other;
  }
  return value;
}

// The soft band of a gate: softmaxes of two vectors of logits, and their cumulative sums, walked by a warp.
template <typename A>
struct Band {
  const A* start;
  const A* end;
  int length, lane;
  A start_max, end_max, start_scale, end_scale;

  __device__ Band(const A* logits, int length_, int lane_)
      : start(logits), end(logits + length_), length(length_), lane(lane_) {
    softmax_of(start, start_max, start_scale);
    softmax_of(end, end_max, end_scale);
  }

  __device__ void softmax_of(const A* logits, A& largest, A& scale) const {
    largest = load(logits);
    for (int i = lane; i < length; i += kWarp) {
      const A value = load(logits + i);
      largest = value > largest ? value : largest;
    }
#pragma unroll
    for (int offset = kWarp / 2; offset > 0; offset /= 2) {
      const A other = __shfl_xor_sync(kAllLanes, largest, offset);
      largest = other > largest ? other : largest;
    }
    A sum = 0;
    for (int i = lane; i < length; i += kWarp) sum += std::exp(load(logits + i) - largest);
    scale = A(1) / team_sum(sum);
  }

  // Calls visit(i, p_start, p_end, cumax_start, cumax_end) for every position, 32 at a time and in order; all lanes
  // call it, those beyond the end with zeros.
  template <typename Visit>
  __device__ void walk(Visit visit) const {
    A start_sum = 0, end_sum = 0;
    for (int first = 0; first < length; first += kWarp) {
      const int i = first + lane;
      const bool inside = i < length;
      const A p_start = inside ? std::exp(load(start + i) - start_max) * start_scale : A(0);
      const A p_end = inside ? std::exp(load(end + i) - end_max) * end_scale : A(0);
      const A cumax_start = start_sum + inclusive_scan(p_start, lane);
      const A cumax_end = end_sum + inclusive_scan(p_end, lane);
      visit(i, p_start, p_end, cumax_start, cumax_end);
      start_sum = __shfl_sync(kAllLanes, cumax_start, kWarp - 1);
      end_sum = __shfl_sync(kAllLanes, cumax_end, kWarp - 1);
    }
  }
};

}  // namespace sc_layers
