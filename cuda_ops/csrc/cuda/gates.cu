#include "gates.cuh"
#include "launch.cuh"

namespace sc_layers {
namespace {

template <typename A, typename Call>
GateArguments<A> gate_arguments(const Call& call, const Workspace& at) {
  GateArguments<A> arguments{};
  arguments.logits_h = static_cast<const A*>(call.gate_logits_h);
  arguments.logits_w = static_cast<const A*>(call.gate_logits_w);
  arguments.gain = static_cast<const A*>(call.mask_gain);
  arguments.gates_h = placed<A>(call.workspace, at.gates_h);
  arguments.gates_w = placed<A>(call.workspace, at.gates_w);
  arguments.sizes = sizes_of(call.shape);
  return arguments;
}

template <typename A, typename Call>
const char* make(const Call& call, const Device& device, const Workspace& at, void* stream) {
  const int64_t warps = 2 * call.shape.n * call.shape.k * call.shape.j;
  return launch_each(make_gates<A>, warps * kWarp, gate_arguments<A>(call, at), device, stream);
}

template <typename A>
const char* differentiate(const Backward& call, const Device& device, const Plan& plan, const Workspace& at,
                          void* stream) {
  const GatePlan gates = plan_gates(call.shape, device);
  GateArguments<A> arguments = gate_arguments<A>(call, at);
  arguments.grad_weights = placed<A>(call.workspace, at.grad_weights);
  arguments.grad_logits_h = static_cast<A*>(call.grad_gate_logits_h);
  arguments.grad_logits_w = static_cast<A*>(call.grad_gate_logits_w);
  arguments.grad_gain = static_cast<A*>(call.grad_mask_gain);
  arguments.grad_gain_each = call.grad_mask_gain == nullptr ? nullptr : placed<A>(call.workspace, at.grad_gain_each);
  arguments.groups = plan.groups;
  arguments.strip_rows = gates.strip_rows;
  arguments.strip_columns = gates.strip_columns;
  const auto kernel = gates.bands_on_chip ? differentiate_gates<A, true> : differentiate_gates<A, false>;
  const int64_t blocks = grid_of(call.shape.n * call.shape.k, device);
  const char* error = launch(kernel, blocks, kThreads, gates.shared_bytes, 1, stream, arguments);
  if (error != nullptr || call.grad_mask_gain == nullptr) return error;
  return launch_each(finish_gain<A>, call.shape.k, arguments, device, stream);
}

}  // namespace

const GateLauncher kGatesFloat32{make<float, Forward>, make<float, Backward>, differentiate<float>};
const GateLauncher kGatesFloat64{make<double, Forward>, make<double, Backward>, differentiate<double>};

}  // namespace sc_layers
