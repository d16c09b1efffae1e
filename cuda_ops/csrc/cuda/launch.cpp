#include "launch.h"

#include <array>
#include <cmath>
#include <limits>
#include <map>
#include <mutex>
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

// Plans are searched for once; a call asks twice, for its workspace and for its launches.
class Plans {
 public:
  Plan find(const Shape& shape, const Device& device, bool backward) {
    const Key key{shape.n,
                  shape.c,
                  shape.h,
                  shape.w,
                  shape.k,
                  shape.j,
                  static_cast<int64_t>(shape.scalar),
                  shape.channels_last,
                  backward,
                  device.multiprocessors,
                  device.shared_per_block,
                  device.shared_per_multiprocessor,
                  device.threads_per_multiprocessor,
                  device.max_cluster,
                  device.max_grid,
                  device.lanes,
                  std::llround(device.clock),
                  std::llround(device.bandwidth)};
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto known = plans_.find(key);
    if (known != plans_.end()) return known->second;
    if (plans_.size() >= kMost) plans_.clear();
    return plans_[key] = backward ? plan_backward(shape, device) : plan_forward(shape, device);
  }

 private:
  using Key = std::array<int64_t, 18>;
  static constexpr size_t kMost = 1024;
  std::mutex mutex_;
  std::map<Key, Plan> plans_;
};

Plan plan_of(const Shape& shape, const Device& device, bool backward) {
  static Plans plans;
  return plans.find(shape, device, backward);
}

const Launcher& launcher(Scalar scalar) {
  switch (scalar) {
    case Scalar::f64:
      return kFloat64;
    case Scalar::f16:
      return kFloat16;
    case Scalar::bf16:
      return kBfloat16;
    default:
      return kFloat32;
  }
}

const GateLauncher& gate_launcher(Scalar scalar) { return scalar == Scalar::f64 ? kGatesFloat64 : kGatesFloat32; }

}  // namespace

size_t forward_workspace(const Shape& shape, const Device& device) {
  check_sizes(shape);
  return workspace_of(shape, plan_of(shape, device, false), false).bytes;
}

size_t backward_workspace(const Shape& shape, const Device& device) {
  check_sizes(shape);
  return workspace_of(shape, plan_of(shape, device, true), true).bytes;
}

const char* launch_forward(const Forward& call, const Device& device, void* stream) {
  if (call.shape.n == 0) return nullptr;
  check_sizes(call.shape);
  const Plan plan = plan_of(call.shape, device, false);
  const Workspace at = workspace_of(call.shape, plan, false);
  const char* error = gate_launcher(call.shape.scalar).make(call, device, at, stream);
  return error != nullptr ? error : launcher(call.shape.scalar).forward(call, device, plan, at, stream);
}

const char* launch_backward(const Backward& call, const Device& device, void* stream) {
  if (call.shape.n == 0) return nullptr;
  check_sizes(call.shape);
  const Plan plan = plan_of(call.shape, device, true);
  const Workspace at = workspace_of(call.shape, plan, true);
  const GateLauncher& gates = gate_launcher(call.shape.scalar);
  const char* error = gates.remake(call, device, at, stream);
  if (error == nullptr) error = launcher(call.shape.scalar).backward(call, device, plan, at, stream);
  return error != nullptr ? error : gates.differentiate(call, device, plan, at, stream);
}

}  // namespace sc_layers
