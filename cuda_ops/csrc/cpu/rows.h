// Features in channels_last: vectors run along the channels of a pixel.
//
// Included by `kernels.cpp` only, like `vector.h`.
#pragma once

#include "layout.h"

namespace sc_layers::SC_LAYERS_ISA {
namespace {

// Pixels handled together: their weights are scalars, the styles are read once for all of them.
constexpr int kPixelsAtOnce = 4;

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
void apply_rows(const Sizes& s, const Scratch<A>& scratch, const Apply& args, int64_t sample, int64_t strip) {
  const int64_t start = (sample * s.pixels + strip * s.strip) * s.c, row = sample * s.channels;
  const T* x = static_cast<const T*>(args.x) + start;
  T* y = static_cast<T*>(args.y) + start;
  const A* weights = strip_weights(s, scratch.weights, sample, strip);
  for_pixels(s.pixels_of(strip), [&](auto pixels, int64_t at) {
    blend_rows<decltype(pixels)::value>(
        s, x + at * s.c, y + at * s.c, weights + at / kBlock * (s.k + 1) * kBlock + at % kBlock,
        styles_of<A>(s, scratch.styles, sample, 0), scratch.mean + row, scratch.rstd + row);
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
void reduce_rows_of_strip(const Sizes& s, const Scratch<A>& scratch, const BackwardSums& args, int64_t sample,
                          int64_t strip) {
  const int64_t start = (sample * s.pixels + strip * s.strip) * s.c;
  const T* grad = static_cast<const T*>(args.grad) + start;
  const T* x = static_cast<const T*>(args.x) + start;
  const A* weights = strip_weights(s, scratch.weights, sample, strip);
  A* grad_weights = strip_weights(s, scratch.grad_weights, sample, strip);
  const int64_t size = s.channel_blocks * s.k * 2 * kBlock;
  A* grad_styles = scratch.grad_styles + (sample * s.strips + strip) * size;
  for (int64_t i = 0; i < size; ++i) grad_styles[i] = 0;
  const A* styles = styles_of<A>(s, scratch.styles, sample, 0);
  const A* mean = scratch.mean + sample * s.channels;
  const A* rstd = scratch.rstd + sample * s.channels;
  for_pixels(s.pixels_of(strip), [&](auto pixels, int64_t at) {
    constexpr int kPixels = decltype(pixels)::value;
    const int64_t place = at / kBlock * (s.k + 1) * kBlock + at % kBlock;
    reduce_rows<kPixels>(s, grad + at * s.c, x + at * s.c, weights + place, grad_weights + place, styles, mean, rstd,
                         grad_styles);
  });
}

template <int PIXELS, typename T, typename A>
void grad_rows_of(const Sizes& s, const T* grad, const T* x, T* grad_x, const A* weights, const A* styles,
                  const Scratch<A>& scratch, int64_t row) {
  auto run = [&](auto partial, int64_t c) __attribute__((always_inline)) {
    constexpr bool kPartial = decltype(partial)::value;
    const A* style = styles + c / kBlock * s.k * 2 * kBlock + c % kBlock;
    Vector<A> gain[PIXELS] = {};
    for (int64_t code = 0; code < s.k; ++code) {
      const Vector<A> scale = load(style + 2 * code * kBlock);
      for (int p = 0; p < PIXELS; ++p) gain[p] += scale * weights[code * kBlock + p];
    }
    auto of_channels = [&](const A* values) { return load(values + row + c); };
    const Vector<A> m = of_channels(scratch.mean), r = of_channels(scratch.rstd), mu = of_channels(scratch.mean_u),
                    mux = of_channels(scratch.mean_ux), addend = of_channels(scratch.addend);
    for (int p = 0; p < PIXELS; ++p) {
      const Vector<A> g = load_up_to<kPartial, A>(grad + p * s.c + c, s.c - c);
      const Vector<A> x_hat = (load_up_to<kPartial, A>(x + p * s.c + c, s.c - c) - m) * r;
      const Vector<A> normal = g * gain[p] - mu - x_hat * mux;
      store_up_to<kPartial, A>(grad_x + p * s.c + c, (g * weights[s.k * kBlock + p] + addend) + normal * r, s.c - c);
    }
  };
  int64_t c = 0;
  for (; c + kLanes<A> <= s.c; c += kLanes<A>) run(Whole{}, c);
  if (c < s.c) run(Partial{}, c);
}

template <typename T, typename A>
void grad_rows(const Sizes& s, const Scratch<A>& scratch, const BackwardInput& args, int64_t sample, int64_t strip) {
  const int64_t start = (sample * s.pixels + strip * s.strip) * s.c;
  const A* weights = strip_weights(s, scratch.weights, sample, strip);
  for_pixels(s.pixels_of(strip), [&](auto pixels, int64_t at) {
    const int64_t from = start + at * s.c;
    grad_rows_of<decltype(pixels)::value>(s, static_cast<const T*>(args.grad) + from,
                                          static_cast<const T*>(args.x) + from, static_cast<T*>(args.grad_x) + from,
                                          weights + at / kBlock * (s.k + 1) * kBlock + at % kBlock,
                                          styles_of<A>(s, scratch.styles, sample, 0), scratch, sample * s.channels);
  });
}
}  // namespace
}  // namespace sc_layers::SC_LAYERS_ISA
