// What `kernels.cpp` offers, once per instruction set that it was compiled for.
#pragma once

#include "../constrict.h"

namespace sc_layers {

// Runs body(begin, end, context) on pieces of at least `grain` iterations that cover 0..size, maybe in parallel.
using Parallel = void (*)(int64_t size, int64_t grain, void (*body)(int64_t, int64_t, void*), void* context);

struct Kernels {
  size_t (*statistics_workspace)(const Shape&);
  size_t (*apply_workspace)(const Shape&);
  size_t (*backward_workspace)(const Shape&);
  void (*statistics)(const Statistics&, Parallel);
  void (*styles)(const Styles&, Parallel);
  void (*styles_backward)(const StylesBackward&, Parallel);
  void (*apply)(const Apply&, Parallel);
  void (*backward_sums)(const BackwardSums&, Parallel);
  void (*backward_input)(const BackwardInput&, Parallel);
};

namespace baseline {
extern const Kernels kernels;
}
namespace avx2 {
extern const Kernels kernels;
}
namespace avx512 {
extern const Kernels kernels;
}

}  // namespace sc_layers
