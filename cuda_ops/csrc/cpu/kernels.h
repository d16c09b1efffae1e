// What `kernels.cpp` offers, once per instruction set that it was compiled for.
#pragma once

#include "../constrict.h"

namespace sc_layers {

// A loop whose iterations may run in parallel: calls body(begin, end, context) on pieces that cover 0..size.
struct Parallel {
  int64_t threads;
  void (*run)(int64_t size, void (*body)(int64_t, int64_t, void*), void* context);
};

struct Kernels {
  size_t (*workspace)(const Shape&, bool backward, int64_t threads);
  void (*forward)(const Forward&, const Parallel&);
  void (*backward)(const Backward&, const Parallel&);
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
