// The operators on the CPU: one instruction set of several, and PyTorch's threads lent to the kernels.
#if defined(__x86_64__)
#include <cpuid.h>
#endif
#include <torch/csrc/inductor/aoti_torch/generated/c_shim_cpu.h>

#include <atomic>
#include <cstring>

#include "../binding.h"
#include "kernels.h"

namespace sc_layers {
namespace {

struct Variant {
  const char* name;
  const Kernels* kernels;
  bool supported;  // by this processor and operating system
};

#if defined(__x86_64__)
// __builtin_cpu_supports knows this one from GCC 11 and Clang 15 on.
bool has_f16c() {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  return __get_cpuid(1, &eax, &ebx, &ecx, &edx) != 0 && (ecx & bit_F16C) != 0;
}
#endif

// Best first.
const auto& variants() {
#if defined(__x86_64__)
  static const bool has_avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c();
  static const bool has_avx512 = has_avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                                 __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
  static const std::array<Variant, 3> all{{{"avx512", &avx512::kernels, has_avx512},
                                           {"avx2", &avx2::kernels, has_avx2},
                                           {"baseline", &baseline::kernels, true}}};
#else
  static const std::array<Variant, 1> all{{{"baseline", &baseline::kernels, true}}};
#endif
  return all;
}

// The supported variant of that name, or the best one if the name is empty; null if there is none.
const Variant* find_variant(const char* name) {
  for (const Variant& variant : variants()) {
    if (variant.supported && (*name == '\0' || std::strcmp(name, variant.name) == 0)) return &variant;
  }
  return nullptr;
}

std::atomic<const Variant*>& chosen() {
  static std::atomic<const Variant*> variant{find_variant("")};
  return variant;
}

// The body must not throw: PyTorch calls it on its own threads, by a C interface. Kernels are compiled without
// exceptions.
void run_parallel(int64_t size, int64_t grain, void (*body)(int64_t, int64_t, void*), void* context) {
  check(torch_parallel_for(0, size, grain, body, context), "running on PyTorch's threads");
}

class CpuBackend {
 public:
  explicit CpuBackend(int32_t /*device_index*/) {}

  size_t statistics_workspace(const Shape& shape) const { return kernels_.statistics_workspace(shape); }
  size_t apply_workspace(const Shape& shape) const { return kernels_.apply_workspace(shape); }
  size_t backward_workspace(const Shape& shape) const { return kernels_.backward_workspace(shape); }

  void run(const Statistics& step) const { kernels_.statistics(step, run_parallel); }
  void run(const Styles& step) const { kernels_.styles(step, run_parallel); }
  void run(const StylesBackward& step) const { kernels_.styles_backward(step, run_parallel); }
  void run(const Apply& step) const { kernels_.apply(step, run_parallel); }
  void run(const BackwardSums& step) const { kernels_.backward_sums(step, run_parallel); }
  void run(const BackwardInput& step) const { kernels_.backward_input(step, run_parallel); }

  AOTITorchError multiply(AtenTensorHandle out, AtenTensorHandle left, AtenTensorHandle right, double beta,
                          double alpha) const {
    return aoti_torch_cpu_addmm_out(out, out, left, right, beta, alpha);
  }

 private:
  const Kernels& kernels_ = *chosen().load()->kernels;
};

STABLE_TORCH_LIBRARY_IMPL(sc_layers, CPU, library) { SC_LAYERS_OPERATORS(library, CpuBackend); }

}  // namespace
}  // namespace sc_layers

// For Python, by ctypes.
extern "C" {
// Name of the instruction set in use.
__attribute__((visibility("default"))) const char* sc_layers_cpu_isa() { return sc_layers::chosen().load()->name; }

// Uses the named instruction set from now on, the best one if the name is empty; 0 if this processor has none so named.
__attribute__((visibility("default"))) int sc_layers_cpu_use(const char* name) {
  const sc_layers::Variant* variant = sc_layers::find_variant(name);
  if (variant != nullptr) sc_layers::chosen() = variant;
  return variant != nullptr;
}
}
