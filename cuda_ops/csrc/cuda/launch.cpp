#include "launch.h"

#include <limits>
#include <stdexcept>

namespace sc_layers {
namespace {

void check_sizes(const Shape& shape) {
  constexpr int64_t kLimit = std::numeric_limits<int>::max() / 2;
  const bool fits = shape.h <= kLimit / shape.w && shape.c <= kLimit && shape.k <= kLimit / shape.j &&
                    shape.k * shape.j <= kLimit / (shape.h + shape.w);
  if (!fits) {
    throw std::invalid_argument("sc_layers::constrict: H * W, C and K * J * (H + W) must stay below 2^30 each on CUDA");
  }
}

class Placement {
 public:
  size_t place(int64_t count, int bytes_each) {
    constexpr size_t kAlignment = 256;
    const size_t start = bytes_;
    bytes_ = (start + static_cast<size_t>(count) * bytes_each + kAlignment - 1) / kAlignment * kAlignment;
    return start;
  }
  size_t bytes() const { return bytes_; }

 private:
  size_t bytes_ = 0;
};

Workspace workspace_of(const Shape& shape, const Plan& plan, bool backward) {
  const int each = accumulator_bytes(shape.scalar);
  const int64_t bands = shape.n * shape.k * shape.j;
  Placement memory;
  Workspace at{};
  at.gates_h = memory.place(bands * shape.h, each);
  at.gates_w = memory.place(bands * shape.w, each);
  const int64_t slices = plan.on_chip ? 0 : plan.slices;
  at.sums = memory.place(2 * shape.n * shape.c * slices * (backward ? shape.k : 1), each);
  if (backward) {
    at.grad_weights = memory.place(shape.n * plan.groups * (shape.k + 1) * shape.h * shape.w, each);
    at.grad_gain_each = memory.place(shape.n * shape.k, each);
  }
  at.bytes = memory.bytes();
  return at;
}

const Launcher& launcher(Scalar scalar) {
  switch (scalar) {
    case Scalar::f64: return kFloat64;
    case Scalar::f16: return kFloat16;
    case Scalar::bf16: return kBfloat16;
    default: return kFloat32;
  }
}

const GateLauncher& gate_launcher(Scalar scalar) { return scalar == Scalar::f64 ? kGatesFloat64 : kGatesFloat32; }

}  // namespace

size_t forward_workspace(const Shape& shape, const Device& device) {
  check_sizes(shape);
  return workspace_of(shape, plan_forward(shape, device), false).bytes;
}

size_t backward_workspace(const Shape& shape, const Device& device) {
  check_sizes(shape);
  return workspace_of(shape, plan_backward(shape, device), true).bytes;
}

const char* launch_forward(const Forward& call, const Device& device, void* stream) {
  if (call.shape.n == 0) return nullptr;
  check_sizes(call.shape);
  const Plan plan = plan_forward(call.shape, device);
  const Workspace at = workspace_of(call.shape, plan, false);
  const char* error = gate_launcher(call.shape.scalar).make(call, device, at, stream);
  return error != nullptr ? error : launcher(call.shape.scalar).forward(call, device, plan, at, stream);
}

const char* launch_backward(const Backward& call, const Device& device, void* stream) {
  if (call.shape.n == 0) return nullptr;
  check_sizes(call.shape);
  const Plan plan = plan_backward(call.shape, device);
  const Workspace at = workspace_of(call.shape, plan, true);
  const GateLauncher& gates = gate_launcher(call.shape.scalar);
  const char* error = gates.remake(call, device, at, stream);
  if (error == nullptr) error = launcher(call.shape.scalar).backward(call, device, plan, at, stream);
  return error != nullptr ? error : gates.differentiate(call, device, plan, at, stream);
}

}  // namespace sc_layers
