// Contiguous features: vectors run along the pixels of a plane.
//
// Included by `kernels.cpp` only, like `vector.h`.
#pragma once

#include "layout.h"

namespace sc_layers::SC_LAYERS_ISA {
namespace {

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
void apply_planes(const Sizes& s, const Scratch<A>& scratch, const Apply& args, int64_t sample, int64_t group) {
  const int64_t begin = group * s.group, end = min_of(s.c, begin + s.group);
  const T* x = static_cast<const T*>(args.x) + sample * s.c * s.pixels;
  T* y = static_cast<T*>(args.y) + sample * s.c * s.pixels;
  const A* mean = scratch.mean + sample * s.channels;
  const A* rstd = scratch.rstd + sample * s.channels;
  for (int64_t strip = 0; strip < s.strips; strip += kStripsPerRun) {
    const int64_t first = strip * s.strip, count = min_of(kStripsPerRun * s.strip, s.pixels - first);
    const A* weights = strip_weights(s, scratch.weights, sample, strip);
    for (int64_t c = begin; c < end; c += 2) {
      const int64_t at = c * s.pixels + first;
      const auto run = c + 1 < end ? blend_run<2, T, A> : blend_run<1, T, A>;
      run(s, x + at, y + at, weights, styles_of<A>(s, scratch.styles, sample, c), mean + c, rstd + c, count);
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
void reduce_planes(const Sizes& s, const Scratch<A>& scratch, const BackwardSums& args, int64_t sample, int64_t strip) {
  const int64_t first = strip * s.strip, count = s.pixels_of(strip);
  const int64_t at = sample * s.c * s.pixels + first;
  const T* grad = static_cast<const T*>(args.grad) + at;
  const T* x = static_cast<const T*>(args.x) + at;
  const A* weights = strip_weights(s, scratch.weights, sample, strip);
  A* grad_weights = strip_weights(s, scratch.grad_weights, sample, strip);
  A* grad_styles = scratch.grad_styles + (sample * s.strips + strip) * s.channel_blocks * s.k * 2 * kBlock;
  const A* mean = scratch.mean + sample * s.channels;
  const A* rstd = scratch.rstd + sample * s.channels;
  for (int64_t c = 0; c < s.c; c += 2) {
    const A* styles = styles_of<A>(s, scratch.styles, sample, c);
    A* to = grad_styles + c / kBlock * s.k * 2 * kBlock + c % kBlock;
    const int64_t next = c + 3 < s.c ? 2 * s.pixels : 0;
    const auto reduce = c + 1 < s.c ? reduce_channels<2, T, A> : reduce_channels<1, T, A>;
    reduce(s, grad + c * s.pixels, x + c * s.pixels, weights, grad_weights, styles, mean + c, rstd + c, count, next,
           to);
  }
}

// dL/dx = g keep + rstd * (u - mean(u) - x_hat mean(u x_hat)) + addend,  u = g sum_k w_k scale_k
template <int CHANNELS, typename A>
struct NormBackward {
  PerChannel<CHANNELS, A> mean, rstd, mean_u, mean_ux, addend;

  NormBackward(const Scratch<A>& scratch, int64_t row)
      : mean(scratch.mean + row),
        rstd(scratch.rstd + row),
        mean_u(scratch.mean_u + row),
        mean_ux(scratch.mean_ux + row),
        addend(scratch.addend + row) {}
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
      store_up_to<PARTIAL, A>(grad_x + at, (g * keep + norm.addend[c]) + normal * norm.rstd[c], left);
    }
  }
}

template <int CHANNELS, typename T, typename A>
void grad_run(const Sizes& s, const T* grad, const T* x, T* grad_x, const A* weights, const A* styles,
              const Scratch<A>& scratch, int64_t row, int64_t count) {
  constexpr int kStep = kVectorsAtOnce<A> * kLanes<A>;
  const int64_t codes = s.k, plane = s.pixels, stride = (codes + 1) * kBlock;
  const NormBackward<CHANNELS, A> norm(scratch, row);
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
void grad_planes(const Sizes& s, const Scratch<A>& scratch, const BackwardInput& args, int64_t sample, int64_t group) {
  const int64_t begin = group * s.group, end = min_of(s.c, begin + s.group);
  const T* grad = static_cast<const T*>(args.grad) + sample * s.c * s.pixels;
  const T* x = static_cast<const T*>(args.x) + sample * s.c * s.pixels;
  T* grad_x = static_cast<T*>(args.grad_x) + sample * s.c * s.pixels;
  for (int64_t strip = 0; strip < s.strips; strip += kStripsPerRun) {
    const int64_t first = strip * s.strip, count = min_of(kStripsPerRun * s.strip, s.pixels - first);
    const A* weights = strip_weights(s, scratch.weights, sample, strip);
    for (int64_t c = begin; c < end; c += 2) {
      const int64_t at = c * s.pixels + first;
      const auto run = c + 1 < end ? grad_run<2, T, A> : grad_run<1, T, A>;
      run(s, grad + at, x + at, grad_x + at, weights, styles_of<A>(s, scratch.styles, sample, c), scratch,
          sample * s.channels + c, count);
    }
  }
}
}  // namespace
}  // namespace sc_layers::SC_LAYERS_ISA
