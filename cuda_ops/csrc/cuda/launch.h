// The launches of one call, on raw pointers. No torch header and no CUDA header.
#pragma once

#include <cstddef>

#include "plan.h"

namespace sc_layers {

// What plans depend on, of a CUDA device; null, or the text of the error.
const char* query_device(int index, Device& device);

// Bytes of scratch memory that a call needs on this device.
size_t forward_workspace(const Shape& shape, const Device& device);
size_t backward_workspace(const Shape& shape, const Device& device);

// Enqueue a call; null, or why that failed. Nothing is waited for and nothing is allocated.
const char* launch_forward(const Forward& call, const Device& device, void* stream);
const char* launch_backward(const Backward& call, const Device& device, void* stream);

// Where a call's scratch memory holds what; all offsets are aligned for any access.
struct Workspace {
  size_t gates_h, gates_w, sums, grad_weights, grad_gain_each, bytes;
};

// The launches for one type of features, each compiled in its own file; and those for the gates.
struct Launcher {
  const char* (*forward)(const Forward&, const Device&, const Plan&, const Workspace&, void* stream);
  const char* (*backward)(const Backward&, const Device&, const Plan&, const Workspace&, void* stream);
};
extern const Launcher kFloat32, kFloat64, kFloat16, kBfloat16;

struct GateLauncher {
  const char* (*make)(const Forward&, const Device&, const Workspace&, void* stream);
  const char* (*remake)(const Backward&, const Device&, const Workspace&, void* stream);
  const char* (*differentiate)(const Backward&, const Device&, const Plan&, const Workspace&, void* stream);
};
extern const GateLauncher kGatesFloat32, kGatesFloat64;

}  // namespace sc_layers
