// The passes over float64 features, plainly: a thread an element, or a warp a sum. They are there for gradient checks.
#pragma once

#include "tables.cuh"

namespace sc_layers {

inline int64_t x_size(const Shape& shape) { return shape.n * shape.c * shape.h * shape.w; }

// Where an element of x lies: its sample, channel and pixel, for a thread of its own.
struct Element {
  int64_t at, sample;
  int channel, pixel;
  bool exists;

  __device__ Element(const Tables<double>& tables, bool channels_last) : at(global_thread()) {
    const int64_t plane = static_cast<int64_t>(tables.channels) * tables.pixels, inner = at % plane;
    sample = at / plane;
    channel = static_cast<int>(channels_last ? inner % tables.channels : inner / tables.pixels);
    pixel = static_cast<int>(channels_last ? inner / tables.channels : inner % tables.pixels);
    exists = sample < tables.samples;
  }
};

// Numbers of the tables.
__device__ inline double weight_at(const Tables<double>& tables, int64_t sample, int code, int pixel) {
  const int64_t row = (code / kGroup * tables.samples + sample) * tables.pixel_rows + pixel;
  return load(reinterpret_cast<const double*>(tables.weights) + row * kGroup + code % kGroup);
}
__device__ inline double style_at(const Tables<double>& tables, int64_t sample, int code, int channel, int which) {
  const int64_t row = (code / kGroup * tables.samples + sample) * tables.channel_rows + channel;
  return load(reinterpret_cast<const double*>(tables.styles) + (2 * row + which) * kGroup + code % kGroup);
}
__device__ inline double keep_at(const Tables<double>& tables, int64_t sample, int pixel) {
  return load(tables.keep + sample * tables.pixel_rows + pixel);
}

}  // namespace sc_layers
