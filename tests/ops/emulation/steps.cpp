// The steps of launch.h for ctypes: see steps.py.
#include "launch.h"

using namespace sc_layers;

#define STEP(name, Call)                                                          \
  const char* step_##name(const Call* call, const Device* device, void* stream) { \
    return launch_##name(*call, *device, stream);                                 \
  }

extern "C" {

size_t statistics_bytes(const Shape* shape, const Device* device) { return statistics_workspace(*shape, *device); }
size_t apply_bytes(const Shape* shape, const Device* device) { return apply_workspace(*shape, *device); }
size_t backward_bytes(const Shape* shape, const Device* device) { return backward_workspace(*shape, *device); }

STEP(statistics, Statistics)
STEP(styles, Styles)
STEP(styles_backward, StylesBackward)
STEP(apply, Apply)
STEP(backward_sums, BackwardSums)
STEP(backward_input, BackwardInput)

}  // extern "C"
