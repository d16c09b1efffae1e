// The operator on CUDA: current stream and device of PyTorch, memory from its allocator, errors with the shapes.
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>

#include <mutex>
#include <string>
#include <vector>

#include "../binding.h"
#include "launch.h"

namespace sc_layers {
namespace {

const Device& device_of(int32_t index) {
  static std::mutex mutex;
  static std::vector<std::optional<Device>> known(64);  // by index; elements never move
  STD_TORCH_CHECK(index >= 0 && index < static_cast<int32_t>(known.size()), "sc_layers: no CUDA device ", index);
  const std::lock_guard<std::mutex> lock(mutex);
  std::optional<Device>& device = known[index];
  if (!device) {
    Device found{};
    const char* error = query_device(index, found);
    STD_TORCH_CHECK(error == nullptr, "sc_layers: CUDA device ", index, " does not answer: ", error);
    device = found;
  }
  return *device;
}

void* current_stream(int32_t index) {
  void* stream = nullptr;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(index, &stream));
  return stream;
}

void check_launch(const char* error, const char* what, const Shape& s) {
  STD_TORCH_CHECK(error == nullptr, "sc_layers::", what, " could not be launched on CUDA: ", error, " (x [", s.n, ", ",
                  s.c, ", ", s.h, ", ", s.w, "], K=", s.k, ", J=", s.j, ")");
}

struct CudaBackend {
  static size_t forward_workspace(const Shape& shape, int32_t index) {
    return sc_layers::forward_workspace(shape, device_of(index));
  }
  static size_t backward_workspace(const Shape& shape, int32_t index) {
    return sc_layers::backward_workspace(shape, device_of(index));
  }
  static void forward(const Forward& call, int32_t index) {
    const torch::stable::accelerator::DeviceGuard guard(index);
    check_launch(launch_forward(call, device_of(index), current_stream(index)), "constrict", call.shape);
  }
  static void backward(const Backward& call, int32_t index) {
    const torch::stable::accelerator::DeviceGuard guard(index);
    check_launch(launch_backward(call, device_of(index), current_stream(index)), "constrict_backward", call.shape);
  }
};

STABLE_TORCH_LIBRARY_IMPL(sc_layers, CUDA, library) {
  library.impl("constrict", TORCH_BOX(&constrict<CudaBackend>));
  library.impl("constrict_backward", TORCH_BOX(&constrict_backward<CudaBackend>));
}

}  // namespace
}  // namespace sc_layers
