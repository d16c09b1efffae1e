// The operators on CUDA: current stream and device of PyTorch, memory from its allocator, errors with the shapes.
#include <torch/csrc/inductor/aoti_torch/generated/c_shim_cuda.h>

#include <mutex>
#include <vector>

#include "../binding.h"
#include "launch.h"

namespace sc_layers {
namespace {

const Device& device_of(int32_t index) {
  static std::mutex mutex;
  static std::vector<std::optional<Device>> known(64);  // by index; elements never move
  if (index < 0 || index >= static_cast<int32_t>(known.size())) fail("no CUDA device ", index);
  const std::lock_guard<std::mutex> lock(mutex);
  std::optional<Device>& device = known[index];
  if (!device) {
    Device found{};
    const char* error = query_device(index, found);
    if (error != nullptr) fail("CUDA device ", index, " does not answer: ", error);
    device = found;
  }
  return *device;
}

// A CUDA device made the current one, until the end of the call.
class CurrentDevice {
 public:
  explicit CurrentDevice(int32_t index) {
    check(aoti_torch_create_cuda_guard(index, &guard_), "choosing CUDA device ", index);
  }
  ~CurrentDevice() { aoti_torch_delete_cuda_guard(guard_); }
  CurrentDevice(const CurrentDevice&) = delete;
  CurrentDevice& operator=(const CurrentDevice&) = delete;

 private:
  CUDAGuardHandle guard_ = nullptr;
};

class CudaBackend {
 public:
  explicit CudaBackend(int32_t index) : current_(index), device_(device_of(index)) {
    check(aoti_torch_get_current_cuda_stream(index, &stream_), "asking for the current CUDA stream");
  }

  size_t statistics_workspace(const Shape& shape) const { return sc_layers::statistics_workspace(shape, device_); }
  size_t apply_workspace(const Shape& shape) const { return sc_layers::apply_workspace(shape, device_); }
  size_t backward_workspace(const Shape& shape) const { return sc_layers::backward_workspace(shape, device_); }

  void run(const Statistics& step) const { launch(launch_statistics, step, "statistics"); }
  void run(const Styles& step) const { launch(launch_styles, step, "styles"); }
  void run(const StylesBackward& step) const { launch(launch_styles_backward, step, "gradients of the styles"); }
  void run(const Apply& step) const { launch(launch_apply, step, "constriction"); }
  void run(const BackwardSums& step) const { launch(launch_backward_sums, step, "sums of the backward pass"); }
  void run(const BackwardInput& step) const { launch(launch_backward_input, step, "gradient of x"); }

  AOTITorchError multiply(AtenTensorHandle out, AtenTensorHandle left, AtenTensorHandle right, double beta,
                          double alpha) const {
    return aoti_torch_cuda_addmm_out(out, out, left, right, beta, alpha);
  }

 private:
  CurrentDevice current_;
  const Device& device_;
  void* stream_ = nullptr;

  template <typename Step>
  void launch(const char* (*function)(const Step&, const Device&, void*), const Step& step, const char* what) const {
    const char* error = function(step, device_, stream_);
    if (error == nullptr) return;
    const Shape& s = step.shape;
    fail(what, " could not be launched on CUDA: ", error, " (x [", s.n, ", ", s.c, ", ", s.h, ", ", s.w, "], K=", s.k,
         ", J=", s.j, ")");
  }
};

STABLE_TORCH_LIBRARY_IMPL(sc_layers, CUDA, library) { SC_LAYERS_OPERATORS(library, CudaBackend); }

}  // namespace
}  // namespace sc_layers
