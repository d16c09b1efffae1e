// Turns a call into kernel arguments and launches, for one type of features.
#pragma once

#include "backward.cuh"
#include "forward.cuh"
#include "launch.h"

namespace sc_layers {

inline Sizes sizes_of(const Shape& shape) {
  const auto narrow = [](int64_t value) { return static_cast<int>(value); };
  return {shape.n,         narrow(shape.c), narrow(shape.h),    narrow(shape.w), narrow(shape.h * shape.w),
          narrow(shape.k), narrow(shape.j), shape.channels_last};
}

template <typename A>
A* placed(void* workspace, size_t offset) {
  return reinterpret_cast<A*>(static_cast<unsigned char*>(workspace) + offset);
}

template <typename Call, typename A>
Gates<A> gates_of(const Call& call, const Workspace& at) {
  return {placed<A>(call.workspace, at.gates_h), placed<A>(call.workspace, at.gates_w),
          static_cast<const A*>(call.mask_gain)};
}

inline int64_t grid_of(int64_t blocks, const Device& device, int cluster = 1) {
  return std::min(blocks, device.max_grid / cluster * cluster);
}

template <typename Arguments>
const char* launch_main(void (*kernel)(Arguments), const Arguments& arguments, const Device& device, void* stream) {
  const Plan& plan = arguments.plan;
  return launch(kernel, grid_of(plan.blocks, device, plan.cluster), kThreads, plan.shared.bytes, plan.cluster, stream,
                arguments);
}

template <typename Arguments>
const char* launch_each(void (*kernel)(Arguments), int64_t count, const Arguments& arguments, const Device& device,
                        void* stream) {
  return launch(kernel, grid_of((count + kThreads - 1) / kThreads, device), kThreads, 0, 1, stream, arguments);
}

template <typename T>
const char* forward_of(const Forward& call, const Device& device, const Plan& plan, const Workspace& at, void* stream) {
  using A = accumulator_t<T>;
  const ForwardArguments<T> arguments{static_cast<const T*>(call.x),
                                      gates_of<Forward, A>(call, at),
                                      static_cast<const A*>(call.scale),
                                      static_cast<const A*>(call.bias),
                                      static_cast<A>(call.eps),
                                      static_cast<T*>(call.y),
                                      static_cast<A*>(call.mean),
                                      static_cast<A*>(call.rstd),
                                      placed<A>(call.workspace, at.sums),
                                      sizes_of(call.shape),
                                      plan};
  if (plan.on_chip) return launch_main(constrict_forward<T, Stage::whole>, arguments, device, stream);
  const char* error = launch_main(constrict_forward<T, Stage::statistics>, arguments, device, stream);
  if (error == nullptr) {
    error = launch_each(finish_statistics<T>, call.shape.n * call.shape.c, arguments, device, stream);
  }
  return error != nullptr ? error : launch_main(constrict_forward<T, Stage::apply>, arguments, device, stream);
}

template <typename T>
const char* backward_of(const Backward& call, const Device& device, const Plan& plan, const Workspace& at,
                        void* stream) {
  using A = accumulator_t<T>;
  const BackwardArguments<T> arguments{static_cast<const T*>(call.grad),
                                       static_cast<const T*>(call.x),
                                       gates_of<Backward, A>(call, at),
                                       static_cast<const A*>(call.scale),
                                       static_cast<const A*>(call.bias),
                                       static_cast<const A*>(call.mean),
                                       static_cast<const A*>(call.rstd),
                                       static_cast<T*>(call.grad_x),
                                       static_cast<A*>(call.grad_scale),
                                       static_cast<A*>(call.grad_bias),
                                       placed<A>(call.workspace, at.grad_weights),
                                       placed<A>(call.workspace, at.sums),
                                       sizes_of(call.shape),
                                       plan};
  if (plan.on_chip) return launch_main(constrict_backward<T, Stage::whole>, arguments, device, stream);
  const char* error = launch_main(constrict_backward<T, Stage::statistics>, arguments, device, stream);
  if (error == nullptr) {
    error = launch_each(finish_sums<T>, call.shape.n * call.shape.c * call.shape.k, arguments, device, stream);
  }
  return error != nullptr ? error : launch_main(constrict_backward<T, Stage::apply>, arguments, device, stream);
}

}  // namespace sc_layers
